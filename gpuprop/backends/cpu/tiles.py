"""The register tile: a piece of a product that stays in vector registers while the common dimension runs.

    for each k:            b[k]   | vector 0 | vector 1 |        one row of a panel of b
                          --------+----------+----------+
        a[row 0, k]  (everywhere) |  sum 0,0 |  sum 0,1 |        the tile: rows x vectors sums,
        a[row 1, k]  (everywhere) |  sum 1,0 |  sum 1,1 |        each += a[row, k] * b[k, vector]
             ...                  |    ...   |    ...   |
        a[row 7, k]  (everywhere) |  sum 7,0 |  sum 7,1 |

With 8 rows and 2 vectors a step of k loads 10 things and does 16 fused operations, so that the multipliers and not the
loads are the bound, and 16 sums in flight cover the 4 cycles that each takes. Every sum runs over k in order.

Why it is written in LLVM's terms: what Numba makes of Python loops keeps the sums in memory. Measured on a core with
AVX-512 (128 x 784 times 784 x 128): an array of 8 x 32 sums reaches 4 GFLOP/s; the best loops found, which load and
store a row once for four products, 42; NumPy's OpenBLAS 81; this tile 131, which is the core's peak.

Rows that are missing in the last tile are the last row once more: its sums are computed and stored again, and no second
kernel is needed. Columns that are missing are zeros of the panel (`gpuprop.backends.cpu.panels`).

While it multiplies, a tile asks for memory that will be read next: one line in a step of k, which costs nothing where a
burst of such requests, or the wait for each, would stop the multipliers.

A *listed* tile sums over those k only that a list names. Where the left matrix is mostly zeros, as images are, that
saves most of the work and changes no bit: adding 0 * b to a sum leaves it as it is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import NDArray

from gpuprop.backends.cpu.compiling import compiled, prefetch

__all__ = ["TileShape", "column_lister", "multiplication", "row_lister", "tile_shape"]

Array = NDArray[Any]

_INT = ir.IntType(64)


class TileShape(NamedTuple):
    """The rows and vectors of a tile, and the numbers in a vector; a panel of b is ``vectors * lanes`` columns wide."""

    rows: int
    vectors: int
    lanes: int

    @property
    def width(self) -> int:
        """The columns of a full panel; the last panel of a matrix may be one vector wide."""
        return self.vectors * self.lanes


# For each kind of processor the bytes of a vector, the rows and the vectors of a tile. The registers (32 with AVX-512
# and NEON, 16 with AVX2 and SSE) must hold rows * vectors sums, `vectors` vectors of b and one of a.
_SHAPES = {"avx512f": (64, 8, 2), "avx2": (32, 6, 2), "neon": (16, 8, 2), "": (16, 6, 2)}


@functools.cache
def tile_shape(dtype: np.dtype[Any]) -> TileShape:
    """Return the shape for the processor that Numba compiles for; NUMBA_CPU_NAME may name another than this one."""
    features = str(cpu_target.target_context.codegen().magic_tuple()[-1])
    size, rows, vectors = next(shape for name, shape in _SHAPES.items() if not name or f"+{name}" in features)
    return TileShape(rows, vectors, size // dtype.itemsize)


@intrinsic(prefer_literal=True)
def _tile(  # type: ignore[no-untyped-def]
    context, rows, vectors, lanes, listed,
    a, a_at, row_stride, k_stride, last_row, b, b_at, b_stride, ks, ks_at, n, out, out_at, out_stride,
    soon, soon_at, soon_stride,
):  # fmt: skip
    """Store one tile of ``out = a @ b``; all arrays are flat, and ``*_at`` says where in them the tile begins.

    ``a[row, k]`` is ``a[a_at + row * row_stride + k * k_stride]``, ``b[k, column]`` is
    ``b[b_at + k * b_stride + column]``; k takes the values ``ks[ks_at:ks_at + n]`` if `listed`, else ``range(n)``.
    Step i prefetches ``soon[soon_at + i * soon_stride]``.
    """
    shape = rows.literal_value, vectors.literal_value, lanes.literal_value
    order = listed.literal_value

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = dict(zip(_NAMES, arguments[4:], strict=True))
        for name, kind, argument in zip(_NAMES, signature.args[4:], arguments[4:], strict=True):
            if isinstance(kind, types.Array):
                values[name] = context.make_array(kind)(context, builder, argument).data
        _build_tile(builder, values, context.get_value_type(a.dtype), a.dtype.bitwidth // 8, shape, order)
        return context.get_dummy_value()

    places = (types.intp,) * 4
    return types.none(
        rows, vectors, lanes, listed, a, *places, b, types.intp, types.intp, ks, types.intp, types.intp, out,
        types.intp, types.intp, soon, types.intp, types.intp,
    ), build  # fmt: skip


_NAMES = ("a", "a_at", "row_stride", "k_stride", "last_row", "b", "b_at", "b_stride", "ks", "ks_at", "n", "out",
          "out_at", "out_stride", "soon", "soon_at", "soon_stride")  # fmt: skip


def _build_tile(
    builder: Any, v: dict[str, Any], number: Any, size: int, shape: tuple[int, int, int], listed: bool
) -> None:
    """Emit the loop over k and the stores; `v` holds the arguments of `_tile` by name, and addresses for arrays."""
    rows, vectors, lanes = shape
    vector = ir.VectorType(number, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    zero = ir.Constant(vector, [0.0] * lanes)
    fused = ("contract",)  # a * b + c in one rounding where the processor can

    def vector_at(address: Any, offset: Any) -> Any:
        return builder.bitcast(builder.gep(address, [offset]), vector.as_pointer())

    def load(address: Any, offset: Any) -> Any:
        loaded = builder.load(vector_at(address, offset))
        loaded.align = size
        return loaded

    def spread(value: Any) -> Any:
        first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(first, undefined, everywhere)

    def clamped(row: int) -> Any:
        index = _INT(row)
        return builder.select(builder.icmp_signed("<", index, v["last_row"]), index, v["last_row"])

    row_numbers = [clamped(row) for row in range(rows)]
    row_starts = [
        builder.gep(v["a"], [builder.add(v["a_at"], builder.mul(row, v["row_stride"]))]) for row in row_numbers
    ]
    panel = builder.gep(v["b"], [v["b_at"]])
    names = builder.gep(v["ks"], [v["ks_at"]])
    soon = builder.gep(v["soon"], [v["soon_at"]])

    before, loop, after = builder.block, builder.append_basic_block("tile"), builder.append_basic_block("stored")
    builder.cbranch(builder.icmp_signed(">", v["n"], _INT(0)), loop, after)

    builder.position_at_end(loop)
    count = builder.phi(_INT)
    sums = [builder.phi(vector) for _ in range(rows * vectors)]
    k = builder.sext(builder.load(builder.gep(names, [count])), _INT) if listed else count
    in_row, in_panel = builder.mul(k, v["k_stride"]), builder.mul(k, v["b_stride"])
    b_row = [load(panel, builder.add(in_panel, _INT(lanes * index))) for index in range(vectors)]
    prefetch(builder, builder.gep(soon, [builder.mul(count, v["soon_stride"])]))
    added = []
    for row in range(rows):
        factor = spread(builder.load(builder.gep(row_starts[row], [in_row])))
        of_row = []
        for index in range(vectors):
            product = builder.fmul(factor, b_row[index], flags=fused)
            of_row.append(builder.fadd(sums[row * vectors + index], product, flags=fused))
        added += _finished(builder, of_row)
    counted = builder.add(count, _INT(1))
    builder.cbranch(builder.icmp_signed("<", counted, v["n"]), loop, after)
    for phi, first, following in [(count, _INT(0), counted), *zip(sums, [zero] * len(sums), added, strict=True)]:
        phi.add_incoming(first, before)
        phi.add_incoming(following, loop)

    builder.position_at_end(after)
    results = [builder.phi(vector) for _ in added]
    for phi, following in zip(results, added, strict=True):
        phi.add_incoming(zero, before)
        phi.add_incoming(following, loop)
    for row in range(rows):
        start = builder.add(v["out_at"], builder.mul(row_numbers[row], v["out_stride"]))
        for index in range(vectors):
            offset = builder.add(start, _INT(lanes * index))
            stored = builder.store(results[row * vectors + index], vector_at(v["out"], offset))
            stored.align = size


def _finished(builder: Any, sums: list[Any]) -> list[Any]:
    """Return the sums of a row, which LLVM forms before it reads the next row.

    What stands between is no instruction, but LLVM takes it for one that uses the sums and may do anything. Without it
    LLVM reads all rows first, or unrolls the loop; where there are 16 registers that leaves none for the sums: with
    AVX2 a listed product took 2.5 times as long.
    """
    if not _few_registers():
        return sums
    nothing = ir.InlineAsm(ir.FunctionType(sums[0].type, [sums[0].type]), "", "=x,0", side_effect=True)
    return [builder.call(nothing, [value]) for value in sums]


@functools.cache
def _few_registers() -> bool:
    """Return whether Numba compiles for an x86 processor with 16 vector registers."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    return triple.startswith("x86") and "+avx512f" not in features


