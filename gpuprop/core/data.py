"""`TrainingData`: a data set that has been checked and brought to the device that trains on it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gpuprop.arrays import beside, namespace, to_host

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.maths.losses import Metric
    from gpuprop.maths.scaling import InputScaling

__all__ = ["TrainingData"]


@dataclass(frozen=True)
class TrainingData:
    """A data set that has been checked and brought to the device, or left on the host if it is too large for it.

    Attributes
    ----------
    inputs : array or CSR matrix of shape (n_samples, n_features)
        Of the network's dtype, or uint8.
    scaling : InputScaling or None
        The scaling that each batch of `inputs` still needs.
    targets : array of shape (n_samples, n_outputs)
    sample_weight : array of shape (n_samples,) or None
        On the device.
    wide_weight : array of shape (n_samples,) or None
        The same in float64, for the totals of batches; on the host, or on the GPU if the user's weights lie there.
    total_weight : float
        Sum of the sample weights; the number of samples where there are none.
    metric : {"class", "labels", "residual"}
    total_variation : float
        Weighted sum of squares of the targets about their mean: the denominator of R2. It is 0 if R2 is not computed.
    """

    inputs: Array
    scaling: InputScaling | None
    targets: Array
    sample_weight: Array | None
    wide_weight: Array | None
    total_weight: float
    metric: Metric
    total_variation: float

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return int(self.inputs.shape[0])

    def batch_weights(self, order: NDArray[np.int32], batch_size: int) -> NDArray[np.float64]:
        """Return the sum of weights of each batch of `order`, on the host."""
        weight = self.wide_weight
        if weight is None:
            return _rows_of_batches(len(order), batch_size).copy()
        starts = np.arange(0, len(order), batch_size)
        if isinstance(weight, np.ndarray):
            return np.asarray(np.add.reduceat(weight[order], starts))
        xp = namespace(weight)
        last = beside(np.zeros(-len(order) % batch_size), weight)
        batches = xp.concat([xp.take(weight, beside(order, weight)), last])
        return np.asarray(to_host(xp.sum(xp.reshape(batches, (-1, batch_size)), axis=1)))

    def rows(self, first: int, end: int) -> TrainingData:
        """Return views of the rows `first` to `end` - 1, with the totals of all rows."""
        weight = None if self.sample_weight is None else self.sample_weight[first:end]
        return replace(self, inputs=self.inputs[first:end], targets=self.targets[first:end], sample_weight=weight)

    def share(self, weight: float) -> TrainingData:
        """Return the data with totals of a part of the rows, whose sample weights add up to `weight`."""
        variation = self.total_variation * weight / self.total_weight if self.total_weight else 0.0
        return replace(self, total_weight=weight, total_variation=variation)

    def score(self, total: float) -> float:
        """Turn the sum of scores over all samples into accuracy, or R2 for a regression."""
        if self.metric != "residual":
            return total / self.total_weight
        if self.total_variation == 0:  # constant targets: the convention of scikit-learn's r2_score
            return 1.0 if total == 0 else 0.0
        return 1.0 - total / self.total_variation


@functools.lru_cache(maxsize=16)
def _rows_of_batches(n_rows: int, batch_size: int) -> NDArray[np.float64]:
    """Return the number of rows of each batch: many networks ask for it in each epoch."""
    return np.minimum(n_rows - np.arange(0, n_rows, batch_size), batch_size).astype(np.float64)
