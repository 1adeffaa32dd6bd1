"""Work that is cut into pieces, and the threads that take the pieces one by one until none is left.

The calling thread works too and waits only for pieces that others have begun, so that a thread which gets no processor
in time, because the machine is busy, delays nobody. What a piece computes must not depend on who takes it.

`work_through` starts threads for one piece of work; a `Crew` keeps them for many.
"""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

__all__ = ["Crew", "work_through"]

Piece = TypeVar("Piece")


def work_through(pieces: Iterable[Piece], worker: Callable[[], Callable[[Piece], None]], n_threads: int) -> None:
    """Do every piece of work, in up to `n_threads` threads.

    Parameters
    ----------
    pieces : iterable
        What `worker`'s functions take.
    worker : callable
        Each thread calls it once; it returns the function that does a piece, with arrays of the thread's own, say.
    n_threads : int
        The calling thread counts.

    Raises
    ------
    BaseException
        What a piece raised first; the pieces that nobody has begun are left undone.
    """
    left = deque(pieces)
    if n_threads == 1 or len(left) < 2:
        _one_by_one(left, worker())
        return
    shared = _Shared(left, worker)
    for _ in range(min(n_threads, len(left)) - 1):
        # NumPy's error state and the like are those of the calling thread. It does not wait until a new one begins, as
        # `threading.Thread` would. Where no further thread can be started, the others do its share.
        with contextlib.suppress(RuntimeError):
            _thread.start_new_thread(contextvars.copy_context().run, (shared.help,))
    shared.finish()


def _one_by_one(left: deque[Piece], work: Callable[[Piece], None]) -> None:
    while left:
        work(left.popleft())


class Crew:
    """Threads that wait for work, and begin at once when there is some.

    Parameters
    ----------
    around : callable
        Returns the context in which each thread works until it ends.
    """

    def __init__(self, around: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext) -> None:
        self._around = around
        self._helpers: list[_Helper] = []

    def work_through(self, pieces: Iterable[Piece], work: Callable[[Piece], None], n_threads: int) -> None:
        """Do every piece of work, as the function `work_through` does; missing threads are started.

        Parameters
        ----------
        pieces : iterable
        work : callable
            Takes a piece.
        n_threads : int
            The calling thread counts.

        Raises
        ------
        BaseException
            What a piece raised first; the pieces that nobody has begun are left undone.
        """
        left = deque(pieces)
        if n_threads == 1 or len(left) < 2:
            _one_by_one(left, work)
            return
        shared = _Shared(left, lambda: work)
        wanted = min(n_threads, len(left)) - 1
        with contextlib.suppress(RuntimeError):  # where no further thread can be started, the others do its share
            self._helpers += [_Helper(self._around) for _ in range(wanted - len(self._helpers))]
        for helper in self._helpers[:wanted]:
            helper.call(shared)
        shared.finish()

    def end(self) -> None:
        """End the threads; later work starts new ones."""
        helpers, self._helpers = self._helpers, []
        for helper in helpers:
            helper.end()


class _Helper:
    """A thread that waits for work.

    One that has not come back from earlier work, because the machine is busy, is not called again before it has.
    """

    def __init__(self, around: Callable[[], AbstractContextManager[None]]) -> None:
        self._calls: SimpleQueue[_Shared[Any] | None] = SimpleQueue()
        self._waits, self._around = True, around
        # NumPy's error state and the like are those of the calling thread.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._serve,), daemon=True)
        self._thread.start()

    def call(self, shared: _Shared[Any]) -> None:
        if self._waits:
            self._waits = False
            self._calls.put(shared)

    def end(self) -> None:
        self._calls.put(None)
        self._thread.join()

    def _serve(self) -> None:
        with self._around():
            while (shared := self._calls.get()) is not None:
                shared.help()
                del shared  # and with it the arrays
                self._waits = True


class _Shared(Generic[Piece]):
    """The pieces that are left, and how many are not done yet."""

    def __init__(self, left: deque[Piece], worker: Callable[[], Callable[[Piece], None]]) -> None:
        self.left, self.worker = left, worker
        self.errors: list[BaseException] = []
        self.done = threading.Event()
        self._undone, self._lock = len(left), threading.Lock()

    def finish(self) -> None:
        """Work until all pieces are done, and raise what a piece has raised first."""
        try:
            self.help()
        finally:
            self.done.wait()  # the arrays stay in use until then, also after an interrupt
        if self.errors:
            raise self.errors[0]

    def help(self) -> None:
        """Take pieces until none is left; after an error nobody takes any."""
        work: Callable[[Piece], None] | None = None
        while True:
            try:
                piece = self.left.popleft()
            except IndexError:
                return
            try:
                work = work or self.worker()
                work(piece)
            except BaseException as error:
                self.errors.append(error)
                self._finish(1 + self._drop())
                return
            self._finish(1)

    def _drop(self) -> int:
        """Take all pieces that are left and return how many they were."""
        count = 0
        with contextlib.suppress(IndexError):
            while True:
                self.left.popleft()
                count += 1
        return count

    def _finish(self, count: int) -> None:
        with self._lock:
            self._undone -= count
            if self._undone == 0:
                self.done.set()
