"""The optimizers as their papers define them, in float64, for comparison with the package's.

Nothing here is incremental that the paper defines as a sum or a product: a velocity or a moment is formed from all
gradients so far. Each function takes the first parameters, shape (n,), all gradients, shape (steps, n), and the
rate of every step, and returns the parameters after every step, shape (steps, n).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def _walk(start: Array, changes: list[Array]) -> Array:
    return np.asarray(start + np.cumsum(np.array(changes), axis=0))


def _decayed_sum(terms: Array, decay: float) -> Array:
    """Sum of ``decay**age * term``, the last term having age 0."""
    ages = np.arange(len(terms))[::-1]
    return np.asarray((decay ** ages[:, None] * terms).sum(axis=0))


def sgd(start: Array, gradients: Array, rates: Array) -> Array:
    return _walk(start, [-rate * g for rate, g in zip(rates, gradients, strict=True)])


def momentum(start: Array, gradients: Array, rates: Array, mu: float) -> Array:
    impulses = -rates[:, None] * gradients
    return _walk(start, [_decayed_sum(impulses[: t + 1], mu) for t in range(len(rates))])


def nesterov(start: Array, gradients: Array, rates: Array, mu: float) -> Array:
    """Sutskever's form: the parameters are theta + mu * v, where theta follows v."""
    impulses = -rates[:, None] * gradients
    velocities = np.array([_decayed_sum(impulses[: t + 1], mu) for t in range(len(rates))])
    return np.asarray(start + np.cumsum(velocities, axis=0) + mu * velocities)


def adagrad(start: Array, gradients: Array, rates: Array, epsilon: float) -> Array:
    return _walk(
        start,
        [-rates[t] * gradients[t] / (np.linalg.norm(gradients[: t + 1], axis=0) + epsilon) for t in range(len(rates))],
    )


def adadelta(start: Array, gradients: Array, rates: Array, rho: float, epsilon: float) -> Array:
    """Zeiler's algorithm 1, RMS[x] = sqrt(E[x^2] + epsilon)."""
    changes: list[Array] = []
    for t in range(len(rates)):
        mean_square_gradient = (1 - rho) * _decayed_sum(gradients[: t + 1] ** 2, rho)
        past = np.array(changes).reshape(t, len(start))
        mean_square_change = (1 - rho) * _decayed_sum(past**2, rho)
        rms_gradient, rms_change = np.sqrt(mean_square_gradient + epsilon), np.sqrt(mean_square_change + epsilon)
        changes.append(-rms_change / rms_gradient * gradients[t])
    return _walk(start, [rate * change for rate, change in zip(rates, changes, strict=True)])


def rmsprop(start: Array, gradients: Array, rates: Array, rho: float, epsilon: float) -> Array:
    return _walk(
        start,
        [
            -rates[t] * gradients[t] / (np.sqrt((1 - rho) * _decayed_sum(gradients[: t + 1] ** 2, rho)) + epsilon)
            for t in range(len(rates))
        ],
    )


def _moments(gradients: Array, beta_1: float, beta_2: float) -> tuple[Array, Array]:
    return (1 - beta_1) * _decayed_sum(gradients, beta_1), (1 - beta_2) * _decayed_sum(gradients**2, beta_2)


def adam(
    start: Array, gradients: Array, rates: Array, beta_1: float, beta_2: float, epsilon: float, decay: Any = 0.0
) -> Array:
    """Algorithm 1 with hatted moments; its epsilon is the package's over sqrt(1 - beta_2^t).

    ``decay`` (a number or one per parameter) is AdamW's lambda: decoupled, times the rate.
    """
    w, path = start, []
    for t in range(1, len(rates) + 1):
        m, v = _moments(gradients[:t], beta_1, beta_2)
        m_hat, v_hat = m / (1 - beta_1**t), v / (1 - beta_2**t)
        epsilon_hat = epsilon / np.sqrt(1 - beta_2**t)
        w = w - rates[t - 1] * (m_hat / (np.sqrt(v_hat) + epsilon_hat) + decay * w)
        path.append(w)
    return np.array(path)


def adamax(start: Array, gradients: Array, rates: Array, beta_1: float, beta_2: float, epsilon: float) -> Array:
    """Equation 12 of the paper: the norm is the largest of the decayed magnitudes."""
    changes = []
    for t in range(1, len(rates) + 1):
        m_hat = (1 - beta_1) * _decayed_sum(gradients[:t], beta_1) / (1 - beta_1**t)
        ages = np.arange(t)[::-1]
        u = (beta_2 ** ages[:, None] * (np.abs(gradients[:t]) + epsilon)).max(axis=0)
        changes.append(-rates[t - 1] * m_hat / u)
    return _walk(start, changes)


def nadam(
    start: Array,
    gradients: Array,
    rates: Array,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    momentum_decay: float,
) -> Array:
    """Algorithm 8 of the paper with beta_1 as the averaging constant, as PyTorch reads it."""
    mu = beta_1 * (1 - 0.5 * 0.96 ** (np.arange(1, len(rates) + 2) * momentum_decay))
    changes = []
    for t in range(1, len(rates) + 1):
        m, v = _moments(gradients[:t], beta_1, beta_2)
        g_hat = gradients[t - 1] / (1 - np.prod(mu[:t]))
        m_hat = m / (1 - np.prod(mu[: t + 1]))
        m_bar = (1 - mu[t - 1]) * g_hat + mu[t] * m_hat
        epsilon_hat = epsilon / np.sqrt(1 - beta_2**t)
        changes.append(-rates[t - 1] * m_bar / (np.sqrt(v / (1 - beta_2**t)) + epsilon_hat))
    return _walk(start, changes)


REFERENCES: dict[str, Callable[..., Array]] = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adam,
    "adamax": adamax,
    "nadam": nadam,
}
