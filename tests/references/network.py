"""A multilayer perceptron as a textbook writes it: one sample at a time, scalar functions, float64, plain lists.

Shares no code with the package; an activation that has no line here is that of the package's float64 oracle, which
shares none either. Slow on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from gpuprop.measure.equivalence import oracle

Vector = NDArray[np.float64]


def logistic(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))


def softplus(z: float) -> float:
    return z + math.log1p(math.exp(-z)) if z > 0 else math.log1p(math.exp(z))


Pair = tuple[Callable[[float], float], Callable[[float], float]]


class _Scalar(dict[str, Pair]):
    """Activations by name; those that are missing come from the oracle."""

    def __missing__(self, name: str) -> Pair:
        f, slope = oracle.ACTIVATIONS[name]
        return lambda z: float(f(np.asarray(z))), lambda z: float(slope(np.asarray(z)))


#: f(z) and f'(z), both from the net input.
SCALAR = _Scalar({
    "identity": (lambda z: z, lambda z: 1.0),
    "logistic": (logistic, lambda z: logistic(z) * logistic(-z)),
    "tanh": (math.tanh, lambda z: 1.0 / math.cosh(z) ** 2 if abs(z) < 300 else 0.0),
    "relu": (lambda z: z if z > 0 else 0.0, lambda z: 1.0 if z > 0 else 0.0),
    "leaky_relu": (lambda z: z if z > 0 else 0.01 * z, lambda z: 1.0 if z > 0 else 0.01),
    "elu": (lambda z: z if z > 0 else math.expm1(z), lambda z: 1.0 if z > 0 else math.exp(z)),
    "softplus": (softplus, logistic),
    "gelu": (
        lambda z: 0.5 * z * math.erfc(-z / math.sqrt(2)),
        lambda z: 0.5 * math.erfc(-z / math.sqrt(2)) + z * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi),
    ),
    "silu": (lambda z: z * logistic(z), lambda z: logistic(z) * (1.0 + z * logistic(-z))),
    "exponential": (math.exp, math.exp),
})  # fmt: skip


def activate(name: str, z: Vector) -> Vector:
    if name == "softmax":
        powers = [math.exp(value - max(z)) for value in z]
        return np.array([power / sum(powers) for power in powers])
    return np.array([SCALAR[name][0](value) for value in z])


def jacobian(name: str, z: Vector) -> NDArray[np.float64]:
    """da_j/dz_k, a full matrix for every activation."""
    if name == "softmax":
        a = activate(name, z)
        return np.diag(a) - np.outer(a, a)
    return np.diag([SCALAR[name][1](value) for value in z])


def sample_loss(name: str, a: Vector, y: Vector) -> float:
    pairs = [(float(aj), float(yj)) for aj, yj in zip(a, y, strict=True)]
    if name == "squared_error":
        return sum((aj - yj) ** 2 / 2 for aj, yj in pairs)
    if name == "binary_cross_entropy":
        return -sum(yj * math.log(aj) + (1 - yj) * math.log(1 - aj) for aj, yj in pairs)
    if name in ("absolute_error", "pinball"):
        return sum(abs(aj - yj) for aj, yj in pairs) / (2 if name == "pinball" else 1)
    if name == "huber":
        return sum(r * r / 2 if r < 1 else r - 0.5 for r in (abs(aj - yj) for aj, yj in pairs))
    if name == "categorical_cross_entropy":
        return -sum(yj * math.log(aj) for aj, yj in pairs)
    assert name == "poisson"
    return sum((yj * math.log(yj / aj) if yj > 0 else 0.0) - yj + aj for aj, yj in pairs)


def sample_loss_gradient(name: str, a: Vector, y: Vector) -> Vector:
    if name == "squared_error":
        return a - y
    if name == "binary_cross_entropy":
        return (a - y) / (a * (1 - a))
    if name in ("absolute_error", "pinball"):
        return np.array([math.copysign(1.0 if name == "absolute_error" else 0.5, r) for r in a - y])
    if name == "huber":
        return np.array([r if abs(r) < 1 else math.copysign(1.0, r) for r in a - y])
    if name == "categorical_cross_entropy":
        return -y / a
    assert name == "poisson"
    return 1 - y / a


def loss_and_gradients(
    weights: Sequence[NDArray[np.float64]],
    biases: Sequence[Vector],
    activations: Sequence[str],
    loss: str,
    X: NDArray[np.float64],
    Y: NDArray[np.float64],
    sample_weight: Vector | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    masks: Sequence[NDArray[np.float64] | None] | None = None,
) -> tuple[float, list[NDArray[np.float64]], list[Vector]]:
    """Loss and gradients, summed sample by sample; ``masks[l]`` multiplies the output of layer l (0: the input)."""
    weight = np.ones(len(X)) if sample_weight is None else sample_weight
    share = weight / weight.sum()
    weight_grads = [np.zeros_like(w) for w in weights]
    bias_grads = [np.zeros_like(b) for b in biases]
    total = 0.0
    for row, (x, y) in enumerate(zip(X, Y, strict=True)):
        factors = [np.ones(w.shape[0]) if masks is None or m is None else m[row]
                   for w, m in zip(weights, masks or [None] * len(weights), strict=True)]  # fmt: skip
        inputs, nets, a = [], [], x
        for w, b, name, factor in zip(weights, biases, activations, factors, strict=True):
            inputs.append(a * factor)
            nets.append(inputs[-1] @ w + b)
            a = activate(name, nets[-1])
        total += share[row] * sample_loss(loss, a, y)
        delta = jacobian(activations[-1], nets[-1]).T @ sample_loss_gradient(loss, a, y)
        for layer in reversed(range(len(weights))):
            weight_grads[layer] += share[row] * np.outer(inputs[layer], delta)
            bias_grads[layer] += share[row] * delta
            if layer:
                delta = jacobian(activations[layer - 1], nets[layer - 1]).T @ (
                    factors[layer] * (weights[layer] @ delta)
                )
    for w, g in zip(weights, weight_grads, strict=True):
        total += l1 * np.abs(w).sum() + l2 / 2 * (w**2).sum()
        g += l1 * np.sign(w) + l2 * w
    return total, weight_grads, bias_grads
