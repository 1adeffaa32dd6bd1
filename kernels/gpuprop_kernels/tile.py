"""The register-blocked tile multiply that forward, delta and gradient share.

One block computes a ``rows x columns`` tile of C = A B, one thread ``thread_rows x thread_columns`` of it in
registers. A and B pass through shared memory in slabs of ``depth`` along the inner index k, stored k-major, so that
one k-step of a thread is a few 128-bit loads and an outer product::

                     B slab  k x columns
                   +----------------------+
                   |   |  tx  |      | tx |       a thread's results: `fused_step`
                   +----------------------+       on tensor cores: `tensor_step`, what lies in the slabs: `words`
     A slab        +----------------------+
     k x rows      |                      |
     +------+      |      C tile          |
     | ty   |      |                      |
     |      |      |                      |
     | ty   |      |                      |
     +------+      +----------------------+

An operand comes in one of two layouts. ``by_k``: a row of memory is one k (B of the forward pass, both operands of
the gradient); it is stored as it comes, 128 bits at a time. ``by_row``: a row of memory is one row of the tile (A of
the forward pass, both operands of the delta); it is transposed on the way. A warp then takes 16 rows x 8 k: whole
32-byte sectors of global memory, and, with 4 columns of padding, 32 different banks of shared memory.

Two slabs of shared memory alternate; the next slab is fetched into registers before the current one is multiplied,
and one barrier a slab suffices. Rows of bytes have a loop of their own in the larger tiles (`sectors`). A tile of few
threads has ``slices`` groups of warps that take their turn along k; their partial tiles are added in order. Sums have
one fixed order, always: results repeat bit for bit.

Budget per block (float32; twice the shared memory for float64): 128x128 with 8x8 a thread: 256 threads, <= 128
registers, 16.9 KiB; 64x64 with 8x4: 128 threads, <= 96 registers, 17.4 KiB; 64x64 with 4x4: 256 threads, 64
registers; 32x32 with 4x4 and 4 slices: 256 threads, 64 registers, 21 KiB. Each slab of 128x128 does 512 FMA on 32
shared loads a thread; the compiled loop is 86 to 89 % FMA. What made it so, measured: 128-bit accesses (`target`),
the k-step written out 8 times (a loop over k drops the share from .88 to .72), ``&`` and ``>>`` instead of ``%`` and
``//``, and indices that stay int32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from gpuprop_kernels.fused_step import fused_steps
from gpuprop_kernels.sectors import APART, run_by_sectors, takes_sectors
from gpuprop_kernels.shapes import SMALL, TILES, Tile, log2
from gpuprop_kernels.staging import Loader, Stage, lanes_of_row, stage
from gpuprop_kernels.target import cuda, device, i32, ld1, st1, sync, thread
from gpuprop_kernels.tensor_step import tensor_steps
from gpuprop_kernels.words import staged_words

__all__ = ["SMALL", "TILES", "Multiply", "Tile", "multiply", "sweep"]


@dataclass(frozen=True)
class Multiply:
    """What a kernel needs to multiply with a tile."""

    tile: Tile
    shared_size: int
    """Elements of shared memory."""
    run: Any
    """``run(shared, acc, a, lda, b, ldb, m0, n0, m, n, k, k_end)``: acc = A B, for the thread's slice 0."""
    coordinates: Any
    """``coordinates(t) -> (slice, tx, ty)``."""
    accumulators: int


