"""How many threads train a network.

The fused tier (`gpuprop.backends.cpu.fused`) does not call BLAS, and steps with shared rows
(`gpuprop.backends.cpu.shared_steps`) call it with one thread: any number of threads gives the same bits, and
`ThreadChoice` times the updates to find the fastest number. Where steps share no rows, BLAS multiplies with all its
threads or with one, as the size of the products says: it gives other bits with another number, so nothing that a clock
says may choose. No way uses more threads than BLAS's own maximum, which OPENBLAS_NUM_THREADS and joblib's workers set.

Where several limits are in effect, the strictest holds; when the last one ends, the number from before is restored.
OpenBLAS keeps a number for each calling thread, so a limit applies to the thread that trains.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gpuprop.core.updates import Training

__all__ = [
    "WORTH_SHARING_BY_BLAS",
    "ThreadChoice",
    "allowed_threads",
    "blas_threads",
    "has_small_products",
    "limited_blas",
    "most_threads",
    "threads_beside_a_team",
    "threads_for_products",
]

#: From this many multiplications of numbers in a layer's product on, BLAS gets all its threads. With fewer a second
#: thread saves some tenths of a millisecond, and where another program has its processor it costs much more: by two
#: threads 180 x 256 x 256 took 13 ms there, in which one thread makes forty. Products that are so small that BLAS
#: shares none of them are left alone.
WORTH_SHARING_BY_BLAS, _NEVER_SHARED = 2**26, 2**18

#: One thread makes updates of the fused tier that have fewer products of numbers than this, some fifty microseconds.
_WORTH_SHARING = 5_000_000
#: The products of numbers in one measurement (some milliseconds), and in all measurements of one number of threads.
_TRIAL, _ALL_TRIALS = 400_000_000, 1_200_000_000
#: How many rounds of measurements a training begins with; of the last so many rounds the best counts.
_ROUNDS = 3
#: Between two rounds the training continues for this many times as long as a round takes.
_APART = 100

#: For so many seconds, later fits of the same size reuse what was measured: calls of ``partial_fit`` follow one another
#: too fast to measure each time. After that the machine may be more or less busy than before.
_KEPT = 60.0

#: OpenBLAS's names of the processors whose code has AVX-512.
_AVX_512 = ("SkylakeX", "Cooperlake", "SapphireRapids")

_lock = threading.Lock()
_wanted: list[int] = []
_before: list[int] = []  # each BLAS library's number of threads from before the first limit in effect


@functools.cache
def _controller() -> Any:
    """Return a controller of the BLAS libraries that are loaded at the first call: NumPy's, not one of SciPy's."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def blas_threads() -> int:
    """Return how many threads BLAS may use now; 1 if no known BLAS is loaded."""
    return max((int(library.num_threads) for library in _controller().lib_controllers), default=1)


@functools.cache
def has_small_products() -> bool:
    """Return whether BLAS multiplies small matrices by code of their own: OpenBLAS does on processors with AVX-512."""
    return any(getattr(library, "architecture", None) in _AVX_512 for library in _controller().lib_controllers)


@contextlib.contextmanager
def limited_blas(n_threads: int | None) -> Iterator[None]:
    """Limit BLAS to `n_threads` threads; None changes nothing."""
    if n_threads is None:
        yield
        return
    with _lock:
        _wanted.append(n_threads)
        _apply()
    try:
        yield
    finally:
        with _lock:
            _wanted.remove(n_threads)
            _apply()


def _apply() -> None:
    """Set the strictest limit that is wanted; without any, restore each library's number from before."""
    global _before
    if not _wanted and not _before:
        return
    libraries = _controller().lib_controllers
    if not _before:
        _before = [int(library.num_threads) for library in libraries]
    for library, before in zip(libraries, _before, strict=True):
        # threadpoolctl 3.7 and later lets only the thread that has set a limit change it, and ignores all others; here
        # the last thread to leave restores what was, whichever it is.
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)
        library.set_num_threads(min(*_wanted, before) if _wanted else before)
    if not _wanted:
        _before = []


class _Measured:
    """How long the last few multiplications or updates of one size took, for each number of threads.

    `moment` is the time of the last one; `left` is how many seconds of updates to make before the next measurement.
    """

    def __init__(self, counts: list[int]) -> None:
        self.seconds: dict[int, tuple[float, ...]] = dict.fromkeys(counts, ())
        self.moment = self.left = 0.0

    def add(self, count: int, seconds: float) -> None:
        self.seconds[count] = (*self.seconds[count], seconds)[-_ROUNDS:]
        self.moment = time.monotonic()

    def fastest(self) -> int:
        return min(self.seconds, key=lambda count: (min(self.seconds[count], default=np.inf), count))


_measured: dict[tuple[object, ...], _Measured] = {}


