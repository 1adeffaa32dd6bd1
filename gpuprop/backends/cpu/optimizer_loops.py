"""The ten optimizers as single passes over the flat buffer; formulas and sources: `gpuprop.optimizers`.

All have one signature, so that a table of them serves: ``update(w, g, first, second, rate, other, h)``. `first` and
`second` are the state arrays in the order of the optimizer's ``slots`` (what it does not have is not touched), `h` its
hyperparameters in the order of its fields. What depends on the number t of the update, and not on the element, is in
the two rates, which ``rates(lr, t, h)`` gives: a buffer may then be updated in pieces at no extra cost.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.backends.cpu.compiling import compiled
from gpuprop.backends.cpu.elementary import smallest_normal
from gpuprop.maths.optimizers import OPTIMIZERS, Optimizer

__all__ = ["RATES", "UPDATES", "decay", "flush_subnormals", "hyperparameters", "is_built_in", "slots"]

Array = NDArray[Any]


# --- rates(lr, t, h) -------------------------------------------------------------------------------------------------


@compiled
def _given_rate(lr: float, t: int, h: Array) -> tuple[float, float]:
    return lr, 0.0


@compiled
def _adam_rate(lr: float, t: int, h: Array) -> tuple[float, float]:
    """``lr * sqrt(1 - b2^t) / (1 - b1^t)``: the averages begin at zero."""
    return lr * math.sqrt(1.0 - h[1] ** t) / (1.0 - h[0] ** t), 0.0


@compiled
def _adamax_rate(lr: float, t: int, h: Array) -> tuple[float, float]:
    """``lr / (1 - b1^t)``."""
    return lr / (1.0 - h[0] ** t), 0.0


@compiled
def _nadam_rates(lr: float, t: int, h: Array) -> tuple[float, float]:
    """Of the gradient and of the moment: `gpuprop.optimizers.NAdam`, whose `corrected_rates` these are."""
    product = 1.0
    for s in range(1, t + 1):
        product *= h[0] * (1.0 - 0.5 * 0.96 ** (s * h[3]))
        if product < 1e-17:
            break
    mu = h[0] * (1.0 - 0.5 * 0.96 ** (t * h[3]))
    next_mu = h[0] * (1.0 - 0.5 * 0.96 ** ((t + 1) * h[3]))
    corrected = lr * math.sqrt(1.0 - h[1] ** t)
    return corrected * (1.0 - mu) / (1.0 - product), corrected * next_mu / (1.0 - product * next_mu)


# --- update(w, g, first, second, rate, other, h) ---------------------------------------------------------------------


@compiled
def sgd(w: Array, g: Array, first: Array, second: Array, rate: float, other: float, h: Array) -> None:
    """``w -= lr * g``."""
    lr = w.dtype.type(rate)
    for i in range(w.size):
        w[i] -= lr * g[i]


@compiled
def momentum(w: Array, g: Array, first: Array, second: Array, rate: float, other: float, h: Array) -> None:
    """``v = mu * v - lr * g;  w += v``."""
    lr, mu = w.dtype.type(rate), w.dtype.type(h[0])
    for i in range(w.size):
        v = mu * first[i] - lr * g[i]
        first[i] = v
        w[i] += v


@compiled
def nesterov(w: Array, g: Array, first: Array, second: Array, rate: float, other: float, h: Array) -> None:
    """``v = mu * v - lr * g;  w += mu * v - lr * g``."""
    lr, mu = w.dtype.type(rate), w.dtype.type(h[0])
    for i in range(w.size):
        change = lr * g[i]
        v = mu * first[i] - change
        first[i] = v
        w[i] += mu * v - change


@compiled
def adagrad(w: Array, g: Array, first: Array, second: Array, rate: float, other: float, h: Array) -> None:
    """``s += g^2;  w -= lr * g / (sqrt(s) + epsilon)``."""
    lr, epsilon = w.dtype.type(rate), w.dtype.type(h[0])
    for i in range(w.size):
        s = first[i] + g[i] * g[i]
        first[i] = s
        w[i] -= lr * (g[i] / (math.sqrt(s) + epsilon))


@compiled
def adadelta(w: Array, g: Array, first: Array, second: Array, rate: float, other: float, h: Array) -> None:
    """``s`` averages g^2, ``u`` averages d^2;  ``d = sqrt((u + epsilon) / (s + epsilon)) * g;  w -= lr * d``."""
    dtype = w.dtype.type
    lr, rho, rest, epsilon = dtype(rate), dtype(h[0]), dtype(1.0 - h[0]), dtype(h[1])
    for i in range(w.size):
        s = rho * first[i] + rest * (g[i] * g[i])
        d = math.sqrt((second[i] + epsilon) / (s + epsilon)) * g[i]
        first[i] = s
        second[i] = rho * second[i] + rest * (d * d)
        w[i] -= lr * d


@compiled
def rmsprop(w: Array, g: Array, first: Array, second: Array, rate: float, other: float, h: Array) -> None:
    """``s = rho * s + (1 - rho) * g^2;  w -= lr * g / (sqrt(s) + epsilon)``."""
    dtype = w.dtype.type
    lr, rho, rest, epsilon = dtype(rate), dtype(h[0]), dtype(1.0 - h[0]), dtype(h[1])
    for i in range(w.size):
        s = rho * first[i] + rest * (g[i] * g[i])
        first[i] = s
        w[i] -= lr * (g[i] / (math.sqrt(s) + epsilon))


@compiled
def adam(w: Array, g: Array, first: Array, second: Array, rate: float, other: float, h: Array) -> None:
    """``m``, ``v`` average g and g^2;  ``w -= rate * m / (sqrt(v) + epsilon)``."""
    dtype = w.dtype.type
    lr, b1, rest1, b2, rest2, epsilon = (
        dtype(rate),
        dtype(h[0]),
        dtype(1.0 - h[0]),
        dtype(h[1]),
        dtype(1.0 - h[1]),
        dtype(h[2]),
    )
    for i in range(w.size):
        m = b1 * first[i] + rest1 * g[i]
        v = b2 * second[i] + rest2 * (g[i] * g[i])
        first[i] = m
        second[i] = v
        w[i] -= lr * (m / (math.sqrt(v) + epsilon))


@compiled
def adamax(w: Array, g: Array, first: Array, second: Array, rate: float, other: float, h: Array) -> None:
    """``u = max(b2 * u, |g| + epsilon);  w -= rate * m / u``."""
    dtype = w.dtype.type
    lr, b1, rest1, b2, epsilon = dtype(rate), dtype(h[0]), dtype(1.0 - h[0]), dtype(h[1]), dtype(h[2])
    for i in range(w.size):
        m = b1 * first[i] + rest1 * g[i]
        decayed, size = b2 * second[i], abs(g[i]) + epsilon
        u = decayed if decayed > size else size  # in this order a NaN in g stays
        first[i] = m
        second[i] = u
        w[i] -= lr * (m / u)


@compiled
def nadam(w: Array, g: Array, first: Array, second: Array, rate: float, other: float, h: Array) -> None:
    """``m``, ``v`` as in Adam;  ``w -= (moment_rate * m + gradient_rate * g) / (sqrt(v) + epsilon)``."""
    dtype = w.dtype.type
    gradient_rate, moment_rate = dtype(rate), dtype(other)
    b1, rest1, b2, rest2, epsilon = dtype(h[0]), dtype(1.0 - h[0]), dtype(h[1]), dtype(1.0 - h[1]), dtype(h[2])
    for i in range(w.size):
        m = b1 * first[i] + rest1 * g[i]
        v = b2 * second[i] + rest2 * (g[i] * g[i])
        first[i] = m
        second[i] = v
        w[i] -= (moment_rate * m + gradient_rate * g[i]) / (math.sqrt(v) + epsilon)


@compiled
def decay(weights: Array, share: float) -> None:
    """``w -= share * w``: AdamW's decay, before its Adam."""
    s = weights.dtype.type(share)
    for i in range(weights.size):
        weights[i] -= s * weights[i]


