"""``gpuprop predict``: the predictions of a trained model for new rows, as a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from gpuprop.cli.device import use_device
from gpuprop.cli.files import check_writable, written_whole
from gpuprop.cli.options import Device, Header

__all__ = ["register"]

_HELP = """Predict each row of INPUT with the model in DIR (or a model file) and write a CSV file.

The file of a classifier has the column prediction (labels) and a probability p_CLASS for each class; the file of a
regression has prediction, or prediction_1, prediction_2, ... for several outputs. Columns are found by their names if
the model and INPUT have names. INPUT may still have the column that the model was trained to predict. No other column
is dropped silently; --target names one to leave out.

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
    device: Device = "auto",
) -> None:
    """Load both, predict, write."""
    chosen = use_device(device)
    check_writable(out)

    from gpuprop.datasets import load_features
    from gpuprop.estimators.stored_models import load_network
    from gpuprop.model.predictions import prediction_columns

    network = load_network(model, device)
    X = load_features(
        data,
        n_features=network.layer_sizes[0],
        feature_names=network.feature_names,
        target=target or network.target_name,
        header=header,
    )
    columns = prediction_columns(network, X)
    with written_whole(out) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    print(chosen)
    print(f"{out}: {len(X):,} predictions")
