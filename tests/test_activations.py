"""Activations against scalar references from the math module, at ordinary and at extreme net inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.maths.activations import ACTIVATIONS, OUTPUT_ACTIVATIONS, get_activation
from tests.references.network import SCALAR, activate

DTYPES = ["float32", "float64"]
ELEMENTWISE = [name for name in OUTPUT_ACTIVATIONS if name != "softmax"]
Z = np.concatenate([np.linspace(-12, 12, 97) + 0.003, [1e-8, -1e-8, 20.0, -20.0, 40.0, -40.0]])


def net_inputs(name: str, dtype: str) -> Any:
    """Net inputs of the dtype; those of exponential stop before its saturation (at 22 in float32)."""
    return Z[Z <= 20].astype(dtype) if name == "exponential" else Z.astype(dtype)


def tolerance(dtype: str) -> float:
    """A few roundings of a value of order one, and of an exponential of an argument of 40."""
    return 200 * float(np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_values_agree_with_the_scalar_reference(name: str, dtype: str) -> None:
    z = net_inputs(name, dtype)
    got = get_activation(name, output=True).function(z.copy())
    expected = [SCALAR[name][0](float(value)) for value in z]
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=tolerance(dtype), atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_derivatives_agree_with_the_scalar_reference(name: str, dtype: str) -> None:
    activation = get_activation(name, output=True)
    z = net_inputs(name, dtype)
    a = activation.function(z.copy())
    got = activation.derivative(activation.source(z, a))
    expected = np.array([SCALAR[name][1](float(value)) for value in z])
    assert got.dtype == dtype
    # From the output: where a saturates at +-1 the derivative is known to eps only, not relatively.
    np.testing.assert_allclose(got, expected, rtol=tolerance(dtype), atol=float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OUTPUT_ACTIVATIONS)
def test_stable_at_extreme_net_inputs(name: str, dtype: str) -> None:
    activation = get_activation(name, output=True)
    z = np.array([[-1e4, 1e4, 0.0], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4]], dtype)
    a = activation.function(z.copy())
    assert np.isfinite(a).all()
    if name == "softmax":
        np.testing.assert_allclose(a, np.array([[0, 1, 0], [1 / 3] * 3, [1 / 3] * 3]), rtol=1e-6)
        return
    derivative = activation.derivative(activation.source(z, a))
    assert np.isfinite(derivative).all()
    if name == "exponential":
        assert a[0, 0] == 0
        assert a[0, 1] > 1e9
    else:
        expected = [SCALAR[name][1](value) for value in (-1e4, 1e4)]
        np.testing.assert_allclose(derivative[0, :2], expected, atol=1e-6)


def test_softmax_agrees_with_the_scalar_reference_and_ignores_shifts() -> None:
    softmax = get_activation("softmax", output=True).function
    z = np.array([[5.1, 3.2, -1.7, -2.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(softmax(z), [activate("softmax", row) for row in z], rtol=1e-14)
    np.testing.assert_allclose(softmax(z + 7.5), softmax(z), rtol=1e-13)


def test_relu_passes_nan_on_so_that_divergence_is_seen() -> None:
    assert np.isnan(get_activation("relu").function(np.array([np.nan])))[0]


@pytest.mark.parametrize(
    ("name", "z", "expected"), [("leaky_relu(0.2)", -3.0, -0.6), ("elu(0.5)", -1.0, -0.3160602794)]
)
def test_parameters_in_names(name: str, z: float, expected: float) -> None:
    activation = get_activation(name)
    np.testing.assert_allclose(activation.function(np.array([z])), [expected], rtol=1e-9)
    assert get_activation(activation.name).name == activation.name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rellu", "did you mean 'relu'"),
        ("leaky_relu(2)", "between 0 and 1"),
        ("elu(-1)", "must be positive"),
        ("elu(x)", "could not convert"),
        ("softmax", "output layer only"),
    ],
)
def test_bad_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_activation(name)


def test_hidden_layers_take_all_but_softmax_and_exponential() -> None:
    assert set(OUTPUT_ACTIVATIONS) - set(ACTIVATIONS) == {"softmax", "exponential"}


class TestOwnActivation:
    def test_from_z(self) -> None:
        cube = gpuprop.Activation("cube", lambda z: z**3, lambda z: 3 * z**2, derivative_of="z")
        net = gpuprop.Network((3, 4, 2), hidden_activation=cube, dtype="float64", seed=1)
        rng = np.random.default_rng(0)
        assert gpuprop.check_gradients(net, rng.normal(size=(5, 3)), rng.normal(size=(5, 2))).passed

    def test_from_output(self) -> None:
        squareplus = gpuprop.Activation(
            "squareplus", lambda z: (z + np.sqrt(z * z + 4)) / 2, lambda a: a * a / (a * a + 1), output_range="positive"
        )
        net = gpuprop.Network((3, 4, 1), hidden_activation=squareplus, output_activation=squareplus, loss="poisson",
                              dtype="float64", seed=1)  # fmt: skip
        rng = np.random.default_rng(0)
        assert gpuprop.check_gradients(net, rng.normal(size=(5, 3)), rng.poisson(2, size=5)).passed

    @pytest.mark.parametrize(
        ("function", "derivative", "options", "message"),
        [
            (lambda z: z**3, lambda z: 2 * z**2, {"derivative_of": "z"}, "finite differences"),
            (np.tanh, lambda z: 1 - np.tanh(z) ** 2, {}, "derivative_of='output'"),
            (np.sin, lambda z: np.full_like(z, np.nan), {"derivative_of": "z"}, "finite differences"),
            (lambda z: z[:3], lambda z: z, {}, "elementwise"),
            (lambda z: z, lambda z: 1.0, {}, "shape"),
            (np.tanh, lambda a: 1 - a * a, {"derivative_of": "x"}, "derivative_of"),
            (np.tanh, lambda a: 1 - a * a, {"output_range": "units"}, "did you mean 'unit'"),
        ],
    )
    def test_a_wrong_pair_is_refused(self, function: Any, derivative: Any, options: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            gpuprop.Activation("mine", function, derivative, **options)

    def test_a_taken_name_is_refused(self) -> None:
        with pytest.raises(ValueError, match="taken"):
            gpuprop.Activation("relu", np.tanh, lambda a: 1 - a * a)
