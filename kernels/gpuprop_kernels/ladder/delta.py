"""The fused activation-derivative-delta, one thread an element: ``d[n, i] = (sum_j d_next[n, j] W[i, j]) a (1 - a)``.

``d_next`` has shape (n_rows, n_next), ``weights`` (n_units, n_next), ``a`` and ``delta`` (n_rows, n_units); the layer
is logistic. The sum is what comes down through the weights, dE/da; the factor behind it makes dE/dz of it. *Fused*
means that dE/da exists in a register only.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.target import block_x, i32, kernel, ld1, st1, thread

__all__ = ["BLOCK", "hidden_delta_kernel"]

BLOCK = 128


@cache
def hidden_delta_kernel(dt: Any) -> Any:
    """Build the kernel for a dtype."""
    zero, one = dt(0), dt(1)

    @kernel(BLOCK)
    def hidden_delta(delta_next, weights, activations, delta, n_rows, n_units, n_next):
        element = i32(block_x() * BLOCK + thread())
        if element < n_rows * n_units:
            n = i32(element // n_units)
            i = i32(element % n_units)
            error = zero
            for j in range(n_next):
                error += ld1(delta_next, i32(n * n_next + j)) * ld1(weights, i32(i * n_next + j))
            a = ld1(activations, element)
            st1(delta, element, error * a * (one - a))

    return hidden_delta
