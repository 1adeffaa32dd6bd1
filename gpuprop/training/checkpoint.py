"""Checkpoints: a folder of files from which a training that was killed goes on as if nothing had happened.

A file holds everything that the remaining updates depend on, as tensors and JSON in the container of a model file
(`gpuprop.model.container`): hashed, and written beside, flushed and renamed. `gpuprop.load` reads its model. The folder
keeps the newest few, and the newest one that is sound counts.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuprop.errors import ModelFileError, ResumeError, check_integer
from gpuprop.model.container import read_file, write_file
from gpuprop.model.refusals import naming, refuse, refusing
from gpuprop.training.stored import progress_from

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.model.network import Network
    from gpuprop.training.records import Progress

__all__ = ["Checkpoint", "StoredCheckpoint", "found_checkpoint", "newest", "read_checkpoint"]

_NAME = re.compile(r"checkpoint-(\d{6,12})\.safetensors")
_BESIDE = re.compile(r"\.gpuprop-[0-9a-f]{16}\.tmp")

#: The first checkpoint by time comes after at most so many seconds, and saving takes at most this share of the time.
_FIRST, _SHARE = 10.0, 0.01
_UNITS = {"s": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}


class Checkpoint:
    """Where and how often a training writes down everything that it needs to go on; for ``Trainer(checkpoint=...)``.

    Parameters
    ----------
    path : str or path
        A folder, made if need be, that holds the checkpoints of one training: ``checkpoint-000001.safetensors`` and so
        on. ``Trainer.fit(resume_from=path)`` goes on from the newest sound one, and `gpuprop.load` reads the model of
        any of these files.
    every : str, default="60s"
        A time such as "60s", "5 min" or "1 h", or a number of "epochs" or of "updates": "1 epoch", "500 updates". By
        time, the first checkpoint comes after at most 10 s, and where writing one takes t seconds, the next one comes
        100 t later at the earliest. A signal that ends the training, and its end, write one too.
    keep : int, default=2
        How many checkpoints stay.
    extra : mapping of JSON values or None, default=None
        What you want to find in ``StoredCheckpoint.extra``.
    finish : callable or None, default=None
        ``finish(network)`` changes a copy of the network in place into the model that `gpuprop.load` reads from a
        checkpoint; None leaves it as it is trained.

    Raises
    ------
    ValueError
        If `every` is no time and no number of epochs or steps, or `keep` is below 1.

    Examples
    --------
    >>> import tempfile, gpuprop
    >>> X, y = gpuprop.datasets.make_xor()
    >>> def trainer(epochs):
    ...     net = gpuprop.Network((2, 8, 1), hidden_activation="tanh", loss="binary_cross_entropy", seed=0)
    ...     return gpuprop.Trainer(net, batch_size=4, epochs=epochs, checkpoint=gpuprop.Checkpoint(folder, "1 epoch"))
    >>> folder = tempfile.mkdtemp()
    >>> first = trainer(epochs=5).fit(X, y)
    >>> later = trainer(epochs=8).fit(X, y, resume_from="auto")
    >>> later.epochs_done
    8
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: str = "60s",
        keep: int = 2,
        *,
        extra: Mapping[str, Any] | None = None,
        finish: Callable[[Network], object] | None = None,
    ) -> None:
        self.path = Path(path)
        self.every = every
        self.keep = check_integer("keep", keep, 1)
        self.extra = dict(extra or {})
        self.finish = finish
        self._amount, self._unit = _interval(every)
        self._latest: tuple[int, int] | None = None
        self._due_at = 0.0
        self._next, self._own = 1, 0

    def begin(self, epochs_done: int, steps_done: int, *, resumed: bool) -> None:
        """Begin a training here: make the folder, and remove what writers that were killed have left.

        Raises
        ------
        ModelFileError
            If the folder cannot be made or read.
        """
        with naming(self.path, "used for checkpoints"):
            self.path.mkdir(parents=True, exist_ok=True)
            for file in self.path.iterdir():
                if _BESIDE.fullmatch(file.name):
                    with suppress(OSError):
                        file.unlink()
            self._next = max((number for number, _ in _generations(self.path)), default=0) + 1
        self._own = self.keep if resumed else 0  # those of the process before are of this training, too
        self._latest = (epochs_done, steps_done) if resumed else None
        self._epochs, self._steps = epochs_done, steps_done
        self._due_at = time.monotonic() + min(self._amount, _FIRST)

    def due(self, epochs_done: int, steps_done: int) -> bool:
        """Return whether it is time for a checkpoint, after so many completed epochs and updates."""
        if self._latest == (epochs_done, steps_done):
            return False
        if self._unit == "epoch":
            return epochs_done >= self._epochs + self._amount
        if self._unit == "update":
            return steps_done >= self._steps + self._amount
        return time.monotonic() >= self._due_at

    def next_update(self, steps_done: int) -> int | None:
        """Return after which later update a checkpoint is due, if a number of updates says so."""
        return max(steps_done + 1, self._steps + int(self._amount)) if self._unit == "update" else None

    def write(
        self,
        tensors: Mapping[str, NDArray[Any]],
        metadata: Mapping[str, Any],
        *,
        epochs_done: int,
        steps_done: int,
        began: float,
    ) -> Path:
        """Write a checkpoint, which the training has taken since the time `began`, and remove those that are too old.

        Raises
        ------
        ModelFileError
            If it cannot be written; the older ones then stay.
        """
        self._epochs, self._steps = epochs_done, steps_done  # where it fails, too, the next one comes in its time
        self._due_at = began + self._amount
        file = self.path / f"checkpoint-{self._next:06d}.safetensors"
        with naming(self.path, "used for checkpoints"):
            self.path.mkdir(parents=True, exist_ok=True)
        write_file(file, tensors, metadata)
        self._next, self._own = self._next + 1, self._own + 1
        self._latest = (epochs_done, steps_done)
        # The checkpoints of an earlier training go as soon as there is one of this.
        old = [one for number, one in _generations(self.path) if number < self._next - min(self.keep, self._own)]
        for one in old:
            with suppress(OSError):
                one.unlink()
        now = time.monotonic()
        self._due_at = now + max(self._amount, (now - began) / _SHARE)
        return file


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint that has been read.

    Attributes
    ----------
    path : Path
        Its file, whose model `gpuprop.load` reads.
    generation : int
        The number in its name.
    progress : Progress
        Where the training stood.
    epochs : int
        The epochs that were planned.
    stopped : bool
        Whether a callback had ended the training.
    settings : dict
        What the training is, see `gpuprop.training.settings`.
    place : dict
        Device, path, threads and versions: with the same ones a resume gives the same bits.
    extra : dict
        What the caller wanted to find here.
    skipped : tuple of str
        A sentence about each newer checkpoint that is damaged.
    """

    path: Path
    generation: int
    progress: Progress
    epochs: int
    stopped: bool
    settings: dict[str, Any]
    place: dict[str, Any]
    extra: dict[str, Any]
    skipped: tuple[str, ...] = ()


def newest(path: str | os.PathLike[str]) -> StoredCheckpoint | None:
    """Return the newest sound checkpoint of a folder, or None if there is none.

    A checkpoint that cannot be read is skipped with a ``RuntimeWarning`` that names it.

    Parameters
    ----------
    path : str or path
        The folder; it need not exist.

    Raises
    ------
    ModelFileError
        If the folder cannot be read.
    """
    folder, skipped = Path(path), []
    with naming(folder, "read"):
        generations = sorted(_generations(folder), reverse=True)
    for _, file in generations:
        try:
            found = read_checkpoint(file)
        except ModelFileError as fault:
            skipped.append(f"skipped a checkpoint: {fault}")
            warnings.warn(skipped[-1], RuntimeWarning, stacklevel=2)
            continue
        return replace(found, skipped=tuple(skipped))
    return None


def read_checkpoint(path: str | os.PathLike[str]) -> StoredCheckpoint:
    """Read a checkpoint.

    Raises
    ------
    ModelFileError
        If the file cannot be read, is damaged, or is no checkpoint.
    """
    file = Path(path)
    tensors, metadata = read_file(file)
    with naming(file, "read"):
        if metadata.get("kind") != "checkpoint":
            refuse(f"got a file of kind {metadata.get('kind')!r}, expected 'checkpoint'")
        with refusing("metadata", "a checkpoint"):
            kept = metadata["checkpoint"]
            number = _NAME.fullmatch(file.name)
            return StoredCheckpoint(
                path=file,
                generation=int(number[1]) if number else 0,
                progress=progress_from(kept["progress"], tensors, metadata["parameters"]),
                epochs=int(kept["epochs"]),
                stopped=bool(kept["stopped"]),
                settings=dict(kept["settings"]),
                place=dict(kept["place"]),
                extra=dict(kept["extra"]),
            )


def _generations(folder: Path) -> list[tuple[int, Path]]:
    if not folder.exists():
        return []
    found = [(_NAME.fullmatch(file.name), file) for file in folder.iterdir()]
    return [(int(name[1]), file) for name, file in found if name]


def _interval(every: object) -> tuple[float, str]:
    """Return how often as an amount and a unit: "s", "epoch" or "update"."""
    expected = "expected a time such as '60s' or '5 min', or '1 epoch' or '500 updates'"
    if not isinstance(every, str):
        raise TypeError(f"every: got {every!r}, {expected}")
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+?)s?\s*", every.lower())
    if found is None or found[2] not in {*_UNITS, "epoch", "update"}:
        raise ValueError(f"every: got {every!r}, {expected}")
    amount, unit = float(found[1]), found[2]
    if amount <= 0:
        raise ValueError(f"every: got {every!r}, expected a number above 0")
    if unit in _UNITS:
        return amount * _UNITS[unit], "s"
    if amount != int(amount):
        raise ValueError(f"every: got {every!r}, expected a whole number of {unit}s")
    return amount, unit


def found_checkpoint(resume_from: Any, checkpoint: Checkpoint | None) -> StoredCheckpoint | None:
    """Return the checkpoint that ``fit(resume_from=...)`` names; None for "auto" where there is none yet.

    Raises
    ------
    ResumeError
        If "auto" is given to a trainer without checkpoints, or there is none at the path.
    """
    if isinstance(resume_from, StoredCheckpoint):
        return resume_from
    if isinstance(resume_from, str) and resume_from == "auto":
        if checkpoint is None:
            raise ResumeError("resume_from='auto': needs a trainer with checkpoints; pass checkpoint=, or a path here")
        return newest(checkpoint.path)
    path = Path(resume_from)
    found = newest(path) if path.is_dir() or not path.exists() else read_checkpoint(path)
    if found is None:
        raise ResumeError(
            f"resume_from: {path} holds no checkpoint that can be read; expected checkpoint-*.safetensors"
        )
    return found
