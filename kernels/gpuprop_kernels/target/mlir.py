"""The body for numba-cuda-mlir, the compiler that follows numba-cuda: the same names, lowered to MLIR.

Nothing launches these kernels yet: `benchmarks/next_compiler.py` compiles a sample of them and compares its machine
code with that of the compiler in use. The package has no simulator of its own; `simulator` serves both compilers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from numba_cuda_mlir import cuda, types
from numba_cuda_mlir._mlir import ir
from numba_cuda_mlir._mlir.dialects import arith, builtin, llvm, memref, nvvm, vector
from numba_cuda_mlir.extending import lowering_registry, typing_registry
from numba_cuda_mlir.lowering_utilities import GEP_DYNAMIC_INDEX, memref_descriptor_type
from numba_cuda_mlir.numba_cuda.typing.templates import AbstractTemplate, signature

float32, float64 = types.float32, types.float64
int8, int32, uint8, uint32, uint64 = types.int8, types.int32, types.uint8, types.uint32, types.uint64
i32, u32, u64 = int32, uint32, uint64
exp, log, sqrt, tanh = math.exp, math.log, math.sqrt, math.tanh
expm1, log1p, erfc = math.expm1, math.log1p, math.erfc


def device(function: Callable[..., Any]) -> Any:
    """Compile a device function that is always inlined, so that registers can be passed to it as arrays."""
    return cuda.jit(device=True, inline="always")(function)


def kernel(threads: int, blocks: int = 0) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that makes a kernel for blocks of `threads`, of which `blocks` fit on one multiprocessor."""
    options = {"launch_bounds": (threads, blocks)} if blocks else {}

    return lambda function: cuda.jit(**options)(function)


