"""What a run has written so far, as ``gpuprop watch`` shows it: waiting, running, finished or dead."""

from __future__ import annotations

import csv
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuprop.learn.live.process import is_alive
from gpuprop.learn.live.snapshot import HISTORY_FILE, SNAPSHOT_FILE, weight_images
from gpuprop.model.container import CHECKPOINT_PATTERN, CHECKPOINTS

__all__ = ["RunReader"]

#: The column of a history: numbers, None for what an epoch has not, and "Infinity", "-Infinity" or "NaN", because JSON
#: has no such numbers.
History = dict[str, list[float | str | None]]

_MOST_BYTES = 64_000_000
"""A larger file is none that a run has written for those who watch it."""


@dataclass(frozen=True)
class _Staging:
    """The hidden folder of a run that goes on or has died.

    Attributes
    ----------
    path : Path
    snapshot : dict
        What its snapshot holds; empty before the first one.
    last_sign : float
        When the run last wrote or touched a file of it, as the file system tells the time.
    """

    path: Path
    snapshot: dict[str, Any]
    last_sign: float

    @property
    def silent(self) -> float:
        """Seconds since the last sign of life."""
        return max(0.0, time.time() - self.last_sign)

    @property
    def alive(self) -> bool:
        """Whether the process of the run lives."""
        process = self.snapshot.get("process")
        return is_alive(process if isinstance(process, dict) else {}, self.silent)


class RunReader:
    """Reads what a run has written so far, and keeps its last snapshot when the run ends and deletes the file.

    Parameters
    ----------
    folder : Path
        The folder that `gpuprop train` got as ``--out``; it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._snapshot: dict[str, Any] = {}
        self._source: Path | None = None

    def state(self) -> dict[str, Any]:
        """Return the current state, as values that JSON has.

        Returns
        -------
        dict
            "status": "waiting" (there is no run yet), "running", "finished", or "dead": the process of the run has
            ended, and its model was not published. For a run that goes on or has died, "silent": seconds since the
            last sign of life, and "resumable": whether there are checkpoints. "folder", "history", and what the
            snapshot holds.
        """
        staging = self._staging()
        state: dict[str, Any] = {"folder": str(self.folder)}
        if staging is None:
            finished = (self.folder / HISTORY_FILE).exists()
            history = _read_history(self.folder / HISTORY_FILE)
            if finished and not self._snapshot:
                self._snapshot = self._from_model(history)
            state["status"] = "finished" if finished else "waiting"
        else:
            if staging.path != self._source:  # another run has started: forget the last one
                self._source, self._snapshot = staging.path, {}
            history = _read_history(staging.path / HISTORY_FILE)
            self._snapshot = staging.snapshot or self._snapshot
            if not history and self._snapshot.get("epoch"):  # published, while pictures are still drawn
                history = _read_history(self.folder / HISTORY_FILE)
            state["status"] = "running" if staging.alive else "dead"
            state["silent"] = round(staging.silent, 1)
            state["resumable"] = any(self.folder.glob(f"{CHECKPOINTS}/*/{CHECKPOINT_PATTERN}"))
        shown = {name: value for name, value in self._snapshot.items() if name != "process"}
        return state | {"history": history} | shown

    def _staging(self) -> _Staging | None:
        """Return the newest run that goes on; else the newest one that died after the last one finished; else None."""
        try:
            candidates = [_staging_at(path) for path in self.folder.glob(".gpuprop-*")]
        except OSError:  # the folder was deleted while we looked
            return None
        found = sorted(filter(None, candidates), key=lambda one: one.last_sign)
        living = [one for one in found if one.alive]
        if living or not found:
            return living[-1] if living else None
        finished = _time_of(self.folder / HISTORY_FILE)
        return found[-1] if finished is None or finished < found[-1].last_sign else None

    def _from_model(self, history: History) -> dict[str, Any]:
        """Return the part of a snapshot that a finished run's model still gives."""
        from gpuprop.estimators.predictors import NetworkPredictor, load_predictor

        try:
            predictor = load_predictor(self.folder, "numpy")
            network, pictures = predictor.network, isinstance(predictor, NetworkPredictor)
            weights = weight_images(network, pictures=pictures)
        except Exception:  # whatever is wrong with the model, its history can be shown
            return {}
        done = len(history.get("epoch", ()))
        return {"epoch": done, "epochs": done, "network": "-".join(map(str, network.layer_sizes)), "weights": weights}


def _staging_at(path: Path) -> _Staging | None:
    """Return what lies in a hidden folder, or None if no run has written there."""
    times = [_time_of(path / name) for name in (HISTORY_FILE, SNAPSHOT_FILE)]
    known = [one for one in times if one is not None]
    return _Staging(path, _read_json(path / SNAPSHOT_FILE), max(known)) if known else None


def _time_of(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _read_text(path: Path) -> str:
    """Return the text of a file; of what is no file (a pipe would wait for ever) or too large, nothing."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return ""
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _read_history(path: Path) -> History:
    """Return the columns; an unfinished last line is left out."""
    text = _read_text(path)
    try:
        names, *rows = list(csv.reader(text[: text.rfind("\n") + 1].splitlines())) or [[]]
    except csv.Error:
        return {}
    rows = [row for row in rows if len(row) == len(names)]
    return {name: [_number(row[index]) for row in rows] for index, name in enumerate(names)}


def _number(text: str) -> float | str | None:
    """Return a number as JSON can write it; what is infinite or NaN becomes the name that JavaScript has for it."""
    try:
        value = float(text)
    except ValueError:
        return None
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read_text(path), parse_float=_number, parse_constant=str)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
