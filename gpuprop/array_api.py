"""What is written once for every array library: NumPy, CuPy, and whatever keeps to the array API standard.

Only the checks of what users hand in are, `gpuprop.validation`, and a few sums over a data set; the arithmetic of a
step belongs to the backends. Standard: https://data-apis.org/array-api/.
"""

from __future__ import annotations

import sys
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["beside", "contiguous", "namespace", "numpy_dtype"]


def namespace(array: Any) -> Any:
    """Return the library of an array: its functions work where the array lies."""
    # CuPy's arrays have no __array_namespace__, but its functions have the standard's names.
    find = getattr(array, "__array_namespace__", None)
    return find() if find else sys.modules[type(array).__module__.partition(".")[0]]


def beside(values: Any, array: Any) -> Any:
    """Return numbers of the host as an array of the library and on the device of `array`."""
    xp = namespace(array)
    # CuPy puts a new array on the current device and has no argument for it.
    return xp.asarray(values, device=array.device) if hasattr(array, "__array_namespace__") else xp.asarray(values)


def numpy_dtype(array: Any) -> np.dtype[Any]:
    """Return an array's dtype as NumPy's, which other libraries' objects neither are nor equal."""
    dtype = array.dtype
    return dtype if isinstance(dtype, np.dtype) else np.dtype(str(dtype).rpartition(".")[2])


def contiguous(array: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array in a dtype; C-contiguous on the host, elsewhere as its device will lay it out."""
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array, dtype=dtype)
    xp = namespace(array)
    return cast("NDArray[Any]", xp.astype(array, getattr(xp, dtype.name), copy=False))
