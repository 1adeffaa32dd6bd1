"""``gpuprop trace``: backpropagation number by number, as text, as JSON, or as a page with typeset formulas."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuprop.cli.options import Header, Json, Labels, OptionError, Target, wrong_options

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.network import Network

__all__ = ["register"]

_HELP = """Show backpropagation step by step: every number with its symbol, its formula and its value.

Without MODEL it is the worked example that texts compute by hand: a 2-2-2 logistic network, one sample, learning
rate 0.5, biases held fixed. MODEL is the folder of a run or a model file and needs --data; of a network with many
weights one path is shown. MODEL itself is not changed.

\b
Examples:
  gpuprop trace
  gpuprop trace --html worked-example.html
  gpuprop trace --rounds 10000 --weights updated
  gpuprop trace gpuprop-mnist --data mnist --sample 3
"""


def register(app: typer.Typer) -> None:
    """Add the command ``trace``."""
    app.command("trace", help=_HELP)(trace)


def trace(
    model: Annotated[Path | None, typer.Argument(metavar="[MODEL]", show_default=False)] = None,
    data: Annotated[str | None, typer.Option(metavar="DATA", help="Where MODEL's sample comes from.")] = None,
    sample: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Row of DATA, counted from 0.  [default: 0]")
    ] = None,
    target: Target = None,
    labels: Labels = None,
    header: Header = None,
    lr: Annotated[float, typer.Option("--lr", metavar="RATE", help="The learning rate.")] = 0.5,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Rounds of gradient descent; the last is shown.")] = 1,
    weights: Annotated[
        str,
        typer.Option(
            metavar="original|updated",
            help="Form hidden deltas with the weights as they were, or, as some texts do, with already updated ones.",
        ),
    ] = "original",
    train_biases: Annotated[bool, typer.Option("--train-biases", help="Update the biases too.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a self-contained page with typeset formulas.")
    ] = None,
    json: Json = False,
) -> None:
    """Compute, and print or write."""
    from dataclasses import replace

    from gpuprop.cli.console import print_json
    from gpuprop.cli.files import written_whole
    from gpuprop.trace import trace as compute
    from gpuprop.trace import worked_example

    if model is None:
        if (data, sample, target, labels, header) != (None, None, None, None, None):
            raise OptionError("got a sample without MODEL, expected both: the worked example has a sample of its own")
        network, x, y = worked_example()
        subject = "the worked example"
    else:
        if data is None:
            raise OptionError("MODEL needs --data DATA, which holds the sample, and takes --sample N")
        network, x, y = _model_and_sample(model, data, sample or 0, target, labels, header)
        subject = f"{model}, sample {sample or 0} of {data}"
    with wrong_options():
        result = compute(
            network,
            x,
            y,
            learning_rate=lr,
            rounds=rounds,
            weights=weights,  # type: ignore[arg-type]  # checked there
            train_biases=train_biases,
        )
    result = replace(result, title=f"{subject}: {result.title}")
    if html is not None:
        with written_whole(html) as file:
            file.write(result.to_html())
    if json:
        print_json(result.to_dict())
    elif html is not None:
        print(f"{html}: {len(result.terms)} terms; E = {result.loss_after:.12g} after {rounds:,} round(s)")
    else:
        print(result)


def _model_and_sample(
    model: Path, data: str, sample: int, target: str | None, labels: str | None, header: bool | None
) -> tuple[Network, NDArray[Any], NDArray[Any]]:
    from gpuprop.cli.evaluate import load_rows
    from gpuprop.model_io import load_network

    network = load_network(model, "numpy")
    X, y = load_rows(network, data, target, labels, header)
    if sample >= len(X):
        raise OptionError(f"--sample: got {sample}, expected 0 to {len(X) - 1}: {data} has {len(X):,} rows")
    return network, X[sample : sample + 1], y[sample : sample + 1]
