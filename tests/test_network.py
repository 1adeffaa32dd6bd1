"""The network against a per-sample reference; its parameters, inputs, targets, predictions and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.maths.activations import ACTIVATIONS
from gpuprop.maths.dropout import keep_mask
from gpuprop.model import evaluation
from tests.references.network import activate, loss_and_gradients

DTYPES = ["float32", "float64"]
ONE_HOT = np.eye(3)


def relative(dtype: str) -> float:
    return 2e-5 if dtype == "float32" else 1e-12


# --- forward, loss and gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_samples", [1, 7, 33])
@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_loss_and_gradients_agree_with_the_reference(hidden: str, n_samples: int, dtype: str) -> None:
    rng = np.random.default_rng(n_samples)
    sizes = (5, 17, 1, 7, 3)
    net = gpuprop.Network(sizes, hidden_activation=hidden, loss="categorical_cross_entropy", dtype=dtype, seed=1,
                          l1=0.003, l2=0.05)  # fmt: skip
    for biases in net.biases:
        biases[...] = rng.normal(size=biases.shape) * 0.2
    X, labels, weight = rng.normal(size=(n_samples, 5)), rng.integers(0, 3, n_samples), rng.random(n_samples) + 0.1
    loss, weight_grads, bias_grads = net.loss_and_gradients(X, labels, weight)
    expected = loss_and_gradients(
        [w.astype(np.float64) for w in net.weights],
        [b.astype(np.float64) for b in net.biases],
        [hidden] * 3 + ["softmax"],
        "categorical_cross_entropy",
        X.astype(dtype).astype(np.float64),
        ONE_HOT[labels],
        weight,
        l1=0.003,
        l2=0.05,
    )
    assert loss == pytest.approx(expected[0], rel=relative(dtype))
    assert net.loss(X, labels, weight) == pytest.approx(expected[0], rel=relative(dtype))
    for got, want in zip([*weight_grads, *bias_grads], [*expected[1], *expected[2]], strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=relative(dtype), atol=relative(dtype))


@pytest.mark.parametrize("dropout", [0.4, (0.3, 0.5), (0.2, 0.0, 0.6)])
def test_dropout_agrees_with_the_reference(dropout: Any) -> None:
    rng = np.random.default_rng(0)
    net = gpuprop.Network((5, 9, 6, 2), hidden_activation=["relu", "silu"], dtype="float64", seed=12, dropout=dropout)
    X, y = rng.normal(size=(11, 5)), rng.normal(size=(11, 2))
    masks = [
        keep_mask(rate, seed=12, layer=layer, step=4, n_rows=11, n_columns=width) / (1 - rate)
        for layer, (rate, width) in enumerate(zip(net.dropout, (5, 9, 6), strict=True))
    ]
    loss, weight_grads, bias_grads = net.loss_and_gradients(X, y, dropout_step=4)
    expected = loss_and_gradients(
        net.weights, net.biases, ["relu", "silu", "identity"], "squared_error", X, y, masks=masks
    )
    assert loss == pytest.approx(expected[0], rel=1e-12)
    assert net.loss(X, y, dropout_step=4) == pytest.approx(expected[0], rel=1e-12)
    assert net.loss(X, y) != pytest.approx(expected[0], rel=1e-3)
    for got, want in zip([*weight_grads, *bias_grads], [*expected[1], *expected[2]], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


def test_activations_and_net_inputs() -> None:
    net = gpuprop.Network((3, 5, 2), hidden_activation="tanh", output_activation="logistic", dtype="float64", seed=0)
    X = np.random.default_rng(0).normal(size=(7, 3))
    a, z = net.activations(X), net.net_inputs(X)
    np.testing.assert_array_equal(a[0], X)
    np.testing.assert_allclose(z[0], X @ net.weights[0], rtol=1e-13)
    np.testing.assert_allclose(a[1], np.tanh(z[0]), rtol=1e-13)
    np.testing.assert_allclose(a[2], [activate("logistic", row) for row in z[1]], rtol=1e-13)
    np.testing.assert_allclose(a[2], net.forward(X), rtol=1e-13)


def test_large_data_is_worked_through_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    net = gpuprop.Network((3, 7, 2), dtype="float64", seed=0, l2=0.1)
    X, y, w = rng.normal(size=(33, 3)), rng.normal(size=(33, 2)), rng.random(33)

    def everything() -> list[Any]:
        loss, weight_grads, bias_grads = net.loss_and_gradients(X, y, w)
        return [net.forward(X), *net.net_inputs(X), loss, *weight_grads, *bias_grads, *net.evaluate(X, y, w)]

    whole = everything()
    monkeypatch.setattr(evaluation, "CHUNK_ROWS", 10)
    for got, want in zip(everything(), whole, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def test_without_hidden_layers_it_is_linear_regression() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(17, 3))
    net = gpuprop.Network((3, 1), dtype="float64", seed=0)
    np.testing.assert_allclose(net.forward(X), X @ net.weights[0] + net.biases[0], rtol=1e-13)


def test_gradients_belong_to_the_caller() -> None:
    net = gpuprop.Network((2, 3, 1), seed=0)
    first = net.loss_and_gradients([[1.0, 2.0]], [1.0])[1]
    kept = [g.copy() for g in first]
    net.loss_and_gradients([[-3.0, 5.0]], [7.0])
    for got, want in zip(first, kept, strict=True):
        np.testing.assert_array_equal(got, want)
    first[0][...] = 9.0
    assert not (net.weights[0] == 9.0).any()


def test_sample_weights_are_repetitions() -> None:
    rng = np.random.default_rng(0)
    net = gpuprop.Network((4, 6, 3), loss="categorical_cross_entropy", dtype="float64", seed=0, l2=0.1)
    X, y, times = rng.normal(size=(7, 4)), rng.integers(0, 3, 7), np.array([1, 0, 2, 3, 1, 1, 4])
    weighted = net.loss_and_gradients(X, y, times)
    repeated = net.loss_and_gradients(np.repeat(X, times, axis=0), np.repeat(y, times))
    assert weighted[0] == pytest.approx(repeated[0], rel=1e-12)
    np.testing.assert_allclose(weighted[1][0], repeated[1][0], rtol=1e-11, atol=1e-14)
    assert net.evaluate(X, y, times)[1] == pytest.approx(
        net.evaluate(np.repeat(X, times, axis=0), np.repeat(y, times))[1], rel=1e-12
    )


# --- parameters -----------------------------------------------------------------------------------------------


def test_one_flat_buffer_with_writable_views() -> None:
    net = gpuprop.Network((3, 5, 2), seed=0)
    assert [w.shape for w in net.weights] == [(3, 5), (5, 2)]
    assert [b.shape for b in net.biases] == [(5,), (2,)]
    assert net.parameters.shape == (3 * 5 + 5 * 2 + 5 + 2,) == (net.n_parameters,)
    net.parameters[...] = np.arange(32)
    np.testing.assert_array_equal(net.weights[1], np.arange(15, 25).reshape(5, 2))
    np.testing.assert_array_equal(net.biases[1], [30, 31])
    before = net.forward([[1, 1, 1]])
    net.biases[1][0] += 5
    net.weights[0][0, 0] = -1
    assert net.parameters[30] == 35
    assert net.forward([[1, 1, 1]])[0, 0] != before[0, 0]
    assert net.parameters[: net.n_weights].base is not None


@pytest.mark.parametrize("dtype", DTYPES)
def test_theta_is_the_lectures_matrix(dtype: str) -> None:
    net = gpuprop.Network((3, 7, 1), dtype=dtype, seed=0)
    net.biases[0][...] = np.arange(7)
    theta = net.theta(1)
    assert theta.shape == (7, 4)
    assert theta.dtype == net.dtype
    assert (theta[2, 0], theta[2, 1], theta[5, 3]) == (2.0, net.weights[0][0, 2], net.weights[0][2, 5])
    theta[...] = 0.0  # a copy
    assert net.weights[0].any()
    wanted = np.arange(8.0)[np.newaxis]
    net.set_theta(2, wanted)
    np.testing.assert_array_equal(net.theta(2), wanted)
    assert net.biases[1][0] == 0.0
    np.testing.assert_array_equal(net.weights[1][:, 0], np.arange(1.0, 8.0))
    for layer in (0, 3):
        with pytest.raises(ValueError, match="layer: got"):
            net.theta(layer)
    with pytest.raises(ValueError, match=r"theta: got shape \(8,\), expected \(1, 8\), biases in column 0"):
        net.set_theta(2, np.arange(8.0))


def test_copy_is_independent_and_converts() -> None:
    net = gpuprop.Network((3, 5, 2), seed=0)
    twin = net.copy()
    twin.weights[0][...] = 0
    assert net.weights[0].any()
    double = net.copy(dtype="float64", device="numpy")
    assert double.parameters.dtype == np.float64
    assert double.device_ == "numpy"
    np.testing.assert_array_equal(double.parameters, net.parameters.astype(np.float64))


def test_to_moves_a_live_network() -> None:
    net = gpuprop.Network((3, 5, 2), seed=0, device="cpu")
    before = net.parameters.copy()
    assert net.to("numpy") is net
    assert (net.device_, net.backend_) == ("numpy", "numpy")
    np.testing.assert_array_equal(net.parameters, before)
    with pytest.raises(ValueError, match="unknown device"):
        net.to("nump")
    assert net.device_ == "numpy"


# --- inputs ---------------------------------------------------------------------------------------------------


def test_pixels_stay_8_bit_and_are_scaled_by_batch() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (9, 6)).astype(np.uint8)
    net = gpuprop.Network((6, 4, 2), dtype="float64", seed=0, input_scaling=gpuprop.InputScaling.divide(255))
    assert net.prepare(X, np.zeros((9, 2))).inputs.dtype == np.uint8
    plain = net.copy()
    plain.input_scaling = None
    np.testing.assert_allclose(net.forward(X), plain.forward(X / 255), rtol=1e-13)
    np.testing.assert_allclose(net.activations(X)[0], X / 255, rtol=1e-15)


def test_standard_scaling() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3)) * [1.0, 1e-3, 1.0] + [1e9, 0.0, 5.0]
    X[:, 2] = 5.0
    scaling = gpuprop.InputScaling.standard(X)
    net = gpuprop.Network((3, 4, 1), dtype="float32", seed=0, input_scaling=scaling)
    scaled = net.activations(X)[0]
    # Column 0 would lose every digit if it were converted to float32 before being scaled.
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), [1, 1, 0], atol=1e-4)


@pytest.mark.parametrize(
    "X",
    [
        [[1, 2, 3]],
        np.array([[True, False, True]]),
        np.asfortranarray(np.ones((4, 3))),
        np.ones((4, 6), np.float32)[:, ::2],
        np.ones((2, 3), dtype=object),
        np.ones((2, 3), np.int64),
        np.ones((2, 3), ">f8"),
    ],
)
def test_any_array_of_numbers_is_taken(X: Any) -> None:
    net = gpuprop.Network((3, 2), seed=0)
    np.testing.assert_allclose(net.forward(X), np.asarray(X, np.float32) @ net.weights[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([1.0, 2.0, 3.0], r"reshape\(1, -1\)"),
        (np.zeros((2, 4)), "got 4 columns, expected 3"),
        (np.zeros((0, 3)), "no rows"),
        ([[1.0, np.nan, 2.0]], "contains nan at row 0, column 1"),
        ([[1.0, 0.0, np.inf]], "contains inf at row 0, column 2"),
        ([[1e300, 0.0, 0.0]], "X as float32: contains inf"),
        ([["a", "b", "c"]], "expected numbers"),
        ([[1, 2], [3]], "cannot be read as an array"),
        ([[1, 2, None]], "nan|expected numbers"),
        (np.ones((1, 3), complex), "expected numbers"),
        (np.zeros((2, 3, 1)), "expected \\(n_samples, 3\\)"),
    ],
)
def test_bad_inputs_are_refused(X: Any, message: str) -> None:
    net = gpuprop.Network((3, 2), seed=0)
    with pytest.raises(ValueError, match=message):
        net.forward(X)


def test_bad_scaling_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        gpuprop.InputScaling(np.nan)
    with pytest.raises(ValueError, match="other than 0"):
        gpuprop.InputScaling.divide(0)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        gpuprop.InputScaling.standard([1, 2, 3])
    with pytest.raises(ValueError, match="shift has 2 entries, expected 3"):
        gpuprop.Network((3, 1), input_scaling=gpuprop.InputScaling([1, 2], 1))
    net = gpuprop.Network((3, 1))
    with pytest.raises(TypeError, match="InputScaling or None"):
        net.input_scaling = 255  # type: ignore[assignment]


# --- targets and predictions ----------------------------------------------------------------------------------


def test_class_indices_and_one_hot_rows_are_the_same() -> None:
    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(7, 4)), rng.integers(0, 3, 7)
    for loss in ("categorical_cross_entropy", "squared_error", "binary_cross_entropy"):
        net = gpuprop.Network((4, 3), loss=loss, dtype="float64", seed=0)
        assert net.loss(X, labels) == net.loss(X, ONE_HOT[labels]) == net.loss(X, labels.astype(float))


def test_one_column_is_as_good_as_one_dimension() -> None:
    net = gpuprop.Network((2, 1), dtype="float64", seed=0)
    X = [[1.0, 2.0], [3.0, 4.0]]
    assert net.loss(X, [1.0, 2.0]) == net.loss(X, [[1.0], [2.0]])


def test_predictions() -> None:
    X = np.random.default_rng(0).normal(size=(17, 4))

    net = gpuprop.Network((4, 3), loss="categorical_cross_entropy", seed=0)
    np.testing.assert_array_equal(net.predict(X), net.forward(X).argmax(axis=1))

    net = gpuprop.Network((4, 1), loss="binary_cross_entropy", seed=0)
    np.testing.assert_array_equal(net.predict(X), net.forward(X)[:, 0] > 0.5)
    assert net.predict(X).shape == (17,)

    net = gpuprop.Network((4, 3), loss="binary_cross_entropy", seed=0)
    np.testing.assert_array_equal(net.predict(X), net.forward(X) > 0.5)

    net = gpuprop.Network((4, 3), seed=0)
    np.testing.assert_array_equal(net.predict(X), net.forward(X))
    assert not net.is_classifier

    net = gpuprop.Network((4, 3), seed=0, classes=["a", "b", "c"])
    np.testing.assert_array_equal(net.predict(X), net.forward(X).argmax(axis=1))
    assert net.is_classifier


def test_evaluate_gives_accuracy_or_r2() -> None:
    from sklearn.metrics import accuracy_score, r2_score

    rng = np.random.default_rng(0)
    X, w = rng.normal(size=(33, 4)), rng.random(33)
    labels = rng.integers(0, 3, 33)
    net = gpuprop.Network((4, 3), loss="categorical_cross_entropy", dtype="float64", seed=0)
    assert net.evaluate(X, labels, w)[1] == pytest.approx(accuracy_score(labels, net.predict(X), sample_weight=w))

    several = rng.integers(0, 2, (33, 3))
    net = gpuprop.Network((4, 3), loss="binary_cross_entropy", dtype="float64", seed=0)
    assert net.evaluate(X, several)[1] == pytest.approx(accuracy_score(several, net.predict(X)))

    y = rng.normal(size=(33, 2))
    net = gpuprop.Network((4, 2), dtype="float64", seed=0)
    expected = r2_score(y, net.predict(X), sample_weight=w, multioutput="variance_weighted")
    assert net.evaluate(X, y, w)[1] == pytest.approx(expected)
    assert net.evaluate(X, np.ones((33, 2)))[1] == 0.0


@pytest.mark.parametrize(
    ("loss", "n_outputs", "y", "message"),
    [
        ("squared_error", 1, [1.0], "got 1 rows, expected 2"),
        ("squared_error", 1, [[1.0, 2.0], [3.0, 4.0]], r"expected \(2,\) or \(2, 1\)"),
        ("squared_error", 1, [1.0, np.nan], "contains nan at row 1"),
        ("squared_error", 1, ["a", "b"], "expected numbers"),
        ("squared_error", 3, [0.5, 1.0], "class indices 0 to 2"),
        ("categorical_cross_entropy", 3, [0, 3], "class indices 0 to 2"),
        ("categorical_cross_entropy", 3, [-1, 1], "class indices 0 to 2"),
        ("categorical_cross_entropy", 3, [[1, 1, 0], [1, 0, 0]], "row 0 summing to 2"),
        ("categorical_cross_entropy", 2, [[2, -1], [1, 0]], "negative value"),
        ("binary_cross_entropy", 1, [1, 2], "values from 1 to 2, expected 0 to 1"),
        ("poisson", 1, [1.0, -1.0], "negative value -1"),
    ],
)
def test_bad_targets_are_refused(loss: str, n_outputs: int, y: Any, message: str) -> None:
    net = gpuprop.Network((3, n_outputs), loss=loss, seed=0)
    with pytest.raises(ValueError, match=message):
        net.loss(np.ones((2, 3)), y)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0], r"got shape \(1,\), expected \(2,\)"),
        ([1.0, -1.0], "negative weight -1"),
        ([0.0, 0.0], "all weights are zero"),
        ([1.0, np.inf], "contains inf"),
    ],
)
def test_bad_sample_weights_are_refused(weight: Any, message: str) -> None:
    net = gpuprop.Network((3, 1), seed=0)
    with pytest.raises(ValueError, match=message):
        net.loss(np.ones((2, 3)), [1, 2], weight)


# --- construction ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "options", "error", "message"),
    [
        ((3,), {}, ValueError, "at least an input and an output layer"),
        ((3, -1, 2), {}, ValueError, "got -1, expected an integer of at least 1"),
        ((3, 0, 2), {}, ValueError, "got 0"),
        ((3, 2.5), {}, TypeError, "got 2.5, expected an integer"),
        ((True, 2), {}, TypeError, "got True"),
        (5, {}, TypeError, "expected a sequence"),
        ("784-10", {}, TypeError, "expected a sequence"),
        ((2, 10**9, 10**9), {}, MemoryError, "use smaller layers"),
        ((3, 2), {"loss": "square_error"}, ValueError, "did you mean 'squared_error'"),
        ((3, 4, 2), {"hidden_activation": "reul"}, ValueError, "did you mean 'relu'"),
        ((3, 4, 4, 2), {"hidden_activation": ["relu"]}, ValueError, "one for each of the 2 hidden layers"),
        ((3, 4, 2), {"hidden_activation": 3}, TypeError, "a name, an Activation"),
        ((3, 2), {"dtype": "float16"}, ValueError, "'float32' or 'float64'"),
        ((3, 2), {"dtype": "flaot"}, ValueError, "'float32' or 'float64'"),
        ((3, 2), {"seed": -1}, ValueError, "at least 0"),
        ((3, 2), {"seed": 2**64}, ValueError, "below 2"),
        ((3, 4, 2), {"dropout": 1.0}, ValueError, "below 1"),
        ((3, 4, 2), {"dropout": -0.1}, ValueError, "at least 0"),
        ((3, 4, 2), {"dropout": (0.1, 0.2, 0.3)}, ValueError, "a pair"),
        ((3, 2), {"l2": -1}, ValueError, "l2"),
        ((3, 2), {"l1": np.nan}, ValueError, "l1"),
        ((3, 2), {"l1": "much"}, TypeError, "expected a number"),
        ((3, 2), {"classes": ["a"]}, ValueError, "got 1 labels, expected 2"),
        ((3, 1), {"classes": ["a", None]}, TypeError, "got None"),
        ((3, 1), {"feature_names": ["a"]}, ValueError, "expected 3 strings"),
        ((3, 1), {"target_name": 3}, TypeError, "expected text"),
        ((3, 1), {"device": "gpu0"}, ValueError, "unknown device"),
    ],
)
def test_bad_arguments_are_refused(sizes: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gpuprop.Network(sizes, **options)


def test_output_activation_follows_the_loss() -> None:
    expected = {
        "squared_error": "identity",
        "binary_cross_entropy": "logistic",
        "categorical_cross_entropy": "softmax",
        "poisson": "exponential",
    }
    for loss, activation in expected.items():
        assert gpuprop.Network((2, 3), loss=loss).output_activation.name == activation


def test_config_builds_the_same_network() -> None:
    net = gpuprop.Network(
        (3, 4, 5, 2),
        hidden_activation=["tanh", "leaky_relu(0.3)"],
        loss="categorical_cross_entropy",
        dtype="float64",
        seed=9,
        dropout=(0.1, 0.2),
        l1=0.1,
        l2=0.2,
        classes=["no", "yes"],
        feature_names=["a", "b", "c"],
        target_name="answer",
        input_scaling=gpuprop.InputScaling([1, 2, 3], 0.1),
    )
    again = gpuprop.Network(**net.get_config())
    assert again.get_config() == net.get_config()
    np.testing.assert_array_equal(again.parameters, net.parameters)


def test_an_unseeded_network_says_which_seed_it_drew() -> None:
    net = gpuprop.Network((3, 2))
    assert net.seed != gpuprop.Network((3, 2)).seed
    np.testing.assert_array_equal(gpuprop.Network((3, 2), seed=net.seed).parameters, net.parameters)


def test_repr() -> None:
    text = repr(gpuprop.Network((784, 128, 10), loss="categorical_cross_entropy", device="numpy"))
    assert text == "Network(784-128-10, relu, softmax + categorical_cross_entropy, float32, numpy)"


def test_more_rows_than_32_bits_can_name_are_refused() -> None:
    faked = np.broadcast_to(np.uint8(1), (2**31, 2))
    with pytest.raises(ValueError, match=r"X: got 2,147,483,648 rows, expected fewer than 2\*\*31; train on parts"):
        gpuprop.Network((2, 1), seed=0).predict(faked)
