"""What a kernel may use, on the device and in Numba's simulator: the only package that imports ``numba.cuda``.

One source serves both. Compiled, each name here is an intrinsic or an inlined device function; with
``NUMBA_ENABLE_CUDASIM=1`` it is a plain Python function that does the same with NumPy scalars. With
``GPUPROP_KERNEL_COMPILER=numba-cuda-mlir`` the names are those of `mlir`, for the compiler that follows numba-cuda;
nothing launches its kernels yet.

=====================  ====================================================================================
``i32, u32, u64``      cast to an integer. Numba widens int32 + int32 to int64, so that every index
                       expression is wrapped; the simulator's are Python integers
``ld1 ld2 ld4``        load 1, 2 or 4 consecutive elements: one aligned access of 4 to 16 bytes (two of 16 for
                       four float64), without the select that Numba inserts for negative indices
``ldg1 ldg4 ldb4``     the same from memory that no thread writes during the launch (the read-only path);
                       ``ldb4`` takes four uint8 in one 32-bit load
``words(count)``       the load of eight or sixteen uint8 in one access, as words of four; ``bytes4`` takes one apart
``st1 st2 st4``        store
``vector(width)``      the pair (load, store) between memory and registers, ``width`` elements at a time
``cuda.shared.array``  the shared memory of a kernel, always with ``alignment=16``; one buffer a kernel. With the size 0
                       it is as large as a launch asks for (``allow_shared_memory``)
``cuda.local.array``   registers, where every index is known once loops are unrolled
``is_int32``           whether an argument is an int32, which the compiler knows: the other branch goes
``count_in``           this block in a count of blocks: an integer atomic between two fences
``quotient``           a // b of two int32, in 32 bits
``mma_tf32 mma_bf16``  a warp's product of two fragments on tensor cores; ``round_tf32``, ``high_tf32`` and
                       ``pack_bf16`` make their operands of float32
``exp log ...``        the functions of ``math``, in the dtype of their argument
=====================  ====================================================================================

All loads and stores go through here, so that the simulator checks every alignment, and so that the machine code has
128-bit accesses throughout: measured, plain indexing gives four 32-bit ones.
"""

from __future__ import annotations

import os
from typing import Any

import numba
from numba import float32, float64, int8, int32, uint8, uint32

SIM = bool(numba.core.config.ENABLE_CUDASIM)
MLIR = not SIM and os.environ.get("GPUPROP_KERNEL_COMPILER") == "numba-cuda-mlir"

# Every body defines the same names; the list below says which of them kernels may use.
if SIM:
    from gpuprop_kernels.target.simulator import *
    from gpuprop_kernels.target.tensor_simulator import *
elif MLIR:
    from gpuprop_kernels.target.mlir import *
    from gpuprop_kernels.target.tensor_missing import *
else:
    from gpuprop_kernels.target.compiled import *
    from gpuprop_kernels.target.tensor_compiled import *

__all__ = [
    "MLIR",
    "SIM",
    "allow_shared_memory",
    "block_x",
    "block_y",
    "block_z",
    "bytes4",
    "count_in",
    "cuda",
    "device",
    "erfc",
    "exp",
    "expm1",
    "float32",
    "float64",
    "grid_x",
    "grid_y",
    "high_tf32",
    "i32",
    "int8",
    "int32",
    "is_int32",
    "kernel",
    "ld1",
    "ld2",
    "ld4",
    "ldb4",
    "ldg1",
    "ldg4",
    "log",
    "log1p",
    "mma_bf16",
    "mma_tf32",
    "pack_bf16",
    "product32",
    "quotient",
    "round_tf32",
    "sqrt",
    "st1",
    "st2",
    "st4",
    "sync",
    "tanh",
    "thread",
    "u32",
    "u64",
    "uint8",
    "uint32",
    "vector",
    "words",
]  # fmt: skip


@device
def _load2(array, i, registers, at):
    v = ld2(array, i)
    registers[at] = v[0]
    registers[at + 1] = v[1]


@device
def _load4(array, i, registers, at):
    v = ld4(array, i)
    registers[at] = v[0]
    registers[at + 1] = v[1]
    registers[at + 2] = v[2]
    registers[at + 3] = v[3]


@device
def _words2(array, i, registers):
    v = ldw2(array, i)
    registers[0] = v[0]
    registers[1] = v[1]


@device
def _words4(array, i, registers):
    v = ldw4(array, i)
    registers[0] = v[0]
    registers[1] = v[1]
    registers[2] = v[2]
    registers[3] = v[3]


@device
def _store2(array, i, registers, at):
    st2(array, i, registers[at], registers[at + 1])


@device
def _store4(array, i, registers, at):
    st4(array, i, registers[at], registers[at + 1], registers[at + 2], registers[at + 3])


def vector(width: int) -> tuple[Any, Any]:
    """Return ``load(array, i, registers, at)`` and ``store(array, i, registers, at)`` for `width` elements, 2 or 4."""
    return {2: (_load2, _store2), 4: (_load4, _store4)}[width]


def words(count: int) -> Any:
    """Return ``load(array, i, registers)`` for `count` words of four uint8 each, 2 or 4."""
    return {2: _words2, 4: _words4}[count]
