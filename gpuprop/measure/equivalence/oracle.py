"""Backpropagation in float64 NumPy, written from the formulas and for nothing but being right.

Every backend is compared with this file. It imports nothing else of gpuprop, prefers the textbook formula to the
fast one, allocates freely, and takes plain lists of arrays: ``weights[l]`` of shape ``(fan_in, fan_out)``,
``biases[l]`` of shape ``(fan_out,)``, ``l`` counted from 0.

Sources: Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors", Nature 323 (1986),
for the deltas; the optimizers name theirs; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11,
for Philox.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Elementwise = Callable[[Array], Array]

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _logistic(z: Array) -> Array:
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1.0, e) / (1.0 + e))


def _normal_cdf(z: Array) -> Array:
    return np.asarray(0.5 * _erfc(-z / math.sqrt(2.0)))


def _normal_pdf(z: Array) -> Array:
    return np.asarray(np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi))


# name -> (f, f'), both functions of the net input z; leaky_relu with slope 0.01, elu with alpha 1.
ACTIVATIONS: dict[str, tuple[Elementwise, Elementwise]] = {
    "identity": (lambda z: z, np.ones_like),
    "logistic": (_logistic, lambda z: _logistic(z) * _logistic(-z)),
    "tanh": (np.tanh, lambda z: 1.0 / np.cosh(np.clip(z, -300, 300)) ** 2),
    "relu": (lambda z: np.maximum(z, 0.0), lambda z: (z > 0) * 1.0),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1.0, 0.01)),
    "elu": (
        lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
        lambda z: np.where(z > 0, 1.0, np.exp(np.minimum(z, 0))),
    ),
    "softplus": (lambda z: np.logaddexp(0.0, z), _logistic),
    "gelu": (lambda z: z * _normal_cdf(z), lambda z: _normal_cdf(z) + z * _normal_pdf(z)),
    "silu": (lambda z: z * _logistic(z), lambda z: _logistic(z) * (1.0 + z * _logistic(-z))),
    "selu": (  # Klambauer et al., "Self-normalizing neural networks", NIPS 2017
        lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(np.minimum(z, 0))),
        lambda z: 1.0507009873554805 * np.where(z > 0, 1.0, 1.6732632423543772 * np.exp(np.minimum(z, 0))),
    ),
    "mish": (  # Misra, "Mish: a self regularized non-monotonic activation function", arXiv:1908.08681
        lambda z: z * np.tanh(np.logaddexp(0.0, z)),
        lambda z: (
            np.tanh(np.logaddexp(0.0, z)) + z * _logistic(z) / np.cosh(np.minimum(np.logaddexp(0.0, z), 300)) ** 2
        ),
    ),
    "exponential": (np.exp, np.exp),
}

# Pairs for which dL/dz is a - y.
CANONICAL = {
    ("identity", "squared_error"),
    ("logistic", "binary_cross_entropy"),
    ("softmax", "categorical_cross_entropy"),
    ("exponential", "poisson"),
}


def activate(name: str, z: Array) -> Array:
    """Return f(z); softmax acts along the last axis."""
    if name == "softmax":
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        return np.asarray(e / e.sum(axis=-1, keepdims=True))
    return np.asarray(ACTIVATIONS[name][0](z))


def _xlogy(x: Array, y: Array) -> Array:
    """Return x log y, which is 0 where x is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x == 0, 0.0, x * np.log(y))


def robust_parameter(loss: str) -> float:
    """Return the number in ``"huber(1.35)"`` or ``"pinball(0.9)"``; without one they have 1 and 0.5."""
    return float(loss[:-1].split("(")[1]) if "(" in loss else {"huber": 1.0, "pinball": 0.5}[loss]


