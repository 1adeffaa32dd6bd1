"""What a run writes for those who watch it: its history, line by line, and a snapshot, which is a small JSON file.

Both files lie in the run's hidden staging folder while it goes, and are deleted when it ends. The run replaces the
snapshot after an epoch, at most once a second, and as a whole: a reader sees the old one or the new one. The snapshot
says which process writes it, and the time of the file is the heartbeat of that process.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpuprop.backends.numpy.ops import NumpyOps
from gpuprop.learn.live.process import BEAT_SECONDS, this_process
from gpuprop.training.callbacks.base import Callback
from gpuprop.training.orders import held_out_places

if TYPE_CHECKING:
    from gpuprop.model.network import Network
    from gpuprop.training.trainer import Trainer

__all__ = ["HISTORY_FILE", "SNAPSHOT_FILE", "LiveRun", "image_shape", "weight_images"]

SNAPSHOT_FILE = "live.json"
HISTORY_FILE = "history.csv"

MAX_IMAGES = 36
"""The number of units of the first layer whose weights are shown."""
MAX_MISTAKES = 24
N_WATCHED = 500
"""The number of training rows in which the snapshot looks for mistakes."""
MAX_FEATURES = 4096


class LiveRun(Callback):
    """Writes the history and the snapshot of a training into a folder, epoch by epoch.

    A file that cannot be written (the disk is full, or the folder was deleted, renamed or made read-only) never ends
    the training: the callback warns once, and tries again after the next epoch.

    Parameters
    ----------
    folder : Path
        The folder, which must exist.
    X, y : array_like
        The training data. The snapshot looks for mistakes in the first 500 validation rows, which are not trained on;
        without validation in the first 500 rows of these.
    pictures : bool, default=True
        Whether rows of a square number of values may be pictures; those of a table are none.
    """

    def __init__(self, folder: Path, X: ArrayLike, y: ArrayLike, *, pictures: bool = True) -> None:
        self._folder, self._pictures = folder, pictures
        self._given: tuple[Any, Any] | None = (X, y)
        self._X, self._y = np.asarray(X)[:N_WATCHED], np.asarray(y)[:N_WATCHED]
        self._rows, self._part = np.arange(len(self._X)), "training"
        self._written = -math.inf
        self._appends = False  # whether the history file has all earlier epochs, so that a line can follow
        self._warned = False
        self._heart: _Heart | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Write the first snapshot, and begin to give signs of life."""
        self._stop_heart()
        self._appends = False
        self._write(self._choose_rows, trainer)
        self._write(self._replace_snapshot, trainer)
        self._heart = _Heart(self._folder / SNAPSHOT_FILE)
        weakref.finalize(self, self._heart.stop)  # a training that failed does not come to its end

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        """Append the epoch to the history; replace the snapshot if it is a second old or this is the last epoch."""
        self._write(self._extend_history, trainer, record)
        if time.monotonic() - self._written >= 1 or epoch == trainer.epochs:
            self._write(self._replace_snapshot, trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Give no more signs of life."""
        self._stop_heart()

    def _write(self, action: Callable[..., None], *arguments: Any) -> None:
        """Write something; a failure is a warning, and only the first one."""
        try:
            action(*arguments)
        except Exception as error:
            if not self._warned:
                self._warned = True
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                warnings.warn(
                    f"{self._folder}: what `gpuprop watch` shows cannot be written: {reason}; the training goes on",
                    stacklevel=3,
                )

    def _choose_rows(self, trainer: Trainer) -> None:
        """Watch rows that are held out, if there are any."""
        given, self._given = self._given, None
        if isinstance(trainer.validation, tuple):
            X, y = (np.asarray(part)[:N_WATCHED] for part in trainer.validation[:2])
            self._X, self._y, self._rows, self._part = X, y, np.arange(len(X)), "validation"
        elif isinstance(trainer.validation, float) and given is not None:
            X, y = np.asarray(given[0]), np.asarray(given[1])
            rows = held_out_places(len(X), trainer.validation, trainer.seed)[:N_WATCHED]
            self._X, self._y, self._rows, self._part = X[rows], y[rows], rows, "validation"

    def _extend_history(self, trainer: Trainer, record: Mapping[str, float | None]) -> None:
        """Append a line to the history; write all of it the first time, and after a failure."""
        path = self._folder / HISTORY_FILE
        appends, self._appends = self._appends, False
        if appends:
            with path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerow(record.values())
        else:
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(trainer.history)
            writer.writerows(zip(*trainer.history.values(), strict=True))
            replace_file(path, text.getvalue())
        self._appends = True

    def _replace_snapshot(self, trainer: Trainer) -> None:
        replace_file(self._folder / SNAPSHOT_FILE, json.dumps(self.snapshot(trainer), allow_nan=False))
        self._written = time.monotonic()

    def _stop_heart(self) -> None:
        if self._heart is not None:
            self._heart.stop()
            self._heart = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_given": None, "_heart": None, "_written": -math.inf, "_appends": False}

    def snapshot(self, trainer: Trainer) -> dict[str, Any]:
        """Return the snapshot as JSON values."""
        # A copy on the host computes the predictions, because the device, real or simulated, is busy training.
        network = trainer.network.copy_to(NumpyOps())
        return {
            "epoch": trainer.epochs_done,
            "epochs": trainer.epochs,
            "process": this_process(),
            "samples": trainer.n_samples,
            "network": "-".join(map(str, network.layer_sizes)),
            "weights": weight_images(network, pictures=self._pictures),
            "mistakes": self._mistakes(network),
            "watched": len(self._X),
            "watched_part": self._part,
        }

    def _mistakes(self, network: Network) -> list[dict[str, Any]]:
        """Return the mistakes of the network in the watched rows, with pictures if the rows are pictures."""
        if not network.is_classifier:
            return []
        classes = network.classes or range(max(2, network.layer_sizes[-1]))
        true = self._y if self._y.ndim == 1 else self._y.argmax(axis=1)
        predicted = network.predict(self._X)
        names = [str(name) for name in classes]
        wrong = np.flatnonzero(predicted != true)[:MAX_MISTAKES].tolist()
        shape = image_shape(self._X.shape[1]) if self._pictures else None
        return [
            {
                "row": int(self._rows[row]),
                "true": names[int(true[row])],
                "predicted": names[int(predicted[row])],
                "image": None if shape is None else _gray(self._X[row], shape),
            }
            for row in wrong
        ]


class _Heart:
    """A thread that touches a file every few seconds, until it is stopped, or cannot touch the file any more."""

    def __init__(self, path: Path) -> None:
        self._path, self._stopped = path, threading.Event()
        threading.Thread(target=self._beat, name="gpuprop-heartbeat", daemon=True).start()

    def _beat(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                os.utime(self._path)
            except OSError:
                continue  # the folder may come back

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()


def replace_file(path: Path, text: str) -> None:
    """Write the file under another name, then rename it, so that readers never see a part of it."""
    beside = path.with_name(f".{path.name}-{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def image_shape(n_features: int) -> tuple[int, int] | None:
    """Return rows and columns of a square picture, or None if the inputs are no picture."""
    side = math.isqrt(n_features)
    return (side, side) if side * side == n_features and 16 <= n_features <= MAX_FEATURES else None


def weight_images(network: Network, *, pictures: bool = True) -> dict[str, Any]:
    """Return the first layer's weights as a picture for each unit: pixels from 0 to 255, where 128 stands for 0."""
    weights = np.asarray(network.ops.to_numpy(network.weights[0]), dtype=np.float64)[:, :MAX_IMAGES]
    shape = (image_shape(len(weights)) if pictures else None) or (1, len(weights))
    if len(weights) > MAX_FEATURES:
        return {"shape": [0, 0], "images": []}
    largest = np.abs(weights).max() or 1.0
    pixels = np.rint(127.5 + 127.5 * (weights / largest)).astype(int)
    return {"shape": list(shape), "images": [pixels[:, unit].tolist() for unit in range(pixels.shape[1])]}


def _gray(row: NDArray[Any], shape: tuple[int, int]) -> dict[str, Any]:
    values = np.asarray(row, dtype=np.float64)
    low, span = values.min(), np.ptp(values) or 1.0
    return {"shape": list(shape), "pixels": np.rint(255 * (values - low) / span).astype(int).tolist()}
