"""Optimizers: ``rule(p, g, s, t, c) -> (p, s, t)`` of one parameter, and the numbers c of one update.

p is the parameter, g its gradient, s and t are what the optimizer remembers of it: ``arrays`` says how many of the two
it has, and what it has not is handed on. ``numbers(rate, n, h)`` gives c for update number n, counted from 1, from the
learning rate and the hyperparameters h: in float64 and once an update, so that bias corrections and the like cost no
element anything, and a schedule of rates needs no new code. ``c[0]`` is the rate with all corrections in it. Where
the rule ``decays``, ``c[1]`` is the share by which a weight decays, and 0 for a bias.

Both are plain Python; `numbers` is compiled into the epochs of a CPU as well, and is called on the host for CUDA and by
the optimizers in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["MOST_NUMBERS", "RULES", "Rule"]

Numbers = tuple[float, ...]
Scalar = Callable[..., Any]

MOST_NUMBERS = 7
"""Numbers that c may have."""


class Rule(NamedTuple):
    """The scalar form of an optimizer."""

    build: Callable[[Any, Any], Scalar]
    """``build(dt, e) -> rule``"""
    numbers: Callable[[float, int, Any], Numbers]
    arrays: int
    hyperparameters: tuple[str, ...]
    """Their names in the order of h."""
    decays: bool


RULES: dict[str, Rule] = {}
"""The forms by name."""


def _form(
    numbers: Callable[[float, int, Any], Numbers], arrays: int, *hyperparameters: str, decays: bool = False
) -> Callable[[Any], Any]:
    """Enter a builder into the table under its own name; a decorator."""

    def enter(build: Any) -> Any:
        RULES[build.__name__] = Rule(build, numbers, arrays, hyperparameters, decays)
        return build

    return enter


def sgd_numbers(rate: float, n: int, h: Any) -> Numbers:
    """The rate."""
    return (rate,)


@_form(sgd_numbers, 0)
def sgd(dt: Any, e: Any) -> Scalar:
    """``p -= rate g``."""

    def rule(p, g, s, t, c):
        return p - c[0] * g, s, t

    return rule


def momentum_numbers(rate: float, n: int, h: Any) -> Numbers:
    """The rate, and the momentum."""
    return rate, h[0]


@_form(momentum_numbers, 1, "momentum")
def momentum(dt: Any, e: Any) -> Scalar:
    """``s = mu s - rate g;  p += s``."""

    def rule(p, g, s, t, c):
        rate, mu = c[0], c[1]
        v = mu * s - rate * g
        return p + v, v, t

    return rule


@_form(momentum_numbers, 1, "momentum")
def nesterov(dt: Any, e: Any) -> Scalar:
    """``s = mu s - rate g;  p += mu s - rate g``."""

    def rule(p, g, s, t, c):
        rate, mu = c[0], c[1]
        change = rate * g
        v = mu * s - change
        return p + (mu * v - change), v, t

    return rule


def adagrad_numbers(rate: float, n: int, h: Any) -> Numbers:
    """The rate, and epsilon."""
    return rate, h[0]


@_form(adagrad_numbers, 1, "epsilon")
def adagrad(dt: Any, e: Any) -> Scalar:
    """``s += g^2;  p -= rate g / (sqrt(s) + epsilon)``."""
    sqrt = e.sqrt

    def rule(p, g, s, t, c):
        rate, epsilon = c[0], c[1]
        v = s + g * g
        return p - rate * (g / (sqrt(v) + epsilon)), v, t

    return rule


def averaged_numbers(rate: float, n: int, h: Any) -> Numbers:
    """The rate, rho and what is left of 1, and epsilon."""
    return rate, h[0], 1.0 - h[0], h[1]


@_form(averaged_numbers, 2, "rho", "epsilon")
def adadelta(dt: Any, e: Any) -> Scalar:
    """``s`` averages g^2, ``t`` averages d^2;  ``d = sqrt((t + epsilon) / (s + epsilon)) g;  p -= rate d``."""
    sqrt = e.sqrt

    def rule(p, g, s, t, c):
        rate, rho, rest, epsilon = c[0], c[1], c[2], c[3]
        v = rho * s + rest * (g * g)
        d = sqrt((t + epsilon) / (v + epsilon)) * g
        return p - rate * d, v, rho * t + rest * (d * d)

    return rule


@_form(averaged_numbers, 1, "rho", "epsilon")
def rmsprop(dt: Any, e: Any) -> Scalar:
    """``s`` averages g^2;  ``p -= rate g / (sqrt(s) + epsilon)``."""
    sqrt = e.sqrt

    def rule(p, g, s, t, c):
        rate, rho, rest, epsilon = c[0], c[1], c[2], c[3]
        v = rho * s + rest * (g * g)
        return p - rate * (g / (sqrt(v) + epsilon)), v, t

    return rule


def adam_numbers(rate: float, n: int, h: Any) -> Numbers:
    """``rate sqrt(1 - b2^n) / (1 - b1^n)``, because the averages begin at zero; b1, b2 and their rests; epsilon."""
    corrected = rate * math.sqrt(1.0 - h[1] ** n) / (1.0 - h[0] ** n)
    return corrected, h[0], 1.0 - h[0], h[1], 1.0 - h[1], h[2]


@_form(adam_numbers, 2, "beta_1", "beta_2", "epsilon")
def adam(dt: Any, e: Any) -> Scalar:
    """``s`` averages g, ``t`` averages g^2;  ``p -= rate s / (sqrt(t) + epsilon)``."""
    sqrt = e.sqrt

    def rule(p, g, s, t, c):
        rate, beta_1, rest_1, beta_2, rest_2, epsilon = c[0], c[1], c[2], c[3], c[4], c[5]
        m = beta_1 * s + rest_1 * g
        v = beta_2 * t + rest_2 * (g * g)
        return p - rate * (m / (sqrt(v) + epsilon)), m, v

    return rule


def adamax_numbers(rate: float, n: int, h: Any) -> Numbers:
    """``rate / (1 - b1^n)``; b1 and its rest, b2, epsilon."""
    return rate / (1.0 - h[0] ** n), h[0], 1.0 - h[0], h[1], h[2]


@_form(adamax_numbers, 2, "beta_1", "beta_2", "epsilon")
def adamax(dt: Any, e: Any) -> Scalar:
    """``s`` averages g;  ``t = max(b2 t, |g| + epsilon);  p -= rate s / t``."""

    def rule(p, g, s, t, c):
        rate, beta_1, rest_1, beta_2, epsilon = c[0], c[1], c[2], c[3], c[4]
        m = beta_1 * s + rest_1 * g
        decayed, size = beta_2 * t, abs(g) + epsilon
        u = decayed if decayed > size else size  # in this order a NaN in g stays
        return p - rate * (m / u), m, u

    return rule


def nadam_numbers(rate: float, n: int, h: Any) -> Numbers:
    """The rate of the moment; b1, b2 and their rests, epsilon; the rate of the gradient, with a minus.

    With ``mu_n = b1 (1 - 0.96^(n decay) / 2)`` and ``M_n = mu_1 ... mu_n`` they are ``rate sqrt(1 - b2^n)`` times
    ``mu_(n+1) / (1 - M_(n+1))`` and ``(1 - mu_n) / (1 - M_n)``. M_n is computed anew, so that it depends on n alone and
    a resumed run needs no memory. It is only used as 1 - M_n, and the product stops at 1e-17, where that has become 1:
    with the usual hyperparameters after some 50 factors.
    """
    product = 1.0
    for k in range(1, n + 1):
        product *= h[0] * (1.0 - 0.5 * 0.96 ** (k * h[3]))
        if product < 1e-17:
            break
    mu = h[0] * (1.0 - 0.5 * 0.96 ** (n * h[3]))
    following = h[0] * (1.0 - 0.5 * 0.96 ** ((n + 1) * h[3]))
    corrected = rate * math.sqrt(1.0 - h[1] ** n)
    of_gradient = corrected * (1.0 - mu) / (1.0 - product)
    of_moment = corrected * following / (1.0 - product * following)
    return of_moment, h[0], 1.0 - h[0], h[1], 1.0 - h[1], h[2], -of_gradient


@_form(nadam_numbers, 2, "beta_1", "beta_2", "epsilon", "momentum_decay")
def nadam(dt: Any, e: Any) -> Scalar:
    """``s``, ``t`` as in adam;  ``p -= (rate s + rate_g g) / (sqrt(t) + epsilon)``.

    The sum is written as a difference: LLVM may exchange the terms of a sum, and so choose which product it fuses.
    """
    sqrt = e.sqrt

    def rule(p, g, s, t, c):
        of_moment, beta_1, rest_1, beta_2, rest_2, epsilon, minus_of_gradient = c[0], c[1], c[2], c[3], c[4], c[5], c[6]
        m = beta_1 * s + rest_1 * g
        v = beta_2 * t + rest_2 * (g * g)
        return p - (of_moment * m - minus_of_gradient * g) / (sqrt(v) + epsilon), m, v

    return rule


def adamw_numbers(rate: float, n: int, h: Any) -> Numbers:
    """Adam's numbers, and behind the rate ``rate decay``."""
    corrected = rate * math.sqrt(1.0 - h[1] ** n) / (1.0 - h[0] ** n)
    return corrected, rate * h[3], h[0], 1.0 - h[0], h[1], 1.0 - h[1], h[2]


