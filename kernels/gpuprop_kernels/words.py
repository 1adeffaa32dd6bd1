"""What lies in the slabs of shared memory for tensor cores: float32 rounded, split or packed on the way there.

::

    precision   a word of 32 bits                     slabs of an operand      k of eight words
    tf32        a number rounded to tf32              1                        8
    tf32x3      hi = tf32(x), and lo = x - hi         2, hi before lo          8
    bf16        bf16(x[k]), bf16(x[k + 1])            1                        16

Elements are converted when they are stored, once for each tile that needs them, and not when a warp reads its
fragments: each element would then be converted by two or four warps. Fetching is that of `staging`: so every source of
rows, and dropout on the input, serve tensor cores too. Copies that bypass registers (``cp.async``) cannot convert.

A fragment (`tensor_step`) must come in one load, in the order of its registers. Two words along k, w and w', and two
neighbours along the tile thus lie together, as four words::

    A   (r, w)  (r + 1, w)  (r, w')  (r + 1, w')            r, c even; a row of the slab holds those of all rows or
    B   (c, w)  (c, w')  (c + 1, w)  (c + 1, w')            columns: first r = 0, 4, 8, ..., then `half` further
        in odd rows of the slab (c + 1, ..) comes first     r = 2, 6, 10, ...

w' is four k behind w. Which k a row of the slab holds, how far apart rows and halves are, and which threads take which
group of four elements, is chosen so that 32 lanes meet 32 banks when they store and when they load. An operand stored
by rows has four neighbouring k in a thread, one stored by k four rows or columns; in bfloat16 the latter fetches two k.

Budget: no launch; two or three instructions for each element stored (bf16: half of one); tf32x3 doubles shared memory.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from gpuprop_kernels.shapes import Tile, log2
from gpuprop_kernels.staging import Loader, Stage, stage
from gpuprop_kernels.target import cuda, device, float32, high_tf32, i32, pack_bf16, round_tf32, st1, st2

__all__ = ["Layout", "layout", "staged_words"]


class Layout(NamedTuple):
    """Where the words of an operand lie in its slab."""

    row: int
    """Words from one row of the slab, which holds two words along k, to the next."""
    half: int
    """Words from the rows or columns 0, 1, 4, 5, ... to 2, 3, 6, 7, ..."""


def layout(extent: int, *, of_a: bool, lanes: int) -> Layout:
    """Return the layout of an operand that has `extent` rows or columns in the tile."""
    half = _at_least(extent, 4 if lanes == 8 and of_a else 16)
    return Layout(_at_least(half + extent, 8 if of_a else 4), half)


def _at_least(n: int, bank: int) -> int:
    """Return the least number from n on with this remainder by 32."""
    return n + (bank - n) % 32


def staged_words(
    tile: Tile, extent: int, loader: Loader, *, by_row: bool, clear: bool, lanes: int, apart_in_memory: int = 0
) -> Stage:
    """Build fetch and put of one operand for the tile's precision; the parameters are those of `staging.stage`."""
    if lanes not in (2, 8):
        raise ValueError(f"{tile.name}: got {lanes} threads a row, expected 2 or 8")
    elements = stage(
        replace(tile, depth=tile.k_depth), float32, extent, loader,
        by_row=by_row, clear=clear, lanes=lanes, apart_in_memory=apart_in_memory,
    )  # fmt: skip
    where = layout(extent, of_a=clear, lanes=lanes)
    if by_row:
        staged = _by_row(tile, elements, where, clear, lanes)
    else:
        staged = _by_k(tile, extent, loader, elements, where, clear, lanes, apart_in_memory)
    return staged._replace(spot=device(lambda at, along: at), stride=where.row // 2)


@cache
def _convert(precision: str) -> tuple[Any, Any]:
    """Return ``high(x, y)`` and ``low(x, y, high)``: what becomes of an element, or of two neighbours along k."""
    if precision == "bf16":
        return pack_bf16, None
    if precision == "tf32":
        return device(lambda x, y: round_tf32(x)), None
    return device(lambda x, y: high_tf32(x)), device(lambda x, y, high: x - high)


def _put(tile: Tile, where: Layout, gather: Any, store: Any, n_words: int) -> Any:
    """Return ``put`` of words made of ``gather(registers, w) -> (x, y)``, stored by ``store(shared, at, words)``."""
    high, low = _convert(tile.precision)
    split, low_at = tile.precision == "tf32x3", tile.depth // 2 * where.row

    @device
    def put(shared, at, registers):
        words = cuda.local.array(n_words, float32)
        for w in range(n_words):
            x, y = gather(registers, w)
            words[w] = high(x, y)
        store(shared, at, words)
        if split:
            for w in range(n_words):
                x, y = gather(registers, w)
                words[w] = low(x, y, words[w])
            store(shared, i32(at + low_at), words)

    return put


def _by_row(tile: Tile, elements: Stage, where: Layout, of_a: bool, lanes: int) -> Stage:
    """Return how an operand is staged of which a thread has four neighbouring k of one row (of A) or column (of B)."""
    row, half = where
    pack = tile.k_depth // tile.depth
    per_group, loads, place_elements = 4 // pack, elements.loads, elements.place
    apart = tile.k_depth // loads // (2 * pack)
    next_word = 1 if lanes == 2 else 4  # rows of the slab to the thread's next word
    wide = lanes == 8
    group_bits = 5 if wide else 3

    @device
    def place(t):
        along, _, deep = place_elements(t)
        # Of the thread's first word: its row of the slab, and whether it is w or w'.
        other = i32((deep >> 2) & 1)
        first = i32((deep >> group_bits) * per_group)
        if wide:
            first = i32(first * 4 + ((deep >> 3) & 3))
        at = i32(first * row + (along >> 2) * 4 + ((along >> 1) & 1) * half)
        return along, i32(at + (along & 1) + 2 * other if of_a else at + 2 * (along & 1) + other), deep

    @device
    def gather(registers, w):
        return registers[pack * w], registers[pack * w + pack - 1]

    @device
    def store(shared, at, words):
        for q in range(loads):
            for e in range(per_group):
                o = i32(at if of_a or not e & 1 else at ^ 2)
                st1(shared, i32(o + (q * apart + e * next_word) * row), words[q * per_group + e])

    return elements._replace(place=place, put=_put(tile, where, gather, store, loads * per_group))


def _by_k(
    tile: Tile, extent: int, loader: Loader, elements: Stage, where: Layout, of_a: bool, lanes: int, apart: int
) -> Stage:
    """Return how an operand is staged of which a thread has four neighbouring rows (A) or columns (B) of one k."""
    row, half = where
    pack = tile.k_depth // tile.depth
    per_group, zero = 4 // pack, float32(0)
    # A pass of all threads: so many groups of four side by side, eight of them next to each other in a warp.
    groups, beside = extent // 4, min(8, extent // 4)
    words = tile.threads // groups
    passes = tile.depth // words
    if passes * words != tile.depth or words % 8:
        raise ValueError(f"{tile.name}: {tile.threads} threads do not divide a slab of {extent} x {tile.depth} words")
    beside_bits, far_bits = log2(beside), log2(groups // beside)
    step = apart or words * pack
    locate_row, load, wide, low_bits = loader.locate, loader.raw, lanes == 8, log2(per_group)
    clear = of_a

    @device
    def place(t):
        # From the lowest bit of t on: neighbours along the tile, w or w', a bit of the slab's row, other neighbours.
        other, low = i32((t >> beside_bits) & 1), i32((t >> (beside_bits + 1)) & 1)
        rest = i32(t >> (beside_bits + 2))
        group = i32((t & (beside - 1)) + ((rest & ((1 << far_bits) - 1)) << beside_bits))
        j = i32(((rest >> far_bits) << 1) + low)
        if wide:
            deep = i32(((j & 3) << 3) + (((j >> 2) & (per_group - 1)) * pack) + ((j >> (2 + low_bits)) << 5))
        else:
            deep = i32(((j >> low_bits) << 3) + (j & (per_group - 1)) * pack)
        at = i32(j * row + 4 * group)
        return i32(4 * group), i32(at + 2 * other if of_a else at + 2 * (j & 1) + other), i32(deep + 4 * other)

    @device
    def fetch(source, anchored, deep, ld, k_end, registers):
        for q in range(pack * passes):
            at = i32(deep + q // pack * step + q % pack)
            if clear:
                registers[4 * q] = registers[4 * q + 1] = registers[4 * q + 2] = registers[4 * q + 3] = zero
            if not clear or at < k_end:
                v = load(source, locate_row(source, at if clear else min(at, i32(k_end - 1))), anchored)
                registers[4 * q] = v[0]
                registers[4 * q + 1] = v[1]
                registers[4 * q + 2] = v[2]
                registers[4 * q + 3] = v[3]

    @device
    def gather(registers, w):
        at = (w >> 2) * (4 * pack) + (w & 3)
        return registers[at], registers[at + 4 * pack - 4]

    @device
    def store(shared, at, held):
        for q in range(passes):
            o = i32(at + q * (words // 2) * row)
            if of_a:
                st2(shared, o, held[4 * q], held[4 * q + 1])
                st2(shared, i32(o + half), held[4 * q + 2], held[4 * q + 3])
            else:
                st1(shared, o, held[4 * q])
                st1(shared, i32(o ^ 2), held[4 * q + 1])
                st1(shared, i32(o + half), held[4 * q + 2])
                st1(shared, i32((o ^ 2) + half), held[4 * q + 3])

    put = _put(tile, where, gather, store, 4 * passes)
    return elements._replace(place=place, fetch=fetch, put=put, loads=pack * passes)
