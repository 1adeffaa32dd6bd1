"""Eight words of k of a tile on tensor cores: a warp's products of 16 x 8 results, and which thread has which.

A word of a slab is 32 bits: a number of tf32, or two neighbouring k in bfloat16 (`words`). An instruction multiplies
16 rows x 8 words by 8 words x 8 columns. Lane 4 g + t of the warp hands in and gets::

                                       B  words 0-7 x columns 0-7
                                      +-----------------------------+     b0  word t,      column g
                                      | g                           |     b1  word t + 4,  column g
                                    t | b0                          |
                                  t+4 | b1                          |
          A  16 x 8 words             +-----------------------------+
         +-------------------+        +-----------------------------+     c0, c1  row g,      columns 2 t, 2 t + 1
       g | a0 t      a2 t+4  |        | 2t                          |     c2, c3  row g + 8,  columns 2 t, 2 t + 1
     g+8 | a1        a3      |      g | c0 c1                       |
         +-------------------+    g+8 | c2 c3                       |
                                      +-----------------------------+

Which rows and columns of the tile stand behind these numbers is free, and so is the order of k. They are chosen so that
a thread gets the results that it would have by fused multiply-adds (`fused_step`): groups of four neighbouring rows by
four neighbouring columns. So everything behind the multiply is the same for both. A thread (tx, ty) has t = tx & 3 and
g = ty & 7::

    row g and g + 8 of instruction p along rows    are rows 2 p and 2 p + 1 of thread ty: one load of 128 bits brings
                                                   a0, a1 of two instructions
    column 2 t + e of instruction q along columns  is column (q & 1) + 2 e of thread tx, so that lane g reads columns
                                                   2 g, 2 g + 1 of the warp's 16: one load of 64 bits for two
    words t and t + 4 of k                         are rows 2 t and 2 t + 1 of the slab

Rows of a slab are a multiple of 32 and 4 words apart, so that those four loads meet 32 banks.

``tf32x3`` has two slabs of each operand, hi and lo. It adds up lo hi + hi lo + hi hi of eight k in the tensor core, the
small products first, and that sum to the accumulator by a float32 addition: tensor cores cut their sums off, and errors
of a long chain would all point the same way.

Budget: no launch; for each 8 words and 8 x 8 results a thread 16 instructions of tensor cores (tf32x3: 48 and 64
additions) and 8 loads (16) from shared memory.
"""

from __future__ import annotations

from functools import cache

from gpuprop_kernels.fused_step import EightSteps
from gpuprop_kernels.shapes import Tile, log2
from gpuprop_kernels.target import MLIR, cuda, device, float32, i32, mma_bf16, mma_tf32, vector
from gpuprop_kernels.words import layout

__all__ = ["tensor_steps"]


