"""The loss and the output layer that suit the targets of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from gpuprop.maths.losses import Loss, get_loss

__all__ = ["OutputChoice", "choose_outputs", "default_loss"]


@dataclass(frozen=True)
class OutputChoice:
    """The loss and the output layer of a network.

    Attributes
    ----------
    loss : Loss
    n_outputs : int
    activation : str or None
        None takes the activation that belongs to the loss.
    """

    loss: Loss
    n_outputs: int
    activation: str | None


def default_loss(classes: Sequence[Any] | None) -> str:
    """Return the name of the loss that a data set with these classes (None: a regression) is trained with."""
    if classes is None:
        return "squared_error"
    return "binary_cross_entropy" if len(classes) == 2 else "categorical_cross_entropy"


def choose_outputs(classes: Sequence[Any] | None, y: NDArray[Any], loss: str | Loss | None = None) -> OutputChoice:
    """Choose loss and output layer for the targets of a data set.

    Parameters
    ----------
    classes : sequence or None
        The labels that the targets are indices of; None for a regression.
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        The targets; a regression has an output for each column.
    loss : str, Loss or None, default=None
        None takes `default_loss`.

    Raises
    ------
    ValueError
        If the loss is for classes and the targets are numbers.
    """
    chosen = get_loss(loss or default_loss(classes))
    if classes is None:
        if chosen.classification:
            raise ValueError(f"loss {chosen.name!r} is for classes, and the targets are numbers; use squared_error")
        return OutputChoice(chosen, y.shape[1] if y.ndim == 2 else 1, None)
    # Two classes are one logistic unit, unless the loss wants a probability for each class.
    n_outputs = 1 if len(classes) == 2 and chosen.name != "categorical_cross_entropy" else len(classes)
    # Under squared error a classifier still answers with probabilities.
    squashing = "logistic" if n_outputs == 1 else "softmax"
    return OutputChoice(chosen, n_outputs, squashing if chosen.name == "squared_error" else None)
