"""Sums and maxima over a block in one fixed order, so that results repeat bit for bit.

::

    thread   0   1   2   3   4   5   6   7
             v0  v1  v2  v3  v4  v5  v6  v7      one value a thread, in shared memory
             |<--+---+---+---'                   half of the threads add the other half's value,
             |<--+                               then a quarter, ... ; the sum is the same in every run
             sum

log2(threads) barriers; shuffles would save most of them, but the simulator has none. Every thread gets the result.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.target import device, i32, ld1, st1, sync, thread

__all__ = ["block_max", "block_sum"]


@device
def _add(a, b):
    return a + b


@device
def _max(a, b):
    return a if a > b else b


@cache
def _reduce(dt: Any, threads: int, combine: Any) -> Any:
    steps = threads.bit_length() - 1

    @device
    def reduce(shared, value):
        t = thread()
        st1(shared, t, value)
        sync()
        half = i32(threads >> 1)
        for _ in range(steps):
            if t < half:
                st1(shared, t, combine(ld1(shared, t), ld1(shared, i32(t + half))))
            sync()
            half = i32(half >> 1)
        result = ld1(shared, i32(0))
        sync()
        return result

    return reduce


def block_sum(dt: Any, threads: int) -> Any:
    """Return ``add(shared, value) -> total`` for blocks of `threads` (a power of two) and as large a buffer."""
    return _reduce(dt, threads, _add)


def block_max(dt: Any, threads: int) -> Any:
    """Return ``peak(shared, value) -> largest``."""
    return _reduce(dt, threads, _max)
