"""Whole trainings on tensor cores: they follow float32, or the emulation, and repeat bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.core.precision import PRECISIONS, UNIT_ROUNDOFF
from gpuprop.measure.equivalence import tolerances
from gpuprop.training.side_by_side import train_together

pytestmark = pytest.mark.gpu

TENSOR = PRECISIONS[1:]


def network(precision: str, *, seed: int = 1, sizes: tuple[int, ...] = (37, 70, 33, 19, 5), **how: Any) -> Any:
    """Return a network on the device."""
    given: dict[str, Any] = {"loss": "categorical_cross_entropy", "device": "cuda"} | how
    return gpuprop.Network(sizes, seed=seed, precision=precision, **given)


def data(n: int = 150, n_features: int = 37, n_classes: int = 5, *, of_bytes: bool = True) -> tuple[Any, Any]:
    """Return rows that can be learnt."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, n_classes, n)
    X = rng.integers(0, 120, (n, n_features)) + 25 * (np.arange(n_features) % n_classes == y[:, None])
    return (X.astype(np.uint8), y) if of_bytes else ((X / 60 - 1).astype(np.float32), y)


def trained(net: Any, X: Any, y: Any, **how: Any) -> Any:
    """Return the loss curve of a training."""
    given: dict[str, Any] = {"epochs": 5, "batch_size": 64, "learning_rate": 1e-3} | how
    return np.array(gpuprop.Trainer(net, **given).fit(X, y).history["train_loss"])


@pytest.mark.parametrize(
    "options", [{}, {"dropout": (0.2, 0.1, 0.1, 0.0)}, {"l2": 1e-3}], ids=["plain", "dropout", "penalised"]
)
@pytest.mark.parametrize("of_bytes", [True, False], ids=["bytes", "floats"])
def test_tf32x3_follows_float32(of_bytes: bool, options: dict[str, Any]) -> None:
    X, y = data(of_bytes=of_bytes)
    scaling = gpuprop.InputScaling.divide(255) if of_bytes else None
    curves = [
        trained(network(precision, input_scaling=scaling, **options), X, y, epochs=12)
        for precision in ("float32", "tf32x3")
    ]
    assert curves[0][-1] < 0.95 * curves[0][0]
    np.testing.assert_allclose(curves[1], curves[0], rtol=tolerances.CURVE[np.dtype(np.float32)])


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_training_is_that_of_the_emulation(precision: str) -> None:
    X, y = data(of_bytes=False)
    curves = [trained(net, X, y) for net in (network(precision), network(precision, device="cpu", emulate=True))]
    # The device's head multiplies the last layer in float32; a result beside a tie rounds to the other side.
    np.testing.assert_allclose(curves[0], curves[1], rtol=2 * UNIT_ROUNDOFF[precision])


@pytest.mark.parametrize("precision", TENSOR)
def test_wide_outputs_and_clipping(precision: str) -> None:
    X, y = data(n_classes=40)
    nets = [network(name, sizes=(37, 50, 40), input_scaling=gpuprop.InputScaling.divide(255)) for name in
            ("float32", precision)]  # fmt: skip
    expected, found = (trained(net, X, y, clip_norm=0.5) for net in nets)
    tolerance = 1e-4 if precision == "tf32x3" else 2 * UNIT_ROUNDOFF[precision]
    np.testing.assert_allclose(found, expected, rtol=tolerance)
    outputs = [net.forward(X) for net in nets]
    np.testing.assert_allclose(outputs[1], outputs[0], atol=max(1e-5, 4 * UNIT_ROUNDOFF[precision]))


def test_networks_that_share_launches_have_the_bits_of_lone_ones() -> None:
    # Two networks of each precision: those of one share their launches, those of another do not join them.
    X, y = data(of_bytes=False)
    members = [(precision, seed) for precision in PRECISIONS for seed in (1, 2)]
    together = [network(precision, seed=seed) for precision, seed in members]
    given: dict[str, Any] = {"epochs": 2, "batch_size": 64, "learning_rate": 1e-3}
    trainings = [gpuprop.Trainer(net, **given).training(X, y) for net in together]
    assert train_together(trainings) == [None] * len(members)
    for (precision, seed), joined in zip(members, together, strict=True):
        alone = network(precision, seed=seed)
        gpuprop.Trainer(alone, **given).fit(X, y)
        np.testing.assert_array_equal(joined.host_parameters(), alone.host_parameters())


def test_one_epoch_repeats_bit_for_bit() -> None:
    X, y = data()
    results = []
    for _ in range(2):
        net = network("bf16")
        trained(net, X, y, epochs=1)
        results.append(net.host_parameters().tobytes())
    assert results[0] == results[1]
