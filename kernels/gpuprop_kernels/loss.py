"""What happens at the output layer, element by element: outputs, loss, dLoss/dz.

::

    canonical pair                  delta = a - y
    softmax with another loss       delta = a (g - sum_q g_q a_q)        g = dLoss/da
    any other                       delta = g f'(a)     (or f'(z))

A sample's loss is the sum of `term` over the outputs:

===========================  =====================================  ======================  =====================
loss                         term                                   from z, canonical pair  g
===========================  =====================================  ======================  =====================
squared_error                (a - y)^2 / 2                          (identity)              a - y
binary_cross_entropy         -y log a - (1 - y) log(1 - a)          softplus(z) - y z       (1-y)/(1-a) - y/a
categorical_cross_entropy    -y log a                               y (log total - z+peak)  -y / a
poisson                      y log(y / a) - y + a                   y (log y - z) - y + a   1 - y / a
absolute_error               abs r,  r = a - y                                              sign r
huber(D)                     m (abs r - m / 2),  m = min(abs r, D)                          r, within -D and D
pinball(Q)                   max(-Q r, (1 - Q) r)                                           -Q or 1 - Q, as sign r
===========================  =====================================  ======================  =====================

The canonical pairs (identity, logistic, softmax, exponential, in that order) take the loss from the net input, where
it is exact however saturated the output is; the others keep a off 0 and 1. For softmax, ``peak`` is the row's largest
net input and ``total`` the sum of exp(z - peak). A target row holds y in the compute dtype, one-hot or not. At the kink
of a robust loss g is 0; where r is not a number, so is g.

`output_rule` gives these as device functions, which the kernels of the output layer close over: `head`, for up to 16
classes, `rows` and `wide`, for any number. No launch, no shared memory, a few registers.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from gpuprop_kernels.activations import Activation, device_pair
from gpuprop_kernels.target import device, exp, log, log1p

__all__ = ["CANONICAL", "OutputRule", "output_rule"]

CANONICAL = {
    "squared_error": "identity",
    "binary_cross_entropy": "logistic",
    "categorical_cross_entropy": "softmax",
    "poisson": "exponential",
    "absolute_error": None,
    "huber": None,
    "pinball": None,
}
"""Each loss with the output activation for which delta = a - y, if there is one."""

PARAMETER = {"huber": 1.0, "pinball": 0.5}
"""D and Q where the name of the loss gives none, as ``"huber(1.35)"`` does."""


class OutputRule(NamedTuple):
    """An output activation and a loss, as device functions of one element."""

    normalised: bool
    """Whether the output is a softmax: peak and total are needed."""
    coupled: bool
    """Whether delta needs the sum over the row of `share`."""
    output: Any
    """``output(z, peak, total) -> a``"""
    term: Any
    """``term(z, a, y, peak, log_total) -> loss``"""
    share: Any
    """``share(a, y) -> g a``"""
    delta: Any
    """``delta(z, a, y, coupling) -> dLoss/dz``"""


@cache
def output_rule(activation: Activation, loss: str, dt: Any) -> OutputRule:
    """Return the rule of an output activation with a loss; which pairs are defined, the caller has checked."""
    name, parameter = _split(loss)
    if name not in CANONICAL:
        raise ValueError(f"got loss {loss!r}, expected one of {', '.join(CANONICAL)}")
    normalised, canonical = activation.name == "softmax", activation.name == CANONICAL[name]
    gradient = device(_gradient(name, parameter, dt))
    output = device(_output(activation, dt))
    term = device(_term_from_z(name, dt) if canonical else _term(name, parameter, dt))
    share = device(lambda a, y: gradient(a, y) * a)
    if canonical:
        delta = device(lambda z, a, y, coupling: a - y)
    elif normalised:
        delta = device(lambda z, a, y, coupling: a * (gradient(a, y) - coupling))
    else:
        derivative = device_pair(activation, dt).derivative
        if activation.derivative_of == "z":
            delta = device(lambda z, a, y, coupling: gradient(a, y) * derivative(z))
        else:
            delta = device(lambda z, a, y, coupling: gradient(a, y) * derivative(a))
    return OutputRule(normalised, normalised and not canonical, output, term, share, delta)


def _split(loss: str) -> tuple[str, float]:
    """Return the name of a loss and its parameter, 0 where it has none."""
    name, _, value = loss.partition("(")
    return name, float(value.rstrip(")")) if value else PARAMETER.get(name, 0.0)


def _output(activation: Activation, dt: Any) -> Any:
    if activation.name == "softmax":
        return lambda z, peak, total: exp(z - peak) / total
    function = device_pair(activation, dt).function
    return lambda z, peak, total: function(z)


def _inside(dt: Any) -> Any:
    """Return the clamp of an output to the open interval from 0 to 1, so that logarithms stay finite."""
    info = np.finfo(str(dt))
    low, high = dt(info.tiny), dt(1 - info.epsneg)
    return device(lambda a: low if a < low else (high if a > high else a))


def _gradient(loss: str, parameter: float, dt: Any) -> Any:
    zero, one, tiny, inside = dt(0), dt(1), dt(np.finfo(str(dt)).tiny), _inside(dt)
    low, high = {"huber": (dt(-parameter), dt(parameter)), "pinball": (dt(-parameter), dt(1 - parameter))}.get(
        loss, (dt(-1), one)
    )

    def binary(a, y):
        p = inside(a)
        return (one - y) / (one - p) - y / p

    def by_sign(a, y):
        r = a - y
        return high if r > zero else (low if r < zero else r)

    def limited(a, y):
        r = a - y
        return high if r > high else (low if r < low else r)

    return {
        "squared_error": lambda a, y: a - y,
        "binary_cross_entropy": binary,
        "categorical_cross_entropy": lambda a, y: -y / inside(a),
        "poisson": lambda a, y: one - y / (a if a > tiny else tiny),
        "absolute_error": by_sign,
        "huber": limited,
        "pinball": by_sign,
    }[loss]


def _times_log(dt: Any) -> Any:
    """Return x log y, which is 0 where x is 0."""
    zero = dt(0)
    return device(lambda x, y: zero if x == zero else x * log(y))


def _term(loss: str, parameter: float, dt: Any) -> Any:
    one, half, tiny = dt(1), dt(0.5), dt(np.finfo(str(dt)).tiny)
    limit, below, above = dt(parameter), dt(-parameter), dt(1 - parameter)
    inside, times_log = _inside(dt), _times_log(dt)

    def squared(z, a, y, peak, log_total):
        return half * (a - y) * (a - y)

    def binary(z, a, y, peak, log_total):
        p = inside(a)
        return -times_log(y, p) - times_log(one - y, one - p)

    def categorical(z, a, y, peak, log_total):
        return -times_log(y, inside(a))

    def poisson(z, a, y, peak, log_total):
        p = a if a > tiny else tiny
        return times_log(y, y) - y * log(p) - y + p

    def huber(z, a, y, peak, log_total):
        distance = abs(a - y)
        inner = limit if distance > limit else distance
        return inner * (distance - half * inner)

    def pinball(z, a, y, peak, log_total):
        under, over = below * (a - y), above * (a - y)
        return under if under > over else over

    return {
        "squared_error": squared,
        "binary_cross_entropy": binary,
        "categorical_cross_entropy": categorical,
        "poisson": poisson,
        "absolute_error": lambda z, a, y, peak, log_total: abs(a - y),
        "huber": huber,
        "pinball": pinball,
    }[loss]


def _term_from_z(loss: str, dt: Any) -> Any:
    zero = dt(0)
    times_log = _times_log(dt)

    def binary(z, a, y, peak, log_total):
        size = -z if z > zero else z
        return (z if z > zero else zero) + log1p(exp(size)) - y * z

    def categorical(z, a, y, peak, log_total):
        return zero if y == zero else y * (log_total - (z - peak))

    def poisson(z, a, y, peak, log_total):
        return times_log(y, y) - y * z - y + a

    return {
        "squared_error": _term("squared_error", 0.0, dt),
        "binary_cross_entropy": binary,
        "categorical_cross_entropy": categorical,
        "poisson": poisson,
    }[loss]
