"""The bundled data sets against their published facts; targets, classes and the split; laziness of the imports."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits as load_digits_of_sklearn
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder

from gpuprop import datasets
from gpuprop.datasets.dataset import Dataset, encode_like, encode_target
from gpuprop.errors import DataError


def test_import_is_light() -> None:
    heavy = ("sklearn", "pandas", "scipy", "pyarrow", "numba")
    code = f"import sys, gpuprop.datasets; sys.exit([m for m in {heavy!r} if m in sys.modules] or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# MNIST


@pytest.fixture(scope="module")
def mnist() -> Any:
    return datasets.load_mnist()


def test_mnist_has_its_published_facts(mnist: Any) -> None:
    """Label counts, first labels, mean and standard deviation as published in many places (0.1307, 0.3081)."""
    (X, y), (X_test, y_test) = mnist
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((60000, 784), np.uint8, (60000,), np.int64)
    assert (X_test.shape, X_test.dtype, y_test.shape, y_test.dtype) == ((10000, 784), np.uint8, (10000,), np.int64)
    assert np.bincount(y).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert y[:5].tolist() == [5, 0, 4, 1, 9]
    assert y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert (X.min(), X.max()) == (0, 255)
    assert X.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert X.std() / 255 == pytest.approx(0.3081, abs=5e-5)
    assert X.flags.c_contiguous
    assert X.flags.writeable


@pytest.mark.parametrize(
    ("name", "md5"),
    [  # of the unpacked files, as many projects that fetch them publish it
        ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
        ("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
        ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
        ("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
    ],
)
def test_mnist_files_are_the_original_ones(name: str, md5: str) -> None:
    path = Path(datasets.__file__).parent / "mnist" / f"{name}.gz"
    assert hashlib.md5(gzip.decompress(path.read_bytes())).hexdigest() == md5


def test_mnist_by_name_brings_its_test_part(mnist: Any) -> None:
    dataset = datasets.load("mnist")
    assert (dataset.name, dataset.task, dataset.classes) == ("mnist", "classification", list(range(10)))
    assert dataset.test is not None
    np.testing.assert_array_equal(dataset.test[0], mnist[1][0])
    X, y = datasets.load_test("mnist", classes=dataset.classes, n_features=784)
    np.testing.assert_array_equal(X, mnist[1][0])
    np.testing.assert_array_equal(y, mnist[1][1])


def test_credit_stands_where_it_must() -> None:
    for text in (datasets.load_mnist.__doc__ or "", (Path(__file__).parents[1] / "NOTICE").read_text()):
        assert all(author in text for author in ("Yann LeCun", "Corinna Cortes", "Burges"))
        assert "ShareAlike 3.0" in text


# digits, XOR


def test_digits_are_those_of_sklearn() -> None:
    X, y = datasets.load_digits()
    X_expected, y_expected = load_digits_of_sklearn(return_X_y=True)
    assert (X.dtype, y.dtype) == (np.dtype(np.uint8), np.dtype(np.int64))
    np.testing.assert_array_equal(X, X_expected)
    np.testing.assert_array_equal(y, y_expected)


def test_xor_is_exclusive_or() -> None:
    X, y = datasets.make_xor(repeats=3)
    assert (X.shape, X.dtype.name, y.shape, y.dtype.name) == ((12, 2), "float32", (12,), "int64")
    assert {(int(a), int(b), int(c)) for (a, b), c in zip(X, y, strict=True)} == {
        (a, b, a ^ b) for a in (0, 1) for b in (0, 1)
    }


def test_xor_noise_has_its_seed_and_size() -> None:
    clean, _ = datasets.make_xor(repeats=2000)
    noisy, y = datasets.make_xor(repeats=2000, noise=0.2, seed=1)
    np.testing.assert_array_equal(noisy, datasets.make_xor(repeats=2000, noise=0.2, seed=1)[0])
    assert not np.array_equal(noisy, datasets.make_xor(repeats=2000, noise=0.2, seed=2)[0])
    assert noisy.dtype == np.float32
    assert (noisy - clean).std() == pytest.approx(0.2, rel=0.05)
    np.testing.assert_array_equal(y, datasets.make_xor(repeats=2000)[1])


@pytest.mark.parametrize(
    "arguments", [{"repeats": 0}, {"noise": -0.1}, {"noise": float("nan")}, {"noise": float("inf")}]
)
def test_xor_refuses_impossible_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        datasets.make_xor(**arguments)


def test_xor_by_name_is_its_own_test_part() -> None:
    dataset = datasets.load("xor")
    assert dataset.test is not None
    np.testing.assert_array_equal(dataset.test[0], dataset.X)


@pytest.mark.parametrize("arguments", [{"target": 0}, {"labels": "f"}, {"task": "regression"}])
def test_bundled_data_take_no_options(arguments: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^xor: has its own labels"):
        datasets.load("xor", **arguments)


def test_bundled_data_for_another_model() -> None:
    with pytest.raises(DataError, match=r"digits: got 64 features, expected 784"):
        datasets.load_features("digits", n_features=784)
    with pytest.raises(DataError, match=r"digits: row 3: got class 2, expected one of 0, 1"):
        datasets.load_test("digits", classes=[0, 1])
    assert datasets.load_features("digits").shape == (1797, 64)


# targets


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (np.array([3, 1, 3, 2]), [1, 2, 3]),
        (np.array([True, False, True]), [False, True]),
        (np.array(["b", "a", "b"]), ["a", "b"]),
        (np.array(["b", "a", "b"], object), ["a", "b"]),
        (np.arange(100, dtype=np.uint8), list(range(100))),
        (np.arange(100) + 1, list(range(1, 101))),
        (np.array([20, 10, 5]), [5, 10, 20]),
        (np.array([1.0, 0.0]), [0.0, 1.0]),
        (np.array([b"b", b"a"]), ["a", "b"]),
        (np.array(["2", "1"]), ["1", "2"]),
    ],
)
def test_auto_takes_these_for_classes(values: np.ndarray[Any, Any], classes: list[Any]) -> None:
    y, found = encode_target("data", values)
    assert found == classes
    assert [type(label) for label in found or []] == [type(label) for label in classes]
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, LabelEncoder().fit_transform(values))


@pytest.mark.parametrize(
    ("spelled", "classes"),
    [
        (["2", "10", "2"], [2, 10]),
        (["2.0", "1.0", "2.0"], [1.0, 2.0]),
        (["1", "1.0", "2"], [1.0, 2.0]),  # one class, spelled in two ways
        (["1.00", "2.00"], ["1.00", "2.00"]),
        (["True", "False"], [False, True]),
        (["TRUE", "FALSE"], ["FALSE", "TRUE"]),
        (["007", "042"], ["007", "042"]),
        (["01", "02", "1A"], ["01", "02", "1A"]),
        (["0", "1", "3+"] * 9, ["0", "1", "3+"]),
        (["yes", "no", "NA", "None"], ["NA", "None", "no", "yes"]),
        ([str(10**20), str(10**20 + 1)], [str(10**20), str(10**20 + 1)]),
    ],
)
def test_labels_keep_the_spelling_of_a_file(spelled: list[str], classes: list[Any]) -> None:
    y, found = encode_target("data", np.array(spelled, object))
    assert [(type(label), label) for label in found or []] == [(type(label), label) for label in classes]
    named = [str(classes[i]) for i in y]
    assert named == spelled or [float(a) for a in named] == [float(b) for b in spelled]
    # Every later file that spells them so has the same classes.
    np.testing.assert_array_equal(encode_like("data", np.array(spelled[::-1], object), classes), y[::-1])


@pytest.mark.parametrize(
    ("spelled", "numbers"),
    [
        ([str(30000 + 2711 * i) for i in range(30)], [30000 + 2711 * i for i in range(30)]),
        (["0.5", "1.5", "0.5"], [0.5, 1.5, 0.5]),
        (["1,5", "2,5", "3,0"], [1.5, 2.5, 3.0]),
        (["$1,200", "$990"], [1200, 990]),
    ],
)
def test_numbers_as_text_are_numbers(spelled: list[str], numbers: list[float]) -> None:
    y, classes = encode_target("data", np.array(spelled, object))
    assert (y.tolist(), classes) == (numbers, None)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(101),
        np.arange(11) + 2,
        np.arange(12)[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]],
        np.array([0.0, 1.5]),
        np.array([[0.5, 1.0]]),
        np.array([2, 2, 2], np.float32),
    ],
)
def test_auto_takes_these_for_numbers(values: np.ndarray[Any, Any]) -> None:
    y, classes = encode_target("data", values)
    assert classes is None
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, values)


def test_the_task_can_be_said() -> None:
    assert encode_target("data", np.arange(101), "classification")[1] == list(range(101))
    assert encode_target("data", np.array([0.5, 1.5, 0.5]), "classification")[1] == [0.5, 1.5]
    y, classes = encode_target("data", np.array([True, False]), "regression")
    assert (y.tolist(), classes) == ([1.0, 0.0], None)


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        (np.array(["a", "b"]), "regression", r"got text targets such as 'a', expected numbers"),
        (np.array([1, 1, 1]), "auto", r"got only one class, 1, expected at least two"),
        (np.array([1.0, np.nan]), "auto", r"row 2, target: got a missing value or NaN"),
        (np.array([-np.inf, 1.0]), "regression", r"row 1, target: got -inf"),
        (np.eye(3, dtype=int), "auto", r"shape \(3, 3\), expected one class per row, shape \(3,\)"),
        (np.eye(3), "classification", r"argmax"),
        (
            np.array(["1"] * 30 + ["?"], object),
            "auto",
            r"row 31: got '\?' as target, expected a number, as in 30 other",
        ),
        (np.array(["1", "2", "NA"], object), "auto", r"row 3: got 'NA' as target, expected a number"),
        (np.array(["1", "2", "x"], object), "regression", r"row 3: got 'x' as target, expected a number"),
        (np.array(["1", None], object), "auto", r"row 2: got no target; fill it in, or remove the row"),
        (
            np.array([f"n{i}" for i in range(20)], object),
            "auto",
            r"20 different texts as targets of 20 rows, such as 'n0'",
        ),
    ],
)
def test_impossible_targets(values: np.ndarray[Any, Any], task: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        encode_target("data", values, task)
    assert "\n" not in str(caught.value)


def test_unknown_task_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'classification'"):
        encode_target("data", np.array([0, 1]), "clasification")


@pytest.mark.parametrize(
    ("values", "classes", "expected"),
    [
        (np.array([2, 1]), [1, 2, 3], [1, 0]),
        (np.array([2.0, 1.0]), [1, 2, 3], [1, 0]),
        (np.array(["2", "1"], object), [1, 2, 3], [1, 0]),
        (np.array([2, 1]), ["1", "2", "a"], [1, 0]),
        (np.array([True, False]), [False, True], [1, 0]),
        (np.array([1, 0]), [False, True], [1, 0]),
        (np.array(["True"]), [False, True], [1]),
        (np.array(["c"]), ["a", "b", "c"], [2]),
        (np.array(["1.0", "2"], object), [1, 2], [0, 1]),
        (np.array(["TRUE", "false"], object), [False, True], [1, 0]),
        (np.array(["042", "007"], object), ["007", "042"], [1, 0]),
        (np.array([True, False]), ["FALSE", "TRUE", "UNKNOWN"], [1, 0]),
        (np.array([2.0, 1.0]), ["1", "2"], [1, 0]),
        (np.array([b"b"]), ["a", "b"], [1]),
    ],
)
def test_labels_meet_known_classes(values: np.ndarray[Any, Any], classes: Sequence[Any], expected: list[int]) -> None:
    assert encode_like("data", values, classes).tolist() == expected


def test_an_unseen_label_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^data: row 3: got class 'c', expected one of 'a', 'b'$"):
        encode_like("data", np.array(["a", "b", "c"]), ["a", "b"])
    with pytest.raises(DataError, match=r"^data: row 1: got class '7', expected one of '007', '042'$"):
        encode_like("data", np.array(["7"], object), ["007", "042"])
    with pytest.raises(DataError, match=r"^data: row 2: got no target"):
        encode_like("data", np.array(["a", None], object), ["a", "b"])
    with pytest.raises(DataError, match=r"row 2, target: got a missing value or NaN"):
        encode_like("data", np.array([0.0, np.nan]), [0, 1])
    with pytest.raises(DataError, match=r"shape \(2, 2\)"):
        encode_like("data", np.eye(2), [0, 1])


# split


def classified(y: Sequence[int]) -> Dataset:
    X = np.arange(2 * len(y), dtype=np.float64).reshape(-1, 2)
    return Dataset("data", X, np.asarray(y, np.int64), "classification", classes=list(range(max(y) + 1)))


@given(
    y=arrays(np.int64, st.integers(12, 60), elements=st.integers(0, 2)).map(lambda y: np.append(y, [0, 0, 1, 1, 2, 2])),
    fraction=st.floats(0.2, 0.8),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_split_is_that_of_sklearn_and_loses_nothing(y: np.ndarray[Any, Any], fraction: float, seed: int) -> None:
    data = classified(y.tolist())
    (X_train, y_train), (X_test, y_test) = datasets.split(data, fraction, seed)
    expected = train_test_split(data.X, data.y, test_size=fraction, random_state=seed, stratify=data.y)
    for own, theirs in zip((X_train, X_test, y_train, y_test), expected, strict=True):
        np.testing.assert_array_equal(own, theirs)
    rows = np.concatenate([X_train[:, 0], X_test[:, 0]]) // 2
    assert sorted(rows.astype(int)) == list(range(len(y)))
    np.testing.assert_array_equal(y[rows.astype(int)], np.concatenate([y_train, y_test]))
    for label in range(3):  # in proportion, to within the rounding of each class
        assert abs((y_test == label).sum() - fraction * (y == label).sum()) <= 2


def test_split_for_regression() -> None:
    data = Dataset("data", np.ones((8, 1)), np.arange(8.0), "regression")
    (_, y_train), (_, y_test) = datasets.split(data)
    assert (len(y_train), len(y_test)) == (6, 2)
    assert sorted([*y_train, *y_test]) == list(range(8))
    for own, theirs in zip((y_train, y_test), train_test_split(data.y, test_size=0.25, random_state=0), strict=True):
        np.testing.assert_array_equal(own, theirs)


@pytest.mark.parametrize(
    ("y", "fraction", "message"),
    [
        ([0, 0, 1, 1, 2], 0.4, r"got a single row of class 2, expected at least 2.*--task regression"),
        ([0, 0, 1, 1], 0.25, r"got 4 rows, split into 3 and 1, expected at least 2 in each part"),
        ([0, 0, 1, 1], 0.75, r"split into 1 and 3"),
    ],
)
def test_split_that_cannot_be(y: list[int], fraction: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        datasets.split(classified(y), fraction)


def test_split_of_a_single_row() -> None:
    with pytest.raises(DataError, match="got 1 rows, split into 0 and 1"):
        datasets.split(Dataset("data", np.ones((1, 1)), np.ones(1), "regression"))


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_split_refuses_impossible_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match="test_fraction"):
        datasets.split(classified([0, 1] * 8), fraction)
