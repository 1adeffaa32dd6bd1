"""``gpuprop runs``: the runs in a folder, compared in a table."""

from __future__ import annotations

import math
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gpuprop.cli.options import Json, OptionError

__all__ = ["register", "sparkline"]

_HELP = """List and compare the runs in DIR: what differs in their options, their best figures, times and curves.

A run is a folder that `gpuprop train` has written: DIR itself, or a folder in it. `gpuprop train DATA --out runs/`,
with the slash, numbers its folders: runs/001-NAME, runs/002-NAME, ...

\b
Examples:
  gpuprop runs
  gpuprop runs runs --sort validation_loss
  gpuprop runs runs --json
"""
_BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH = 16


def register(app: typer.Typer) -> None:
    """Add the command ``runs``."""
    app.command("runs", help=_HELP, short_help="List and compare runs.")(runs)


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The folder of the runs.", show_default=False)
    ] = Path(),
    sort: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Order by the best figure of a column of the history, the best run first."),
    ] = None,
    json: Json = False,
) -> None:
    """Find, compare, print."""
    from gpuprop.cli.console import is_terminal, print_json, print_table
    from gpuprop.training.run_list import differing_options, found_runs

    found = found_runs(folder)
    columns = dict.fromkeys(name for run in found for name in run.history)
    figures = [
        name for name in columns if name.startswith("validation_") and any(run.best(name) is not None for run in found)
    ]
    if not figures:
        figures = [name for name in columns if name.startswith("train_")]
    if sort is not None:
        if sort not in columns:
            raise OptionError(
                f"got --sort {sort!r}, expected one of {', '.join(columns) or 'no columns: there is no run'}"
            )
        falls = sort.endswith("_loss") and "neg_" not in sort
        found.sort(key=lambda run: math.inf if (best := run.best(sort)) is None else best if falls else -best)
    differing = differing_options(found)
    if json:
        print_json([_as_json(run, figures) for run in found])
        return
    if not found:
        print(f"{folder}: holds no run of `gpuprop train`")
        return
    shared = (
        f"; equal: {', '.join(_shared(found[0].options, differing))}" if _shared(found[0].options, differing) else ""
    )
    print(f"{len(found)} {'run' if len(found) == 1 else 'runs'}{shared}")
    curve = sort or ("validation_loss" if "validation_loss" in figures else "train_loss")
    headers = ["run", *(f"--{name.replace('_', '-')}" for name in differing)]
    headers += [name.removeprefix("validation_") for name in figures]
    headers += ["epochs", "seconds", curve.replace("_", " ", 1)]
    rows = []
    for run in found:
        done, asked = run.manifest.epochs_done, run.manifest.epochs
        rows.append(
            [
                run.folder.name or str(run.folder.resolve().name),
                *(_said(run.options.get(name)) for name in differing),
                *("-" if (best := run.best(name)) is None else f"{best:.4g}" for name in figures),
                str(done) if run.manifest.complete else f"{done}/{asked}",
                f"{run.seconds:.1f}",
                sparkline(run.history.get(curve, [])),
            ]
        )
    numbers = list(range(1 + len(differing), len(headers) - 1))
    if is_terminal() and _width([headers, *rows]) > shutil.get_terminal_size().columns:
        headers, rows = headers[:-1], [row[:-1] for row in rows]  # figures matter more than the curve
    print_table(headers, rows, right=numbers)


def _width(rows: list[list[str]]) -> int:
    """Return how many characters a table of these rows takes in a line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return sum(widths) + 2 * (len(widths) - 1)


def sparkline(values: list[float | None]) -> str:
    """Return a curve as at most sixteen blocks, from its lowest to its highest value; digits where there are none.

    Examples
    --------
    >>> from gpuprop.cli.run_list import sparkline
    >>> sparkline([8.0, 4.0, 2.0, 1.0]) in ("█▄▂▁", "7310")
    True
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(known) > _WIDTH:
        known = [known[round(i * (len(known) - 1) / (_WIDTH - 1))] for i in range(_WIDTH)]
    if not known:
        return ""
    low, span = min(known), (max(known) - min(known)) or 1.0
    blocks = _BLOCKS
    try:
        _BLOCKS.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        blocks = "01234567"
    return "".join(blocks[min(7, int(8 * (value - low) / span))] for value in known)


def _shared(options: dict[str, Any], differing: list[str]) -> list[str]:
    """Return the options that all runs have and that were asked for."""
    return [
        f"--{name.replace('_', '-')} {_said(value)}" if name != "data" else _said(value)
        for name, value in options.items()
        if value is not None and name not in (*differing, "device", "plan") and (name, value) != ("task", "auto")
    ]


def _said(value: Any) -> str:
    if value is None:
        return "-"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _as_json(run: Any, figures: list[str]) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "run": run.manifest.run,
        "complete": run.manifest.complete,
        "epochs_done": run.manifest.epochs_done,
        "epochs": run.manifest.epochs,
        "seconds": run.seconds,
        "options": run.options,
        "best": {name: run.best(name) for name in figures},
        "model": run.manifest.files.get("model.safetensors"),
    }
