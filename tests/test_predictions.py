"""Predictions and evaluations on the host: every layout, dtype and number of rows, by any number of threads."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop import MLPClassifier
from gpuprop.arrays import at_cache_line
from gpuprop.backends import threads
from gpuprop.backends.sharing import work_through
from gpuprop.model import host_pass
from tests.references.network import activate, loss_and_gradients

#: The layouts and dtypes of the same numbers, which are all exact in float32.
LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "contiguous": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "a slice of columns": lambda X: np.hstack([X + 1, X, X - 1])[:, X.shape[1] : 2 * X.shape[1]],
    "every second": lambda X: np.repeat(np.repeat(X, 2, axis=0), 2, axis=1)[::2, ::2],
    "backwards": lambda X: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
    "float16": lambda X: X.astype(np.float16),
    "float32": lambda X: X.astype(np.float32),
    "float64": lambda X: X.astype(np.float64),
    "int8": lambda X: X.astype(np.int8),
    "int64": lambda X: X.astype(np.int64),
    "other byte order": lambda X: X.astype(X.dtype.newbyteorder()),
    "unaligned": lambda X: np.frombuffer(b" " + X.tobytes(), X.dtype, offset=1).reshape(X.shape),
    "bytes": lambda X: np.abs(X).astype(np.uint8),
}

NETWORKS: dict[str, dict[str, Any]] = {
    "relu, softmax": {"layer_sizes": (7, 9, 11, 3), "loss": "categorical_cross_entropy"},
    "tanh, one logistic output": {
        "layer_sizes": (7, 5, 1), "hidden_activation": "tanh", "loss": "binary_cross_entropy",
    },
    "many outputs": {"layer_sizes": (7, 6, 70), "loss": "categorical_cross_entropy"},
    "no hidden layer": {"layer_sizes": (7, 4), "loss": "squared_error"},
    "many outputs of no hidden layer": {"layer_sizes": (7, 66), "loss": "squared_error"},
    "an activation that loops compute": {
        "layer_sizes": (7, 5, 6, 3), "hidden_activation": ["logistic", "relu"], "loss": "categorical_cross_entropy",
    },
}  # fmt: skip


def reference(net: gpuprop.Network, X: Any) -> Any:
    """Return the outputs in float64, a row at a time."""
    X = np.asarray(X, np.float64)
    if net.input_scaling is not None:
        X = (X - net.input_scaling.shift) * net.input_scaling.scale
    rows = []
    for a in X:
        for weights, biases, activation in zip(net.weights, net.biases, net.layer_activations, strict=True):
            z = a @ np.asarray(weights, np.float64) + np.asarray(biases, np.float64)
            a = np.maximum(z, 0) if activation.name == "relu" else np.asarray(activate(activation.name, z))
        rows.append(a)
    return np.array(rows)


def network(name: str, dtype: str, device: str = "cpu", **more: Any) -> gpuprop.Network:
    net = gpuprop.Network(**NETWORKS[name], dtype=dtype, seed=3, device=device, **more)
    for biases in net.biases:
        biases[...] = np.random.default_rng(4).normal(size=biases.shape) / 4
    return net


def whole_numbers(n_rows: int, n_columns: int = 7) -> Any:
    return np.random.default_rng(5).integers(-4, 5, size=(n_rows, n_columns)).astype(np.float32)


def close(got: Any, expected: Any, dtype: str) -> None:
    assert got.dtype == dtype
    assert got.flags.c_contiguous
    np.testing.assert_allclose(
        got, expected, rtol=3e-5 if dtype == "float32" else 1e-12, atol=2e-6 if dtype == "float32" else 1e-13
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_number_of_rows(name: str, dtype: str) -> None:
    for device in ("cpu", "numpy"):
        net, X = network(name, dtype, device), whole_numbers(301).astype(dtype) / 2
        expected = reference(net, X)
        for n_rows in (1, 2, 3, 4, 7, 10, 10, 31, 33, 255, 256, 301):
            close(net.forward(X[:n_rows]), expected[:n_rows], dtype)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_products_are_cut_for_any_blas(
    name: str, dtype: str, small: bool, n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is right for other processors than this one gives the same outputs here."""
    monkeypatch.setattr(host_pass, "has_small_products", lambda: small)
    monkeypatch.setattr(host_pass, "blas_threads", lambda: n_threads)
    monkeypatch.setattr(host_pass, "SMALL_PRODUCT", 500)
    monkeypatch.setattr(host_pass, "SMALL_BESIDE_THREADS", 1_300)
    net, X = network(name, dtype), whole_numbers(40).astype(dtype) / 2
    expected = reference(net, X)
    for n_rows in (4, 7, 10, 13, 31, 32, 40):
        close(net.forward(X[:n_rows]), expected[:n_rows], dtype)
        close(net.forward(np.asfortranarray(X[:n_rows])), expected[:n_rows], dtype)
    with pytest.raises(ValueError, match="row 9"):
        net.forward(np.where(np.arange(12)[:, None] == 9, np.inf, X[:12]))


