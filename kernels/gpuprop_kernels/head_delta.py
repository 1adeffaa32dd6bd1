"""The last hidden layer's delta, in the block that has just made the output's: step 4 of `head`.

::

    d_hidden = (d W^T) * f'(x)        d (rows, K) in shared memory, W (n_in, K), x and d_hidden (rows, n_in)

          W, as many rows as threads             shared memory                   thread t
        +----------------+ 16 bytes a thread,  +----------------+   row t      K weights in registers;
        | 0 | 1 | 2 | 3  | one after the       | 0 | 1 | 2 | 3  | ---------->  its column of x for each
        | 4 | 5 | 6 | 7  | other               | 7 | 4 | 5 | 6  |              row of the block

A thread's K weights are a row of W. If each thread loaded its own row, 16 bytes at a time, every load of a warp would
use half of each sector: measured, the head read a sixth more sectors than its bytes fill. So the block reads the rows
one after the other. Each row is rotated in shared memory, so that the threads of a warp, which read neighbouring rows,
meet different banks.

Budget: no launch; one row of W a thread in shared memory (16 KiB for 256 threads and 16 classes in float32), 2 barriers
for each 256 columns of x; reads W and x once a block, writes 4 bytes a unit.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.activations import Activation
from gpuprop_kernels.delta import unit_delta
from gpuprop_kernels.dropout import unit_is_kept
from gpuprop_kernels.shapes import MOST_CLASSES, HeadShape, log2, padded
from gpuprop_kernels.target import block_x, cuda, device, i32, ld4, ldg1, ldg4, st1, st4, sync, thread

__all__ = ["hidden_from_head"]


@cache
def hidden_from_head(shape: HeadShape, dt: Any, n_classes: int, hidden: Activation, dropout: bool) -> Any:
    """Return ``hidden_delta(shared, rows_at, ...)``: the deltas begin `shared`, rows of W go to `rows_at`."""
    rows_of_block, threads, zero = shape.rows, shape.threads, dt(0)
    groups, quads = -(-n_classes // 4), padded(n_classes) // 4
    classes = 4 * groups
    quad_bits, turn_bits = log2(quads), log2(8 // quads)
    delta, kept = unit_delta(dt, hidden, dropout), unit_is_kept(dropout)

    @device
    def place(row, quad):
        """Return where four weights of a row lie: rotated, so that neighbouring rows meet different banks."""
        return i32((row << (quad_bits + 2)) + (((quad + (row >> turn_bits)) & (quads - 1)) << 2))

    @device
    def hidden_delta(
        shared, rows_at, weights, w_at, source, out, sums, a_at, mask, keep, drop_at, step, before, first, rows, n_in,
        ldx, ldw
    ):  # fmt: skip
        w = cuda.local.array(classes, dt)
        t = thread()
        begin = i32(0)
        while begin < ldx:
            # Read the weights of as many columns of x as there are threads: rows of W, one after the other.
            for q in range(quads):
                four = i32(q * threads + t)
                row, quad = i32(four >> quad_bits), i32(four & (quads - 1))
                v = ldg4(weights, i32(w_at + min(i32(begin + row), i32(n_in - 1)) * ldw + 4 * quad))
                st4(shared, i32(rows_at + place(row, quad)), v[0], v[1], v[2], v[3])
            sync()
            column = i32(begin + t)
            if column < ldx:
                for g in range(groups):
                    v = ld4(shared, i32(rows_at + place(t, i32(g))))
                    w[4 * g] = v[0]
                    w[4 * g + 1] = v[1]
                    w[4 * g + 2] = v[2]
                    w[4 * g + 3] = v[3]
                total = zero
                for r in range(rows_of_block):
                    error = zero
                    for g in range(groups):
                        d = ld4(shared, i32(MOST_CLASSES * r + 4 * g))
                        error += d[0] * w[4 * g] + d[1] * w[4 * g + 1] + d[2] * w[4 * g + 2] + d[3] * w[4 * g + 3]
                    row = i32(first + r)
                    if row < rows:
                        at = i32(a_at + row * ldx + column)
                        is_kept = kept(mask, drop_at, i32(row + before), column, step)
                        d_unit = delta(error, ldg1(source, at), is_kept, keep, drop_at)
                        d_unit = d_unit if column < n_in else zero
                        st1(out, at, d_unit)
                        total += d_unit
                st1(sums, i32(a_at + block_x() * ldx + column), total)
            begin = i32(begin + threads)
            if begin < ldx:
                sync()

    return hidden_delta