def _typed(function: Callable[..., Any], resolve: Callable[..., Any]) -> None:
    """Give a function that kernels call the type that `resolve` finds for its arguments."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            return resolve(*args)

    typing_registry.register_global(function, types.Function(Template))


def _parts(element: Any, width: int) -> list[tuple[int, int]]:
    """Return first index and length of the vectors of at most 16 bytes that `width` elements consist of."""
    length = min(width, 16 // (element.bitwidth // 8))
    return [(first, length) for first in range(0, width, length)]


def _pointer(builder: Any, args: Any, offset: int = 0) -> Any:
    """Return the array and a pointer to an element of it.

    Arrays of kernels are C-contiguous and begin at their pointer, so that neither a stride nor an offset takes part.
    The pointer is generic; the compiler finds out which memory it is in. (The library's own way takes an array that a
    device function was given for global memory, also where it is shared.)
    """
    array = builder.load_var(args[0])
    kind = ir.MemRefType(array.type)
    if kind.memory_space is not None:
        kind = ir.MemRefType.get(kind.shape, kind.element_type, kind.layout)
        array = memref.memory_space_cast(dest=kind, source=array)
    described = builtin.unrealized_conversion_cast([memref_descriptor_type(1)], [array])
    generic = llvm.PointerType.get()
    base = llvm.extractvalue(generic, described, [1])
    index = builder.mlir_convert(builder.load_var(args[1]), ir.IntegerType.get_signless(32))
    if offset:
        index = arith.addi(index, arith.constant(index.type, offset))
    return array, llvm.getelementptr(generic, base, [index], [GEP_DYNAMIC_INDEX], kind.element_type, None)


def _load(width: int, *, read_only: bool) -> Any:
    def load(array: Any, i: Any) -> Any:
        raise NotImplementedError

    def resolve(array: Any, i: Any) -> Any:
        result = array.dtype if width == 1 else types.UniTuple(array.dtype, width)
        return signature(result, array, int32)

    @lowering_registry.lower(load, types.Array, types.Integer)
    def lower(builder: Any, target: Any, args: Any, kwargs: Any) -> None:
        element = builder.get_numba_type(args[0].name).dtype
        size = element.bitwidth // 8
        values: list[Any] = []
        for first, length in _parts(element, width):
            array, pointer = _pointer(builder, args, first)
            if length == 1:
                values.append(llvm.load(array.type.element_type, pointer, alignment=size, invariant=read_only or None))
                continue
            kind = ir.VectorType.get([length], array.type.element_type)
            loaded = llvm.load(kind, pointer, alignment=length * size, invariant=read_only or None)
            values += [vector.extract(loaded, [], [e]) for e in range(length)]
        builder.store_var(target, values[0] if width == 1 else tuple(values))

    _typed(load, resolve)
    return load


ld1, ld2, ld4 = (_load(n, read_only=False) for n in (1, 2, 4))
ldg1, ldg4 = (_load(n, read_only=True) for n in (1, 4))


def _store(width: int) -> Any:
    def store(array: Any, i: Any, *values: Any) -> None:
        raise NotImplementedError

    @lowering_registry.lower(store, types.Array, types.Integer, *[types.Any] * width)
    def lower(builder: Any, target: Any, args: Any, kwargs: Any) -> None:
        element = builder.get_numba_type(args[0].name).dtype
        size = element.bitwidth // 8
        for first, length in _parts(element, width):
            array, pointer = _pointer(builder, args, first)
            kind = array.type.element_type
            values = [builder.mlir_convert(builder.load_var(args[2 + first + e]), kind) for e in range(length)]
            value = values[0] if length == 1 else vector.from_elements(ir.VectorType.get([length], kind), values)
            llvm.store(value, pointer, alignment=length * size)
        builder.store_var(target, None)

    _typed(store, lambda array, i, *values: signature(types.none, array, int32, *[array.dtype] * width))
    return store


st1, st2, st4 = (_store(n) for n in (1, 2, 4))


def _load_words(width: int) -> Any:
    def load(array: Any, i: Any) -> Any:
        raise NotImplementedError

    @lowering_registry.lower(load, types.Array, types.Integer)
    def lower(builder: Any, target: Any, args: Any, kwargs: Any) -> None:
        _, pointer = _pointer(builder, args)
        word = ir.IntegerType.get_signless(32)
        if width == 1:
            builder.store_var(target, llvm.load(word, pointer, alignment=4, invariant=True))
            return
        loaded = llvm.load(ir.VectorType.get([width], word), pointer, alignment=4 * width, invariant=True)
        builder.store_var(target, tuple(vector.extract(loaded, [], [e]) for e in range(width)))

    result = uint32 if width == 1 else types.UniTuple(uint32, width)
    _typed(load, lambda array, i: signature(result, array, int32))
    return load


_ldw1, ldw2, ldw4 = (_load_words(n) for n in (1, 2, 4))


@device
def bytes4(word):
    """Return the four uint8 of a word of `ldw2` or `ldw4`, in their order in memory, as int32."""
    low, high = word & uint32(65535), word >> uint32(16)
    return int32(low & uint32(255)), int32(low >> uint32(8)), int32(high & uint32(255)), int32(high >> uint32(8))


@device
def ldb4(array, i):
    """Load four uint8 in one 32-bit access, as int32."""
    return bytes4(_ldw1(array, i))


def is_int32(x: Any) -> bool:
    """Return whether a number is an int32: a constant of the compiled kernel, so that only one branch is left."""
    raise NotImplementedError


@lowering_registry.lower(is_int32, types.Any)
def _is_int32(builder: Any, target: Any, args: Any, kwargs: Any) -> None:
    found = builder.get_numba_type(args[0].name) == int32
    builder.store_var(target, arith.constant(ir.IntegerType.get_signless(1), int(found)))


_typed(is_int32, lambda x: signature(types.boolean, x))


@device
def quotient(a, b):
    """Return a // b of int32 that are not negative."""
    return int32(uint32(a) // uint32(b))


def allow_shared_memory(launch: Any, n_bytes: int) -> None:
    """Refuse: nothing launches these kernels yet."""
    raise NotImplementedError(f"got a launch with {n_bytes} bytes of shared memory, expected none with this compiler")


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


def _fence() -> None:
    """Order the thread's accesses to memory before it and behind it, for all threads of the device."""
    raise NotImplementedError


@lowering_registry.lower(_fence)
def _lower_fence(builder: Any, target: Any, args: Any, kwargs: Any) -> None:
    nvvm.memory_barrier(nvvm.MemScopeKind.GPU)
    builder.store_var(target, None)


_typed(_fence, lambda: signature(types.none))


@device
def count_in(counts, i, last):
    """Count one more block at ``counts[i]`` and return how many came before; after `last` the count is 0 again."""
    _fence()
    before = cuda.atomic.inc(counts, i, uint32(last))
    _fence()
    return int32(before)
