"""The launchers: they choose the grids and make the only ``kernel[grid, block]`` calls, one launch for each kernel.

::

    take_batch      load_batch                 (only for dropout on the input)
    forward         forward_layer              one for each hidden layer
    output          output_head  or  wide_output
    hidden deltas   hidden_delta               one for each hidden layer that the head has not done
    gradients       accumulate_gradients       with the optimizer in it, unless something comes between:
    update          sum_slabs,  update_parameters,  limit_incoming_norm

A launcher allocates nothing and waits for nothing. If an array argument of a kernel has no use, an array that the
kernel does not write stands in for it (the simulator copies each argument and copies it back). Every launcher for a
batch works on the batch that ``schedule[slot]`` describes; see `arguments.Batch`. One launch serves several networks as
it serves one (`networks`): grid z counts them, and arrays that they do not share are those of all, one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuprop_kernels.activations import Activation
from gpuprop_kernels.arguments import Batch, Dropout, Rows, check_indices, int32s, numba_type
from gpuprop_kernels.delta import hidden_delta_kernel
from gpuprop_kernels.forward import BATCH_BLOCK, forward_kernel, load_batch_kernel
from gpuprop_kernels.gradient import gradient_kernel
from gpuprop_kernels.head import HEAD, SMALL_HEAD, HeadShape, head_kernel
from gpuprop_kernels.max_norm import NORM_COLUMNS, NORM_ROWS, limit_norm_kernel
from gpuprop_kernels.networks import Networks
from gpuprop_kernels.rows import ROWS, loss_rows_kernel, softmax_rows_kernel
from gpuprop_kernels.shapes import Tile, blocks, choose_parts, choose_tile, padded, row_pitch
from gpuprop_kernels.target import SIM
from gpuprop_kernels.update import UPDATE_BLOCK, sum_slabs_kernel, update_kernel
from gpuprop_kernels.wide import wide_output_kernel

__all__ = [
    "Batch", "Dropout", "Networks", "Rows", "accumulate_gradients", "blocks", "choose_parts", "choose_tile",
    "forward_layer", "head_rows", "hidden_delta", "limit_incoming_norm", "load_batch", "loss_rows", "numba_type",
    "output_head", "padded", "row_blocks", "row_pitch", "softmax_rows", "sum_slabs", "update_blocks",
    "update_parameters", "wide_output",
]  # fmt: skip

Array = Any


def head_rows() -> HeadShape:
    """Return the shape of the head's blocks."""
    return SMALL_HEAD if SIM else HEAD


def row_blocks(n_rows: int) -> int:
    """Return how many blocks `loss_rows` takes for so many rows."""
    return blocks(n_rows, ROWS.rows)


def update_blocks(n: int) -> int:
    """Return how many blocks `sum_slabs` and `update_parameters` take for n parameters."""
    return blocks(n, 4 * UPDATE_BLOCK)


