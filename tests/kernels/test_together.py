"""Several networks in the launches of one: each gets the bits of its lone fit, in any company and any order of blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.errors import NonFiniteLossError
from gpuprop.training.side_by_side import train_together
from tests.kernels import support as s

DEVICE = "cuda" if s.ON_DEVICE else "cuda-sim"
PIXELS = gpuprop.InputScaling.divide(255)


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)


def blobs(n: int, classes: int = 3, features: int = 5) -> tuple[Any, Any]:
    """Return bytes around one centre a class, and classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, n)
    centres = rng.integers(60, 190, (classes, features))
    return np.clip(centres[y] + 25 * rng.standard_normal((n, features)), 0, 255).astype(np.uint8), y


def trainer(seed: int, sizes: tuple[int, ...] = (5, 6, 3), network: dict[str, Any] | None = None, **how: Any) -> Any:
    options: dict[str, Any] = {"loss": "categorical_cross_entropy", "input_scaling": PIXELS} | (network or {})
    net = gpuprop.Network(sizes, device=DEVICE, seed=seed, **options)
    return gpuprop.Trainer(net, **({"batch_size": 8, "epochs": 2} | how))


Fits = list[tuple[Any, tuple[Any, ...]]]


def bits(one: Any) -> tuple[bytes, Any]:
    """Return the parameters of a trained network, and its history but for the time."""
    return one.network.host_parameters().tobytes(), {k: v for k, v in one.history.items() if k != "seconds"}


def same_as_alone(
    make: Callable[[], Fits], expected_reason: str = "joint: ", fitted: Callable[[], Any] | None = None
) -> Fits:
    """Fit all of them alone and together, require equal bits, and return the ones that trained together."""
    alone, side_by_side = make(), make()
    for one, data in alone:
        one.fit(*data)
    outcomes = train_together([one.training(*data) for one, data in side_by_side])
    assert outcomes == [None] * len(outcomes)
    for (one, _), (other, _) in zip(alone, side_by_side, strict=True):
        assert bits(other) == bits(one)
        assert str(other.plan_reason).startswith(expected_reason)
    return side_by_side


def test_seeds_rates_folds_penalties_weights_and_dropout(shuffled_blocks: None) -> None:
    X, y = blobs(37)
    rng = np.random.default_rng(1)

    def make() -> Fits:
        fits: Fits = []
        for seed, (rate, l2, share, n) in enumerate([(0.1, 0.1, 0.3, 37), (0.02, 0.3, 0.2, 29), (0.05, 1.0, 0.5, 17)]):
            rows = np.random.default_rng(seed).permutation(37)[:n]
            network = {"l1": 0.01 * seed, "l2": l2, "dropout": (share, 0.4), "hidden_activation": "gelu"}
            one = trainer(seed, network=network, learning_rate=rate, schedule="cosine", epochs=2 + (seed == 1))
            fits.append((one, (X[rows], y[rows], rng.uniform(0.5, 2, 37)[rows])))
        return fits

    rng = np.random.default_rng(1)
    state = rng.bit_generator.state

    def again() -> Fits:
        rng.bit_generator.state = state
        return make()

    same_as_alone(again, "joint: 3 networks of one shape in the same launches; fused kernels")


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw", "nadam"])
def test_hyperparameters_of_one_optimizer(optimizer: str) -> None:
    X, y = blobs(19)
    makes: dict[str, Callable[[float], Any]] = {
        "sgd": lambda _: "sgd",
        "momentum": lambda x: gpuprop.maths.optimizers.Momentum(momentum=x),
        "adamw": lambda x: gpuprop.maths.optimizers.AdamW(beta_1=x, weight_decay=x / 10),
        "nadam": lambda x: gpuprop.maths.optimizers.NAdam(beta_1=x),
    }
    same_as_alone(
        lambda: [(trainer(i, optimizer=makes[optimizer](x), epochs=1), (X, y)) for i, x in enumerate((0.5, 0.9))]
    )


@pytest.mark.parametrize(
    ("sizes", "how"),
    [
        ((5, 9, 7, 3), {"clip_norm": 0.3, "max_norm": 0.9, "accumulation_steps": 2, "batch_size": 6}),
        ((5, 6, 18), {"clip_norm": 0.3}),
        ((5, 18), {}),
    ],
    ids=["clipped, in parts, max-norm", "more than 16 classes", "without a hidden layer"],
)
def test_every_launch(sizes: tuple[int, ...], how: dict[str, Any], shuffled_blocks: None) -> None:
    X, y = blobs(23, classes=sizes[-1])
    network = {"l2": 0.1, "dtype": "float64", "hidden_activation": "silu"}
    same_as_alone(lambda: [(trainer(i, sizes, network, **how), (X[: 23 - 4 * i], y[: 23 - 4 * i])) for i in range(3)])


@pytest.mark.parametrize("how", [{}, {"clip_norm": 0.2}], ids=["", "clipped"])
def test_a_split_batch(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(24)
    monkeypatch.setattr("gpuprop_kernels.launch.choose_parts", lambda *_: 2)
    how = {"network": {"l2": 0.1}, "batch_size": 12, "epochs": 1} | how
    same_as_alone(lambda: [(trainer(i, **how), (X, y)) for i in range(2)])


def test_early_stopping_keeps_the_best_of_each() -> None:
    X, y = blobs(40)

    def make() -> Fits:
        how = {"validation": 0.2, "early_stopping": 1, "epochs": 5}
        return [(trainer(i, learning_rate=rate, **how), (X, y)) for i, rate in enumerate((2.0, 0.01, 1.0, 0.1, 0.3))]

    trained = same_as_alone(make)
    assert len({one.epochs_done for one, _ in trained}) > 1, "they must not all end in one epoch"


def test_one_diverges_and_the_others_go_on() -> None:
    X, y = blobs(24)
    make = lambda: [trainer(i, optimizer="sgd", learning_rate=rate) for i, rate in enumerate((0.1, 1e38, 0.2))]  # noqa: E731
    alone, side_by_side = make(), make()
    for one in (alone[0], alone[2]):
        one.fit(X, y)
    with pytest.raises(NonFiniteLossError) as lone:
        alone[1].fit(X, y)
    before = side_by_side[1].network.host_parameters()
    outcomes = train_together([one.training(X, y) for one in side_by_side])
    assert [outcomes[0], outcomes[2]] == [None, None]
    assert str(outcomes[1]) == str(lone.value)
    assert side_by_side[1].network.host_parameters().tobytes() == before.tobytes()
    for place in (0, 2):
        assert bits(side_by_side[place]) == bits(alone[place])
