"""What a run says of itself in JSON: the manifest of its published files, and the settings to resume it with."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpuprop.model.container import CHECKPOINTS, replace_flushed

__all__ = ["MANIFEST", "SETTINGS", "Manifest", "StoredRun", "flush_file", "stored_runs", "write_json"]

MANIFEST = "run.json"
"""The manifest's name in the folder of a run."""

SETTINGS = "settings.json"
"""The file that says how a training was asked for: each that can be resumed has a folder in `CHECKPOINTS`."""

_FORMAT = 1
_MOST_BYTES = 2**20
"""A larger file is neither a manifest nor settings, and is not read."""


@dataclass(frozen=True)
class Manifest:
    """Which run the files in a folder are of. It is written last: with it, the files of a run are complete.

    Attributes
    ----------
    run : str
        The run's identifier, 16 hexadecimal digits drawn at its start.
    complete : bool
        Whether the training came to its own end; otherwise it was stopped, and can be resumed.
    epochs_done, epochs : int
        Completed epochs, and those that were asked for.
    files : dict of str to str
        The SHA-256 of each file, by its name.
    """

    run: str
    complete: bool
    epochs_done: int
    epochs: int
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Return the manifest in `folder`, or None if there is none, or one that nobody can read."""
        found = _read_json(folder / MANIFEST)
        kinds = {"run": str, "complete": bool, "epochs_done": int, "epochs": int, "files": dict}
        if found.pop("format", None) != _FORMAT or {name: type(value) for name, value in found.items()} != kinds:
            return None
        return cls(**found)

    def with_files(self, paths: Iterable[Path]) -> Manifest:
        """Return this manifest with the sums of these files too."""
        sums = {path.name: _sum_of(path) for path in paths}
        return Manifest(self.run, self.complete, self.epochs_done, self.epochs, {**self.files, **sums})

    def write(self, folder: Path) -> None:
        """Write the manifest into `folder`, complete or not at all."""
        write_json(folder / MANIFEST, {"format": _FORMAT, **asdict(self)})

    def holds(self, folder: Path) -> bool:
        """Return whether each file that the manifest names lies in `folder`, with the content that it had."""
        try:
            return all(_sum_of(folder / name) == of_file for name, of_file in self.files.items())
        except OSError:
            return False


@dataclass(frozen=True)
class StoredRun:
    """A training that can be resumed.

    Attributes
    ----------
    run : str
        The run's identifier.
    settings : dict
        How the training was asked for.
    complete : bool
        Whether its model is published, after all its epochs.
    """

    run: str
    settings: dict[str, Any]
    complete: bool


def stored_runs(folder: Path) -> list[StoredRun]:
    """Return the trainings of a folder that can be resumed, the one that was begun last at the end."""
    manifest, found = Manifest.read(folder), []
    for file in (folder / CHECKPOINTS).glob(f"*/{SETTINGS}"):
        settings, run = _read_json(file), file.parent.name
        if settings:
            complete = manifest is not None and manifest.run == run and manifest.complete and manifest.holds(folder)
            found.append((file.stat().st_mtime_ns, StoredRun(run, settings, complete)))
    return [stored for _, stored in sorted(found, key=lambda pair: pair[0])]


def _read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty one if there is none that can be read."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file: under another name first, flushed to the disk, then renamed."""
    replace_flushed(path, f"{json.dumps(value, indent=2, allow_nan=False)}\n".encode())


def flush_file(path: Path) -> None:
    """Flush a file that is complete to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
