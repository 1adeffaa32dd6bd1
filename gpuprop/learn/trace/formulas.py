"""The formula of each activation and loss, and of their derivatives, as trees of `gpuprop.learn.trace.expressions`.

They say what `gpuprop.activations` and `gpuprop.losses` compute; where a function is defined piece by piece, the piece
that applies is shown, with the condition. A user's own function is shown by its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.learn.trace.expressions import (
    Because,
    Call,
    Expression,
    Negative,
    Number,
    Power,
    Product,
    Quotient,
    Sum,
    Symbol,
)

if TYPE_CHECKING:
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss

__all__ = [
    "activation_formula",
    "derivative_formula",
    "error_formula",
    "error_gradient_formula",
    "exp",
    "minus",
    "times",
]

ZERO, ONE, TWO = Number(0.0), Number(1.0), Number(2.0)


def minus(left: Expression, right: Expression) -> Sum:
    """``left - right``."""
    return Sum((left, Negative(right)))


def times(*factors: Expression) -> Product:
    """``a * b * ...``."""
    return Product(factors)


def exp(argument: Expression) -> Call:
    """``e^argument``."""
    return Call("exp", math.exp, (argument,))


def _ln(argument: Expression) -> Call:
    return Call("ln", math.log, (argument,))


def _logistic(argument: Expression) -> Quotient:
    return Quotient(ONE, Sum((ONE, exp(Negative(argument)))))


def _normal_distribution(argument: Expression) -> Call:
    return Call("Phi", lambda z: 0.5 * math.erfc(-z / math.sqrt(2)), (argument,))


def _normal_density(argument: Expression) -> Call:
    return Call("phi", lambda z: math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi), (argument,))


def _parameter(name: str, default: float) -> Number:
    """The number in ``leaky_relu(0.2)``; `default` where the name has none."""
    found = re.search(r"\((.+)\)", name)
    return Number(float(found[1]) if found else default)


def _elementwise(function: Callable[..., Any]) -> Callable[[float], float]:
    return lambda value: float(function(np.array([value]))[0])


def activation_formula(activation: Activation, net: Symbol) -> Expression:
    """``f(net)``; softmax, which is not a function of one net input, has its own terms."""
    positive = net.value > 0
    match activation.name.partition("(")[0]:
        case "identity":
            return net
        case "logistic":
            return _logistic(net)
        case "tanh":
            return Call("tanh", math.tanh, (net,))
        case "relu":
            return Call("max", max, (ZERO, net))
        case "leaky_relu":
            slope = _parameter(activation.name, 0.01)
            return Because(net, net, ">", ZERO) if positive else Because(times(slope, net), net, "<=", ZERO)
        case "elu":
            alpha = _parameter(activation.name, 1.0)
            if positive:
                return Because(net, net, ">", ZERO)
            return Because(times(alpha, minus(exp(net), ONE)), net, "<=", ZERO)
        case "softplus":
            return _ln(Sum((ONE, exp(net))))
        case "gelu":
            return times(net, _normal_distribution(net))
        case "silu":
            return Quotient(net, Sum((ONE, exp(Negative(net)))))
        case "exponential":
            return exp(net)
        case _:
            return Call(activation.name, _elementwise(activation.function), (net,))


def derivative_formula(activation: Activation, net: Symbol, out: Symbol) -> Expression:
    """``dout/dnet``, in terms of what the library takes it from: the output, or the net input."""
    positive = out.value > 0
    match activation.name.partition("(")[0]:
        case "identity":
            return ONE
        case "logistic":
            return times(out, minus(ONE, out))
        case "tanh":
            return minus(ONE, Power(out, TWO))
        case "relu":
            return Because(ONE, net, ">", ZERO) if positive else Because(ZERO, net, "<=", ZERO)
        case "leaky_relu":
            slope = _parameter(activation.name, 0.01)
            return Because(ONE, net, ">", ZERO) if positive else Because(slope, net, "<=", ZERO)
        case "elu":
            if positive:
                return Because(ONE, net, ">", ZERO)
            return Because(Sum((out, _parameter(activation.name, 1.0))), net, "<=", ZERO)
        case "softplus":
            return minus(ONE, exp(Negative(out)))
        case "gelu":
            return Sum((_normal_distribution(net), times(net, _normal_density(net))))
        case "silu":
            s = _logistic(net)
            return times(s, Sum((ONE, times(net, minus(ONE, s)))))
        case "exponential":
            return out
        case _:
            source = out if activation.derivative_of == "output" else net
            return Call(f"{activation.name}'", _elementwise(activation.derivative), (source,))


def error_formula(loss: Loss, out: Symbol, target: Symbol) -> Expression:
    """One output's share of the loss."""
    match loss.name:
        case "squared_error":
            return times(Quotient(ONE, TWO), Power(minus(target, out), TWO))
        case "binary_cross_entropy":
            if target.value == 0:
                return Because(Negative(_ln(minus(ONE, out))), target, "=", ZERO)
            if target.value == 1:
                return Because(Negative(_ln(out)), target, "=", ONE)
            return Sum(
                (
                    Negative(times(target, _ln(out))),
                    Negative(times(minus(ONE, target), _ln(minus(ONE, out)))),
                )
            )
        case "categorical_cross_entropy":
            if target.value == 0:
                return Because(ZERO, target, "=", ZERO)
            return Negative(times(target, _ln(out)))
        case "poisson":
            if target.value == 0:
                return Because(out, target, "=", ZERO)
            return Sum((times(target, _ln(Quotient(target, out))), Negative(target), out))
        case _:
            return _own_loss(loss.name, loss.value, out, target)


def error_gradient_formula(loss: Loss, out: Symbol, target: Symbol) -> Expression:
    """``dE/dout`` of one output."""
    match loss.name:
        case "squared_error":
            return Negative(minus(target, out))
        case "binary_cross_entropy":
            return Quotient(minus(out, target), times(out, minus(ONE, out)))
        case "categorical_cross_entropy":
            return Negative(Quotient(target, out))
        case "poisson":
            return minus(ONE, Quotient(target, out))
        case _:
            return _own_loss(f"{loss.name}'", loss.gradient, out, target)


def _own_loss(name: str, function: Callable[..., Any], out: Symbol, target: Symbol) -> Call:
    def of_one(a: float, y: float) -> float:
        return float(np.ravel(function(np.array([[a]]), np.array([[y]])))[0])

    return Call(name, of_one, (out, target))
