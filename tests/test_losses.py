"""Losses against scalar loops and scikit-learn's metrics; undefined pairs; extreme outputs; scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, mean_pinball_loss, mean_poisson_deviance

import gpuprop
from gpuprop.maths.activations import OUTPUT_ACTIVATIONS, get_activation
from gpuprop.maths.losses import LOSSES, check_pair, get_loss, output_delta, penalty, score, smoothed_labels
from tests.references.network import activate, jacobian, sample_loss, sample_loss_gradient

DEFINED = [
    (loss, activation)
    for loss, activations in {
        "squared_error": OUTPUT_ACTIVATIONS,
        "binary_cross_entropy": ("logistic", "softmax"),
        "categorical_cross_entropy": ("logistic", "softmax"),
        "poisson": ("logistic", "softmax", "softplus", "exponential"),
        "absolute_error": OUTPUT_ACTIVATIONS,
        "huber": OUTPUT_ACTIVATIONS,
        "pinball": OUTPUT_ACTIVATIONS,
    }.items()
    for activation in activations
]


def targets(loss: str, n_samples: int, n_outputs: int, rng: np.random.Generator) -> Any:
    if loss in ("squared_error", "absolute_error", "huber", "pinball"):
        return rng.normal(size=(n_samples, n_outputs))
    if loss == "poisson":
        return rng.poisson(1.5, size=(n_samples, n_outputs)).astype(float)
    y = rng.random((n_samples, n_outputs)) * rng.integers(0, 2, (n_samples, n_outputs)) + 1e-3
    return y if loss == "binary_cross_entropy" else y / y.sum(axis=1, keepdims=True)


# One softmax output is always 1, where the term -log(1 - a) of binary cross-entropy is infinite.
SIZED = [(*pair, n) for pair in DEFINED for n in (1, 3) if (*pair, n) != ("binary_cross_entropy", "softmax", 1)]


@pytest.mark.parametrize(("loss", "activation", "n_outputs"), SIZED)
def test_values_and_deltas_agree_with_the_scalar_reference(loss: str, activation: str, n_outputs: int) -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(size=(7, n_outputs)) * 2
    y = targets(loss, 7, n_outputs, rng)
    f = get_activation(activation, output=True)
    values, delta = output_delta(get_loss(loss), f, z, f.function(z.copy()), y)
    for row in range(7):
        a = activate(activation, z[row])
        expected = jacobian(activation, z[row]).T @ sample_loss_gradient(loss, a, y[row])
        np.testing.assert_allclose(delta[row], expected, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(values[row], sample_loss(loss, a, y[row]), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", OUTPUT_ACTIVATIONS)
def test_undefined_pairs_are_refused_at_construction(loss: str, activation: str) -> None:
    if (loss, activation) in DEFINED:
        check_pair(get_loss(loss), get_activation(activation, output=True))
    else:
        with pytest.raises(ValueError, match="not defined"):
            gpuprop.Network((2, 3, 2), output_activation=activation, loss=loss)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("loss", "activation"), DEFINED)
def test_extreme_net_inputs_give_finite_losses_and_deltas(loss: str, activation: str, dtype: str) -> None:
    z = np.array([[-1e4, 1e4, 0], [1e4, -1e4, 3], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4]], dtype)
    y = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype)
    f = get_activation(activation, output=True)
    values, delta = output_delta(get_loss(loss), f, z, f.function(z.copy()), y)
    assert values.dtype == dtype
    assert delta.dtype == dtype
    assert np.isfinite(delta).all()
    assert np.isfinite(values).all()


def test_confident_and_wrong_costs_what_it_should() -> None:
    # From z the cross-entropy of a saturated output is exact: -log(logistic(-30)) = 30, -log softmax = 60.
    z = np.array([[-30.0]], "float32")
    logistic = get_activation("logistic")
    values, _ = output_delta(
        get_loss("binary_cross_entropy"), logistic, z, logistic.function(z), np.ones((1, 1), "float32")
    )
    np.testing.assert_allclose(values, [30.0], rtol=1e-6)
    z = np.array([[-30.0, 30.0]], "float32")
    softmax = get_activation("softmax", output=True)
    y = np.array([[1.0, 0.0]], "float32")
    values, _ = output_delta(get_loss("categorical_cross_entropy"), softmax, z, softmax.function(z), y)
    np.testing.assert_allclose(values, [60.0], rtol=1e-6)


def test_values_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(17, 4))
    labels = rng.integers(0, 4, 17)
    weight = rng.random(17)
    net = gpuprop.Network((4, 4), loss="categorical_cross_entropy", dtype="float64", seed=0)
    net.weights[0][...] = np.eye(4)
    expected = log_loss(labels, net.forward(z), labels=range(4), sample_weight=weight)
    np.testing.assert_allclose(net.loss(z, labels, weight), expected, rtol=1e-13)

    net = gpuprop.Network((4, 1), loss="poisson", dtype="float64", seed=0)
    counts = rng.poisson(2, 17)
    expected = mean_poisson_deviance(counts, net.forward(z)[:, 0], sample_weight=weight) / 2
    np.testing.assert_allclose(net.loss(z, counts, weight), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("absolute_error", lambda r: abs(r)),
        ("huber", lambda r: r**2 / 2 if abs(r) <= 1 else abs(r) - 0.5),
        ("huber(0.3)", lambda r: r**2 / 2 if abs(r) <= 0.3 else 0.3 * (abs(r) - 0.15)),
        ("pinball", lambda r: abs(r) / 2),
        ("pinball(0.9)", lambda r: 0.1 * r if r > 0 else -0.9 * r),
    ],
)
def test_parametric_losses(name: str, expected: Any) -> None:
    loss = get_loss(name)
    assert get_loss(loss.name).name == loss.name == name
    residuals = np.array([-2.0, -0.8, -0.2, 0.0, 0.2, 0.8, 2.0])
    values = loss.value(residuals[:, None] + 5, np.full((7, 1), 5.0))
    np.testing.assert_allclose(values, [expected(r) for r in residuals], rtol=1e-12, atol=1e-15)
    assert loss.gradient(np.full((1, 1), 5.0), np.full((1, 1), 5.0)) == 0


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
def test_pinball_agrees_with_scikit_learn(quantile: float) -> None:
    rng = np.random.default_rng(0)
    a, y = rng.normal(size=(2, 17, 1))
    expected = mean_pinball_loss(y, a, alpha=quantile)
    np.testing.assert_allclose(get_loss(f"pinball({quantile})").value(a, y).mean(), expected, rtol=1e-13)


@pytest.mark.parametrize("name", ["huber(0)", "huber(x)", "pinball(1)", "pinball(-0.5)", "huber(nan)"])
def test_wrong_parameters_of_losses(name: str) -> None:
    with pytest.raises(ValueError, match=name.split("(")[0]):
        get_loss(name)


def test_score() -> None:
    a = np.array([[0.2, 0.7, 0.7], [0.9, 0.1, 0.4]])
    y = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(score(a, y, "class"), [True, False])
    np.testing.assert_array_equal(score(a, y, "labels"), [False, False])
    np.testing.assert_array_equal(score(np.array([[0.5], [0.51]]), np.ones((2, 1)), "labels"), [False, True])
    np.testing.assert_allclose(score(a, y, "residual"), [0.04 + 0.09 + 0.49, 0.81 + 0.01 + 0.36])


def test_penalty() -> None:
    assert penalty(np.array([1.0, -2.0, 3.0]), l1=0.5, l2=0.1) == pytest.approx(0.5 * 6 + 0.05 * 14)


def test_smoothed_labels() -> None:
    classes = smoothed_labels(np.eye(4)[[2, 0]], 0.1, get_loss("categorical_cross_entropy"))
    np.testing.assert_allclose(classes, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]])
    labels = smoothed_labels(np.array([[0.0, 1.0]]), 0.1, get_loss("binary_cross_entropy"))
    np.testing.assert_allclose(labels, [[0.05, 0.95]])


def test_unknown_loss() -> None:
    with pytest.raises(ValueError, match="did you mean 'poisson'"):
        get_loss("poison")
