"""A trace as a self-contained HTML page for light and dark screens: formulas are MathML, and the page loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.learn.trace.diagram import MAX_LAYERS, diagram
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
from gpuprop.learn.trace.text import closing, explanation, format_number, significant

if TYPE_CHECKING:
    from gpuprop.learn.trace.record import TraceRecord
    from gpuprop.learn.trace.terms import Section, Term

__all__ = ["MathWriter", "document", "render"]

_MINUS, _TIMES = "<mo>&minus;</mo>", "<mo>&times;</mo>"
_EQUALS = '<mo form="infix">=</mo>'
_LETTERS = {
    "alpha": "\N{GREEK SMALL LETTER ALPHA}",
    "delta": "δ",
    "eta": "η",
    "Theta": "Θ",
    "l": "λ",
    "Phi": "Φ",
    "phi": "φ",
}
_RELATIONS = {"<=": "≤"}

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5a6475; --line: #dde2ea; --paper: #fff; --card: #f6f8fb;
  --accent: #0b5cad; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa5b5; --line: #313947; --paper: #14181f;
  --card: #1c222c; --accent: #7ab8ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 58rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .25rem; }
p { margin: .25rem 0; }
.soft { color: var(--soft); }
.rule { margin: .6rem 0; overflow-x: auto; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .25rem 1rem;
  margin: .6rem 0; }
.term { display: flex; flex-wrap: wrap; align-items: center; column-gap: .2em; padding: .5rem 0; }
.term + .term { border-top: 1px solid var(--line); }
.term > span { max-width: 100%; overflow-x: auto; overflow-y: hidden; padding: .1rem 0; }
.value { color: var(--accent); }
.given { display: grid; grid-template-columns: max-content 1fr; gap: .4rem 1rem; margin: 0; padding: .5rem 0;
  align-items: baseline; }
.given dt { color: var(--soft); }
.given dd { margin: 0; display: flex; flex-wrap: wrap; gap: .4rem 1.2em; }
math { font-size: 1.1em; }
.picture { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); border-radius: .5rem; }
.picture svg { display: block; width: 100%; min-width: 46rem; height: auto; }
.small svg { min-width: 30rem; max-width: 44rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem 0 .2rem 1.5rem; border-bottom: 1px solid var(--line); }
th { font-weight: normal; color: var(--soft); }
th:first-child, td:first-child { padding-left: 0; text-align: left; }
@media (max-width: 34rem) { .given { grid-template-columns: 1fr; gap: .1rem; } .given dt { margin-top: .4rem; }
  .card { padding: .25rem .6rem; } math { font-size: 1em; } }
"""


class MathWriter:
    """Writes formulas in presentation MathML, in the part that all browsers share.

    Parameters
    ----------
    dtype : dtype
        Decides how many digits a number has.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype

    def number(self, value: float) -> str:
        """Return a number as a formula shows it."""
        return _digits(format_number(value, self._dtype))

    def write(self, expression: Expression, *, numbers: bool = False, around: int = 0) -> str:
        """Return a formula with its symbols, or with their values (`numbers`); `around` as in `TextWriter`."""

        def part(inner: Expression, around: int) -> str:
            return self.write(inner, numbers=numbers, around=around)

        tightness = binding(expression)
        match expression:
            case Number(value):
                markup = self.number(value)
            case Symbol() | Derivative() if numbers:
                markup = self.number(expression.value)
                tightness = 2 if expression.value < 0 else 3 if "<msup>" in markup else 5
            case Symbol():
                markup = _symbol(expression)
            case Derivative(of, by):
                markup = f"<mfrac><mrow><mo>∂</mo>{_symbol(of)}</mrow><mrow><mo>∂</mo>{_symbol(by)}</mrow></mfrac>"
            case Sum(terms):
                markup = part(terms[0], 1)
                markup += "".join(self._added(term, numbers) for term in terms[1:])
            case Product(factors):
                markup = "<mo>·</mo>".join(part(factor, 3) for factor in factors)
            case Quotient(numerator, denominator):
                markup = f"<mfrac>{part(numerator, 0)}{part(denominator, 0)}</mfrac>"
            case Power(base, exponent):
                markup = f"<msup>{part(base, 5)}{part(exponent, 0)}</msup>"
            case Negative(operand):
                markup = _MINUS + part(operand, 3)
            case Call("exp", _, (argument,)):
                markup = f"<msup><mi>e</mi>{part(argument, 0)}</msup>"
            case Call(name, _, ()):
                markup = f"<mi>{escape(name)}</mi>"
            case Call(name, _, arguments):
                inside = "<mo>,</mo>".join(part(argument, 0) for argument in arguments)
                markup = f"<mi>{escape(_LETTERS.get(name, name))}</mi><mo>&#x2061;</mo>{_parenthesised(inside)}"
            case Because(result, left, relation, right):
                sign = escape(_RELATIONS.get(relation, relation))
                markup = part(result, 1)
                if not numbers:
                    reason = f"{part(left, 1)}<mo>{sign}</mo>{part(right, 1)}"
                    markup += f'<mspace width="1em"/><mtext>as&nbsp;</mtext>{reason}'
        return _row(_parenthesised(markup) if tightness < around else markup)

    def pieces(self, expression: Expression, *, numbers: bool) -> list[str]:
        """Return a formula in pieces between which a line may break; the pieces of a sum are its terms."""
        if not isinstance(expression, Sum):
            return [self.write(expression, numbers=numbers)]
        first, *more = expression.terms
        return [
            self.write(first, numbers=numbers, around=1),
            *(_row(self._added(term, numbers)) for term in more),
        ]

    def _added(self, term: Expression, numbers: bool) -> str:
        """Return a further term of a sum, with its sign."""
        if isinstance(term, Negative):
            return '<mo form="infix">&minus;</mo>' + self.write(term.operand, numbers=numbers, around=3)
        return '<mo form="infix">+</mo>' + self.write(term, numbers=numbers, around=3)


def _digits(text: str) -> str:
    """Typeset a number such as ``-1.5e-06``."""
    mantissa, _, exponent = text.partition("e")
    markup = _signed(mantissa)
    if exponent:
        markup += f"{_TIMES}<msup><mn>10</mn>{_row(_signed(str(int(exponent))))}</msup>"
    return _row(markup)


def _signed(number: str) -> str:
    return f"{_MINUS}<mn>{number[1:]}</mn>" if number.startswith("-") else f"<mn>{number}</mn>"


def _row(markup: str) -> str:
    return f"<mrow>{markup}</mrow>"


def _bare(markup: str) -> str:
    """Return markup without its grouping, so that two formulas can be compared by how they look."""
    return markup.replace("<mrow>", "").replace("</mrow>", "")


def _parenthesised(markup: str) -> str:
    return f"<mrow><mo>(</mo>{markup}<mo>)</mo></mrow>"


def _symbol(symbol: Symbol) -> str:
    name = f"<mi>{escape(_LETTERS.get(symbol.name, symbol.name))}</mi>"
    index = f"<mn>{symbol.index}</mn>" if symbol.index.isdecimal() else f"<mtext>{escape(symbol.index)}</mtext>"
    if symbol.level:
        level = f"<mtext>({escape(symbol.level)}){'+' * symbol.new}</mtext>"
        return f"<msubsup>{name}{index}{level}</msubsup>"
    if symbol.index and symbol.new:
        return f"<msubsup>{name}{index}<mo>+</mo></msubsup>"
    if symbol.new:
        return f"<msup>{name}<mo>+</mo></msup>"
    return f"<msub>{name}{index}</msub>" if symbol.index else name


def _math(markup: str) -> str:
    # Formulas are inline so that lines can break between them; fractions and sums still get their full size.
    return f'<math><mstyle displaystyle="true">{markup}</mstyle></math>'


def render(trace: TraceRecord) -> str:
    """Return the whole trace as one HTML document."""
    writer = MathWriter(trace.dtype)
    parts = [
        "<h1>Backpropagation, step by step</h1>",
        f"<p>{escape(trace.title)}</p>",
        *(f'<p class="soft">{escape(sentence)}</p>' for sentence in explanation(trace)),
        *_picture(trace),
        _given(trace, writer),
        *(_section(number, section, writer) for number, section in enumerate(trace.sections, start=1)),
        _closing(trace, writer),
    ]
    return document("Backpropagation, step by step", parts)


def document(title: str, parts: Sequence[str]) -> str:
    """Return a page with a policy that forbids it to load anything."""
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *parts,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _picture(trace: TraceRecord) -> list[str]:
    """Return the picture of the network with one derivative's path; nothing if it has too many layers for a picture."""
    if len(trace.numbers.layers) + 1 > MAX_LAYERS:
        return []
    return [f'<div class="picture">{diagram(trace, standalone=False)}</div>']


