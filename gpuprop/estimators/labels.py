"""A check of what the labels of classes may be."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.utils.multiclass import type_of_target

__all__ = ["check_label_objects"]

Array = NDArray[Any]


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
