"""The library's gradients against central differences, and the checker against planted mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.maths.activations import ACTIVATIONS, OUTPUT_ACTIVATIONS, get_activation
from gpuprop.maths.losses import LOSSES

Arrays = Sequence[Any]
DEFINED = [
    (activation, loss.name)
    for activation in OUTPUT_ACTIVATIONS
    for loss in LOSSES.values()
    if get_activation(activation, output=True).output_range in loss.output_ranges
]


def problem(n_outputs: int, loss: str, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    X, y = rng.normal(size=(8, 4)), rng.random((8, n_outputs))
    if loss == "categorical_cross_entropy":
        y /= y.sum(axis=1, keepdims=True)
    return X, y, rng.random(8)


def network(n_outputs: int, loss: str, hidden: str, output: str | None = None, **options: Any) -> gpuprop.Network:
    net = gpuprop.Network((4, 5, 3, n_outputs), hidden_activation=hidden, output_activation=output, loss=loss,
                          dtype="float64", seed=7, **options)  # fmt: skip
    rng = np.random.default_rng(1)
    for biases in net.biases:
        biases[...] = rng.normal(size=biases.shape) * 0.3
    return net


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_every_activation_with_every_loss(hidden: str, loss: str, n_outputs: int) -> None:
    X, y, _ = problem(n_outputs, loss)
    report = gpuprop.check_gradients(network(n_outputs, loss, hidden), X, y, tolerance=1e-6)
    assert report.passed, str(report)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize(("output", "loss"), DEFINED)
def test_every_output_activation_with_weights_penalties_and_dropout(output: str, loss: str, n_outputs: int) -> None:
    X, y, sample_weight = problem(n_outputs, loss)
    net = network(n_outputs, loss, "tanh", output, dropout=(0.2, 0.4), l1=0.01, l2=0.1)
    report = gpuprop.check_gradients(net, X, y, sample_weight, dropout_step=3, tolerance=1e-6)
    assert report.passed, str(report)
    assert sum(layer.n_checked for layer in report.layers) == net.n_parameters


def test_dropout_of_kinked_and_z_based_units() -> None:
    X, y, _ = problem(3, "squared_error")
    for hidden in ("relu", "gelu"):
        report = gpuprop.check_gradients(network(3, "squared_error", hidden, dropout=0.5), X, y, dropout_step=1)
        assert report.passed, str(report)


def test_float32_and_pixels() -> None:
    rng = np.random.default_rng(0)
    net = gpuprop.Network((16, 8, 3), loss="categorical_cross_entropy", seed=0,
                          input_scaling=gpuprop.InputScaling.divide(255))  # fmt: skip
    X = rng.integers(0, 256, (20, 16)).astype(np.uint8)
    assert gpuprop.check_gradients(net, X, rng.integers(0, 3, 20)).passed
    net = gpuprop.Network((16, 8, 3), hidden_activation="tanh", seed=0, dtype="float64")
    assert gpuprop.check_gradients(net, X, rng.normal(size=(20, 3))).passed


def test_a_large_network_is_sampled_in_every_layer() -> None:
    rng = np.random.default_rng(0)
    net = gpuprop.Network((100, 80, 10), loss="categorical_cross_entropy", dtype="float64", seed=0)
    X, y = rng.normal(size=(3, 100)), rng.integers(0, 10, 3)
    report = gpuprop.check_gradients(net, X, y, n_parameters=60)
    assert report.passed
    assert [layer.n_checked + layer.n_skipped for layer in report.layers] == [54, 10, 10, 10]
    assert str(report) == str(gpuprop.check_gradients(net, X, y, n_parameters=60))


def test_kinks_are_dodged_not_compared() -> None:
    net = gpuprop.Network((2, 3, 1), dtype="float64", seed=0)
    net.weights[0][...] = 0.0  # z is exactly 0: every first-layer weight moves it across the kink
    report = gpuprop.check_gradients(net, [[1.0, 2.0], [0.5, -1.0]], [1.0, 2.0])
    assert report.layers[0].n_skipped == 6
    assert report.passed
    everything = gpuprop.Network((2, 1), dtype="float64", init="zeros", l1=0.1)
    assert gpuprop.check_gradients(everything, [[1.0, 2.0]], [1.0]).layers[0].n_skipped == 2


def forgot_derivative(net: gpuprop.Network, X: Any, y: Any) -> tuple[float, Arrays, Arrays]:
    """The hidden delta without f'."""
    loss, weight_grads, bias_grads = net.loss_and_gradients(X, y)
    a = net.activations(X)
    delta = (a[2] - y) / len(X) @ net.weights[1].T
    return loss, [a[0].T @ delta, weight_grads[1]], [delta.sum(axis=0), bias_grads[1]]


