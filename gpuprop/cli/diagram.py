"""``gpuprop diagram``: a network as an SVG picture, with the values of one sample and the path of one derivative."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpuprop.cli.options import Header, Labels, Target, wrong_options

__all__ = ["register"]

_HELP = """Draw a network with the values of one sample on its units and its weights on its lines, as SVG.

The path of one weight's partial derivative is highlighted, and written out below. Without MODEL the worked example of
`gpuprop trace` is drawn. MODEL is the folder of a run or a model file, and needs --data. If a layer has many units, the
most active ones are drawn.

\b
Examples:
  gpuprop diagram --out net.svg
  gpuprop diagram --weight w1 --out net.svg
  gpuprop diagram gpuprop-xor --data xor --out xor.svg
"""


def register(app: typer.Typer) -> None:
    """Add the command ``diagram``."""
    app.command("diagram", help=_HELP, short_help="Draw a network with its weights and values.")(diagram)


def diagram(
    model: Annotated[Path | None, typer.Argument(metavar="[MODEL]", show_default=False)] = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The SVG file to write.")] = Path("net.svg"),
    weight: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The weight whose derivative is highlighted, in the chosen notation: w5 or weights[1][0, 0]; in a "
            "large network w(i7,h3).  [default: a large weight of the last layer]",
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="DATA", help="The data set or file with MODEL's sample.")] = None,
    sample: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="The row of DATA to show, counted from 0.  [default: 0]")
    ] = None,
    target: Target = None,
    labels: Labels = None,
    header: Header = None,
    notation: Annotated[
        str, typer.Option(metavar="code|mazur|lecture", help="The notation that names units and weights.")
    ] = "mazur",
) -> None:
    """Compute and draw."""
    from dataclasses import replace

    from gpuprop.cli.files import written_whole
    from gpuprop.cli.sample import subject_and_sample
    from gpuprop.learn.trace import trace as compute

    subject, network, x, y = subject_and_sample(model, data, sample, target, labels, header)
    with wrong_options():
        result = compute(network, x, y, notation=notation)
        picture = replace(result, title=f"{subject}: {result.title}").to_svg(weight)
    with written_whole(out) as file:
        file.write(picture)
    print(f"{out}: {subject}, {result.title}")
