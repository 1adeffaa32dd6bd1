"""What a training remembers of its epochs: its history, its progress, and its best epoch so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.errors import unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.core.scaling_layer import ScalingLayer

__all__ = ["Patience", "Progress", "append_record", "check_kept_column"]


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
    scaling_layer : ScalingLayer or None
        Trained factors of the inputs; on the device, and not copied.
    """

    epochs_done: int
    steps_done: int
    optimizer_state: dict[str, Array]
    history: dict[str, list[Any]]
    scaling_layer: ScalingLayer | None = None


def append_record(history: dict[str, list[Any]], record: dict[str, Any]) -> None:
    """Add the row of an epoch to the columns of a history."""
    for column, value in record.items():
        history.setdefault(column, []).append(value)


class Patience:
    """Early stopping and the choice of an epoch: the best figure so far, its epoch and its parameters.

    Parameters
    ----------
    epochs : int or None
        How many epochs without a lower loss end the training; None never ends it.
    keep_best : str or None
        The column of the history that says which epoch is the best: the one of the lowest loss or the highest score,
        and of equal ones the last. None takes the loss that early stopping watches, and of equal ones the first;
        without early stopping it remembers nothing.
    parameters : ndarray
        The parameters that the training begins with.
    """

    def __init__(self, epochs: int | None, keep_best: str | None, parameters: NDArray[Any]) -> None:
        self.epochs, self.keep_best = epochs, keep_best
        self.parameters = parameters
        self.best_epoch: int | None = None
        self._lowest_loss, self._lowest_epoch = np.inf, 0
        self._best = np.inf

    @property
    def keeps(self) -> bool:
        """Whether the parameters of an epoch are to be restored at the end."""
        return self.epochs is not None or self.keep_best is not None

    def watch(self, record: dict[str, Any], loss: float, parameters: NDArray[Any]) -> None:
        """Look at the row of an epoch, and at the loss that early stopping watches."""
        epoch = record["epoch"]
        lower = loss < self._lowest_loss
        if lower:
            self._lowest_loss, self._lowest_epoch = loss, epoch
        if self.keep_best is not None:
            figure = record[self.keep_best]
            cost = figure if self.keep_best.endswith("loss") else -figure
            if cost <= self._best:
                self._best, self.best_epoch, self.parameters = cost, epoch, parameters
        elif self.epochs is not None and lower:
            self.best_epoch, self.parameters = epoch, parameters

    def exhausted(self, epoch: int) -> bool:
        """Whether the training has waited long enough for a lower loss."""
        return self.epochs is not None and epoch - self._lowest_epoch >= self.epochs


def check_kept_column(keep_best: str | None, metric: str, *, validated: bool) -> str | None:
    """Return the column of the history by which an epoch is kept.

    Raises
    ------
    ValueError
        If the history has no such column, or it will hold nothing, because there are no validation data.
    """
    columns = [f"{part}_{figure}" for part in ("validation", "train") for figure in ("loss", metric)]
    if keep_best is None or keep_best in columns[2 if not validated else 0 :]:
        return keep_best
    if keep_best in columns:
        raise ValueError(f"keep_best={keep_best!r} needs validation data; pass validation=")
    raise unknown_name("keep_best", keep_best, columns)
