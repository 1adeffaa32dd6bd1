"""`BatchMoments`: mean and variance of the batches of a normalised layer, and how running averages follow them.

After each update the averages come closer to mean and variance of its batch by a share of `MOMENTUM`, which is
PyTorch's; the variance is then the unbiased one, of n - 1. Source: Ioffe and Szegedy, "Batch normalization", ICML 2015,
arXiv:1502.03167, algorithm 2 and section 3.1.
"""

from __future__ import annotations

from typing import Any

__all__ = ["MOMENTUM", "BatchMoments"]

MOMENTUM = 0.1


class BatchMoments:
    """What a hidden layer has seen of its batches, for the backward pass and for the running averages.

    Attributes
    ----------
    inverse : array of shape (n_units,) or None
        ``1 / sqrt(v + eps)`` of the last forward pass.
    by_batch : bool
        Whether that pass took mean and variance of its batch, not the running averages.
    """

    def __init__(self) -> None:
        self.inverse: Any = None
        self.by_batch = False
        self._mean: Any = 0.0
        self._variance: Any = 0.0
        self._n_rows = 0

    def note(self, mean: Any, variance: Any, n_rows: int) -> None:
        """Count a part of a batch, with its mean and variance."""
        if n_rows > 1:  # one row says nothing about a variance
            self._mean = self._mean + n_rows * mean
            self._variance = self._variance + n_rows * n_rows / (n_rows - 1) * variance
            self._n_rows += n_rows

    def follow(self, mean: Any, variance: Any) -> None:
        """Bring running averages closer to the batch whose parts were counted."""
        if self._n_rows:
            mean += MOMENTUM * (self._mean / self._n_rows - mean)
            variance += MOMENTUM * (self._variance / self._n_rows - variance)
        self._mean = self._variance = 0.0
        self._n_rows = 0
