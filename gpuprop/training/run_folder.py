"""The folder of a run: claimed before training starts, filled when the model is there; pictures follow it.

A folder holds the files of one run, and at no moment a mixture of two, however the process that fills it may end. One
rename of a whole folder would be one switch, but it cannot replace a folder that holds other files too, and links to a
folder with a number in its name need rights on Windows, and mislead who copies the files. So the files are put in
place one by one, in an order in which each state between is sound:

1. The manifest of the earlier run goes, then its history and its pictures. What is left is the earlier model alone.
2. The new model replaces it; then the new history comes. Both were complete and on the disk before.
3. The manifest of the new run comes: its identifier, and the SHA-256 of each file. With it, the run is published.

The folder is flushed after each step, so that a power cut leaves one of these states too. All that a training needs to
be resumed lies in ``.checkpoints``, in a folder of its own, until the files of a newer run are in place.
"""

from __future__ import annotations

import csv
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from gpuprop.errors import GpupropError, ModelFileError
from gpuprop.model.container import CHECKPOINT_PATTERN, CHECKPOINTS, MODEL_FILE_NAME, flush_folder
from gpuprop.training.run_lock import FolderLock
from gpuprop.training.run_manifest import (
    MANIFEST,
    SETTINGS,
    Manifest,
    flush_file,
    stored_runs,
    write_json,
)

__all__ = [
    "CONFUSION",
    "HISTORY",
    "LOSS",
    "PREDICTIONS",
    "RATES",
    "SEEDS",
    "RunFolder",
    "RunFolderError",
    "write_history",
]

HISTORY = "history.csv"
SEEDS = "seeds.csv"
LOSS = "loss.png"
CONFUSION = "confusion.png"
PREDICTIONS = "predictions.png"
RATES = "learning-rates.png"
FILES = (MODEL_FILE_NAME, HISTORY, LOSS, CONFUSION, PREDICTIONS, RATES, SEEDS)
"""All files that a run may have: a classifier has a confusion matrix, a regression has predictions."""


class RunFolderError(GpupropError):
    """The folder of a run cannot be used; raised before anything in it is touched."""


