"""The register-blocked tile multiply that forward, delta and gradient share.

One block computes a ``rows x columns`` tile of C = A B, one thread ``thread_rows x thread_columns`` of it in
registers. A and B pass through shared memory in slabs of ``depth`` along the inner index k, stored k-major, so that
one k-step of a thread is a few 128-bit loads and an outer product::

                     B slab  k x columns                    one thread, 8 x 8
                   +----------------------+              4        gap       4
                   |   |  tx  |      | tx |            +----+           +----+
                   +----------------------+          4 |acc | .. .. ..  |acc |
     A slab        +----------------------+            +----+           +----+
     k x rows      |                      |        gap   :                 :
     +------+      |      C tile          |            +----+           +----+
     | ty   |      |                      |          4 |acc | .. .. ..  |acc |
     |      |      |                      |            +----+           +----+
     | ty   |      |                      |       groups of 4 lie columns*4/thread_columns apart: neighbouring
     +------+      +----------------------+       threads read neighbouring 16 bytes, without bank conflicts

An operand comes in one of two layouts. ``by_k``: a row of memory is one k (B of the forward pass, both operands of
the gradient); it is stored as it comes, 128 bits at a time. ``by_row``: a row of memory is one row of the tile (A of
the forward pass, both operands of the delta); it is transposed on the way. A warp then takes 16 rows x 8 k: whole
32-byte sectors of global memory, and, with 4 columns of padding, 32 different banks of shared memory.

Two slabs of shared memory alternate; the next slab is fetched into registers before the current one is multiplied,
and one barrier a slab suffices. A tile of few threads has ``slices`` groups of warps that take their turn along k;
their partial tiles are added in order. Sums have one fixed order, always: results repeat bit for bit.

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
from typing import Any, NamedTuple

from gpuprop_kernels.target import (
    cuda,
    device,
    i32,
    int32,
    ld1,
    ldb4,
    ldg1,
    ldg4,
    st1,
    st4,
    sync,
    thread,
    vector,
)

__all__ = ["DENSE", "Loader", "SMALL", "TILES", "Multiply", "Tile", "multiply", "row_loader", "sweep"]


@dataclass(frozen=True)
class Tile:
    """The shape of a tile; all sizes are powers of two.

    Parameters
    ----------
    rows, columns : int
        Size of the block's tile.
    thread_rows, thread_columns : int
        Size of one thread's part: 2, 4 or a multiple of 4.
    depth : int
        Length of a slab along k, over all slices; 8 or 16 a slice.
    slices : int
        Groups of threads that share the work along k.
    """

    rows: int
    columns: int
    thread_rows: int
    thread_columns: int
    depth: int = 8
    slices: int = 1

    @property
    def group(self) -> int:
        """Threads of one slice."""
        return (self.rows // self.thread_rows) * (self.columns // self.thread_columns)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.group * self.slices

    @property
    def resident(self) -> int:
        """Blocks that the assembler shall fit on one multiprocessor, 0 to let it choose.

        128x128 with 8x8 results a thread needs the hint, or some architectures take 130 registers and lose the second
        block. The smaller tiles are better off without: measured, the hint costs 3 to 8 % of the FMA share there.
        """
        return 2 if self.thread_rows * self.thread_columns == 64 else 0

    @property
    def name(self) -> str:
        """Short name for tables, e.g. ``64x64_8x4``."""
        return f"{self.rows}x{self.columns}_{self.thread_rows}x{self.thread_columns}"


SMALL = Tile(8, 8, 2, 2)
"""16 threads: for the simulator, where a thread costs a quarter of a millisecond."""

TILES = {
    tile.name: tile
    for tile in (
        Tile(128, 128, 8, 8, 8),
        Tile(64, 64, 8, 4, 16),
        Tile(64, 64, 4, 4, 16),
        Tile(32, 32, 4, 4, 32, slices=4),
        SMALL,
    )
}
"""What `launch` chooses from."""


def log2(n: int) -> int:
    """Return the exponent of a power of two."""
    if n < 1 or n & (n - 1):
        raise ValueError(f"got {n}, expected a power of two")
    return n.bit_length() - 1


class Loader(NamedTuple):
    """How an operand is read: which row of memory, then four elements of it."""

    locate: Any
    """``locate(source, row)``: where the row starts; hoisted out of the loop over k where the row stays the same."""
    load: Any
    """``load(source, start, column)``: four elements from there."""


@device
def _locate_dense(source, row):
    array, offset, ld = source
    return i32(offset + row * ld)


@device
def _load_dense(source, start, column):
    array, offset, ld = source
    return ldg4(array, i32(start + column))


DENSE = Loader(_locate_dense, _load_dense)
"""A matrix of the compute dtype: `source` is (array, offset, leading dimension)."""


@cache
def row_loader(dt: Any, of_bytes: bool, by_column: bool) -> Loader:
    """Return the loader of a data set's rows in the order of the permutation, converted and scaled on the way.

    `source` is (data, order, start, shift, scale, factor, leading dimension); the batch's row i is row
    ``order[start + i]`` of the data. With `by_column`, (x - shift[column]) * scale[column], else x * factor.
    """
    load4 = ldb4 if of_bytes else ldg4

    @device
    def locate(source, row):
        data, order, start, shift, scale, factor, ld = source
        return i32(ldg1(order, i32(start + row)) * ld)

    @device
    def load(source, at, column):
        data, order, start, shift, scale, factor, ld = source
        x = load4(data, i32(at + column))
        x0, x1, x2, x3 = dt(x[0]), dt(x[1]), dt(x[2]), dt(x[3])
        if by_column:
            u, s = ldg4(shift, column), ldg4(scale, column)
            return (x0 - u[0]) * s[0], (x1 - u[1]) * s[1], (x2 - u[2]) * s[2], (x3 - u[3]) * s[3]
        return x0 * factor, x1 * factor, x2 * factor, x3 * factor

    return Loader(locate, load)


@dataclass(frozen=True)
class _Stage:
    """How one operand gets from global to shared memory."""

    locate: Any
    fetch: Any
    put: Any
    loads: int
    stride: int


def _stage(tile: Tile, dt: Any, extent: int, loader: Loader, *, by_row: bool, clear: bool) -> _Stage:
    """Build fetch (global -> registers) and put (registers -> shared) of one operand.

    `extent` is the operand's size along the tile. Past the end of k, the operand with `clear` gives zeros, so that
    whatever its partner holds there does not count; rows past the matrix repeat the last one and are not stored.
    """
    threads, zero = tile.threads, dt(0)
    loads = extent * tile.depth // (4 * threads)
    stride = extent + 4 if by_row else extent
    bits = log2(extent)
    locate_row, load = loader
    if loads * 4 * threads != extent * tile.depth:
        raise ValueError(f"{tile.name}: {threads} threads do not divide a slab of {extent} x {tile.depth}")

    @device
    def place(t, q):
        """Return (along the tile, along k) of the q-th group of four of thread t."""
        i = i32(t + q * threads)
        if by_row:
            return i32((i >> 1) & (extent - 1)), i32(((i >> (bits + 1)) << 3) + ((i & 1) << 2))
        return i32((i & (extent // 4 - 1)) << 2), i32(i >> (bits - 2))

    @device
    def locate(source, t, origin, limit, starts):
        """Find the rows of memory that the thread will read in every slab."""
        if by_row:
            for q in range(loads):
                along, _ = place(t, q)
                starts[q] = locate_row(source, min(i32(origin + along), i32(limit - 1)))

    @device
    def fetch(source, t, origin, ld, k, k_end, starts, registers):
        for q in range(loads):
            along, deep = place(t, q)
            deep = i32(k + deep)
            if clear:
                registers[4 * q] = registers[4 * q + 1] = registers[4 * q + 2] = registers[4 * q + 3] = zero
            if not clear or deep < k_end:
                if by_row:
                    v = load(source, starts[q], deep if clear else min(deep, i32(ld - 4)))
                else:
                    start = locate_row(source, deep if clear else min(deep, i32(k_end - 1)))
                    v = load(source, start, min(i32(origin + along), i32(ld - 4)))
                registers[4 * q] = v[0]
                registers[4 * q + 1] = v[1]
                registers[4 * q + 2] = v[2]
                registers[4 * q + 3] = v[3]

    @device
    def put(shared, base, t, registers):
        for q in range(loads):
            along, deep = place(t, q)
            o = i32(base + deep * stride + along)
            if by_row:
                st1(shared, o, registers[4 * q])
                st1(shared, i32(o + stride), registers[4 * q + 1])
                st1(shared, i32(o + 2 * stride), registers[4 * q + 2])
                st1(shared, i32(o + 3 * stride), registers[4 * q + 3])
            else:
                st4(
                    shared,
                    o,
                    registers[4 * q],
                    registers[4 * q + 1],
                    registers[4 * q + 2],
                    registers[4 * q + 3],
                )

    return _Stage(locate, fetch, put, loads, stride)


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
def multiply(
    tile: Tile, dt: Any, loader_a: Loader, loader_b: Loader, a_by_row: bool, b_by_row: bool
) -> Multiply:
    """Build the multiply of one tile shape, dtype and pair of operands."""
    size_m, size_n = tile.thread_rows, tile.thread_columns
    width_m, width_n = min(4, size_m), min(4, size_n)
    across, down = tile.columns // size_n, tile.rows // size_m
    gap_m, gap_n = width_m * down, width_n * across
    group, slices, zero = tile.group, tile.slices, dt(0)
    a = _stage(tile, dt, tile.rows, loader_a, by_row=a_by_row, clear=True)
    b = _stage(tile, dt, tile.columns, loader_b, by_row=b_by_row, clear=False)
    slab_a, slab_b = tile.depth * a.stride, tile.depth * b.stride
    base_b = 2 * slab_a
    stride_a, stride_b = a.stride, b.stride
    size = max(base_b + 2 * slab_b, (slices - 1) * tile.rows * tile.columns, down * tile.columns)
    accumulators, partial = size_m * size_n, tile.rows * tile.columns
    registers_a, registers_b = 4 * a.loads, 4 * b.loads
    loads_a, loads_b, locate_a, locate_b = a.loads, b.loads, a.locate, b.locate
    fetch_a, fetch_b, put_a, put_b = a.fetch, b.fetch, a.put, b.put
    per_slice = tile.depth // slices
    twice = per_slice == 16
    if per_slice not in (8, 16):
        raise ValueError(f"{tile.name}: got {per_slice} steps a slice, expected 8 or 16")
    load_m, load_n = vector(width_m)[0], vector(width_n)[0]
    # A warp covers a patch of lanes_x x lanes_y threads, so that its shared loads touch few different addresses.
    lanes_x = min(8, across)
    warps_x = across // lanes_x
    group_bits, lane_bits, warp_bits = log2(group), log2(lanes_x), log2(warps_x)
    lanes_y = max(1, 32 // lanes_x)

    @device
    def coordinates(t):
        u = i32(t & (group - 1))
        lane, warp = i32(u & 31), i32(u >> 5)
        tx = i32((warp & (warps_x - 1)) * lanes_x + (lane & (lanes_x - 1)))
        ty = i32((warp >> warp_bits) * lanes_y + (lane >> lane_bits))
        return i32(t >> group_bits), tx, ty

    @device
    def step(shared, at_a, at_b, acc):
        """One k: the outer product of a column of the A slab and a row of the B slab."""
        x = cuda.local.array(size_m, dt)
        y = cuda.local.array(size_n, dt)
        for g in range(size_m // width_m):
            load_m(shared, i32(at_a + g * gap_m), x, width_m * g)
        for g in range(size_n // width_n):
            load_n(shared, i32(at_b + g * gap_n), y, width_n * g)
        for i in range(size_m):
            for j in range(size_n):
                acc[i * size_n + j] += x[i] * y[j]

    @device
    def eight_steps(shared, at_a, at_b, acc):
        step(shared, at_a, at_b, acc)
        step(shared, i32(at_a + stride_a), i32(at_b + stride_b), acc)
        step(shared, i32(at_a + 2 * stride_a), i32(at_b + 2 * stride_b), acc)
        step(shared, i32(at_a + 3 * stride_a), i32(at_b + 3 * stride_b), acc)
        step(shared, i32(at_a + 4 * stride_a), i32(at_b + 4 * stride_b), acc)
        step(shared, i32(at_a + 5 * stride_a), i32(at_b + 5 * stride_b), acc)
        step(shared, i32(at_a + 6 * stride_a), i32(at_b + 6 * stride_b), acc)
        step(shared, i32(at_a + 7 * stride_a), i32(at_b + 7 * stride_b), acc)

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
        starts_a = cuda.local.array(loads_a, int32)
        starts_b = cuda.local.array(loads_b, int32)
        t = thread()
        locate_a(a, t, m0, m, starts_a)
        locate_b(b, t, n0, n, starts_b)
        part, tx, ty = coordinates(t)
        at_a = i32(part * (per_slice * stride_a) + ty * width_m)
        at_b = i32(base_b + part * (per_slice * stride_b) + tx * width_n)
        for i in range(accumulators):
            acc[i] = zero
        fetch_a(a, t, m0, lda, k, k_end, starts_a, next_a)
        fetch_b(b, t, n0, ldb, k, k_end, starts_b, next_b)
        put_a(shared, i32(0), t, next_a)
        put_b(shared, i32(base_b), t, next_b)
        sync()
        turn = i32(0)
        while k < k_end:
            k = i32(k + depth)
            if k < k_end:
                fetch_a(a, t, m0, lda, k, k_end, starts_a, next_a)
                fetch_b(b, t, n0, ldb, k, k_end, starts_b, next_b)
            from_a, from_b = i32(at_a + turn * slab_a), i32(at_b + turn * slab_b)
            eight_steps(shared, from_a, from_b, acc)
            if twice:
                eight_steps(shared, i32(from_a + 8 * stride_a), i32(from_b + 8 * stride_b), acc)
            turn = i32(1 - turn)
            if k < k_end:
                put_a(shared, i32(turn * slab_a), t, next_a)
                put_b(shared, i32(base_b + turn * slab_b), t, next_b)
            sync()
        if slices > 1:
            add_slices(shared, acc, part, i32(t & (group - 1)))

    depth = tile.depth
    return Multiply(tile, size, run, coordinates, accumulators)


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
    places = [
        (i * size_n + g * width_n, g * width_n, i // width_m * gap_m + i % width_m, g * gap_n)
        for g in range(size_n // width_n)
        for i in range(size_m)
    ]
    visit_all = device(_nothing)
    for at, j, down, right in reversed(places):
        visit_all = _visit_then(visit, at, j, down, right, visit_all)

    @device
    def walk(acc, tx, ty, m0, n0, n_rows, ld, context):
        visit_all(acc, i32(m0 + ty * width_m), i32(n0 + tx * width_n), n_rows, ld, context)

    return walk


def _nothing(acc, m, n, n_rows, ld, context):  # type: ignore[no-untyped-def]
    pass


def _visit_then(visit: Any, at: int, j: int, down: int, right: int, rest: Any) -> Any:
    """Return one visit followed by the rest.

    A chain of inlined functions instead of a loop: the compiler unrolls a loop only as long as its body is small, and
    an accumulator whose index is not a constant goes to local memory (measured with tanh in a 128x128 tile).
    """

    @device
    def visit_then(acc, m, n, n_rows, ld, context):
        if i32(m + down) < n_rows and i32(n + right) < ld:
            visit(acc, at, j, i32(m + down), i32(n + right), context)
        rest(acc, m, n, n_rows, ld, context)

    return visit_then
