"""A trace as plain text: each term with its symbol, its formula, the numbers in it, and its value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.learn.trace.expressions import (
    Because,
    Call,
    Derivative,
    Expression,
    Negative,
    Number,
    Power,
    Product,
    Quotient,
    Sum,
    Symbol,
    binding,
)
from gpuprop.learn.trace.quantities import NOTATIONS

if TYPE_CHECKING:
    from gpuprop.learn.trace.record import TraceRecord
    from gpuprop.learn.trace.terms import Term

__all__ = ["TextWriter", "closing", "explanation", "format_number", "render", "significant"]

WIDTH = 80
MAX_OUTPUTS = 10


def format_number(value: float, dtype: np.dtype[Any]) -> str:
    """Return a number to 9 decimals (float32: 7), with fewer if they are exact, with a power of ten if it is small."""
    digits, exact_digits, rounding = (9, 6, 1e-14) if dtype == np.float64 else (7, 4, 1e-7)
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    if abs(value - round(value, exact_digits)) <= rounding * abs(value):
        return f"{value:.{exact_digits}f}".rstrip("0").rstrip(".")
    return f"{value:.{digits}f}"


def significant(value: float, dtype: np.dtype[Any]) -> str:
    """Return a result to 12 significant digits (float32: 8)."""
    return f"{value:.{12 if dtype == np.float64 else 8}g}"


class TextWriter:
    """Writes formulas in ASCII.

    Parameters
    ----------
    dtype : dtype
        Decides how many digits a number has.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype

    def number(self, value: float) -> str:
        """Return a number as a formula shows it."""
        return format_number(value, self._dtype)

    def write(self, expression: Expression, *, numbers: bool = False, around: int = 0) -> str:
        """Return a formula with its symbols, or with their values (`numbers`).

        `around` is how tightly the surrounding expression binds; an expression that binds less gets parentheses.
        """

        def part(inner: Expression, around: int) -> str:
            return self.write(inner, numbers=numbers, around=around)

        tightness = binding(expression)
        match expression:
            case Number(value):
                text = self.number(value)
            case Symbol() | Derivative() if numbers:
                text = self.number(expression.value)
                tightness = 2 if text.startswith("-") else 5
            case Symbol():
                text = _symbol(expression)
            case Derivative(of, by):
                text = f"d{_symbol(of)}/d{_symbol(by)}"
            case Sum(terms):
                text = part(terms[0], 1)
                for term in terms[1:]:
                    text += " - " + part(term.operand, 3) if isinstance(term, Negative) else " + " + part(term, 3)
            case Product(factors):
                text = " * ".join(part(factor, 3) for factor in factors)
            case Quotient(numerator, denominator):
                text = f"{part(numerator, 3)} / {part(denominator, 4)}"
            case Power(base, exponent):
                text = f"{part(base, 5)}^{part(exponent, 5)}"
            case Negative(operand):
                text = "-" + part(operand, 3)
            case Call(name, _, arguments):
                text = f"{name}({', '.join(part(argument, 0) for argument in arguments)})" if arguments else name
            case Because(result, left, relation, right):
                text = part(result, 1)
                if not numbers:
                    text += f"   (as {part(left, 1)} {relation} {part(right, 1)})"
        return f"({text})" if tightness < around else text


def _symbol(symbol: Symbol) -> str:
    if symbol.level:
        name = f"{symbol.name}^({symbol.level})_{symbol.index}"
    elif "," in symbol.index:
        name = f"{symbol.name}({symbol.index})"
    elif not symbol.index or symbol.index.isdecimal():
        name = symbol.name + symbol.index
    else:
        name = f"{symbol.name}_{symbol.index}"
    return name + "+" if symbol.new else name


def render(trace: TraceRecord) -> str:
    """Return the whole trace as text."""
    writer = TextWriter(trace.dtype)
    lines = ["Backpropagation, step by step", trace.title, *explanation(trace), ""]
    lines.append("Given")
    for title, symbols in trace.given:
        lines += _wrapped(title, [f"{writer.write(symbol)} = {writer.number(symbol.value)}" for symbol in symbols])
    for number, section in enumerate(trace.sections, start=1):
        lines += ["", f"{number}. {section.title}"]
        lines.append(f"   {section.remark}")
        if section.rule:
            lines.append(f"   {' = '.join(writer.write(side) for side in section.rule)}")
        lines.append("")
        width = max(len(writer.write(term.symbol)) for term in section.terms)
        for term in section.terms:
            lines += _term(writer, term, width)
    title, results = closing(trace)
    lines += ["", title, *(f"   {writer.write(symbol)} = {digits}" for symbol, digits in results)]
    if trace.rounds > 1:
        lines += ["", "Error by round"]
        lines += [f"   after {done:>7}   {significant(loss, trace.dtype)}" for done, loss in trace.losses]
    return "\n".join(lines)


def explanation(trace: TraceRecord) -> list[str]:
    """Return the sentences that say which rounds, which variant and which path the trace shows."""
    biases = "biases trained" if trace.train_biases else "biases held fixed"
    sentences = [f"gradient descent on one sample, learning rate {trace.learning_rate:g}, {biases}"]
    if trace.rounds > 1:
        sentences.append(f"round {trace.rounds} of {trace.rounds} is shown")
    if trace.weights == "updated":
        sentences.append("variant: hidden deltas formed from already updated weights (not the gradient of the error)")
    if trace.path:
        sentences.append(f"the network has too many weights to show them all; one path is shown: {trace.path}")
        sentences.append("(the most active input and hidden units, the output with the largest error)")
    return sentences


def closing(trace: TraceRecord) -> tuple[str, list[tuple[Symbol, str]]]:
    """Return the result of the rounds: a title, then the error and the outputs (at most ten) with their digits."""
    title = "After 1 round" if trace.rounds == 1 else f"After {trace.rounds:,} rounds"
    outputs = [float(value) for value in trace.outputs_after]
    if len(outputs) > MAX_OUTPUTS:
        title += f" (the first {MAX_OUTPUTS} of {len(outputs)} outputs)"
    symbols, top = NOTATIONS[trace.notation], len(trace.numbers.layers)
    lines = [(symbols.final_error(trace.loss_after), significant(trace.loss_after, trace.dtype))]
    for k, value in enumerate(outputs[:MAX_OUTPUTS]):
        lines.append((symbols.final_output(top, k, value), format_number(value, trace.dtype)))
    return title, lines


def _wrapped(title: str, items: list[str]) -> list[str]:
    """Return `items` side by side after `title`, as many on each line as fit."""
    lines, line = [], f"  {title:<15}"
    for item in items:
        if len(line) + len(item) > WIDTH and line.strip():
            lines.append(line.rstrip())
            line = " " * 17
        line += f"{item}   "
    return [*lines, line.rstrip()]


def _term(writer: TextWriter, term: Term, width: int) -> list[str]:
    """Return ``symbol = formula = numbers = value``, on several lines if one is too short."""
    symbol = f"   {writer.write(term.symbol):<{width}}"
    formula, numbers = writer.write(term.formula), writer.write(term.formula, numbers=True)
    value = writer.number(term.value)
    steps = [step for step in dict.fromkeys((formula, numbers)) if step != value] + [value]
    line = f"{symbol} = {' = '.join(steps)}"
    if len(line) <= WIDTH:
        return [line]
    blank = " " * len(symbol)
    return [f"{symbol if index == 0 else blank} = {step}" for index, step in enumerate(steps)]
