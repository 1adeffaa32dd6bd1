"""The compiled side: intrinsics that become single machine instructions, and inlined device functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cuda.bindings import driver  # type: ignore[import-untyped]
from llvmlite import ir
from numba import cuda, int32, uint32, uint64
from numba.cuda import cgutils, types
from numba.cuda.extending import intrinsic
from numba.cuda.np import arrayobj

from gpuprop_kernels.target.cache import KernelCache

i32, u32, u64 = int32, uint32, uint64
exp, log, sqrt, tanh = math.exp, math.log, math.sqrt, math.tanh
expm1, log1p, erfc = math.expm1, math.log1p, math.erfc


def device(function: Callable[..., Any]) -> Any:
    """Compile a device function that is always inlined, so that registers can be passed to it as arrays."""
    return cuda.jit(device=True, forceinline=True)(function)


def kernel(threads: int, blocks: int = 0) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that makes a kernel for blocks of `threads`.

    With `blocks`, the assembler limits a block's registers so that this many blocks fit on one multiprocessor. The
    first launch compiles the kernel, so that modules can be imported on a machine without a driver; the result is kept
    on disk, see `cache`.
    """
    options = {"launch_bounds": (threads, blocks)} if blocks else {}

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = cuda.jit(**options)(function)
        dispatcher._cache = KernelCache(dispatcher)
        return dispatcher

    return compiled


SHARED_MEMORY = 48 * 1024
"""Bytes of shared memory that a launch may ask for on every device, without further ado."""


def allow_shared_memory(launch: Any, n_bytes: int) -> None:
    """Allow a configured launch, `kernel[...]`, more than `SHARED_MEMORY`, if it asks for more.

    CUDA wants to be told kernel by kernel ("opt-in"), once the kernel has been loaded.
    """
    if n_bytes > SHARED_MEMORY and not launch.pre_launch_callbacks:  # Numba keeps configurations
        launch.pre_launch_callbacks.append(_Allowance(n_bytes))


class _Allowance:
    """What happens between the compilation of a kernel and its launch."""

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes

    def __call__(self, kernel: Any, launch: Any) -> None:
        """Raise the kernel's limit of shared memory, on the device where the launch will run."""
        loaded = kernel._codelibrary.get_cufunc().kernel
        if loaded.attributes.max_dynamic_shared_size_bytes < self._n_bytes:
            limit = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            device = driver.CUdevice(cuda.current_context().device.id)
            (result,) = driver.cuKernelSetAttribute(limit, self._n_bytes, loaded.handle, device)
            if result != driver.CUresult.CUDA_SUCCESS:
                raise RuntimeError(f"a block gets no {self._n_bytes} bytes of shared memory: {result.name}")


def _pointer(context: Any, builder: Any, array_type: Any, value: Any, index: Any) -> Any:
    array = arrayobj.make_array(array_type)(context, builder, value)
    return builder.gep(array.data, [index], inbounds=True)


def _constant(n: int) -> Any:
    return ir.Constant(ir.IntType(32), n)


