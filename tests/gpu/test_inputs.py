"""Arrays that lie on a GPU: used where they are, refused as NumPy's are, answered in kind."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.arrays import on_gpu

cp = pytest.importorskip("cupy", reason="CuPy is not installed")
pytestmark = pytest.mark.gpu

SCALING = gpuprop.InputScaling([100.0] * 20, [0.01] * 20)


class Interface:
    """An array known by ``__cuda_array_interface__`` alone, as Numba's are."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__


class Capsule:
    """An array known by DLPack alone."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **how: Any) -> Any:
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def data(n: int = 300, dtype: Any = np.float32) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n)
    X = np.clip(rng.integers(60, 190, (3, 20))[y] + 30 * rng.standard_normal((n, 20)), 0, 255).astype(dtype)
    return X, y, rng.uniform(0.5, 2.0, n).astype(np.float32)


def network(device: str = "cuda", **options: Any) -> Any:
    defaults: dict[str, Any] = {"loss": "categorical_cross_entropy", "seed": 0, "input_scaling": SCALING}
    return gpuprop.Network((20, 9, 3), device=device, **(defaults | options))


def on_device(*arrays: Any) -> list[Any]:
    return [cp.asarray(array) for array in arrays]


def train(net: gpuprop.Network, arrays: Any, **how: Any) -> gpuprop.Trainer:
    defaults: dict[str, Any] = {"epochs": 3, "batch_size": 32, "learning_rate": 0.01}
    return gpuprop.Trainer(net, **(defaults | how)).fit(*arrays)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.int16])
@pytest.mark.parametrize("wrap", [lambda a: a, Interface, Capsule], ids=["cupy", "interface", "dlpack"])
def test_a_training_on_arrays_of_the_gpu_is_that_on_numpys(dtype: Any, wrap: Any) -> None:
    arrays = data(dtype=dtype)
    ours = train(network(), map(wrap, on_device(*arrays)), validation=0.2)
    expected = train(network(), arrays, validation=0.2)
    assert ours.network.host_parameters().tobytes() == expected.network.host_parameters().tobytes()
    for name in ("train_loss", "validation_loss", "validation_accuracy"):
        assert ours.history[name] == pytest.approx(expected.history[name], rel=1e-12)


def test_a_regression_with_weights_and_validation_of_its_own() -> None:
    X, _, weight = data()
    y = np.stack([X[:, 0] - X[:, 1], X[:, 2]], axis=1).astype(np.float32)
    X, y, weight = X[:-50], y[:-50], weight[:-50]
    how: dict[str, Any] = {"conventions": "scikit-learn", "optimizer": "sgd", "learning_rate": 1e-4}
    net: dict[str, Any] = {"loss": "squared_error", "l2": 0.1}
    sizes = (20, 9, 2)
    given = on_device(X, y, weight)
    ours, expected = (
        train(
            gpuprop.Network(sizes, device="cuda", seed=0, input_scaling=SCALING, **net),
            arrays,
            validation=tuple(arrays),
            **how,
        )
        for arrays in (given, (X, y, weight))
    )
    for name in ("train_loss", "train_r2", "validation_loss", "validation_r2"):
        assert ours.history[name] == pytest.approx(expected.history[name], rel=1e-5)
    np.testing.assert_allclose(ours.network.host_parameters(), expected.network.host_parameters(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(given[2].get(), weight)  # what was handed in stays as it is


def test_answers_are_of_the_kind_of_the_question() -> None:
    X, y, weight = data()
    net = network()
    X_gpu, y_gpu, weight_gpu = on_device(X, y, weight)
    for question in (net.predict, net.forward, net.activations, net.net_inputs):
        there, here = question(X_gpu), question(X)
        pairs = zip(there, here, strict=True) if isinstance(there, list) else [(there, here)]
        for answer, expected in pairs:
            assert isinstance(answer, cp.ndarray)
            assert isinstance(expected, np.ndarray)
            assert answer.flags.c_contiguous
            np.testing.assert_array_equal(answer.get(), expected)
    assert net.evaluate(X_gpu, y_gpu, weight_gpu) == pytest.approx(net.evaluate(X, y, weight), rel=1e-12)
    assert net.loss(X_gpu, y) == net.loss(X, y)
    found, expected = net.loss_and_gradients(X_gpu, y_gpu), net.loss_and_gradients(X, y)
    assert found[0] == expected[0]
    for ours, wanted in zip(found[1] + found[2], expected[1] + expected[2], strict=True):
        assert isinstance(ours, cp.ndarray)
        np.testing.assert_array_equal(ours.get(), wanted)


def test_nothing_of_the_data_comes_to_the_host(counts: Any) -> None:
    X, y, weight = on_device(*data(3000))
    net = network()
    train(net, (X, y, weight), epochs=1)  # compiles
    net.evaluate(X, y, weight)
    net.loss_and_gradients(X, y, weight)
    size = X.nbytes

    def copied(work: Any) -> tuple[int, int]:
        with counts.measure() as measured:
            work()
        return measured["totals"]["d2h_bytes"], measured["totals"]["h2d_bytes"]

    # Truth values, a loss, its totals; to the device the numbers of rows of a chunk.
    for question in (net.predict, net.forward, net.activations):
        down, up = copied(lambda q=question: q(X))
        assert down <= 64
        assert up < size / 4
    for question in (net.loss, net.evaluate, net.loss_and_gradients):
        assert copied(lambda q=question: q(X, y, weight))[0] <= 128
    # Parameters and the sum of weights of each batch, once an epoch; losses of two numbers a block of rows.
    down, _ = copied(lambda: train(net, (X, y, weight), epochs=1, validation=(X, y, weight)))
    assert down < size / 10


def test_a_view_of_a_wider_or_unaligned_array_is_laid_out_anew() -> None:
    X = data()[0]
    net: Any = gpuprop.Network((5, 4, 3), loss="categorical_cross_entropy", device="cuda", seed=0)
    wide = cp.full((300, 8), cp.nan, cp.float32)
    wide[:, :5] = cp.asarray(X[:, :5])
    np.testing.assert_array_equal(net.forward(wide[:, :5]).get(), net.forward(X[:, :5]))
    four: Any = gpuprop.Network((4, 4, 3), loss="categorical_cross_entropy", device="cuda", seed=0)
    shifted = cp.empty(1201, cp.float32)[1:].reshape(300, 4)
    shifted[...] = cp.asarray(X[:, :4])
    np.testing.assert_array_equal(four.forward(shifted).get(), four.forward(X[:, :4]))
    fortran = cp.asfortranarray(cp.asarray(X))
    np.testing.assert_array_equal(network().forward(fortran).get(), network().forward(X))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda X, y, w: X.__setitem__((7, 3), cp.nan), "X: contains nan at row 7, column 3; remove"),
        (lambda X, y, w: X.__setitem__((7, 3), -cp.inf), "X: contains -inf at row 7, column 3; remove"),
        (lambda X, y, w: y.__setitem__(2, 3), r"y: got values from 0 to 3, expected class indices 0 to 2"),
        (lambda X, y, w: y.__setitem__(2, -1), r"y: got values from -1 to 2, expected class indices 0 to 2"),
        (lambda X, y, w: w.__setitem__(4, -1), "sample_weight: got a negative weight -1, expected 0 or more"),
        (lambda X, y, w: w.__setitem__(4, cp.nan), "sample_weight: contains nan at row 4"),
        (lambda X, y, w: w.fill(0), "sample_weight: all weights are zero"),
    ],
)
def test_values_are_refused_as_numpys_are(break_it: Any, message: str) -> None:
    arrays = on_device(*data())
    break_it(*arrays)
    for given in (arrays, [array.get() for array in arrays]):
        with pytest.raises(ValueError, match=message):
            network().loss(*given)


def test_shapes_and_dtypes_are_refused_as_numpys_are() -> None:
    X, y, weight = data()
    for given, message in (
        ((X[0], y), r"X: got shape \(20,\), expected \(n_samples, 20\); for one sample"),
        ((X[:, :7], y), "X: got 7 columns, expected 20"),
        ((X[:0], y), "X: got no rows"),
        ((X.astype(np.complex64), y), "X: got dtype complex64, expected numbers"),
        ((X, y[:-1]), "y: got 299 rows, expected 300"),
        ((X, y[:, None].repeat(2, 1)), r"y: got shape \(300, 2\)"),
        ((X, y, weight[:-1]), r"sample_weight: got shape \(299,\)"),
        ((X, np.abs(X[:, :3])), r"y: got row 0 summing to .*, expected rows that sum to 1"),
    ):
        for arrays in (given, on_device(*given)):
            with pytest.raises(ValueError, match=message):
                network().loss(*arrays)


def test_a_network_on_the_cpu_reads_arrays_of_a_gpu() -> None:
    X, y, weight = data()
    wraps: list[Any] = [lambda a: a, Interface, Capsule]
    for wrap in wraps:
        given: list[Any] = [wrap(array) for array in on_device(X, y, weight)]
        net = network("numpy")
        assert isinstance(net.predict(given[0]), np.ndarray)
        np.testing.assert_array_equal(net.forward(given[0]), net.forward(X))
        assert net.loss(*given) == net.loss(X, y, weight)
        ours, expected = train(network("numpy"), given), train(network("numpy"), (X, y, weight))
        assert ours.history["train_loss"] == expected.history["train_loss"]


def test_work_on_a_stream_of_the_users_own_comes_in_order() -> None:
    X = data()[0]
    expected = network().forward(X)
    with cp.cuda.Stream(non_blocking=True):
        X_gpu: Any = cp.zeros((300, 20), cp.float32)
        X_gpu += cp.asarray(X)
        outputs = network().forward(X_gpu)
        doubled = outputs * 2
        X_gpu[...] = cp.nan
        np.testing.assert_array_equal(doubled.get(), expected * 2)


def test_an_array_on_another_gpu_is_copied_once() -> None:
    # One GPU has to play both: an array that says it lies elsewhere.
    ops: Any = network().ops
    runtime = ops.runtime
    asked: list[Any] = []

    class Library:
        ndarray = cp.ndarray
        cuda = cp.cuda

        def asarray(self, array: Any) -> Any:
            asked.append((array, cp.cuda.Device().id))
            return array.copy()

    X = cp.ones((3, 20), cp.float32)
    other = copy.copy(runtime)
    other.xp = Library()
    brought = other.adopt(X)
    assert brought.data.ptr != X.data.ptr
    assert [(id(array), device) for array, device in asked] == [(id(X), 0)]
    assert runtime.adopt(X) is X


def test_what_counts_as_on_a_gpu() -> None:
    assert on_gpu(cp.ones(2))
    assert on_gpu(Interface(cp.ones(2)))
    assert not on_gpu(np.ones(2))
    assert not on_gpu([1.0])
