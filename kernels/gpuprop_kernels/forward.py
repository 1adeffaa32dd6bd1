"""The forward pass of one layer in one launch: a = f(x W + b).

::

    out[i, j] = f( sum_k x[i, k] W[k, j] + b[j] )        x (n, fan_in), W (fan_in, fan_out), b (fan_out,)

            W  fan_in x fan_out
          +-----+-----+--          grid: x over columns, y over rows of the batch, one tile a block,
          |     |     |                  z over networks (`networks`)
          +-----+-----+--          x is transposed into shared memory, W goes in as it is (`tile`)
    x     +-----+-----+--
    n  |  |block|block|            epilogue in registers: + bias, f, dropout, zero in the padding, one store
          +-----+-----+--

The first layer reads its rows straight from the data set: row ``order[start + i]``, uint8 or float, is converted and
scaled while it is loaded, and no batch is ever copied. A layer whose f' needs the net input keeps z beside the output.
With dropout a unit's output is 0 or f(z) / keep.

The rows of the batch, its start and the update's number come from ``schedule[slot]`` in device memory, so that a
captured graph serves every epoch, the smaller last batch included. Leading dimensions are multiples of 8. The padding
of `out` is written as exact zeros whatever f(0) is, because the next multiply reads it.

Budget: 1 launch; reads x and W once per tile of the other, writes 4 bytes a unit (8 where z is kept) in float32;
registers and shared memory are the tile's (`tile`). Why one launch: if bias, activation and dropout had launches of
their own, each would read and write the layer once more, and a small layer's launch costs as much as its multiply.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.activations import Activation, device_pair
from gpuprop_kernels.dropout import bit_is_set, constants_of, tile_bits, unit_is_kept
from gpuprop_kernels.networks import part_of, slot_of, without_rows
from gpuprop_kernels.staging import DENSE, row_loader
from gpuprop_kernels.target import (
    block_x,
    block_y,
    cuda,
    device,
    i32,
    kernel,
    ldg1,
    ldg4,
    thread,
    u64,
    vector,
)
from gpuprop_kernels.tile import Tile, multiply, sweep

__all__ = ["BATCH_BLOCK", "Source", "forward_kernel", "forward_tile", "load_batch_kernel", "source_loader"]

Source = str
"""Where the rows come from: ``"dense"`` a matrix of the compute dtype in the batch's own order, or rows of the data
set by the permutation: ``"bytes"``, ``"floats"`` (x * scale[0]), ``"bytes_by_column"``, ``"floats_by_column"``."""


def source_loader(source: Source, dt: Any) -> Any:
    """Return the loader of an operand that comes from `source`."""
    if source == "dense":
        return DENSE
    return row_loader(dt, source.startswith("bytes"), source.endswith("by_column"))


@cache
def forward_tile(
    tile: Tile, dt: Any, activation: Activation, source: Source, keep_z: bool, dropout: bool
) -> tuple[int, Any]:
    """Return the size of shared memory, and ``forward(shared, x, ..., batch, ...)``, a block's tile from x to `out`.

    `batch` is the batch's entry in the schedule: start in the order, rows, update, rows of the update before it.
    """
    gathered = source != "dense"
    product = multiply(tile, dt, source_loader(source, dt), DENSE, a_by_row=True, b_by_row=False)
    run, coordinates = product.run, product.coordinates
    shared_size, accumulators = product.shared_size, product.accumulators
    function = device_pair(activation, dt).function
    draw = tile_bits(tile)
    width, tile_rows, tile_columns, zero = min(4, tile.thread_columns), tile.rows, tile.columns, dt(0)
    store = vector(width)[1]

    @device
    def finish(acc, at, j, m, n, context):
        biases, z, out, bits, keep, keep_at, n_out, ld, w_at, a_at = context
        o = i32(a_at + m * ld + n)
        for e in range(width):
            column = i32(n + e)
            value = acc[at + e] + ldg1(biases, i32(w_at + column))
            acc[at + e] = value if column < n_out else zero
        if keep_z:
            store(z, o, acc, at)
        for e in range(width):
            column = i32(n + e)
            value = function(acc[at + e])
            if dropout:
                value = value * ldg1(keep, i32(keep_at + 1)) if bit_is_set(bits, at + e) else zero
            acc[at + e] = value if column < n_out else zero
        store(out, o, acc, at)

    walk = sweep(tile, finish)

    @device
    def forward(
        shared, x, order, shift, scale, weights, biases, z, out, mask, keep, batch, n_in, n_out, ldx, ldw, slots,
        parameters_apart, workspace_apart
    ):  # fmt: skip
        acc = cuda.local.array(accumulators, dt)
        start, rows, step, before = batch
        w_at, a_at = part_of(parameters_apart, slots), part_of(workspace_apart, slots)
        m0, n0 = i32(block_y() * tile_rows), i32(block_x() * tile_columns)
        if gathered:  # noqa: SIM108  (two types: only the branch that is known when compiling may remain)
            a = (x, order, start, shift, scale, ldg1(scale, i32(0)), ldx)
        else:
            a = (x, a_at, ldx)  # type: ignore[assignment]
        run(shared, acc, a, ldx, (weights, w_at, ldw), ldw, m0, n0, rows, n_out, i32(0), n_in)
        part, tx, ty = coordinates(thread())
        if part == 0:
            drop_at = constants_of(slots)
            bits = draw(mask, drop_at, tx, ty, i32(m0 + before), n0, step) if dropout else u64(0)
            walk(acc, tx, ty, m0, n0, rows, ldw, (biases, z, out, bits, keep, drop_at, n_out, ldw, w_at, a_at))

    return shared_size, forward


@cache
def forward_kernel(tile: Tile, dt: Any, activation: Activation, source: Source, keep_z: bool, dropout: bool) -> Any:
    """Build the kernel; see the module for what it computes."""
    shared_size, forward = forward_tile(tile, dt, activation, source, keep_z, dropout)

    @kernel(tile.threads, tile.resident)
    def multiply_bias_activate(
        x, order, shift, scale, weights, biases, z, out, mask, keep, schedule, slot, n_in, n_out, ldx, ldw, slots,
        parameters_apart, workspace_apart
    ):  # fmt: skip
        shared = cuda.shared.array(shared_size, dt, alignment=16)
        batch = ldg4(schedule, i32(4 * slot_of(slot, slots)))
        if without_rows(batch[1], slots):
            return
        forward(
            shared, x, order, shift, scale, weights, biases, z, out, mask, keep, batch, n_in, n_out, ldx, ldw, slots,
            parameters_apart, workspace_apart,
        )  # fmt: skip

    return multiply_bias_activate


BATCH_BLOCK = 32
"""The threads of a block of the next kernel."""


@cache
def load_batch_kernel(dt: Any, source: Source, dropout: bool) -> Any:
    """Build the kernel that writes a batch to memory: out[i] = scaled row order[start + i], with the input's dropout.

    It serves only dropout on the input, where forward and gradient would otherwise draw the input's mask once per tile.
    There is one thread for four columns, and one block row for each row of the batch.
    """
    loader = source_loader(source, dt)
    locate, load = loader.locate, loader.load
    kept = unit_is_kept(dropout)
    store = vector(4)[1]
    zero = dt(0)

    @kernel(BATCH_BLOCK)
    def load_scale_drop(
        x, order, shift, scale, out, mask, keep, schedule, slot, n_in, ldx, ld_out, slots, workspace_apart
    ):
        values = cuda.local.array(4, dt)
        drop_at = constants_of(slots)
        start, rows, step, before = ldg4(schedule, i32(4 * slot_of(slot, slots)))
        row, column = block_y(), i32(4 * (block_x() * BATCH_BLOCK + thread()))
        if row < rows and column < ld_out:
            rows_of = (x, order, start, shift, scale, ldg1(scale, i32(0)), ldx)
            v = load(rows_of, locate(rows_of, row), min(column, i32(ldx - 4)))
            values[0] = v[0]
            values[1] = v[1]
            values[2] = v[2]
            values[3] = v[3]
            for e in range(4):
                if dropout:
                    is_kept = kept(mask, drop_at, i32(row + before), i32(column + e), step)
                    values[e] = values[e] * ldg1(keep, i32(drop_at + 1)) if is_kept else zero
                if i32(column + e) >= n_in:
                    values[e] = zero
            store(out, i32(part_of(workspace_apart, slots) + row * ld_out + column), values, 0)

    return load_scale_drop
