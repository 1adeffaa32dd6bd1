"""What a training remembers of its epochs: its history, its progress, and its best epoch so far."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.errors import unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.core.layers import Layers
    from gpuprop.core.rule import UpdateRule
    from gpuprop.core.scaling_layer import ScalingLayer

__all__ = ["LiveProgress", "Patience", "Progress", "Within", "append_record", "check_kept_column", "even_columns"]


@dataclass(frozen=True)
class Within:
    """Where a training stands within an epoch that has begun.

    Attributes
    ----------
    position : int
        Updates of the epoch that have been made.
    totals : ndarray of shape (2,)
        Sums over these updates: weighted loss and weighted score.
    parts : dict of ndarray
        The same sums in the parts that a plan keeps, see `gpuprop.core.plan.TrainingState`.
    learning_rate : float
        The trainer's rate when the epoch began: the rates of its updates follow from it.
    seconds : float
        How long the epoch has taken so far.
    sources : dict
        What the sources of row orders and rates remembered before the epoch began, see `gpuprop.training.sources`.
    """

    position: int
    totals: NDArray[np.float64]
    parts: dict[str, NDArray[Any]]
    learning_rate: float
    seconds: float = 0.0
    sources: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """Where a training stands: everything that its next update depends on. Its arrays are copies.

    What is None or empty is unknown, and is neither checked nor restored.

    Attributes
    ----------
    epochs_done, steps_done : int
        Completed epochs and updates.
    optimizer_state : dict of arrays
        What the optimizer remembers, by the names in its ``slots``, on the training's device or on the host.
    history : dict of lists
        The epochs so far.
    scaling_layer : ScalingLayer or None
        Trained factors of the inputs.
    parameters : ndarray of shape (n_parameters,) or None
        What belongs to the optimizer's memory: the parameters after the last of these updates, even where the network
        has been given those of an earlier epoch since. A training that goes on from here begins with them.
    optimizer : str or None
        The optimizer's name.
    learning_rates : tuple of float, or None
        The rate that the training began with, and the rate as callbacks have left it.
    patience : dict
        See `Patience.state`.
    callbacks : list of (str, dict)
        The name of each callback that has a state, and the state, see `gpuprop.Callback.state`.
    sources : dict
        What the sources of row orders and rates remember, see `gpuprop.training.sources`.
    data : dict of str to str
        SHA-256 of the arrays that are trained on, see `gpuprop.training.settings`.
    within : Within or None
        Where the training stands within an epoch that has begun.
    updates_before : int
        The updates that the network had made with this optimizer before this training began.
    """

    epochs_done: int
    steps_done: int
    optimizer_state: dict[str, Array]
    history: dict[str, list[Any]]
    scaling_layer: ScalingLayer | None = None
    parameters: NDArray[Any] | None = None
    optimizer: str | None = None
    learning_rates: tuple[float, float] | None = None
    patience: dict[str, Any] = field(default_factory=dict)
    callbacks: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    sources: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    within: Within | None = None
    updates_before: int = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickle; what the version that wrote it did not keep is unknown."""
        vars(self).update(vars(Progress(0, 0, {}, {})) | state)