@cache
def tensor_steps(tile: Tile, lanes: int) -> EightSteps:
    """Build the product of eight words of k, for slabs whose operand A is loaded by so many `lanes` a row."""
    if MLIR:
        raise ValueError(f"{tile.name}: got the compiler numba-cuda-mlir, expected numba-cuda for tensor cores")
    size_m, size_n = tile.thread_rows, tile.thread_columns
    across, down = tile.columns // size_n, tile.rows // size_m
    group, rows_of_slice = tile.group, tile.depth // tile.slices // 2
    products_m, products_n = size_m // 2, size_n // 2
    warps_x = across // 4
    group_bits, warp_bits = log2(group), log2(warps_x)
    mma = mma_bf16 if tile.precision == "bf16" else mma_tf32
    threefold = tile.precision == "tf32x3"
    (row_a, half_a), (row_b, half_b) = (
        layout(tile.rows, of_a=True, lanes=lanes),
        layout(tile.columns, of_a=False, lanes=lanes),
    )
    # From the slab of hi to that of lo.
    low_a, low_b = tile.depth // 2 * row_a, tile.depth // 2 * row_b
    words_m, words_n, sums, zero = 2 * size_m, size_n, 8, float32(0)
    two_rows = size_m == 2
    load2, load4 = vector(2)[0], vector(4)[0]

    @device
    def coordinates(t):
        u = i32(t & (group - 1))
        lane, warp = i32(u & 31), i32(u >> 5)
        tx = i32((warp & (warps_x - 1)) * 4 + (lane & 3))
        ty = i32((warp >> warp_bits) * 8 + (lane >> 2))
        return i32(t >> group_bits), tx, ty

    @device
    def places(t, base_b):
        part, tx, ty = coordinates(t)
        row = i32(part * rows_of_slice + (tx & 3))
        at_a = i32(row * row_a + ((ty >> 1) * 4 + (ty & 1) * half_a if two_rows else ty * 4))
        g = i32(ty & 7)
        return part, at_a, i32(base_b + row * row_b + ((tx & -4) + (g >> 1)) * 4 + (g & 1) * half_b + 2 * (tx & 1))

    @device
    def load_a(shared, at, x):
        """Load the fragments 0, 1, ... of A, four words each."""
        for p in range(products_m):
            load4(shared, i32(at + (p >> 1) * (4 * down) + (p & 1) * half_a), x, 4 * p)

    @device
    def load_b(shared, at, y):
        """Load the fragments 0, 1, ... of B, two words each."""
        for q in range(products_n):
            load2(shared, i32((at ^ 2 if q & 1 else at) + (q >> 1) * (4 * across)), y, 2 * q)

    @device
    def add_product(c, c0, c1, c2, c3, x, p, y, q):
        """C += the product of fragment p of A and fragment q of B."""
        d = mma(c[c0], c[c1], c[c2], c[c3], x[4 * p], x[4 * p + 1], x[4 * p + 2], x[4 * p + 3], y[2 * q], y[2 * q + 1])
        c[c0] = d[0]
        c[c1] = d[1]
        c[c2] = d[2]
        c[c3] = d[3]

    @device
    def multiply(shared, at_a, at_b, acc):
        x, y = cuda.local.array(words_m, float32), cuda.local.array(words_n, float32)
        load_a(shared, at_a, x)
        load_b(shared, at_b, y)
        for q in range(products_n):
            for p in range(products_m):
                o = 2 * p * size_n + (q >> 1) * 4 + (q & 1)
                add_product(acc, o, o + 2, o + size_n, o + size_n + 2, x, p, y, q)

    @device
    def multiply_threefold(shared, at_a, at_b, acc):
        x, x_low = cuda.local.array(4, float32), cuda.local.array(4, float32)
        y, y_low = cuda.local.array(words_n, float32), cuda.local.array(words_n, float32)
        part = cuda.local.array(sums, float32)
        load_b(shared, at_b, y)
        load_b(shared, i32(at_b + low_b), y_low)
        # Row by row of instructions: fragments of A, of which there are more, then need not be kept.
        for p in range(products_m):
            at = i32(at_a + (p >> 1) * (4 * down) + (p & 1) * half_a)
            load4(shared, at, x, 0)
            load4(shared, i32(at + low_a), x_low, 0)
            for g in range(products_n // 2):
                for i in range(sums):
                    part[i] = zero
                for q in range(2):
                    add_product(part, 4 * q, 4 * q + 1, 4 * q + 2, 4 * q + 3, x_low, 0, y, 2 * g + q)
                for q in range(2):
                    add_product(part, 4 * q, 4 * q + 1, 4 * q + 2, 4 * q + 3, x, 0, y_low, 2 * g + q)
                for q in range(2):
                    add_product(part, 4 * q, 4 * q + 1, 4 * q + 2, 4 * q + 3, x, 0, y, 2 * g + q)
                for q in range(2):
                    o = 2 * p * size_n + 4 * g + q
                    acc[o] += part[4 * q]
                    acc[o + 2] += part[4 * q + 1]
                    acc[o + size_n] += part[4 * q + 2]
                    acc[o + size_n + 2] += part[4 * q + 3]

    return EightSteps(coordinates, places, multiply_threefold if threefold else multiply)
