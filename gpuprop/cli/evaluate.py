"""``gpuprop evaluate``: how good a trained model is on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuprop.cli.device import use_device
from gpuprop.cli.options import Device, Header, Json, Labels, OptionError, Target

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.model.network import Network

__all__ = ["load_rows", "register"]

_HELP = """Evaluate the model in DIR (or a model file) on DATA, which holds targets too.

All rows of a file count, also those that the model was trained on: --test-fraction takes only those that
train held out. Of mnist the test part counts, of digits the rows that train holds out.

\b
Examples:
  gpuprop evaluate gpuprop-mnist mnist
  gpuprop evaluate gpuprop-iris iris.csv --test-fraction 0.25
  gpuprop evaluate gpuprop-houses new-houses.csv --json
"""


def register(app: typer.Typer) -> None:
    """Add the command ``evaluate``."""
    app.command("evaluate", help=_HELP, short_help="Evaluate a trained model on a data set.")(evaluate)


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run, or a model file.")],
    data: Annotated[str, typer.Argument(metavar="DATA", help="A built-in data set, openml:NAME or a file.")],
    target: Target = None,
    labels: Labels = None,
    header: Header = None,
    test_fraction: Annotated[
        float | None,
        typer.Option(metavar="F", help="Only the rows that train held out with this share and the model's seed."),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Load both, predict, report."""
    chosen = use_device(device)
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise OptionError(f"--test-fraction: got {test_fraction}, expected a number above 0 and below 1")

    from gpuprop.cli.console import print_json
    from gpuprop.cli.scores import print_report, report_on
    from gpuprop.estimators.stored_models import load_network

    network = load_network(model, device)
    X, y = load_rows(network, data, target, labels, header, test_fraction)
    report = report_on(network, X, y, classes=network.classes)
    if json:
        print_json({"model": str(model), "data": data, "device": network.device_, **report.figures})
        return
    print(f"{model}: {network!r} on {data}: {len(X):,} rows")
    print(chosen)
    print_report(report)


def load_rows(
    network: Network,
    data: str,
    target: str | None,
    labels: str | None,
    header: bool | None,
    fraction: float | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return samples and targets for a model: of a built-in data set the test part, of a file all rows.

    With `fraction` they are those that ``train`` held out with this share and the network's seed.
    """
    from gpuprop import datasets
    from gpuprop.cli.recipes import TEST_FRACTION
    from gpuprop.errors import DataError

    if fraction is None and data == "digits":
        fraction = TEST_FRACTION
    if fraction is None:
        return datasets.load_test(
            data,
            classes=network.classes or (range(max(2, network.layer_sizes[-1])) if network.is_classifier else None),
            n_features=network.layer_sizes[0],
            feature_names=network.feature_names,
            target=target,
            labels=labels,
            header=header,
        )
    task = "classification" if network.is_classifier else "regression"
    dataset = datasets.load(data, target=target, labels=labels, task=task, header=header)
    classes = None if network.classes is None else list(network.classes)
    if dataset.X.shape[1] != network.layer_sizes[0] or dataset.classes != classes:
        raise DataError(
            f"{data}: has other columns or classes than the model was trained on; leave out --test-fraction"
        )
    return datasets.split(dataset, fraction, network.seed)[1]
