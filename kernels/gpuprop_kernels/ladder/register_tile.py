"""Step 4: 4 x 4 weights a thread, 64 x 64 a block: 8 loads from shared memory now feed 16 multiply-adds.

One sample is an outer product: four activations times four deltas, all in registers. That is the whole trick; what
follows only feeds it.

    thread (ty, tx) of 16 x 16 has rows i0 + 4 ty .. + 3 and columns j0 + 4 tx .. + 3 of gW
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.target import block_x, block_y, cuda, i32, kernel, ld1, ldg1, st1, sync, thread

__all__ = ["BLOCK", "DEPTH", "TILE", "register_tile_kernel"]

TILE, DEPTH, SIDE = 64, 16, 4
BLOCK = (TILE // SIDE) ** 2
SLAB = DEPTH * TILE
SLABS = 2 * SLAB  # one of a, one of d


@cache
def register_tile_kernel(dt: Any) -> Any:
    """Build the kernel for a dtype."""
    zero = dt(0)

    @kernel(BLOCK)
    def accumulate(activations, delta, gradient, n_rows, n_in, n_out):
        slabs = cuda.shared.array(SLABS, dt, alignment=16)
        acc, x, y = cuda.local.array(16, dt), cuda.local.array(4, dt), cuda.local.array(4, dt)
        t = thread()
        ty, tx = i32(t // 16), i32(t % 16)
        i0, j0 = i32(block_y() * TILE), i32(block_x() * TILE)
        for q in range(16):
            acc[q] = zero
        for first in range(0, n_rows, DEPTH):
            for r in range(SLAB // BLOCK):
                e = i32(t + r * BLOCK)
                n, i, j = i32(first + e // TILE), i32(i0 + e % TILE), i32(j0 + e % TILE)
                st1(slabs, e, ldg1(activations, i32(n * n_in + i)) if n < n_rows and i < n_in else zero)
                st1(slabs, i32(SLAB + e), ldg1(delta, i32(n * n_out + j)) if n < n_rows and j < n_out else zero)
            sync()
            for k in range(DEPTH):
                for q in range(4):
                    x[q] = ld1(slabs, i32(k * TILE + 4 * ty + q))
                    y[q] = ld1(slabs, i32(SLAB + k * TILE + 4 * tx + q))
                for q in range(16):
                    acc[q] += x[q // 4] * y[q % 4]
            sync()
        for q in range(16):
            i, j = i32(i0 + 4 * ty + q // 4), i32(j0 + 4 * tx + q % 4)
            if i < n_in and j < n_out:
                st1(gradient, i32(i * n_out + j), acc[q])

    return accumulate
