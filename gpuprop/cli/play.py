"""``gpuprop play``: a page on which a small network can be changed by hand, and every number changes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpuprop.cli.options import Header, Labels, OptionError, Target

__all__ = ["register"]

_HELP = """Write a page on which a small network can be changed by hand.

Drag a weight, a bias, an input or a target, and every net input, activation, delta and gradient changes with it. Step
forwards and backwards through the algorithm, take one update or a thousand, and watch the loss over two weights. The
page holds the worked example and XOR. It needs no server and no network: open it in a browser.

MODEL is the folder of a run or a model file of at most 32 weights, and needs --data, whose first rows come with it.

\b
Examples:
  gpuprop play
  gpuprop play --out backpropagation.html
  gpuprop play gpuprop-xor --data xor --out xor.html
"""


def register(app: typer.Typer) -> None:
    """Add the command ``play``."""
    app.command("play", help=_HELP, short_help="Write a page on which a network can be changed by hand.")(play)


def play(
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="The folder of a run, or a model file.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page to write.")] = Path("play.html"),
    data: Annotated[str | None, typer.Option(metavar="DATA", help="The data set or file with MODEL's rows.")] = None,
    target: Target = None,
    labels: Labels = None,
    header: Header = None,
    lr: Annotated[float, typer.Option("--lr", metavar="RATE", help="The learning rate that MODEL starts with.")] = 0.5,
) -> None:
    """Write the page."""
    from gpuprop.cli.files import written_whole
    from gpuprop.cli.options import wrong_options
    from gpuprop.errors import check_real
    from gpuprop.learn.play import problem, render, worked_problem, xor_problem

    problems = [worked_problem(), xor_problem()]
    if model is not None:
        from gpuprop.estimators.predictors import load_predictor
        from gpuprop.training.parts import Source

        if data is None:
            raise OptionError("MODEL needs --data DATA, which holds the rows to play with")
        with wrong_options():
            rate = check_real("--lr", lr, 0.0, open_minimum=True)
        predictor = load_predictor(model, "numpy")
        X, y = predictor.network_rows(Source(data, target, labels, header))
        problems.insert(0, problem(model.name, predictor.network, X, y, learning_rate=rate, whole_batch=True))
    elif (data, target, labels, header) != (None, None, None, None):
        raise OptionError("got data without MODEL, expected both: the worked example and XOR have rows of their own")
    with written_whole(out) as file:
        file.write(render(problems))
    print(f"{out}: {', '.join(one.name for one in problems)}; open it in a browser")
