"""The display of a training while it runs: a line for each epoch, and a bar on a terminal, or a table in a notebook."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gpuprop.training.callbacks.base import Callback

if TYPE_CHECKING:
    from rich.console import Console

    Record = Mapping[str, float | None]

__all__ = ["EpochTable", "LiveEpochTable", "LiveUpdateTable", "NotebookTable", "ProgressBar"]

_WIDTHS = (9, 10, 10, 10, 10, 10, 8)
_REFRESH_SECONDS = 0.1
_MOST_ROWS = 12
"""The epochs that a notebook shows: the last ones."""


class ProgressBar(Callback):
    """Show a training as it goes: what ``Trainer(verbose=True)`` adds.

    A terminal gets a line for each epoch and a bar with the time that is left, a notebook one table that is updated in
    its place, and everything else plain lines. It moves once an epoch and changes nothing about the training.

    Examples
    --------
    >>> import gpuprop
    >>> X, y = gpuprop.datasets.make_xor()
    >>> network = gpuprop.Network((2, 8, 1), loss="binary_cross_entropy", seed=0)
    >>> bar = gpuprop.callbacks.ProgressBar()
    >>> _ = gpuprop.Trainer(network, epochs=2, callbacks=[bar]).fit(X, y)  # doctest: +ELLIPSIS
        epoch       loss   accuracy  val. loss  val. acc.       rate  seconds
          1/2 ...
          2/2 ...
    """

    def __init__(self) -> None:
        self._display: EpochTable | None = None

    def on_fit_begin(self, trainer: Any) -> None:
        """Print the header."""
        self._display = _display(trainer)
        self._display.on_fit_begin(trainer)

    def on_epoch_end(self, trainer: Any, epoch: int, record: Record) -> None:
        """Show the epoch."""
        if self._display is None:  # of a training that another process had begun
            self.on_fit_begin(trainer)
        assert self._display is not None
        self._display.on_epoch_end(trainer, epoch, record)

    def on_fit_end(self, trainer: Any) -> None:
        """Leave the terminal as it was."""
        self._close()

    def on_exception(self, trainer: Any, error: BaseException) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _close(self) -> None:
        if self._display is not None:
            self._display.close()
        self._display = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_display": None}


def _display(trainer: Any) -> EpochTable:
    """Return the display that suits where this process prints."""
    metric = "accuracy" if trainer.network.is_classifier else "r2"
    if _in_notebook():
        return NotebookTable(metric)
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console(highlight=False)
        if console.is_terminal and not console.is_dumb_terminal:
            return LiveEpochTable(metric, lambda: console)
    return EpochTable(metric)


def _in_notebook() -> bool:
    """Return whether this is a kernel that shows HTML, such as Jupyter's; IPython in a terminal is none."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class EpochTable(Callback):
    """Print one plain line for each epoch.

    Parameters
    ----------
    metric : {"accuracy", "r2"}
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric

    def titles(self, trainer: Any) -> list[str]:
        """Return the names of the columns."""
        score = "R2" if self.metric == "r2" else "accuracy"
        val_score = "val. R2" if self.metric == "r2" else "val. acc."
        return ["epoch", "loss", score, "val. loss", val_score, *trainer.metrics, "rate", "seconds"]

    def cells(self, trainer: Any, record: Record) -> list[str]:
        """Return the cells of an epoch."""
        return [
            f"{record['epoch']}/{trainer.epochs}",
            _number(record["train_loss"], ".4g"),
            _number(record[f"train_{self.metric}"], ".4f"),
            _number(record["validation_loss"], ".4g"),
            _number(record[f"validation_{self.metric}"], ".4f"),
            *(_number(record.get(metric.column), ".4f") for metric in trainer.metrics.values()),
            _number(record["learning_rate"], ".3g"),
            _number(record["seconds"], ".2f"),
        ]

    def header(self, trainer: Any) -> str:
        """Return the names of the columns in a line."""
        return _line(trainer, self.titles(trainer))

    def on_fit_begin(self, trainer: Any) -> None:
        """Print the header."""
        print(self.header(trainer), flush=True)

    def on_epoch_end(self, trainer: Any, epoch: int, record: Record) -> None:
        """Print the epoch's line, at once even into a pipe, where a reader may wait for it."""
        print(self.line(trainer, record), flush=True)

    def close(self) -> None:
        """Leave the terminal as it was; called after the training, even if it failed."""

    def line(self, trainer: Any, record: Record) -> str:
        """Return the line of an epoch."""
        return _line(trainer, self.cells(trainer, record))


