"""Losses: what one output a with the target y adds to the loss of a sample, and the derivative of that by a.

===================  ==============================================================================================
``value(z, a, y)``   the term, from the output
``from_z(z, a, y)``  the term where the output activation is the canonical one: from the net input z, where it is exact
                     however saturated the output is. For a softmax z is the net input less the largest of its row,
                     and ``y log(sum of the exp(z) of the row)`` is still to be added.
``gradient(a, y)``   the derivative of the term by a; NaN where a is NaN
===================  ==============================================================================================

Logarithms are taken of outputs that are kept off 0 and 1 by the smallest steps of the dtype, so that they stay finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = ["LOSS_TERMS", "LossTerms", "Terms"]

Scalar = Callable[..., Any]


class Terms(NamedTuple):
    """The functions of a loss for one dtype."""

    value: Scalar
    from_z: Scalar
    gradient: Scalar


class LossTerms(NamedTuple):
    """The scalar form of a loss."""

    build: Callable[[Any, Any, float], Terms]
    """``build(dt, e, parameter) -> Terms``"""
    canonical: str | None
    """The output activation for which the delta is ``a - y``, if there is one."""
    parameter: float
    """The parameter where the name gives none, as ``"huber(1.35)"`` does."""


LOSS_TERMS: dict[str, LossTerms] = {}
"""The forms by name."""


def _form(canonical: str | None = None, parameter: float = 0.0) -> Callable[[Any], Any]:
    """Enter a builder into the table under its own name; a decorator."""

    def enter(build: Any) -> Any:
        LOSS_TERMS[build.__name__] = LossTerms(build, canonical, parameter)
        return build

    return enter


def _ends(dt: Any) -> tuple[Any, Any]:
    """Return the numbers next to 0 and to 1 between which an output is kept."""
    info = np.finfo(str(dt))
    return dt(info.tiny), dt(1 - info.epsneg)


@_form("identity")
def squared_error(dt: Any, e: Any, parameter: float) -> Terms:
    """``(a - y)^2 / 2``."""
    half = dt(0.5)

    def value(z, a, y):
        return half * (a - y) * (a - y)

    def gradient(a, y):
        return a - y

    return Terms(value, value, gradient)


@_form("logistic")
def binary_cross_entropy(dt: Any, e: Any, parameter: float) -> Terms:
    """``-y log(a) - (1 - y) log(1 - a)``."""
    zero, one, (low, high), log, softplus = dt(0), dt(1), _ends(dt), e.log, e.softplus

    def value(z, a, y):
        p = low if a < low else (high if a > high else a)
        rest = one - y
        return -((zero if y == zero else y * log(p)) + (zero if rest == zero else rest * log(one - p)))

    def from_z(z, a, y):
        return softplus(z) - y * z

    def gradient(a, y):
        p = low if a < low else (high if a > high else a)
        return (one - y) / (one - p) - y / p

    return Terms(value, from_z, gradient)


@_form("softmax")
def categorical_cross_entropy(dt: Any, e: Any, parameter: float) -> Terms:
    """``-y log(a)``."""
    zero, (low, high), log = dt(0), _ends(dt), e.log

    def value(z, a, y):
        p = low if a < low else (high if a > high else a)
        return -(zero if y == zero else y * log(p))

    def from_z(z, a, y):
        return -y * z

    def gradient(a, y):
        return -y / (low if a < low else (high if a > high else a))

    return Terms(value, from_z, gradient)


@_form("exponential")
def poisson(dt: Any, e: Any, parameter: float) -> Terms:
    """``y log(y / a) - y + a``."""
    zero, one, (low, _), log = dt(0), dt(1), _ends(dt), e.log

    def value(z, a, y):
        return y * (log(one if y == zero else y) - log(low if a < low else a)) - y + a

    def from_z(z, a, y):
        return y * (log(one if y == zero else y) - z) - y + a

    def gradient(a, y):
        return one - y / (low if a < low else a)

    return Terms(value, from_z, gradient)


def _by_sign(dt: Any, below: float, above: float) -> Scalar:
    """Return the gradient that is `below` where ``a < y``, `above` where ``a > y``, and 0 where they are equal."""
    zero, low, high = dt(0), dt(below), dt(above)

    def gradient(a, y):
        return high if a > y else (low if a < y else (a - y) * zero)

    return gradient


@_form()
def absolute_error(dt: Any, e: Any, parameter: float) -> Terms:
    """``|a - y|``."""

    def value(z, a, y):
        return abs(a - y)

    return Terms(value, value, _by_sign(dt, -1.0, 1.0))


@_form(parameter=1.0)
def huber(dt: Any, e: Any, parameter: float) -> Terms:
    """``m (|a - y| - m / 2)`` with ``m = min(|a - y|, parameter)``."""
    half, limit, minus_limit = dt(0.5), dt(parameter), dt(-parameter)

    def value(z, a, y):
        distance = abs(a - y)
        inside = limit if distance > limit else distance
        return inside * (distance - half * inside)

    def gradient(a, y):
        r = a - y
        return limit if r > limit else (minus_limit if r < minus_limit else r)

    return Terms(value, value, gradient)


@_form(parameter=0.5)
def pinball(dt: Any, e: Any, parameter: float) -> Terms:
    """``q (y - a)`` where ``y > a``, else ``(1 - q) (a - y)``, with the quantile q as its parameter."""
    zero, quantile, rest = dt(0), dt(parameter), dt(parameter - 1.0)

    def value(z, a, y):
        above = y - a
        return quantile * above if above > zero else rest * above

    return Terms(value, value, _by_sign(dt, -parameter, 1.0 - parameter))
