"""Rows of bytes, taken a whole sector of memory at a time, for tiles whose slabs are less deep than a sector.

::

                   a sector of a row, 32 k                the next
                 +-------------------+-------------------+----
    2 lanes      | 0   4    8   12   | 16   20   24  28  | 32        a lane holds 4 words of 4 bytes each
    4 lanes      | 0   4  | 8   12   | 16   20 | 24  28  | 32        or 2
                 +-------------------+-------------------+----

    slabs of     128x128, 8 k            64x64 with 8x4, 16 k                     64x64 with 4x4, 16 k
    turn 1       0-3 16-19 | 4-7 20-23   0-3 16-19  4-7 20-23 | 8-11 24-27 ...    0-3 8-11 16-19 24-27 | 4-7 12-15 ...
    turn 2       8-11 ...  | 12-15 ...   the next sector                          the next sector

Memory moves in sectors of 32 bytes, and a slab of these tiles holds 8 or 16 k. Loading slab by slab requested each
sector of a row of bytes four times or twice (counted: up to 1.56 times the sectors that x and W need together); here it
is requested once. A warp loads whole sectors, 16 or 8 bytes a thread, and keeps the bytes unconverted. For each slab a
thread converts and stores its next word or two, so that no thread needs another's bytes. That takes k out of order; the
product is the same as long as the rows of B are fetched in the same order. A thread stores at the same places in the
slab as it does slab by slab (`staging`).

A turn of the loop takes two slabs, one in each half of shared memory, at addresses that do not change. So the loop has
fewer address computations than the one in `tile`, and a larger share of multiply-adds: 79 to 88 %, against 75 to 86
slab by slab (by column 75 to 86, against 71 to 84).

The last sector comes first. It may end before its 32 k, and if its row ends before the sector's middle, the row may
have only 16 bytes of it (`shapes.row_pitch`). Then neighbouring lanes load the same bytes and take half of them each,
which makes half as many slabs; if that is one slab, the first turn begins in its middle. All other sectors are whole,
so that the loop checks no bound of A. Between the end of k and the end of the row, data, shift and scale are zero.

If every column has its own shift and scale, they are loaded when a word is converted: kept in registers, they would
take 8 for each word.

Budget: no launch, no shared memory; registers as `tile` says.
"""

from __future__ import annotations

from typing import Any

from gpuprop_kernels.fused_step import EightSteps
from gpuprop_kernels.shapes import Tile, log2
from gpuprop_kernels.staging import Loader, Stage
from gpuprop_kernels.target import bytes4, cuda, device, i32, sync, thread, uint32, words

__all__ = ["APART", "run_by_sectors", "takes_sectors"]

SECTOR = 32

APART = 4
"""How far apart along k a thread's groups of four are in memory: its words are neighbours there."""


def takes_sectors(tile: Tile, loader: Loader) -> bool:
    """Return whether this tile takes whole sectors: its slab must be less deep than one, and belong to one slice."""
    return loader.convert is not None and tile.slices == 1 and tile.k_depth < SECTOR


