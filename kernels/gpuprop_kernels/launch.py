"""Starting the kernels: the choice of tile, the grids, and the only ``kernel[grid, block]`` calls.

A launcher takes flat, C-contiguous, 16-byte aligned device arrays of one dtype (NumPy arrays in the simulator) and
sizes as Python integers. It allocates nothing and waits for nothing. Where a kernel's argument has no use, some array
that the kernel does not write stands in (the simulator copies each argument and copies it back). Leading dimensions
are the sizes rounded up to multiples of 4 (`padded`), and padding holds exact zeros, which the kernels keep.

Every launcher that looks at a batch works on the one that ``schedule[slot]`` describes, four int32: its start in the
order, its rows, the number of its update (from 0), and the rows of that update before it (0, unless the gradients of
several batches add up to one update). Grids cover `Batch.max_rows`, so that one captured graph serves every epoch and
the ragged last batch too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from gpuprop_kernels import tile as tiles
from gpuprop_kernels.activations import Activation
from gpuprop_kernels.delta import hidden_delta_kernel
from gpuprop_kernels.forward import BATCH_BLOCK, Source, forward_kernel, load_batch_kernel
from gpuprop_kernels.gradient import gradient_kernel
from gpuprop_kernels.head import HEAD, SMALL_HEAD, HeadShape, head_kernel
from gpuprop_kernels.rows import ROW_BLOCK, loss_rows_kernel, softmax_rows_kernel
from gpuprop_kernels.target import SIM
from gpuprop_kernels.tile import SMALL, Tile
from gpuprop_kernels.update import (
    NORM_ROWS,
    REDUCTION_BLOCKS,
    UPDATE_BLOCK,
    limit_norm_kernel,
    sum_slabs_kernel,
    sum_squares_kernel,
    update_kernel,
)  # fmt: skip

__all__ = [
    "Batch", "Dropout", "Rows", "accumulate_gradients", "choose_tile", "forward_layer", "head_rows", "hidden_delta",
    "limit_incoming_norm", "load_batch", "loss_rows", "numba_type", "output_head", "padded", "reduction_blocks",
    "softmax_rows", "sum_slabs", "sum_squares", "update_parameters",
]  # fmt: skip

Array = Any

INDEX_LIMIT = 2**31
"""Elements of one array that an int32 index can address."""


@dataclass(frozen=True)
class Batch:
    """Which batch a launch works on.

    Attributes
    ----------
    schedule : int32 array of shape (4 * n_slots,)
        Start in the order, rows, number of the update, rows of the update before this batch; for each slot.
    slot : int
    max_rows : int
        Rows that the grid covers.
    order : int32 array
        The permutation of the data set's rows.
    stream : stream
        0 is the default one.
    """

    schedule: Array
    slot: int
    max_rows: int
    order: Array
    stream: Any = 0


@dataclass(frozen=True)
class Rows:
    """A data set as the first layer reads it: ``(x - shift) * scale`` by column, or ``x * scale[0]``.

    Attributes
    ----------
    data : uint8 or compute dtype array of shape (n_samples * leading dimension,)
    source : str
        "bytes", "floats", "bytes_by_column" or "floats_by_column".
    shift, scale : arrays of the leading dimension (zero in the padding), or of 4 elements
    """

    data: Array
    source: Source
    shift: Array
    scale: Array


@dataclass(frozen=True)
class Dropout:
    """The constants of one layer's dropout, see `dropout.mask_constants`."""

    mask: Array
    keep: Array


