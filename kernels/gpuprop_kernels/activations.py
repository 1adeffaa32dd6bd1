"""Activation functions as device functions: a = f(z), and f' from the output a or from the net input z.

Every kernel that applies one closes over it, so that there is one compiled kernel per activation and none of them
asks at run time which it is. The derivative is taken from the output wherever the output determines it, because then
the layer's z need not be kept; gelu and silu are not monotonic and take z. Constants carry the dtype: a bare ``2.0``
would bring float64 arithmetic into a float32 kernel, at 1/64 of the speed on a consumer's GPU.

=============  =====================================  =====================
name           f(z)                                   f'
=============  =====================================  =====================
identity       z                                      1
logistic       1 / (1 + exp(-z))                      a (1 - a)
tanh           tanh z                                 (1 - a)(1 + a)
relu           z if z > 0 else 0                      1 if a > 0 else 0
leaky_relu     z if z > 0 else slope z                1 if a > 0 else slope
elu            z if z > 0 else alpha (exp z - 1)      1 if a > 0 else a + alpha
softplus       max(z, 0) + log1p(exp(-abs(z)))        1 - exp(-a)
gelu           z Phi(z)                               Phi(z) + z phi(z)
silu           z s, s = logistic(z)                   s (1 + z (1 - s))
exponential    exp(min(z, limit))                     a
=============  =====================================  =====================

Budget: no launch and no memory; 1 (relu) to about 30 instructions (gelu's erfc) an element on what a kernel's epilogue
has in registers, so that a layer is neither read nor written once more for its activation.

Softmax looks at a whole row and lives in `loss`. Sources are named in ``gpuprop.activations``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np

from gpuprop_kernels.target import device, erfc, exp, expm1, log1p, tanh

__all__ = ["HIDDEN", "OUTPUT", "Activation", "DevicePair", "device_pair"]

HIDDEN = ("identity", "logistic", "tanh", "relu", "leaky_relu", "elu", "softplus", "gelu", "silu")
"""Names that a hidden layer may use."""

OUTPUT = (*HIDDEN, "softmax", "exponential")
"""Names that an output layer may use."""


@dataclass(frozen=True)
class Activation:
    """Which activation a kernel is built for: hashable, the key of the kernel caches.

    Parameters
    ----------
    name : str
        One of `OUTPUT`, or a name of the user's own with `functions`.
    parameter : float, default=nan
        Slope of leaky_relu (0.01 unless given) or alpha of elu (1).
    functions : pair of callables or None
        A user's own ``f(z)`` and ``f'``: scalar functions that Numba can compile.
    own_derivative_of : {"output", "z"}
        What a user's own derivative takes.
    """

    name: str
    parameter: float | None = None
    functions: tuple[Callable[..., Any], Callable[..., Any]] | None = None
    own_derivative_of: Literal["output", "z"] = "output"

    @property
    def derivative_of(self) -> str:
        """What the derivative takes; with ``"z"`` the forward kernel keeps the net input."""
        if self.functions is not None:
            return self.own_derivative_of
        return "z" if self.name in ("gelu", "silu") else "output"


class DevicePair(NamedTuple):
    """An activation as the kernels call it."""

    function: Any
    """``function(z) -> a``"""
    derivative: Any
    """``derivative(a) -> da/dz`` or ``derivative(z) -> da/dz``"""


@cache
def device_pair(activation: Activation, dt: Any) -> DevicePair:
    """Return the device functions of an elementwise activation for the Numba type `dt`."""
    if activation.functions is not None:
        return _own(activation.functions, dt)
    makers = {
        "identity": _identity, "logistic": _logistic, "tanh": _tanh, "relu": _relu, "leaky_relu": _leaky_relu,
        "elu": _elu, "softplus": _softplus, "gelu": _gelu, "silu": _silu, "exponential": _exponential,
    }  # fmt: skip
    if activation.name not in makers:
        raise ValueError(f"got activation {activation.name!r}, expected one of {', '.join(makers)}")
    make = makers[activation.name]
    parameter = {} if activation.parameter is None else {"parameter": activation.parameter}
    function, derivative = make(dt, **parameter)
    return DevicePair(device(function), device(derivative))


def _own(functions: tuple[Callable[..., Any], Callable[..., Any]], dt: Any) -> DevicePair:
    # A user's literals may have widened the result; the cast brings it back.
    inner, inner_derivative = (device(getattr(f, "py_func", f)) for f in functions)
    return DevicePair(device(lambda z: dt(inner(z))), device(lambda s: dt(inner_derivative(s))))


def _identity(dt: Any) -> tuple[Any, Any]:
    one = dt(1)
    return lambda z: z, lambda a: one


def _logistic(dt: Any) -> tuple[Any, Any]:
    one = dt(1)
    return lambda z: one / (one + exp(-z)), lambda a: a * (one - a)


def _tanh(dt: Any) -> tuple[Any, Any]:
    one = dt(1)
    return lambda z: tanh(z), lambda a: (one - a) * (one + a)


def _relu(dt: Any) -> tuple[Any, Any]:
    zero, one = dt(0), dt(1)
    # A conditional: two-argument max has been broken in Numba's built-in CUDA target since 0.66.
    return lambda z: z if z > zero else zero, lambda a: one if a > zero else zero


def _leaky_relu(dt: Any, parameter: float = 0.01) -> tuple[Any, Any]:
    zero, one, slope = dt(0), dt(1), dt(parameter)
    return lambda z: z if z > zero else slope * z, lambda a: one if a > zero else slope


def _elu(dt: Any, parameter: float = 1.0) -> tuple[Any, Any]:
    zero, one, alpha = dt(0), dt(1), dt(parameter)
    return lambda z: z if z > zero else alpha * expm1(z), lambda a: one if a > zero else a + alpha


def _softplus(dt: Any) -> tuple[Any, Any]:
    zero = dt(0)

    def softplus(z):
        if z > zero:
            return z + log1p(exp(-z))
        return log1p(exp(z))

    return softplus, lambda a: -expm1(-a)


def _gelu(dt: Any) -> tuple[Any, Any]:
    half, root, density = dt(0.5), dt(math.sqrt(0.5)), dt(1 / math.sqrt(2 * math.pi))
    # erfc keeps relative precision in the left tail, where 1 + erf would cancel.
    return (
        lambda z: z * (half * erfc(-z * root)),
        lambda z: half * erfc(-z * root) + z * (density * exp(-half * z * z)),
    )


def _silu(dt: Any) -> tuple[Any, Any]:
    one = dt(1)

    def derivative(z):
        s = one / (one + exp(-z))
        return s * (one + z * (one - s))

    return lambda z: z / (one + exp(-z)), derivative


def _exponential(dt: Any) -> tuple[Any, Any]:
    # Saturates at the fourth root of the largest number, as on the CPU: squares and sums of it stay finite.
    limit = dt(0.25 * math.log(float(np.finfo(str(dt)).max)))
    return lambda z: exp(z if z < limit else limit), lambda a: a