def _parts(context: Any, builder: Any, element: Any, pointer: Any, width: int) -> list[tuple[Any, int]]:
    """Return pointers to the vectors of at most 16 bytes that `width` elements consist of, with their length."""
    length = min(width, 16 // (element.bitwidth // 8))
    vector_type = ir.VectorType(context.get_data_type(element), length)
    parts = []
    for first in range(0, width, length):
        part = builder.gep(pointer, [_constant(first)], inbounds=True)
        parts.append((builder.bitcast(part, vector_type.as_pointer()), length))
    return parts


def _load(width: int, *, read_only: bool) -> Any:
    @intrinsic
    def load(typing: Any, array: Any, i: Any) -> Any:
        element = array.dtype
        result = element if width == 1 else types.UniTuple(element, width)

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def fetch(pointer: Any, align: int) -> Any:
                value = builder.load(pointer, align=align)
                if read_only:
                    value.set_metadata("invariant.load", builder.module.add_metadata([]))
                return value

            size = element.bitwidth // 8
            pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
            if width == 1:
                return fetch(pointer, size)
            values = []
            for part, length in _parts(context, builder, element, pointer, width):
                loaded = fetch(part, length * size)
                values += [builder.extract_element(loaded, _constant(e)) for e in range(length)]
            return cgutils.pack_array(builder, values)

        return result(array, types.int32), generate

    return load


ld1, ld2, ld4 = (_load(n, read_only=False) for n in (1, 2, 4))
ldg1, ldg4 = (_load(n, read_only=True) for n in (1, 4))


def _generate_store(width: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = signature.args[0].dtype
        size = element.bitwidth // 8
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        if width == 1:
            builder.store(args[2], pointer, align=size)
            return context.get_dummy_value()
        values = list(args[2:])
        for part, length in _parts(context, builder, element, pointer, width):
            packed = ir.Constant(part.type.pointee, ir.Undefined)
            for e in range(length):
                packed = builder.insert_element(packed, values.pop(0), _constant(e))
            builder.store(packed, part, align=length * size)
        return context.get_dummy_value()

    return generate


@intrinsic
def st1(typing: Any, array: Any, i: Any, a: Any) -> Any:
    """Store one element."""
    return types.void(array, types.int32, array.dtype), _generate_store(1)


@intrinsic
def st2(typing: Any, array: Any, i: Any, a: Any, b: Any) -> Any:
    """Store two elements."""
    return types.void(array, types.int32, *[array.dtype] * 2), _generate_store(2)


@intrinsic
def st4(typing: Any, array: Any, i: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Store four elements."""
    return types.void(array, types.int32, *[array.dtype] * 4), _generate_store(4)


def _bytes(builder: Any, word: Any) -> Any:
    """Return the four bytes of a word, the lowest first, as int32."""
    bytes_ = [builder.and_(builder.lshr(word, _constant(8 * e)), _constant(255)) for e in range(4)]
    return cgutils.pack_array(builder, bytes_)


@intrinsic
def ldb4(typing: Any, array: Any, i: Any) -> Any:
    """Load four uint8 in one 32-bit access, as int32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        word = builder.load(builder.bitcast(pointer, ir.IntType(32).as_pointer()), align=4)
        word.set_metadata("invariant.load", builder.module.add_metadata([]))
        return _bytes(builder, word)

    return types.UniTuple(types.int32, 4)(array, types.int32), generate


def _load_words(width: int) -> Any:
    @intrinsic
    def load(typing: Any, array: Any, i: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
            vector_type = ir.VectorType(ir.IntType(32), width)
            words = builder.load(builder.bitcast(pointer, vector_type.as_pointer()), align=4 * width)
            words.set_metadata("invariant.load", builder.module.add_metadata([]))
            return cgutils.pack_array(builder, [builder.extract_element(words, _constant(e)) for e in range(width)])

        return types.UniTuple(types.uint32, width)(array, types.int32), generate

    return load


ldw2, ldw4 = _load_words(2), _load_words(4)


@intrinsic
def bytes4(typing: Any, word: Any) -> Any:
    """Return the four uint8 of a word of `ldw2` or `ldw4`, in their order in memory, as int32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _bytes(builder, args[0])

    return types.UniTuple(types.int32, 4)(types.uint32), generate


@intrinsic
def is_int32(typing: Any, value: Any) -> Any:
    """Return whether a number is an int32: a constant of the compiled kernel, so that only one branch is left."""
    found = value == types.int32

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.get_constant(types.boolean, found)

    return types.boolean(value), generate


@intrinsic
def quotient(typing: Any, a: Any, b: Any) -> Any:
    """Return a // b of int32 that are not negative; Numba's own division is that of 64 bits, a call of a function."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.udiv(*args)

    return types.int32(types.int32, types.int32), generate


@device
def product32(a, b):
    """Return the high and the low word of the 64-bit product."""
    product = uint64(a) * uint64(b)
    return uint32(product >> uint64(32)), uint32(product)


@device
def sync():
    """Wait for the other threads of the block."""
    cuda.syncthreads()


@device
def thread():
    """Return the index of the thread in its block."""
    return int32(cuda.threadIdx.x)


@device
def block_x():
    """Return the index of the block along x."""
    return int32(cuda.blockIdx.x)


@device
def block_y():
    """Return the index of the block along y."""
    return int32(cuda.blockIdx.y)


@device
def block_z():
    """Return the index of the block along z."""
    return int32(cuda.blockIdx.z)


@device
def grid_x():
    """Return the number of blocks along x."""
    return int32(cuda.gridDim.x)


@device
def grid_y():
    """Return the number of blocks along y."""
    return int32(cuda.gridDim.y)


@device
def count_in(counts, i, last):
    """Count one more block at ``counts[i]`` and return how many came before; after `last` the count is 0 again.

    One thread of a block calls this, after a barrier. The fences put the block's stores before the count, and its later
    reads after it, so that the block that counts last sees everything that all others have stored.
    """
    cuda.threadfence()
    before = cuda.atomic.inc(counts, i, uint32(last))
    cuda.threadfence()
    return int32(before)
