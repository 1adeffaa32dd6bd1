"""Arrays of every library: NumPy's, CuPy's, sparse matrices, and whatever keeps to a standard that all of them share.

The first half is written once for every library that keeps to the array API standard
(https://data-apis.org/array-api/). Only the checks of what users hand in and a few sums over a data set use it; the
arithmetic of a step belongs to the backends.

The second half reads the arrays of other libraries through ``__cuda_array_interface__`` and DLPack. An array that lies
where the network computes is used as it is; an array on another GPU is copied from there once; an array on a GPU that
is given to a network on the CPU comes to the host once.
"""

from __future__ import annotations

import sys
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from gpuprop.errors import BackendUnavailableError

__all__ = [
    "at_cache_line",
    "beside",
    "contiguous",
    "equal_numbers",
    "is_sparse",
    "namespace",
    "numpy_dtype",
    "on_gpu",
    "plain_array",
    "read_gpu_array",
    "take_rows",
    "to_host",
]

# DLDeviceType of dlpack.h: kDLCUDA and kDLCUDAManaged.
_GPU_KINDS = (2, 13)
#: Rows of two arrays that are compared before all of them are.
_SOME_ROWS = 16


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


def take_rows(array: Any, which: NDArray[np.int64]) -> Any:
    """Return rows of an array or of a sparse matrix, where it lies."""
    return array[which] if is_sparse(array) else namespace(array).take(array, beside(which, array), axis=0)


def contiguous(array: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array in a dtype; C-contiguous on the host, elsewhere as its device will lay it out."""
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array, dtype=dtype)
    xp = namespace(array)
    return cast("NDArray[Any]", xp.astype(array, getattr(xp, dtype.name), copy=False))


def at_cache_line(flat: NDArray[Any]) -> NDArray[Any]:
    """Return a flat array of the host that begins at a cache line: itself, or a copy.

    NumPy's large arrays begin 16 bytes into one, so that every vector of 64 bytes lies in two. With AVX-512, BLAS
    multiplies 10 rows by 784 x 512 weights in 0.84 of the time where they begin at one.
    """
    if flat.ctypes.data % 64 == 0:
        return flat
    raw = np.empty(flat.nbytes + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    copy = raw[begin : begin + flat.nbytes].view(flat.dtype)
    copy[...] = flat
    return copy


def is_sparse(array: object) -> bool:
    """Whether `array` is a sparse matrix (SciPy's or CuPy's), without importing either."""
    return hasattr(array, "tocsr")


def equal_numbers(a: Any, b: Any) -> bool:
    """Return whether two arrays of the host, or two CSR matrices, hold the same numbers; some rows decide quickly."""
    if a.shape != b.shape or a.dtype != b.dtype or is_sparse(a) != is_sparse(b):
        return False
    if is_sparse(a):
        return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in ("indptr", "indices", "data"))
    if a.ctypes.data == b.ctypes.data and a.strides == b.strides:
        return True
    step = max(1, len(a) // _SOME_ROWS)
    return np.array_equal(a[::step], b[::step]) and np.array_equal(a, b)


def plain_array(array: Any) -> Any:
    """Return what is no masked array as it is, and a masked array without its mask, if nothing is masked.

    Raises
    ------
    ValueError
        If something is masked; NumPy would go on with the numbers below the mask.
    """
    if not isinstance(array, np.ma.MaskedArray):
        return array
    masked = np.ma.getmaskarray(array)
    if masked.any():
        place = tuple(int(along[0]) for along in masked.nonzero())
        raise ValueError(
            f"got a masked array with {int(masked.sum())} masked entries, the first at index {place}, expected "
            "numbers without gaps; fill them (array.filled(value)) or leave these rows out"
        )
    return array.data


def on_gpu(array: object) -> bool:
    """Whether an object is an array in the memory of an NVIDIA GPU."""
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__dlpack_device__"):
        return int(array.__dlpack_device__()[0]) in _GPU_KINDS
    return hasattr(array, "__cuda_array_interface__")


def read_gpu_array(cupy: Any, array: Any) -> Any:
    """Return a CuPy array of the memory of an array that is `on_gpu`, without a copy.

    Raises
    ------
    ValueError
        If the array's own library refuses, e.g. a tensor that records its gradient.
    """
    if isinstance(array, cupy.ndarray):
        return array
    try:
        return cupy.from_dlpack(array) if hasattr(array, "__dlpack__") else cupy.asarray(array)
    except (BufferError, RuntimeError, TypeError) as error:
        kind = f"{type(array).__module__}.{type(array).__name__}"
        raise ValueError(f"got a {kind} that cannot be read as an array ({error}); give a plain array") from error


def to_host(array: Any) -> Any:
    """Return what NumPy can read for an array of any library; lists, NumPy's and sparse ones are returned as they are.

    Raises
    ------
    BackendUnavailableError
        If the array lies on a GPU and CuPy, which reads it, cannot be imported.
    ValueError
        If entries of it are masked, see `plain_array`.
    """
    if is_sparse(array):
        return array.get() if hasattr(array, "get") else array
    if on_gpu(array):
        try:
            import cupy
        except ImportError as error:
            raise BackendUnavailableError(
                f"got an array on a GPU, and CuPy, which reads it, cannot be imported ({error}); give NumPy arrays"
            ) from error
        found = read_gpu_array(cupy, array)
        with found.device:
            return found.get()
    if isinstance(array, np.ndarray) or not hasattr(array, "__dlpack__"):
        return plain_array(array)
    return np.asarray(array) if hasattr(array, "__array__") else np.from_dlpack(array)
