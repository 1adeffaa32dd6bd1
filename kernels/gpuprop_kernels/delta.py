"""The fused activation-derivative-delta of a hidden layer in one launch: d = (d_next W_next^T) * f'.

::

    error[i, j] = sum_k d_next[i, k] W_next[j, k]        d_next (n, n_next), W_next (n_units, n_next)
    d[i, j]     = error[i, j] * f'(a[i, j])              or f'(z[i, j]) where f' needs the net input
    sums[y, j]  = sum of d[i, j] over the rows i of block row y;   their sum over y is the bias gradient

            W_next^T  n_next x n_units
          +-----+-----+--
          |     |     |            both operands are stored along k = n_next, the inner index, and are transposed
          +-----+-----+--          into shared memory (`tile`); W_next is read as the forward pass left it:
    d_   +-----+-----+--           all deltas are formed before any weight changes
    next |block|block|
       n +-----+-----+--           epilogue in registers: read a (or z), multiply by f', store, add up columns
          sums  sums

With dropout the stored output of a kept unit is f(z) / keep, so f' is taken at output * keep, the activation before
scaling. The error passes through the same mask and factor as the output; the kernel draws the mask again from its
counter.

The column sums of a block are added in shared memory in the order of the threads' rows and stored as one row of
`sums` per block row, without atomics. So the bias gradient needs no pass of its own over d, and repeats bit for bit.
Padding is written as zero whatever f'(0) is (1 for tanh and identity).

Budget: 1 launch; reads d_next and W_next once per tile of the other, 4 bytes a unit for a (or z), writes 4 bytes a
unit and 4 per column and block row; registers and shared memory are the tile's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.activations import Activation, device_pair
from gpuprop_kernels.dropout import bit_is_set, constants_of, tile_bits
from gpuprop_kernels.networks import part_of, slot_of, without_rows
from gpuprop_kernels.staging import DENSE
from gpuprop_kernels.target import (
    block_x,
    block_y,
    cuda,
    device,
    i32,
    kernel,
    ld1,
    ldg1,
    ldg4,
    st1,
    sync,
    thread,
    u64,
    vector,
)  # fmt: skip
from gpuprop_kernels.tile import Tile, multiply, sweep

__all__ = ["hidden_delta_kernel", "unit_delta"]


@cache
def unit_delta(dt: Any, activation: Activation, dropout: bool) -> Any:
    """Return ``delta(error, source, kept, keep, keep_at)`` for one unit: error * f'(source), with dropout applied.

    `source` is the stored output or the net input, whichever the activation's derivative takes.
    """
    derivative = device_pair(activation, dt).derivative
    rescale = activation.derivative_of == "output"
    zero = dt(0)

    @device
    def delta(error, source, kept, keep, keep_at):
        if dropout:
            inner = source * ldg1(keep, keep_at) if rescale else source
            return error * ldg1(keep, i32(keep_at + 1)) * derivative(inner) if kept else zero
        return error * derivative(source)

    return delta


@cache
def hidden_delta_kernel(tile: Tile, dt: Any, activation: Activation, dropout: bool) -> Any:
    """Build the kernel; see the module for what it computes."""
    product = multiply(tile, dt, DENSE, DENSE, a_by_row=True, b_by_row=True)
    run, coordinates = product.run, product.coordinates
    shared_size, accumulators = product.shared_size, product.accumulators
    delta, draw = unit_delta(dt, activation, dropout), tile_bits(tile)
    size_n, width = tile.thread_columns, min(4, tile.thread_columns)
    groups, down = size_n // width, tile.rows // tile.thread_rows
    gap = width * (tile.columns // size_n)
    tile_rows, tile_columns, threads, zero = tile.rows, tile.columns, tile.threads, dt(0)
    (load, store) = vector(width)

    @device
    def finish(acc, at, j, m, n, context):
        source, out, sums, bits, keep, keep_at, n_units, ld, a_at = context
        o = i32(a_at + m * ld + n)
        values = cuda.local.array(width, dt)
        load(source, o, values, 0)
        for e in range(width):
            column = i32(n + e)
            d = delta(acc[at + e], values[e], bit_is_set(bits, at + e), keep, keep_at)
            d = d if column < n_units else zero
            acc[at + e] = d
            sums[j + e] += d
        store(out, o, acc, at)

    walk = sweep(tile, finish)

    @kernel(threads, tile.resident)
    def multiply_differentiate(
        delta_next,
        weights_next,
        source,
        out,
        partial_sums,
        mask,
        keep,
        schedule,
        slot,
        n_units,
        n_next,
        ld,
        ld_next,
        slots,
        parameters_apart,
        workspace_apart,
    ):
        shared = cuda.shared.array(shared_size, dt, alignment=16)
        acc = cuda.local.array(accumulators, dt)
        sums = cuda.local.array(size_n, dt)
        _, rows, step, before = ldg4(schedule, i32(4 * slot_of(slot, slots)))
        if without_rows(rows, slots):
            return
        w_at, a_at = part_of(parameters_apart, slots), part_of(workspace_apart, slots)
        m0, n0 = i32(block_y() * tile_rows), i32(block_x() * tile_columns)
        a, b = (delta_next, a_at, ld_next), (weights_next, w_at, ld_next)
        run(shared, acc, a, ld_next, b, ld_next, m0, n0, rows, n_units, i32(0), n_next)
        t = thread()
        part, tx, ty = coordinates(t)
        if part == 0:
            for j in range(size_n):
                sums[j] = zero
            drop_at = constants_of(slots)
            bits = draw(mask, drop_at, tx, ty, i32(m0 + before), n0, step) if dropout else u64(0)
            walk(acc, tx, ty, m0, n0, rows, ld, (source, out, sums, bits, keep, drop_at, n_units, ld, a_at))
            for g in range(groups):
                store(shared, i32(ty * tile_columns + tx * width + g * gap), sums, width * g)
        sync()
        column = t
        while column < tile_columns:
            if i32(n0 + column) < ld:
                total = zero
                for y in range(down):
                    total += ld1(shared, i32(y * tile_columns + column))
                st1(partial_sums, i32(a_at + block_y() * ld + n0 + column), total)
            column = i32(column + threads)

    return multiply_differentiate
