"""Activations: ``f(z, p)`` and ``f'(a, p)`` or ``f'(z, p)``, of one number and of the activation's parameter p.

The derivative is taken from the output a wherever the output determines it, because then a layer need not keep its net
input z. Those that are not monotonic take z. Every form passes NaN on: a training that has diverged is known by it.

p is the slope of leaky_relu or the alpha of elu; the others ignore it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["ELEMENTWISE", "Elementwise"]

Scalar = Callable[..., Any]


class Elementwise(NamedTuple):
    """The scalar form of an activation that works number by number."""

    build: Callable[[Any, Any], tuple[Scalar, Scalar]]
    """``build(dt, e) -> (f, derivative)``"""
    derivative_of: str
    """What the derivative takes: ``"output"`` or ``"z"``."""
    parameter: float
    """p where the name gives none."""
    hidden: bool
    """Whether a hidden layer may use it."""


ELEMENTWISE: dict[str, Elementwise] = {}
"""The forms by name. Softmax is not among them: it works on a whole row."""


def _form(derivative_of: str = "output", parameter: float = 0.0, *, hidden: bool = True) -> Callable[[Any], Any]:
    """Enter a builder into the table under its own name; a decorator."""

    def enter(build: Any) -> Any:
        ELEMENTWISE[build.__name__] = Elementwise(build, derivative_of, parameter, hidden)
        return build

    return enter


@_form()
def identity(dt: Any, e: Any) -> tuple[Scalar, Scalar]:
    """``z``, and 1."""
    one = dt(1)

    def f(z, p):
        return z

    def derivative(a, p):
        return one

    return f, derivative


@_form()
def logistic(dt: Any, e: Any) -> tuple[Scalar, Scalar]:
    """``1 / (1 + exp(-z))``, and ``a (1 - a)``."""
    one, logistic = dt(1), e.logistic

    def f(z, p):
        return logistic(z)

    def derivative(a, p):
        return a * (one - a)

    return f, derivative


@_form()
def tanh(dt: Any, e: Any) -> tuple[Scalar, Scalar]:
    """``tanh(z)``, and ``(1 - a) (1 + a)``."""
    one, tanh = dt(1), e.tanh

    def f(z, p):
        return tanh(z)

    def derivative(a, p):
        return (one - a) * (one + a)

    return f, derivative


@_form()
def relu(dt: Any, e: Any) -> tuple[Scalar, Scalar]:
    """``max(0, z)``, and 1 where ``a > 0``, else 0."""
    zero, one = dt(0), dt(1)

    def f(z, p):
        return zero if z < zero else z  # asked in this way, NaN stays NaN

    def derivative(a, p):
        return one if a > zero else zero

    return f, derivative


@_form(parameter=0.01)
def leaky_relu(dt: Any, e: Any) -> tuple[Scalar, Scalar]:
    """``z`` where ``z > 0``, else ``p z``; and 1 where ``a > 0``, else p."""
    zero, one = dt(0), dt(1)

    def f(z, p):
        return p * z if z < zero else z

    def derivative(a, p):
        return one if a > zero else p

    return f, derivative


@_form(parameter=1.0)
def elu(dt: Any, e: Any) -> tuple[Scalar, Scalar]:
    """``z`` where ``z > 0``, else ``p (exp(z) - 1)``; and 1 where ``a > 0``, else ``a + p``."""
    zero, one, expm1 = dt(0), dt(1), e.expm1

    def f(z, p):
        return p * expm1(z) if z < zero else z

    def derivative(a, p):
        return one if a > zero else a + p

    return f, derivative


@_form()
def softplus(dt: Any, e: Any) -> tuple[Scalar, Scalar]:
    """``log(1 + exp(z))``, and ``1 - exp(-a)``."""
    softplus, expm1 = e.softplus, e.expm1

    def f(z, p):
        return softplus(z)

    def derivative(a, p):
        return -expm1(-a)

    return f, derivative


@_form("z")
def gelu(dt: Any, e: Any) -> tuple[Scalar, Scalar]:
    """``z Phi(z)``, and ``Phi(z) + z phi(z)``: the normal distribution function and its density."""
    minus_half, density, exp, distribution = dt(-0.5), dt(1 / math.sqrt(2 * math.pi)), e.exp, e.normal_distribution

    def f(z, p):
        return z * distribution(z)

    def derivative(z, p):
        return distribution(z) + z * (exp(minus_half * z * z) * density)

    return f, derivative


@_form("z")
def silu(dt: Any, e: Any) -> tuple[Scalar, Scalar]:
    """``z s``, and ``s (1 + z (1 - s))``, with ``s = logistic(z)``."""
    one, logistic = dt(1), e.logistic

    def f(z, p):
        return z * logistic(z)

    def derivative(z, p):
        s = logistic(z)
        return s * (one + z * (one - s))

    return f, derivative


@_form()
def selu(dt: Any, e: Any) -> tuple[Scalar, Scalar]:
    """``scale z`` where ``z > 0``, else ``scale alpha (exp(z) - 1)``; and scale where ``a > 0``, else what a lacks."""
    zero, scale, least, expm1 = dt(0), dt(1.0507009873554805), dt(1.0507009873554805 * 1.6732632423543772), e.expm1

    def f(z, p):
        return least * expm1(z) if z < zero else scale * z

    def derivative(a, p):
        return scale if a > zero else a + least

    return f, derivative


@_form("z")
def mish(dt: Any, e: Any) -> tuple[Scalar, Scalar]:
    """``z t``, and ``t + z logistic(z) (1 - t^2)``, with ``t = tanh(softplus(z))``, by one exponential w = exp(z).

    With n = w (w + 2): ``t = n / (n + 2)`` and ``logistic(z) (1 - t^2) = 4 w (w + 1) / (n + 2)^2``. From z = 20 on, t
    is 1 in float64, too.
    """
    one, two, four, limit, exp = dt(1), dt(2), dt(4), dt(20), e.exp

    def f(z, p):
        w = exp(limit if z > limit else z)
        n = w * (w + two)
        return z * (n / (n + two))

    def derivative(z, p):
        x = limit if z > limit else z
        w = exp(x)
        n = w * (w + two)
        inverse = one / (n + two)
        return inverse * (n + x * (four * w * (w + one)) * inverse)

    return f, derivative


@_form(hidden=False)
def exponential(dt: Any, e: Any) -> tuple[Scalar, Scalar]:
    """``exp(z)``, and a. It saturates at the fourth root of the largest number, so that squares stay finite."""
    limit, exp = dt(0.25 * math.log(float(np.finfo(str(dt)).max))), e.exp

    def f(z, p):
        return exp(limit if z > limit else z)

    def derivative(a, p):
        return a

    return f, derivative
