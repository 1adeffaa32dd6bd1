"""What the products of a network round: the operands of tensor cores, defined bit by bit for arrays of float32.

Three products of two matrices make up a training step: ``a @ W`` of the forward pass, ``delta @ W.T`` of the hidden
deltas, and ``a.T @ delta`` of the weight gradients. A precision says how both operands of each are rounded first. All
else stays float32: sums, biases and their gradients, activations, losses, the weights and what the optimizer remembers.

============  =====================================  ========================================  ====================
precision     an operand x becomes                   the product                               unit roundoff of x
============  =====================================  ========================================  ====================
``float32``   x                                      ``a @ b``                                 2^-24
``tf32x3``    hi = tf32(x), lo = cut(x - hi)         ``lo @ hi + hi @ lo + hi @ hi``           2^-23, of hi + lo
``tf32``      tf32(x): 10 bits behind the leading 1  ``tf32(a) @ tf32(b)``                     2^-11
``bf16``      bf16(x): 7 bits behind the leading 1   ``bf16(a) @ bf16(b)``                     2^-8
============  =====================================  ========================================  ====================

tf32(x) is the nearest number of 11 significant bits, and of two equally near ones the larger in magnitude: the
instruction ``cvt.rna.tf32.f32``. bf16(x) is the nearest number of 8 significant bits, and of two equally near ones the
one whose last bit is 0: ``cvt.rn.bf16x2.f32``. cut(x) drops the 13 low bits, which a tensor core ignores. All have the
range of float32, subnormal numbers included. Products of two such operands are exact in float32; only sums round.

What is so near to the largest float32 number that it rounds up becomes Inf. NaN stays NaN. An Inf operand of ``tf32x3``
gives NaN where float32 gives Inf, because its lo is ``Inf - Inf``; so does a number that rounds to Inf.

Source: NVIDIA, "PTX ISA", sections "cvt" and "Matrix fragments for mma.m16n8k8"; Ootomo and Yokota, "Recovering single
precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance", IJHPCA 2022,
arXiv:2203.03341, for the three products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.errors import unknown_name

__all__ = [
    "PRECISIONS",
    "UNIT_ROUNDOFF",
    "check_precision",
    "left_parts",
    "product",
    "right_parts",
    "round_to_bf16",
    "round_to_tf32",
    "split",
]

Array = NDArray[Any]

PRECISIONS = ("float32", "tf32x3", "tf32", "bf16")
"""The names that a user may give for a precision."""

#: The largest relative error of an operand, for normal numbers below the overflow: half a unit in its last place. The
#: two parts of tf32x3 leave one unit in the last place of float32; a product lacks ``lo @ lo`` besides, 2^-22 of it.
UNIT_ROUNDOFF = {"float32": 2.0**-24, "tf32x3": 2.0**-23, "tf32": 2.0**-11, "bf16": 2.0**-8}

_DROPPED_BY_TF32 = 13
"""The low bits of float32 that tf32 lacks."""

_KEPT_BY_TF32 = np.uint32((0xFFFFFFFF << _DROPPED_BY_TF32) & 0xFFFFFFFF)
_HALF_OF_TF32 = np.uint32(1 << (_DROPPED_BY_TF32 - 1))
_KEPT_BY_BF16, _BELOW_HALF_OF_BF16 = np.uint32(0xFFFF0000), np.uint32(0x7FFF)


def check_precision(precision: object, dtype: np.dtype[Any]) -> str:
    """Return the name of a precision that networks of this dtype can have.

    Raises
    ------
    TypeError, ValueError
        If it is no text or no such name, or if the dtype is float64, whose products round no operands.
    """
    if not isinstance(precision, str):
        raise TypeError(f"precision: got {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if precision != "float32" and dtype != np.float32:
        raise ValueError(
            f"precision: got {precision!r} for a network in {dtype}, expected dtype='float32'; its operands are "
            "rounded from float32"
        )
    return precision


def round_to_tf32(x: Array) -> Array:
    """Return the nearest tf32 numbers, ties away from zero, as float32.

    Examples
    --------
    >>> import numpy as np
    >>> round_to_tf32(np.array([1 + 2**-11, 1 + 2**-12, 0.1], np.float32)).tolist()
    [1.0009765625, 1.0, 0.0999755859375]
    """
    return np.where(np.isnan(x), x, _nearest_tf32(x))


def round_to_bf16(x: Array) -> Array:
    """Return the nearest bfloat16 numbers, ties to even, as float32.

    Examples
    --------
    >>> import numpy as np
    >>> round_to_bf16(np.array([1 + 2**-8, 1 + 3 * 2**-8, 0.1], np.float32)).tolist()
    [1.0, 1.015625, 0.10009765625]
    """
    bits = _bits(x)
    last_kept = (bits >> np.uint32(16)) & np.uint32(1)
    nearest = ((bits + _BELOW_HALF_OF_BF16 + last_kept) & _KEPT_BY_BF16).view(np.float32)
    return np.where(np.isnan(x), x, nearest)


def split(x: Array) -> tuple[Array, Array]:
    """Return ``(hi, lo)``: the nearest tf32 numbers, and what is left of `x`, cut off to tf32.

    ``hi + lo`` differs from `x` by at most one unit in the last place of float32. Where `x` is NaN or rounds to Inf,
    lo is NaN or Inf.

    Examples
    --------
    >>> import numpy as np
    >>> hi, lo = split(np.array([0.1], np.float32))
    >>> float(hi[0]), float(lo[0]), float(hi[0]) + float(lo[0]) - float(np.float32(0.1))
    (0.0999755859375, 2.440810203552246e-05, -7.450580596923828e-09)
    """
    hi = _nearest_tf32(x)
    with np.errstate(invalid="ignore"):  # Inf - Inf
        left = x - hi
    return hi, (_bits(left) & _KEPT_BY_TF32).view(np.float32)


def left_parts(a: Array, precision: str) -> list[Array]:
    """Return what stands on the left of the products that add up to ``a @ b``, the smallest product first."""
    if precision == "tf32x3":
        hi, lo = split(a)
        return [lo, hi, hi]
    return [_rounded(a, precision)]


def right_parts(b: Array, precision: str) -> list[Array]:
    """Return what stands on the right of the products that add up to ``a @ b``; see `left_parts`."""
    if precision == "tf32x3":
        hi, lo = split(b)
        return [hi, lo, hi]
    return [_rounded(b, precision)]


def product(a: Array, b: Array, precision: str, out: Array | None = None) -> Array:
    """Return ``a @ b`` as a precision computes it, with float32 sums; for "float32" NumPy's own product.

    Parameters
    ----------
    a : ndarray of shape (n, k)
    b : ndarray of shape (k, m)
        Both float32; also float64 if the precision is "float32".
    precision : str
        One of `PRECISIONS`.
    out : ndarray of shape (n, m) or None, default=None
        Where to write the result.

    Returns
    -------
    ndarray of shape (n, m)
        `out`, if it is given.

    Examples
    --------
    >>> import numpy as np
    >>> a, b = np.array([[0.1, 0.2]], np.float32), np.array([[0.3], [0.4]], np.float32)
    >>> [f"{product(a, b, name)[0, 0]:.7f}" for name in PRECISIONS]
    ['0.1100000', '0.1100000', '0.1099585', '0.1102638']
    """
    if precision == "float32":
        return np.matmul(a, b, out=out)
    first, *others = zip(left_parts(a, precision), right_parts(b, precision), strict=True)
    total = np.matmul(*first, out=out)
    for left, right in others:
        total += left @ right
    return total


def _rounded(x: Array, precision: str) -> Array:
    if precision == "tf32":
        return round_to_tf32(x)
    return round_to_bf16(x) if precision == "bf16" else x


def _nearest_tf32(x: Array) -> Array:
    """Return `round_to_tf32` of all but NaN, of which some become 0 or Inf here."""
    return ((_bits(x) + _HALF_OF_TF32) & _KEPT_BY_TF32).view(np.float32)


def _bits(x: Array) -> NDArray[np.uint32]:
    """Return the bits of float32 numbers, in the layout of `x`, so that a transposed operand stays one."""
    return x.view(np.uint32)