def load_batch(rows: Rows, out: Array, batch: Batch, *, n_features: int, dropout: Dropout | None = None) -> None:
    """Write the batch's scaled rows to `out` (max_rows, padded n_features), with the input's dropout."""
    check_indices(rows.data, out)
    ld = padded(n_features)
    run = load_batch_kernel(numba_type(out.dtype), rows.source, dropout is not None)
    mask, keep = (batch.schedule, rows.scale) if dropout is None else (dropout.mask, dropout.keep)
    networks = batch.networks
    run[(blocks(ld // 4, BATCH_BLOCK), batch.max_rows, networks.count), BATCH_BLOCK, batch.stream](
        rows.data, batch.order, rows.shift, rows.scale, out, mask, keep, batch.schedule,
        *int32s(batch.slot, n_features, rows.ld, ld), _slots(networks), *int32s(networks.workspace),
    )  # fmt: skip


def forward_layer(
    x: Array | Rows, weights: Array, biases: Array, out: Array, batch: Batch, *, activation: Activation, n_in: int,
    n_out: int, tile: Tile, z: Array | None = None, dropout: Dropout | None = None,
) -> None:  # fmt: skip
    """``out = f(x W + b)``, with dropout if given; the net input goes to `z` unless that is None."""
    rows = x if isinstance(x, Rows) else Rows(x, "dense", biases, biases, padded(n_in))
    check_indices(rows.data, weights, out)
    run = forward_kernel(tile, numba_type(out.dtype), activation, rows.source, z is not None, dropout is not None)
    mask, keep = (batch.schedule, biases) if dropout is None else (dropout.mask, dropout.keep)
    grid = (blocks(padded(n_out), tile.columns), blocks(batch.max_rows, tile.rows), batch.networks.count)
    run[grid, tile.threads, batch.stream](
        rows.data, batch.order, rows.shift, rows.scale, weights, biases, weights if z is None else z, out, mask, keep,
        batch.schedule, *int32s(batch.slot, n_in, n_out, rows.ld, padded(n_out)), *_apart(batch.networks),
    )  # fmt: skip


def output_head(
    x: Array, weights: Array, biases: Array, targets: Array, sample_weights: Array | None, delta: Array, sums: Array,
    losses: Array, source: Array, hidden_out: Array, hidden_sums: Array, scalars: Array, batch: Batch, *,
    output: Activation, loss: str, metric: str, hidden: Activation, n_in: int, n_out: int, targets_ld: int,
    shape: HeadShape, dropout: Dropout | None = None,
) -> None:  # fmt: skip
    """Compute the last layer, loss, hits, `delta`, and the last hidden layer's delta `hidden_out`; n_out is at most 16.

    `sums` and `hidden_sums` get one row of column sums per block of `shape.rows` rows, `losses` two numbers a block
    at slot * blocks. `source` is the last hidden layer's output or net input, whichever its derivative takes.
    """
    check_indices(x, weights, targets)
    run = head_kernel(
        shape, numba_type(delta.dtype), n_out, output, loss, metric, hidden, dropout is not None,
        sample_weights is not None,
    )  # fmt: skip
    mask, keep = (batch.schedule, biases) if dropout is None else (dropout.mask, dropout.keep)
    grid = (blocks(batch.max_rows, shape.rows), 1, batch.networks.count)
    run[grid, shape.threads, batch.stream](
        x, weights, biases, targets, targets if sample_weights is None else sample_weights, batch.order, delta, sums,
        losses, source, hidden_out, hidden_sums, mask, keep, batch.schedule,
        *int32s(batch.slot), scalars, *int32s(n_in, padded(n_in), targets_ld), *_apart(batch.networks),
    )  # fmt: skip


def wide_output(
    x: Array | Rows, weights: Array, biases: Array, z: Array, targets: Array, sample_weights: Array | None,
    delta: Array, sums: Array, losses: Array, counts: Array, scalars: Array, batch: Batch, *, output: Activation,
    loss: str, metric: str, n_in: int, n_out: int, targets_ld: int, tile: Tile,
) -> None:  # fmt: skip
    """Compute the last layer, loss, hits and `delta` for any n_out; all blocks write net inputs to `z`, not to `delta`.

    `sums` gets one row of column sums per tile of rows, `losses` two numbers at slot * tiles. `counts`, uint32, has
    one number per tile of rows, which is 0 before and after the launch.
    """
    rows = x if isinstance(x, Rows) else Rows(x, "dense", biases, biases, padded(n_in))
    check_indices(rows.data, weights, targets, z)
    run = wide_output_kernel(
        tile, numba_type(delta.dtype), rows.source, output, loss, metric, sample_weights is not None
    )  # fmt: skip
    grid = (blocks(padded(n_out), tile.columns), blocks(batch.max_rows, tile.rows), batch.networks.count)
    run[grid, tile.threads, batch.stream](
        rows.data, batch.order, rows.shift, rows.scale, weights, biases, z, targets,
        targets if sample_weights is None else sample_weights, delta, sums, losses, counts, batch.schedule,
        *int32s(batch.slot), scalars,
        *int32s(n_in, n_out, rows.ld, padded(n_out), targets_ld), *_apart(batch.networks),
    )  # fmt: skip


def loss_rows(
    z: Array, targets: Array, sample_weights: Array | None, delta: Array, losses: Array, scalars: Array, batch: Batch,
    *, output: Activation, loss: str, metric: str, n_out: int, targets_ld: int,
) -> None:  # fmt: skip
    """Compute loss, hits and `delta` of each row from its net input `z`, for any n_out; both may share memory.

    `losses` gets two numbers for each of `row_blocks` blocks, at slot * blocks.
    """
    check_indices(z, targets)
    run = loss_rows_kernel(ROWS, numba_type(z.dtype), output, loss, metric, sample_weights is not None)
    run[row_blocks(batch.max_rows), ROWS.threads, batch.stream](
        z, targets, targets if sample_weights is None else sample_weights, batch.order, delta, losses, batch.schedule,
        *int32s(batch.slot), scalars, *int32s(n_out, padded(n_out), targets_ld),
    )  # fmt: skip


def softmax_rows(z: Array, out: Array, *, n_rows: int, n_out: int, stream: Any = 0) -> None:
    """``out[i] = softmax(z[i])``; `out` may be `z`."""
    run = softmax_rows_kernel(ROWS, numba_type(z.dtype))
    run[row_blocks(n_rows), ROWS.threads, stream](z, out, *int32s(n_rows, n_out, padded(n_out)))


def hidden_delta(
    delta_next: Array, weights_next: Array, source: Array, out: Array, sums: Array, batch: Batch, *,
    activation: Activation, n_units: int, n_next: int, tile: Tile, dropout: Dropout | None = None,
) -> None:  # fmt: skip
    """``out = (delta_next W_next^T) * f'(source)``; `sums` gets one row of column sums per tile of rows."""
    check_indices(delta_next, weights_next, out)
    run = hidden_delta_kernel(tile, numba_type(out.dtype), activation, dropout is not None)
    mask, keep = (batch.schedule, weights_next) if dropout is None else (dropout.mask, dropout.keep)
    grid = (blocks(padded(n_units), tile.columns), blocks(batch.max_rows, tile.rows), batch.networks.count)
    run[grid, tile.threads, batch.stream](
        delta_next, weights_next, source, out, sums, mask, keep, batch.schedule,
        *int32s(batch.slot, n_units, n_next, padded(n_units), padded(n_next)), *_apart(batch.networks),
    )  # fmt: skip


def accumulate_gradients(
    rows: Rows | None, workspace: Array, parameters: Array, out: Array, jobs: Array, scalars: Array, batch: Batch, *,
    mode: str, tile: Tile, n_jobs: int, n_blocks: int, parts: int = 1, penalties: Array | None = None,
    squares: Array | None = None,
) -> None:  # fmt: skip
    """Compute all gradients of `jobs` (see `gradient.job_table`) in one launch.

    With `mode` ``"store"`` or ``"accumulate"`` the launch writes the gradients, penalty included, to the flat `out`.
    With ``"slab"`` it writes the gradients, without penalty, of `parts` parts of the batch, one after the other; only
    this mode takes several parts. With the name of an optimizer it updates `parameters` at once, and `out` is the
    optimizer's state. With `penalties` the slot of `scalars` holds l1 and l2, and the launch writes two numbers for
    each of the `n_blocks` blocks to `penalties`: sum W^2 and sum |W| of the block's weights before the update.
    `squares` gets one number a block: the sum of the squares of what the block has written to `out`.
    """
    if parts != 1 and mode != "slab":
        raise ValueError(f"got {parts} parts with mode {mode!r}, expected 1; split a batch with mode 'slab'")
    check_indices(workspace, parameters, out)
    dtype = parameters.dtype
    source = rows if rows is not None else Rows(workspace, "dense", workspace, workspace, 0)
    run = gradient_kernel(tile, numba_type(dtype), mode, source.source, penalties is not None, squares is not None)
    run[(n_blocks, parts, batch.networks.count), tile.threads, batch.stream](
        source.data, batch.order, source.shift, source.scale, workspace, parameters, out,
        scalars if penalties is None else penalties, scalars if squares is None else squares, jobs, batch.schedule,
        *int32s(batch.slot), scalars,
        *int32s(n_jobs, parameters.size, blocks(batch.max_rows, parts), source.ld), *_apart(batch.networks),
    )  # fmt: skip


def _apart(networks: Networks) -> tuple[Any, ...]:
    """Return how far apart the networks' slots, parameters and workspaces lie, as kernels take it."""
    return _slots(networks), *int32s(networks.parameters, networks.workspace)


def _slots(networks: Networks) -> Any:
    """Return how far apart the networks' slots lie, or an int8 for a lone network: its kernels have no offsets."""
    return np.int8(0) if networks.slots is None else np.int32(networks.slots)


def sum_slabs(
    parameters: Array, gradients: Array, slabs: Array, scalars: Array, batch: Batch, *, n_weights: int, parts: int,
    accumulate: bool, penalties: Array | None = None, squares: Array | None = None,
) -> None:  # fmt: skip
    """``gradients (+)= slabs[0] + slabs[1] + ...`` in order; `penalties` and `squares` as in `accumulate_gradients`."""
    run = sum_slabs_kernel(numba_type(parameters.dtype), accumulate, penalties is not None, squares is not None)
    n_all, networks = parameters.size, batch.networks
    n = n_all // networks.count
    run[(update_blocks(n), 1, networks.count), UPDATE_BLOCK, batch.stream](
        parameters, gradients, slabs, slabs if squares is None else squares, slabs if penalties is None else penalties,
        scalars, batch.schedule, *int32s(batch.slot), _slots(networks), *int32s(n_all, n, n_weights, parts),
    )  # fmt: skip


def update_parameters(
    parameters: Array, state: Array, gradients: Array, scalars: Array, batch: Batch, *, optimizer: str, n_weights: int,
    parts: int = 1, squares: Array | None = None, n_squares: int = 0, clip_norm: float | None = None,
    penalties: Array | None = None,
) -> None:  # fmt: skip
    """Take one step of the optimizer on the flat buffer; `gradients` may be the slabs of `parts` parts.

    With `clip_norm`, `squares` holds the `n_squares` sums of squared gradients that the previous launch left; those
    gradients include the penalty. A network makes its update if it has rows in the slot of `batch`.
    """
    dtype, n_all, networks = parameters.dtype, parameters.size, batch.networks
    n = n_all // networks.count
    run = update_kernel(numba_type(dtype), optimizer, clip_norm is not None, penalties is not None)
    limit = dtype.type(0.0 if clip_norm is None else clip_norm)
    run[(update_blocks(n), 1, networks.count), UPDATE_BLOCK, batch.stream](
        parameters, state, gradients, gradients if squares is None else squares,
        scalars if penalties is None else penalties, scalars, batch.schedule,
        *int32s(batch.slot), _slots(networks), *int32s(n_all, n, n_weights, parts, n_squares), limit,
    )  # fmt: skip


def limit_incoming_norm(
    parameters: Array, offset: int, max_norm: float, batch: Batch, *, n_in: int, n_out: int
) -> None:
    """Scale the columns of the weights at `offset` down to the norm `max_norm` where they are longer."""
    run, networks = limit_norm_kernel(numba_type(parameters.dtype)), batch.networks
    ld = padded(n_out)
    run[(blocks(ld, NORM_COLUMNS), 1, networks.count), NORM_COLUMNS * NORM_ROWS, batch.stream](
        parameters, batch.schedule, *int32s(batch.slot), _slots(networks), *int32s(offset, n_in, ld),
        parameters.dtype.type(max_norm), *int32s(networks.parameters),
    )  # fmt: skip
