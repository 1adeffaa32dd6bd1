"""The networks, data and initial weights of the comparison, and the one judge of every contender's parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONFIGS", "Array", "Config", "Layers", "cross_entropy", "initial", "load", "probabilities"]

Array = NDArray[Any]
Layers = Sequence[tuple[Array, Array]]
"""Weights and biases of each layer."""


@dataclass(frozen=True)
class Config:
    """A network, its training, the number of samples, and how far losses may differ after an epoch (relatively)."""

    sizes: tuple[int, ...]
    activation: str
    optimizer: str
    learning_rate: float
    batch_size: int
    n_samples: int
    tolerance: float = 0.003

    @property
    def steps(self) -> int:
        """Updates of an epoch."""
        return math.ceil(self.n_samples / self.batch_size)

    def __str__(self) -> str:
        """The network, its activation and optimizer, and the size of a batch."""
        return f"{'-'.join(map(str, self.sizes))} {self.activation} {self.optimizer}, batch {self.batch_size}"


# a to d train on MNIST, e1 and e32 on scikit-learn's digits in batches of 1 and of 32. The numbers of samples are whole
# batches, and few enough that an epoch of the slowest contender takes seconds. An epoch of d is only ten updates, so
# that its loss depends on whether Adam's epsilon is added before the bias is corrected (scikit-learn, gpuprop) or after
# (PyTorch, optax): the plain script ends at 0.525 or at 0.514.
CONFIGS = {
    "a": Config((784, 128, 10), "relu", "adam", 1e-3, 128, 15360),
    "b": Config((784, 256, 128, 10), "relu", "momentum", 0.05, 64, 15360),
    "c": Config((784, 512, 512, 10), "relu", "adam", 1e-3, 256, 15360),
    "d": Config((784, 1024, 1024, 1024, 10), "relu", "adam", 1e-3, 1024, 10240, 0.03),
    "e1": Config((64, 32, 16, 10), "logistic", "sgd", 0.1, 1, 1792),
    "e32": Config((64, 32, 16, 10), "logistic", "sgd", 0.1, 32, 1792),
}


def load(config: Config) -> tuple[Array, Array]:
    """Return float32 inputs between 0 and 1 and class indices."""
    if config.sizes[0] == 64:
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        X = X / 16
    else:
        from gpuprop.datasets import load_mnist

        (X, y), _ = load_mnist()
        X = X[: config.n_samples] / np.float32(255)
    return np.ascontiguousarray(X[: config.n_samples], np.float32), y[: config.n_samples].astype(np.int64)


def initial(config: Config, seed: int = 0) -> list[tuple[Array, Array]]:
    """Return new weights and biases, which are the same for every contender."""
    rng = np.random.default_rng(seed)
    layers = []
    for fan_in, fan_out in zip(config.sizes, config.sizes[1:], strict=False):
        bound = math.sqrt(6 / (fan_in + fan_out))
        weights = rng.uniform(-bound, bound, (fan_in, fan_out)).astype(np.float32)
        layers.append((weights, np.zeros(fan_out, np.float32)))
    return layers


def probabilities(config: Config, layers: Layers, X: Array, dtype: Any = np.float64) -> Array:
    """Return the outputs of a network with these parameters, computed in plain NumPy."""
    a: Array = X.astype(dtype, copy=False)
    for index, (weights, biases) in enumerate(layers):
        a = a @ np.asarray(weights, dtype) + np.asarray(biases, dtype)
        if index < len(layers) - 1:
            a = np.maximum(a, 0) if config.activation == "relu" else 1 / (1 + np.exp(-a))
    e: Array = np.exp(a - a.max(axis=1, keepdims=True))
    e /= e.sum(axis=1, keepdims=True)
    return e


def cross_entropy(config: Config, layers: Layers, X: Array, y: Array) -> float:
    """Return the loss of these parameters, in float64."""
    return float(-np.log(probabilities(config, layers, X)[np.arange(len(y)), y]).mean())
