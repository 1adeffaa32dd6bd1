"""The simulator's twins: plain Python functions on NumPy scalars, run by a Python thread for each CUDA thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda as numba_cuda
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray


class _Registers:
    """`cuda.local.array` of the simulator: an array for each thread."""

    @staticmethod
    def array(shape: int, dtype: Any) -> np.ndarray:
        return np.empty(shape, np.dtype(str(dtype)))


_allocation = threading.Lock()


def _current() -> Any:
    """Return the simulator's object for this thread, which knows its place in block and grid."""
    return threading.current_thread()


class _Shared:
    """`cuda.shared.array`: one buffer for each block, full of NaN before the first write."""

    asked = 0
    """The bytes of a buffer of size 0, which the launch chooses."""

    @staticmethod
    def array(shape: int, dtype: Any, alignment: int) -> Any:
        shape = shape or _Shared.asked // np.dtype(str(dtype)).itemsize
        # All threads of a block share its manager, and no other block has the same one.
        manager: Any = _current()._manager
        with _allocation:
            if not hasattr(manager, "buffer"):
                manager.buffer = np.full(shape, np.nan, np.dtype(str(dtype)))
        if manager.buffer.size != shape:
            raise ValueError("a kernel may have one shared buffer only")
        return manager.buffer


class cuda:  # noqa: N801  (stands in for the module)
    """The part of ``numba.cuda`` that kernels use; a class of our own, so that the simulator does not replace it."""

    local = _Registers
    shared = _Shared


def device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as it is: a device function is called like any other."""
    return function


def kernel(threads: int, blocks: int = 0) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that makes a simulated kernel; it ignores both bounds."""
    decorate: Callable[[Callable[..., Any]], Any] = numba_cuda.jit
    return decorate


def allow_shared_memory(launch: Any, n_bytes: int) -> None:
    """Give the blocks of the next launch so much; Numba's simulator would give them none."""
    _Shared.asked = n_bytes


def _raw(array: Any) -> Any:
    """Return the NumPy array under the simulator's wrapper of kernel arguments."""
    return array if isinstance(array, np.ndarray) else array._item._ary


def in_place(array: Any) -> Any:
    """Return an array that a kernel works on as it is.

    The simulator copies each NumPy array to a launch and back. Where two arguments overlap, one of which the kernel
    writes, the copy of the other would bring back what was there before.
    """
    return FakeCUDAArray(array)


def i32(x: Any) -> int:
    """Return a Python integer: it neither wraps nor warns."""
    return int(x)


def is_int32(x: Any) -> bool:
    """Return whether a number is an int32."""
    return isinstance(x, np.int32)


def u32(x: Any) -> int:
    """Return the low 32 bits."""
    return int(x) & 0xFFFFFFFF


def u64(x: Any) -> int:
    """Return a Python integer of 64 bits."""
    return int(x) & 0xFFFFFFFFFFFFFFFF


def quotient(a: int, b: int) -> int:
    """Return a // b."""
    return a // b


def product32(a: int, b: int) -> tuple[int, int]:
    """Return the high and the low word of the 64-bit product."""
    return (a * b) >> 32, (a * b) & 0xFFFFFFFF


def _at(array: Any, i: int, width: int) -> tuple[Any, int]:
    i, raw = int(i), _raw(array)
    if i % width or not 0 <= i <= raw.size - width:
        raise IndexError(f"{width} elements at {i} of {raw.size}: misaligned or out of bounds")
    return raw, i


def _load(width: int) -> Callable[..., Any]:
    def load(array: Any, i: int) -> Any:
        raw, i = _at(array, i, width)
        return raw[i] if width == 1 else tuple(raw[i : i + width])

    return load


def _store(width: int) -> Callable[..., Any]:
    def store(array: Any, i: int, *values: Any) -> None:
        raw, i = _at(array, i, width)
        raw[i : i + width] = values

    return store


ld1, ld2, ld4 = _load(1), _load(2), _load(4)
ldg1, ldg4 = ld1, ld4
st1, st2, st4 = _store(1), _store(2), _store(4)


def ldb4(array: Any, i: int) -> tuple[int, ...]:
    """Load four uint8 as integers."""
    return tuple(int(v) for v in ld4(array, i))


def _load_words(width: int) -> Callable[..., Any]:
    def load(array: Any, i: int) -> tuple[int, ...]:
        raw, i = _at(array, i, 4 * width)
        return tuple(int.from_bytes(raw[j : j + 4].tobytes(), "little") for j in range(i, i + 4 * width, 4))

    return load


ldw2, ldw4 = _load_words(2), _load_words(4)


def bytes4(word: Any) -> tuple[int, ...]:
    """Return the four uint8 of a word of `ldw2` or `ldw4`, in their order in memory."""
    return tuple(int(word).to_bytes(4, "little"))


def sync() -> None:
    """Wait for the other threads of the block."""
    _current().syncthreads()


def thread() -> int:
    """Return the index of the thread in its block."""
    return int(_current().threadIdx.x)


def _block(axis: str) -> Callable[[], int]:
    return lambda: int(getattr(_current().blockIdx, axis))


block_x, block_y, block_z = _block("x"), _block("y"), _block("z")


def grid_x() -> int:
    """Return the number of blocks along x."""
    return int(_current()._manager._grid_dim[0])


def grid_y() -> int:
    """Return the number of blocks along y."""
    return int(_current()._manager._grid_dim[1])


def count_in(counts: Any, i: int, last: int) -> int:
    """Count one more block at ``counts[i]`` and return how many came before; after `last` the count is 0 again."""
    raw, i = _at(counts, i, 1)
    before = int(raw[i])
    raw[i] = 0 if before >= last else before + 1
    return before


def _quiet(function: Any) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        with np.errstate(all="ignore"):
            return type(x)(function(x))

    return call


exp, log, sqrt, tanh = _quiet(np.exp), _quiet(np.log), _quiet(np.sqrt), _quiet(np.tanh)
expm1, log1p, erfc = _quiet(np.expm1), _quiet(np.log1p), _quiet(math.erfc)
