"""The display of a training while it runs: a line for each epoch, and on a terminal a live bar below the lines."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from gpuprop.cli.console import is_terminal, terminal, warn
from gpuprop.training.callbacks import Callback

if TYPE_CHECKING:
    from gpuprop.training.trainer import Trainer

__all__ = ["EpochTable", "LiveEpochTable", "LiveUpdateTable", "epoch_table", "harmless", "shown_warnings"]

_WIDTHS = (9, 10, 10, 10, 10, 10, 8)
_REFRESH_SECONDS = 0.1
_HOOKS = ("on_fit_begin", "on_epoch_begin", "on_step_end", "on_epoch_end", "on_fit_end")

_Shown = TypeVar("_Shown", bound=Callback)


def harmless(callback: _Shown, what: str) -> _Shown:
    """Return the callback, which only shows a training, so changed that it cannot end one.

    The first error in one of its hooks is a warning that names `what` it shows, and after it no hook does anything.
    """
    broken: list[Exception] = []

    def guarded(hook: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            if broken:
                return
            try:
                hook(*arguments)
            except Exception as error:
                broken.append(error)
                warn(f"{what} ends here: {error or type(error).__name__}")

        return call

    for name in _HOOKS:
        setattr(callback, name, guarded(getattr(callback, name)))
    return callback


@contextmanager
def shown_warnings(but_for: str | None = None) -> Iterator[list[str]]:
    """Print what a training warns of at once, each message as one line.

    Parameters
    ----------
    but_for : str or None, default=None
        How messages begin that are not printed; the value lists these.
    """
    kept: list[str] = []
    said: set[str] = set()

    def show(message: Warning | str, *arguments: Any, **options: Any) -> None:
        text = str(message)
        if but_for is not None and text.startswith(but_for):
            kept.append(text)
        elif text not in said:
            said.add(text)
            warn(text)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for category in (UserWarning, RuntimeWarning):
            warnings.simplefilter("always", category)
        warnings.showwarning = show
        yield kept


def epoch_table(metric: str, *, by_epoch: bool = False) -> EpochTable:
    """Return the callback that suits standard output.

    Parameters
    ----------
    metric : str
        "accuracy" or "r2".
    by_epoch : bool, default=False
        Whether the bar moves only once an epoch. A callback after every update would make a GPU launch its kernels one
        by one instead of replaying a whole epoch, and it would count launches, not complete updates.
    """
    if not is_terminal():
        return EpochTable(metric)
    return LiveEpochTable(metric) if by_epoch else LiveUpdateTable(metric)


class EpochTable(Callback):
    """Print one plain line for each epoch."""

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
        """Print the epoch's line, at once even into a pipe, where a reader may wait for it."""
        print(self.line(trainer, record), flush=True)

    def close(self) -> None:
        """Leave the terminal as it was; called after the training, even if it failed."""

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
    """Print the same lines, and below them a bar with loss, score, samples per second and the time left."""

    def __init__(self, metric: str) -> None:
        super().__init__(metric)
        self._bar: _Bar | None = None
        self._fields: dict[str, Any] = {"figures": "", "speed": ""}

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Start the bar."""
        self._bar_of(trainer).print(self.header, style="bold")

    def on_epoch_end(self, trainer: Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        """Print the epoch's line above the bar."""
        score = "R2" if self.metric == "r2" else "accuracy"
        loss, value = record["train_loss"], record[f"train_{self.metric}"]
        self._fields["figures"] = f"loss {_number(loss, '.4g')}  {score} {_number(value, '.4f')}"
        self._bar_of(trainer).print(self.line(trainer, record))
        self._move(trainer, epoch * trainer.steps_per_epoch, min(epoch + 1, trainer.epochs))

    def _bar_of(self, trainer: Trainer) -> _Bar:
        """Return the bar of the training; the first call starts it."""
        if self._bar is None:
            self._bar = _Bar(f"1/{trainer.epochs}", trainer.epochs * trainer.steps_per_epoch, self._fields)
        return self._bar

    def _move(self, trainer: Trainer, steps: int, epoch: int) -> None:
        bar = self._bar_of(trainer)
        samples = steps * trainer.n_samples / trainer.steps_per_epoch
        self._fields["speed"] = f"{samples / max(bar.seconds, 1e-9):,.0f} samples/s"
        bar.move(steps, f"{epoch}/{trainer.epochs}", self._fields)

    def close(self) -> None:
        """Take the bar away, and give the terminal its cursor back."""
        if self._bar is not None:
            self._bar.stop()


class _Bar:
    """The bar, shown from its creation until `stop`."""

    def __init__(self, description: str, total: int, fields: Mapping[str, Any]) -> None:
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
        self._task = self._progress.add_task(description, total=total, **fields)
        self._begin = time.perf_counter()
        self._progress.start()

    @property
    def seconds(self) -> float:
        """The time since the bar was started."""
        return time.perf_counter() - self._begin

    def print(self, line: str, style: str | None = None) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, style=style)

    def move(self, steps: int, description: str, fields: Mapping[str, Any]) -> None:
        """Show that so many updates are complete."""
        self._progress.update(self._task, completed=steps, description=description, **fields)

    def stop(self) -> None:
        """Take the bar away."""
        self._progress.stop()


class LiveUpdateTable(LiveEpochTable):
    """Move the bar also during an epoch."""

    _shown = 0.0

    def on_step_end(self, trainer: Trainer, epoch: int, step: int) -> None:
        """Move the bar at most ten times a second, so that drawing costs little training time."""
        now = time.perf_counter()
        if now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        self._move(trainer, (epoch - 1) * trainer.steps_per_epoch + step, epoch)


def _line(*cells: str) -> str:
    return " ".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
