"""Loss, hits and output delta of rows of any length, from their net inputs.

::

    z (n, K), y (n, K)         delta[i, :] = w_i dL_i/dz / sum w;        loss and score of row i, times w_i

                 lanes
        row i    0 1 2 3 0 1 2 3 0 1 2 3 0 1      a block takes several rows at once, each with `lanes` threads that
        row i+1  0 1 2 3 0 1 2 3 0 1 2 3 0 1      take every lanes-th column. Passes over a row: largest, sum of
          :                                       exponentials (softmax); loss and score; delta. In between, the
                                                  lanes' values are put together in order (`reduction.row_sum`)

`row_rule` does this for the rows of one block. The blocks of this file's kernels do nothing else: they serve a network
that is used one primitive at a time, and, as `softmax_rows`, inference. A training step uses `wide`, whose blocks have
just multiplied. A block leaves loss and score of its rows, added in order, in ``losses[slot]``. `delta` may share the
memory of `z`, because one thread reads an element and then writes it.

Budget: 1 launch; 128 threads, 512 bytes of shared memory, about 40 registers; reads a row of z and of y three to five
times, from the cache after the first, and writes delta once: 12 bytes an output in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gpuprop_kernels.activations import Activation
from gpuprop_kernels.loss import output_rule
from gpuprop_kernels.metric import metric_term
from gpuprop_kernels.optimizers import SCALARS
from gpuprop_kernels.reduction import row_max, row_sum
from gpuprop_kernels.target import (
    SIM,
    block_x,
    cuda,
    device,
    exp,
    grid_x,
    i32,
    kernel,
    ld1,
    ldg1,
    ldg4,
    log,
    st1,
    sync,
    thread,
)  # fmt: skip

__all__ = ["ROWS", "RowShape", "leave_losses", "loss_rows_kernel", "row_rule", "softmax_rows_kernel"]


@dataclass(frozen=True)
class RowShape:
    """How many rows a block takes at once, and how many threads each row has; both are powers of two."""

    rows: int
    lanes: int

    @property
    def threads(self) -> int:  # noqa: D102
        return self.rows * self.lanes


ROWS = RowShape(4, 4) if SIM else RowShape(8, 16)


def _lowest(dt: Any) -> Any:
    return dt(np.finfo(str(dt)).min)


@cache
def _normaliser(dt: Any, lanes: int) -> Any:
    """Return ``normalise(shared, z, at, n) -> (peak, total)`` of the row of n net inputs at ``z[at]``."""
    largest, add = row_max(dt, lanes), row_sum(dt, lanes)
    zero, lowest = dt(0), _lowest(dt)

    @device
    def normalise(shared, z, at, n):
        peak = lowest
        first = i32(thread() & (lanes - 1))
        column = first
        while column < n:
            v = ld1(z, i32(at + column))
            peak = v if v > peak else peak
            column = i32(column + lanes)
        peak = largest(shared, peak)
        total = zero
        column = first
        while column < n:
            total += exp(ld1(z, i32(at + column)) - peak)
            column = i32(column + lanes)
        return peak, add(shared, total)

    return normalise


@cache
def _first_place(dt: Any, lanes: int) -> Any:
    """Return ``place(shared, value, column) -> the column of the row's largest value``, the first of equals.

    Columns travel as numbers of the dtype, exact up to 2**24.
    """
    largest = row_max(dt, lanes)
    far = dt(-(2**24))

    @device
    def place(shared, value, column):
        peak = largest(shared, value)
        return -largest(shared, -dt(column) if value == peak else far)

    return place


@cache
def row_rule(dt: Any, output: Activation, loss: str, metric: str, weighted: bool, lanes: int) -> Any:
    """Return ``judge(shared, z, targets, sample_weights, delta, scale, where)``.

    `where` is (order, start, rows, row, n_out, ld, ldy, a_at), with the place a_at of row 0 in `z` and `delta`.

    It writes the row's delta, and returns loss and score, times the row's weight, in each of the row's lanes. For a row
    past the batch's end it writes nothing and returns zeros. All threads of a block call it together. `scale` is
    1 / sum w.
    """
    rule, miss = output_rule(output, loss, dt), metric_term(metric, dt)
    normalised, coupled, activate, term = rule.normalised, rule.coupled, rule.output, rule.term
    share, output_delta = rule.share, rule.delta
    normalise, add, first_place = _normaliser(dt, lanes), row_sum(dt, lanes), _first_place(dt, lanes)
    by_class, by_row = metric == "class", metric == "threshold"
    zero, one, lowest = dt(0), dt(1), _lowest(dt)

    @device
    def judge(shared, z, targets, sample_weights, delta, scale, where):
        order, start, rows, row, n_out, ld, ldy, a_at = where
        first = i32(thread() & (lanes - 1))
        inside = row < rows
        at = i32(a_at + row * ld)
        columns = n_out if inside else i32(0)
        place = i32(start + min(row, i32(rows - 1)))
        y_at = i32(ldg1(order, place) * ldy)
        weight = (ldg1(sample_weights, place) if weighted else one) if inside else zero
        peak, total = zero, one
        if normalised:
            peak, total = normalise(shared, z, at, columns)
        log_total = log(total) if inside else zero

        value, coupling, score = zero, zero, zero
        best, wanted, best_at, wanted_at = lowest, lowest, i32(0), i32(0)
        column = first
        while column < columns:
            net = ld1(z, i32(at + column))
            a, y = activate(net, peak, total), ldg1(targets, i32(y_at + column))
            value += term(net, a, y, peak, log_total)
            if coupled:
                coupling += share(a, y)
            if by_class:
                if a > best:
                    best, best_at = a, column
                if y > wanted:
                    wanted, wanted_at = y, column
            else:
                score += miss(a, y)
            column = i32(column + lanes)
        value = add(shared, value)
        if coupled:
            coupling = add(shared, coupling)
        if by_class:
            same = first_place(shared, best, best_at) == first_place(shared, wanted, wanted_at)
            score = one if same else zero
        else:
            score = add(shared, score)
            if by_row:
                score = one if score == zero else zero

        factor = weight * scale
        column = first
        while column < ld and inside:
            d = zero
            if column < n_out:
                net = ld1(z, i32(at + column))
                a, y = activate(net, peak, total), ldg1(targets, i32(y_at + column))
                d = output_delta(net, a, y, coupling) * factor
            st1(delta, i32(at + column), d)
            column = i32(column + lanes)
        return (value * weight, score * weight) if inside else (zero, zero)

    return judge


@cache
def leave_losses(dt: Any, shape: RowShape) -> Any:
    """Return ``leave(shared, value, score, losses, place)``, which adds up the first lanes of a block's rows."""
    rows_at_once, lanes, zero = shape.rows, shape.lanes, dt(0)

    @device
    def leave(shared, value, score, losses, place):
        t = thread()
        if t & (lanes - 1) == 0:
            st1(shared, i32(2 * (t // lanes)), value)
            st1(shared, i32(2 * (t // lanes) + 1), score)
        sync()
        if t < 2:
            total = zero
            for row in range(rows_at_once):
                total += ld1(shared, i32(2 * row + t))
            st1(losses, i32(2 * place + t), total)

    return leave


@cache
def loss_rows_kernel(shape: RowShape, dt: Any, output: Activation, loss: str, metric: str, weighted: bool) -> Any:
    """Build the kernel; see the module for what it computes."""
    threads, lanes, rows_at_once = shape.threads, shape.lanes, shape.rows
    judge, leave = row_rule(dt, output, loss, metric, weighted, lanes), leave_losses(dt, shape)

    @kernel(threads)
    def row_loss_delta(z, targets, sample_weights, order, delta, losses, schedule, slot, scalars, n_out, ld, ldy):
        shared = cuda.shared.array(threads, dt, alignment=16)
        start, rows, _, _ = ldg4(schedule, i32(4 * slot))
        row, scale = i32(block_x() * rows_at_once + thread() // lanes), ldg1(scalars, i32(SCALARS * slot))
        where = (order, start, rows, row, n_out, ld, ldy, i32(0))
        value, score = judge(shared, z, targets, sample_weights, delta, scale, where)
        leave(shared, value, score, losses, i32(slot * grid_x() + block_x()))

    return row_loss_delta


@cache
def softmax_rows_kernel(shape: RowShape, dt: Any) -> Any:
    """Build the kernel that writes the softmax of each of `n_rows` rows of net inputs, in place or elsewhere."""
    threads, lanes, rows_at_once = shape.threads, shape.lanes, shape.rows
    normalise, zero = _normaliser(dt, lanes), dt(0)

    @kernel(threads)
    def softmax_rows(z, out, n_rows, n_out, ld):
        shared = cuda.shared.array(threads, dt, alignment=16)
        row = i32(block_x() * rows_at_once + thread() // lanes)
        inside = row < n_rows
        at = i32(row * ld)
        peak, total = normalise(shared, z, at, n_out if inside else i32(0))
        column = i32(thread() & (lanes - 1))
        while column < ld and inside:
            a = zero
            if column < n_out:
                a = exp(ld1(z, i32(at + column)) - peak) / total
            st1(out, i32(at + column), a)
            column = i32(column + lanes)

    return softmax_rows
