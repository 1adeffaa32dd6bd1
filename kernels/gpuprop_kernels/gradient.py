"""Outer-product gradient accumulation: gW = a^T d and gb = sum of d over the batch, all layers in one launch.

::

    gW[i, j] = sum_r a[r, i] d[r, j]         a (n, fan_in), d (n, fan_out), gW (fan_in, fan_out); r over the batch
    gb[j]    = sum_y sums[y, j]              the column sums that delta and head left, one row per block row

                d   n x fan_out
              +-----+-----+                  one block, one tile of one layer's gW. Both operands are stored along
              |  r  |     |                  the inner index r, as the multiply wants them: nothing is transposed,
              +-----+-----+                  and every access is 128 bits
     a^T      +-----+-----+
    fan_in|   |block|block|                  epilogue: store, add to what is there, or update the parameters in
        x n   +-----+-----+                  place (`finish`)

    grid x:   | layer 1: tiles | layer 2: tiles | ... | layer 1: bias | ... |       `jobs` says which block does what
    grid y:   | rows 0 .. R-1 | rows R .. 2R-1 | ...        parts of the batch, each with a slab of gradients
    grid z:   | network 0 | network 1 | ...                 see `networks`

A block finds its job in a table in device memory, so that small layers share a launch with large ones. With the
optimizer in the epilogue, an update needs neither a gradient in memory nor a launch of its own: every parameter has one
writer, so no block reads a weight that another block has changed. The first layer's rows are gathered and scaled while
they are loaded, as in `forward`.

Few parameters and a large batch give too few blocks to fill a GPU (`shapes.choose_parts` says when). Then grid y splits
the batch; each part stores a slab, and a second pass (`update`) adds the slabs in order, so that the sum repeats bit
for bit. A launch with penalties leaves each block's sums of the weights' squares and magnitudes in `penalties`. If
gradients will be clipped, it leaves the sum of their squares in `squares`. So neither needs a launch of its own.

Budget: 1 launch for all layers (2 with a split batch); reads a and d once per tile of the other; with adam in the
epilogue 24 bytes a parameter, else 4, in float32, and 12 bytes a block for the sums; registers and shared memory are
the tile's. An optimizer's state or a tally is kept in registers only where the accumulators leave room for it
(`shapes.NO_OPTIMIZER`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop_kernels.finish import TALLY, finisher, leave_tally, penalty_of, scalars_of
from gpuprop_kernels.forward import Source, source_loader
from gpuprop_kernels.networks import part_of, slot_of, without_rows
from gpuprop_kernels.optimizers import STATE_ARRAYS
from gpuprop_kernels.shapes import NO_OPTIMIZER, padded
from gpuprop_kernels.staging import DENSE
from gpuprop_kernels.target import (
    block_x,
    block_y,
    cuda,
    device,
    grid_x,
    i32,
    kernel,
    ldg1,
    ldg4,
    thread,
)  # fmt: skip
from gpuprop_kernels.tile import Tile, multiply, sweep

__all__ = ["GradientJob", "gradient_kernel", "job_table"]

JOB_SIZE = 12
_DENSE, _GATHERED, _BIAS = 0, 1, 2


@dataclass(frozen=True)
class GradientJob:
    """The places of one layer's operands and parameters; offsets count elements.

    `inputs_at`, `delta_at` and `sums_at` are offsets in the workspace, `weights_at` and `biases_at` in the flat
    parameters. With `gathered` the inputs come from the data set instead. `sums_rows` is the number of rows of column
    sums. Leading dimensions are `padded` sizes.
    """

    n_in: int
    n_out: int
    inputs_at: int
    delta_at: int
    sums_at: int
    sums_rows: int
    weights_at: int
    biases_at: int
    gathered: bool = False


def job_table(layers: list[GradientJob], tile: Tile) -> tuple[NDArray[np.int32], int]:
    """Return the table that the kernel reads, flat, and the number of blocks it needs."""
    rows: list[list[int]] = []
    first = 0
    for job in layers:
        across, down = -(-padded(job.n_out) // tile.columns), -(-job.n_in // tile.rows)
        kind = _GATHERED if job.gathered else _DENSE
        rows.append([
            first, across, job.n_in, padded(job.n_out), padded(job.n_in), job.inputs_at, job.delta_at,
            job.weights_at, kind, 0, 0, 0,
        ])  # fmt: skip
        first += across * down
    for job in layers:
        across = -(-padded(job.n_out) // (4 * tile.threads))
        rows.append([
            first, across, 1, padded(job.n_out), 0, 0, job.sums_at, job.biases_at, _BIAS, job.sums_rows, 0, 0,
        ])  # fmt: skip
        first += across
    return np.array(rows, dtype=np.int32).reshape(-1), first


@cache
def _product(tile: Tile, dt: Any, source: Source) -> Any:
    """Return the multiply of a block; gathered rows and rows of the workspace have a loop each."""
    run = multiply(tile, dt, DENSE, DENSE, a_by_row=False, b_by_row=False).run
    if source == "dense":

        @device
        def product(kind, shared, acc, rows_of, inputs, lda, delta, ld, m0, n0, n_in, k, k_end):
            run(shared, acc, inputs, lda, delta, ld, m0, n0, n_in, ld, k, k_end)

        return product

    gather = multiply(tile, dt, source_loader(source, dt), DENSE, a_by_row=False, b_by_row=False).run

    @device
    def product_of_either(kind, shared, acc, rows_of, inputs, lda, delta, ld, m0, n0, n_in, k, k_end):
        if kind == _GATHERED:
            data, order, start, shift, scale, ldx = rows_of
            scaled = (data, order, start, shift, scale, ldg1(scale, i32(0)), ldx)
            gather(shared, acc, scaled, ldx, delta, ld, m0, n0, n_in, ld, k, k_end)
        else:
            run(shared, acc, inputs, lda, delta, ld, m0, n0, n_in, ld, k, k_end)

    return product_of_either


@device
def _find_job(jobs, n_jobs):
    """Return where the job of this block lies in the table."""
    job = i32(n_jobs - 1)
    while job > 0 and block_x() < ldg1(jobs, i32(JOB_SIZE * job)):
        job = i32(job - 1)
    return i32(JOB_SIZE * job)


@device
def _add_rows(workspace, at, rows, ld, column, g):
    """Add the rows of column sums of four columns to g, in order."""
    row = i32(0)
    while row < rows:
        v = ldg4(workspace, i32(at + row * ld + column))
        g[0] += v[0]
        g[1] += v[1]
        g[2] += v[2]
        g[3] += v[3]
        row = i32(row + 1)


@cache
def gradient_kernel(
    tile: Tile, dt: Any, mode: str, source: Source, penalised: bool = False, measured: bool = False
) -> Any:
    """Build the kernel; `mode` is ``"store"``, ``"accumulate"``, ``"slab"`` or the name of an optimizer.

    `source` says how jobs marked as gathered read the data set; it is ``"dense"`` if there are none. `penalised` and
    `measured` say whether the blocks leave sums in `penalties` and in `squares`.
    """
    if tile.shape in NO_OPTIMIZER and (mode in STATE_ARRAYS or penalised or measured):
        what = f"the optimizer {mode}" if mode in STATE_ARRAYS else "sums of penalties or squares"
        raise ValueError(f"got tile {tile.name} with {what}, expected a smaller tile: {NO_OPTIMIZER[tile.shape]}")
    dense = multiply(tile, dt, DENSE, DENSE, a_by_row=False, b_by_row=False)
    coordinates, shared_size, accumulators = dense.coordinates, dense.shared_size, dense.accumulators
    product = _product(tile, dt, source)
    slabs = mode == "slab"
    width, tile_rows, tile_columns, threads = min(4, tile.thread_columns), tile.rows, tile.columns, tile.threads
    finish_weights = finisher(dt, mode, width, penalised, measured)
    finish_biases = finisher(dt, mode, 4, penalised, measured)
    leave = leave_tally(dt, threads, penalised, measured)
    read, penalty, zero = scalars_of(dt, mode), penalty_of(dt, penalised), dt(0)

    @device
    def finish(acc, at, j, m, n, context):
        parameters, out, n_parameters, first, ld, c, l1, l2, tally = context
        finish_weights(parameters, out, n_parameters, i32(first + m * ld + n), acc, at, c, l1, l2, tally, True)

    walk = sweep(tile, finish)

    @kernel(threads, tile.resident)
    def multiply_accumulate(
        data, order, shift, scale, workspace, parameters, out, penalties, squares, jobs, schedule, slot, scalars,
        n_jobs, n_parameters, part_rows, ldx, slots, parameters_apart, workspace_apart
    ):  # fmt: skip
        shared = cuda.shared.array(shared_size, dt, alignment=16)
        acc = cuda.local.array(accumulators, dt)
        tally = cuda.local.array(TALLY, dt)
        for e in range(TALLY):
            tally[e] = zero
        slot = slot_of(slot, slots)
        start, rows, _, _ = ldg4(schedule, i32(4 * slot))
        if without_rows(rows, slots):
            return
        w_at, a_at = part_of(parameters_apart, slots), part_of(workspace_apart, slots)
        job = _find_job(jobs, n_jobs)
        first, across, n_in, ld = ldg4(jobs, job)
        lda, inputs_at, delta_at, parameters_at = ldg4(jobs, i32(job + 4))
        kind, sums_rows, _, _ = ldg4(jobs, i32(job + 8))
        block = i32(block_x() - first)
        inputs_at, delta_at = i32(inputs_at + a_at), i32(delta_at + a_at)
        parameters_at = i32(parameters_at + w_at)
        if slabs:
            parameters_at = i32(parameters_at + block_y() * n_parameters)
        c = read(scalars, slot, kind != _BIAS)
        l1, l2 = penalty(scalars, slot)
        if kind == _BIAS:
            column = i32(4 * (block * threads + thread()))
            if column < ld:
                g = cuda.local.array(4, dt)
                for e in range(4):
                    g[e] = zero
                _add_rows(workspace, delta_at, sums_rows if block_y() == 0 else i32(0), ld, column, g)
                at = i32(parameters_at + column)
                finish_biases(parameters, out, n_parameters, at, g, 0, c, l1, l2, tally, False)
        else:
            k = i32(block_y() * part_rows) if slabs else i32(0)
            k_end = min(rows, i32(k + part_rows)) if slabs else rows
            m0, n0 = i32(block // across * tile_rows), i32(block % across * tile_columns)
            rows_of = (data, order, start, shift, scale, ldx)
            inputs, delta = (workspace, inputs_at, lda), (workspace, delta_at, ld)
            product(kind, shared, acc, rows_of, inputs, lda, delta, ld, m0, n0, n_in, k, k_end)
            part, tx, ty = coordinates(thread())
            if part == 0:
                context = (parameters, out, n_parameters, parameters_at, ld, c, l1, l2, tally)
                walk(acc, tx, ty, m0, n0, n_in, ld, context)
        leave(shared, tally, i32(part_of(grid_x(), slots) + block_x()), penalties, squares)

    return multiply_accumulate
