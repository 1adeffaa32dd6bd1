"""The register tile beside NumPy's BLAS: the products of an update, one thread each, in turns in one process.

The tile multiplies as the fused tier does: weights lie in panels, and both factors of a large gradient are copied side
by side first, which counts. Nothing is applied to a product, and no zero is skipped. Both must agree with the product
in float64 before they are timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.cpu.compiling import compiled, joined
from gpuprop.backends.cpu.fused_step import GATHERED, piece_of_copies, rows_by_panels
from gpuprop.backends.cpu.panels import aligned, column_copier, row_strides
from gpuprop.backends.cpu.tiles import TileShape, multiplication, tile_shape
from gpuprop.backends.threads import limited_blas
from gpuprop.errors import GpupropError
from gpuprop.measure.bench.peers.configs import CONFIGS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.measure.bench.documents import Table

__all__ = ["Product", "entries", "products", "table"]

Array = Any
#: Seconds that one turn takes about.
_TURN = 0.02


@dataclass(frozen=True)
class Product:
    """A product of two matrices in an update: ``what`` is "forward", "delta" or "gradient".

    A forward product is (rows, inputs) times (inputs, outputs); a delta's is (rows, outputs) times (outputs, inputs); a
    gradient's is (inputs, rows) times (rows, outputs).
    """

    config: str
    what: str
    rows: int
    inputs: int
    outputs: int

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.inputs * self.outputs


def products(names: list[str]) -> Iterator[Product]:
    """Yield the products of an update of these configs of ``gpuprop bench peers``, without output layers."""
    for name in names:
        config = CONFIGS[name]
        for layer, (inputs, outputs) in enumerate(list(pairwise(config.sizes))[:-1]):
            for what in ("forward", "gradient") if layer == 0 else ("forward", "delta", "gradient"):
                yield Product(name, what, config.batch_size, inputs, outputs)


def entries(chosen: list[Product], dtype: np.dtype[Any], rounds: int) -> Iterator[dict[str, Any]]:
    """Yield a result for each product: the GFLOP/s of both, and their ratio.

    Raises
    ------
    GpupropError
        If a product is wrong.
    """
    rng = np.random.default_rng(0)
    for one in chosen:
        left, right = _factors(one, rng, dtype)
        out = np.empty((left.shape[0], right.shape[1]), dtype)
        by_tile, result = _gradient(left, right) if one.what == "gradient" else _rows_times_panels(left, right)
        with limited_blas(1):
            for ways in (by_tile, partial(_blas, left, right, out)):
                ways(1)
            expected = left.astype(np.float64) @ right.astype(np.float64)
            for name, found in (("the tile", result()), ("BLAS", out)):
                if not np.allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max()):
                    raise GpupropError(f"{one}: {name} multiplies wrongly")
            tile, blas = _in_turns(by_tile, partial(_blas, left, right, out), rounds)
        rates = {"tile": one.flops / tile / 1e9, "blas": one.flops / blas / 1e9}
        yield {**one.__dict__, "dtype": dtype.name, "gflop_per_s": rates, "ratio": blas / tile}


def table(results: list[dict[str, Any]]) -> Table:
    """Return the table of results."""
    headers = ("config", "product", "rows x in x out", "tile, GFLOP/s", "BLAS", "tile / BLAS")
    rows = [
        [
            one["config"], one["what"], f"{one['rows']}x{one['inputs']}x{one['outputs']}",
            f"{one['gflop_per_s']['tile']:.1f}", f"{one['gflop_per_s']['blas']:.1f}", f"{one['ratio']:.2f}",
        ]
        for one in results
    ]  # fmt: skip
    return headers, rows, (3, 4, 5)


def _factors(one: Product, rng: np.random.Generator, dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    n, inputs, outputs = one.rows, one.inputs, one.outputs
    shapes = {"forward": (n, inputs, outputs), "delta": (n, outputs, inputs), "gradient": (inputs, n, outputs)}
    high, common, wide = shapes[one.what]
    left = rng.standard_normal((common, high) if one.what == "gradient" else (high, common)).astype(dtype)
    return left.T if one.what == "gradient" else left, rng.standard_normal((common, wide)).astype(dtype)


def _blas(left: NDArray[Any], right: NDArray[Any], out: NDArray[Any], times: int) -> None:
    for _ in range(times):
        np.matmul(left, right, out=out)


def _in_turns(one: Callable[[int], None], other: Callable[[int], None], rounds: int) -> tuple[float, float]:
    """Return the median seconds of a call of both."""
    begin = time.perf_counter()
    one(1)
    times = max(1, round(_TURN / max(time.perf_counter() - begin, 1e-6)))
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, took in zip((one, other), seconds, strict=True):
            begin = time.perf_counter()
            call(times)
            took.append((time.perf_counter() - begin) / times)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def _rows(matrix: NDArray[Any], shape: TileShape) -> tuple[Array, int]:
    """Return a matrix as the fused tier holds the rows of a layer, and the distance between its rows."""
    (stride,) = row_strides((matrix.shape[1],), shape)
    flat = aligned(matrix.shape[0] * stride + shape.width, matrix.dtype)
    flat[: matrix.shape[0] * stride].reshape(-1, stride)[:, : matrix.shape[1]] = matrix
    return flat, stride


def _panels(matrix: NDArray[Any], shape: TileShape) -> Array:
    """Return a matrix in panels; its columns must fill them."""
    common, wide = matrix.shape
    if wide % shape.width:
        raise GpupropError(f"got {wide} columns, expected a multiple of {shape.width}")
    panels = aligned((wide // shape.width, common, shape.width), matrix.dtype)
    panels[...] = matrix.reshape(common, -1, shape.width).transpose(1, 0, 2)
    return panels.reshape(-1)


def _rows_times_panels(
    left: NDArray[Any], right: NDArray[Any]
) -> tuple[Callable[[int], None], Callable[[], NDArray[Any]]]:
    """Return a function that multiplies some times, and one that returns what came out."""
    shape = tile_shape(left.dtype)
    (n_rows, common), wide = left.shape, right.shape[1]
    rows, stride = _rows(left, shape)
    panels, (out, out_stride) = _panels(right, shape), _rows(np.zeros((n_rows, wide), left.dtype), shape)
    multiply = rows_by_panels(shape, False)
    lists, counts = np.zeros((1, 1), np.int32), np.zeros(1, np.int64)

    @compiled
    def repeat(
        rows: Array, stride: int, n_rows: int, panels: Array, common: int, wide: int, lists: Array, counts: Array,
        out: Array, out_stride: int, times: int,
    ) -> None:  # fmt: skip
        for _ in range(times):
            multiply(rows, 0, stride, n_rows, panels, 0, common, wide, lists, counts, 0, out, 0, out_stride)

    def call(times: int) -> None:
        repeat(rows, stride, n_rows, panels, common, wide, lists, counts, out, out_stride, times)

    return call, lambda: out[: n_rows * out_stride].reshape(n_rows, -1)[:, :wide]


def _gradient(left: NDArray[Any], right: NDArray[Any]) -> tuple[Callable[[int], None], Callable[[], NDArray[Any]]]:
    """Do as `_rows_times_panels` for a left factor whose columns lie side by side."""
    shape = tile_shape(left.dtype)
    (high, n_rows), wide = left.shape, right.shape[1]
    tile_rows, width, gathered = shape.rows, shape.width, n_rows * high >= GATHERED
    (a, a_stride), (delta, delta_stride) = _rows(left.T, shape), _rows(right, shape)
    block = piece_of_copies(shape)(n_rows, high)
    own_rows, own_columns = aligned(n_rows * block, left.dtype), aligned(n_rows * wide, left.dtype)
    out = aligned(high * wide, left.dtype)
    multiply = joined(multiplication(shape, False))
    copy_left, copy_right = joined(column_copier(tile_rows)), joined(column_copier(width))
    lists, counts = np.zeros((1, 1), np.int32), np.zeros(1, np.int64)

    @compiled
    def repeat(
        a: Array, a_stride: int, delta: Array, delta_stride: int, own_rows: Array, own_columns: Array,
        n_rows: int, high: int, wide: int, lists: Array, counts: Array, out: Array, times: int,
    ) -> None:  # fmt: skip
        for _ in range(times):
            if gathered:
                copy_right(delta, 0, delta_stride, n_rows, wide, own_columns)
            for first in range(0, high, block):
                count = min(block, high - first)
                if gathered:
                    copy_left(a, first, a_stride, n_rows, count, own_rows)
                for column in range(0, wide, width):
                    place = column * high + first * width
                    if gathered:
                        multiply(
                            own_rows, 0, 1, tile_rows, n_rows * tile_rows, count, own_columns, column * n_rows, width,
                            False, lists, counts, 0, n_rows, out, place, width, own_columns, column * n_rows, 0, 0,
                        )  # fmt: skip
                    else:
                        multiply(
                            a, first, 1, a_stride, tile_rows, count, delta, column, delta_stride,
                            False, lists, counts, 0, n_rows, out, place, width, delta, column, 0, 0,
                        )  # fmt: skip

    def call(times: int) -> None:
        repeat(
            a, a_stride, delta, delta_stride, own_rows, own_columns, n_rows, high, wide, lists, counts, out, times
        )  # fmt: skip

    return call, lambda: out.reshape(-1, high, width).transpose(1, 0, 2).reshape(high, wide)
