"""Signals that ask a training to end: they set a flag, and the training ends at its next update boundary.

An exception that a signal handler raises can be lost: where it lands in a ``__del__``, Python prints and ignores it,
and the fit runs on. A flag is not lost. While `watching_signals` is active, the first Ctrl-C sets the flag. A second
one raises ``KeyboardInterrupt`` at once, except where `finishing` protects something that must be completed, such as a
checkpoint. SIGTERM (``docker stop``, ``timeout``), SIGHUP (a closed terminal) and SIGUSR1 (Slurm's warning) only set
the flag, however often they come.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from gpuprop.errors import TrainingEnded

__all__ = ["asked_to_end", "end_if_asked", "finishing", "watching_signals"]

_OTHERS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))


class _Watch:
    """The flag, and what it needs: there is one for the process, because handlers are the process's."""

    def __init__(self) -> None:
        self.depth = self.finishing = 0
        self.asked: signal.Signals | None = None
        self.answered = False
        self.before: dict[signal.Signals, Any] = {}

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        again = self.asked == signal.SIGINT == number
        if self.asked is None:
            self.asked = signal.Signals(number)
        if again and not self.finishing:
            raise KeyboardInterrupt


_watch = _Watch()


@contextlib.contextmanager
def watching_signals(*, interrupts_only: bool = False) -> Iterator[None]:
    """Turn signals into a flag that `asked_to_end` shows, until the outermost such context ends.

    Only the main thread can do so; in any other the context changes nothing. A signal that the process ignores (as
    under ``nohup``), or that has a handler of somebody else, is left alone. A signal that nobody has asked for by the
    end of the outermost context takes its usual effect then, so that none is lost.

    Parameters
    ----------
    interrupts_only : bool, default=False
        Whether only Ctrl-C is watched, and the other signals keep their effect.

    Examples
    --------
    >>> from gpuprop.training.signals import asked_to_end, watching_signals
    >>> with watching_signals():
    ...     print(asked_to_end())
    None
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _watch.depth == 0:
        _watch.asked, _watch.answered = None, False
    added = _take_over((signal.SIGINT, *(() if interrupts_only else _OTHERS)))
    _watch.depth += 1
    ended_well = False
    try:
        yield
        ended_well = True
    finally:
        _watch.depth -= 1
        for number in added:
            signal.signal(number, _watch.before.pop(number))
        if _watch.depth == 0:
            pending = _watch.asked if not _watch.answered else None
            _watch.asked = None
            if pending is not None and ended_well:
                signal.raise_signal(pending)


def _take_over(numbers: tuple[signal.Signals, ...]) -> list[signal.Signals]:
    """Put the flag's handler in the place of the default ones; return the signals whose handler has changed."""
    added: list[signal.Signals] = []
    for number in numbers:
        before = signal.getsignal(number)
        if before in (signal.SIG_DFL, signal.default_int_handler):
            _watch.before[number] = before
            signal.signal(number, _watch.handle)
            added.append(number)
    return added


def asked_to_end() -> signal.Signals | None:
    """Return the signal that has asked the training to end, or None.

    Who asks and gets a signal has to end: the signal then counts as answered.
    """
    if _watch.asked is not None:
        _watch.answered = True
    return _watch.asked


def end_if_asked(elsewhere: signal.Signals | None = None) -> None:
    """Raise what belongs to a signal that has asked the training to end, if there was one.

    Parameters
    ----------
    elsewhere : signal.Signals or None, default=None
        The signal that counts for several processes, whichever of them got it; None takes that of this one.

    Raises
    ------
    KeyboardInterrupt
        For Ctrl-C (SIGINT).
    TrainingEnded
        For any other signal, which is its attribute ``signal``.
    """
    asked = elsewhere or asked_to_end()
    if asked is None:
        return
    if asked == signal.SIGINT:
        raise KeyboardInterrupt
    raise TrainingEnded(f"the training was asked to end by {asked.name}", signal=asked)


@contextlib.contextmanager
def finishing() -> Iterator[None]:
    """Let a second Ctrl-C wait until what happens in this context is complete."""
    _watch.finishing += 1
    try:
        yield
    finally:
        _watch.finishing -= 1