def _of_size(size: tuple[object, ...], counts: list[int]) -> _Measured:
    """Return this process's measurements for a size; they are empty if the last one is too long ago."""
    measured = _measured.setdefault((*size, *counts), _Measured(counts))
    if time.monotonic() > measured.moment + _KEPT:
        measured.seconds, measured.left = dict.fromkeys(counts, ()), 0.0
    return measured


def threads_for_products(training: Training) -> int | None:
    """Return how many threads BLAS gets for the products of a training; None leaves it alone."""
    return _by_size(training) if training.n_threads is None else training.n_threads


def threads_beside_a_team(training: Training) -> int | None:
    """Return how many threads BLAS gets for validations between updates that threads of gpuprop's own share.

    A second thread of BLAS goes on waiting for work for some twenty milliseconds, on a processor of the team. So even
    where the user allows several threads, only large products get them.
    """
    by_size = _by_size(training)
    return by_size if training.n_threads is None else min(training.n_threads, by_size or 1)


def _by_size(training: Training) -> int | None:
    products = training.part_size * max(a * b for a, b in pairwise(training.layers.spec.layer_sizes))
    if products < _NEVER_SHARED:
        return None
    return blas_threads() if products >= WORTH_SHARING_BY_BLAS else 1


class ThreadChoice:
    """How many threads make updates: one, two, four, and so on, or as many as are allowed.

    It times the training's own updates, some for each of these numbers in turn. That takes no extra time and changes
    no result, because any number of threads gives the same bits (`gpuprop.backends.cpu.team`). A fit begins with three
    rounds. Later rounds come one at a time and take a hundredth of the training, because how busy a machine is may
    change. Fits of the same size share their measurements.

    Parameters
    ----------
    products : int
        Products of two numbers in an update. One thread makes small updates, and nothing is measured; 0 forces that.
    limit : int or None, default=None
        The most threads; None stands for `allowed_threads`.
    path : str, default="fused"
        The plan that makes the updates; each has times of its own.
    """

    def __init__(self, products: int, limit: int | None = None, path: str = "fused") -> None:
        self._products, self._path = products, path
        self.most = most_threads(products, limit)
        self._trial = max(1, _TRIAL // max(1, products))
        self._measured: _Measured | None = None
        # The numbers of threads still to be measured; 0 stands for a call that does not count.
        self._trials: list[int] = []
        self._now, self._took = 1, 0.0

    def following(self) -> tuple[int, int]:
        """Return the number of threads for the next updates, and how many updates to make before asking again."""
        first = self._measured is None
        measured = self._measured = self._measured or self._of_these_updates()
        if len(measured.seconds) > 1 and not self._trials and measured.left <= 0:
            self._begin(measured, first)
        self._now = (self._trials[0] if self._trials else 0) or measured.fastest()
        return self._now, self._trial if self._trials else sys.maxsize

    def _of_these_updates(self) -> _Measured:
        most = self.most
        counts = [*(2**power for power in range((most - 1).bit_length())), most]
        return _of_size((self._path, self._products), counts)

    def _begin(self, measured: _Measured, first: bool) -> None:
        """Begin to measure: one round, or as many of the first rounds as are missing."""
        known = min(map(len, measured.seconds.values()))
        rounds = max(1, min(_ROUNDS, -(-_ALL_TRIALS // (self._trial * self._products))) - known)
        # A fit's first call does not count: it may include compiling, and the caches are cold.
        self._trials = [0] * first + list(measured.seconds) * rounds
        self._took = 0.0

    def calls(self, first: int, last: int, most: int = sys.maxsize) -> Iterator[tuple[int, int, int]]:
        """Yield the calls that make the updates `first` to `last` - 1, and time what is done before the next one.

        A call has a number of threads, its first update, and the one behind its last; it makes at most `most` updates.
        """
        while first < last:
            n_threads, n_updates = self.following()
            stop = min(first + min(n_updates, most), last)
            with self.timed(stop - first):
                yield n_threads, first, stop
            first = stop

    @contextlib.contextmanager
    def timed(self, n_updates: int) -> Iterator[None]:
        """Time the updates that are made in this context."""
        begin = time.perf_counter()
        yield
        took, measured = time.perf_counter() - begin, self._measured
        assert measured is not None, "`following` comes first"
        measured.moment = time.monotonic()
        measured.left -= took
        if self._trials and self._trials.pop(0):
            measured.add(self._now, took / n_updates)
            self._took += took
            if not self._trials:
                measured.left = _APART * self._took


def most_threads(products: int, limit: int | None = None) -> int:
    """Return the most threads that make updates of so many products, where any number gives the same bits."""
    if products < _WORTH_SHARING:
        return 1
    return allowed_threads() if limit is None else min(limit, allowed_threads())


def allowed_threads() -> int:
    """Return how many threads a training may use now: one for each processor of this process, at most BLAS's number."""
    from gpuprop.backends.cpu.team import CAN_WAIT

    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, blas_threads()) if CAN_WAIT else 1
