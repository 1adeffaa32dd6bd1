"""How an operand of a multiply gets from global memory through registers into shared memory.

::

    global memory                     registers                shared memory, k-major
    by_k:    row k:  x x x x ...      4 neighbours a load      row k:   x x x x ...        one 128-bit store
    by_row:  row m:  x x x x ...      4 neighbours along k     column m of 4 rows k        four 32-bit stores

    by_row, bytes, 4 lanes a row:     k   0 1 2 3 | 4 5 6 7 | 8 9 ...     lane 0 | lane 1 | ...
                                 row of the slab  0 4 8 12 | 1 5 9 13 | 2 6 ...

Budget: no launch; 4 registers for each group in flight, two slabs of shared memory an operand (`tile`); each element of
an operand crosses from global to shared memory once for each tile that needs it.

A slab is fetched while the one before it is multiplied, so that many instructions lie between a fetch and its store.
For ``by_row`` a warp takes 16 rows x 8 k: whole 32-byte sectors of global memory, and, with rows of shared memory
padded by 4, 32 different banks. A `Loader` says where four elements come from: from a matrix, or from rows of the data
set, which the permutation chooses and which are converted from uint8 and scaled.

A sector of bytes is 32 k of a row, and a warp takes as much of it as the tile's slab is deep: 4 rows x 32 k for 32x32,
8 rows x 16 k for 64x64 with 4x4. The four bytes of a lane then lie apart in the slab (drawing), so that its stores
again meet 32 banks. The other operand is fetched in the same order of k, so the product does not change. Larger tiles
take rows of bytes another way (`sectors`).
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from gpuprop_kernels.shapes import Tile, log2
from gpuprop_kernels.target import device, i32, ldb4, ldg1, ldg4, st1, st4

__all__ = ["DENSE", "Loader", "Stage", "lanes_of_row", "row_loader", "stage"]


class Loader(NamedTuple):
    """How an operand is read: which row of memory, then four elements of it."""

    base: Any
    """``base(source)``: where row 0 starts; it is added once, outside of the loop over k."""
    locate: Any
    """``locate(source, row)``: where the row starts, counted from row 0; also hoisted where the row stays the same."""
    load: Any
    """``load(source, start, column)``: four elements from there."""
    raw: Any
    """`load` without `factor`."""
    lanes: int = 2
    """The most neighbouring threads that load four elements each of one row; so many cover a sector of the row."""
    convert: Any = None
    """``convert(source, four, column)``: elements from four bytes as they lie in ``source[0]``, so that a thread may
    keep bytes as words for a while. It is None if the elements do not come from bytes."""
    factor: Any = None
    """``factor(source)``: what all elements share. A product takes `raw` and multiplies its results by it: once each,
    where an element is loaded once for every tile (measured: 1 % more of the inner loop is FMA)."""


@device
def _base_dense(source):
    _array, offset, _ld = source
    return offset


@device
def _locate_dense(source, row):
    _array, _offset, ld = source
    return i32(row * ld)


@device
def _load_dense(source, start, column):
    array, _offset, _ld = source
    return ldg4(array, i32(start + column))


DENSE = Loader(_base_dense, _locate_dense, _load_dense, _load_dense)
"""A matrix of the compute dtype: `source` is (array, offset, leading dimension)."""


@cache
def row_loader(dt: Any, of_bytes: bool, by_column: bool) -> Loader:
    """Return the loader of a data set's rows in the order of the permutation, converted and scaled on the way.

    `source` is (data, order, start, shift, scale, factor, leading dimension); the batch's row i is row
    ``order[start + i]`` of the data. With `by_column`, (x - shift[column]) * scale[column], else x * factor.
    """
    load4, lanes = (ldb4, 8) if of_bytes else (ldg4, 2)

    @device
    def base(source):
        return i32(0)

    @device
    def locate(source, row):
        _data, order, start, _shift, _scale, _factor, ld = source
        return i32(ldg1(order, i32(start + row)) * ld)

    @device
    def convert(source, x, column):
        _data, _order, _start, shift, scale, _factor, _ld = source
        x0, x1, x2, x3 = dt(x[0]), dt(x[1]), dt(x[2]), dt(x[3])
        if by_column:
            u, s = ldg4(shift, column), ldg4(scale, column)
            return (x0 - u[0]) * s[0], (x1 - u[1]) * s[1], (x2 - u[2]) * s[2], (x3 - u[3]) * s[3]
        return x0, x1, x2, x3

    @device
    def raw(source, at, column):
        return convert(source, load4(source[0], i32(at + column)), column)

    @device
    def factor(source):
        _data, _order, _start, _shift, _scale, factor, _ld = source
        return factor

    @device
    def load(source, at, column):
        x, f = raw(source, at, column), factor(source)
        return x[0] * f, x[1] * f, x[2] * f, x[3] * f

    kept = convert if of_bytes else None
    if by_column:
        return Loader(base, locate, raw, raw, lanes, kept)
    return Loader(base, locate, load, raw, lanes, kept, factor)


class Stage(NamedTuple):
    """How one operand gets from global to shared memory."""

    place: Any
    """``place(t) -> (along, slot, deep)``: the first group of four of thread t: along the tile, its row of the slab
    and its k."""
    spot: Any
    """``spot(slot, along)``: where in the slab that is."""
    anchor: Any
    """``anchor(source, along, origin, limit, ld)``: the part of the address in memory that no step along k changes."""
    fetch: Any
    """``fetch(source, anchor, deep, ld, k_end, registers)``"""
    put: Any
    """``put(shared, at, registers)``"""
    loads: int
    stride: int


def lanes_of_row(tile: Tile, loader: Loader) -> int:
    """Return how many neighbouring threads load one row of an operand that is stored by rows."""
    lanes = min(loader.lanes, tile.threads // tile.rows, tile.depth // 4)
    return 2 if lanes == 4 and tile.precision != "float32" else lanes


def stage(
    tile: Tile, dt: Any, extent: int, loader: Loader, *, by_row: bool, clear: bool, lanes: int, apart_in_memory: int = 0
) -> Stage:
    """Build fetch (global -> registers) and put (registers -> shared) of one operand.

    `extent` is the operand's size along the tile. Past the end of k, the operand with `clear` gives zeros, so that
    whatever its partner holds there does not count; rows past the matrix repeat the last one and are not stored.
    With more than 2 `lanes`, those that load a row of A, each group of 4 * `lanes` k lies in the slab in another order.
    A thread's groups of four lie as far apart along k in memory as in the slab, or `apart_in_memory`.
    """
    threads, zero = tile.threads, dt(0)
    loads = extent * tile.depth // (4 * threads)
    spread = lanes if lanes > 2 else 1
    stride = extent + (4 if spread == 1 else 32 // lanes) if by_row else extent
    bits, lane_bits, spread_bits, group = log2(extent), log2(lanes), log2(spread), 4 * spread
    # A thread's groups of four lie at one place along the tile, so far apart along k.
    apart = 4 * threads // extent
    step = apart_in_memory or apart
    base, locate_row, load = loader.base, loader.locate, loader.raw
    if loads * 4 * threads != extent * tile.depth or apart % (4 * lanes if by_row else group):
        raise ValueError(f"{tile.name}: {threads} threads do not divide a slab of {extent} x {tile.depth}")

    @device
    def place(t):
        if by_row:
            lane, first = i32(t & (lanes - 1)), i32((t >> (bits + lane_bits)) << (lane_bits + 2))
            deep = i32(first + (lane << 2))
            return i32((t >> lane_bits) & (extent - 1)), i32(first + lane) if spread > 1 else deep, deep
        slot = i32(t >> (bits - 2))
        within = i32(slot & (group - 1))
        deep = i32(slot - within + ((within & (spread - 1)) << 2) + (within >> spread_bits)) if spread > 1 else slot
        return i32((t & (extent // 4 - 1)) << 2), slot, deep

    @device
    def spot(slot, along):
        return i32(slot * stride + along)

    @device
    def anchor(source, along, origin, limit, ld):
        if by_row:
            return i32(base(source) + locate_row(source, min(i32(origin + along), i32(limit - 1))))
        return i32(base(source) + min(i32(origin + along), i32(ld - 4)))

    @device
    def fetch(source, anchored, deep, ld, k_end, registers):
        for q in range(loads):
            at = i32(deep + q * step)
            if clear:
                registers[4 * q] = registers[4 * q + 1] = registers[4 * q + 2] = registers[4 * q + 3] = zero
            if not clear or at < k_end:
                if by_row:
                    v = load(source, anchored, at if clear else min(at, i32(ld - 4)))
                else:
                    v = load(source, locate_row(source, at if clear else min(at, i32(k_end - 1))), anchored)
                registers[4 * q] = v[0]
                registers[4 * q + 1] = v[1]
                registers[4 * q + 2] = v[2]
                registers[4 * q + 3] = v[3]

    @device
    def put(shared, at, registers):
        for q in range(loads):
            o = i32(at + q * apart * stride)
            if by_row:
                st1(shared, o, registers[4 * q])
                st1(shared, i32(o + spread * stride), registers[4 * q + 1])
                st1(shared, i32(o + 2 * spread * stride), registers[4 * q + 2])
                st1(shared, i32(o + 3 * spread * stride), registers[4 * q + 3])
            else:
                st4(shared, o, registers[4 * q], registers[4 * q + 1], registers[4 * q + 2], registers[4 * q + 3])

    return Stage(place, spot, anchor, fetch, put, loads, stride)
