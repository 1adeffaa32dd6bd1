"""A callback that looks at the hidden units: how many are silent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprop.training.callbacks.base import Callback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

__all__ = ["UnitActivity"]


class UnitActivity(Callback):
    """Record how much of each hidden layer is silent: relu's sparsity, and its dead units.

    Adds two columns for every hidden layer l = 1, 2, ... to the trainer's history: ``zero_share_l``, the share of the
    layer's outputs on `X` that are exactly 0, and ``dead_share_l``, the share of its units whose output is 0 on all of
    `X`. A dead relu unit gets no gradient; only changes in the layers below can wake it.

    Parameters
    ----------
    X : array_like of shape (n_samples, n_features)
        Raw inputs: the training data, or a few hundred rows of it.

    Raises
    ------
    ValueError
        When the training begins, if `X` does not fit the network.

    Examples
    --------
    >>> import gpuprop
    >>> X, y = gpuprop.datasets.make_xor()
    >>> activity = gpuprop.callbacks.UnitActivity(X)
    >>> network = gpuprop.Network((2, 4, 1), seed=0, device="numpy")
    >>> _ = gpuprop.Trainer(network, epochs=3, callbacks=[activity]).fit(X, y)
    """

    def __init__(self, X: ArrayLike) -> None:
        self.X = X

    def on_epoch_end(self, trainer: Any, epoch: int, record: Mapping[str, float | None]) -> None:
        """Extend the history by this epoch's shares."""
        for layer, outputs in enumerate(trainer.network.activations(self.X)[1:-1], start=1):
            silent = outputs == 0
            trainer.history.setdefault(f"zero_share_{layer}", []).append(float(silent.mean()))
            trainer.history.setdefault(f"dead_share_{layer}", []).append(float(silent.all(axis=0).mean()))
