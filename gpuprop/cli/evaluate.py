"""``gpuprop evaluate``: the scores of a trained model on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpuprop.cli.device import use_device
from gpuprop.cli.options import (
    Arrays,
    Device,
    Header,
    Json,
    Labels,
    MissingValues,
    Target,
    check_test_fraction,
    parse_arrays,
    parse_list,
    wrong_options,
)

__all__ = ["register"]

_HELP = """Evaluate the model in DIR (or a model file) on DATA, which must have targets too.

All rows of a file count, also those that the model was trained on; --test-fraction takes only the rows that train held
out. The rows of mnist are its test part, those of digits are the rows that train holds out. Columns and target are
found by the names that the model knows, in any order and among others.

\b
Examples:
  gpuprop evaluate gpuprop-mnist mnist
  gpuprop evaluate gpuprop-iris iris.csv --test-fraction 0.25
  gpuprop evaluate gpuprop-houses new-houses.csv --json
  gpuprop evaluate gpuprop-bank new-bank.csv --metric f1,roc_auc
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
    na: MissingValues = None,
    arrays: Arrays = None,
    test_fraction: Annotated[
        float | None,
        typer.Option(metavar="F", help="Take only the rows that train held out with this share and the model's seed."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="What else to compute: names of scikit-learn's scorers, such as f1_macro, roc_auc or neg_max_error.",
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Load both, predict, report."""
    chosen = use_device(device)
    check_test_fraction(test_fraction)

    from gpuprop.cli.console import print_json, print_notes, print_report, warn_if_unfinished
    from gpuprop.estimators.predictors import load_predictor
    from gpuprop.training.parts import Source
    from gpuprop.training.scores import report_of

    predictor = load_predictor(model, device)
    warn_if_unfinished(model)
    source = Source(data, target, labels, header, parse_arrays(arrays), parse_list(na))
    rows = predictor.rows(source, test_fraction)
    assert rows.y is not None
    with wrong_options():
        figures = predictor.metrics(parse_list(metric), rows)
    report = report_of(rows.y, predictor.predict(rows), predictor.classes)
    if json:
        found = {"model": str(model), "data": data, "device": predictor.network.device_, "notes": list(rows.notes)}
        print_json({**found, **report.figures, **({"metrics": figures} if figures else {})})
        return
    print(f"{model}: {predictor.describe()} on {data}: {len(rows.X):,} rows")
    print_notes(rows.notes)
    print(chosen)
    for name, figure in figures.items():
        print(f"test {name}: {'not defined' if figure is None else format(figure, '.4f')}")
    print_report(report)
