"""Sums and maxima over a block or over the lanes of a row, in one fixed order, so that results repeat bit for bit.

::

    a block of 16 threads                            a row of 4 lanes, 3 rows at a time

      v0  v1  v2  v3 | v4  v5  v6  v7 | v8 ...         row 0   v0  v1  v2  v3     every lane adds up its own row:
      |   |   |   |                                    row 1   v0  v1  v2  v3     v0 + v1 + v2 + v3
      s0  s1  s2  s3     s0 = v0 + v4 + v8 + v12       row 2   v0  v1  v2  v3
      s0 + s1 + s2 + s3                                        every lane of a row gets the row's result

Each thread writes one value to shared memory. A block adds in two steps of about the square root of its threads, with 3
barriers (a tree would take one for each halving); a row adds in one step, with 2 barriers. Shuffles would save the
barriers, but the simulator has none. Every thread gets the result, and afterwards shared memory is free again.

Budget: one number of shared memory a thread; for 256 threads 16 + 16 loads, without bank conflicts: neighbours in the
first step, one address for all in the second.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.shapes import log2
from gpuprop_kernels.target import device, i32, ld1, st1, sync, thread

__all__ = ["block_sum", "row_max", "row_sum"]


@device
def _add(a, b):
    return a + b


@device
def _max(a, b):
    return a if a > b else b


@cache
def block_sum(dt: Any, threads: int) -> Any:
    """Return ``add(shared, value) -> total`` for blocks of `threads`, a power of two."""
    width = 1 << (log2(threads) // 2)
    height = threads // width

    @device
    def add(shared, value):
        t = thread()
        st1(shared, t, value)
        sync()
        if t < width:
            total = ld1(shared, t)
            for q in range(1, height):
                total += ld1(shared, i32(q * width + t))
            st1(shared, t, total)
        sync()
        total = ld1(shared, i32(0))
        for q in range(1, width):
            total += ld1(shared, i32(q))
        sync()
        return total

    return add


@cache
def _of_row(dt: Any, lanes: int, combine: Any) -> Any:
    @device
    def reduce(shared, value):
        t = thread()
        at = i32(t & ~(lanes - 1))
        st1(shared, t, value)
        sync()
        result = ld1(shared, at)
        for q in range(1, lanes):
            result = combine(result, ld1(shared, i32(at + q)))
        sync()
        return result

    return reduce


def row_sum(dt: Any, lanes: int) -> Any:
    """Return ``add(shared, value) -> total`` over each row of `lanes` neighbouring threads, a power of two."""
    return _of_row(dt, lanes, _add)


def row_max(dt: Any, lanes: int) -> Any:
    """Return ``peak(shared, value) -> largest`` over each row of `lanes` neighbouring threads."""
    return _of_row(dt, lanes, _max)
