"""Step 3: a block computes 16 x 16 weights, and reads a sample's 16 activations and 16 deltas once for all of them.

Sixteen samples at a time: each of the 256 threads brings one activation and one delta into shared memory, all wait,
and each takes 16 multiply-adds from there. Global memory is read a sixteenth as often; shared memory twice for every
multiply-add.

    slab of a  16 samples x 16         slab of d  16 samples x 16          gW tile  16 x 16
    (columns i0 .. i0 + 15)            (columns j0 .. j0 + 15)             thread (ty, tx) has gW[i0 + ty, j0 + tx]
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.target import block_x, block_y, cuda, i32, kernel, ld1, ldg1, st1, sync, thread

__all__ = ["BLOCK", "TILE", "shared_kernel"]

TILE = 16
BLOCK = TILE * TILE
SLABS = 2 * BLOCK  # one of a, one of d


@cache
def shared_kernel(dt: Any) -> Any:
    """Build the kernel for a dtype."""
    zero = dt(0)

    @kernel(BLOCK)
    def accumulate(activations, delta, gradient, n_rows, n_in, n_out):
        slabs = cuda.shared.array(SLABS, dt, alignment=16)
        t = thread()
        ty, tx = i32(t // TILE), i32(t % TILE)
        i0, j0 = i32(block_y() * TILE), i32(block_x() * TILE)
        total = zero
        for first in range(0, n_rows, TILE):
            n, i, j = i32(first + ty), i32(i0 + tx), i32(j0 + tx)
            st1(slabs, t, ldg1(activations, i32(n * n_in + i)) if n < n_rows and i < n_in else zero)
            st1(slabs, i32(BLOCK + t), ldg1(delta, i32(n * n_out + j)) if n < n_rows and j < n_out else zero)
            sync()
            for k in range(TILE):
                total += ld1(slabs, i32(k * TILE + ty)) * ld1(slabs, i32(BLOCK + k * TILE + tx))
            sync()
        if i0 + ty < n_in and j0 + tx < n_out:
            st1(gradient, i32((i0 + ty) * n_out + j0 + tx), total)

    return accumulate
