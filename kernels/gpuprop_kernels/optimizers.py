"""The ten optimizers as device functions of one parameter.

Each is ``rule(p, g, s, t, c) -> (p, s, t)``: parameter, gradient, two state values (ignored where the optimizer has
fewer), and `c`, the numbers of this update: ``c[0]`` the rate, ``c[1]`` and ``c[2]`` decay factors, ``c[3]`` epsilon,
``c[4]`` the weight decay (0 for a bias), ``c[5]`` the rate of nadam's gradient. They come from ``scalars[slot]`` in
device memory (`update_scalars` makes them on the host in float64), so that a captured graph follows a schedule of
learning rates.

=========  ======================================================================================================
sgd        p -= lr g
momentum   s = mu s - lr g;  p += s
nesterov   s = mu s - lr g;  p += mu s - lr g
adagrad    s += g^2;  p -= lr g / (sqrt(s) + eps)
rmsprop    s = rho s + (1 - rho) g^2;  p -= lr g / (sqrt(s) + eps)
adadelta   s = rho s + (1 - rho) g^2;  h = g sqrt(t + eps) / sqrt(s + eps);  t = rho t + (1 - rho) h^2;  p -= lr h
adam       s = b1 s + (1 - b1) g;  t = b2 t + (1 - b2) g^2;  p -= lr sqrt(1 - b2^n) / (1 - b1^n) s / (sqrt(t) + eps)
adamax     s as in adam;  t = max(b2 t, |g| + eps);  p -= lr / (1 - b1^n) s / t
nadam      s, t as in adam;  h = mu_(n+1) / (1 - M_(n+1)) s + (1 - mu_n) / (1 - M_n) g,  M_n = mu_1 ... mu_n,
           mu_n = b1 (1 - 0.96^(n decay) / 2);  p -= lr sqrt(1 - b2^n) h / (sqrt(t) + eps)
adamw      adam, and p -= lr decay p for weights
=========  ======================================================================================================

Budget: no launch of their own; per parameter in float32 4 bytes read and written for p and for each of s and t that an
optimizer has (``STATE_ARRAYS``), 2 to some 20 instructions, up to 8 registers for each parameter in flight.

n counts the updates from 1. Sources are named in ``gpuprop.optimizers``.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop_kernels.target import device, sqrt

__all__ = ["SCALARS", "STATE_ARRAYS", "optimizer_rule", "update_scalars"]

STATE_ARRAYS = {
    "sgd": 0, "momentum": 1, "nesterov": 1, "adagrad": 1, "rmsprop": 1, "adadelta": 2, "adam": 2, "adamax": 2,
    "nadam": 2, "adamw": 2,
}  # fmt: skip
"""How many state arrays an optimizer has, each as long as the parameters."""

SCALARS = 8
"""Numbers of one slot of `scalars`: 1 / sum of the batch's sample weights, the six of `c`, one unused."""


def update_scalars(
    name: str,
    rate: float,
    step: int,
    *,
    inverse_weight: float = 1.0,
    momentum: float = 0.9,
    rho: float = 0.9,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
    momentum_decay: float = 0.004,
) -> NDArray[np.float64]:
    """Return one slot of `scalars` for update number `step` (from 1); hyperparameters an optimizer lacks are ignored.

    Parameters
    ----------
    name : str
        One of `STATE_ARRAYS`.
    rate : float
        The learning rate of this update.
    step : int
        The number of this update, from 1.
    inverse_weight : float
        1 / sum of the sample weights of the batch, which the loss kernels multiply their deltas by.
    """
    if name not in STATE_ARRAYS:
        raise ValueError(f"got optimizer {name!r}, expected one of {', '.join(STATE_ARRAYS)}")
    first, second = 1 - beta_1**step, 1 - beta_2**step
    gradient_share, moment_share = _nadam_shares(beta_1, momentum_decay, step) if name == "nadam" else (0.0, 0.0)
    constants = {
        "sgd": (rate,),
        "momentum": (rate, momentum),
        "nesterov": (rate, momentum),
        "adagrad": (rate, 0, 0, epsilon),
        "rmsprop": (rate, rho, 0, epsilon),
        "adadelta": (rate, rho, 0, epsilon),
        "adam": (rate * math.sqrt(second) / first, beta_1, beta_2, epsilon),
        "adamax": (rate / first, beta_1, beta_2, epsilon),
        "nadam": (
            rate * math.sqrt(second) * moment_share,
            beta_1,
            beta_2,
            epsilon,
            0.0,
            rate * math.sqrt(second) * gradient_share,
        ),
        "adamw": (rate * math.sqrt(second) / first, beta_1, beta_2, epsilon, rate * weight_decay),
    }[name]
    return np.array([inverse_weight, *constants, *[0.0] * (SCALARS - 1 - len(constants))])