def padded(n: int) -> int:
    """Return the leading dimension of a matrix with n columns: the next multiple of 4."""
    return -(-n // 4) * 4


def blocks(n: int, size: int) -> int:
    """Return how many tiles of `size` cover n."""
    return -(-n // size)


def numba_type(dtype: Any) -> Any:
    """Return the Numba type of a compute dtype."""
    types = {np.dtype(np.float32): numba.float32, np.dtype(np.float64): numba.float64}
    if np.dtype(dtype) not in types:
        raise ValueError(f"got dtype {np.dtype(dtype)}, expected float32 or float64")
    return types[np.dtype(dtype)]


def int32s(*values: int) -> tuple[np.int32, ...]:
    """Return sizes as int32: a Python integer would compile a kernel with 64-bit indices."""
    return tuple(np.int32(v) for v in values)


def check_indices(*arrays: Array) -> None:
    """Refuse arrays that an int32 index cannot address."""
    for array in arrays:
        if array.size >= INDEX_LIMIT:
            raise ValueError(
                f"got an array of {array.size} elements, expected fewer than 2**31; use a smaller batch or chunk"
            )


def choose_tile(rows: int, columns: int, dtype: Any, multiprocessors: int, capability: tuple[int, int]) -> Tile:
    """Return the tile for a product of this size: the largest that still gives every multiprocessor a block.

    128x128 where it fills 4/5 of the multiprocessors (float32 only: float64 would not fit the registers), else 64x64,
    with 8x4 a thread where the shared memory allows the occupancy (sm_86 and later), else 32x32 with sliced k.
    """
    if SIM:
        return SMALL
    single = np.dtype(dtype).itemsize == 4
    names = ["128x128_8x8"] if single else []
    names.append("64x64_8x4" if single and capability >= (8, 6) else "64x64_4x4")
    for name in names:
        tile = tiles.TILES[name]
        if blocks(rows, tile.rows) * blocks(columns, tile.columns) >= 0.8 * multiprocessors:
            return tile
    return tiles.TILES["32x32_4x4"]


def head_rows() -> HeadShape:
    """Return the shape of the head's blocks."""
    return SMALL_HEAD if SIM else HEAD


def reduction_blocks(n: int) -> int:
    """Return how many partial sums `sum_squares` leaves of n elements."""
    return min(REDUCTION_BLOCKS, blocks(n, 4 * UPDATE_BLOCK))


def load_batch(rows: Rows, out: Array, batch: Batch, *, n_features: int, dropout: Dropout | None = None) -> None:
    """Write the batch's scaled rows to `out` (max_rows, padded n_features), through the input's dropout."""
    check_indices(rows.data, out)
    ld = padded(n_features)
    run = load_batch_kernel(numba_type(out.dtype), rows.source, dropout is not None)
    mask, keep = (batch.schedule, rows.scale) if dropout is None else (dropout.mask, dropout.keep)
    run[(blocks(ld // 4, BATCH_BLOCK), batch.max_rows), BATCH_BLOCK, batch.stream](
        rows.data, batch.order, rows.shift, rows.scale, out, mask, keep, batch.schedule,
        *int32s(batch.slot, n_features, ld),
    )  # fmt: skip


def forward_layer(
    x: Array | Rows, weights: Array, biases: Array, out: Array, batch: Batch, *, activation: Activation, n_in: int,
    n_out: int, tile: Tile, z: Array | None = None, dropout: Dropout | None = None,
) -> None:  # fmt: skip
    """``out = f(x W + b)``, through dropout where given; the net input goes to `z` unless that is None."""
    rows = x if isinstance(x, Rows) else Rows(x, "dense", biases, biases)
    check_indices(rows.data, weights, out)
    run = forward_kernel(tile, numba_type(out.dtype), activation, rows.source, z is not None, dropout is not None)
    mask, keep = (batch.schedule, biases) if dropout is None else (dropout.mask, dropout.keep)
    grid = (blocks(padded(n_out), tile.columns), blocks(batch.max_rows, tile.rows))
    run[grid, tile.threads, batch.stream](
        rows.data, batch.order, rows.shift, rows.scale, weights, biases, weights if z is None else z, out, mask, keep,
        batch.schedule, *int32s(batch.slot, n_in, n_out, padded(n_in), padded(n_out)),
    )  # fmt: skip


def output_head(
    x: Array, weights: Array, biases: Array, targets: Array, sample_weights: Array | None, delta: Array, sums: Array,
    losses: Array, source: Array, hidden_out: Array, hidden_sums: Array, scalars: Array, batch: Batch, *,
    output: Activation, loss: str, metric: str, hidden: Activation, n_in: int, n_out: int, targets_ld: int,
    shape: HeadShape, dropout: Dropout | None = None,
) -> None:  # fmt: skip
    """Last layer, loss, hits, `delta`, and the last hidden layer's delta in `hidden_out`; n_out of at most 16.

    `sums` and `hidden_sums` get one row of column sums per block of `shape.rows` rows, `losses` two numbers a block
    at slot * blocks. `source` is the last hidden layer's output or net input, whichever its derivative takes.
    """
    check_indices(x, weights, targets)
    run = head_kernel(
        shape, numba_type(delta.dtype), n_out, output, loss, metric, hidden, dropout is not None,
        sample_weights is not None,
    )  # fmt: skip
    mask, keep = (batch.schedule, biases) if dropout is None else (dropout.mask, dropout.keep)
    run[blocks(batch.max_rows, shape.rows), shape.threads, batch.stream](
        x, weights, biases, targets, targets if sample_weights is None else sample_weights, batch.order, delta, sums,
        losses, source, hidden_out, hidden_sums, mask, keep, batch.schedule,
        *int32s(batch.slot), scalars, *int32s(n_in, padded(n_in), targets_ld),
    )  # fmt: skip


def loss_rows(
    z: Array, targets: Array, sample_weights: Array | None, delta: Array, losses: Array, scalars: Array, batch: Batch,
    *, output: Activation, loss: str, metric: str, n_out: int, targets_ld: int, threads: int = 16 if SIM else ROW_BLOCK,
) -> None:  # fmt: skip
    """Loss, hits and `delta` of each row from its net input `z`, which may be the same memory; any n_out.

    `losses` gets two numbers a row of the grid, at slot * max_rows; rows of `delta` past the batch's end become zero.
    """
    check_indices(z, targets)
    run = loss_rows_kernel(numba_type(z.dtype), output, loss, metric, sample_weights is not None, threads)
    run[batch.max_rows, threads, batch.stream](
        z, targets, targets if sample_weights is None else sample_weights, batch.order, delta, losses, batch.schedule,
        *int32s(batch.slot), scalars, *int32s(n_out, padded(n_out), targets_ld),
    )  # fmt: skip


def softmax_rows(
    z: Array, out: Array, *, n_rows: int, n_out: int, stream: Any = 0, threads: int = 16 if SIM else ROW_BLOCK
) -> None:
    """``out[i] = softmax(z[i])``; `out` may be `z`."""
    run = softmax_rows_kernel(numba_type(z.dtype), threads)
    run[n_rows, threads, stream](z, out, *int32s(n_out, padded(n_out)))


def hidden_delta(
    delta_next: Array, weights_next: Array, source: Array, out: Array, sums: Array, batch: Batch, *,
    activation: Activation, n_units: int, n_next: int, tile: Tile, dropout: Dropout | None = None,
) -> None:  # fmt: skip
    """``out = (delta_next W_next^T) * f'(source)``; `sums` gets one row of column sums per tile of rows."""
    check_indices(delta_next, weights_next, out)
    run = hidden_delta_kernel(tile, numba_type(out.dtype), activation, dropout is not None)
    mask, keep = (batch.schedule, weights_next) if dropout is None else (dropout.mask, dropout.keep)
    grid = (blocks(padded(n_units), tile.columns), blocks(batch.max_rows, tile.rows))
    run[grid, tile.threads, batch.stream](
        delta_next, weights_next, source, out, sums, mask, keep, batch.schedule,
        *int32s(batch.slot, n_units, n_next, padded(n_units), padded(n_next)),
    )  # fmt: skip


def accumulate_gradients(
    rows: Rows | None, workspace: Array, parameters: Array, out: Array, jobs: Array, scalars: Array, batch: Batch, *,
    mode: str, tile: Tile, n_jobs: int, n_blocks: int, l1: float = 0.0, l2: float = 0.0, parts: int = 1,
) -> None:  # fmt: skip
    """All gradients of `jobs` (see `gradient.job_table`) in one launch.

    `mode` ``"store"`` or ``"accumulate"`` writes the gradients, penalties included, to the flat `out`; ``"slab"``
    the bare gradients of `parts` parts of the batch, one after the other; the name of an optimizer updates
    `parameters` at once, `out` being its state. Only ``"slab"`` takes several parts.
    """
    if parts != 1 and mode != "slab":
        raise ValueError(f"got {parts} parts with mode {mode!r}, expected 1; split a batch with mode 'slab'")
    check_indices(workspace, parameters, out)
    dtype = parameters.dtype
    source = rows if rows is not None else Rows(workspace, "dense", workspace, workspace)
    run = gradient_kernel(tile, numba_type(dtype), mode, source.source)
    part_rows = blocks(batch.max_rows, parts)
    run[(n_blocks, 1, parts), tile.threads, batch.stream](
        source.data, batch.order, source.shift, source.scale, workspace, parameters, out, jobs, batch.schedule,
        *int32s(batch.slot), scalars, *int32s(n_jobs, parameters.size, part_rows), dtype.type(l1), dtype.type(l2),
    )  # fmt: skip


def sum_slabs(
    parameters: Array, gradients: Array, slabs: Array, *, n_weights: int, parts: int, accumulate: bool,
    l1: float = 0.0, l2: float = 0.0, stream: Any = 0,
) -> None:  # fmt: skip
    """``gradients (+)= slabs[0] + slabs[1] + ...`` in this order, penalties included."""
    dtype, n = parameters.dtype, parameters.size
    run = sum_slabs_kernel(numba_type(dtype), accumulate)
    run[blocks(n, 4 * UPDATE_BLOCK), UPDATE_BLOCK, stream](
        parameters, gradients, slabs, *int32s(n, n_weights, parts), dtype.type(l1), dtype.type(l2)
    )


def update_parameters(
    parameters: Array, state: Array, gradients: Array, scalars: Array, slot: int, *, optimizer: str, n_weights: int,
    parts: int = 1, squares: Array | None = None, clip_norm: float | None = None, l1: float = 0.0, l2: float = 0.0,
    stream: Any = 0,
) -> None:  # fmt: skip
    """One step of the optimizer on the flat buffer; `gradients` may be the slabs of `parts` parts.

    With `clip_norm`, `squares` holds what `sum_squares` left of the gradients, which then include the penalties.
    """
    dtype, n = parameters.dtype, parameters.size
    run = update_kernel(numba_type(dtype), optimizer, clip_norm is not None)
    limit = dtype.type(0.0 if clip_norm is None else clip_norm)
    run[blocks(n, 4 * UPDATE_BLOCK), UPDATE_BLOCK, stream](
        parameters, state, gradients, gradients if squares is None else squares, scalars,
        *int32s(slot, n, n_weights, parts, reduction_blocks(n)), limit, dtype.type(l1), dtype.type(l2),
    )  # fmt: skip


def sum_squares(values: Array, partial_sums: Array, *, n: int, stream: Any = 0) -> None:
    """Leave partial sums of squares and absolute values of ``values[:n]``: two for each of `reduction_blocks`."""
    run = sum_squares_kernel(numba_type(values.dtype))
    run[reduction_blocks(n), UPDATE_BLOCK, stream](values, partial_sums, *int32s(n))


def limit_incoming_norm(
    parameters: Array, offset: int, max_norm: float, *, n_in: int, n_out: int, stream: Any = 0
) -> None:
    """Scale the columns of the weights at `offset` down to the norm `max_norm` where they are longer."""
    run = limit_norm_kernel(numba_type(parameters.dtype))
    ld = padded(n_out)
    run[blocks(ld, 16), 16 * NORM_ROWS, stream](parameters, *int32s(offset, n_in, ld), parameters.dtype.type(max_norm))
