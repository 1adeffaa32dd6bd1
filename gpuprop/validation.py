"""What users hand in becomes arrays that the step can trust; everything else is refused with a clear error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from gpuprop.losses import Loss
    from gpuprop.scaling import InputScaling

__all__ = ["check_inputs", "check_integer", "check_real", "check_sample_weight", "check_targets", "is_sparse"]

Array = NDArray[Any]


def is_sparse(array: object) -> bool:
    """Whether `array` is a sparse matrix (SciPy's or CuPy's), without importing either."""
    return hasattr(array, "tocsr")


def check_integer(name: str, value: object, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`, or raise ``TypeError`` / ``ValueError``."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: got {value!r}, expected an integer of at least {minimum}")
    if value < minimum:
        raise ValueError(f"{name}: got {value}, expected an integer of at least {minimum}")
    return int(value)


def check_real(
    name: str,
    value: Any,
    minimum: float,
    maximum: float = np.inf,
    *,
    open_minimum: bool = False,
    open_maximum: bool = False,
) -> float:
    """Return `value` as a finite float between the bounds, or raise ``TypeError`` / ``ValueError``."""
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: got {value!r}, expected a number")
    number = float(value)
    below = number <= minimum if open_minimum else number < minimum
    above = number >= maximum if open_maximum else number > maximum
    if not np.isfinite(number) or below or above:
        upper = "" if maximum == np.inf else f" and {'below' if open_maximum else 'at most'} {maximum:g}"
        lower = "above" if open_minimum else "at least"
        raise ValueError(f"{name}: got {value}, expected a finite number {lower} {minimum:g}{upper}")
    return number


def _numeric(name: str, values: ArrayLike) -> Array:
    """Return an array of numbers; text, objects and complex numbers are refused."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name}: cannot be read as an array ({error})") from None
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected numbers, got objects ({error})") from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: got dtype {array.dtype}, expected numbers")
    return array


def _check_finite(name: str, array: Array) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        where = f"row {place[0]}" + (f", column {place[1]}" if len(place) > 1 else "")
        raise ValueError(f"{name}: contains {array[place]} at {where}; remove or impute such values")


def check_inputs(
    X: ArrayLike, n_features: int, dtype: np.dtype[Any], scaling: InputScaling | None
) -> tuple[Array, InputScaling | None]:
    """Return inputs ready for `take_batch`, and the scaling that is left for it to do.

    8-bit data stays 8-bit and is scaled batch by batch, and so is sparse data, which becomes CSR; everything else is
    converted and scaled here, once, in double precision where the data has it.

    Parameters
    ----------
    X : array_like or sparse matrix of shape (n_samples, n_features)
        Finite numbers.
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
        raise ValueError(f"X: got shape {array.shape}, expected (n_samples, {n_features}){hint}")
    if array.shape[1] != n_features:
        raise ValueError(f"X: got {array.shape[1]} columns, expected {n_features}, the size of the input layer")
    if array.shape[0] == 0:
        raise ValueError("X: got no rows, expected at least one sample")
    if is_sparse(array):
        csr = array.tocsr().astype(dtype, copy=False)
        _check_finite("the stored values of X", csr.data)
        return csr, scaling
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array), scaling
    _check_finite("X", array)
    if scaling is None:
        with np.errstate(over="ignore"):
            converted = np.ascontiguousarray(array, dtype=dtype)
    else:
        scaled = array.astype(np.result_type(array.dtype, dtype))
        scaling.apply(scaled)
        with np.errstate(over="ignore"):
            converted = np.ascontiguousarray(scaled, dtype=dtype)
    if array.dtype != dtype or scaling is not None:
        _check_finite(f"X as {dtype}", converted)
    return converted, None


def check_targets(y: ArrayLike, n_samples: int, n_outputs: int, dtype: np.dtype[Any], loss: Loss) -> tuple[Array, bool]:
    """Return targets of shape (n_samples, n_outputs), and whether `y` held class indices.

    Parameters
    ----------
    y : array_like of shape (n_samples,) or (n_samples, n_outputs)
        With one output: its targets. With several and one dimension: class indices, which become one-hot rows.
    n_samples, n_outputs : int
    dtype : dtype
        The network's.
    loss : Loss
        Says which values it is defined for.

    Raises
    ------
    ValueError
        If shape or values do not fit.
    """
    array = _numeric("y", y)
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != n_outputs):
        raise ValueError(f"y: got shape {array.shape}, expected ({n_samples},) or ({n_samples}, {n_outputs})")
    if len(array) != n_samples:
        raise ValueError(f"y: got {len(array)} rows, expected {n_samples}, one for each row of X")
    _check_finite("y", array)
    if array.ndim == 1 and n_outputs > 1:
        return _one_hot(array, n_outputs, dtype), True
    with np.errstate(over="ignore"):
        targets = np.ascontiguousarray(array.reshape(n_samples, n_outputs), dtype=dtype)
    _check_finite(f"y as {dtype}", targets)
    wrong = loss.target_error(targets)
    if wrong:
        raise ValueError(f"y: got {wrong}, for loss {loss.name!r}")
    return targets, False


def _one_hot(indices: Array, n_classes: int, dtype: np.dtype[Any]) -> Array:
    """Return one row for each class index, with a single 1."""
    low, high = indices.min(), indices.max()
    if low < 0 or high >= n_classes or (indices.dtype.kind == "f" and (indices % 1 != 0).any()):
        raise ValueError(
            f"y: got values from {low:g} to {high:g}, expected class indices 0 to {n_classes - 1} "
            f"(one for each of the {n_classes} outputs), or an array of {n_classes} columns"
        )
    targets = np.zeros((len(indices), n_classes), dtype)
    targets[np.arange(len(indices)), indices.astype(np.int64)] = 1
    return targets


def check_sample_weight(sample_weight: ArrayLike | None, n_samples: int, dtype: np.dtype[Any]) -> Array | None:
    """Return weights of shape (n_samples,), or None where there are none.

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
    if array.min() < 0:
        raise ValueError(f"sample_weight: got a negative weight {array.min():g}, expected 0 or more")
    if not array.any():
        raise ValueError("sample_weight: all weights are zero, expected at least one above zero")
    return np.ascontiguousarray(array, dtype=dtype)
