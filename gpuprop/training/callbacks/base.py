"""The base class of callbacks: small objects that a training informs of its progress, and that may end it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Callback"]


class Callback:
    """Base class: every hook does nothing until a subclass overrides it.

    `trainer` is the `gpuprop.Trainer` that trains. A hook may read it and its network, call
    ``trainer.stop_training()``, or raise; what it raises ends the training with the parameters of the last completed
    epoch in place. Callbacks may be added to ``trainer.callbacks`` and removed from it at any time: one that is added
    while a training goes on is told that it began, before the next epoch.

    Examples
    --------
    >>> import gpuprop
    >>> class StopWhenGood(gpuprop.Callback):
    ...     def on_epoch_end(self, trainer, epoch, record):
    ...         if record["train_loss"] < 0.01:
    ...             trainer.stop_training()
    """

    def state(self) -> Mapping[str, Any] | None:
        """Return what the callback must remember for a training that goes on from here; None if there is nothing.

        Mappings, lists, text, numbers and NumPy's arrays may be in it, because checkpoints keep it in a file.
        """
        return None

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember what `state` returned: called after `on_fit_begin` when a training goes on."""

    def on_fit_begin(self, trainer: Any) -> None:
        """Before the first epoch of this fit."""

    def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
        """Before epoch `epoch`, counted from 1."""

    def on_step_end(self, trainer: Any, epoch: int, step: int) -> None:
        """After update `step` of the epoch, counted from 1. Overriding it costs a call per update."""

    def on_epoch_end(self, trainer: Any, epoch: int, record: Mapping[str, float | None]) -> None:
        """After epoch `epoch`; `record` is its row of the history."""

    def on_fit_end(self, trainer: Any) -> None:
        """After the last epoch, with the final parameters in place; not after an error."""

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        """After a fit that ended with an error or Ctrl-C, with the parameters of the last completed epoch in place.

        What this hook itself raises is lost: the error that ended the training is the one that the caller sees.
        """
