"""A hundred networks on one GPU: what their epochs cost, and that each is the network of its lone fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.training.side_by_side import train_together

pytestmark = pytest.mark.gpu

N_NETWORKS, N_ROWS, BATCH = 100, 288, 32
COUNTED = ("launches", "graph_launches", "graph_kernels", "h2d_count", "d2h_count", "d2d_count", "syncs")


def images() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, N_ROWS)
    return np.clip(rng.integers(0, 256, (10, 784))[y] + rng.normal(0, 40, (N_ROWS, 784)), 0, 255).astype(np.uint8), y


def trainer(seed: int, epochs: int) -> gpuprop.Trainer:
    """Return a training with a seed, a rate and a penalty of its own."""
    network = gpuprop.Network(
        (784, 128, 10), device="cuda", loss="categorical_cross_entropy", seed=seed, l2=1e-4 * (1 + seed),
        input_scaling=gpuprop.InputScaling.divide(255),
    )  # fmt: skip
    return gpuprop.Trainer(network, epochs=epochs, batch_size=BATCH, learning_rate=1e-3 * (1 + seed % 7))


def epoch_costs(n_networks: int, counts: Any) -> dict[str, int]:
    """Return what one more epoch of so many networks costs."""
    found = []
    for epochs in (2, 4):
        X, y = images()
        trainers = [trainer(seed, epochs) for seed in range(n_networks)]
        with counts.measure() as counted:
            assert train_together([one.training(X, y) for one in trainers]) == [None] * n_networks
        found.append(counted["totals"])
    return {name: (found[1][name] - found[0][name]) // 2 for name in COUNTED}


def test_an_epoch_of_many_networks_costs_that_of_one(counts: Any) -> None:
    one, many = epoch_costs(1, counts), epoch_costs(N_NETWORKS, counts)
    print(f"\n784-128-10, an epoch of 9 updates\n1 network: {one}\n{N_NETWORKS} networks: {many}")
    assert one["launches"] + one["graph_kernels"] >= 3 * 9
    # A lone training waits after each window as well; together they wait once, when the epoch's sums are read.
    assert all(many[name] <= one[name] for name in COUNTED)


def test_each_of_many_networks_is_that_of_its_lone_fit() -> None:
    X, y = images()
    folds = [np.flatnonzero(np.arange(N_ROWS) % 5 != fold) for fold in range(4)] + [np.arange(N_ROWS)]
    trainers = [trainer(seed, 1) for seed in range(N_NETWORKS)]
    outcomes = train_together([one.training(X[folds[i % 5]], y[folds[i % 5]]) for i, one in enumerate(trainers)])
    assert outcomes == [None] * N_NETWORKS
    for i, one in enumerate(trainers):
        assert str(one.plan_reason).startswith(f"joint: {N_NETWORKS} networks of one shape in the same launches; ")
        lone = trainer(i, 1).fit(X[folds[i % 5]], y[folds[i % 5]])
        assert lone.network.host_parameters().tobytes() == one.network.host_parameters().tobytes()
        assert lone.history["train_loss"] == one.history["train_loss"]
