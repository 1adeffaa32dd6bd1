"""The runs in a folder: found, numbered, and compared."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuprop.errors import GpupropError
from gpuprop.training.run_manifest import Manifest, StoredRun, stored_runs

__all__ = ["ListedRun", "differing_options", "found_runs", "numbered_folder"]

_HISTORY = "history.csv"
_NUMBER = re.compile(r"(\d{3,})-.*")
#: Options that say where a run was made and not what it is.
_NOT_COMPARED = ("device", "plan")


@dataclass(frozen=True)
class ListedRun:
    """A run whose files are published.

    Attributes
    ----------
    folder : Path
    manifest : Manifest
    options : dict
        What ``gpuprop train`` was asked for.
    history : dict of lists
        Columns of numbers, None where a cell is empty.
    """

    folder: Path
    manifest: Manifest
    options: dict[str, Any]
    history: dict[str, list[float | None]]

    @property
    def seconds(self) -> float:
        """The time of all its epochs."""
        return sum(value or 0.0 for value in self.history.get("seconds", ()))

    def best(self, column: str) -> float | None:
        """Return the lowest figure of a column of losses, or the highest of another; None if it has none."""
        known = [value for value in self.history.get(column, ()) if value is not None and math.isfinite(value)]
        if not known:
            return None
        return min(known) if column.endswith("_loss") and "neg_" not in column else max(known)


def found_runs(folder: Path) -> list[ListedRun]:
    """Return the runs in a folder and in the folders in it, in the order of their names.

    Raises
    ------
    GpupropError
        If there is no such folder.
    """
    if not folder.is_dir():
        raise GpupropError(f"{folder}: there is no such folder; name one that holds runs of `gpuprop train`")
    listed = []
    for place in [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]:
        manifest = Manifest.read(place)
        if manifest is not None:
            stored = [one for one in stored_runs(place) if one.run == manifest.run]
            listed.append(ListedRun(place, manifest, _options(stored), _history(place / _HISTORY)))
    return listed


def differing_options(runs: list[ListedRun]) -> list[str]:
    """Return the names of the options in which runs differ, in the order of the command's own options."""
    names = dict.fromkeys(name for run in runs for name in run.options)
    return [
        name for name in names if name not in _NOT_COMPARED and len({repr(run.options.get(name)) for run in runs}) > 1
    ]


def numbered_folder(parent: Path, name: str) -> Path:
    """Return the next folder ``001-NAME``, ``002-NAME``, ... in `parent`."""
    taken = [_NUMBER.fullmatch(path.name) for path in parent.iterdir()] if parent.is_dir() else []
    number = 1 + max((int(found[1]) for found in taken if found), default=0)
    return parent / f"{number:03d}-{name}"


def _options(stored: list[StoredRun]) -> dict[str, Any]:
    options = stored[-1].settings.get("options") if stored else None
    return options if isinstance(options, dict) else {}


def _history(path: Path) -> dict[str, list[float | None]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: [float(row[name]) if row[name] else None for row in rows] for name in (rows[0] if rows else ())}
    except (OSError, ValueError, TypeError):
        return {}
