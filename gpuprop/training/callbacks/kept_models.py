"""A callback that writes model files while a training goes on: of each epoch, or of the best one so far."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuprop.training.callbacks.base import Callback
from gpuprop.training.metrics import falls, monitored

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ModelCheckpoint"]


class ModelCheckpoint(Callback):
    """Write a model file after each epoch, or after each one that is better than all before.

    The files hold models for use, see `gpuprop.load`. What a training needs to go on after it was killed is written by
    ``Trainer(checkpoint=...)``, see `gpuprop.Checkpoint`.

    Parameters
    ----------
    path : str or path
        A file or a folder, as for ``Network.save``; ``"model-{epoch:03d}.safetensors"`` gives each file the number of
        its epoch.
    monitor : str, default="loss"
        What says whether an epoch is better: a column of the history or the name of a metric, see `gpuprop.Trainer`.
        Without validation data "loss" is the training loss.
    save_best_only : bool, default=True
        Whether an epoch that is not better is left out.

    Attributes
    ----------
    best : float or None
        The best figure so far.
    best_epoch : int or None

    Raises
    ------
    ValueError
        When the training begins, if `monitor` names no column of its history.

    Examples
    --------
    >>> import tempfile, gpuprop
    >>> X, y = gpuprop.datasets.make_xor()
    >>> network = gpuprop.Network((2, 8, 1), loss="binary_cross_entropy", seed=0)
    >>> keeper = gpuprop.callbacks.ModelCheckpoint(tempfile.mkdtemp() + "/best.safetensors")
    >>> _ = gpuprop.Trainer(network, epochs=5, callbacks=[keeper]).fit(X, y)
    >>> gpuprop.load(keeper.path).layer_sizes
    (2, 8, 1)
    """

    def __init__(self, path: str | os.PathLike[str], monitor: str = "loss", *, save_best_only: bool = True) -> None:
        self.path = Path(path)
        self.monitor = monitor
        self.save_best_only = bool(save_best_only)
        self.best: float | None = None
        self.best_epoch: int | None = None

    def state(self) -> dict[str, Any]:
        """Return the best figure and its epoch."""
        return {"best": self.best, "best_epoch": self.best_epoch}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.best, self.best_epoch = state["best"], state["best_epoch"]

    def on_fit_begin(self, trainer: Any) -> None:
        """Forget an earlier training."""
        self._column(trainer)  # a wrong name is found before the first epoch
        self.best = self.best_epoch = None

    def on_epoch_end(self, trainer: Any, epoch: int, record: Mapping[str, float | None]) -> None:
        """Write the model, if the epoch is to be kept."""
        column = self._column(trainer)
        figure = record[column]
        sign = 1.0 if falls(column, trainer.metrics) else -1.0
        best = math.inf if self.best is None else sign * self.best
        if figure is not None and sign * figure < best:
            self.best, self.best_epoch = figure, epoch
        elif self.save_best_only:
            return
        trainer.network.save(Path(str(self.path).format(epoch=epoch)))

    def _column(self, trainer: Any) -> str:
        validated = trainer.validation is not None
        own = "accuracy" if trainer.network.is_classifier else "r2"
        name = "train_loss" if self.monitor == "loss" and not validated else self.monitor
        return monitored(name, trainer.metrics, own, validated=validated)
