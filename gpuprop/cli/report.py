"""``gpuprop report``: one self-contained page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gpuprop.estimators.predictors import Predictor
    from gpuprop.learn.report import ReportContent
    from gpuprop.training.run_list import ListedRun

__all__ = ["register"]

_HELP = """Write one HTML page about the run in DIR, which loads nothing and can be mailed or printed.

It shows the curves, the test part with its confusion matrix, calibration and worst mistakes (images as images), the
columns, the network, and settings, versions and the sums of the files. The command reads the data of the test part
again; if they are gone, the page says so and shows the rest.

\b
Examples:
  gpuprop report gpuprop-mnist
  gpuprop report runs/003-iris --out iris.html
"""


def register(app: typer.Typer) -> None:
    """Add the command ``report``."""
    app.command("report", help=_HELP, short_help="Write a page about a run.")(report)


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page.  [default: report.html in DIR]", show_default=False)
    ] = None,
) -> None:
    """Read the run, read its data again, write the page."""
    from gpuprop.cli.files import check_writable, written_whole
    from gpuprop.errors import GpupropError
    from gpuprop.estimators.predictors import load_predictor
    from gpuprop.learn.report import report_page
    from gpuprop.training.run_list import found_runs

    found = [run for run in found_runs(folder) if run.folder == folder]
    if not found:
        raise GpupropError(f"{folder}: holds no run of `gpuprop train`")
    path = folder / "report.html" if out is None else out
    check_writable(path)
    predictor = load_predictor(folder, "numpy")
    content = _content(found[0], predictor)
    try:
        _add_test_part(content, found[0], predictor)
    except Exception as error:  # the data may be gone, or others
        content.notes.append(f"The test part is not shown: {' '.join(str(error).split()) or type(error).__name__}")
    with written_whole(path) as file:
        file.write(report_page(content))
    for note in content.notes:
        print(f"note: {note}")
    print(f"report: {path}")


def _content(run: ListedRun, predictor: Predictor) -> ReportContent:
    from gpuprop.backends.installed import versions
    from gpuprop.learn.report import ReportContent
    from gpuprop.version import __version__

    network, manifest = predictor.network, run.manifest
    facts = [
        ("network", "-".join(map(str, network.layer_sizes))),
        ("parameters", f"{network.n_parameters:,}"),
        ("epochs", str(manifest.epochs_done) if manifest.complete else f"{manifest.epochs_done} of {manifest.epochs}"),
        ("seconds of training", f"{run.seconds:.1f}"),
    ]
    for column in run.history:
        best = run.best(column)
        if column.startswith("validation_") and best is not None:
            facts.append((f"best {column.replace('_', ' ', 1)}", f"{best:.4g}"))
    settings = {
        f"--{name.replace('_', '-')}": ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in run.options.items()
        if value is not None
    }
    columns = getattr(getattr(predictor, "model", None), "columns_", None)
    rows = [] if columns is None else columns.table()
    return ReportContent(
        title=f"{run.options.get('data', run.folder.resolve().name)}: {run.folder.resolve().name}",
        facts=facts,
        history=run.history,
        settings=settings,
        versions={"gpuprop (this page)": __version__, **versions("numpy", "numba", "scikit-learn")},
        files=manifest.files,
        columns=[(row.name, row.kind, f"{row.missing:.1%}" if row.missing else "", row.treatment) for row in rows],
        classes=None if predictor.classes is None else [str(label) for label in predictor.classes],
    )


def _add_test_part(content: ReportContent, run: ListedRun, predictor: Predictor) -> None:
    """Read the data again, and add what the model makes of the test part."""
    import numpy as np

    from gpuprop import datasets
    from gpuprop.cli.array_run import array_run
    from gpuprop.cli.resuming import options_of, stored_in
    from gpuprop.cli.table_run import table_run
    from gpuprop.estimators.predictors import Rows
    from gpuprop.learn.report import ReportRow
    from gpuprop.training.scores import report_of

    options = options_of(stored_in(run.folder), {}) | {"device": "numpy"}
    again = (table_run if datasets.is_table(options["data"]) else array_run)(options)[0]
    X, y = again.held_out
    rows = Rows(X, y)
    predicted = predictor.predict(rows)
    content.report = report_of(y, predicted, predictor.classes)
    content.facts = [*content.facts, (f"test {content.report.metric}", f"{content.report.score:.4f}")]
    content.y, content.predicted = y, predicted
    shares = [values for name, values in predictor.columns(rows).items() if name.startswith("p_")]
    if content.classes is not None and len(shares) == len(content.classes):
        content.probabilities = np.array(shares, np.float64).T
    content.row = lambda number: ReportRow(number, _values(X, number))
    content.diagram = _diagram(predictor, X, y)


def _values(X: Any, number: int) -> Any:
    if hasattr(X, "iloc"):
        return {str(name): str(value) for name, value in X.iloc[number].items()}
    row = X[number]
    return row.toarray()[0] if hasattr(row, "toarray") else row


def _diagram(predictor: Predictor, X: Any, y: Any) -> str:
    """Return the network at work on the first row of the test part, as SVG; nothing where it cannot be drawn."""
    from gpuprop.learn.trace import trace

    if hasattr(X, "iloc"):
        return ""
    try:
        return str(trace(predictor.network, X[:1], y[:1], notation="mazur").to_svg())
    except Exception:  # a loss or an activation that the trace does not know
        return ""
