"""``gpuprop trace``: backpropagation number by number, as text, as JSON, or as a page with typeset formulas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpuprop.cli.options import Header, Json, Labels, OptionError, Target, wrong_options

if TYPE_CHECKING:
    from gpuprop.learn.trace import ScalarTrace, Trace

__all__ = ["register"]

_HELP = """Show backpropagation step by step: every number with its symbol, its formula and its value.

Without MODEL the worked example is traced that texts compute by hand: a 2-2-2 logistic network, one sample, learning
rate 0.5, biases held fixed. MODEL is the folder of a run or a model file, and needs --data. If it has many weights, one
path is shown. MODEL itself is not changed.

\b
Examples:
  gpuprop trace
  gpuprop trace --html worked-example.html
  gpuprop trace --rounds 10000 --weights updated
  gpuprop trace gpuprop-mnist --data mnist --sample 3
  gpuprop trace --scalar
  gpuprop trace --formula "logistic(w*x + b)" --at w=0.5,x=2,b=-1
"""


def register(app: typer.Typer) -> None:
    """Add the command ``trace``."""
    app.command("trace", help=_HELP, short_help="Show backpropagation number by number.")(trace)


def trace(
    model: Annotated[Path | None, typer.Argument(metavar="[MODEL]", show_default=False)] = None,
    data: Annotated[str | None, typer.Option(metavar="DATA", help="The data set or file with MODEL's sample.")] = None,
    sample: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="The row of DATA to show, counted from 0.  [default: 0]")
    ] = None,
    target: Target = None,
    labels: Labels = None,
    header: Header = None,
    lr: Annotated[float, typer.Option("--lr", metavar="RATE", help="The learning rate.")] = 0.5,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of rounds of gradient descent; the last one is shown.")
    ] = 1,
    weights: Annotated[
        str,
        typer.Option(
            metavar="original|updated",
            help="Compute hidden deltas with the weights as they were or, as some texts do, with already updated ones.",
        ),
    ] = "original",
    train_biases: Annotated[bool, typer.Option("--train-biases", help="Update the biases too.")] = False,
    notation: Annotated[
        str,
        typer.Option(
            metavar="code|mazur|lecture",
            help="code: z[1][0] and weights, as in the library; mazur: net and out; lecture: z^(2), a^(2) and Theta.",
        ),
    ] = "mazur",
    scalar: Annotated[
        bool, typer.Option("--scalar", help="Trace a formula instead: f = (x + y) * z at x = -2, y = 5, z = -4.")
    ] = False,
    formula: Annotated[
        str | None, typer.Option(metavar="TEXT", help='Your own formula for --scalar, such as "logistic(w*x + b)".')
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="x=NUMBER,...", help="The values of the variables in --formula.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a self-contained page with typeset formulas.")
    ] = None,
    json: Json = False,
) -> None:
    """Compute, and print or write."""
    from dataclasses import replace

    from gpuprop.cli.sample import subject_and_sample
    from gpuprop.learn.trace import trace as compute

    if scalar or formula is not None or at is not None:
        if model is not None or data is not None:
            raise OptionError("got --scalar with a model, expected one of them: a formula has no network")
        _scalar(formula, at, html, json)
        return
    subject, network, x, y = subject_and_sample(model, data, sample, target, labels, header)
    with wrong_options():
        result = compute(
            network,
            x,
            y,
            learning_rate=lr,
            rounds=rounds,
            weights=weights,  # type: ignore[arg-type]  # checked there
            train_biases=train_biases,
            notation=notation,
        )
    result = replace(result, title=f"{subject}: {result.title}")
    _show(result, f"{len(result.terms)} terms; E = {result.loss_after:.12g} after {rounds:,} round(s)", html, json)


def _scalar(formula: str | None, at: str | None, html: Path | None, json: bool) -> None:
    """Trace a formula instead of a network."""
    from gpuprop.learn.trace import trace_scalar

    with wrong_options():
        values = {} if at is None else _values(at)
        result = trace_scalar(**({} if formula is None else {"formula": formula}), **values)  # type: ignore[arg-type]
    _show(result, f"f = {result.formula} = {result.value:.12g}", html, json)


def _show(result: Trace | ScalarTrace, summary: str, html: Path | None, json: bool) -> None:
    """Write the page if --html was given; print its summary, else the whole trace, or JSON."""
    from gpuprop.cli.console import print_json
    from gpuprop.cli.files import written_whole

    if html is not None:
        with written_whole(html) as file:
            file.write(result.to_html())
    if json:
        print_json(result.to_dict())
    elif html is not None:
        print(f"{html}: {summary}")
    else:
        print(result)


def _values(text: str) -> dict[str, float]:
    """``"x=-2,y=5"`` -> {"x": -2.0, "y": 5.0}."""
    found = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = None
        if value is None or not name.isidentifier() or name == "formula":
            raise OptionError(f"--at: got {part!r}, expected NAME=NUMBER, several separated by commas")
        found[name] = value
    return found