class RunFolder:
    """A claim on the folder `path` for the files of a run.

    Entering makes the folder, locks it, and makes in it a hidden folder, which proves that files can be written there.
    Hidden folders of runs that have died are removed. Files go to `staging`, and `publish` moves them to their places,
    so that the files of an earlier run stay until the new model is complete. `publish` may be called again with
    further files. Leaving without `publish` changes nothing.

    Parameters
    ----------
    path : Path
    overwrite : bool, default=False
        Whether the files of an earlier run may be replaced.
    run : str or None, default=None
        The identifier of the run that is to be resumed; None begins a new one.
    to_overwrite, to_move, to_resume : str
        What an error advises its reader to do; a command names its options here.

    Attributes
    ----------
    run : str
        The identifier of the run.
    staging : Path
        The hidden folder, once the claim is entered.
    checkpoints : Path
        The folder for all that the run needs to be resumed; it exists after `remember`.
    published : list of str
        The names of the files that `publish` has put in their places.
    made_again : bool
        Whether the folder was deleted or renamed after it had been entered, and `fill` had to make it again.

    Raises
    ------
    RunFolderError
        On entering, if `path` holds a run and `overwrite` is False, if another process trains in it, or if it cannot
        be made or written.
    """

    def __init__(
        self,
        path: Path,
        *,
        overwrite: bool = False,
        run: str | None = None,
        to_overwrite: str = "pass overwrite=True",
        to_move: str = "choose another folder",
        to_resume: str = "resume it",
    ) -> None:
        self.path = path
        self.overwrite = overwrite or run is not None
        self.run = run or secrets.token_hex(8)
        self.published: list[str] = []
        self.made_again = False
        self._resumed = run is not None
        self._to_overwrite, self._to_move, self._to_resume = to_overwrite, to_move, to_resume
        self._made: list[Path] = []
        self._manifest: Manifest | None = None
        self._settings: Mapping[str, Any] | None = None

    def __enter__(self) -> RunFolder:
        self._root = self.path.absolute()  # whatever becomes of the working directory
        self.checkpoints = self._root / CHECKPOINTS / self.run
        self._lock = FolderLock(self._root)
        try:
            self._make_folders()
            holder = self._lock.take()
            if holder is not None:
                raise RunFolderError(f"{self.path}: a training goes on in it, of {holder}; {self._to_move}, or wait")
            self._check_contents()
            for left in self._root.glob(".gpuprop-*/"):  # we have the lock, so whoever made them has died
                shutil.rmtree(left, ignore_errors=True)
            self.staging = Path(tempfile.mkdtemp(prefix=".gpuprop-", dir=self._root))
        except BaseException as error:
            self._lock.release()
            self._remove_folders()
            if not isinstance(error, OSError):
                raise
            reason = "it is no folder" if isinstance(error, FileExistsError) else error.strerror or error
            raise RunFolderError(f"{self.path}: cannot be written: {reason}; {self._to_move}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.staging, ignore_errors=True)
        if not self.published and not self._resumed and not self.has_checkpoints:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
            with suppress(OSError):  # it holds what another run needs
                self.checkpoints.parent.rmdir()
        self._lock.release()
        self._remove_folders()

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is anything that was trained, for a resume to go on from."""
        try:
            return any(file.name != SETTINGS for file in self.checkpoints.iterdir())
        except OSError:
            return False

    def remember(self, settings: Mapping[str, Any]) -> None:
        """Write how the training was asked for, as JSON values, so that it can be resumed from now on."""
        self._settings = settings
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for folder in (self._root, self.checkpoints.parent):
            flush_folder(folder)
        write_json(self.checkpoints / SETTINGS, settings)

    def fill(self, write: Callable[[Path], None], manifest: Manifest) -> Path:
        """Publish model and history; if the folder cannot take them any more, save them elsewhere.

        Parameters
        ----------
        write : callable
            Writes both into the folder that it gets.
        manifest : Manifest
            What to say of the run; the names and sums of the files are added.

        Returns
        -------
        Path
            Where the files are: `path`, or a new folder, because `path` has become read-only, say, or its disk is full.

        Raises
        ------
        OSError, ModelFileError
            If they can be written nowhere: the first error.
        """
        try:
            self._come_back()
            write(self.staging)
            self.publish(manifest)
        except (OSError, ModelFileError) as error:
            for place in self._other_places():
                with suppress(OSError, ModelFileError):
                    return _saved_in(place, self._root.name, write, manifest)
            raise error
        return self.path

    def publish(self, manifest: Manifest | None = None) -> None:
        """Move the files in `staging` to their places.

        Parameters
        ----------
        manifest : Manifest or None, default=None
            The first time, what to say of the run; all other files of an earlier run are then removed. None adds files
            to those that are published.
        """
        found = {file.name for file in self.staging.iterdir()}
        new = [name for name in FILES if name in found]
        for name in new:
            flush_file(self.staging / name)
        described = manifest or self._manifest
        if described is None:
            raise ValueError("the first files of a run need a manifest")
        described = described.with_files(self.staging / name for name in new)
        described.write(self.staging)
        if self._manifest is None:
            stay = {MODEL_FILE_NAME} & found  # until the new one replaces it, so that there always is one
            for name in (MANIFEST, *FILES):
                if name not in stay:
                    (self._root / name).unlink(missing_ok=True)
            flush_folder(self._root)
        for name in (*new, MANIFEST):
            (self.staging / name).replace(self._root / name)
            flush_folder(self._root)
        self._manifest = described
        self.published += [name for name in new if name not in self.published]

    def tidy(self, *, complete: bool) -> None:
        """Remove what only an earlier run needed to be resumed, once the files of this one are in place.

        A complete training keeps its last checkpoint, so that more epochs can be asked for.
        """
        for other in self.checkpoints.parent.glob("*/"):
            if other != self.checkpoints:
                shutil.rmtree(other, ignore_errors=True)
        if complete:
            unneeded = [self.checkpoints / MODEL_FILE_NAME, *sorted(self.checkpoints.glob(CHECKPOINT_PATTERN))[:-1]]
            for file in unneeded:
                with suppress(OSError):
                    file.unlink(missing_ok=True)

    def _check_contents(self) -> None:
        """Refuse a folder that holds another run."""
        held = [name for name in (*FILES, MANIFEST) if os.path.lexists(self._root / name)]
        if not self.overwrite:
            if any(not stored.complete for stored in stored_runs(self._root)):
                raise RunFolderError(
                    f"{self.path}: holds a training that has not come to its end; {self._to_resume}; or "
                    f"{self._to_overwrite}, or {self._to_move}"
                )
            if held:
                raise RunFolderError(
                    f"{self.path}: holds a run already ({', '.join(held)}); {self._to_overwrite}, or {self._to_move}"
                )
        for name in held:
            if (self._root / name).is_dir():
                raise RunFolderError(f"{self.path / name}: is a folder, expected a file; {self._to_move}")

    def _come_back(self) -> None:
        """Make the folder again if it was deleted or renamed; if another run has taken its place, leave it that."""
        if not self._lock.held:
            self._root.mkdir(parents=True, exist_ok=True)
            if any((self._root / name).exists() for name in FILES) or self._lock.take_again() is not None:
                raise FileExistsError(errno.EEXIST, "another run is in its place", str(self.path))
            self.made_again = True
            if self._settings is not None:
                self.remember(self._settings)
        self.staging.mkdir(exist_ok=True)  # somebody may have tidied up meanwhile

    def _other_places(self) -> Iterator[Path]:
        """Yield the folders in which files may be saved that the folder of the run cannot take."""
        yield self._root.parent
        for find in (Path.cwd, lambda: Path(tempfile.gettempdir()), Path.home):
            with suppress(OSError, RuntimeError):
                yield find()

    def _make_folders(self) -> None:
        self._made = [folder for folder in (self._root, *self._root.parents) if not folder.exists()]
        self._root.mkdir(parents=True, exist_ok=True)

    def _remove_folders(self) -> None:
        """Remove the folders that were made here and are still empty, the innermost first."""
        with suppress(OSError):  # the first one that holds something ends it
            for folder in self._made:
                folder.rmdir()


def _saved_in(place: Path, name: str, write: Callable[[Path], None], manifest: Manifest) -> Path:
    """Have the files of a run written into a new folder in `place`; return it."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-saved-", dir=place))
    try:
        write(folder)
        manifest.with_files(sorted(folder.iterdir())).write(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def write_history(path: Path, history: Mapping[str, Sequence[Any]]) -> None:
    """Write the history of a training as a CSV file: a column for each of its lists, a row for each epoch."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(history)
        writer.writerows(zip(*history.values(), strict=True))