def _nadam_shares(beta_1: float, decay: float, step: int) -> tuple[float, float]:
    """Return the factors of gradient and moment in nadam, bias corrections included.

    M_n is only used as 1 - M_n, so that its product may stop where that has become 1: after some 50 factors with the
    usual hyperparameters, however far the run has come, and a resumed run needs no memory of it.
    """

    def momentum(n: int) -> float:
        return beta_1 * (1 - 0.5 * math.pow(0.96, n * decay))

    product, n = 1.0, 0
    while n < step and product > 1e-17:
        n += 1
        product *= momentum(n)
    now, after = momentum(step), momentum(step + 1)
    return (1 - now) / (1 - product), after / (1 - product * after)


@cache
def optimizer_rule(name: str, dt: Any) -> Any:
    """Return the device function ``rule(p, g, s, t, c) -> (p, s, t)`` of an optimizer."""
    one = dt(1)

    def sgd(p, g, s, t, c):
        return p - c[0] * g, s, t

    def momentum(p, g, s, t, c):
        v = c[1] * s - c[0] * g
        return p + v, v, t

    def nesterov(p, g, s, t, c):
        v = c[1] * s - c[0] * g
        return p + (c[1] * v - c[0] * g), v, t

    def adagrad(p, g, s, t, c):
        v = s + g * g
        return p - c[0] * g / (sqrt(v) + c[3]), v, t

    def rmsprop(p, g, s, t, c):
        v = c[1] * s + (one - c[1]) * (g * g)
        return p - c[0] * g / (sqrt(v) + c[3]), v, t

    def adadelta(p, g, s, t, c):
        v = c[1] * s + (one - c[1]) * (g * g)
        h = sqrt(t + c[3]) / sqrt(v + c[3]) * g
        return p - c[0] * h, v, c[1] * t + (one - c[1]) * (h * h)

    def adam(p, g, s, t, c):
        m = c[1] * s + (one - c[1]) * g
        v = c[2] * t + (one - c[2]) * (g * g)
        return p - c[0] * m / (sqrt(v) + c[3]), m, v

    def adamax(p, g, s, t, c):
        m = c[1] * s + (one - c[1]) * g
        u, size = c[2] * t, abs(g) + c[3]
        u = size if size > u else u
        return p - c[0] * m / u, m, u

    def nadam(p, g, s, t, c):
        m = c[1] * s + (one - c[1]) * g
        v = c[2] * t + (one - c[2]) * (g * g)
        return p - (c[0] * m + c[5] * g) / (sqrt(v) + c[3]), m, v

    def adamw(p, g, s, t, c):
        m = c[1] * s + (one - c[1]) * g
        v = c[2] * t + (one - c[2]) * (g * g)
        return p - c[4] * p - c[0] * m / (sqrt(v) + c[3]), m, v

    rules = (sgd, momentum, nesterov, adagrad, rmsprop, adadelta, adam, adamax, nadam, adamw)
    return device({rule.__name__: rule for rule in rules}[name])
