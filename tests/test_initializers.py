"""Initial weights: published variances, bounds, and the symmetry that zeros cannot break."""

from __future__ import annotations

import numpy as np
import pytest

import gpuprop
from gpuprop.maths.initializers import default_initializer, get_initializer

FAN_IN, FAN_OUT = 300, 200


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("glorot", 2 / (FAN_IN + FAN_OUT)),
        ("he", 2 / FAN_IN),
        ("lecun", 1 / FAN_IN),
        ("uniform(0.5)", 0.5**2 / 3),
        ("uniform", 0.12**2 / 3),
    ],
)
def test_variance_and_bounds(name: str, variance: float) -> None:
    w = get_initializer(name)(np.random.default_rng(0), FAN_IN, FAN_OUT)
    assert w.shape == (FAN_IN, FAN_OUT)
    # The mean of n squares of a uniform variable has a relative deviation of sqrt(4/5/n); five of them.
    assert np.mean(w**2) == pytest.approx(variance, rel=5 * np.sqrt(0.8 / w.size))
    assert np.abs(w).max() <= np.sqrt(3 * variance)
    assert np.abs(w).max() > 0.99 * np.sqrt(3 * variance)


def test_the_normal_distribution_of_lecun() -> None:
    w = get_initializer("lecun_normal")(np.random.default_rng(0), FAN_IN, FAN_OUT) * np.sqrt(FAN_IN)
    # Moments of a standard normal variable, within five deviations of their means over n numbers.
    n = w.size
    assert np.mean(w**2) == pytest.approx(1, abs=5 * np.sqrt(2 / n))
    assert np.mean(w**4) == pytest.approx(3, abs=5 * np.sqrt(96 / n))


def test_defaults_by_activation() -> None:
    assert [default_initializer(name) for name in ("relu", "leaky_relu(0.2)", "tanh", "logistic")] == [
        "he",
        "he",
        "glorot",
        "glorot",
    ]
    net = gpuprop.Network((FAN_IN, FAN_OUT, 5), seed=0, dtype="float64")
    assert np.mean(net.weights[0] ** 2) == pytest.approx(2 / FAN_IN, rel=0.05)
    assert not net.biases[0].any()


def test_one_seed_gives_one_start_in_both_dtypes() -> None:
    single, double = (gpuprop.Network((7, 5, 2), seed=4, dtype=dtype) for dtype in ("float32", "float64"))
    np.testing.assert_array_equal(single.parameters, double.parameters.astype(np.float32))
    assert not np.array_equal(single.parameters, gpuprop.Network((7, 5, 2), seed=5).parameters)


def test_zeros_keep_hidden_units_identical() -> None:
    rng = np.random.default_rng(0)
    net = gpuprop.Network((3, 4, 1), hidden_activation="logistic", init="zeros", seed=0)
    gpuprop.Trainer(net, optimizer="sgd", epochs=3, batch_size=5).fit(rng.normal(size=(20, 3)), rng.normal(size=20))
    assert net.weights[1].any()
    assert (net.weights[0] == net.weights[0][:, :1]).all()
    assert (net.weights[1] == net.weights[1][0]).all()


def test_own_initializer() -> None:
    net = gpuprop.Network((3, 2), init=lambda rng, fan_in, fan_out: np.full((fan_in, fan_out), 0.25))
    assert (net.weights[0] == 0.25).all()
    with pytest.raises(ValueError, match=r"got weights of shape \(2,\), expected \(3, 2\)"):
        gpuprop.Network((3, 2), init=lambda rng, fan_in, fan_out: np.zeros(2))


@pytest.mark.parametrize(
    ("init", "message"), [("glorott", "did you mean 'glorot'"), ("uniform(-1)", "positive"), ("uniform(x)", "positive")]
)
def test_bad_names(init: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpuprop.Network((2, 2), init=init)
