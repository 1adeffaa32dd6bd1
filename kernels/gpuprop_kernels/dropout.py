"""Dropout masks: Philox4x32-10, which gives the same bits as on the CPU.

::

    key     = (seed & 0xffffffff, seed >> 32)
    counter = (column >> 2, row, layer, step)          row = position in the update, step = updates done before
    words   = ten rounds of  (hi(M1 c2) ^ c1 ^ k0,  lo(M1 c2),  hi(M0 c0) ^ c3 ^ k1,  lo(M0 c0)),  keys += Weyl
    kept    = (words[column & 3] >> 8) < round(keep * 2**24)

A mask is never stored: the forward and the backward pass both compute it from the element's place. That costs about 60
integer instructions for four units, and saves one to four bytes of memory traffic each way. The generator has no state,
so any order of blocks and any split of the batch gives the same mask. Source: Salmon, Moraes, Dror, Shaw, "Parallel
random numbers: as easy as 1, 2, 3", SC 2011.

Budget: no launch; 4 words of registers for four units, 64 bits for all of a thread's, 32 bytes of constants a layer.

A kernel takes ``mask``, four int32 ``[key 0, key 1, layer, bound]`` for each network in device memory, and ``keep``,
four numbers of the compute dtype, ``[keep, 1 / keep, 0, 0]``, for each.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpuprop_kernels.networks import part_of
from gpuprop_kernels.shapes import Tile
from gpuprop_kernels.target import device, i32, ldg1, product32, u32, u64

__all__ = ["bit_is_set", "constants_of", "keep_word", "mask_constants", "philox", "tile_bits", "unit_is_kept"]


def mask_constants(
    rate: float, seed: int, layer: int, dtype: DTypeLike
) -> tuple[NDArray[np.int32], NDArray[np.generic]]:
    """Return the arrays ``mask`` and ``keep`` that the kernels take, for the share `rate` of units dropped."""
    keep = 1.0 - rate
    words = np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, layer, round(keep * 2**24)], dtype=np.uint32)
    return words.view(np.int32), np.array([keep, 1.0 / keep, 0, 0], dtype=dtype)


@device
def _round(c0, c1, c2, c3, k0, k1):
    h0, l0 = product32(u32(0xD2511F53), c0)
    h1, l1 = product32(u32(0xCD9E8D57), c2)
    return u32(h1 ^ c1 ^ k0), l1, u32(h0 ^ c3 ^ k1), l0


@device
def philox(c0, c1, c2, c3, k0, k1):
    """Return the four words for a counter and a key, all uint32."""
    for _ in range(10):
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, k0, k1)
        k0 = u32(k0 + u32(0x9E3779B9))
        k1 = u32(k1 + u32(0xBB67AE85))
    return c0, c1, c2, c3


@device
def keep_word(words, column):
    """Return the word of a column: ``words[column & 3]`` without an index that changes at run time."""
    place = i32(column & 3)
    even = words[0] if place == 0 else words[2]
    odd = words[1] if place == 1 else words[3]
    return odd if place & 1 else even


@device
def _constants(mask, at):
    """Return both keys, the layer and the bound, which begin at `at`."""
    return (
        u32(ldg1(mask, at)),
        u32(ldg1(mask, i32(at + 1))),
        u32(ldg1(mask, i32(at + 2))),
        u32(ldg1(mask, i32(at + 3))),
    )


@device
def constants_of(slots):
    """Return where the four constants of this block's network begin in `mask` and in `keep`."""
    return part_of(i32(4), slots)


@cache
def unit_is_kept(dropout: bool) -> Any:
    """Return ``kept(mask, at, row, column, step)``: whether dropout keeps the unit; always, without dropout."""
    if not dropout:
        return device(lambda mask, at, row, column, step: True)

    @device
    def kept(mask, at, row, column, step):
        key_0, key_1, layer, bound = _constants(mask, at)
        words = philox(u32(column >> 2), u32(row), layer, u32(step), key_0, key_1)
        return u32(keep_word(words, column) >> 8) < bound

    return kept


@cache
def tile_bits(tile: Tile) -> Any:
    """Return ``draw(mask, at, tx, ty, m0, n0, step) -> 64 bits``: whether each of a thread's results in a tile is kept.

    Bit ``at`` belongs to ``acc[at]`` (`tile.sweep`). The bits are drawn before the epilogue, in a loop that need not be
    unrolled: with 64 copies of the generator the compiler would not unroll the epilogue, and would move the
    accumulators to local memory. One call of the generator serves all the neighbours that it covers.
    """
    size_m, size_n = tile.thread_rows, tile.thread_columns
    width_m, width_n = min(4, size_m), min(4, size_n)
    gap_m, gap_n = width_m * (tile.rows // size_m), width_n * (tile.columns // size_n)
    groups = size_n // width_n

    @device
    def draw(mask, at, tx, ty, m0, n0, step):
        key_0, key_1, layer, bound = _constants(mask, at)
        bits = u64(0)
        for i in range(size_m):
            row = i32(m0 + ty * width_m + i32(i // width_m) * gap_m + i32(i % width_m))
            for g in range(groups):
                first = i32(n0 + tx * width_n + g * gap_n)
                words = philox(u32(first >> 2), u32(row), layer, u32(step), key_0, key_1)
                for e in range(width_n):
                    if u32(keep_word(words, i32(first + e)) >> 8) < bound:
                        bits = u64(bits | u64(u64(1) << u64(i * size_n + g * width_n + e)))
        return bits

    return draw


@device
def bit_is_set(bits, at):
    """Return bit `at` of the 64."""
    return u64(u64(bits >> u64(at)) & u64(1)) != u64(0)