class LiveEpochTable(EpochTable):
    """Print the same lines, and below them a bar with loss, score, samples per second and the time left.

    Parameters
    ----------
    metric : {"accuracy", "r2"}
    console : callable
        Returns rich's view of the terminal; called when the bar starts.
    """

    def __init__(self, metric: str, console: Callable[[], Console]) -> None:
        super().__init__(metric)
        self._console = console
        self._bar: _Bar | None = None
        self._fields: dict[str, Any] = {"figures": "", "speed": ""}

    def header(self, trainer: Any) -> str:
        """Return the names of the columns for which the terminal is wide enough."""
        return self._fitting(trainer, self.titles(trainer))

    def line(self, trainer: Any, record: Record) -> str:
        """Return the line of an epoch, of the same columns."""
        return self._fitting(trainer, self.cells(trainer, record))

    def _fitting(self, trainer: Any, cells: list[str]) -> str:
        """Leave out columns until a line fits: seconds and rate first, then those of the rows of the training."""
        kept, room = list(zip(cells, _widths(trainer), strict=True)), self._console().width
        for place in (-1, -1, 2, 1):
            if sum(width + 1 for _, width in kept) - 1 > room:
                del kept[place]
        return " ".join(cell.rjust(width) for cell, width in kept)

    def on_fit_begin(self, trainer: Any) -> None:
        """Start the bar."""
        self._bar_of(trainer).print(self.header(trainer), style="bold")

    def on_epoch_end(self, trainer: Any, epoch: int, record: Record) -> None:
        """Print the epoch's line above the bar."""
        score = "R2" if self.metric == "r2" else "accuracy"
        loss, value = record["train_loss"], record[f"train_{self.metric}"]
        self._fields["figures"] = f"loss {_number(loss, '.4g')}  {score} {_number(value, '.4f')}"
        self._bar_of(trainer).print(self.line(trainer, record))
        self._move(trainer, epoch * trainer.steps_per_epoch, min(epoch + 1, trainer.epochs))

    def _bar_of(self, trainer: Any) -> _Bar:
        """Return the bar of the training; the first call starts it."""
        if self._bar is None:
            total = trainer.epochs * trainer.steps_per_epoch
            self._bar = _Bar(self._console(), f"1/{trainer.epochs}", total, self._fields)
        return self._bar

    def _move(self, trainer: Any, steps: int, epoch: int) -> None:
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

    def __init__(self, console: Console, description: str, total: int, fields: Mapping[str, Any]) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("epoch {task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}"),
            TextColumn("{task.fields[speed]}", style="dim"),
            TimeRemainingColumn(compact=True),
            console=console,
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

    def on_step_end(self, trainer: Any, epoch: int, step: int) -> None:
        """Move the bar at most ten times a second, so that drawing costs little training time."""
        now = time.perf_counter()
        if now - self._shown < _REFRESH_SECONDS:
            return
        self._shown = now
        self._move(trainer, (epoch - 1) * trainer.steps_per_epoch + step, epoch)


class NotebookTable(EpochTable):
    """Show one table in a notebook, and update it in its place at most ten times a second."""

    def __init__(self, metric: str) -> None:
        super().__init__(metric)
        self._rows: list[list[str]] = []
        self._handle: Any = None
        self._shown = self._begin = 0.0
        self._last = ""

    def on_fit_begin(self, trainer: Any) -> None:
        """Show the empty table."""
        from IPython.display import HTML, display

        self._rows, self._begin = [], time.perf_counter()
        self._handle = display(HTML(self.page(trainer)), display_id=True)

    def on_epoch_end(self, trainer: Any, epoch: int, record: Record) -> None:
        """Update the table."""
        self._rows.append(self.cells(trainer, record))
        self._last = self.page(trainer)
        now = time.perf_counter()
        if now - self._shown >= _REFRESH_SECONDS or epoch == trainer.epochs:
            self._shown = now
            self._update()

    def close(self) -> None:
        """Show the last epoch."""
        if self._last:
            self._update()

    def _update(self) -> None:
        from IPython.display import HTML

        if self._handle is not None:
            self._handle.update(HTML(self._last))

    def page(self, trainer: Any) -> str:
        """Return the table as HTML."""
        done, epochs = len(self._rows), trainer.epochs
        left = (time.perf_counter() - self._begin) / done * (epochs - trainer.epochs_done) if done else None
        about = "" if left is None or left < 1 else f", about {left:,.0f} s left"
        head = "".join(f"<th>{html.escape(title)}</th>" for title in self.titles(trainer))
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in self._rows[-_MOST_ROWS:]
        )
        return (
            f'<div><progress value="{trainer.epochs_done}" max="{epochs}"></progress> '
            f"epoch {trainer.epochs_done} of {epochs}{about}</div>"
            f'<div style="overflow-x: auto"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        )


def _widths(trainer: Any) -> Iterator[int]:
    *own, rate, seconds = _WIDTHS
    yield from own
    yield from (max(10, len(name)) for name in trainer.metrics)
    yield from (rate, seconds)


def _line(trainer: Any, cells: list[str]) -> str:
    return " ".join(cell.rjust(width) for cell, width in zip(cells, _widths(trainer), strict=True))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
