"""The output layer in one launch for more than 16 classes: the last layer, loss, hits and output delta.

::

    z = x W + b                                                   x (n, n_in), W (n_in, K), z (n, K)
    delta[i, :] = w_i dL_i/dz / sum w;   loss, hits               y (n, K)
    sums[y, j]  = sum of delta[i, j] over the rows i of block row y

             W  n_in x K
           +-----+-----+-----+
           |     |     |     |         1. each block multiplies one tile of z, as `forward` does, and stores it
           +-----+-----+-----+
    x      +-----+-----+-----+
       |   |block|block| last|-------> 2. counts[y] += 1. The block that counts last finds the whole block row of z in
       n   +-----+-----+-----+            memory, and makes loss, hits and deltas of its rows (`rows.row_rule`), some
                                          rows at once, and the column sums for the bias gradient

A softmax needs a whole row, which many blocks have multiplied. A separate launch for the rows would wait for all of z.
Here no block waits: the last block of a block row to finish its tile goes on with the rows. Which block that is changes
from run to run, but not what it computes, and every sum has one order, so that results repeat bit for bit. The count is
an integer and wraps round to 0, ready for the next launch; fences on both sides of it make the other blocks' z visible
(`target.count_in`).

Budget: 1 launch; the tile's registers and shared memory; reads x and W once per tile of the other, writes 4 bytes an
output for z and 4 for delta in float32, reads z and y again three to five times from the cache. One block does the work
for all rows of a block row. By arithmetic, a separate launch would be some microseconds faster for 1000 classes and
more, but it would cost all networks with fewer classes one launch more.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.activations import Activation
from gpuprop_kernels.forward import Source, forward_tile
from gpuprop_kernels.networks import part_of, slot_of, without_rows
from gpuprop_kernels.optimizers import SCALARS
from gpuprop_kernels.rows import ROWS, RowShape, leave_losses, row_rule
from gpuprop_kernels.target import (
    block_y,
    count_in,
    cuda,
    device,
    grid_x,
    grid_y,
    i32,
    kernel,
    ld1,
    ldg1,
    ldg4,
    st1,
    sync,
    thread,
)  # fmt: skip
from gpuprop_kernels.tile import Tile

__all__ = ["wide_output_kernel"]

IDENTITY = Activation("identity")


@cache
def _comes_last(dt: Any) -> Any:
    """Return ``last(shared, counts, slots)``: whether all other blocks of this block row have counted."""

    @device
    def last(shared, counts, slots):
        sync()
        if thread() == 0:
            st1(shared, i32(0), dt(count_in(counts, i32(part_of(grid_y(), slots) + block_y()), i32(grid_x() - 1))))
        sync()
        before = ld1(shared, i32(0))
        sync()
        return before == dt(i32(grid_x() - 1))

    return last


@cache
def _column_sums(tile: Tile, dt: Any) -> Any:
    """Return ``add(delta, sums, a_at, m0, rows, ld)``: the sums over a block row, a thread a column, in order."""
    tile_rows, threads, zero = tile.rows, tile.threads, dt(0)

    @device
    def add(delta, sums, a_at, m0, rows, ld):
        column = thread()
        while column < ld:
            total, row = zero, m0
            while row < min(rows, i32(m0 + tile_rows)):
                total += ld1(delta, i32(a_at + row * ld + column))
                row = i32(row + 1)
            st1(sums, i32(a_at + block_y() * ld + column), total)
            column = i32(column + threads)

    return add


@cache
def wide_output_kernel(
    tile: Tile, dt: Any, source: Source, output: Activation, loss: str, metric: str, weighted: bool
) -> Any:
    """Build the kernel; `source` is where x comes from: the data set, for a network without a hidden layer."""
    shared_size, forward = forward_tile(tile, dt, IDENTITY, source, False, False)
    lanes = max(ROWS.lanes, tile.threads // tile.rows)
    shape = RowShape(tile.threads // lanes, lanes)
    rows_at_once, tile_rows, zero = shape.rows, tile.rows, dt(0)
    judge, leave = row_rule(dt, output, loss, metric, weighted, lanes), leave_losses(dt, shape)
    last, add_columns = _comes_last(dt), _column_sums(tile, dt)
    # To keep the batch's place through the multiply takes two registers, which a 128x128 tile lacks if columns have
    # scales of their own (sm_90 spilled two). Elsewhere, to read it again costs more: sm_120 spilled 18 for plain
    # bytes, and the loop of a 32x32 tile had 2 % fewer multiply-adds.
    reads_again = tile.resident > 0 and source.endswith("by_column")

    @kernel(tile.threads, tile.resident)
    def multiply_loss_delta(
        x, order, shift, scale, weights, biases, z, targets, sample_weights, delta, sums, losses, counts, schedule,
        slot, scalars, n_in, n_out, ldx, ldw, ldy, slots, parameters_apart, workspace_apart
    ):  # fmt: skip
        shared = cuda.shared.array(shared_size, dt, alignment=16)
        slot = slot_of(slot, slots)
        batch = ldg4(schedule, i32(4 * slot))
        if without_rows(batch[1], slots):
            return
        forward(
            shared, x, order, shift, scale, weights, biases, z, z, order, scale, batch, n_in, n_out, ldx, ldw, slots,
            parameters_apart, workspace_apart,
        )  # fmt: skip
        if last(shared, counts, slots):
            if reads_again:
                start, rows = ld1(schedule, i32(4 * slot)), ld1(schedule, i32(4 * slot + 1))
            else:
                start, rows = batch[0], batch[1]
            m0, share = i32(block_y() * tile_rows), ldg1(scalars, i32(SCALARS * slot))
            a_at = part_of(workspace_apart, slots)
            value, score = zero, zero
            done = i32(0)
            while done < tile_rows:
                row = i32(m0 + done + thread() // lanes)
                where = (order, start, rows, row, n_out, ldw, ldy, a_at)
                v, s = judge(shared, z, targets, sample_weights, delta, share, where)
                value += v
                score += s
                done = i32(done + rows_at_once)
            leave(shared, value, score, losses, i32(slot * grid_y() + block_y()))
            add_columns(delta, sums, a_at, m0, rows, ldw)

    return multiply_loss_delta
