"""What a training remembers of its epochs: its history, its progress, and its best epoch so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array

__all__ = ["Patience", "Progress", "append_record"]


@dataclass(frozen=True)
class Progress:
    """Where a training stands: everything beside the parameters that its next update depends on.

    Attributes
    ----------
    epochs_done, steps_done : int
        Completed epochs and updates.
    optimizer_state : dict of arrays
        What the optimizer remembers, by the names in its ``slots``; on the device, and not copied.
    history : dict of lists
        The epochs so far.
    """

    epochs_done: int
    steps_done: int
    optimizer_state: dict[str, Array]
    history: dict[str, list[Any]]


def append_record(history: dict[str, list[Any]], record: dict[str, Any]) -> None:
    """Add the row of an epoch to the columns of a history."""
    for column, value in record.items():
        history.setdefault(column, []).append(value)


class Patience:
    """Early stopping: the best loss so far, its epoch and its parameters.

    Parameters
    ----------
    epochs : int or None
        How many epochs without a lower loss end the training; None never ends it and remembers nothing.
    parameters : ndarray
        The parameters that the training begins with.
    """

    def __init__(self, epochs: int | None, parameters: NDArray[Any]) -> None:
        self.epochs = epochs
        self.parameters = parameters
        self.best_loss = np.inf
        self.best_epoch: int | None = None

    def watch(self, epoch: int, loss: float, parameters: NDArray[Any]) -> None:
        """Look at the loss after an epoch, counted from 1."""
        if self.epochs is not None and loss < self.best_loss:
            self.best_loss, self.best_epoch, self.parameters = loss, epoch, parameters

    def exhausted(self, epoch: int) -> bool:
        """Whether the training has waited long enough for a lower loss."""
        return self.epochs is not None and epoch - (self.best_epoch or 0) >= self.epochs
