"""``gpuprop predict``: what a trained model says about new rows, as a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuprop.cli.device import use_device
from gpuprop.cli.files import written_whole
from gpuprop.cli.options import Device, Header

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from gpuprop.model.network import Network

__all__ = ["prediction_columns", "register"]

_HELP = """Predict each row of INPUT with the model in DIR (or a model file) and write a CSV file.

A classifier writes the column prediction (labels) and a probability p_CLASS for each class; a regression writes
prediction, or prediction_1, prediction_2, ... for several outputs. Columns are found by their names where the
model and INPUT have names, and the column that the model was trained to predict may still be among them. No other
column is dropped silently: name one to leave out with --target.

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

    from gpuprop.datasets import load_features
    from gpuprop.estimators.stored_models import load_network

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


def prediction_columns(network: Network, X: ArrayLike) -> dict[str, list[Any]]:
    """Return the columns of a prediction file by their names.

    Numbers are NumPy scalars: written as text they show the shortest form that is read back as the same number.
    """
    outputs = network.forward(X)
    predicted = network.decide(outputs)
    n_outputs = outputs.shape[1]
    if predicted.ndim == 2:  # a regression, or several logistic outputs that are questions of their own
        names = ["prediction"] if n_outputs == 1 else [f"prediction_{i}" for i in range(1, n_outputs + 1)]
        return {name: list(column) for name, column in zip(names, predicted.T, strict=True)}
    classes = network.classes or range(max(2, n_outputs))
    columns: dict[str, list[Any]] = {"prediction": [classes[index] for index in predicted]}
    if network.output_activation.name in ("logistic", "softmax"):  # of others the outputs are no probabilities
        shares = [1 - outputs[:, 0], outputs[:, 0]] if n_outputs == 1 else list(outputs.T)
        columns |= {f"p_{label}": list(share) for label, share in zip(classes, shares, strict=True)}
    return columns