@functools.cache
def multiplication(shape: TileShape, listed: bool) -> Callable[..., None]:
    """Return ``multiply(...)``: some rows of a times one panel of b, tile by tile.

    Its arguments are those of `_tile`, but for a column of tiles with `n_rows` rows in all. In a listed product row
    ``first_tile + t`` of `lists` is the list of tile t, and ``counts[first_tile + t]`` its length. `narrow` says that
    the panel is one vector wide. Tile t prefetches from ``soon_at + t * soon_apart`` on.
    """
    rows, vectors, lanes = shape

    @compiled
    def multiply(
        a: Array, a_at: int, row_stride: int, k_stride: int, tile_stride: int, n_rows: int,
        b: Array, b_at: int, b_stride: int, narrow: bool,
        lists: Array, counts: Array, first_tile: int, n: int,
        out: Array, out_at: int, out_stride: int,
        soon: Array, soon_at: int, soon_apart: int, soon_stride: int,
    ) -> None:  # fmt: skip
        for tile in range((n_rows + rows - 1) // rows):
            row = tile * rows
            last_row = min(rows, n_rows - row) - 1
            at, to, ks_at = a_at + tile * tile_stride, out_at + row * out_stride, 0
            asked_at = soon_at + tile * soon_apart
            if listed:
                n = counts[first_tile + tile]
                ks_at = (first_tile + tile) * lists.shape[1]
            if narrow:
                _tile(rows, 1, lanes, listed, a, at, row_stride, k_stride, last_row, b, b_at, b_stride, lists, ks_at, n,
                      out, to, out_stride, soon, asked_at, soon_stride)  # fmt: skip
            else:
                _tile(rows, vectors, lanes, listed, a, at, row_stride, k_stride, last_row, b, b_at, b_stride, lists,
                      ks_at, n, out, to, out_stride, soon, asked_at, soon_stride)  # fmt: skip

    return multiply


# --- what is not zero ------------------------------------------------------------------------------------------------
#
# Both functions make two passes: the first looks at whole vectors, the second lists the findings one by one.


@functools.cache
def column_lister(rows: int) -> Callable[..., None]:
    """Return ``list_columns``: for each tile of `rows` rows, the columns that are not zero in all of them."""

    @compiled
    def list_columns(x: Array, stride: int, n_rows: int, marks: Array, lists: Array, counts: Array) -> None:
        n = lists.shape[1]
        for tile in range((n_rows + rows - 1) // rows):
            for k in range(n):
                marks[k] = 0
            for i in range(tile * rows, min((tile + 1) * rows, n_rows)):
                row = x[i * stride : i * stride + n]
                for k in range(n):
                    marks[k] |= np.uint8(row[k] != 0)
            names, count = lists[tile], 0
            for k in range(n):
                names[count] = k
                count += marks[k]
            counts[tile] = count

    return list_columns


@functools.cache
def row_lister(rows: int) -> Callable[..., None]:
    """Return ``list_rows``: for each tile of `rows` columns, the rows in which they are not all zero."""

    @compiled
    def list_rows(x: Array, stride: int, n_rows: int, marks: Array, lists: Array, counts: Array) -> None:
        n_tiles = lists.shape[0]
        for i in range(n_rows):
            row = x[i * stride : i * stride + n_tiles * rows]  # the padding at the end of a row is zero
            for tile in range(n_tiles):
                found = row[tile * rows] != 0
                for k in range(1, rows):
                    found |= row[tile * rows + k] != 0
                marks[i * n_tiles + tile] = found
        for tile in range(n_tiles):
            names, count = lists[tile], 0
            for i in range(n_rows):
                names[count] = i
                count += marks[i * n_tiles + tile]
            counts[tile] = count

    return list_rows
