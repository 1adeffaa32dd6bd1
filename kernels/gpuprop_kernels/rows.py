"""Loss, hits and output delta of a row of any length, from its net input: for more than 16 classes.

::

    z (n, K) from `forward` with the identity;  y (n, K)
    delta[i, :] = w_i dL_i/dz / sum w;   losses[slot, i] = (w_i L_i, w_i score_i)

        row i    z z z z z z z z z z z z z z          one block a row; thread t takes columns t, t + threads, ...
                 0 1 2 3 0 1 2 3 0 1 2 3 0 1          passes over the row: largest, sum of exponentials (softmax),
                                                      loss and score, delta; a reduction of the block in between

`delta` may be the same memory as `z`: an element is read and written by one thread, the write last. Rows of the grid
past the batch's end are written as zeros, so that the bias gradient may add up all rows of `delta`: with one row a
block, the deltas themselves are the column sums that `gradient` expects.

`softmax_rows_kernel` gives the outputs alone, for inference.

Budget: 1 launch; 64 threads, 64 numbers of shared memory; reads the row three to five times, from the cache after the
first, writes it once.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from gpuprop_kernels.activations import Activation
from gpuprop_kernels.loss import metric_term, output_rule
from gpuprop_kernels.optimizers import SCALARS
from gpuprop_kernels.reduction import block_max, block_sum
from gpuprop_kernels.target import (
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
    thread,
)  # fmt: skip

__all__ = ["ROW_BLOCK", "loss_rows_kernel", "softmax_rows_kernel"]

ROW_BLOCK = 64
"""Threads of a block on a device; the simulator takes 16."""


def _lowest(dt: Any) -> Any:
    return dt(np.finfo(str(dt)).min)


@cache
def _normaliser(dt: Any, threads: int) -> Any:
    """Return ``normalise(shared, z, at, n) -> (peak, total)`` of a row in memory."""
    largest, add = block_max(dt, threads), block_sum(dt, threads)
    zero, lowest = dt(0), _lowest(dt)

    @device
    def normalise(shared, z, at, n):
        peak = lowest
        column = thread()
        while column < n:
            v = ld1(z, i32(at + column))
            peak = v if v > peak else peak
            column = i32(column + threads)
        peak = largest(shared, peak)
        total = zero
        column = thread()
        while column < n:
            total += exp(ld1(z, i32(at + column)) - peak)
            column = i32(column + threads)
        return peak, add(shared, total)

    return normalise


@cache
def _first_place(dt: Any, threads: int) -> Any:
    """Return ``place(shared, value, column) -> the column of the largest value``, the first of equals.

    Columns travel as numbers of the dtype, exact up to 2**24.
    """
    largest = block_max(dt, threads)
    far = dt(-(2**24))

    @device
    def place(shared, value, column):
        peak = largest(shared, value)
        return -largest(shared, -dt(column) if value == peak else far)

    return place


@cache
def loss_rows_kernel(dt: Any, output: Activation, loss: str, metric: str, weighted: bool, threads: int) -> Any:
    """Build the kernel; see the module for what it computes."""
    rule, miss = output_rule(output, loss, dt), metric_term(metric, dt)
    normalised, coupled, activate, term = rule.normalised, rule.coupled, rule.output, rule.term
    share, output_delta = rule.share, rule.delta
    normalise, add = _normaliser(dt, threads), block_sum(dt, threads)
    first_place = _first_place(dt, threads)
    by_class, by_row = metric == "class", metric == "threshold"
    zero, one, lowest = dt(0), dt(1), _lowest(dt)

    @kernel(threads)
    def row_loss_delta(z, targets, sample_weights, order, delta, losses, schedule, slot, scalars, n_out, ld, ldy):
        shared = cuda.shared.array(threads, dt, alignment=16)
        start, rows, _, _ = ldg4(schedule, i32(4 * slot))
        t, row = thread(), block_x()
        inside = row < rows
        at = i32(row * ld)
        columns = n_out if inside else i32(0)
        place = ldg1(order, i32(start + min(row, i32(rows - 1))))
        y_at = i32(place * ldy)
        weight = (ldg1(sample_weights, place) if weighted else one) if inside else zero
        peak, total = zero, one
        if normalised:
            peak, total = normalise(shared, z, at, columns)
        log_total = log(total) if inside else zero

        value, coupling, score = zero, zero, zero
        best, wanted, best_at, wanted_at = lowest, lowest, i32(0), i32(0)
        column = t
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
            column = i32(column + threads)
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
        if t == 0:
            st1(losses, i32(2 * (slot * grid_x() + row)), value * weight if inside else zero)
            st1(losses, i32(2 * (slot * grid_x() + row) + 1), score * weight if inside else zero)

        factor = weight * ldg1(scalars, i32(SCALARS * slot))
        column = t
        while column < ld:
            d = zero
            if column < columns:
                net = ld1(z, i32(at + column))
                a, y = activate(net, peak, total), ldg1(targets, i32(y_at + column))
                d = output_delta(net, a, y, coupling) * factor
            st1(delta, i32(row * ld + column), d)
            column = i32(column + threads)

    return row_loss_delta


@cache
def softmax_rows_kernel(dt: Any, threads: int) -> Any:
    """Build the kernel that turns each row of net inputs into its softmax, in place or not."""
    normalise, zero = _normaliser(dt, threads), dt(0)

    @kernel(threads)
    def softmax_rows(z, out, n_out, ld):
        shared = cuda.shared.array(threads, dt, alignment=16)
        at = i32(block_x() * ld)
        peak, total = normalise(shared, z, at, n_out)
        column = thread()
        while column < ld:
            a = zero
            if column < n_out:
                a = exp(ld1(z, i32(at + column)) - peak) / total
            st1(out, i32(at + column), a)
            column = i32(column + threads)

    return softmax_rows
