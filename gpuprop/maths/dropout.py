"""Dropout masks from a counter-based generator, so that every backend draws the same mask.

Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3; SC 2011) turns a 128-bit
counter and a 64-bit key into four 32-bit words, without state. The key is the network's seed; the counter holds the
element's place: ``(column // 4, row, layer, step)``, and element (row, column) takes word ``column % 4``. A thread of
a GPU and a loop on a CPU thus find the same bit for the same unit, in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["keep_mask", "keep_threshold", "philox4x32"]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox4x32(
    counter: tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]],
    key: tuple[int, int],
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the four output words of Philox4x32-10 for each counter.

    Parameters
    ----------
    counter : tuple of four uint64 arrays
        Words of the counter, each below 2**32; broadcast against each other.
    key : tuple of two int
        Words of the key, each below 2**32.

    Returns
    -------
    tuple of four uint64 arrays
        Words below 2**32.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0 = _MULTIPLIERS[0] * c0  # 32 x 32 -> 64 bits, exact in uint64
        product1 = _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> _WORD) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _WORD) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def keep_threshold(rate: float) -> int:
    """Return the bound below which the top 24 bits of a word keep a unit: ``round((1 - rate) * 2**24)``."""
    return round((1.0 - rate) * 2**24)


def keep_mask(
    rate: float, *, seed: int, layer: int, step: int, n_rows: int, n_columns: int, first_row: int = 0
) -> NDArray[Any]:
    """Return which units of a layer dropout keeps in one step.

    Parameters
    ----------
    rate : float
        Share of units to drop, in [0, 1).
    seed : int
        The network's seed; its low 64 bits are the key.
    layer : int
        0 for the input, l for hidden layer l.
    step : int
        Updates done before this one.
    n_rows, n_columns : int
        Rows of the batch and units of the layer.
    first_row : int, default=0
        Position of the first row in the batch, for a batch that is worked through in parts.

    Returns
    -------
    ndarray of bool, shape (n_rows, n_columns)
    """
    blocks = np.arange((n_columns + 3) // 4, dtype=np.uint64)[None, :]
    rows = np.arange(first_row, first_row + n_rows, dtype=np.uint64)[:, None]
    high = (np.full((1, 1), layer, np.uint64), np.full((1, 1), step & 0xFFFFFFFF, np.uint64))
    words = philox4x32((blocks, rows, *high), (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    interleaved = np.stack(words, axis=-1).reshape(n_rows, -1)[:, :n_columns]
    return (interleaved >> np.uint64(8)) < np.uint64(keep_threshold(rate))
