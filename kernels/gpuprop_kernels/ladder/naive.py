"""Step 1, as the algorithm is written: for each sample, ``gW[i, j] += a[n, i] d[n, j]``; a thread for each row i.

For every multiply-add the accumulator is read from global memory and written back. Neighbouring threads hold
neighbouring rows, so that their accumulators lie n_out elements apart: a warp's 32 accesses touch 32 cache lines.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.target import block_x, i32, kernel, ld1, ldg1, st1, thread

__all__ = ["BLOCK", "naive_kernel"]

BLOCK = 256


@cache
def naive_kernel(dt: Any) -> Any:
    """Build the kernel for a dtype."""
    zero = dt(0)

    @kernel(BLOCK)
    def accumulate(activations, delta, gradient, n_rows, n_in, n_out):
        i = i32(block_x() * BLOCK + thread())
        if i < n_in:
            for j in range(n_out):
                st1(gradient, i32(i * n_out + j), zero)
            for n in range(n_rows):
                a = ldg1(activations, i32(n * n_in + i))
                for j in range(n_out):
                    at = i32(i * n_out + j)
                    st1(gradient, at, ld1(gradient, at) + a * ldg1(delta, i32(n * n_out + j)))

    return accumulate
