"""What a training shows while it runs: a line an epoch, and on a terminal a live bar below them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpuprop.cli.console import is_terminal, terminal
from gpuprop.training.callbacks import Callback

if TYPE_CHECKING:
    from rich.progress import Progress

    from gpuprop.training.trainer import Trainer

__all__ = ["EpochTable", "LiveEpochTable", "LiveUpdateTable", "epoch_table"]

_WIDTHS = (9, 10, 10, 10, 10, 10, 8)
_REFRESH_SECONDS = 0.1


def epoch_table(metric: str, *, by_epoch: bool = False) -> EpochTable:
    """Return the callback that suits standard output.

    Parameters
    ----------
    metric : str
        "accuracy" or "r2".
    by_epoch : bool, default=False
        Whether the bar moves once an epoch only. A callback that is told of every update makes a GPU launch its kernels
        one by one, where it would replay a whole epoch; and what it counted would be launches, not updates that are
        complete.
    """
    if not is_terminal():
        return EpochTable(metric)
    return LiveEpochTable(metric) if by_epoch else LiveUpdateTable(metric)


class EpochTable(Callback):
    """One plain line an epoch."""

    def __init__(self, metric: str) -> None:
        self.metric = metric

    @property
    def header(self) -> str:
        """The names of the columns."""
        score = "R2" if self.metric == "r2" else "accuracy"
        val_score = "val. R2" if self.metric == "r2" else "val. acc."
        return _line("epoch", "loss", score, "val. loss", val_score, "rate", "seconds")

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Print the header."""
        print(self.header, flush=True)

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        """Print the epoch's line, at once even into a pipe: somebody may be waiting at its other end."""
        print(self.line(trainer, record), flush=True)

    def close(self) -> None:
        """Leave the terminal as it was; called after the training, whatever became of it."""

    def line(self, trainer: Trainer, record: Mapping[str, float | None]) -> str:
        """Return the line of an epoch."""
        return _line(
            f"{record['epoch']}/{trainer.epochs}",
            _number(record["train_loss"], ".4g"),
            _number(record[f"train_{self.metric}"], ".4f"),
            _number(record["validation_loss"], ".4g"),
            _number(record[f"validation_{self.metric}"], ".4f"),
            _number(record["learning_rate"], ".3g"),
            _number(record["seconds"], ".2f"),
        )


class LiveEpochTable(EpochTable):
    """The same lines, and below them a bar with loss, score, samples per second and the time left."""

    def __init__(self, metric: str) -> None:
        super().__init__(metric)
        self._progress: Progress | None = None
        self._fields: dict[str, Any] = {"figures": "", "speed": ""}

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Start the bar."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("epoch {task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}"),
            TextColumn("{task.fields[speed]}", style="dim"),
            TimeRemainingColumn(compact=True),
            console=terminal(),
            transient=True,
            expand=True,
        )
        total = trainer.epochs * trainer.steps_per_epoch
        self._task = self._progress.add_task(f"1/{trainer.epochs}", total=total, **self._fields)
        self._begin = time.perf_counter()
        self._progress.start()
        self._progress.console.print(self.header, style="bold")

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        """Print the epoch's line above the bar."""
        assert self._progress is not None
        score = "R2" if self.metric == "r2" else "accuracy"
        loss, value = record["train_loss"], record[f"train_{self.metric}"]
        self._fields["figures"] = f"loss {_number(loss, '.4g')}  {score} {_number(value, '.4f')}"
        self._progress.console.print(self.line(trainer, record))
        self._move(trainer, epoch * trainer.steps_per_epoch, min(epoch + 1, trainer.epochs))

    def _move(self, trainer: Trainer, steps: int, epoch: int) -> None:
        assert self._progress is not None
        samples = steps * trainer.n_samples / trainer.steps_per_epoch
        self._fields["speed"] = f"{samples / max(time.perf_counter() - self._begin, 1e-9):,.0f} samples/s"
        self._progress.update(self._task, completed=steps, description=f"{epoch}/{trainer.epochs}", **self._fields)

    def close(self) -> None:
        """Take the bar away, and give the terminal its cursor back."""
        if self._progress is not None:
            self._progress.stop()


class LiveUpdateTable(LiveEpochTable):
    """A bar that moves while an epoch is trained, too."""

    _shown = 0.0

    def on_step_end(self, trainer: Trainer, epoch: int, step: int) -> None:
        """Move the bar, ten times a second at most: drawing must not cost training time."""
        now = time.perf_counter()
        if now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        self._move(trainer, (epoch - 1) * trainer.steps_per_epoch + step, epoch)


def _line(*cells: str) -> str:
    return " ".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
