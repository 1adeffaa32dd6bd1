"""A thousand small networks on one GPU: a launch an epoch, and each is the network of its lone fit."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.measure.equivalence import tolerances
from gpuprop.training.side_by_side import train_together

pytestmark = pytest.mark.gpu

N_NETWORKS, N_ROWS = 1000, 60
COUNTED = ("launches", "graph_launches", "h2d_count", "d2h_count", "syncs")


def table() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, N_ROWS)
    return (rng.standard_normal((4, 8))[y] + rng.normal(0, 0.7, (N_ROWS, 8))).astype(np.float32), y


def trainer(seed: int, epochs: int, device: str = "cuda") -> gpuprop.Trainer:
    """Return a training with a seed, a rate, a penalty and dropout of its own."""
    network = gpuprop.Network(
        (8, 16, 4), device=device, loss="categorical_cross_entropy", seed=seed, l2=1e-4 * (1 + seed),
        dropout=(0.0, 0.05 + 0.1 * (seed % 3)),
    )  # fmt: skip
    return gpuprop.Trainer(network, epochs=epochs, batch_size=20, learning_rate=1e-3 * (1 + seed % 7))


def together(n_networks: int, epochs: int, device: str = "cuda") -> list[gpuprop.Trainer]:
    """Train on folds of different lengths."""
    X, y = table()
    folds = [np.flatnonzero(np.arange(N_ROWS) % 5 != fold) for fold in range(4)] + [np.arange(N_ROWS)]
    trainers = [trainer(seed, epochs, device) for seed in range(n_networks)]
    outcomes = train_together([one.training(X[folds[i % 5]], y[folds[i % 5]]) for i, one in enumerate(trainers)])
    assert outcomes == [None] * n_networks
    return trainers


@cache
def a_thousand() -> list[gpuprop.Trainer]:
    return together(N_NETWORKS, 2)


def costs(n_networks: int, counts: Any) -> dict[str, int]:
    """Return what one more epoch of so many networks costs; "epochs" are the launches of the kernel that trains."""
    found = []
    for epochs in (1, 2):
        with counts.measure() as counted:
            together(n_networks, epochs)
        of_kernel = [kernel["launches"] for name, kernel in counted["kernels"].items() if "train_network" in name]
        found.append({"epochs": sum(of_kernel)} | {name: counted["totals"][name] for name in COUNTED})
    return {name: found[1][name] - found[0][name] for name in found[0]}


def test_an_epoch_of_a_thousand_networks_is_one_launch(counts: Any) -> None:
    two, many = costs(2, counts), costs(N_NETWORKS, counts)
    print(f"\n8-16-4, an epoch of 3 updates\n2 networks: {two}\n{N_NETWORKS} networks: {many}")
    assert (many["epochs"], many["graph_launches"]) == (1, 0)
    assert all(many[name] <= two[name] for name in many)


def test_each_of_a_thousand_is_the_network_of_its_lone_fit() -> None:
    X, y = table()
    trained = a_thousand()
    reason = f"joint: {N_NETWORKS} networks of one shape in the same launches; whole epochs in one launch, "
    folds = [np.flatnonzero(np.arange(N_ROWS) % 5 != fold) for fold in range(4)] + [np.arange(N_ROWS)]
    for i, one in enumerate(trained):
        assert str(one.plan_reason).startswith(reason)
        lone = trainer(i, 2).fit(X[folds[i % 5]], y[folds[i % 5]])
        assert str(lone.plan_reason).startswith("block: ")
        assert lone.network.host_parameters().tobytes() == one.network.host_parameters().tobytes()
        assert lone.history["train_loss"] == one.history["train_loss"]


def test_each_of_a_thousand_is_that_of_the_cpu() -> None:
    bound = tolerances.CURVE[np.dtype(np.float32)]
    for ours, plain in zip(a_thousand(), together(N_NETWORKS, 2, "numpy"), strict=True):
        expected = plain.network.host_parameters()
        share = tolerances.used(ours.network.host_parameters(), expected, bound * np.maximum(np.abs(expected), 0.1))
        assert share <= 1
        np.testing.assert_allclose(ours.history["train_loss"], plain.history["train_loss"], rtol=bound)
