"""The loop of steps 5 and 6: two slabs in turn, the next on its way while this one is multiplied.

A thread fetches one group of four from each operand into registers, multiplies the current slab, and only then puts the
group into the other slab. So the multiplications hide the latency of global memory, and one barrier a slab suffices.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.ladder.register_tile import DEPTH, SLAB, TILE
from gpuprop_kernels.target import cuda, device, i32, ldg4, sync, thread, vector

__all__ = ["SLABS", "multiply"]

SLABS = 4 * SLAB  # two of a and d each


@cache
def multiply(dt: Any) -> Any:
    """Return the device function ``run(slabs, acc, a, d, i0, j0, n_rows, n_in, n_out)``: ``acc = a^T d``."""
    zero, (load, store) = dt(0), vector(4)

    @device
    def fetch(source, n, column, n_rows, width, registers):
        for q in range(4):
            registers[q] = zero
        if n < n_rows and column < width:
            registers[0], registers[1], registers[2], registers[3] = ldg4(source, i32(n * width + column))

    @device
    def run(slabs, acc, a, d, i0, j0, n_rows, n_in, n_out):
        x, y = cuda.local.array(4, dt), cuda.local.array(4, dt)
        next_a, next_d = cuda.local.array(4, dt), cuda.local.array(4, dt)
        t = thread()
        row, column, ty, tx = i32(t >> 4), i32(4 * (t & 15)), i32(t >> 4), i32(t & 15)
        for q in range(16):
            acc[q] = zero
        turn, first = i32(0), i32(-DEPTH)
        while first < n_rows:
            fetch(a, i32(first + DEPTH + row), i32(i0 + column), n_rows, n_in, next_a)
            fetch(d, i32(first + DEPTH + row), i32(j0 + column), n_rows, n_out, next_d)
            if first >= 0:  # there is nothing to multiply before the first slab has arrived
                for k in range(DEPTH):
                    load(slabs, i32(2 * SLAB * turn + k * TILE + 4 * ty), x, 0)
                    load(slabs, i32(2 * SLAB * turn + SLAB + k * TILE + 4 * tx), y, 0)
                    for q in range(16):
                        acc[q] += x[q >> 2] * y[q & 3]
            turn = i32(1 - turn)
            store(slabs, i32(2 * SLAB * turn + 4 * t), next_a, 0)
            store(slabs, i32(2 * SLAB * turn + SLAB + 4 * t), next_d, 0)
            sync()
            first = i32(first + DEPTH)

    return run
