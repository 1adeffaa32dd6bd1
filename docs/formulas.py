"""The page of formulas: every activation and loss, typeset from its record in `gpuprop.maths`, with its source."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

from gpuprop.maths.activations import OUTPUT_ACTIVATIONS, get_activation
from gpuprop.maths.losses import LOSSES

__all__ = ["latex", "page"]

_NAMES = {"Phi": r"\Phi", "phi": r"\phi", "exp": r"\exp", "ln": r"\ln", "tanh": r"\tanh", "max": r"\max"}
#: What has no formula of one output in its record, or is not a function of one number.
_BY_HAND = {
    "softmax": (r"a_k = \frac{e^{z_k}}{\sum_j e^{z_j}}", r"\frac{\partial a_k}{\partial z_j} = a_k ([k = j] - a_j)"),
    "absolute_error": (r"|a - y|", r"\mathrm{sign}(a - y)"),
    "huber": (
        r"\begin{cases} \frac{1}{2} (a - y)^2 & |a - y| \le p \\ p (|a - y| - \frac{p}{2}) & |a - y| > p \end{cases}",
        r"\max(-p, \min(p, a - y))",
    ),
    "pinball": (r"\max(p (y - a), (p - 1) (y - a))", r"\begin{cases} -p & a < y \\ 1 - p & a > y \end{cases}"),
}


def latex(formula: str) -> str:
    """Return a record's formula, which is in Python's notation, for a typesetter."""
    return _written(ast.parse(formula, mode="eval").body)


def _written(node: ast.expr, around: int = 0) -> str:
    match node:
        case ast.Constant(value=value):
            return f"{value:.6g}"
        case ast.Name(id=name):
            return name
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            text, tightness = f"-{_written(operand, 2)}", 1
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return rf"\frac{{{_written(left)}}}{{{_written(right)}}}"
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return f"{_raised(left)}^{{{_written(right)}}}"
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            text, tightness = rf"{_written(left, 2)} \, {_written(right, 2)}", 2
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as sign, right=right):
            plus = isinstance(sign, ast.Add)
            text, tightness = f"{_written(left, 1)} {'+' if plus else '-'} {_written(right, 1 if plus else 2)}", 1
        case ast.Call(func=ast.Name(id="exp"), args=[argument]):
            return f"e^{{{_written(argument)}}}"
        case ast.Call(func=ast.Name(id=name), args=arguments):
            inside = ", ".join(map(_written, arguments))
            return _NAMES.get(name, r"\mathrm{" + name + "}") + f"({inside})"
        case ast.IfExp():
            return r"\begin{cases} " + r" \\ ".join(_cases(node)) + r" \end{cases}"
        case _:
            raise ValueError(f"got {ast.unparse(node)!r} in a formula")
    return f"({text})" if tightness < around else text


def _raised(base: ast.expr) -> str:
    text = _written(base)
    return text if isinstance(base, ast.Name) else f"{{{text}}}" if isinstance(base, ast.Call) else f"({text})"


def _cases(node: ast.expr) -> list[str]:
    if not isinstance(node, ast.IfExp):
        return [rf"{_written(node)} & \mathrm{{otherwise}}"]
    assert isinstance(node.test, ast.Compare)
    sign = ">" if isinstance(node.test.ops[0], ast.Gt) else "="
    condition = f"{_written(node.test.left)} {sign} {_written(node.test.comparators[0])}"
    return [f"{_written(node.body)} & {condition}", *_cases(node.orelse)]


def _source(function: Any) -> str:
    """Return what the function's docstring names as its source, or what it says else after its first sentence."""
    text = " ".join((inspect.getdoc(getattr(function, "func", function)) or "").split())
    found = re.search(r"(?:Source: |The linear unit of )(.*?\)(?:, (?:section|eq\.) [\d.]+\d)?)", text)
    return f"Source: {found[1]}." if found else ""


def page() -> str:
    """Return the page as Markdown with formulas between dollars."""
    text = [
        "# Formulas\n",
        "The records of the library hold these formulas, and this page is made from them. Traces, the playground and",
        "the exports use the same records. z is the net input of a unit, a its output, y the target, and p the number",
        "in a name such as `leaky_relu(0.2)`. Compiled code computes the same functions in forms that neither overflow",
        "nor cancel.\n",
        "## Activations\n",
    ]
    for name in OUTPUT_ACTIVATIONS:
        one = get_activation(name, output=True)
        if one.formula:
            pair = f"a = {latex(one.formula)}", rf"\frac{{da}}{{dz}} = {latex(one.derivative_formula)}"
        else:
            pair = _BY_HAND[name]
        text.append(f"### {name}\n\n$$ {pair[0]} \\qquad {pair[1]} $$\n")
        notes = [_source(one.function), "" if one.hidden else "Only an output layer may use it."]
        text.append(" ".join(filter(None, notes)) + "\n")
    text += [
        "## Losses\n",
        "A loss is the sum of its outputs' shares, averaged over the samples. Where the output activation is the one",
        r"that the loss names as its own, the delta of the output layer is $\delta = a - y$; with softmax and another",
        r"loss of gradient g it is $\delta_k = a_k (g_k - \sum_j g_j a_j)$, and otherwise $\delta = g \, f'(z)$."
        + "\n",
    ]
    for loss in LOSSES.values():
        pair = (latex(loss.formula), latex(loss.gradient_formula)) if loss.formula else _BY_HAND[loss.base_name]
        text.append(
            f"### {loss.base_name}\n\n$$ E = {pair[0]} \\qquad \\frac{{\\partial E}}{{\\partial a}} = {pair[1]} $$\n"
        )
        own = f"Its own output activation is {loss.canonical}." if loss.canonical else ""
        text.append(" ".join(filter(None, [own, _source(loss.value)])) + "\n")
    return "\n".join(text)