def sample_losses(loss: str, activation: str, z: Array, y: Array) -> Array:
    """Return the loss of each sample, shape (n,), summed over the outputs, from the output layer's net input."""
    a = activate(activation, z)
    if loss == "squared_error":
        terms = 0.5 * (a - y) ** 2
    elif loss == "binary_cross_entropy":
        if activation == "logistic":  # noqa: SIM108  (the formulas stand below each other)
            terms = np.logaddexp(0.0, z) - y * z
        else:
            terms = -_xlogy(y, a) - _xlogy(1.0 - y, 1.0 - a)
    elif loss == "categorical_cross_entropy":
        if activation == "softmax":
            peak = z.max(axis=1, keepdims=True)
            log_a = z - peak - np.log(np.exp(z - peak).sum(axis=1, keepdims=True))
            terms = -y * log_a
        else:
            terms = -_xlogy(y, a)
    elif loss == "poisson":
        terms = _xlogy(y, y) - (y * z if activation == "exponential" else _xlogy(y, a)) - y + a
    elif loss == "absolute_error":
        terms = np.abs(a - y)
    elif loss.startswith("huber"):
        limit, r = robust_parameter(loss), np.abs(a - y)
        terms = np.where(r <= limit, 0.5 * r**2, limit * (r - 0.5 * limit))
    elif loss.startswith("pinball"):
        q = robust_parameter(loss)
        terms = np.where(a < y, q * (y - a), (1.0 - q) * (a - y))
    else:
        raise KeyError(loss)
    return np.asarray(terms.sum(axis=1))


def loss_slope(loss: str, a: Array, y: Array) -> Array:
    """Return dLoss/da of the unweighted loss of each sample, shape (n, n_outputs)."""
    if loss == "squared_error":
        return np.asarray(a - y)
    if loss == "binary_cross_entropy":
        return np.asarray(-y / a + (1.0 - y) / (1.0 - a))
    if loss == "categorical_cross_entropy":
        return np.asarray(-y / a)
    if loss == "poisson":
        return np.asarray(1.0 - y / a)
    if loss == "absolute_error":
        return np.asarray(np.sign(a - y))
    if loss.startswith("huber"):
        limit = robust_parameter(loss)
        return np.where(np.abs(a - y) <= limit, a - y, limit * np.sign(a - y))
    if loss.startswith("pinball"):
        q = robust_parameter(loss)
        return np.where(a < y, -q, np.where(a > y, 1.0 - q, 0.0))
    raise KeyError(loss)