@compiled
def flush_subnormals(values: Array) -> None:
    """Set what is smaller than the smallest normal number to zero; `Optimizer.update` says why."""
    zero = values.dtype.type(0)
    tiny = smallest_normal(zero)
    for i in range(values.size):
        values[i] = zero if abs(values[i]) < tiny else values[i]


UPDATES: dict[str, Callable[..., None]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamax": adamax,
    "nadam": nadam,
    "adamw": adam,
}
"""The pass of each built-in optimizer by its name; AdamW is `decay` and then Adam."""

RATES: dict[str, Callable[[float, int, Array], tuple[float, float]]] = {
    name: {"adam": _adam_rate, "adamw": _adam_rate, "adamax": _adamax_rate, "nadam": _nadam_rates}.get(
        name, _given_rate
    )
    for name in UPDATES
}
"""The two rates of each built-in optimizer in update `t`, counted from 1."""


def is_built_in(optimizer: Optimizer) -> bool:
    """Whether this is one of the ten, and not a class of the user's that was derived from one."""
    return type(optimizer) is OPTIMIZERS.get(optimizer.name)


@functools.lru_cache(maxsize=64)
def hyperparameters(optimizer: Optimizer) -> NDArray[np.float64]:
    """Return the hyperparameters in the order of the fields."""
    return np.array([float(getattr(optimizer, field.name)) for field in fields(optimizer)], np.float64)


def slots(optimizer: Optimizer, state: Mapping[str, Array], stand_in: Array) -> tuple[Array, Array]:
    """Return the state arrays; what the optimizer does not have is `stand_in`, which is not touched."""
    arrays = [state[name] for name in optimizer.slots]
    first, second = (*arrays, stand_in, stand_in)[:2]
    return first, second
