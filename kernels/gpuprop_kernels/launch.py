"""Starting the kernels: the choice of tile, the grids, and the only ``kernel[grid, block]`` calls.

A launcher takes flat, C-contiguous, 16-byte aligned device arrays of one dtype (NumPy arrays in the simulator),
sizes as Python integers and, last, the stream. It allocates nothing and waits for nothing. Leading dimensions are the
sizes rounded up to multiples of 4 (`padded`), and padding holds exact zeros. Every launcher works on the batch that
``schedule[slot]`` describes, four int32: start in the order, rows, number of the update (from 0), 0; its grid covers
`max_rows`, so that one captured graph serves the ragged last batch too.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from gpuprop_kernels import tile as tiles
from gpuprop_kernels.activations import Activation
from gpuprop_kernels.forward import BATCH_BLOCK, Source, forward_kernel, load_batch_kernel
from gpuprop_kernels.tile import Tile

__all__ = ["choose_tile", "forward_layer", "load_batch", "numba_type", "padded"]

Array = Any
Stream = Any

INDEX_LIMIT = 2**31
"""Elements of one array that an int32 index can address."""


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


def choose_tile(
    rows: int, columns: int, dtype: Any, multiprocessors: int, capability: tuple[int, int]
) -> Tile:
    """Return the tile for a product of this size: the largest that still gives every multiprocessor a block.

    128x128 where it fills 4/5 of the multiprocessors (float32 only: float64 would halve its occupancy), else 64x64,
    with 8x4 a thread where the register file allows the occupancy (sm_86 and later), else 32x32 with sliced k.
    """
    names = ["64x64_8x4" if capability >= (8, 6) and np.dtype(dtype).itemsize == 4 else "64x64_4x4"]
    if np.dtype(dtype).itemsize == 4:
        names.insert(0, "128x128_8x8")
    for name in names:
        tile = tiles.TILES[name]
        if blocks(rows, tile.rows) * blocks(columns, tile.columns) >= 0.8 * multiprocessors:
            return tile
    return tiles.TILES["32x32_4x4"]


def load_batch(
    data: Array, order: Array, shift: Array, scale: Array, out: Array, mask: Array | None, keep: Array | None,
    schedule: Array, slot: int, *, source: Source, n_features: int, max_rows: int, stream: Stream = 0,
) -> None:  # fmt: skip
    """Write the batch's scaled rows to `out`, with the input's dropout where `mask` is given."""
    check_indices(data, out)
    ld = padded(n_features)
    run = load_batch_kernel(numba_type(out.dtype), source, mask is not None)
    grid = (blocks(ld // 4, BATCH_BLOCK), max_rows)
    run[grid, BATCH_BLOCK, stream](
        data, order, shift, scale, out, order if mask is None else mask, out if keep is None else keep,
        schedule, *int32s(slot, n_features, ld),
    )  # fmt: skip


def forward_layer(
    x: Array, weights: Array, biases: Array, z: Array | None, out: Array, schedule: Array, slot: int, *,
    activation: Activation, n_in: int, n_out: int, max_rows: int, tile: Tile, source: Source = "dense",
    order: Array | None = None, shift: Array | None = None, scale: Array | None = None,
    mask: Array | None = None, keep: Array | None = None, stream: Stream = 0,
) -> None:  # fmt: skip
    """``out = f(x W + b)``, with dropout where `mask` is given; the net input goes to `z` unless that is None."""
    check_indices(x, weights, out)
    run = forward_kernel(tile, numba_type(out.dtype), activation, source, z is not None, mask is not None)
    grid = (blocks(padded(n_out), tile.columns), blocks(max_rows, tile.rows))
    run[grid, tile.threads, stream](
        x, schedule if order is None else order, biases if shift is None else shift,
        biases if scale is None else scale, weights, biases, out if z is None else z, out,
        schedule if mask is None else mask, biases if keep is None else keep,
        schedule, *int32s(slot, n_in, n_out, padded(n_in), padded(n_out)),
    )  # fmt: skip
