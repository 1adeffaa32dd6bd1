"""Rows of bytes, taken a whole sector of memory at a time, for tiles whose slabs are less deep than a sector.

::

                    a sector of a row, 32 k              the next
                +----------------+----------------+----------------+---
    registers   |0   4   8   12  |16  20  24  28  |32              |       two lanes hold 4 words of 4 bytes each
                +----------------+----------------+----------------+---
    a slab of 8    k   0  1  2  3   16 17 18 19      lane 0 | lane 1       128x128: 4 slabs a sector
    the next       k   4  5  6  7   20 21 22 23
    a slab of 16   k   0  1  2  3   16 17 18 19   4  5  6  7   20 21 22 23      64x64 with 8x4: 2 slabs a sector

Memory moves in sectors of 32 bytes, and a slab of these tiles holds 8 or 16 k: loaded slab by slab, each sector of a
row of bytes was asked for four times or twice (counted: 1.56 and 1.53 times the sectors that x and W need together;
so, once). A thread loads 16 bytes, a warp the whole sectors of 16 rows, and keeps them as they came: in 4 registers,
as many as converted elements took or fewer. For each slab it converts and stores the next word or two of its own, so
that no thread needs another's bytes. That takes k out of order, which a product does not mind as long as the rows of B
are fetched in the same order. Where in the slab a thread stores is the same as without (`staging`).

The last sector comes first: it may end before its 32 k, and a row that ends before the sector's middle may have only
16 bytes of it (`shapes.row_pitch`). Then both lanes load the same 16 bytes and take 8 of them each. All other sectors
are whole, so that the loop checks no bound of A. What lies past the end of k, before the end of the row, is zero.

Only where a thread's share is 16 bytes. With 8 (64x64 with 4x4) the loop has half of the multiply-adds to hide the same
shifting of words: 74 % of it for sm_100 and sm_120, where 75 is the bound, to save a sixth of the sectors. Budget: no
launch, no shared memory, no register more.
"""

from __future__ import annotations

from typing import Any

from gpuprop_kernels.shapes import Tile, log2
from gpuprop_kernels.staging import Feed, Loader, Stage
from gpuprop_kernels.target import bytes4, cuda, device, i32, ldw4, uint32

__all__ = ["feed_by_sectors", "takes_sectors"]

SECTOR, WORDS = 32, 4
LANE_BITS = log2(4 * WORDS)


def takes_sectors(tile: Tile, loader: Loader) -> bool:
    """Return whether this tile takes whole sectors of such rows: two threads to a row, and less than 32 k in a slab."""
    return loader.bytes_only and tile.rows * SECTOR == tile.threads * 4 * WORDS and tile.depth < SECTOR


def feed_by_sectors(tile: Tile, dt: Any, a: Stage) -> Feed:
    """Return the feed whose slabs are parts of sectors, the last one's first."""
    taken, elements_taken, put_slab = a.loads, 4 * a.loads, a.put

    @device
    def load(source, at, words):
        loaded = ldw4(source[0], at)
        words[0] = loaded[0]
        words[1] = loaded[1]
        words[2] = loaded[2]
        words[3] = loaded[3]

    @device
    def begin(source, anchored, deep_a, deep_b, ld, k, k_end, words):
        last = i32((k_end - 1) & ~(SECTOR - 1))
        half = k_end - last <= SECTOR // 2
        # By staging's counting a lane has 4 k of the slab, and every fourth row of B's slab begins another lane's.
        # Uncast in between: of int32 the compiler would compute `whole_b` anew in every turn of the loop (measured).
        lane = i32(deep_a >> 2)
        whole_b = i32(((deep_b >> 2) << LANE_BITS) + (deep_b & 3))
        half_b = i32(((deep_b >> 2) << (LANE_BITS - 1)) + (deep_b & 3))
        load(source, i32(anchored + last + ((lane >> 1 if half else lane) << LANE_BITS)), words)
        if half and lane & 1:
            words[0] = words[2]
            words[1] = words[3]
        deep_a, deep_b = whole_b, i32(last + (half_b if half else whole_b))
        # The slabs of the last sector are those before k = 0.
        return i32(anchored + (lane << LANE_BITS)), deep_a, deep_b, i32(-SECTOR // 2 if half else -SECTOR), last

    @device
    def advance(source, anchored, deep_a, deep_b, ld, k, k_end, words):
        if k & (SECTOR - 1):
            deep_b = i32(deep_b + elements_taken)
        else:
            load(source, i32(anchored + k), words)
            deep_b = i32(deep_a + k)
        return deep_a, deep_b

    @device
    def put(shared, at, words):
        elements = cuda.local.array(elements_taken, dt)
        for q in range(taken):
            x = bytes4(words[q])
            elements[4 * q] = dt(x[0])
            elements[4 * q + 1] = dt(x[1])
            elements[4 * q + 2] = dt(x[2])
            elements[4 * q + 3] = dt(x[3])
        put_slab(shared, at, elements)
        for q in range(WORDS - taken):
            words[q] = words[q + taken]

    return Feed(begin, advance, put, WORDS, uint32)
