"""How much a backend may differ from the float64 oracle: one table, with a reason for each bound.

With ``u`` the unit roundoff of the dtype, a dot product of length K in any order of summation errs by at most
``K u |A||B|`` to first order (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1); the 4 on top
pays for the rounding of the result, of the added bias and of the factor behind it. A bound is an array, element by
element, because a relative bound on a sum that cancels means nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Array = NDArray[np.float64]

UNIT = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float64): 2.0**-53}
"""Unit roundoff of round-to-nearest."""

ELEMENTWISE = {
    # primitive: units of u relative to max(|value|, scale), with the reason
    "scaling": 4.0,  # shift and scale rounded to the dtype, a difference, a product
    "activation": 8.0,  # CUDA's exp, tanh, log1p err by up to 2 ulp, and composing two of them doubles it
    "derivative": 16.0,  # the activation's error passes through 1 - a*a or a*(1 - a)
    "loss": 16.0,  # a logarithm of a quotient of exponentials
    "optimizer": 16.0,  # a square root, a quotient, two or three sums
    "pass": 256.0,  # a network forwards and backwards, and a few updates: about ten products, each up to 40 u off
}

OPERANDS = {
    # precision: units of float32's u that a product errs by, relative to |A| |B|, beside its sum
    "float32": 0.0,
    "tf32x3": 64.0,  # each operand by 2 u, lo lo left out by 4 u; sums of 8 x 3 products that a tensor core cuts off
    "tf32": 2.0**14 + 8.0,  # each operand by 2^-11, and the product of both errors
    "bf16": 2.0**17 + 2.0**9,  # each operand by 2^-8, and the product of both errors
}
"""How far the operands of products are rounded, see `gpuprop.core.precision`."""

CURVE = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-9}
"""Relative bound on the loss curve of a whole run; rounding errors grow with its steps (in float32, 50 steps)."""


def unit(dtype: DTypeLike) -> float:
    """Return the unit roundoff of a dtype."""
    return UNIT[np.dtype(dtype)]


def product_bound(magnitude: ArrayLike, length: int, dtype: DTypeLike, precision: str = "float32") -> Array:
    """Return the bound for a product of inner length ``length``; ``magnitude`` is ``|A| |B|`` (plus |bias|).

    Tensor cores cut their sums off in place of rounding them, which errs by twice as much.
    """
    units = (length + 4) * (1 if precision == "float32" else 2) + OPERANDS[precision]
    return np.asarray(units * unit(dtype) * np.asarray(magnitude, dtype=np.float64))


def elementwise_bound(primitive: str, value: ArrayLike, dtype: DTypeLike, scale: ArrayLike = 0.0) -> Array:
    """Return the bound for an elementwise primitive: relative to the value or to ``scale``, whichever is larger."""
    size = np.maximum(np.abs(np.asarray(value, dtype=np.float64)), scale)
    return np.asarray(ELEMENTWISE[primitive] * unit(dtype) * size + np.finfo(np.dtype(dtype)).tiny)


def used(actual: ArrayLike, expected: ArrayLike, bound: ArrayLike) -> float:
    """Return the largest share of the bound that the error uses: at most 1 passes, NaN is infinitely wrong.

    Where the bound is 0 (a product with zeros, an exact operation) only the exact value passes.
    """
    error = np.abs(np.asarray(actual, dtype=np.float64) - np.asarray(expected, dtype=np.float64))
    error, limit = np.broadcast_arrays(error, np.asarray(bound, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(error == 0, 0.0, error / limit)
    return float(np.nan_to_num(share, nan=np.inf, posinf=np.inf).max(initial=0.0))
