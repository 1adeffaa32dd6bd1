"""What the kernel tests share: device arrays with poison, ragged data, and the check against a bound.

The same tests run in Numba's simulator on NumPy arrays and, with ``GPUPROP_TEST_DEVICE=cuda``, on a device (real or
virtual) on CuPy arrays.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from gpuprop.measure.equivalence import tolerances
from gpuprop_kernels.launch import Batch, Rows, padded, row_pitch
from gpuprop_kernels.tile import SMALL, TILES, Tile

ON_DEVICE = os.environ.get("GPUPROP_TEST_DEVICE") == "cuda"

if ON_DEVICE:
    import cupy as xp

    if os.environ.get("GPUPROP_TEST_NO_POOL"):
        # A pool's chunks hide what is written past an array's end from a memory checker.
        xp.cuda.set_allocator(None)
else:
    xp = np

SLICED = Tile(8, 8, 2, 2, 16, slices=2)
"""The small tile with two slices along k. Four neighbouring threads load a row of bytes, as for 64x64 with 4x4."""

QUARTERED = Tile(8, 8, 2, 2, 32, slices=4)
"""The small tile with four slices, as 32x32 has. Eight neighbouring threads load a row of bytes."""

DEEP = Tile(8, 8, 2, 2, 16)
"""The small tile with slabs of 16 k, as 64x64 with 8x4 has: two words of a sector of bytes go into each."""

FOUR_LANES = Tile(16, 16, 2, 2, 16)
"""The same with four threads to a row, as 64x64 with 4x4 has: two words of a sector each, one goes into each slab."""

SHAPES = [(1, 1, 1), (7, 17, 33), (17, 33, 7), (33, 7, 17)]
"""(rows, inputs, outputs), ragged at every tile."""

DTYPES = [np.float32, np.float64]

GUARD = 16
"""Elements behind each output buffer that no kernel may touch."""


def production_cases() -> list[tuple[Tile, Any]]:
    """Return the production tiles with the dtypes that `launch.choose_tile` gives them."""
    return [
        (tile, dtype)
        for tile in TILES.values()
        for dtype in DTYPES
        if tile is not SMALL and (tile.rows < 128 or dtype == np.float32)
    ]


def case_name(value: Any) -> str | None:
    """Name a parameter of a test."""
    if isinstance(value, Tile):
        return value.name + {SLICED: "_sliced", QUARTERED: "_quartered", DEEP: "_deep", FOUR_LANES: "_lanes"}.get(
            value, ""
        )
    if isinstance(value, type):
        return value.__name__
    return None


def upload(array: Any) -> Any:
    """Return a flat device copy."""
    return xp.array(np.array(array).reshape(-1))


def download(array: Any) -> Any:
    """Return a host copy."""
    return array.get() if ON_DEVICE else np.array(array)


def matrix(array: Any) -> Any:
    """Return a device copy of a matrix, rows padded with zeros to their pitch."""
    out = np.zeros((array.shape[0], row_pitch(array.shape[1], array.dtype)), array.dtype)
    out[:, : array.shape[1]] = array
    return upload(out)


def vector(array: Any) -> Any:
    """Return a device copy of a vector, padded with zeros as a row of a matrix."""
    return matrix(array[None])


def data_rows(data: Any, source: str, shift: Any, scale: Any) -> Rows:
    """Return a data set as launchers take it; `shift` and `scale` of one element a column, or of one in all."""
    ld = row_pitch(data.shape[1], data.dtype)
    shift, scale = (np.pad(a, (0, max(ld, 4) - len(a))) for a in (shift, scale))
    return Rows(matrix(data), source, upload(shift), upload(scale), ld)


def poison(size: int, dtype: Any) -> Any:
    """Return a buffer full of NaN, with a guard behind it."""
    return upload(np.full(size + GUARD, np.nan, dtype))


def read(buffer: Any, rows: int, columns: int, *, filled_rows: int | None = None) -> Any:
    """Return the matrix in a poisoned buffer; padding must be zero, the guard and unused rows still NaN."""
    host = download(buffer)
    ld = padded(columns)
    body, guard = host[: rows * ld].reshape(rows, ld), host[rows * ld :]
    assert np.isnan(guard).all(), "written past the end"
    used = rows if filled_rows is None else filled_rows
    assert np.isnan(body[used:]).all(), "written past the rows of the batch"
    assert (body[:used, columns:] == 0).all(), "padding is not zero"
    return body[:used, :columns]


def batch(n_rows: int, n_samples: int | None = None, *, max_rows: int | None = None, step: int = 0) -> Batch:
    """Return a batch in slot 1 of a schedule; slot 0 is a decoy. The order is a seeded permutation."""
    samples = n_samples or n_rows
    start = min(2, samples - n_rows)
    schedule = np.array([0, 1, 99, 0, start, n_rows, step, 0], np.int32)
    order = np.random.default_rng(5).permutation(samples).astype(np.int32)
    return Batch(upload(schedule), 1, max_rows or n_rows, upload(order))


def rows_of(which: Batch, data: Any) -> Any:
    """Return the batch's rows of a data set on the host."""
    schedule, order = download(which.schedule), download(which.order)
    start, count = schedule[4 * which.slot : 4 * which.slot + 2]
    return data[order[start : start + count]]


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return normal numbers of a dtype."""
    return rng.standard_normal(shape).astype(dtype)


def check(actual: Any, expected: Any, bound: Any, what: str) -> None:
    """Require every element within its bound, and say how much of the bound was used."""
    share = tolerances.used(actual, expected, bound)
    print(f"{what}: {share:.2f} of the bound")
    assert share <= 1.0, f"{what}: error is {share:.3g} times the bound"


def check_product(actual: Any, a: Any, b: Any, extra: Any = 0.0) -> None:
    """Require a product of same-dtype operands within its bound, and at most twice as wrong as NumPy's."""
    wide = [np.asarray(m, np.float64) for m in (a, b)]
    magnitude = np.abs(wide[0]) @ np.abs(wide[1]) + np.abs(extra)
    expected = wide[0] @ wide[1] + np.asarray(extra, np.float64)
    check(actual, expected, tolerances.product_bound(magnitude, a.shape[1], a.dtype), "product")
    ours, numpys = np.abs(actual - expected).max(), np.abs((a @ b + extra) - expected).max()
    assert ours <= 2 * numpys + 4 * tolerances.unit(a.dtype) * magnitude.max(), "worse than twice NumPy"
