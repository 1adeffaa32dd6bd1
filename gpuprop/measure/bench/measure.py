"""Taking times: contenders in turn, on the host's clock or by CUDA events, reported by percentiles.

Contenders take turns, A B C A B C, so that other work on the machine slows all of them down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda.ops import CudaOps

__all__ = ["Clock", "Contender", "DeviceClock", "HostClock", "Spread", "take_turns"]

SPAN_SECONDS = 5e-3
"""Seconds that one sample on the host's clock should take: long compared with the clock's grain."""

SPAN_CALLS = 20
"""Calls in one sample on a GPU, if caches may stay warm between them."""


@dataclass(frozen=True)
class Contender:
    """One way to compute something.

    Attributes
    ----------
    name : str
    run : callable
        Computes once, without waiting for a device.
    read : callable
        Returns the results by name, on the host.
    capturable : bool
        Whether `run` only launches kernels, so that a CUDA graph can hold it.
    """

    name: str
    run: Callable[[], object]
    read: Callable[[], Mapping[str, NDArray[Any]]]
    capturable: bool = False


@dataclass(frozen=True)
class Spread:
    """Seconds of one call: percentiles over the samples."""

    p20: float
    p50: float
    p80: float
    samples: int

    @staticmethod
    def of(samples: Sequence[float]) -> Spread:
        """Return the percentiles of some samples."""
        p20, p50, p80 = np.percentile(np.asarray(samples), (20, 50, 80)).tolist()
        return Spread(p20, p50, p80, len(samples))


class Clock(Protocol):
    """A clock times contenders."""

    def prepare(self, contender: Contender, *, cold: bool) -> Callable[[], float]:
        """Return a function that takes one sample: seconds a call, with `cold` caches if the clock can empty them."""
        ...


class HostClock:
    """The host's clock, around as many calls as fill some milliseconds.

    Parameters
    ----------
    synchronize : callable
        It waits for a device; on the CPU there is nothing to wait for.
    """

    def __init__(self, synchronize: Callable[[], None] = lambda: None) -> None:
        self._synchronize = synchronize

    def prepare(self, contender: Contender, *, cold: bool = False) -> Callable[[], float]:
        """Return the sampler; the caches stay as they are."""
        self._seconds(contender, 1)  # the first call compiles, and allocates what later calls reuse
        calls = max(1, round(SPAN_SECONDS / max(self._seconds(contender, 2), 1e-7)))
        return lambda: self._seconds(contender, calls)

    def _seconds(self, contender: Contender, calls: int) -> float:
        self._synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            contender.run()
        self._synchronize()
        return (time.perf_counter() - begin) / calls


class DeviceClock:
    """CUDA events, around a replayed graph where the contender can be captured, else around its calls.

    A cold sample is one call after the L2 cache has been filled with something else; a warm one is `SPAN_CALLS` calls.
    """

    def __init__(self, ops: CudaOps) -> None:
        self._runtime = ops.runtime
        xp = ops.runtime.xp
        properties = xp.cuda.runtime.getDeviceProperties(int(ops.device.partition(":")[2]))
        with self._runtime.active():
            self._filler = xp.zeros(max(2 * int(properties["l2CacheSize"]), 2**20), np.uint8)
            self._events = xp.cuda.Event(), xp.cuda.Event()

    def prepare(self, contender: Contender, *, cold: bool) -> Callable[[], float]:
        """Return the sampler; a contender that can be captured is recorded here, once."""
        calls = 1 if cold else SPAN_CALLS

        def span() -> None:
            for _ in range(calls):
                contender.run()

        with self._runtime.active():
            span()
            self._runtime.synchronize()
            start = (self._runtime.record(span) if contender.capturable else None) or span
        return lambda: self._seconds(start, cold) / calls

    def _seconds(self, start: Callable[[], None], cold: bool) -> float:
        begin, end = self._events
        with self._runtime.active():
            if cold:
                self._filler.fill(1)
            begin.record()
            start()
            end.record()
            end.synchronize()
            return float(self._runtime.xp.cuda.get_elapsed_time(begin, end)) * 1e-3


def take_turns(clock: Clock, contenders: Sequence[Contender], rounds: int, *, cold: bool) -> dict[str, Spread]:
    """Return the time of one call of each contender, by name."""
    samplers = {contender.name: clock.prepare(contender, cold=cold) for contender in contenders}
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(rounds):
        for name, sample in samplers.items():
            samples[name].append(sample())
    return {name: Spread.of(taken) for name, taken in samples.items()}
