"""Targets of a regression, brought to mean 0 and deviation 1 for training and folded back into the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gpuprop.model.network import Network

__all__ = ["StandardisedTargets", "mean_and_deviation"]


@dataclass(frozen=True, eq=False)
class StandardisedTargets:
    """The targets that a network is trained on, and the way back to the units of the data.

    A regression with linear outputs is trained on targets of mean 0 and deviation 1: an untrained network is then
    right about the mean, and one learning rate suits prices and percentages alike. Afterwards `fold` writes mean and
    deviation into the last layer, ``W * deviation`` and ``b * deviation + mean``, so that the network answers in the
    units of the data. R2 is the same in both; the losses are those of the standardised targets. All other networks
    are trained on the targets as they are, and nothing is folded.

    Attributes
    ----------
    values : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        The targets to train on.
    mean, deviation : ndarray or None
        Of each column of the targets; None where the targets are trained on as they are.

    Examples
    --------
    >>> import gpuprop
    >>> from gpuprop.training.targets import StandardisedTargets
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]], np.array([100.0, 200.0, 300.0, 400.0])
    >>> network = gpuprop.Network((1, 1), seed=0)
    >>> targets = StandardisedTargets.of(network, y)
    >>> trainer = gpuprop.Trainer(network, learning_rate=0.1, epochs=300).fit(X, targets.values)
    >>> targets.fold(network)
    >>> network.predict(X)[:, 0].round().tolist()
    [100.0, 200.0, 300.0, 400.0]
    """

    values: NDArray[Any]
    mean: NDArray[np.float64] | None = None
    deviation: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, network: Network, y: NDArray[Any]) -> StandardisedTargets:
        """Return the targets that `network` is to be trained on, for the targets `y` of the training part."""
        if network.is_classifier or network.output_activation.name != "identity":
            return cls(y)
        mean, deviation = mean_and_deviation(y)
        return cls((y - mean) / deviation, mean, deviation)

    def fold(self, network: Network) -> None:
        """Make a network that was trained on `values` answer in the units of the data."""
        if self.mean is not None and self.deviation is not None:
            weights, biases = _last_layer(network)
            _write_last_layer(network, weights * self.deviation, biases * self.deviation + self.mean)

    def unfold(self, network: Network) -> None:
        """Undo `fold`, up to rounding, so that the network can be trained on."""
        if self.mean is not None and self.deviation is not None:
            weights, biases = _last_layer(network)
            _write_last_layer(network, weights / self.deviation, (biases - self.mean) / self.deviation)


def mean_and_deviation(y: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of each column of `y`; the deviation of a constant column is 1."""
    mean, deviation = y.mean(axis=0), y.std(axis=0)
    # In a column with one value only, rounding errors make up the whole deviation.
    return mean, np.where(deviation > 10 * np.finfo(np.float64).eps * np.abs(mean), deviation, 1.0)


def _last_layer(network: Network) -> tuple[NDArray[Any], NDArray[Any]]:
    ops = network.ops
    return ops.to_numpy(network.weights[-1]), ops.to_numpy(network.biases[-1])


def _write_last_layer(network: Network, weights: NDArray[Any], biases: NDArray[Any]) -> None:
    network.weights[-1][...] = network.ops.asarray(weights, network.dtype)
    network.biases[-1][...] = network.ops.asarray(biases, network.dtype)
