"""The formula of each activation and loss, and of their derivatives, as trees of `gpuprop.learn.trace.expressions`.

The records in `gpuprop.maths` hold these formulas as text in Python's notation; here they are read. Where a function is
defined piece by piece, the piece that applies is shown, with the condition. A function without a formula, such as one
of a user's own, is shown by its name.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
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
    evaluate,
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

ONE = Number(1.0)


def minus(left: Expression, right: Expression) -> Sum:
    """``left - right``."""
    return Sum((left, Negative(right)))


def times(*factors: Expression) -> Product:
    """``a * b * ...``."""
    return Product(factors)


def exp(argument: Expression) -> Call:
    """``e^argument``."""
    return Call("exp", math.exp, (argument,))


# --- reading the text of a formula -----------------------------------------------------------------------------------

_FUNCTIONS: dict[str, Callable[..., float]] = {
    "exp": math.exp,
    "ln": math.log,
    "tanh": math.tanh,
    "max": max,
    "Phi": lambda z: 0.5 * math.erfc(-z / math.sqrt(2)),
    "phi": lambda z: math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi),
}
_CONDITIONS: dict[type[ast.cmpop], tuple[str, str | None, Callable[[float, float], bool]]] = {
    ast.Gt: (">", "<=", lambda left, right: left > right),
    ast.Eq: ("=", None, lambda left, right: left == right),
}
"""A condition, what holds where it does not (None where that need not be said), and the comparison."""


def _read(text: str, names: Mapping[str, Expression]) -> Expression:
    """Return the tree of a formula such as ``"z if z > 0 else p * z"`` for these values of its names."""
    return _tree(ast.parse(text, mode="eval").body, names)


def _tree(node: ast.expr, names: Mapping[str, Expression]) -> Expression:
    match node:
        case ast.Constant(value=float() | int() as value):
            return Number(float(value))
        case ast.Name(id=name):
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return Negative(_tree(operand, names))
        case ast.BinOp(left=left, op=operator, right=right):
            return _joined(_tree(left, names), operator, _tree(right, names))
        case ast.Call(func=ast.Name(id="logistic"), args=[argument]):
            return Quotient(ONE, Sum((ONE, exp(Negative(_tree(argument, names))))))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return Call(name, _FUNCTIONS[name], tuple(_tree(argument, names) for argument in arguments))
        case ast.IfExp():
            return _piece(node, names)
        case _:
            raise ValueError(f"got a formula with {ast.unparse(node)!r}, expected numbers, names and known functions")


def _joined(left: Expression, operator: ast.operator, right: Expression) -> Expression:
    """Return two trees joined by an operator; sums and products of several are one."""
    match operator:
        case ast.Add() | ast.Sub():
            terms = left.terms if isinstance(left, Sum) else (left,)
            return Sum((*terms, right if isinstance(operator, ast.Add) else Negative(right)))
        case ast.Mult():
            factors = left.factors if isinstance(left, Product) else (left,)
            return Product((*factors, right))
        case ast.Div():
            return Quotient(left, right)
        case ast.Pow():
            return Power(left, right)
        case _:
            raise ValueError(f"got the operator {type(operator).__name__}, expected + - * / **")


def _piece(node: ast.IfExp, names: Mapping[str, Expression]) -> Expression:
    """Return the piece of ``a if x > 0 else b`` that applies, and why."""
    test = node.test
    if not isinstance(test, ast.Compare) or type(test.ops[0]) not in _CONDITIONS:
        raise ValueError(f"got the condition {ast.unparse(test)!r}, expected x > 0 or x == 0")
    relation, otherwise, holds = _CONDITIONS[type(test.ops[0])]
    left, right = _tree(test.left, names), _tree(test.comparators[0], names)
    if holds(evaluate(left), evaluate(right)):
        return Because(_tree(node.body, names), left, relation, right)
    rest = _tree(node.orelse, names)
    return rest if otherwise is None else Because(rest, left, otherwise, right)


# --- the formulas ----------------------------------------------------------------------------------------------------


def activation_formula(activation: Activation, net: Symbol) -> Expression:
    """``f(net)``; softmax, which is not a function of one net input, has its own terms."""
    if activation.formula:
        return _read(activation.formula, {"z": net, "p": Number(activation.parameter)})
    return Call(activation.name, _elementwise(activation.function), (net,))


def derivative_formula(activation: Activation, net: Symbol, out: Symbol) -> Expression:
    """``dout/dnet``, in terms of what the library takes it from: the output, or the net input."""
    if activation.derivative_formula:
        return _read(activation.derivative_formula, {"z": net, "a": out, "p": Number(activation.parameter)})
    source = out if activation.derivative_of == "output" else net
    return Call(f"{activation.name}'", _elementwise(activation.derivative), (source,))


def error_formula(loss: Loss, out: Symbol, target: Symbol) -> Expression:
    """One output's share of the loss."""
    if loss.formula:
        return _read(loss.formula, {"a": out, "y": target})
    return _own_loss(loss.name, loss.value, out, target)


def error_gradient_formula(loss: Loss, out: Symbol, target: Symbol) -> Expression:
    """``dE/dout`` of one output."""
    if loss.gradient_formula:
        return _read(loss.gradient_formula, {"a": out, "y": target})
    return _own_loss(f"{loss.name}'", loss.gradient, out, target)


def _elementwise(function: Callable[..., Any]) -> Callable[[float], float]:
    return lambda value: float(function(np.array([value]))[0])


def _own_loss(name: str, function: Callable[..., Any], out: Symbol, target: Symbol) -> Call:
    def of_one(a: float, y: float) -> float:
        return float(np.ravel(function(np.array([[a]]), np.array([[y]])))[0])

    return Call(name, of_one, (out, target))
