"""Step 5: 128-bit loads and stores, and two slabs in turn (`gpuprop_kernels.ladder.pipeline`).

Groups of four need n_in and n_out to be multiples of 4: the library pads its rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.ladder.pipeline import SLABS, multiply
from gpuprop_kernels.ladder.register_tile import BLOCK, TILE
from gpuprop_kernels.target import block_x, block_y, cuda, i32, kernel, thread, vector

__all__ = ["double_buffer_kernel"]


@cache
def double_buffer_kernel(dt: Any) -> Any:
    """Build the kernel for a dtype."""
    run, (_, store) = multiply(dt), vector(4)

    @kernel(BLOCK)
    def accumulate(activations, delta, gradient, n_rows, n_in, n_out):
        slabs = cuda.shared.array(SLABS, dt, alignment=16)
        acc = cuda.local.array(16, dt)
        i0, j0 = i32(block_y() * TILE), i32(block_x() * TILE)
        run(slabs, acc, activations, delta, i0, j0, n_rows, n_in, n_out)
        i, j = i32(i0 + 4 * (thread() >> 4)), i32(j0 + 4 * (thread() & 15))
        for q in range(4):
            if i + q < n_in and j < n_out:
                store(gradient, i32((i + q) * n_out + j), acc, 4 * q)

    return accumulate
