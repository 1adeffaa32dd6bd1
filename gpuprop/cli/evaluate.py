"""``gpuprop evaluate``: the scores of a trained model on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpuprop.cli.device import use_device
from gpuprop.cli.options import Device, Header, Json, Labels, Target, check_test_fraction

__all__ = ["register"]

_HELP = """Evaluate the model in DIR (or a model file) on DATA, which must have targets too.

All rows of a file count, also those that the model was trained on; --test-fraction takes only the rows that train held
out. The rows of mnist are its test part, those of digits are the rows that train holds out.

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
        typer.Option(metavar="F", help="Take only the rows that train held out with this share and the model's seed."),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Load both, predict, report."""
    chosen = use_device(device)
    check_test_fraction(test_fraction)

    from gpuprop.cli.console import print_json, print_report
    from gpuprop.estimators.stored_models import load_network
    from gpuprop.training.parts import Source, rows_for_model
    from gpuprop.training.scores import report_on

    network = load_network(model, device)
    X, y = rows_for_model(network, Source(data, target, labels, header), test_fraction)
    report = report_on(network, X, y, classes=network.classes)
    if json:
        print_json({"model": str(model), "data": data, "device": network.device_, **report.figures})
        return
    print(f"{model}: {network!r} on {data}: {len(X):,} rows")
    print(chosen)
    print_report(report)
