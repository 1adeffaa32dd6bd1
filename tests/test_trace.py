"""The trace against the published numbers, against its own formulas, and against the library's training."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gpuprop
from gpuprop.learn.trace import Trace, trace, updated_weights_gradients, worked_example
from gpuprop.learn.trace.expressions import Symbol, evaluate
from gpuprop.learn.trace.text import TextWriter, format_number
from gpuprop.maths.activations import ACTIVATIONS
from gpuprop.maths.losses import LOSSES
from tests.references.worked_example import CLOSING, GIVEN, MISPRINTED, PRINTED, Closing, descend, same_digits

Array = NDArray[Any]


@pytest.fixture(scope="module")
def example() -> Trace:
    return trace(*worked_example())


def values(result: Trace) -> dict[str, float]:
    writer = TextWriter(result.dtype)
    return {writer.write(term.symbol): term.value for term in result.terms}


# --- the published numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", PRINTED)
def test_intermediate_number(example: Trace, symbol: str) -> None:
    assert same_digits(values(example)[symbol], PRINTED[symbol])


@pytest.mark.parametrize("symbol", MISPRINTED)
def test_misprints_are_off_by_one_digit(example: Trace, symbol: str) -> None:
    printed = MISPRINTED[symbol]
    unit = 10.0 ** -len(printed.partition(".")[2])
    assert not same_digits(values(example)[symbol], printed)
    assert abs(values(example)[symbol] - float(printed)) < unit


def test_given(example: Trace) -> None:
    writer = TextWriter(example.dtype)
    given = {writer.write(symbol): symbol.value for _, symbols in example.given for symbol in symbols}
    assert given == {name: float(value) for name, value in GIVEN.items()}


def test_every_number_is_in_the_text(example: Trace) -> None:
    lines = str(example).splitlines()
    for symbol, printed in PRINTED.items():
        start = next(i for i, line in enumerate(lines) if line.split(" = ")[0].strip() == symbol)
        following = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith(" " * 8))
        assert same_digits(float(lines[following - 1].rpartition(" = ")[2]), printed), symbol


def test_terms_are_in_the_order_of_the_algorithm(example: Trace) -> None:
    order = list(values(example))
    places = [order.index(symbol) for symbol in PRINTED]
    assert places == sorted(places)
    assert len(order) == len(set(order))


def check_closing(result: Trace, closing: Closing) -> None:
    error, *outputs = descend(closing.weights, closing.rounds)
    assert result.loss_after == pytest.approx(error, rel=1e-10)
    np.testing.assert_allclose(result.outputs_after, outputs, rtol=1e-12)
    assert same_digits(result.loss_after, closing.error)
    for output, printed in zip(result.outputs_after, closing.outputs or (), strict=bool(closing.outputs)):
        assert same_digits(output, printed)
        assert printed in str(result)


@pytest.mark.parametrize("closing", [found for found in CLOSING if found.rounds == 1], ids=lambda found: found.weights)
def test_numbers_after_one_round(closing: Closing) -> None:
    check_closing(trace(*worked_example(), weights=closing.weights), closing)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", ["original", "updated"])
def test_closing_numbers(weights: Any) -> None:
    result = trace(*worked_example(), rounds=10_000, weights=weights)
    (closing,) = (found for found in CLOSING if (found.weights, found.rounds) == (weights, 10_000))
    check_closing(result, closing)
    # The error before the last update is that of one round less.
    for before in (found for found in CLOSING if (found.weights, found.rounds) == (weights, 9_999)):
        assert result.loss == pytest.approx(descend(weights, before.rounds)[0], rel=1e-10)
        assert same_digits(result.loss, before.error)


def test_last_round_is_the_one_that_is_shown() -> None:
    result = trace(*worked_example(), rounds=12)
    assert [done for done, _ in result.losses] == [0, 1, 10, 12]
    for done, loss in result.losses:
        assert loss == pytest.approx(descend("original", done)[0], rel=1e-12)
    assert result.loss == values(result)["E"] == pytest.approx(descend("original", 11)[0], rel=1e-12)


# --- the formulas ----------------------------------------------------------------------------------------------------

CUBE = gpuprop.Activation("cube", lambda z: z**3, lambda z: 3 * z**2, derivative_of="z")
SQUASH = gpuprop.Activation("softsign", lambda z: z / (1 + abs(z)), lambda a: (1 - abs(a)) ** 2)
HIDDEN = (*ACTIVATIONS, "leaky_relu(0.2)", "elu(0.5)")
#: Targets that pick each case of the loss's formula.
TARGETS: dict[str, Array] = {
    "squared_error": np.array([0.3, -1.0, 2.0]),
    "binary_cross_entropy": np.array([0.0, 1.0, 0.3]),
    "categorical_cross_entropy": np.array([0.0, 0.75, 0.25]),
    "poisson": np.array([0.0, 3.0, 1.5]),
    "absolute_error": np.array([0.3, -1.0, 2.0]),
    "huber": np.array([0.3, -1.0, 2.0]),
    "pinball": np.array([0.3, -1.0, 2.0]),
}
PAIRS = [
    ("squared_error", "identity"),
    ("squared_error", "logistic"),
    ("squared_error", "softmax"),
    ("squared_error", "exponential"),
    ("squared_error", "gelu"),
    ("binary_cross_entropy", "logistic"),
    ("binary_cross_entropy", "softmax"),
    ("categorical_cross_entropy", "softmax"),
    ("categorical_cross_entropy", "logistic"),
    ("poisson", "exponential"),
    ("poisson", "softplus"),
    ("absolute_error", "identity"),
    ("huber", "tanh"),
    ("pinball", "softmax"),
]


def assert_formulas_hold(result: Trace, tolerance: float) -> None:
    """Every formula, computed from the values of its symbols, gives the library's number."""
    writer = TextWriter(result.dtype)
    for term in result.terms:
        computed = evaluate(term.formula)
        assert computed == pytest.approx(term.value, rel=tolerance, abs=tolerance), writer.write(term.symbol)


