"""Step 6: the update in the epilogue, ``W -= rate * gW``, while gW is still in registers.

The gradient is neither written nor read back, and one launch does the work of two. With the deltas divided by the batch
size this is plain gradient descent; the library's kernel does the same for momentum and Adam.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.ladder.pipeline import SLABS, multiply
from gpuprop_kernels.ladder.register_tile import BLOCK, TILE
from gpuprop_kernels.target import block_x, block_y, cuda, i32, kernel, thread, vector

__all__ = ["fused_kernel"]


@cache
def fused_kernel(dt: Any) -> Any:
    """Build the kernel for a dtype."""
    run, (load, store) = multiply(dt), vector(4)

    @kernel(BLOCK)
    def descend(activations, delta, weights, n_rows, n_in, n_out, rate):
        slabs = cuda.shared.array(SLABS, dt, alignment=16)
        acc, w = cuda.local.array(16, dt), cuda.local.array(4, dt)
        i0, j0 = i32(block_y() * TILE), i32(block_x() * TILE)
        run(slabs, acc, activations, delta, i0, j0, n_rows, n_in, n_out)
        i, j = i32(i0 + 4 * (thread() >> 4)), i32(j0 + 4 * (thread() & 15))
        for q in range(4):
            if i + q < n_in and j < n_out:
                load(weights, i32((i + q) * n_out + j), w, 0)
                for e in range(4):
                    w[e] -= rate * acc[4 * q + e]
                store(weights, i32((i + q) * n_out + j), w, 0)

    return descend
