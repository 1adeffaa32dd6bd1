"""The labels of classes: a check of what they may be, and how those of two calls are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from sklearn.utils.multiclass import type_of_target

__all__ = ["Labels", "check_label_objects"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Labels:
    """The labels of a call, and all that the targets depend on which they become.

    Attributes
    ----------
    y, classes : ndarray
        The labels, and all labels that the classifier knows.
    settings : tuple
        What else the targets depend on.
    """

    y: Array
    classes: Array
    settings: tuple[Any, ...]

    def same(self, other: Labels) -> bool:
        """Return whether other labels are equal and become the same targets."""
        return self.settings == other.settings and _same(self.y, other.y) and _same(self.classes, other.classes)

    def kept(self) -> Labels:
        """Return a copy that the owner of the arrays cannot change."""
        return Labels(self.y.copy(), self.classes.copy(), self.settings)


def _same(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())


def check_label_objects(y: Array) -> None:
    """Refuse labels that are objects but not text; scikit-learn would only say that their type is unknown."""
    kinds = sorted({type(label).__name__ for label in y.flat})
    if any(isinstance(label, str) for label in y.flat):
        if any(not isinstance(label, str) for label in y.flat):
            raise TypeError(f"y: got labels of the types {', '.join(kinds)}, expected text only; convert the others")
    elif type_of_target(y) == "unknown":
        raise ValueError(
            f"Unknown label type: y has objects ({', '.join(kinds)}), expected numbers, truth values or text; "
            "convert it, e.g. with y.astype(int)"
        )
