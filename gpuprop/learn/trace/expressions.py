"""Formulas as small trees, which can be written with symbols, written with numbers, and evaluated.

The leaves are numbers, symbols (``net_h1``) and partial derivatives (``dE/dw5``); symbols and derivatives carry their
values. So the same formula prints as ``w1*i1 + b_h1`` and as ``0.15*0.05 + 0.35``, and a test can compute it and
compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "Because",
    "Call",
    "Derivative",
    "Expression",
    "Negative",
    "Number",
    "Power",
    "Product",
    "Quantity",
    "Quotient",
    "Sum",
    "Symbol",
    "binding",
    "evaluate",
]


@dataclass(frozen=True)
class Number:
    """A constant of a formula."""

    value: float


@dataclass(frozen=True)
class Symbol:
    """A named number: ``net_h1``, ``w5``, ``w5+`` (it is `new`), ``z^(2)_1`` (its `level` is layer 2)."""

    name: str
    index: str
    value: float
    new: bool = False
    level: str = ""


@dataclass(frozen=True)
class Derivative:
    """The partial derivative of one symbol by another: ``dE/dw5``."""

    of: Symbol
    by: Symbol
    value: float


@dataclass(frozen=True)
class Sum:
    """``a + b + ...``; a `Negative` among the terms is subtracted."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True)
class Product:
    """``a * b * ...``."""

    factors: tuple[Expression, ...]


@dataclass(frozen=True)
class Quotient:
    """``a / b``."""

    numerator: Expression
    denominator: Expression


@dataclass(frozen=True)
class Power:
    """``a^n``."""

    base: Expression
    exponent: Expression


@dataclass(frozen=True)
class Negative:
    """``-a``."""

    operand: Expression


@dataclass(frozen=True)
class Call:
    """A function of its arguments: ``max(0, net_h1)``."""

    name: str
    function: Callable[..., float]
    arguments: tuple[Expression, ...]


@dataclass(frozen=True)
class Because:
    """The case of a piecewise formula that applies, with its condition: ``1 (net_h1 > 0)``."""

    result: Expression
    left: Expression
    relation: str
    right: Expression


Quantity = Symbol | Derivative
Expression = Number | Symbol | Derivative | Sum | Product | Quotient | Power | Negative | Call | Because


def binding(expression: Expression) -> int:
    """Return how tightly an expression binds: one that binds less than its surroundings needs parentheses."""
    match expression:
        case Because():
            return 0
        case Sum():
            return 1
        case Negative():
            return 2
        case Product() | Quotient() | Derivative():
            return 3
        case Power():
            return 4
        case _:
            return 5


def evaluate(expression: Expression) -> float:
    """Compute a formula from the values of its symbols, in double precision."""
    match expression:
        case Number(value) | Symbol(value=value) | Derivative(value=value):
            return value
        case Sum(terms):
            return math.fsum(map(evaluate, terms))
        case Product(factors):
            return math.prod(map(evaluate, factors))
        case Quotient(numerator, denominator):
            return evaluate(numerator) / evaluate(denominator)
        case Power(base, exponent):
            return math.pow(evaluate(base), evaluate(exponent))
        case Negative(operand):
            return -evaluate(operand)
        case Call(_, function, arguments):
            return function(*map(evaluate, arguments))
        case Because(result):
            return evaluate(result)
