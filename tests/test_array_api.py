"""What is written for every array library, by the one that enforces the standard, on a device that NumPy cannot read.

Converting an array of ``device1`` to NumPy raises, so that a hidden copy on the host is an error here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuprop.arrays import take_rows
from gpuprop.core.data import TrainingData
from gpuprop.maths.losses import get_loss
from gpuprop.maths.scaling import InputScaling
from gpuprop.model.inputs import check_inputs, check_sample_weight, check_targets

xp = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed")

DEVICES = ["CPU_DEVICE", "device1"]
SINGLE = np.dtype(np.float32)


@pytest.fixture(params=DEVICES)
def put(request: pytest.FixtureRequest) -> Any:
    """Return a function that brings an array to the device."""
    device = xp.Device(request.param)
    return lambda array: xp.asarray(array, device=device)


def read(array: Any) -> Any:
    """Return a host copy, where the standard allows it."""
    assert type(array) is type(xp.asarray(0))
    return np.asarray(array.to_device(xp.Device("CPU_DEVICE")))


def test_a_hidden_copy_would_be_seen() -> None:
    with pytest.raises(RuntimeError, match="device1"):
        np.asarray(xp.ones(2, device=xp.Device("device1")))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("scaling", [None, InputScaling([1.0, 2.0, 3.0], 0.5)])
def test_inputs(put: Any, dtype: str, scaling: InputScaling | None) -> None:
    X = np.array([[1, 2, 3], [4, 5, 60]], dtype)
    given = put(X)
    found, left = check_inputs(given, 3, SINGLE, scaling)
    assert found.device == given.device
    if dtype in ("uint8", "float32"):  # used as they are, scaled by whoever loads a batch
        assert read(found).dtype == dtype
        assert left is scaling
        np.testing.assert_array_equal(read(found), X)
    else:
        assert read(found).dtype == SINGLE
        assert left is None
        np.testing.assert_allclose(read(found), X if scaling is None else (X - [1, 2, 3]) * 0.5)
    np.testing.assert_array_equal(read(given), X)


@pytest.mark.parametrize("flaw", [np.nan, np.inf, -np.inf])
def test_the_place_of_a_flaw(put: Any, flaw: float) -> None:
    X = np.ones((4, 3))
    X[2, 1] = flaw
    with pytest.raises(ValueError, match=f"X: contains {flaw} at row 2, column 1; remove or impute"):
        check_inputs(put(X), 3, SINGLE, None)
    with pytest.raises(ValueError, match="X as float32: contains inf at row 0, column 2"):
        check_inputs(put([[1.0, 2.0, 1e300]]), 3, SINGLE, None)


def test_targets(put: Any) -> None:
    loss = get_loss("categorical_cross_entropy")
    for dtype in ("int64", "uint8", "float64"):
        found, indices = check_targets(put(np.array([0, 2, 1], dtype)), 3, 3, SINGLE, loss)
        assert indices
        np.testing.assert_array_equal(read(found), np.eye(3, dtype=np.float32)[[0, 2, 1]])
    for y, message in (([0, 3, 1], "values from 0 to 3"), ([-1, 0, 1], "values from -1 to 1"), ([0, 0.5, 1], "0 to 1")):
        with pytest.raises(ValueError, match=message):
            check_targets(put(np.array(y)), 3, 3, SINGLE, loss)
    with pytest.raises(ValueError, match=r"row 1 summing to 0\.5, expected rows that sum to 1"):
        check_targets(put([[1.0, 0.0], [0.25, 0.25]]), 2, 2, SINGLE, loss)
    with pytest.raises(ValueError, match="values from 0 to 2, expected 0 to 1"):
        check_targets(put([0.0, 2.0]), 2, 1, SINGLE, get_loss("binary_cross_entropy"))
    with pytest.raises(ValueError, match="a negative value -2, expected counts"):
        check_targets(put([0.0, -2.0]), 2, 1, SINGLE, get_loss("poisson"))


def test_sample_weights_and_their_sums(put: Any) -> None:
    weight = np.array([0.5, 1.0, 2.0, 4.0, 8.0], np.float32)
    given = put(weight)
    np.testing.assert_array_equal(read(check_sample_weight(given, 5, SINGLE)), weight)
    for wrong, message in ((put(-weight), "a negative weight -8"), (put(0 * weight), "all weights are zero")):
        with pytest.raises(ValueError, match=message):
            check_sample_weight(wrong, 5, SINGLE)


def test_batch_sums_of_weights() -> None:
    # Their result is read, so that this part needs a device that NumPy can read.
    weight = np.arange(1.0, 8.0)
    order = np.array([6, 0, 3, 2, 5, 1, 4], np.int32)
    data = TrainingData(None, None, None, None, xp.asarray(weight), 28.0, "class", 0.0)
    np.testing.assert_array_equal(data.batch_weights(order, 3), [7 + 1 + 4, 3 + 6 + 2, 5])


def test_rows_are_taken_where_they_lie(put: Any) -> None:
    X = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(read(take_rows(put(X), np.array([3, 1]))), X[[3, 1]])
