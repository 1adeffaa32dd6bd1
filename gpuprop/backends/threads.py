"""How many threads a network is trained by.

The fused tier (`gpuprop.backends.cpu.fused`) calls no BLAS; its updates show how many threads make them fastest
(`ThreadChoice`). Where the step is made of primitives, BLAS multiplies with all its threads or with one, whichever a
few multiplications of the training's own size show to be faster. Small updates lose by sharing, and on a busy machine
all lose, because each thread waits for the slowest. What was found serves further fits of the same size, too. BLAS's
own maximum, which OPENBLAS_NUM_THREADS and joblib's workers set, is never exceeded by either.

Of several limits the strictest holds, and what was before comes back when the last has ended. OpenBLAS keeps a number
for each thread of the caller: a limit counts for the thread that trains.
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
    from gpuprop.core.spec import Spec

__all__ = ["ThreadChoice", "allowed_threads", "best_thread_count", "blas_threads", "limited_blas"]

#: Multiplications of numbers in a layer's product below which a second thread cannot pay for being woken; what such
#: trainings use is left as it is.
_WORTH_MEASURING = 2**24

#: Products of numbers in an update of the fused tier below which it is one thread's: some fifty microseconds.
_WORTH_SHARING = 5_000_000
#: Products of numbers in a measurement of it, some milliseconds, and in all measurements of a number of threads.
_TRIAL, _ALL_TRIALS = 400_000_000, 1_200_000_000
#: Rounds of such measurements at first, and of how many the best counts.
_ROUNDS = 3
#: How much longer than a round takes is what is trained until the next.
_APART = 100

#: Seconds for which what was found serves further fits of the same size: calls of ``partial_fit`` follow one another
#: faster than each could measure. Later the machine may be busier, or less.
_KEPT = 60.0

_lock = threading.Lock()
_wanted: list[int] = []
_limiter: Any = None


@functools.cache
def _controller() -> Any:
    """Return the handles of what is loaded when first asked: NumPy's BLAS, not what SciPy may bring later."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def blas_threads() -> int:
    """Return how many threads BLAS may use now; 1 where no BLAS is found that can be asked."""
    return max((int(library["num_threads"]) for library in _controller().info()), default=1)


@contextlib.contextmanager
def limited_blas(n_threads: int | None) -> Iterator[None]:
    """Let BLAS use at most so many threads; None leaves it alone."""
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
    """Set the strictest limit that is wanted, after what was there before."""
    global _limiter
    if _limiter is not None:
        _limiter.restore_original_limits()
        _limiter = None
    if _wanted:
        controller = _controller()
        most = max((int(library["num_threads"]) for library in controller.info()), default=1)
        _limiter = controller.limit(limits=min(*_wanted, most))


class _Measured:
    """What multiplications or updates of one size took by each number of threads, the last few times.

    `moment` is when there were any last, `left` for how many seconds of updates nothing is to be measured.
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
    """Return what this process has measured of a size, if that is not too long ago."""
    measured = _measured.setdefault((*size, *counts), _Measured(counts))
    if time.monotonic() > measured.moment + _KEPT:
        measured.seconds, measured.left = dict.fromkeys(counts, ()), 0.0
    return measured


def best_thread_count(spec: Spec, n_rows: int) -> int | None:
    """Return 1 or all of BLAS's threads, whichever multiplies faster; None where there is nothing to choose.

    Measured for the largest layer and `n_rows` rows, the best of three each, in turn.
    """
    fan_in, fan_out = max(pairwise(spec.layer_sizes), key=lambda layer: layer[0] * layer[1])
    if n_rows * fan_in * fan_out < _WORTH_MEASURING:
        return None
    most = blas_threads()
    if most == 1:
        return None
    measured = _of_size((n_rows, fan_in, fan_out, spec.dtype), [1, most])
    if measured.seconds[most]:
        return measured.fastest()
    a, b = np.ones((n_rows, fan_in), spec.dtype), np.ones((fan_in, fan_out), spec.dtype)
    out = np.empty((n_rows, fan_out), spec.dtype)
    for _ in range(_ROUNDS):
        for count in measured.seconds:
            with limited_blas(count):
                begin = time.perf_counter()
                np.matmul(a, b, out=out)
                measured.add(count, time.perf_counter() - begin)
    return measured.fastest()


class ThreadChoice:
    """How many threads make the updates of the fused tier: one, two, four, and so on, or as many as there may be.

    The training itself is what is measured, some updates by each of these numbers in turn: that takes no time of its
    own, and leaves no trace, because the results are the same bits (`gpuprop.backends.cpu.team`). Three rounds begin;
    later, one at a time, they are a hundredth of the training, because a machine does not stay as busy as it is. Fits
    of the same size share what they measure.

    Parameters
    ----------
    products : int
        Products of two numbers in an update. Small updates are one thread's, and nothing is measured; 0 where the
        others must be too.
    """

    def __init__(self, products: int) -> None:
        self._products = products
        self._trial = max(1, _TRIAL // max(1, products))
        self._measured: _Measured | None = None
        # What is to be measured; 0 for a call that is not counted.
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

    def most(self) -> int:
        """Return the most threads that these updates may have."""
        return allowed_threads() if self._products >= _WORTH_SHARING else 1

    def _of_these_updates(self) -> _Measured:
        most = self.most()
        counts = [*(2**power for power in range((most - 1).bit_length())), most]
        return _of_size((self._products,), counts)

    def _begin(self, measured: _Measured, first: bool) -> None:
        """Begin to measure: a round, or as many as are missing of the first ones."""
        known = min(map(len, measured.seconds.values()))
        rounds = max(1, min(_ROUNDS, -(-_ALL_TRIALS // (self._trial * self._products))) - known)
        # A fit's first call is not counted: it may have to be compiled, and nothing is in the cache.
        self._trials = [0] * first + list(measured.seconds) * rounds
        self._took = 0.0

    @contextlib.contextmanager
    def timed(self, n_updates: int) -> Iterator[None]:
        """Measure the updates that are made meanwhile."""
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


def allowed_threads() -> int:
    """Return how many threads a training may use now: processors of this process, and no more than BLAS may use."""
    from gpuprop.backends.cpu.team import CAN_WAIT

    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, blas_threads()) if CAN_WAIT else 1
