"""The folder of a run: claimed before training starts, filled when the model is there; pictures follow it."""

from __future__ import annotations

import csv
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from gpuprop.errors import GpupropError
from gpuprop.model.container import MODEL_FILE_NAME

__all__ = ["CONFUSION", "HISTORY", "LOSS", "PREDICTIONS", "RunFolder", "RunFolderError", "write_history"]

HISTORY = "history.csv"
LOSS = "loss.png"
CONFUSION = "confusion.png"
PREDICTIONS = "predictions.png"
FILES = (MODEL_FILE_NAME, HISTORY, LOSS, CONFUSION, PREDICTIONS)
"""All files that a run may have: a classifier has a confusion matrix, a regression has predictions."""


class RunFolderError(GpupropError):
    """The folder of a run cannot be used; raised before anything in it is touched."""


class RunFolder:
    """A claim on the folder `path` for the files of a run.

    Entering makes the folder, and in it a hidden folder of this process, which proves that files can be written there.
    Files go to `staging`, and `publish` moves them to their places, so that the files of an earlier run stay until the
    new model is complete. `publish` may be called again with further files. Leaving without `publish` changes nothing.

    Parameters
    ----------
    path : Path
    overwrite : bool, default=False
        Whether the files of an earlier run may be replaced.
    to_overwrite, to_move : str
        What an error advises its reader to do; a command names its options here.

    Attributes
    ----------
    staging : Path
        The hidden folder, once the claim is entered.
    published : list of str
        The names of the files that `publish` has put in their places.

    Raises
    ------
    RunFolderError
        On entering, if `path` holds a run and `overwrite` is False, or if it cannot be made or written.
    """

    def __init__(
        self,
        path: Path,
        *,
        overwrite: bool = False,
        to_overwrite: str = "pass overwrite=True",
        to_move: str = "choose another folder",
    ) -> None:
        self.path = path
        self.overwrite = overwrite
        self.published: list[str] = []
        self._to_overwrite, self._to_move = to_overwrite, to_move
        self._made: list[Path] = []

    def __enter__(self) -> RunFolder:
        held = [name for name in FILES if os.path.lexists(self.path / name)]
        if held and not self.overwrite:
            raise RunFolderError(
                f"{self.path}: holds a run already ({', '.join(held)}); {self._to_overwrite}, or {self._to_move}"
            )
        for name in held:
            if (self.path / name).is_dir():
                raise RunFolderError(f"{self.path / name}: is a folder, expected a file; {self._to_move}")
        try:
            self._make_folders()
            self.staging = Path(tempfile.mkdtemp(prefix=".gpuprop-", dir=self.path))
        except OSError as error:
            self._remove_folders()
            reason = "it is no folder" if isinstance(error, FileExistsError) else error.strerror or error
            raise RunFolderError(f"{self.path}: cannot be written: {reason}; {self._to_move}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        self._remove_folders()

    def publish(self) -> None:
        """Move the files in `staging` to their places; the first time, remove all other files of an earlier run."""
        new = {file.name for file in self.staging.iterdir()}
        for name in FILES:
            if name in new:
                (self.staging / name).replace(self.path / name)
            elif not self.published:
                (self.path / name).unlink(missing_ok=True)
        self.published += [name for name in FILES if name in new and name not in self.published]

    def _make_folders(self) -> None:
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)

    def _remove_folders(self) -> None:
        """Remove the folders that were made here and are still empty, the innermost first."""
        with suppress(OSError):  # the first one that holds something ends it
            for folder in self._made:
                folder.rmdir()


def write_history(path: Path, history: Mapping[str, Sequence[Any]]) -> None:
    """Write the history of a training as a CSV file: a column for each of its lists, a row for each epoch."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(history)
        writer.writerows(zip(*history.values(), strict=True))
