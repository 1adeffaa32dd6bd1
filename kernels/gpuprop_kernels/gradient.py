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
        x n   +-----+-----+                  place (`update.finisher`)

    grid x:   | layer 1: tiles | layer 2: tiles | ... | layer 1: bias | ... |       `jobs` says which block does what
    grid z:   | rows 0 .. R-1 | rows R .. 2R-1 | ...        parts of the batch, each with a slab of gradients

A block finds its job in a table in device memory. The small layers thereby share a launch with the large ones, and
with the optimizer in the epilogue a whole update needs neither a gradient in memory nor a launch of its own: every
parameter has one writer, so nobody reads a weight that another block has changed. The first layer's rows are gathered
and scaled in the load as in `forward`.

Few parameters and a large batch give too few blocks to fill a GPU. Then grid z splits the batch; each part stores a
slab, and a second pass (`update.sum_slabs_kernel` or `update.update_kernel`) adds them in order. No atomics: the sum
has one order and repeats bit for bit.

Budget: 1 launch for all layers (2 with a split batch); reads a and d once per tile of the other; with adam in the
epilogue 24 bytes a parameter, else 4, in float32; registers and shared memory are the tile's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop_kernels.forward import Source, source_loader
from gpuprop_kernels.optimizers import STATE_ARRAYS
from gpuprop_kernels.staging import DENSE
from gpuprop_kernels.target import (
    block_x,
    block_z,
    cuda,
    device,
    i32,
    kernel,
    ldg1,
    ldg4,
    thread,
)  # fmt: skip
from gpuprop_kernels.tile import Tile, multiply, sweep
from gpuprop_kernels.update import finisher, scalars_of

__all__ = ["GradientJob", "gradient_kernel", "job_table"]

JOB_SIZE = 12
_DENSE, _GATHERED, _BIAS = 0, 1, 2


@dataclass(frozen=True)
class GradientJob:
    """Where one layer's operands and parameters lie; offsets count elements.

    `inputs_at`, `delta_at` and `sums_at` are offsets in the workspace, `weights_at` and `biases_at` in the flat
    parameters. `gathered` takes the inputs from the data set instead. `sums_rows` is the number of rows of column
    sums; leading dimensions are the sizes rounded up to multiples of 4.
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

    def padded(n: int) -> int:
        return -(-n // 4) * 4

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
    """Return the multiply of a block: of the gathered rows or of the workspace, each with a loop of its own."""
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
            gather(shared, acc, scaled, lda, delta, ld, m0, n0, n_in, ld, k, k_end)
        else:
            run(shared, acc, inputs, lda, delta, ld, m0, n0, n_in, ld, k, k_end)

    return product_of_either


@cache
def gradient_kernel(tile: Tile, dt: Any, mode: str, source: Source) -> Any:
    """Build the kernel; `mode` is ``"store"``, ``"accumulate"``, ``"slab"`` or the name of an optimizer.

    An optimizer in the epilogue takes tiles of at most 32 results a thread: beside 64 accumulators the registers do
    not hold the state of every optimizer (measured: adamw spills 32 bytes).

    `source` says how the jobs marked as gathered read the data set; ``"dense"`` if none is.
    """
    if mode in STATE_ARRAYS and tile.thread_rows * tile.thread_columns > 32:
        raise ValueError(f"got tile {tile.name} with an optimizer, expected at most 32 results a thread")
    dense = multiply(tile, dt, DENSE, DENSE, a_by_row=False, b_by_row=False)
    coordinates, shared_size, accumulators = dense.coordinates, dense.shared_size, dense.accumulators
    product = _product(tile, dt, source)
    slabs = mode == "slab"
    width, tile_rows, tile_columns, threads = (
        min(4, tile.thread_columns),
        tile.rows,
        tile.columns,
        tile.threads,
    )
    finish_weights, finish_biases = finisher(dt, mode, width), finisher(dt, mode, 4)
    read, zero = scalars_of(dt), dt(0)

    @device
    def finish(acc, at, j, m, n, context):
        parameters, out, n_parameters, first, ld, c, l1, l2 = context
        finish_weights(parameters, out, n_parameters, i32(first + m * ld + n), acc, at, c, l1, l2, True)

    walk = sweep(tile, finish)

    @device
    def find(jobs, n_jobs):
        job = i32(n_jobs - 1)
        while job > 0 and block_x() < ldg1(jobs, i32(JOB_SIZE * job)):
            job = i32(job - 1)
        return i32(JOB_SIZE * job)

    @device
    def sum_rows(workspace, at, rows, ld, column, g):
        for e in range(4):
            g[e] = zero
        row = i32(0)
        while row < rows:
            v = ldg4(workspace, i32(at + row * ld + column))
            g[0] += v[0]
            g[1] += v[1]
            g[2] += v[2]
            g[3] += v[3]
            row = i32(row + 1)

    @kernel(threads, tile.resident)
    def multiply_accumulate(
        data, order, shift, scale, workspace, parameters, out, jobs, schedule, slot, scalars, n_jobs, n_parameters,
        part_rows, l1, l2
    ):  # fmt: skip
        shared = cuda.shared.array(shared_size, dt, alignment=16)
        acc = cuda.local.array(accumulators, dt)
        start, rows, _, _ = ldg4(schedule, i32(4 * slot))
        job = find(jobs, n_jobs)
        first, across, n_in, ld = ldg4(jobs, job)
        lda, inputs_at, delta_at, parameters_at = ldg4(jobs, i32(job + 4))
        kind, sums_rows, _, _ = ldg4(jobs, i32(job + 8))
        block = i32(block_x() - first)
        if slabs:
            parameters_at = i32(parameters_at + block_z() * n_parameters)
        c = read(scalars, slot, kind != _BIAS)
        if kind == _BIAS:
            column = i32(4 * (block * threads + thread()))
            if column < ld:
                g = cuda.local.array(4, dt)
                sum_rows(workspace, delta_at, sums_rows if block_z() == 0 else i32(0), ld, column, g)
                at = i32(parameters_at + column)
                finish_biases(parameters, out, n_parameters, at, g, 0, c, l1, l2, False)
        else:
            k = i32(block_z() * part_rows)
            k_end = min(rows, i32(k + part_rows))
            m0, n0 = i32(block // across * tile_rows), i32(block % across * tile_columns)
            rows_of = (data, order, start, shift, scale, lda)
            inputs, delta = (workspace, inputs_at, lda), (workspace, delta_at, ld)
            product(kind, shared, acc, rows_of, inputs, lda, delta, ld, m0, n0, n_in, k, k_end)
            part, tx, ty = coordinates(thread())
            if part == 0:
                context = (parameters, out, n_parameters, parameters_at, ld, c, l1, l2)
                walk(acc, tx, ty, m0, n0, n_in, ld, context)

    return multiply_accumulate