@pytest.mark.parametrize("hidden", [*HIDDEN, CUBE, SQUASH], ids=lambda hidden: getattr(hidden, "name", hidden))
def test_formulas_of_activations(hidden: Any) -> None:
    network = gpuprop.Network((3, 4, 2, 3), hidden_activation=hidden, dtype="float64", seed=3)
    x = [0.7, -1.2, 0.4]
    result = trace(network, x, TARGETS["squared_error"])
    units = np.concatenate([layer.z for layer in result.numbers.layers[:2]])
    assert (units > 0).any()
    assert (units < 0).any()  # both pieces of the piecewise ones
    assert_formulas_hold(result, 1e-13)


@pytest.mark.parametrize(("loss", "output"), PAIRS)
def test_formulas_of_losses(loss: str, output: str) -> None:
    network = gpuprop.Network(
        (2, 3, 3), hidden_activation="tanh", output_activation=output, loss=loss, dtype="float64", seed=1
    )
    assert_formulas_hold(trace(network, [0.7, -1.2], TARGETS[loss], train_biases=True), 1e-12)


def test_all_losses_have_formulas() -> None:
    assert {loss for loss, _ in PAIRS} == set(LOSSES) == set(TARGETS)


@pytest.mark.parametrize("weights", ["original", "updated"])
@pytest.mark.parametrize(("l1", "l2"), [(0.1, 0.0), (0.0, 0.2), (0.1, 0.2)])
def test_formulas_with_penalties(weights: Any, l1: float, l2: float) -> None:
    network = gpuprop.Network((2, 3, 1), hidden_activation="tanh", dtype="float64", seed=1, l1=l1, l2=l2)
    result = trace(network, [0.7, -1.2], 0.3, weights=weights)
    assert "penalty" in values(result)
    assert_formulas_hold(result, 1e-13)


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((9, 5, 4), {"loss": "categorical_cross_entropy"}),
        ((17, 33, 7, 4), {"output_activation": "softmax"}),
        ((33, 7, 1), {"hidden_activation": "logistic", "l2": 0.1}),
        ((9, 4), {"loss": "binary_cross_entropy"}),
    ],
)
@pytest.mark.parametrize("weights", ["original", "updated"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_network_along_one_path(sizes: tuple[int, ...], options: Any, weights: Any, dtype: str) -> None:
    network = gpuprop.Network(sizes, dtype=dtype, seed=5, **options)
    x = np.random.default_rng(0).normal(size=sizes[0])
    result = trace(network, x, np.eye(4)[2] if sizes[-1] == 4 else 0.3, weights=weights, train_biases=True)
    assert_formulas_hold(result, 1e-12 if dtype == "float64" else 2e-6)
    assert result.path in str(result)
    names = result.path.partition(" (class")[0].split(" -> ")
    assert len(names) == len(sizes)
    assert names[0] == f"i{np.argmax(np.abs(x)) + 1}"
    assert names[-1] == f"o{np.argmax(result.numbers.errors) + 1}"
    assert len(result.terms) < 14 * len(sizes)


def test_text_of_a_formula() -> None:
    result = trace(*worked_example())
    terms = {TextWriter(result.dtype).write(term.symbol): term for term in result.terms}
    writer = TextWriter(result.dtype)
    assert writer.write(terms["net_h2"].formula) == "w3 * i1 + w4 * i2 + b_h2"
    assert writer.write(terms["net_h2"].formula, numbers=True) == "0.25 * 0.05 + 0.3 * 0.1 + 0.35"
    assert writer.write(terms["out_o1"].formula) == "1 / (1 + exp(-net_o1))"
    assert writer.write(terms["E_o1"].formula) == "1 / 2 * (target_o1 - out_o1)^2"
    assert writer.write(terms["dE/dout_o1"].formula) == "-(target_o1 - out_o1)"
    assert writer.write(terms["dE_o2/dout_h1"].formula) == "delta_o2 * w7"
    assert writer.write(terms["dE_o2/dout_h1"].formula, numbers=True) == "(-0.038098237) * 0.5"
    assert writer.write(terms["w5+"].formula) == "w5 - eta * dE/dw5"


def test_updated_variant_shows_the_weights_it_uses() -> None:
    result = trace(*worked_example(), weights="updated")
    terms = {TextWriter(result.dtype).write(term.symbol): term for term in result.terms}
    assert TextWriter(result.dtype).write(terms["dE_o1/dout_h1"].formula) == "delta_o1 * w5+"
    order = list(terms)
    assert order.index("w5+") < order.index("dE_o1/dout_h1") < order.index("w1+")
    assert_formulas_hold(result, 1e-13)


@pytest.mark.parametrize(
    ("value", "dtype", "text"),
    [
        (0.0, "float64", "0"),
        (-0.0, "float64", "0"),
        (0.05, "float64", "0.05"),
        (0.25 * 0.05 + 0.3 * 0.1 + 0.35, "float64", "0.3925"),
        (0.75136506955, "float64", "0.751365070"),
        (0.00043856773447, "float64", "0.000438568"),
        (3.51018778e-5, "float64", "3.51018778e-05"),
        (-2.5e7, "float64", "-2.50000000e+07"),
        (-1.0, "float32", "-1"),
        (float(np.float32(0.05)), "float32", "0.05"),
        (float(np.float32(1 / 3)), "float32", "0.3333333"),
    ],
)
def test_numbers(value: float, dtype: str, text: str) -> None:
    assert format_number(value, np.dtype(dtype)) == text


# --- against the library ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_those_of_the_library(dtype: str) -> None:
    network = gpuprop.Network(
        (7, 17, 3),
        loss="categorical_cross_entropy",
        dtype=dtype,
        seed=2,
        dropout=0.5,
        l2=0.1,
        input_scaling=gpuprop.InputScaling.divide(255),
        device="numpy",  # as the trace computes: to the last bit
    )
    x, y = np.arange(0, 210, 30, dtype=np.uint8)[None], np.array([2])
    before = network.parameters.copy()
    result = trace(network, x, y, rounds=3, train_biases=True, learning_rate=0.1)
    np.testing.assert_array_equal(network.parameters, before)

    sober = network.copy()
    sober.layers.spec = replace(sober.spec, dropout=(0.0, 0.0))
    trainer = gpuprop.Trainer(sober, optimizer="sgd", learning_rate=0.1, batch_size=1, epochs=2)
    twin = trainer.fit(x, y).network
    loss, weight_grads, bias_grads = twin.loss_and_gradients(x, y)
    assert result.loss == loss
    for layer, z, a in zip(result.numbers.layers, twin.net_inputs(x), twin.activations(x)[1:], strict=True):
        np.testing.assert_array_equal(layer.z, z[0])
        np.testing.assert_array_equal(layer.activations, a[0])
    for index, layer in enumerate(result.numbers.layers):
        np.testing.assert_array_equal(layer.weight_grads, weight_grads[index])
        np.testing.assert_array_equal(layer.bias_grads, bias_grads[index])
        np.testing.assert_array_equal(layer.delta, bias_grads[index])
    trainer.fit(x, y)  # two more rounds: after the third in all, the loss is what the trace says
    third = trace(network, x, y, rounds=4, train_biases=True, learning_rate=0.1)
    np.testing.assert_array_equal(third.numbers.layers[0].new_weights, twin.weights[0])
    np.testing.assert_array_equal(third.numbers.layers[1].new_biases, twin.biases[1])
    assert third.loss_after == twin.loss(x, y)


def test_biases_are_held_fixed_unless_asked() -> None:
    network, x, y = worked_example()
    fixed, trained = trace(network, x, y, rounds=2), trace(network, x, y, rounds=2, train_biases=True)
    for layer, bias in zip(fixed.numbers.layers, (0.35, 0.60), strict=True):
        np.testing.assert_array_equal(layer.new_biases, [bias, bias])
        assert (layer.bias_grads != 0).all()
    assert trained.loss_after < fixed.loss_after
    assert "b_o2+" in values(trained)
    assert "b_o2+" not in values(fixed)


def test_updated_variant_by_scalar_loops() -> None:
    """Three layers, two samples: each delta is formed with the weights above after their update."""
    network = gpuprop.Network((2, 3, 4, 2), hidden_activation="tanh", dtype="float64", seed=9)
    X, y = np.array([[0.3, -0.8], [1.1, 0.4]]), np.array([[0.2, -0.4], [1.0, 0.5]])
    rate = 0.7
    _, weight_grads, bias_grads = updated_weights_gradients(network, X, y, learning_rate=rate)
    a = network.activations(X)
    delta = (a[-1] - y) / len(X)
    for layer in (2, 1, 0):
        grads = sum(np.outer(a[layer][s], delta[s]) for s in range(len(X)))
        np.testing.assert_allclose(weight_grads[layer], grads, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(bias_grads[layer], delta.sum(axis=0), rtol=1e-12, atol=1e-15)
        delta = delta @ (network.weights[layer] - rate * grads).T * (1 - a[layer] ** 2)


def test_gradient_check_catches_the_updated_variant() -> None:
    network, x, y = worked_example()
    assert gpuprop.check_gradients(network, x, y).passed
    report = gpuprop.check_gradients(network, x, y, gradients=updated_weights_gradients)
    assert not report.passed
    verdicts = {layer.name: layer.passed for layer in report.layers}
    assert verdicts == {
        "layer 1 weights": False,
        "layer 1 biases": False,
        "layer 2 weights": True,
        "layer 2 biases": True,
    }


def test_without_hidden_layer_both_variants_agree() -> None:
    network = gpuprop.Network((3, 2), dtype="float64", seed=0)
    first, second = (
        trace(network, [1.0, 2.0, -1.0], [0.5, 0.1], rounds=4, weights=weights, learning_rate=0.05)
        for weights in ("original", "updated")
    )
    assert first.loss_after == pytest.approx(second.loss_after, rel=1e-14)


# --- what it accepts and refuses -------------------------------------------------------------------------------------


def test_shapes_of_the_sample() -> None:
    network, x, y = worked_example()
    expected = trace(network, x, y).loss
    assert trace(network, x[0], y[0]).loss == expected
    assert trace(network, [0.05, 0.10], [0.01, 0.99]).loss == expected
    classifier = gpuprop.Network((2, 3), loss="categorical_cross_entropy", seed=0)
    assert trace(classifier, [1, 2], 1).loss == trace(classifier, [1, 2], [[0, 1, 0]]).loss
    single = gpuprop.Network((2, 1), seed=0)
    assert trace(single, [1, 2], 0.5).loss == trace(single, [[1, 2]], [[0.5]]).loss


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds: got 0"),
        ({"learning_rate": 0.0}, "learning_rate: got 0"),
        ({"learning_rate": math.nan}, "learning_rate: got nan"),
        ({"weights": "update"}, "unknown weights 'update'; did you mean 'updated'?"),
        ({"x": [[0.05, 0.1], [0.05, 0.1]]}, "expected one sample"),
        ({"x": [[[0.05, 0.1]]]}, "expected one sample"),
        ({"x": 0.05}, "expected one sample"),
        ({"x": [0.05]}, "got 1 columns, expected 2"),
        ({"x": [0.05, math.inf]}, "contains inf"),
        ({"y": [0.1, 0.2, 0.3]}, "y: got shape"),
        ({"y": 5}, "expected class indices"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    network, x, y = worked_example()
    arguments = {"x": x, "y": y, **options}
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        trace(network, **arguments)
    assert message in str(caught.value)


def test_divergence_is_an_error() -> None:
    network = gpuprop.Network((2, 2), dtype="float32", seed=0)
    with pytest.raises(gpuprop.GpupropError, match=r"infinite or NaN after \d+ round\(s\) at learning rate 1e"):
        trace(network, [3.0, 1.0], [0.0, 1.0], learning_rate=1e12, rounds=50)


def test_symbols_of_deeper_networks() -> None:
    network = gpuprop.Network((1, 2, 2, 1), hidden_activation="tanh", dtype="float64", seed=0)
    found = values(trace(network, [0.5], 0.1))
    assert {"net_h1.1", "out_h2.2", "dE_o1/dout_h2.1", "dE/dout_h1.2", "dnet_h1.1/dw1", "w8+"} <= set(found)
    assert "w9+" not in found
    assert isinstance(trace(network, [0.5], 0.1).given[0][1][0], Symbol)


def test_json_values(example: Trace) -> None:
    found = example.to_dict()
    assert same_digits(found["loss"], "0.298371109")
    assert same_digits(found["loss_after"], "0.291027773694")
    output = found["layers"][1]
    assert output["new_weights"][0][0] == pytest.approx(0.35891648, abs=5e-9)  # w5: from h1 into o1
    assert output["new_weights"][1][0] == pytest.approx(0.408666186, abs=5e-10)  # w6: from h2 into o1
    assert {"z", "activations", "delta", "weight_grads", "bias_grads", "new_weights"} <= set(output)
    terms = {term["symbol"]: term for term in found["terms"]}
    assert terms["dE/dw5"]["formula"] == "delta_o1 * dnet_o1/dw5"
    assert set(PRINTED) <= set(terms)


def test_the_module_can_be_called() -> None:
    network, x, y = gpuprop.trace.worked_example()
    called = gpuprop.trace(network, x, y, learning_rate=0.5)  # type: ignore[operator]  # a module with __call__
    assert str(called) == str(gpuprop.trace.trace(network, x, y, learning_rate=0.5))
    assert callable(gpuprop.trace)