def output_delta(loss: str, activation: str, z: Array, y: Array, sample_weight: Array | None = None) -> Array:
    """Return dLoss/dz of the output layer for the weighted mean over samples."""
    a = activate(activation, z)
    w = np.ones(len(z)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if (activation, loss) in CANONICAL:
        delta = a - y
    elif activation == "softmax":
        g = loss_slope(loss, a, y)
        delta = a * (g - (g * a).sum(axis=1, keepdims=True))
    else:
        delta = loss_slope(loss, a, y) * ACTIVATIONS[activation][1](z)
    return np.asarray(delta * (w / w.sum())[:, None])


def hits(a: Array, y: Array) -> Array:
    """Return which samples are classified rightly, shape (n,): first maximum, or the side of 0.5 for one output."""
    if a.shape[1] == 1:
        return np.asarray((a[:, 0] > 0.5) == (y[:, 0] > 0.5))
    return np.asarray(a.argmax(axis=1) == y.argmax(axis=1))


class Pass(NamedTuple):
    """All the numbers of one forward and backward pass."""

    net_inputs: list[Array]
    activations: list[Array]
    """What the next layer sees, the (masked) input first."""
    deltas: list[Array]
    weight_grads: list[Array]
    bias_grads: list[Array]
    loss: float
    """Weighted mean of the data loss plus the penalties."""


def forward_backward(
    x: ArrayLike,
    y: ArrayLike,
    weights: Sequence[ArrayLike],
    biases: Sequence[ArrayLike],
    activations: Sequence[str],
    loss: str,
    *,
    sample_weight: ArrayLike | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    masks: Sequence[ArrayLike | None] | None = None,
) -> Pass:
    """Run a whole network forwards and backwards.

    Parameters
    ----------
    x, y : array-like of shape (n, n_features), (n, n_outputs)
    activations : sequence of str
        One name a layer, the output layer's last.
    masks : sequence of array-like or None
        Dropout factors, 0 or 1/keep: ``masks[0]`` for the input, ``masks[l]`` for hidden layer ``l``.
    """
    w = [np.asarray(m, dtype=np.float64) for m in weights]
    b = [np.asarray(v, dtype=np.float64) for v in biases]
    n_layers = len(w)
    m = [
        np.ones(1) if masks is None or masks[i] is None else np.asarray(masks[i], dtype=np.float64)
        for i in range(n_layers)
    ]
    target = np.asarray(y, dtype=np.float64)
    sw = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)

    a = [np.asarray(x, dtype=np.float64) * m[0]]
    z: list[Array] = []
    for i in range(n_layers):
        z.append(a[i] @ w[i] + b[i])
        a.append(activate(activations[i], z[i]) * (m[i + 1] if i + 1 < n_layers else 1.0))

    deltas = [output_delta(loss, activations[-1], z[-1], target, sw)]
    for i in range(n_layers - 1, 0, -1):
        error = deltas[0] @ w[i].T
        deltas.insert(0, error * m[i] * ACTIVATIONS[activations[i - 1]][1](z[i - 1]))

    weight_grads = [a[i].T @ deltas[i] + l2 * w[i] + l1 * np.sign(w[i]) for i in range(n_layers)]
    bias_grads = [d.sum(axis=0) for d in deltas]
    per_sample = sample_losses(loss, activations[-1], z[-1], target)
    share = np.full(len(per_sample), 1 / len(per_sample)) if sw is None else sw / sw.sum()
    penalty = sum(0.5 * l2 * float((v * v).sum()) + l1 * float(np.abs(v).sum()) for v in w)
    return Pass(z, a, deltas, weight_grads, bias_grads, float(per_sample @ share) + penalty)


# --------------------------------------------------------------------------------------------------- optimizers
# Each takes parameters p, gradients g, the state s (a dict of arrays made by `optimizer_state`, changed in place),
# the learning rate, the step t counted from 1 and the hyperparameters; each returns the new parameters.

OPTIMIZER_SLOTS: dict[str, tuple[str, ...]] = {
    "sgd": (),
    "momentum": ("v",),
    "nesterov": ("v",),
    "adagrad": ("s",),
    "adadelta": ("s", "d"),
    "rmsprop": ("s",),
    "adam": ("m", "v"),
    "adamax": ("m", "u"),
    "nadam": ("m", "v"),
    "adamw": ("m", "v"),
    "lion": ("m",),
}


def optimizer_state(name: str, n: int) -> dict[str, Array]:
    """Return the zero state of an optimizer for ``n`` parameters."""
    return {slot: np.zeros(n) for slot in OPTIMIZER_SLOTS[name]}


