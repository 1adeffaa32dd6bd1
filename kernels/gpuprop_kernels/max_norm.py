"""The max-norm constraint: after an update, the weights into each unit are shortened to at most a given norm.

::

    W[:, j] *= min(1, limit / |W[:, j]|)          W (fan_in, fan_out), j a unit

          16 columns        one block, 16 columns: neighbouring threads read neighbouring weights of a row
        +------------+
        | 0 1 2 .. 15|      first row of threads: rows 0, 8, 16, ... of W
        | 0 1 2 .. 15|      second: rows 1, 9, 17, ...            8 rows of threads share a column; their sums of
        |     :      |                                            squares are added in order in shared memory
        +------------+

A column that is short enough is not changed at all, so that a network within its bounds stays the same to the last bit.

Budget: 1 launch a layer; 128 threads, 128 numbers of shared memory, about 24 registers; reads W once, and once more
from the cache with 4 bytes a weight written where a column is too long.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.networks import part_of, slot_of, without_rows
from gpuprop_kernels.target import block_x, cuda, i32, kernel, ld1, sqrt, st1, sync, thread

__all__ = ["NORM_COLUMNS", "NORM_ROWS", "limit_norm_kernel"]

NORM_COLUMNS = 16
"""The columns of a block."""

NORM_ROWS = 8
"""The number of threads that share a column."""


@cache
def limit_norm_kernel(dt: Any) -> Any:
    """Build the kernel; see the module for what it computes."""
    zero, threads = dt(0), NORM_COLUMNS * NORM_ROWS

    @kernel(threads)
    def limit_incoming_norm(parameters, schedule, slot, slots, offset, n_in, ld, limit, parameters_apart):
        shared = cuda.shared.array(threads, dt, alignment=16)
        if without_rows(ld1(schedule, i32(4 * slot_of(slot, slots) + 1)), slots):
            return
        offset = i32(offset + part_of(parameters_apart, slots))
        t = thread()
        place = i32(t & (NORM_COLUMNS - 1))
        column, first = i32(NORM_COLUMNS * block_x() + place), i32(t // NORM_COLUMNS)
        total = zero
        row = first
        while row < n_in and column < ld:
            w = ld1(parameters, i32(offset + row * ld + column))
            total += w * w
            row = i32(row + NORM_ROWS)
        st1(shared, t, total)
        sync()
        total = zero
        for r in range(NORM_ROWS):
            total += ld1(shared, i32(NORM_COLUMNS * r + place))
        norm = sqrt(total)
        row = first
        while row < n_in and column < ld and norm > limit:
            at = i32(offset + row * ld + column)
            st1(parameters, at, ld1(parameters, at) * (limit / norm))
            row = i32(row + NORM_ROWS)

    return limit_incoming_norm
