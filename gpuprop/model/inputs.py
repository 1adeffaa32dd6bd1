"""Checks of the user's data: they return arrays that the step can trust, or raise an error that says what is wrong.

The functions of an array's own library check it on its device; only the results of the checks come to the host, one
truth value at a time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpuprop.arrays import beside, contiguous, is_sparse, namespace, numpy_dtype, on_gpu, plain_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuprop.maths.losses import Loss
    from gpuprop.maths.scaling import InputScaling

__all__ = [
    "MOST_ROWS",
    "all_finite",
    "check_inputs",
    "check_sample_weight",
    "check_targets",
    "indices_of_labels",
]

Array = NDArray[Any]

MOST_ROWS = 2**31 - 1
"""The most rows of a data set: the order of an epoch numbers them with 32-bit integers."""


def _numeric(name: str, values: Any) -> Array:
    """Return an array of numbers, on its device if it has one; text, objects and complex numbers are refused."""
    values = plain_array(values)
    array = values if _is_array(values) else _from_host(name, values)
    dtype = numpy_dtype(array)
    if dtype.kind not in "biuf":
        raise ValueError(f"{name}: got dtype {dtype}, expected numbers")
    return cast("Array", array)


def _is_array(values: object) -> bool:
    """Return whether this is an array of another library, which `gpuprop.core.ops.Ops.adopt` has left unchanged."""
    if isinstance(values, np.ndarray):
        return False
    return hasattr(values, "__cuda_array_interface__") or hasattr(values, "__array_namespace__")


def _from_host(name: str, values: ArrayLike) -> Array:
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name}: cannot be read as an array ({error})") from None
    if array.dtype != object:
        return array
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, got objects ({error})") from None


def all_finite(array: Array) -> bool:
    """Return True if all numbers of a C-contiguous array of the host are finite; False says nothing.

    A finite sum shows it in less time than a test of each number. Huge numbers overflow it.
    """
    flat = array.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        # BLAS is faster, but shares a product in double precision among its threads, which then wait for more work
        # on the processors of the training.
        total = np.dot(flat, flat) if flat.dtype == np.float32 else np.add.reduce(flat)
    return math.isfinite(total)


def _check_finite(name: str, array: Array) -> None:
    if numpy_dtype(array).kind != "f" or array.size == 0:
        return
    if isinstance(array, np.ndarray) and array.flags.c_contiguous and all_finite(array):
        return
    xp = namespace(array)
    # If any number is NaN, the smallest and the largest are NaN; so the device needs no array of truth values.
    if bool(xp.isfinite(xp.min(array)) & xp.isfinite(xp.max(array))):
        return
    place = tuple(int(along[0]) for along in xp.nonzero(~xp.isfinite(array)))
    where = f"row {place[0]}" + (f", column {place[1]}" if len(place) > 1 else "")
    raise ValueError(f"{name}: contains {float(array[place])} at {where}; remove or impute such values")


def check_inputs(
    X: ArrayLike, n_features: int, dtype: np.dtype[Any], scaling: InputScaling | None
) -> tuple[Array, InputScaling | None]:
    """Return inputs ready for `take_batch`, and the scaling that `take_batch` still has to do.

    8-bit data stays 8-bit, sparse data becomes CSR, and data of `dtype` on a GPU stays where it is: `take_batch` scales
    these batch by batch. All other data is converted and scaled here, once, in double precision if the data has it.

    Parameters
    ----------
    X : array_like or sparse matrix of shape (n_samples, n_features)
        Finite numbers; on the host, or as ``Ops.adopt`` returned it.
    n_features : int
    dtype : dtype
        The network's.
    scaling : InputScaling or None

    Raises
    ------
    ValueError
        If `X` is empty, not two-dimensional, of the wrong width, not numeric or not finite.
    """
    array: Any = X if is_sparse(X) else _numeric("X", X)
    if array.ndim != 2:
        hint = f"; for one sample use X.reshape(1, -1), shape (1, {n_features})" if array.ndim == 1 else ""
        if array.ndim > 2 and math.prod(array.shape[1:]) == n_features:
            hint = f"; use X.reshape(len(X), -1), shape ({array.shape[0]}, {n_features})"
        raise ValueError(f"X: got shape {array.shape}, expected (n_samples, {n_features}){hint}")
    if array.shape[1] != n_features:
        raise ValueError(f"X: got {array.shape[1]} columns, expected {n_features}, the size of the input layer")
    if array.shape[0] == 0:
        raise ValueError("X: got no rows, expected at least one sample")
    if array.shape[0] > MOST_ROWS:
        raise ValueError(f"X: got {array.shape[0]:,} rows, expected fewer than 2**31; train on parts of them")
    if is_sparse(array):
        csr = array.tocsr().astype(dtype, copy=False)
        _check_finite("the stored values of X", csr.data)
        return csr, scaling
    given = numpy_dtype(array)
    if given == np.uint8:
        return contiguous(array, given), scaling
    _check_finite("X", array)
    if given == dtype and not isinstance(array, np.ndarray):
        return array, scaling
    with np.errstate(over="ignore"):
        if scaling is None:
            converted = contiguous(array, dtype)
        else:
            xp, wider = namespace(array), np.result_type(given, dtype).name
            scaled = xp.astype(array, getattr(xp, wider), copy=True)
            scaling.apply(scaled)
            converted = contiguous(scaled, dtype)
    if given != dtype or scaling is not None:
        _check_finite(f"X as {dtype}", converted)
    return converted, None


def check_targets(y: ArrayLike, n_samples: int, n_outputs: int, dtype: np.dtype[Any], loss: Loss) -> tuple[Array, bool]:
    """Return targets of shape (n_samples, n_outputs), and whether `y` held class indices.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_samples, n_outputs)
        With one output: its targets. With several outputs and one dimension: class indices, which become one-hot rows.
    n_samples, n_outputs : int
    dtype : dtype
        The network's.
    loss : Loss
        It decides which values are valid.

    Raises
    ------
    ValueError
        If shape or values do not fit the network.
    """
    array = _numeric("y", y)
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != n_outputs):
        raise ValueError(f"y: got shape {array.shape}, expected ({n_samples},) or ({n_samples}, {n_outputs})")
    if array.shape[0] != n_samples:
        raise ValueError(f"y: got {array.shape[0]} rows, expected {n_samples}, one for each row of X")
    _check_finite("y", array)
    if array.ndim == 1 and n_outputs > 1:
        return _one_hot(array, n_outputs, dtype), True
    with np.errstate(over="ignore"):
        targets = contiguous(namespace(array).reshape(array, (n_samples, n_outputs)), dtype)
    _check_finite(f"y as {dtype}", targets)
    wrong = loss.target_error(targets)
    if wrong:
        raise ValueError(f"y: got {wrong}, for loss {loss.name!r}")
    return targets, False


def _one_hot(indices: Array, n_classes: int, dtype: np.dtype[Any]) -> Array:
    """Return one row for each class index, with a single 1."""
    xp = namespace(indices)
    low, high = xp.min(indices), xp.max(indices)
    right = (low >= 0) & (high < n_classes)
    if numpy_dtype(indices).kind == "f":
        right = right & xp.all(indices == xp.floor(indices))
    if not bool(right):
        raise ValueError(
            f"y: got values from {float(low):g} to {float(high):g}, expected class indices 0 to {n_classes - 1} "
            f"(one for each of the {n_classes} outputs), or an array of {n_classes} columns"
        )
    classes = beside(np.arange(n_classes), indices)
    places = xp.reshape(xp.astype(indices, xp.int64, copy=False), (-1, 1))
    return contiguous(places == classes, dtype)


def check_sample_weight(sample_weight: ArrayLike | None, n_samples: int, dtype: np.dtype[Any]) -> Array | None:
    """Return weights of shape (n_samples,), or None if there are none.

    Raises
    ------
    ValueError
        If the shape is wrong, or a weight is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return None
    array = _numeric("sample_weight", sample_weight)
    if array.shape != (n_samples,):
        raise ValueError(f"sample_weight: got shape {array.shape}, expected ({n_samples},)")
    _check_finite("sample_weight", array)
    xp = namespace(array)
    low, high = xp.min(array), xp.max(array)
    if bool((low >= 0) & (high > 0)):
        return contiguous(array, dtype)
    if float(low) < 0:
        raise ValueError(f"sample_weight: got a negative weight {float(low):g}, expected 0 or more")
    raise ValueError("sample_weight: all weights are zero, expected at least one above zero")


def indices_of_labels(y: Any, classes: Sequence[Any] | None) -> Any:
    """Return the class indices of labels that are text, where the classes are known; anything else as it is.

    Raises
    ------
    ValueError
        If a label is none of the classes.
    """
    if classes is None or on_gpu(y) or is_sparse(y):
        return y
    labels = np.asarray(y)
    if labels.ndim != 1 or labels.dtype.kind not in "UO":
        return y
    places = {label: place for place, label in enumerate(classes)}
    unknown = [label for label in dict.fromkeys(labels.tolist()) if label not in places]
    if unknown:
        known = ", ".join(map(repr, list(classes)[:10]))
        raise ValueError(f"y: got the label {unknown[0]!r}, expected one of the network's classes: {known}")
    return np.array([places[label] for label in labels.tolist()], np.int64)
