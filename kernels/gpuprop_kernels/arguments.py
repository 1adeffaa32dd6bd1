"""The arguments of launchers beside arrays and sizes: the batch, the data set, dropout.

A kernel's array arguments are flat, C-contiguous, 16-byte aligned device arrays of one dtype (NumPy arrays in the
simulator). Leading dimensions are sizes rounded up to multiples of 8 (`shapes.padded`), or for bytes to multiples of 32
or 16 (`shapes.row_pitch`), so that rows begin with a sector of memory or fill half of one. Padding holds exact zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from gpuprop_kernels.forward import Source
from gpuprop_kernels.networks import LONE, Networks

__all__ = ["Batch", "Dropout", "Rows", "check_indices", "int32s", "numba_type"]

Array = Any

INDEX_LIMIT = 2**31
"""The number of elements in one array that an int32 index can address."""


@dataclass(frozen=True)
class Batch:
    """Which batch a launch works on; with several networks, which batch of each.

    Attributes
    ----------
    schedule : int32 array of shape (4 * n_slots,)
        For each slot: start in the order, rows, number of the update (from 0), and rows of the update before this batch
        (0, unless the gradients of several batches add up to one update).
    slot : int
        That of the first network.
    max_rows : int
        The rows that the grid covers; thus one captured graph serves every epoch, and the smaller last batch too.
    order : int32 array
        The rows of the data set in the order in which they are taken, of all networks.
    stream : stream
        0 is the default one.
    networks : Networks
        The networks that the launch serves; by default there is one.
    """

    schedule: Array
    slot: int
    max_rows: int
    order: Array
    stream: Any = 0
    networks: Networks = LONE


@dataclass(frozen=True)
class Rows:
    """A data set as the first layer reads it: ``(x - shift) * scale`` by column, or ``x * scale[0]``.

    Attributes
    ----------
    data : uint8 or compute dtype array of shape (n_samples * ld,)
    source : str
        "bytes", "floats", "bytes_by_column" or "floats_by_column".
    shift, scale : arrays of `ld` elements (zero in the padding), or of 4
    ld : int
        Leading dimension of `data`.
    """

    data: Array
    source: Source
    shift: Array
    scale: Array
    ld: int


@dataclass(frozen=True)
class Dropout:
    """The constants of one layer's dropout, for each network; see `dropout.mask_constants`."""

    mask: Array
    keep: Array


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
