"""Callbacks: small objects that are told how a training goes, and may end it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpuprop.training import Trainer

__all__ = ["Callback"]


class Callback:
    """Base class: every hook does nothing until a subclass overrides it.

    A hook may read the trainer and its network, call ``trainer.stop_training()``, or raise; what it raises ends the
    training with the parameters of the last completed epoch in place.

    Examples
    --------
    >>> import gpuprop
    >>> class StopWhenGood(gpuprop.Callback):
    ...     def on_epoch_end(self, trainer, epoch, record):
    ...         if record["train_loss"] < 0.01:
    ...             trainer.stop_training()
    """

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Before epoch `epoch`, counted from 1."""

    def on_step_end(self, trainer: Trainer, epoch: int, step: int) -> None:
        """After update `step` of the epoch, counted from 1. Overriding it costs a call per update."""

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        """After epoch `epoch`; `record` is its row of the history."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, with the final parameters in place; not after an error."""
