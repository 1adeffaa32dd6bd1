"""Activation functions as device functions: a = f(z), and f' from the output a or from the net input z.

Every kernel that applies one closes over it, so that there is one compiled kernel per activation and none of them
asks at run time which it is. The formulas are the scalar forms of `formulas.elementwise`; here they get the elementary
functions of a GPU, and their parameter as a constant.

Budget: no launch and no memory; 1 (relu) to about 30 instructions (gelu's erfc) an element on what a kernel's epilogue
has in registers, so that a layer is neither read nor written once more for its activation.

Softmax looks at a whole row and lives in `loss`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

from gpuprop_kernels.formulas.elementwise import ELEMENTWISE
from gpuprop_kernels.target import device, erfc, exp, expm1, log, log1p, sqrt, tanh

__all__ = ["HIDDEN", "OUTPUT", "Activation", "DevicePair", "device_pair", "elementary_functions"]

HIDDEN = tuple(name for name, form in ELEMENTWISE.items() if form.hidden)
"""Names that a hidden layer may use."""

OUTPUT = (*ELEMENTWISE, "softmax")
"""Names that an output layer may use."""


@dataclass(frozen=True)
class Activation:
    """Which activation a kernel is built for: hashable, the key of the kernel caches.

    Parameters
    ----------
    name : str
        One of `OUTPUT`, or a name of the user's own with `functions`.
    parameter : float or None, default=None
        Slope of leaky_relu or alpha of elu; None takes the one of its form.
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
        return ELEMENTWISE[self.name].derivative_of if self.name in ELEMENTWISE else "output"


class DevicePair(NamedTuple):
    """An activation as the kernels call it."""

    function: Any
    """``function(z) -> a``"""
    derivative: Any
    """``derivative(a) -> da/dz`` or ``derivative(z) -> da/dz``"""


@cache
def elementary_functions(dt: Any) -> Any:
    """Return the elementary functions of `formulas` for the Numba type `dt`."""
    zero, one, half, root = dt(0), dt(1), dt(0.5), dt(math.sqrt(0.5))

    @device
    def logistic(z):
        return one / (one + exp(-z))

    @device
    def softplus(z):
        return (z if z > zero else zero) + log1p(exp(-abs(z)))

    @device
    def normal_distribution(z):
        return half * erfc(-z * root)  # it keeps relative precision in the left tail, where 1 + erf would cancel

    return SimpleNamespace(
        exp=exp, expm1=expm1, log=log, sqrt=sqrt, tanh=tanh, logistic=logistic, softplus=softplus,
        normal_distribution=normal_distribution,
    )  # fmt: skip


@cache
def device_pair(activation: Activation, dt: Any) -> DevicePair:
    """Return the device functions of an elementwise activation for the Numba type `dt`."""
    if activation.functions is not None:
        return _own(activation.functions, dt)
    if activation.name not in ELEMENTWISE:
        raise ValueError(f"got activation {activation.name!r}, expected one of {', '.join(ELEMENTWISE)}")
    form = ELEMENTWISE[activation.name]
    f, f_prime = map(device, form.build(dt, elementary_functions(dt)))
    p = dt(form.parameter if activation.parameter is None else activation.parameter)
    return DevicePair(device(lambda z: f(z, p)), device(lambda source: f_prime(source, p)))


def _own(functions: tuple[Callable[..., Any], Callable[..., Any]], dt: Any) -> DevicePair:
    # A user's literals may have widened the result; the cast brings it back.
    inner, inner_derivative = (device(getattr(f, "py_func", f)) for f in functions)
    return DevicePair(device(lambda z: dt(inner(z))), device(lambda s: dt(inner_derivative(s))))
