"""A callback that writes the history into a CSV file, epoch by epoch."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuprop.training.callbacks.base import Callback

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CSVLogger"]


class CSVLogger(Callback):
    """Write the trainer's history to a CSV file, a line after each epoch.

    The file always holds the whole history, also that of a training that goes on from a checkpoint, and with the
    columns that other callbacks add. An epoch without a figure has an empty cell.

    Parameters
    ----------
    path : str or path
    separator : str, default=","

    Raises
    ------
    OSError
        When the training begins, if the file cannot be written.

    Examples
    --------
    >>> import tempfile, gpuprop
    >>> from pathlib import Path
    >>> X, y = gpuprop.datasets.make_xor()
    >>> network = gpuprop.Network((2, 8, 1), loss="binary_cross_entropy", seed=0)
    >>> file = Path(tempfile.mkdtemp()) / "history.csv"
    >>> _ = gpuprop.Trainer(network, epochs=3, callbacks=[gpuprop.callbacks.CSVLogger(file)]).fit(X, y)
    >>> len(file.read_text().splitlines())
    4
    """

    def __init__(self, path: str | os.PathLike[str], separator: str = ",") -> None:
        self.path = Path(path)
        self.separator = separator
        self._header, self._rows, self._last = "", 0, ""

    def on_fit_begin(self, trainer: Any) -> None:
        """Write the epochs that are known already."""
        self._rows = 0
        self._write(trainer)

    def on_epoch_begin(self, trainer: Any, epoch: int) -> None:
        """Write what other callbacks have added to the last epoch."""
        self._write(trainer)

    def on_epoch_end(self, trainer: Any, epoch: int, record: Mapping[str, float | None]) -> None:
        """Write the epoch."""
        self._write(trainer)

    def on_fit_end(self, trainer: Any) -> None:
        """Write what other callbacks have added to the last epoch."""
        self._write(trainer)

    def _write(self, trainer: Any) -> None:
        """Append what is new, or write the file anew where an earlier line has changed."""
        history = trainer.history
        n_epochs = len(history.get("epoch", ()))
        header = self._line(list(history)) if history else ""
        known = self._rows
        if known and header == self._header and known <= n_epochs and self._row(history, known - 1) == self._last:
            new = [self._row(history, i) for i in range(known, n_epochs)]
            if new:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    file.writelines(new)
        else:
            new = [self._row(history, i) for i in range(n_epochs)]
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = self.path.with_name(f".{self.path.name}-{os.getpid()}.tmp")
            beside.write_text("".join([header, *new]), encoding="utf-8", newline="")
            beside.replace(self.path)
        self._header, self._rows, self._last = header, n_epochs, new[-1] if new else self._last

    def _row(self, history: Mapping[str, list[Any]], i: int) -> str:
        # A column that the callbacks of this epoch have not reached yet has no entry for it.
        return self._line([column[i] if i < len(column) else None for column in history.values()])

    def _line(self, row: list[Any]) -> str:
        text = io.StringIO()
        csv.writer(text, delimiter=self.separator, lineterminator="\n").writerow(row)
        return text.getvalue()