def optimize(
    name: str, p: Array, g: Array, s: dict[str, Array], rate: float, t: int, n_weights: int, **hyper: float
) -> Array:
    """Return the parameters after one update; ``adamw`` and ``lion`` decay the first ``n_weights``, not the biases."""
    h: dict[str, float] = {
        "momentum": 0.9, "rho": 0.9, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01,
        "momentum_decay": 0.004,
    } | hyper  # fmt: skip
    b1, b2, eps, rho = h["beta_1"], h["beta_2"], h["epsilon"], h["rho"]
    if name == "sgd":
        return p - rate * g
    if name in ("momentum", "nesterov"):
        s["v"] = h["momentum"] * s["v"] - rate * g
        return p + (s["v"] if name == "momentum" else h["momentum"] * s["v"] - rate * g)
    if name == "adagrad":  # Duchi, Hazan & Singer, JMLR 12 (2011)
        s["s"] = s["s"] + g**2
        return p - rate * g / (np.sqrt(s["s"]) + eps)
    if name == "rmsprop":  # Tieleman & Hinton, Coursera lecture 6.5 (2012)
        s["s"] = rho * s["s"] + (1 - rho) * g**2
        return p - rate * g / (np.sqrt(s["s"]) + eps)
    if name == "adadelta":  # Zeiler, arXiv:1212.5701
        s["s"] = rho * s["s"] + (1 - rho) * g**2
        change = np.sqrt(s["d"] + eps) / np.sqrt(s["s"] + eps) * g
        s["d"] = rho * s["d"] + (1 - rho) * change**2
        return p - rate * change
    if name == "lion":  # Chen et al., arXiv:2302.06675, algorithm 2
        direction = np.sign(b1 * s["m"] + (1 - b1) * g)
        s["m"] = b2 * s["m"] + (1 - b2) * g
        moved: Array = p - rate * (direction + np.where(np.arange(len(p)) < n_weights, h["weight_decay"], 0.0) * p)
        return moved
    s["m"] = b1 * s["m"] + (1 - b1) * g
    if name == "adamax":  # Kingma & Ba, arXiv:1412.6980, section 7.1
        s["u"] = np.maximum(b2 * s["u"], np.abs(g) + eps)
        return p - rate / (1 - b1**t) * s["m"] / s["u"]
    s["v"] = b2 * s["v"] + (1 - b2) * g**2
    corrected: float = rate * math.sqrt(1 - b2**t) / (1 - b1**t)
    if name == "adam":  # the same paper, the end of section 2: epsilon as scikit-learn places it
        return p - corrected * s["m"] / (np.sqrt(s["v"]) + eps)
    if name == "nadam":  # Dozat, ICLR workshop 2016, algorithm 8, with PyTorch's schedule of the momentum
        mu = [b1 * (1 - 0.5 * 0.96 ** (i * h["momentum_decay"])) for i in range(1, t + 2)]
        share: Array = mu[t] / (1 - math.prod(mu)) * s["m"] + (1 - mu[t - 1]) / (1 - math.prod(mu[:t])) * g
        return p - rate * math.sqrt(1 - b2**t) * share / (np.sqrt(s["v"]) + eps)
    if name == "adamw":  # Loshchilov & Hutter, arXiv:1711.05101
        decay = np.where(np.arange(len(p)) < n_weights, rate * h["weight_decay"], 0.0)
        new: Array = p - decay * p - corrected * s["m"] / (np.sqrt(s["v"]) + eps)
        return new
    raise KeyError(name)


def clip_by_norm(g: Array, max_norm: float) -> Array:
    """Return g scaled down to the norm ``max_norm`` where it is longer."""
    norm = math.sqrt(float(g @ g))
    return g * (max_norm / norm) if norm > max_norm else g


def limit_incoming_norm(w: Array, max_norm: float) -> Array:
    """Return weights (fan_in, fan_out) with each column scaled down to at most ``max_norm``."""
    norms = np.sqrt((w * w).sum(axis=0))
    return np.asarray(w * np.where(norms > max_norm, max_norm / np.where(norms > 0, norms, 1.0), 1.0))


# ------------------------------------------------------------------------------------------------------ dropout
def philox4x32(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the four words of Philox4x32-10 in Python integers (Salmon et al., SC11)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    low = 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & low, (p0 >> 32) ^ c3 ^ k1, p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return c0, c1, c2, c3


def dropout_mask(rows: int, columns: int, keep: float, seed: int, layer: int, step: int) -> Array:
    """Return the dropout factors (0 or 1/keep) of one layer, shape (rows, columns)."""
    key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
    bound = round(keep * 2**24)
    words = [[philox4x32((c >> 2, r, layer, step), key)[c & 3] >> 8 for c in range(columns)] for r in range(rows)]
    return np.where(np.array(words).reshape(rows, columns) < bound, 1.0 / keep, 0.0)