def forgot_mean(net: gpuprop.Network, X: Any, y: Any) -> tuple[float, Arrays, Arrays]:
    """Gradients summed over the batch, not averaged."""
    loss, weight_grads, bias_grads = net.loss_and_gradients(X, y)
    return loss, [g * len(X) for g in weight_grads], [g * len(X) for g in bias_grads]


def transposed(net: gpuprop.Network, X: Any, y: Any) -> tuple[float, Arrays, Arrays]:
    """The output layer's weights not transposed in the hidden delta."""
    loss, weight_grads, bias_grads = net.loss_and_gradients(X, y)
    a = net.activations(X)
    delta = (a[2] - y) / len(X) @ net.weights[1] * (1 - a[1] ** 2)
    return loss, [a[0].T @ delta, weight_grads[1]], [delta.sum(axis=0), bias_grads[1]]


def one_wrong_entry(net: gpuprop.Network, X: Any, y: Any) -> tuple[float, Arrays, Arrays]:
    loss, weight_grads, bias_grads = net.loss_and_gradients(X, y)
    weight_grads[1][2, 1] *= 1.001
    return loss, weight_grads, bias_grads


def not_a_number(net: gpuprop.Network, X: Any, y: Any) -> tuple[float, Arrays, Arrays]:
    loss, weight_grads, bias_grads = net.loss_and_gradients(X, y)
    bias_grads[0][1] = np.nan
    return loss, weight_grads, bias_grads


@pytest.mark.parametrize(
    ("mistake", "wrong"),
    [
        (forgot_derivative, ["layer 1 weights", "layer 1 biases"]),
        (forgot_mean, ["layer 1 weights", "layer 1 biases", "layer 2 weights", "layer 2 biases"]),
        (transposed, ["layer 1 weights", "layer 1 biases"]),
        (one_wrong_entry, ["layer 2 weights"]),
        (not_a_number, ["layer 1 biases"]),
    ],
)
def test_planted_mistakes_are_found_where_they_are(mistake: Any, wrong: list[str]) -> None:
    rng = np.random.default_rng(0)
    net = gpuprop.Network((3, 3, 3), hidden_activation="tanh", dtype="float64", seed=0)
    report = gpuprop.check_gradients(net, rng.normal(size=(6, 3)), rng.normal(size=(6, 3)), gradients=mistake)
    assert not report.passed
    assert [layer.name for layer in report.layers if not layer.passed] == wrong
    assert "FAILED" in str(report)
    if mistake is one_wrong_entry:
        assert report.layers[2].worst == (2, 1)


def test_the_network_is_left_as_it_was() -> None:
    net = network(3, "squared_error", "relu")
    before = net.parameters.copy()
    X, y, _ = problem(3, "squared_error")
    gpuprop.check_gradients(net, X, y)
    np.testing.assert_array_equal(net.parameters, before)


def test_bad_arguments() -> None:
    net = network(1, "squared_error", "relu")
    X, y, sample_weight = problem(1, "squared_error")
    with pytest.raises(ValueError, match="together"):
        gpuprop.check_gradients(net, X, y, sample_weight, gradients=one_wrong_entry)
    with pytest.raises(ValueError, match="gradients: got arrays of shapes"):
        gpuprop.check_gradients(net, X, y, gradients=lambda n, a, b: (0.0, [np.zeros(2)], [np.zeros(2)]))
    with pytest.raises(ValueError, match="tolerance"):
        gpuprop.check_gradients(net, X, y, tolerance=0)