def run_by_sectors(tile: Tile, dt: Any, lanes: int, loader: Loader, a: Stage, b: Stage, steps: EightSteps) -> Any:
    """Build `run` of `tile.Multiply` for rows of bytes; `lanes` neighbouring threads load each row."""
    n_words, taken, registers_b, zero = SECTOR // 4 // lanes, a.loads, 4 * b.loads, dt(0)
    load_words, lane_bits, lanes_bits = words(n_words), log2(SECTOR // lanes), log2(lanes)
    place_a, place_b, anchor_a, anchor_b = a.place, b.place, a.anchor, b.anchor
    spot_a, spot_b = a.spot, b.spot
    put_elements, fetch_b, put_b = a.put, b.fetch, b.put
    convert, scaled, factor = loader.convert, loader.factor is not None, loader.factor
    stride_a, stride_b, accumulators = a.stride, b.stride, tile.thread_rows * tile.thread_columns
    places, eight_steps = steps.places, steps.multiply
    # Shared memory as in `tile`: the slabs of A and those of B, then all of them for the other slab of a turn.
    base_b, other = tile.planes * tile.depth * stride_a, tile.planes * tile.depth * (stride_a + stride_b)
    depth, turn, twice, elements_taken = tile.k_depth, 2 * tile.k_depth, tile.depth == 16, 4 * taken
    paired = tile.precision == "bf16"

    @device
    def put_a(shared, at, held, first, source, column):
        elements = cuda.local.array(elements_taken, dt)
        for q in range(taken):
            x = convert(source, bytes4(held[first + q]), i32(column + q * APART))
            elements[4 * q] = x[0]
            elements[4 * q + 1] = x[1]
            elements[4 * q + 2] = x[2]
            elements[4 * q + 3] = x[3]
        put_elements(shared, at, elements)

    @device
    def multiply_slab(shared, from_a, from_b, acc):
        eight_steps(shared, from_a, from_b, acc)
        if twice:
            eight_steps(shared, i32(from_a + 8 * stride_a), i32(from_b + 8 * stride_b), acc)

    @device
    def load_last(source, anchored, lane, last, half, held):
        """Load the lane's bytes of the last sector, or of its first half if the row has no more."""
        load_words(source[0], i32(anchored + last + ((lane >> 1 if half else lane) << lane_bits)), held)
        if half and lane & 1:
            for w in range(n_words // 2):
                held[w] = held[w + n_words // 2]

    @device
    def run(shared, acc, a, lda, b, ldb, m0, n0, m, n, k, k_end):
        held = cuda.local.array(n_words, uint32)
        next_b = cuda.local.array(registers_b, dt)
        t = thread()
        along_a, slot_a, deep_a = place_a(t)
        along_b, slot_b, deep_b = place_b(t)
        _part, from_a, from_b = places(t, base_b)
        to_a, to_b = i32(spot_a(slot_a, along_a)), i32(base_b + spot_b(slot_b, along_b))
        at_a, at_b = anchor_a(a, along_a, m0, m, lda), anchor_b(b, along_b, n0, n, ldb)
        for i in range(accumulators):
            acc[i] = zero
        last = i32((k_end - 1) & ~(SECTOR - 1))
        half = k_end - last <= SECTOR // 2
        # By staging's counting a lane has 4 k of the slab, and every fourth row of B's slab begins another lane's.
        lane, lane_b, within_b = i32(deep_a >> 2), i32(deep_b >> 2), i32(deep_b & 3)
        if paired:  # B's rows are those of all groups of four that a lane of A puts into the slab
            lane_b, within_b = i32(lane_b & (lanes - 1)), i32(within_b + APART * (lane_b >> lanes_bits))
        whole_a, whole_b = i32(lane << lane_bits), i32((lane_b << lane_bits) + within_b)
        deep_a = i32(last + (i32(lane << (lane_bits - 1)) if half else whole_a))
        deep_b = i32(last + (i32((lane_b << (lane_bits - 1)) + within_b) if half else whole_b))
        load_last(a, at_a, lane, last, half, held)
        at_a = i32(at_a + whole_a)
        # The slabs of the last sector are those before k = 0.
        k = i32(-SECTOR // 2 if half else -SECTOR)
        start = i32(other if k & depth else 0)
        fetch_b(b, at_b, deep_b, ldb, k_end, next_b)
        put_a(shared, i32(to_a + start), held, 0, a, deep_a)
        put_b(shared, i32(to_b + start), next_b)
        sync()
        # This is always 0, which the compiler does not know. An address that may change in each turn stays in a
        # register. Of other addresses, most assemblers compute the part that depends on the thread again, twice a turn
        # (measured: 5 % of the loop).
        nothing = i32(k_end >> 31)
        while k < last:
            if not k & depth:
                fetch_b(b, at_b, i32(deep_b + APART * taken), ldb, k_end, next_b)
                multiply_slab(shared, from_a, from_b, acc)
                put_a(shared, i32(to_a + other), held, taken, a, i32(deep_a + APART * taken))
                put_b(shared, i32(to_b + other), next_b)
                sync()
            k = i32((k + turn) & -turn)
            if k < last:
                if k & (SECTOR - 1):
                    for w in range(n_words - 2 * taken):
                        held[w] = held[w + 2 * taken]
                    deep_a, deep_b = i32(deep_a + 2 * APART * taken), i32(deep_b + 2 * APART * taken)
                else:
                    at = i32(at_a + k)
                    load_words(a[0], at, held)
                    # A row begins with a sector, so that this is the lane's place again: one register less to keep.
                    deep_a, deep_b = i32((at & (SECTOR - 1)) + k), i32(whole_b + k)
                fetch_b(b, at_b, deep_b, ldb, k_end, next_b)
            multiply_slab(shared, i32(from_a + other), i32(from_b + other), acc)
            if k < last:
                put_a(shared, to_a, held, 0, a, deep_a)
                put_b(shared, to_b, next_b)
            sync()
            from_a, from_b = i32(from_a + nothing), i32(from_b + nothing)
            to_a, to_b = i32(to_a + nothing), i32(to_b + nothing)
        if scaled:
            f = factor(a)
            for i in range(accumulators):
                acc[i] *= f

    return run
