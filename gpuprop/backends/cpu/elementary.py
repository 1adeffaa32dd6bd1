"""Elementary functions of one number, float32 or float64, in a form that LLVM vectorises in the loops around them.

``math.exp`` is a call into the C library, once a number. These are polynomials of the fused kind: about one rounding
error from the true value (`tests/test_cpu_loops.py`), and at the speed of NumPy's own vector code, without a pass over
memory of their own. NaN stays NaN; `exp` of what is below the normal numbers is 0.

``type(x)(0.5)`` is the constant in the precision of ``x``; the bare ``0.5`` would turn float32 into float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from gpuprop.backends.cpu.compiling import spliced

__all__ = [
    "exp", "expm1", "log", "log1p_of_share", "logistic", "normal_distribution", "smallest_normal", "softplus", "sqrt",
    "tanh",
]  # fmt: skip

log, sqrt = math.log, math.sqrt

# ln 2 in two parts: the first has so few digits that its product with any exponent is exact.
_LN2_HIGH = 0.693359375
_LN2_LOW = -2.121944400546905827679e-4
_LOG2_E = 1 / math.log(2)


@intrinsic
def power_of_two(context: Any, exponent: Any) -> Any:
    """Return ``2**exponent`` of a whole number in the range of normal numbers: its bits are put together."""
    bits, bias, digits = (32, 127, 23) if exponent == types.float32 else (64, 1023, 52)
    whole = ir.IntType(bits)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        biased = builder.add(builder.fptosi(arguments[0], whole), whole(bias))
        return builder.bitcast(builder.shl(biased, whole(digits)), context.get_value_type(exponent))

    return exponent(exponent), build


@intrinsic
def smallest_normal(context: Any, x: Any) -> Any:
    """Return the smallest normal number of the precision of `x`."""
    tiny = float(np.finfo(str(x)).tiny)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(x, tiny)

    return x(x), build


def _exp_constants(x: float) -> tuple[float, float, float]:
    """Return the arguments between which ``exp(x)`` is a normal number, a little inside, and 1.5 * 2**digits.

    Added to a small number and taken away again, the last of them leaves the nearest whole number.
    """
    return -708.0, 709.0, 1.5 * 2.0**52


@overload(_exp_constants)
def _exp_constants_by_dtype(x: Any) -> Any:
    single = (np.float32(-87.0), np.float32(88.0), np.float32(1.5 * 2.0**23))
    constants = single if x == types.float32 else (-708.0, 709.0, 1.5 * 2.0**52)

    def chosen(x: Any) -> Any:
        return constants

    return chosen


def _expm1_series(r: Any) -> Any:
    """Return p with ``expm1(r) = r + r^2 p`` for ``|r| <= ln(2) / 2``: Taylor's series.

    The series ends before r^14 / 14!, which is at most 4e-18 of exp(r).
    """
    t = type(r)
    p = t(1 / 6227020800)
    p = p * r + t(1 / 479001600)
    p = p * r + t(1 / 39916800)
    p = p * r + t(1 / 3628800)
    p = p * r + t(1 / 362880)
    p = p * r + t(1 / 40320)
    p = p * r + t(1 / 5040)
    p = p * r + t(1 / 720)
    p = p * r + t(1 / 120)
    p = p * r + t(1 / 24)
    p = p * r + t(1 / 6)
    return p * r + t(1 / 2)


def _short_expm1_series(r: Any) -> Any:
    """Do as `_expm1_series` for float32: the first term that is left out, r^8 / 8!, is 5e-9 of exp(r)."""
    t = type(r)
    p = t(1 / 5040)
    p = p * r + t(1 / 720)
    p = p * r + t(1 / 120)
    p = p * r + t(1 / 24)
    p = p * r + t(1 / 6)
    return p * r + t(1 / 2)


@overload(_expm1_series)
def _expm1_series_by_dtype(r: Any) -> Any:
    return _short_expm1_series if r == types.float32 else _expm1_series


@spliced
def _exp_parts(x: float) -> tuple[float, float]:
    """Return ``m, s`` with ``exp(x) = s * m + s``: ``s`` a power of two, ``m = expm1(r)`` for ``|r| <= ln(2) / 2``.

    The argument is reduced as Cody and Waite do it.
    """
    t = type(x)
    low, high, rounding = _exp_constants(x)
    x = low if x < low else (high if x > high else x)
    n = (x * t(_LOG2_E) + rounding) - rounding
    r = (x - n * t(_LN2_HIGH)) - n * t(_LN2_LOW)
    return r + r * r * _expm1_series(r), power_of_two(n)


@spliced
def exp(x: float) -> float:
    """``exp(x)``; 0 where it is not a normal number any more; x at most 88 (float32) or 709 (float64)."""
    m, s = _exp_parts(x)
    low, _, _ = _exp_constants(x)
    return type(x)(0) if x < low else s * m + s


@spliced
def expm1(x: float) -> float:
    """``exp(x) - 1``, with full relative precision near 0."""
    m, s = _exp_parts(x)
    return s * m + (s - type(x)(1))


@spliced
def log1p_of_share(x: float) -> float:
    """``log(1 + x)`` for x in [0, 1].

    ``2 artanh(s)`` with ``s = x / (2 + x) <= 1/3``, whose series ``s + s^3 / 3 + s^5 / 5 + ...`` is cut where the next
    term is 2e-18 of the sum.
    """
    t = type(x)
    s = x / (t(2) + x)
    q = s * s
    p = t(1 / 33)
    p = p * q + t(1 / 31)
    p = p * q + t(1 / 29)
    p = p * q + t(1 / 27)
    p = p * q + t(1 / 25)
    p = p * q + t(1 / 23)
    p = p * q + t(1 / 21)
    p = p * q + t(1 / 19)
    p = p * q + t(1 / 17)
    p = p * q + t(1 / 15)
    p = p * q + t(1 / 13)
    p = p * q + t(1 / 11)
    p = p * q + t(1 / 9)
    p = p * q + t(1 / 7)
    p = p * q + t(1 / 5)
    p = p * q + t(1 / 3)
    return t(2) * (s + s * q * p)


@spliced
def logistic(z: float) -> float:
    """``1 / (1 + exp(-z))``, by ``exp(-|z|)`` as in `gpuprop.activations`."""
    one = type(z)(1)
    e = exp(-abs(z))
    return (e if z < 0 else one) / (e + one)


@spliced
def tanh(z: float) -> float:
    """``tanh(z)`` by ``expm1(-2 |z|)``, which keeps relative precision near 0."""
    two = type(z)(2)
    e = expm1(-two * abs(z))
    a = -e / (e + two)
    return -a if z < 0 else a


@spliced
def softplus(z: float) -> float:
    """``log(1 + exp(z))`` as ``max(z, 0) + log1p(exp(-|z|))``."""
    e = log1p_of_share(exp(-abs(z)))
    return e if z < 0 else z + e


@spliced
def normal_distribution(z: float) -> float:
    """``Phi(z) = erfc(-z / sqrt(2)) / 2``: the C library's erfc, the one function here that does not vectorise."""
    t = type(z)
    return t(0.5) * t(math.erfc(-z * t(math.sqrt(0.5))))
