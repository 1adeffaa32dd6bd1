"""Callbacks: small objects that a training informs of its progress, and that may end it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

__all__ = ["Callback", "UnitActivity"]


class Callback:
    """Base class: every hook does nothing until a subclass overrides it.

    `trainer` is the `gpuprop.Trainer` that trains. A hook may read it and its network, call
    ``trainer.stop_training()``, or raise; what it raises ends the training with the parameters of the last completed
    epoch in place.

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


class UnitActivity(Callback):
    """Record how much of each hidden layer is silent: relu's sparsity, and its dead units.

    Adds two columns for every hidden layer l = 1, 2, ... to the trainer's history: ``zero_share_l``, the share of the
    layer's outputs on `X` that are exactly 0, and ``dead_share_l``, the share of its units whose output is 0 on all of
    `X`. A dead relu unit gets no gradient; only changes in the layers below can wake it.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_features)
        Raw inputs: the training data, or a few hundred rows of it.
    """

    def __init__(self, X: ArrayLike) -> None:
        self.X = X

    def on_epoch_end(self, trainer: Any, epoch: int, record: Mapping[str, float | None]) -> None:
        """Extend the history by this epoch's shares."""
        for layer, outputs in enumerate(trainer.network.activations(self.X)[1:-1], start=1):
            silent = outputs == 0
            trainer.history.setdefault(f"zero_share_{layer}", []).append(float(silent.mean()))
            trainer.history.setdefault(f"dead_share_{layer}", []).append(float(silent.all(axis=0).mean()))
