"""The folder of a run: claimed before training starts, filled all at once when everything is there."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from gpuprop.errors import GpupropError
from gpuprop.estimators.stored_models import MODEL_FILE_NAME

__all__ = ["CONFUSION", "HISTORY", "LOSS", "PREDICTIONS", "RunFolder", "RunFolderError"]

HISTORY = "history.csv"
LOSS = "loss.png"
CONFUSION = "confusion.png"
PREDICTIONS = "predictions.png"
_FILES = (MODEL_FILE_NAME, HISTORY, LOSS, CONFUSION, PREDICTIONS)


class RunFolderError(GpupropError):
    """The folder of a run cannot be used; raised before anything in it is touched."""


class RunFolder:
    """A claim on the folder `path` for the files of a run.

    Entering makes the folder, and in it a hidden one of this process, which shows that it can be written. Files go to
    `staging`; `publish` moves them to their places, so that those of an earlier run stay until all new ones are
    complete. Leaving without `publish` leaves things as they were.

    Parameters
    ----------
    path : Path
    overwrite : bool, default=False
        Whether the files of an earlier run may be replaced.

    Raises
    ------
    RunFolderError
        On entering, if `path` holds a run and `overwrite` is False, or if it cannot be made or written.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        self.overwrite = overwrite
        self.published: list[str] = []
        self._made: list[Path] = []

    def __enter__(self) -> RunFolder:
        held = [name for name in _FILES if os.path.lexists(self.path / name)]
        if held and not self.overwrite:
            raise RunFolderError(
                f"{self.path}: holds a run already ({', '.join(held)}); add --overwrite, or choose another --out"
            )
        for name in held:
            if (self.path / name).is_dir():
                raise RunFolderError(f"{self.path / name}: is a folder, expected a file; choose another --out")
        try:
            self._make_folders()
            self.staging = Path(tempfile.mkdtemp(prefix=".gpuprop-", dir=self.path))
        except OSError as error:
            self._remove_folders()
            reason = "it is no folder" if isinstance(error, FileExistsError) else error.strerror or error
            raise RunFolderError(f"{self.path}: cannot be written: {reason}; choose another --out") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        self._remove_folders()

    def publish(self) -> None:
        """Move the files in `staging` to their places, and remove those of an earlier run that have no successor."""
        new = {file.name for file in self.staging.iterdir()}
        self.published = [name for name in _FILES if name in new]
        for name in _FILES:
            if name in new:
                (self.staging / name).replace(self.path / name)
            else:
                (self.path / name).unlink(missing_ok=True)

    def _make_folders(self) -> None:
        self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self.path.mkdir(parents=True, exist_ok=True)

    def _remove_folders(self) -> None:
        """Remove the folders that were made here and are still empty, the innermost first."""
        with suppress(OSError):  # the first one that holds something ends it
            for folder in self._made:
                folder.rmdir()
