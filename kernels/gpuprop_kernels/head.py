"""The head in one launch, up to 16 classes: last layer, loss, hits, output delta, and the last hidden delta.

::

    z = x W + b;  a = f(z);  L, hits;  d = w_i dL_i/dz / sum w        x (n, n_in), W (n_in, K), y (n, K)
    d_hidden = (d W^T) * f'(x)                                        (n, n_in)

              K <= 16 lanes a row
            +-----------------+          one block: `rows` rows of the batch, 16 threads a row and slice of n_in.
     row 0  | z z z z ... z . |          1. each thread one z over its slice of n_in; the slices are added in order
     row 1  | z z z z ... z . |          2. rows in shared memory: each thread reads its row's z (a broadcast), so that
       :    |                 |             softmax needs no shuffles; a, loss, delta
            +-----------------+          3. per block, in order: sums of delta (bias gradient), loss, hits
              |  d (rows x K)            4. a thread takes columns of x: K weights in registers, by way of shared
              v                             memory; the block's deltas from there; times f', store, column sums
            d_hidden (rows x n_in)

A product with 16 columns or fewer is too narrow for a tile: nearly all of the tile's work would be padding. Here a
thread's sum runs over n_in; four steps take one 128-bit load of x (shared by 16 lanes) and four coalesced loads of W.
Because the last hidden delta is fused in, W is read once more, from the cache, and the output's delta is written to
memory only for the gradient kernel; `head_delta` has that step.

Loss and hits of a block go to ``losses[slot]``, two numbers a block, weighted but not divided by the weights' sum: the
host adds them in float64 once an epoch. A row's weight is its sample weight, or 1; ``scalars[slot][0]`` is 1 / their
sum over the batch.

Budget: 1 launch for three primitives; 256 threads, about 64 registers, 18.6 KiB of shared memory; reads x twice and W
twice a block, writes 4 bytes a unit of x.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.activations import Activation
from gpuprop_kernels.dropout import constants_of
from gpuprop_kernels.head_delta import hidden_from_head
from gpuprop_kernels.loss import output_rule
from gpuprop_kernels.metric import row_metric
from gpuprop_kernels.networks import part_of, slot_of, without_rows
from gpuprop_kernels.optimizers import SCALARS
from gpuprop_kernels.shapes import HEAD, MOST_CLASSES, SMALL_HEAD, HeadShape, padded
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
    sync,
    thread,
)  # fmt: skip

__all__ = ["HEAD", "MOST_CLASSES", "SMALL_HEAD", "HeadShape", "head_kernel"]


@cache
def _logits(shape: HeadShape, dt: Any) -> Any:
    """Return step 1, which computes z of the thread's row and class; the result is valid in the threads of slice 0."""
    cells, slices, zero = MOST_CLASSES * shape.rows, shape.slices, dt(0)

    @device
    def logits(shared, x, x_at, weights, w_at, biases, column, part, cell, n_in, ldw):
        z = zero
        k = i32(4 * part)
        while k < n_in:
            v = ldg4(x, i32(x_at + k))
            at = i32(w_at + k * ldw + column)
            z += v[0] * ldg1(weights, at)
            if i32(k + 1) < n_in:
                z += v[1] * ldg1(weights, i32(at + ldw))
            if i32(k + 2) < n_in:
                z += v[2] * ldg1(weights, i32(at + 2 * ldw))
            if i32(k + 3) < n_in:
                z += v[3] * ldg1(weights, i32(at + 3 * ldw))
            k = i32(k + 4 * slices)
        st1(shared, i32(part * cells + cell), z)
        sync()
        z = ldg1(biases, i32(w_at + column))
        for q in range(slices):
            z += ld1(shared, i32(q * cells + cell))
        sync()
        return z

    return logits