@cache
def multiply(tile: Tile, dt: Any, loader_a: Loader, loader_b: Loader, a_by_row: bool, b_by_row: bool) -> Multiply:
    """Build the multiply of one tile shape, dtype and pair of operands."""
    size_m, size_n = tile.thread_rows, tile.thread_columns
    group, slices, zero = tile.group, tile.slices, dt(0)
    lanes = lanes_of_row(tile, loader_a) if a_by_row else 2
    sectors = a_by_row and takes_sectors(tile, loader_a)
    apart = APART if sectors else 0
    a = _staged(tile, dt, tile.rows, loader_a, by_row=a_by_row, clear=True, lanes=lanes)
    b = _staged(tile, dt, tile.columns, loader_b, by_row=b_by_row, clear=False, lanes=lanes, apart_in_memory=apart)
    stride_a, stride_b = a.stride, b.stride
    # Shared memory: the slabs of A and those of B, then all of them for the other turn.
    base_b, slabs = tile.planes * tile.depth * stride_a, tile.planes * tile.depth * (stride_a + stride_b)
    size = max(2 * slabs, (slices - 1) * tile.rows * tile.columns, tile.rows // size_m * tile.columns)
    accumulators, partial = size_m * size_n, tile.rows * tile.columns
    registers_a, registers_b = 4 * a.loads, 4 * b.loads
    place_a, place_b, anchor_a, anchor_b = a.place, b.place, a.anchor, b.anchor
    spot_a, spot_b = a.spot, b.spot
    fetch_a, fetch_b, put_a, put_b = a.fetch, b.fetch, a.put, b.put
    per_slice = tile.depth // slices
    twice = per_slice == 16
    scaled, factor = loader_a.factor is not None, loader_a.factor
    if loader_b.factor is not None:
        raise ValueError("got an operand B with a factor, expected it on A")
    if per_slice not in (8, 16):
        raise ValueError(f"{tile.name}: got {per_slice} steps a slice, expected 8 or 16")
    fused = tile.precision == "float32"
    if not fused and str(dt) != "float32":
        raise ValueError(f"{tile.name}: got operands in {dt}, expected float32")
    steps = fused_steps(tile, dt, stride_a, stride_b, not sectors) if fused else tensor_steps(tile, lanes)
    coordinates, places, eight_steps = steps

    @device
    def add_slices(shared, acc, part, u):
        """Add the slices' partial tiles to slice 0's, in order."""
        if part > 0:
            for i in range(accumulators):
                st1(shared, i32((part - 1) * partial + i * group + u), acc[i])
        sync()
        if part == 0:
            for q in range(slices - 1):
                for i in range(accumulators):
                    acc[i] += ld1(shared, i32(q * partial + i * group + u))
        sync()

    @device
    def run(shared, acc, a, lda, b, ldb, m0, n0, m, n, k, k_end):
        next_a = cuda.local.array(registers_a, dt)
        next_b = cuda.local.array(registers_b, dt)
        t = thread()
        along_a, slot_a, deep_a = place_a(t)
        along_b, slot_b, deep_b = place_b(t)
        part, from_a, from_b = places(t, base_b)
        # These are carried from slab to slab, not computed from the slab's number: measured, some assemblers would
        # then compute the part that depends on the thread again in every turn of the loop.
        to_a, to_b = i32(spot_a(slot_a, along_a)), i32(base_b + spot_b(slot_b, along_b))
        at_a, at_b = anchor_a(a, along_a, m0, m, lda), anchor_b(b, along_b, n0, n, ldb)
        deep_a, deep_b = i32(k + deep_a), i32(k + deep_b)
        for i in range(accumulators):
            acc[i] = zero
        fetch_a(a, at_a, deep_a, lda, k_end, next_a)
        fetch_b(b, at_b, deep_b, ldb, k_end, next_b)
        put_a(shared, to_a, next_a)
        put_b(shared, to_b, next_b)
        sync()
        turn = i32(slabs)
        while k < k_end:
            k = i32(k + depth)
            if k < k_end:
                deep_a, deep_b = i32(deep_a + depth), i32(deep_b + depth)
                fetch_a(a, at_a, deep_a, lda, k_end, next_a)
                fetch_b(b, at_b, deep_b, ldb, k_end, next_b)
            eight_steps(shared, from_a, from_b, acc)
            if twice:
                eight_steps(shared, i32(from_a + 8 * stride_a), i32(from_b + 8 * stride_b), acc)
            from_a, from_b = i32(from_a + turn), i32(from_b + turn)
            to_a, to_b = i32(to_a + turn), i32(to_b + turn)
            turn = i32(-turn)
            if k < k_end:
                put_a(shared, to_a, next_a)
                put_b(shared, to_b, next_b)
            sync()
        if slices > 1:
            add_slices(shared, acc, part, i32(t & (group - 1)))
        if scaled:
            f = factor(a)
            for i in range(accumulators):
                acc[i] *= f

    depth = tile.k_depth
    by_sectors = run_by_sectors(tile, dt, lanes, loader_a, a, b, steps) if sectors else None
    return Multiply(tile, size, by_sectors or run, coordinates, accumulators)


def _staged(tile: Tile, dt: Any, extent: int, loader: Loader, **options: Any) -> Stage:
    """Return how an operand gets into shared memory: as it is, or as words for tensor cores."""
    if tile.precision == "float32":
        return stage(tile, dt, extent, loader, **options)
    return staged_words(tile, extent, loader, **options)


@cache
def sweep(tile: Tile, visit: Any) -> Any:
    """Build the walk over a thread's part of the tile after the multiply.

    Calls ``visit(acc, at, j, m, n, context)`` for each group of ``min(4, thread_columns)`` neighbouring results that
    lies in the matrix: they start at ``acc[at]`` and belong to row m, columns n and on; j is n counted within the
    thread. Only slice 0 may call it.
    """
    size_m, size_n = tile.thread_rows, tile.thread_columns
    width_m, width_n = min(4, size_m), min(4, size_n)
    gap_m, gap_n = width_m * (tile.rows // size_m), width_n * (tile.columns // size_n)
    bits = log2(width_m)
    two_groups, four_rows, eight_rows = size_n > width_n, size_m > 2, size_m > 4

    @device
    def visit_one(acc, i, j, m, n, n_rows, context):
        row = i32(m + (i >> bits) * gap_m + (i & (width_m - 1)))
        if row < n_rows:
            visit(acc, i * size_n + j, j, row, n, context)

    # The calls are written out, because the compiler unrolls a loop only while its body is small, and an accumulator
    # whose index is not a constant goes to local memory (measured with tanh in a 128x128 tile). Each i is cast because
    # Numba gives a literal a type of its own, and would compile visit_one eight times.
    @device
    def visit_rows(acc, j, m, n, n_rows, ld, context):
        if n < ld:
            visit_one(acc, i32(0), j, m, n, n_rows, context)
            visit_one(acc, i32(1), j, m, n, n_rows, context)
            if four_rows:
                visit_one(acc, i32(2), j, m, n, n_rows, context)
                visit_one(acc, i32(3), j, m, n, n_rows, context)
            if eight_rows:
                visit_one(acc, i32(4), j, m, n, n_rows, context)
                visit_one(acc, i32(5), j, m, n, n_rows, context)
                visit_one(acc, i32(6), j, m, n, n_rows, context)
                visit_one(acc, i32(7), j, m, n, n_rows, context)

    @device
    def walk(acc, tx, ty, m0, n0, n_rows, ld, context):
        m, n = i32(m0 + ty * width_m), i32(n0 + tx * width_n)
        visit_rows(acc, i32(0), m, n, n_rows, ld, context)
        if two_groups:
            visit_rows(acc, i32(width_n), m, i32(n + gap_n), n_rows, ld, context)

    return walk
