"""``gpuprop predict``: the predictions of a trained model for new rows, as a CSV file."""

from __future__ import annotations

import csv
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from gpuprop.cli.device import use_device
from gpuprop.cli.files import check_writable, written_whole
from gpuprop.cli.options import Arrays, Device, Header, MissingValues, parse_arrays, parse_list

__all__ = ["register"]

_HELP = """Predict each row of INPUT with the model in DIR (or a model file) and write a CSV file.

The file of a classifier has the column prediction (labels) and a probability p_CLASS for each class; the file of a
regression has prediction, or prediction_1, prediction_2, ... for several outputs. Labels are spelled as in the
training. Columns are found by their names if the model and INPUT have names. INPUT may still have the column that the
model was trained to predict; a model of a table also leaves other columns of INPUT alone.

Labels are text from the training data. If you do not trust them and mean to open the file in a spreadsheet, which runs
text such as =1+1 as a formula, use --safe-csv: it puts all text in quotation marks, and a single quote (') in front of
text that begins with =, +, -, @, a tab or a line break. Such labels then differ from those of the training.

\b
Examples:
  gpuprop predict gpuprop-mnist mnist --out digits.csv
  gpuprop predict gpuprop-iris new.csv --out species.csv
"""


def register(app: typer.Typer) -> None:
    """Add the command ``predict``."""
    app.command("predict", help=_HELP, short_help="Predict new rows with a trained model.")(predict)


def predict(
    model: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run, or a model file.")],
    data: Annotated[str, typer.Argument(metavar="INPUT", help="A built-in data set, openml:NAME or a file.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The CSV file to write.", show_default=False)],
    target: Annotated[str | None, typer.Option(metavar="NAME", help="A column of INPUT to leave out.")] = None,
    header: Header = None,
    na: MissingValues = None,
    arrays: Arrays = None,
    device: Device = "auto",
    safe_csv: Annotated[
        bool, typer.Option("--safe-csv", help="Write no text that a spreadsheet would run as a formula.")
    ] = False,
) -> None:
    """Load both, predict, write."""
    chosen = use_device(device)
    check_writable(out)

    from gpuprop.cli.console import print_notes, warn_if_unfinished
    from gpuprop.estimators.predictors import load_predictor
    from gpuprop.model.predictions import safe_cell
    from gpuprop.training.parts import Source

    predictor = load_predictor(model, device)
    warn_if_unfinished(model)
    source = Source(data, target, None, header, parse_arrays(arrays), parse_list(na))
    rows = predictor.features(source)
    columns = predictor.columns(rows)
    with written_whole(out) as file:
        rows_of_cells = chain([columns], zip(*columns.values(), strict=True))
        if safe_csv:
            writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
            writer.writerows(map(safe_cell, row) for row in rows_of_cells)
        else:
            csv.writer(file, lineterminator="\n").writerows(rows_of_cells)
    print_notes(rows.notes)
    print(chosen)
    print(f"{out}: {len(rows.X):,} predictions")