@dataclass(frozen=True)
class LiveProgress(Progress):
    """Where a training stood when it ended, with its own arrays on the host and its own history in place of copies.

    The training that goes on from here updates these arrays and extends these columns, so only one can. Copying them
    would take longer from call to call.

    Attributes
    ----------
    rule : UpdateRule or None
        The rule of the updates. A training with the same settings of the same network takes it over. It is in no copy.
    made_for : tuple
        These settings, and the layers of the network.
    """

    rule: UpdateRule | None = None
    made_for: tuple[Any, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Return the content of a copy or a pickle: the rule would be one of other arrays."""
        return vars(self) | {"rule": None, "made_for": ()}

    def rule_for(self, settings: Any, layers: Layers) -> UpdateRule | None:
        """Return the rule, if a training with these settings of these layers would make an equal one."""
        return self.rule if self.made_for and self.made_for[0] is settings and self.made_for[1] is layers else None


def append_record(history: dict[str, list[Any]], record: dict[str, Any]) -> None:
    """Add the row of an epoch to the columns of a history."""
    for column, value in record.items():
        if column in history:
            history[column].append(value)
        else:
            history[column] = [value]


def even_columns(history: dict[str, list[Any]], known: Collection[str]) -> None:
    """Give all columns of a history the length of its epochs, with None where a column says nothing of an epoch.

    Parameters
    ----------
    history : dict of lists
        With a column "epoch", unless it is empty.
    known : collection of str
        The columns that had an entry for each earlier epoch; in others the earlier ones are missing.

    Raises
    ------
    ValueError
        If a column has more entries than there are epochs.
    """
    n_epochs = len(history.get("epoch", ()))
    for name, column in history.items():
        missing = [None] * (n_epochs - len(column))
        if len(column) > n_epochs:
            raise ValueError(f"history[{name!r}]: got {len(column)} entries in {n_epochs} epochs; append one an epoch")
        if missing and name in known:
            column.extend(missing)
        elif missing:
            column[:0] = missing


class Patience:
    """Early stopping and the choice of an epoch: the best figure so far, its epoch and its parameters.

    Parameters
    ----------
    epochs : int or None
        How many epochs without a better figure end the training; None never ends it.
    keep_best : str or None
        The column of the history that says which epoch is the best, and of equal ones the last. None takes the figure
        that early stopping watches, and of equal ones the first; without early stopping and without `monitor` it
        remembers nothing.
    parameters : ndarray
        The parameters that the training begins with.
    monitor : str or None, default=None
        The column of the history that early stopping watches; None takes the loss that `watch` is given.
    falling : collection of str, default=("validation_loss", "train_loss")
        The columns in which lower values are better; in others higher ones are.
    """

    def __init__(
        self,
        epochs: int | None,
        keep_best: str | None,
        parameters: NDArray[Any],
        *,
        monitor: str | None = None,
        falling: Collection[str] = ("validation_loss", "train_loss"),
    ) -> None:
        self.epochs, self.keep_best, self.monitor = epochs, keep_best, monitor
        self.parameters = parameters
        self._falling = falling
        self.best_epoch: int | None = None
        self._lowest_loss, self._lowest_epoch = np.inf, 0
        self._best = np.inf

    def state(self) -> dict[str, Any]:
        """Return what is remembered; parameters are among it where they are to be restored at the end."""
        known = {
            "keep_best": self.keep_best,
            "keeps": self.keeps,
            "monitor": self.monitor,
            "lowest_loss": float(self._lowest_loss),
            "lowest_epoch": self._lowest_epoch,
            "best": float(self._best),
            "best_epoch": self.best_epoch,
        }
        return known | {"parameters": self.parameters.copy()} if self.keeps else known

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember what `state` returned, unless another figure was watched there."""
        if not state or (state["keep_best"], state["keeps"]) != (self.keep_best, self.keeps):
            return
        if state.get("monitor") != self.monitor:
            return
        self._lowest_loss, self._lowest_epoch = state["lowest_loss"], state["lowest_epoch"]
        self._best, self.best_epoch = state["best"], state["best_epoch"]
        if self.keeps:
            self.parameters = np.array(state["parameters"])

    @property
    def keeps(self) -> bool:
        """Whether the parameters of an epoch are to be restored at the end."""
        return self.epochs is not None or self.keep_best is not None or self.monitor is not None

    def watch(self, record: dict[str, Any], loss: float, parameters: NDArray[Any]) -> None:
        """Look at the row of an epoch, and at the loss that early stopping watches unless it monitors a column."""
        epoch = record["epoch"]
        cost = loss if self.monitor is None else self._cost(record, self.monitor)
        lower = cost < self._lowest_loss
        if lower:
            self._lowest_loss, self._lowest_epoch = cost, epoch
        if self.keep_best is not None:
            cost = self._cost(record, self.keep_best)
            if cost <= self._best and cost < np.inf:
                self._best, self.best_epoch, self.parameters = cost, epoch, parameters
        elif self.keeps and lower:
            self.best_epoch, self.parameters = epoch, parameters

    def _cost(self, record: Mapping[str, Any], column: str) -> float:
        """Return a figure so that lower is better; infinity where the epoch has none."""
        figure = record[column]
        if figure is None:
            return np.inf
        return float(figure if column in self._falling else -figure)

    def exhausted(self, epoch: int) -> bool:
        """Whether the training has waited long enough for a better figure."""
        return self.epochs is not None and epoch - self._lowest_epoch >= self.epochs


def check_kept_column(keep_best: str | None, metric: str, *, validated: bool, more: Sequence[str] = ()) -> str | None:
    """Return the column of the history by which an epoch is kept; `more` are columns of metrics.

    Raises
    ------
    ValueError
        If the history has no such column, or it will hold nothing, because there are no validation data.
    """
    columns = [*(f"{part}_{figure}" for part in ("validation", "train") for figure in ("loss", metric)), *more]
    if keep_best is None or keep_best in columns[2 if not validated else 0 :]:
        return keep_best
    if keep_best in columns:
        raise ValueError(f"keep_best={keep_best!r} needs validation data; pass validation=")
    raise unknown_name("keep_best", keep_best, columns)