@_form(adamw_numbers, 2, "beta_1", "beta_2", "epsilon", "weight_decay", decays=True)
def adamw(dt: Any, e: Any) -> Scalar:
    """``p -= decay p``, then adam."""
    sqrt = e.sqrt

    def rule(p, g, s, t, c):
        rate, decay, beta_1, rest_1, beta_2, rest_2, epsilon = c[0], c[1], c[2], c[3], c[4], c[5], c[6]
        m = beta_1 * s + rest_1 * g
        v = beta_2 * t + rest_2 * (g * g)
        decayed = p - decay * p
        return decayed - rate * (m / (sqrt(v) + epsilon)), m, v

    return rule


def lion_numbers(rate: float, n: int, h: Any) -> Numbers:
    """The rate, ``rate decay``; b1 and b2, each with its rest."""
    return rate, rate * h[2], h[0], 1.0 - h[0], h[1], 1.0 - h[1]


@_form(lion_numbers, 1, "beta_1", "beta_2", "weight_decay", decays=True)
def lion(dt: Any, e: Any) -> Scalar:
    """``p -= decay p + rate sign(b1 s + (1 - b1) g)``;  ``s`` averages g. The sign of NaN is NaN."""
    zero, one, minus_one = dt(0), dt(1), dt(-1)

    def rule(p, g, s, t, c):
        rate, decay, beta_1, rest_1, beta_2, rest_2 = c[0], c[1], c[2], c[3], c[4], c[5]
        mixed = beta_1 * s + rest_1 * g
        sign = one if mixed > zero else (minus_one if mixed < zero else mixed)
        decayed = p - decay * p
        return decayed - rate * sign, beta_2 * s + rest_2 * g, t

    return rule
