"""The contenders of ``gpuprop bench step`` and ``epoch``: each trains a network of its own on the same images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.parameters import Parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CONFIGS", "RATE", "STEP_UPDATES", "Config", "Trained"]

RATE = 1e-3
STEP_UPDATES = 32
"""Updates in a sample of ``bench step``."""


@dataclass(frozen=True)
class Config:
    """A network of relu layers and softmax, trained by Adam."""

    name: str
    sizes: tuple[int, ...]
    batch_size: int

    @property
    def launches(self) -> int:
        """Kernels of an update on a GPU: two for each hidden layer, and one for gradients and Adam."""
        return 2 * (len(self.sizes) - 2) + 1


CONFIGS = {
    config.name: config
    for config in (
        Config("a", (784, 128, 10), 128),
        Config("b", (784, 512, 512, 10), 256),
        Config("c", (784, 1024, 1024, 1024, 10), 1024),
    )
}


class Trained(ABC):
    """A contender, which trains a network of its own.

    Parameters
    ----------
    config : Config
    rows : uint8 array of shape (n, 784)
    labels : int array of shape (n,)
    parameters : float32 array
        All weights, then all biases.
    """

    name: str

    def __init__(self, config: Config, rows: NDArray[Any], labels: NDArray[Any], parameters: NDArray[Any]) -> None:
        self.config, self.n_samples = config, len(rows)
        self.order = np.arange(len(rows), dtype=np.int32)
        self.targets = np.eye(config.sizes[-1], dtype=np.float32)[labels]
        self.start = Parameters(parameters.copy(), config.sizes)
        self.step = 0
        self.prepare(rows, labels)

    @property
    def n_updates(self) -> int:
        """Updates of an epoch."""
        return math.ceil(self.n_samples / self.config.batch_size)

    @abstractmethod
    def prepare(self, rows: NDArray[Any], labels: NDArray[Any]) -> None:
        """Bring data and parameters to the device."""

    @abstractmethod
    def updates(self) -> None:
        """Make the updates of an epoch, without waiting for a device."""

    def synchronize(self) -> None:  # noqa: B027  (most contenders have no stream of their own)
        """Wait for the contender's own stream; the device of gpuprop is waited for separately."""

    @abstractmethod
    def begin(self, order: NDArray[np.int32]) -> None:
        """Begin an epoch that visits the rows in this order."""

    @abstractmethod
    def loss(self) -> float:
        """Return the mean loss of the epoch, read from the device."""

    @abstractmethod
    def parameters(self) -> NDArray[Any]:
        """Return all weights, then all biases."""

    def epoch(self) -> None:
        """Train a whole epoch: a new order, all updates, the loss."""
        self.begin(np.random.default_rng(self.step).permutation(self.n_samples).astype(np.int32))
        self.updates()
        self.loss()
