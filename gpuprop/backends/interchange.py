"""Arrays of other libraries, by the protocols that they share: ``__cuda_array_interface__`` and DLPack.

The rule: an array that lies where the network computes is used as it is; one on another GPU is copied from there once;
one on a GPU that is given to a network on the CPU comes to the host once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuprop.errors import BackendUnavailableError
from gpuprop.validation import is_sparse

__all__ = ["on_gpu", "read_gpu_array", "to_host"]

# DLDeviceType of dlpack.h: kDLCUDA and kDLCUDAManaged.
_GPU_KINDS = (2, 13)


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
        return array
    return np.asarray(array) if hasattr(array, "__array__") else np.from_dlpack(array)