@cache
def head_kernel(
    shape: HeadShape, dt: Any, n_classes: int, output: Activation, loss: str, metric: str, hidden: Activation,
    dropout: bool, weighted: bool,
) -> Any:  # fmt: skip
    """Build the kernel; see the module for what it computes."""
    rule, score = output_rule(output, loss, dt), row_metric(metric, n_classes, dt)
    normalised, coupled, activate, term = rule.normalised, rule.coupled, rule.output, rule.term
    share, output_delta = rule.share, rule.delta
    logits, hidden_delta = _logits(shape, dt), hidden_from_head(shape, dt, n_classes, hidden, dropout)
    rows_of_block, cells = shape.rows, MOST_CLASSES * shape.rows
    ld_out = padded(n_classes)
    # Regions of shared memory: deltas (at first the slices' partial z), z, a, loss terms, loss and score of each row,
    # and rows of W (at first the targets).
    z_at = cells * shape.slices
    out_at, term_at, row_at = z_at + cells, z_at + 2 * cells, z_at + 3 * cells
    rows_at = row_at + 4 * -(-2 * rows_of_block // 4)
    shared_size = rows_at + shape.threads * ld_out
    zero, one = dt(0), dt(1)

    @device
    def normalise(shared, at):
        peak, total = ld1(shared, at), zero
        for q in range(1, n_classes):
            v = ld1(shared, i32(at + q))
            peak = v if v > peak else peak
        for q in range(n_classes):
            total += exp(ld1(shared, i32(at + q)) - peak)
        return peak, total

    @kernel(shape.threads)
    def output_loss_delta(
        x, weights, biases, targets, sample_weights, order, delta, sums, losses, source, hidden_out, hidden_sums,
        mask, keep, schedule, slot, scalars, n_in, ldx, ldy, slots, parameters_apart, workspace_apart
    ):  # fmt: skip
        shared = cuda.shared.array(shared_size, dt, alignment=16)
        slot = slot_of(slot, slots)
        start, rows, step, before = ldg4(schedule, i32(4 * slot))
        if without_rows(rows, slots):
            return
        w_at, a_at = part_of(parameters_apart, slots), part_of(workspace_apart, slots)
        t = thread()
        lane, part = i32(t & (MOST_CLASSES - 1)), i32(t // cells)
        cell = i32(t - part * cells)
        first = i32(block_x() * rows_of_block)
        row = i32(first + (cell >> 4))
        inside = row < rows
        safe_row, column = min(row, i32(rows - 1)), min(lane, i32(ld_out - 1))
        at = i32(cell - lane)
        x_at = i32(a_at + safe_row * ldx)
        z = logits(shared, x, x_at, weights, w_at, biases, column, part, cell, n_in, ld_out)
        place = i32(start + safe_row)
        y = ldg1(targets, i32(ldg1(order, place) * ldy + min(lane, i32(n_classes - 1))))
        weight = (ldg1(sample_weights, place) if weighted else one) if inside else zero
        a, d, peak, total, coupling = zero, zero, zero, one, zero
        if part == 0:
            st1(shared, i32(z_at + cell), z)
            st1(shared, i32(rows_at + cell), y)
        sync()
        if part == 0 and lane < n_classes:
            if normalised:
                peak, total = normalise(shared, i32(z_at + at))
            a = activate(z, peak, total)
            st1(shared, i32(out_at + cell), a)
            st1(shared, i32(term_at + cell), term(z, a, y, peak, log(total)))
        sync()
        if part == 0:
            if lane < n_classes and inside:
                if coupled:
                    for q in range(n_classes):
                        coupling += share(ld1(shared, i32(out_at + at + q)), ld1(shared, i32(rows_at + at + q)))
                d = output_delta(z, a, y, coupling) * (weight * ldg1(scalars, i32(SCALARS * slot)))
            st1(shared, cell, d)
            if lane < ld_out and inside:
                st1(delta, i32(a_at + row * ld_out + lane), d)
            if lane == 0:
                total = zero
                for q in range(n_classes):
                    total += ld1(shared, i32(term_at + at + q))
                st1(shared, i32(row_at + 2 * (cell >> 4)), total * weight if inside else zero)
                count = score(shared, i32(out_at + at), i32(rows_at + at))
                st1(shared, i32(row_at + 2 * (cell >> 4) + 1), count * weight if inside else zero)
        sync()
        if t < ld_out:
            total = zero
            for r in range(rows_of_block):
                total += ld1(shared, i32(MOST_CLASSES * r + t))
            st1(sums, i32(a_at + block_x() * ld_out + t), total)
        if t < 2:
            total = zero
            for r in range(rows_of_block):
                total += ld1(shared, i32(row_at + 2 * r + t))
            st1(losses, i32(2 * (slot * grid_x() + block_x()) + t), total)
        hidden_delta(
            shared, rows_at, weights, w_at, source, hidden_out, hidden_sums, a_at, mask, keep, constants_of(slots),
            step, before, first, rows, n_in, ldx, ld_out,
        )  # fmt: skip

    return output_loss_delta
