"""The formulas of the records in `gpuprop.maths` as JavaScript: as functions, and as text for the reader.

A record holds its formula in Python's notation, such as ``"z if z > 0 else p * (exp(z) - 1)"``. Traces read the same
text, so that a page and a trace cannot disagree about what a function is.
"""

from __future__ import annotations

import ast
import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss

__all__ = ["activation_code", "code", "loss_code", "text_code"]

_OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_COMPARISONS: dict[type[ast.cmpop], tuple[str, str, str]] = {ast.Gt: (">", ">", "≤"), ast.Eq: ("===", "=", "≠")}
"""A comparison in JavaScript, as a reader sees it, and the sign where it does not hold."""
_FUNCTIONS = ("exp", "ln", "tanh", "max", "Phi", "phi", "logistic")
"""What a formula may call; the page defines a function of each name."""


def code(formula: str) -> str:
    """Return a formula as an expression of JavaScript.

    Raises
    ------
    ValueError
        If the formula holds something other than numbers, names, ``+ - * / **``, comparisons and known functions.

    Examples
    --------
    >>> from gpuprop.learn.play.javascript import code
    >>> code("z if z > 0 else p * z")
    '((z > 0) ? z : (p * z))'
    """
    return _code(ast.parse(formula, mode="eval").body)


def _code(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=int() | float() as value):
            return repr(value)
        case ast.Name(id=name):
            return name
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"(-{_code(operand)})"
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return f"Math.pow({_code(left)}, {_code(right)})"
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            return f"({_code(left)} {_OPERATORS[type(operator)]} {_code(right)})"
        case ast.Call(func=ast.Name(id=name), args=arguments) if name in _FUNCTIONS:
            return f"{name}({', '.join(map(_code, arguments))})"
        case ast.IfExp(test=ast.Compare(left=left, ops=[sign], comparators=[right]), body=body, orelse=rest):
            if type(sign) in _COMPARISONS:
                test = f"({_code(left)} {_COMPARISONS[type(sign)][0]} {_code(right)})"
                return f"({test} ? {_code(body)} : {_code(rest)})"
    raise ValueError(f"got a formula with {ast.unparse(node)!r}, expected numbers, names and known functions")


def text_code(formula: str) -> str:
    """Return an expression of JavaScript that is the formula as text, with every name between brackets.

    Of a function that is defined piece by piece it is the piece that applies, and why.

    Examples
    --------
    >>> from gpuprop.learn.play.javascript import text_code
    >>> text_code("a * (1 - a)")
    '"[a] * (1 - [a])"'
    """
    return _text_code(ast.parse(formula, mode="eval").body, "")


def _text_code(node: ast.expr, reason: str) -> str:
    if isinstance(node, ast.IfExp) and isinstance(node.test, ast.Compare):
        _, holds, fails = _COMPARISONS[type(node.test.ops[0])]
        left, right = _text(node.test.left), _text(node.test.comparators[0])
        here, else_ = f"   as {left} {holds} {right}", f"   as {left} {fails} {right}"
        if fails == "≠":  # that a target is neither 0 nor 1 need not be said
            else_ = reason
        rest = _text_code(node.orelse, else_)
        test = f"{_code(node.test.left)} {_COMPARISONS[type(node.test.ops[0])][0]} {_code(node.test.comparators[0])}"
        return f"({test} ? {json.dumps(_text(node.body) + here, ensure_ascii=False)} : {rest})"
    return json.dumps(_text(node) + reason, ensure_ascii=False)


def _text(node: ast.expr) -> str:
    """Return an expression as a reader sees it; the page turns ``*`` and ``^`` into signs of its own."""
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} - set(_FUNCTIONS)
    text = ast.unparse(node).replace(" ** ", "^")
    return re.sub(rf"\b({'|'.join(sorted(names)) or '$^'})\b", r"[\1]", text)


def activation_code(activation: Activation) -> str:
    """Return an activation as an object of JavaScript: value, slope, and the text of both.

    Raises
    ------
    ValueError
        If its record holds no formula, as that of a user's own activation may not.
    """
    if activation.name == "softmax":  # its terms are not those of a function of one number
        return "{softmax: true}"
    if not (activation.formula and activation.derivative_formula):
        raise ValueError(f"activation {activation.name!r}: has no formula that a page could compute")
    return (
        f"{{value: (z, p) => {code(activation.formula)}, slope: (z, a, p) => {code(activation.derivative_formula)}, "
        f"valueText: (z, p) => {text_code(activation.formula)}, "
        f"slopeText: (z, a, p) => {text_code(activation.derivative_formula)}}}"
    )


def loss_code(loss: Loss) -> str:
    """Return a loss as an object of JavaScript: one output's share, its derivative, and the text of both.

    Raises
    ------
    ValueError
        If its record holds no formula.
    """
    if not (loss.formula and loss.gradient_formula):
        raise ValueError(f"loss {loss.name!r}: has no formula that a page could compute")
    return (
        f"{{value: (a, y) => {code(loss.formula)}, gradient: (a, y) => {code(loss.gradient_formula)}, "
        f"valueText: (a, y) => {text_code(loss.formula)}, gradientText: (a, y) => {text_code(loss.gradient_formula)}}}"
    )
