"""The display of a training by a command: which of the tables it shows, and what it makes of errors and warnings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from gpuprop.cli.console import is_terminal, terminal, warn
from gpuprop.training.callbacks.base import Callback
from gpuprop.training.callbacks.progress import EpochTable, LiveEpochTable, LiveUpdateTable

__all__ = ["EpochTable", "epoch_table", "harmless", "shown_warnings"]

_HOOKS = ("on_fit_begin", "on_epoch_begin", "on_step_end", "on_epoch_end", "on_fit_end", "on_exception")

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
    return (LiveEpochTable if by_epoch else LiveUpdateTable)(metric, terminal)