@pytest.mark.parametrize(
    ("n_rows", "n_weights", "n_threads", "cut"),
    [(10, 784 * 128, 1, [8, 2]), (9, 784 * 128, 1, [9]), (32, 784 * 256, 1, [4] * 8), (33, 784 * 256, 1, [33]),
     (10, 784 * 512, 1, [10]), (16, 784 * 256, 2, [4] * 4), (20, 784 * 256, 2, [20]), (32, 784 * 128, 2, [8] * 4)],
)  # fmt: skip
def test_rows_are_cut_to_small_products(n_rows: int, n_weights: int, n_threads: int, cut: list[int]) -> None:
    pieces = host_pass._small_pieces(n_rows, n_weights, n_threads)
    assert [len(range(n_rows)[piece]) for piece in pieces] == cut


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_begin_at_a_cache_line(dtype: str) -> None:
    net = network("relu, softmax", dtype)
    for one in (net, pickle.loads(pickle.dumps(net)), copy.deepcopy(net).to("numpy")):
        assert one.parameters.ctypes.data % 64 == 0
        np.testing.assert_array_equal(one.host_parameters(), net.host_parameters())
    odd = np.arange(33.0)[1:]
    moved = at_cache_line(odd)
    assert moved.ctypes.data % 64 == 0
    np.testing.assert_array_equal(moved, odd)
    assert at_cache_line(moved) is moved


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout(layout: str, scaled: bool, dtype: str) -> None:
    scaling = gpuprop.InputScaling(np.linspace(-1, 1, 7), np.linspace(0.2, 0.5, 7)) if scaled else None
    for name in ("relu, softmax", "an activation that loops compute"):
        net = network(name, dtype, input_scaling=scaling)
        for n_rows in (1, 6, 40):
            X = LAYOUTS[layout](whole_numbers(n_rows))
            close(net.forward(X), reference(net, X), dtype)
            assert X.flags.writeable or layout == "unaligned"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_give_the_same_bits_whoever_computes_them(
    name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, X = network(name, dtype), whole_numbers(101).astype(dtype)
    y = np.arange(101) % net.layer_sizes[-1] if net.layer_sizes[-1] > 1 else np.arange(101) % 2
    weight = np.linspace(0.5, 2, 101)
    whole = net.evaluate(X, y, weight)
    monkeypatch.setattr(host_pass, "SHARED_WORK", 1)
    monkeypatch.setattr(host_pass, "FEWEST_SHARED", 1)
    monkeypatch.setattr(host_pass, "blas_threads", lambda: 5)
    found = [(net.forward(X), net.evaluate(X, y, weight)) for _ in range(3)]

    def no_thread(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("gpuprop.backends.sharing._thread.start_new_thread", no_thread)
    alone = net.forward(X), net.evaluate(X, y, weight)
    close(alone[0], reference(net, X), dtype)
    np.testing.assert_allclose(alone[1], whole, rtol=1e-5 if dtype == "float32" else 1e-12)
    for outputs, judged in found:
        np.testing.assert_array_equal(outputs, alone[0])
        assert judged == alone[1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_not_finite_is_named(name: str, value: float) -> None:
    for dtype in ("float32", "float64"):
        net = network(name, dtype)
        for layout in ("contiguous", "Fortran", "float64", "every second"):
            for n_rows, row, column in ((1, 0, 6), (5, 3, 0), (40, 39, 2)):
                X = whole_numbers(n_rows)
                X[row, column] = value
                with pytest.raises(ValueError, match=rf"X: contains {value} at row {row}, column {column}"):
                    net.forward(LAYOUTS[layout](X))


def test_huge_inputs_are_refused_where_they_overflow_only() -> None:
    net = network("relu, softmax", "float32")
    X = np.full((5, 7), 1e39)
    with pytest.raises(ValueError, match="X as float32: contains inf at row 0, column 0"):
        net.forward(X)
    # Finite numbers whose products are not are no fault of the inputs.
    with np.errstate(all="ignore"):
        assert net.forward(np.full((5, 7), 3e38, np.float32)).shape == (5, 3)


@pytest.mark.parametrize("name", ["relu, softmax", "tanh, one logistic output", "no hidden layer"])
def test_evaluation_is_that_of_the_reference(name: str) -> None:
    scaling = gpuprop.InputScaling.divide(255)
    net = network(name, "float64", input_scaling=scaling, l2=0.1)
    X = np.random.default_rng(0).integers(0, 256, (23, 7)).astype(np.uint8)
    n_outputs = net.layer_sizes[-1]
    y = np.eye(n_outputs)[np.arange(23) % n_outputs] if n_outputs > 1 else (np.arange(23) % 2).astype(float)[:, None]
    weight = np.linspace(0.5, 2, 23)
    names = [activation.name for activation in net.layer_activations]
    expected = loss_and_gradients(
        net.weights, net.biases, names, net.loss_function.name, X / 255, y, sample_weight=weight, l2=0.1
    )[0]
    assert net.evaluate(X, y, weight)[0] == pytest.approx(expected, rel=1e-11)


def test_two_threads_predict_with_one_network() -> None:
    net = network("relu, softmax", "float32")
    sets = [whole_numbers(n_rows) for n_rows in (9, 9, 40, 300)]
    expected = [net.forward(X) for X in sets]
    wrong: list[int] = []

    def predict(which: int) -> None:
        wrong.extend(which for _ in range(50) if not np.array_equal(net.forward(sets[which]), expected[which]))

    workers = [threading.Thread(target=predict, args=(which,)) for which in range(len(sets))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_a_pickle_holds_no_arrays_of_predictions() -> None:
    net = network("relu, softmax", "float32")
    before = pickle.dumps(net)
    outputs = net.forward(whole_numbers(200))
    assert pickle.dumps(net) == before
    net.forward(whole_numbers(200))  # in the same arrays
    np.testing.assert_array_equal(outputs, net.forward(whole_numbers(200)))


def test_changed_parameters_are_seen() -> None:
    net = network("relu, softmax", "float32")
    X = whole_numbers(8)
    net.forward(X)
    for change in (
        lambda: net.set_parameters(net.host_parameters() / 2),
        lambda: net.to("numpy"),
        lambda: net.reseed(9),
    ):
        change()
        net.weights[0][...] *= 1.5
        close(net.forward(X), reference(net, X), "float32")


# --- threads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_every_piece_is_done_once(n_threads: int) -> None:
    done: list[int] = []
    with np.errstate(divide="raise"):
        work_through(
            range(20), lambda: lambda piece: done.append(piece + (np.geterr()["divide"] != "raise")), n_threads
        )
    assert sorted(done) == list(range(20))


@pytest.mark.parametrize("n_threads", [1, 3])
def test_an_error_ends_the_work_and_is_raised(n_threads: int) -> None:
    def work(piece: int) -> None:
        if piece == 4:
            raise ValueError("piece 4")

    with pytest.raises(ValueError, match="piece 4"):
        work_through(range(10**6), lambda: work, n_threads)


@pytest.mark.usefixtures("all_threads")
def test_the_last_thread_to_leave_restores_the_threads_of_blas() -> None:
    most = threads.blas_threads()
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with threads.limited_blas(1):
            inside.set()
            leave.wait()

    other = threading.Thread(target=first)
    other.start()
    inside.wait()
    with threads.limited_blas(1):
        leave.set()
        other.join()
        assert threads.blas_threads() == 1
    assert threads.blas_threads() == most


# --- estimators -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [["a"], ["no", "yes"], ["x", "y", "z"], [3, 1, 2]])
def test_labels_are_those_of_the_binarizer(labels: list[Any]) -> None:
    X = whole_numbers(30)
    y = np.array(labels)[np.arange(30) % len(labels)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((5,), max_iter=2, random_state=0).fit(X, y)
    outputs = model.network_.forward(X)
    expected = model._label_binarizer.inverse_transform(outputs.ravel() if outputs.shape[1] == 1 else outputs)
    found = model.predict(X)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_arrays_without_names_are_warned_of_once() -> None:
    pandas = pytest.importorskip("pandas")
    X = whole_numbers(30)
    frame = pandas.DataFrame(X, columns=list("abcdefg"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MLPClassifier((5,), max_iter=2, random_state=0).fit(frame, np.arange(30) % 3)
    with pytest.warns(UserWarning, match="X does not have valid feature names, but MLPClassifier was fitted") as found:
        outputs = model.predict_proba(X)
    assert len(found) == 1
    np.testing.assert_allclose(outputs, model.predict_proba(frame), rtol=1e-6)
    warned = pytest.warns(UserWarning, match="does not have valid feature names")
    with warned, pytest.raises(ValueError, match="X has 6 features, but MLPClassifier is expecting 7"):
        model.predict(X[:, :6])
