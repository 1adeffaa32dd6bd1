"""Step 2: a thread for each weight, its sum in a register; neighbouring threads hold neighbouring columns j.

The 32 threads of a warp now read 32 consecutive deltas, one cache line, and all the same activation; each writes once.
Still, every multiply-add needs two loads.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.target import block_x, i32, kernel, ldg1, st1, thread

__all__ = ["BLOCK", "coalesced_kernel"]

BLOCK = 256


@cache
def coalesced_kernel(dt: Any) -> Any:
    """Build the kernel for a dtype."""
    zero = dt(0)

    @kernel(BLOCK)
    def accumulate(activations, delta, gradient, n_rows, n_in, n_out):
        weight = i32(block_x() * BLOCK + thread())
        if weight < n_in * n_out:
            i, j = i32(weight // n_out), i32(weight % n_out)
            total = zero
            for n in range(n_rows):
                total += ldg1(activations, i32(n * n_in + i)) * ldg1(delta, i32(n * n_out + j))
            st1(gradient, weight, total)

    return accumulate
