"""A small network with random data, whose gradient is checked where the user has no network of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.model.network import Network

__all__ = ["N_FEATURES", "N_OUTPUTS", "random_data", "small_network"]

N_FEATURES, N_OUTPUTS = 4, 3


def small_network(
    hidden: Sequence[int] = (6, 5),
    activation: Sequence[str] = ("tanh",),
    loss: str = "categorical_cross_entropy",
    seed: int = 0,
) -> Network:
    """Return a float64 network on plain NumPy, of 4 features and 3 outputs.

    Parameters
    ----------
    hidden : sequence of int, default=(6, 5)
        Units of each hidden layer.
    activation : sequence of str, default=("tanh",)
        The activation of all hidden layers, or one for each.
    loss : str, default="categorical_cross_entropy"
    seed : int, default=0
    """
    return Network(
        (N_FEATURES, *hidden, N_OUTPUTS),
        hidden_activation=activation[0] if len(activation) == 1 else activation,
        loss=loss,
        dtype="float64",
        seed=seed,
        device="numpy",
    )


def random_data(network: Network, n_rows: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return inputs for a `small_network`, and targets for which its loss is defined."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, N_FEATURES))
    shape = (n_rows, N_OUTPUTS)
    targets: dict[str, NDArray[Any]] = {
        "squared_error": rng.normal(size=shape),
        "binary_cross_entropy": rng.integers(0, 2, size=shape),
        "categorical_cross_entropy": rng.integers(0, N_OUTPUTS, size=n_rows),
        "poisson": rng.poisson(2.0, size=shape),
    }
    return X, targets[network.loss_function.name]