def _given(trace: TraceRecord, writer: MathWriter) -> str:
    rows = []
    for title, symbols in trace.given:
        equations = (_equals(writer.write(symbol), writer.number(symbol.value)) for symbol in symbols)
        rows.append(f"<dt>{title}</dt><dd>{''.join(map(_math, equations))}</dd>")
    return f'<h2>Given</h2>\n<div class="card"><dl class="given">{"".join(rows)}</dl></div>'


def _section(number: int, section: Section, writer: MathWriter) -> str:
    terms = "\n".join(_term(term, writer) for term in section.terms)
    rule = ""
    if section.rule:
        rule = f'<div class="rule">{_math(_equals(*(writer.write(side) for side in section.rule)))}</div>\n'
    return (
        f"<section>\n<h2>{number}. {escape(section.title)}</h2>\n"
        f'<p class="soft">{escape(section.remark)}</p>\n{rule}<div class="card">\n{terms}\n</div>\n</section>'
    )


def _term(term: Term, writer: MathWriter) -> str:
    """Return ``symbol = formula = numbers = value``; a line may break before an equals sign and a term of a sum."""
    value = writer.number(term.value)
    sides = [writer.pieces(term.formula, numbers=False), writer.pieces(term.formula, numbers=True)]
    if _bare("".join(sides[0])) == _bare("".join(sides[1])):
        del sides[1]
    pieces = [_math(writer.write(term.symbol))]
    for first, *more in sides:
        if _bare(first + "".join(more)) != _bare(value):
            pieces += [_math(_EQUALS + first), *map(_math, more)]
    spans = "".join(f"<span>{piece}</span>" for piece in pieces)
    return f'<div class="term">{spans}<span class="value">{_math(_EQUALS + value)}</span></div>'


def _equals(*sides: str) -> str:
    return _row(_EQUALS.join(sides))


def _closing(trace: TraceRecord, writer: MathWriter) -> str:
    title, results = closing(trace)
    lines = "".join(f"<p>{_math(_equals(writer.write(symbol), _digits(digits)))}</p>" for symbol, digits in results)
    parts = [f"<h2>{title}</h2>", lines]
    if trace.rounds > 1:
        losses = ((f"{done:,}", _math(_digits(significant(loss, trace.dtype)))) for done, loss in trace.losses)
        rows = "".join(f"<tr><td>{done}</td><td>{loss}</td></tr>" for done, loss in losses)
        header = f"<tr><th>after round</th><th>{_math(writer.write(results[0][0]))}</th></tr>"
        parts.append(f"<h2>Error by round</h2>\n<table><thead>{header}</thead><tbody>{rows}</tbody></table>")
    return "\n".join(parts)
