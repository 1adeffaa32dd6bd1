"""The layout of the fused tier: matrices cut into panels that a register tile reads from left to right.

A matrix (fan_in, fan_out) is cut into panels of `width` columns. The last panel is only one vector wide if its columns
fit into that. A panel is stored row after row, and zeros fill the missing columns of the last one:

    panel 0: w[0, 0:32] w[1, 0:32] ... w[fan_in - 1, 0:32]    panel 1: w[0, 32:64] w[1, 32:64] ...

The tile multiplication then reads one vector after the other. It takes a third longer on a row-major matrix of 512
columns, whose rows all fall into the same few sets of the cache.

The layers lie in the order of `gpuprop.core.parameters.Parameters`: all weights, then all biases. An optimizer treats
each number by itself, so it needs no change for panels. The padding has no gradient and stays zero.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from gpuprop.backends.cpu.compiling import compiled, joined, part, wanted_soon
from gpuprop.backends.cpu.tiles import TileShape
from gpuprop.backends.cpu.tuples import by_address, kept_at
from gpuprop.core.parameters import padded

__all__ = ["Home", "Panels", "aligned", "column_copier", "panel_copier", "row_strides", "transposition"]

Array = NDArray[Any]
Places = NDArray[np.int64]

LINE = 64
"""Bytes of a cache line."""

#: A matrix is copied to or from panels in blocks of at least `_ROWS` rows and about `_NUMBERS` numbers. Copying whole
#: panels one by one jumps a page from row to row: for 784-1024-1024-1024-10 with Adam's memory that took 17 ms, and 24
#: to copy back; in blocks it takes 7 and 7.
_ROWS, _NUMBERS = 32, 32_768

#: Rows ahead of the one that is copied, when rows are a page or more apart and the processor foresees none of them.
_AHEAD = 4

_INT = ir.IntType(64)


def aligned(sizes: int | tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return zeros that begin at a cache line; in an array that NumPy allocates, every vector may straddle two."""
    n_bytes = int(np.prod(sizes)) * dtype.itemsize
    raw = np.zeros(n_bytes + LINE, np.uint8)
    begin = -raw.ctypes.data % LINE
    return raw[begin : begin + n_bytes].view(dtype).reshape(sizes)


def row_stride(n_columns: int, shape: TileShape) -> int:
    """Return the distance between the rows of a layer: whole vectors fit, and rows use all sets of the cache.

    Rows that lie a multiple of 512 bytes apart would share a few sets of the first cache.
    """
    stride = padded(n_columns, shape.lanes)
    return stride if stride // shape.lanes % 8 else stride + shape.lanes


def row_strides(layer_sizes: tuple[int, ...], shape: TileShape) -> list[int]:
    """Return `row_stride` of each layer; in the inputs, of whose columns lists are made, whole tiles fit as well."""
    n_features, *units = layer_sizes
    return [row_stride(columns, shape) for columns in (padded(n_features, shape.rows), *units)]


class Panels:
    """The places of each layer's weights and biases in a flat buffer of panels.

    Attributes
    ----------
    units : array of int64
        The layer sizes, the input's first.
    weights_at, biases_at, transposed_at : array of int64
        Index l - 1 says where the weights and biases of layer l begin in the buffer, and where its transposed weights
        begin in a buffer of their own.
    n_weights, size, transposed_size : int
        The lengths of all weights, of the buffer, and of the buffer of transposed weights.
    """

    def __init__(self, layer_sizes: tuple[int, ...], shape: TileShape) -> None:
        self.shape = shape
        self.units: Places = np.array(layer_sizes, np.int64)
        lanes = shape.lanes
        layers = list(pairwise(layer_sizes))
        weights = list(accumulate((fan_in * padded(fan_out, lanes) for fan_in, fan_out in layers), initial=0))
        biases = list(accumulate((padded(fan_out, lanes) for _, fan_out in layers), initial=weights[-1]))
        transposed = list(accumulate((fan_out * padded(fan_in, lanes) for fan_in, fan_out in layers[1:]), initial=0))
        self.weights_at: Places = np.array(weights[:-1], np.int64)
        self.biases_at: Places = np.array(biases[:-1], np.int64)
        self.transposed_at: Places = np.array(transposed[:-1], np.int64)
        self.n_weights, self.size, self.transposed_size = weights[-1], biases[-1], transposed[-1]

    def pieces(self, flat: Array, panels: Array) -> list[tuple[Array, Array]]:
        """Return pairs of views of the same parameters: one in the network's flat buffer, one in panels.

        For each layer there are pairs for blocks of rows of all full panels, one for the last panel, and one for the
        biases. No view contains padding.
        """
        found, at, sizes, width = [], 0, self.units.tolist(), self.shape.width
        for (fan_in, fan_out), begin in zip(pairwise(sizes), self.weights_at.tolist(), strict=True):
            matrix = flat[at : at + fan_in * fan_out].reshape(fan_in, fan_out)
            n_full, rest = divmod(fan_out, width)
            full = n_full * width
            own = matrix[:, :full].reshape(fan_in, n_full, width).transpose(1, 0, 2)
            packed = panels[begin : begin + full * fan_in].reshape(n_full, fan_in, width)
            high = max(_ROWS, _NUMBERS // max(full, 1))
            some = [slice(row, row + high) for row in range(0, fan_in if full else 0, high)]
            found += [(own[:, rows], packed[:, rows]) for rows in some]
            if rest:
                wide, place = padded(rest, self.shape.lanes), begin + full * fan_in
                last = panels[place : place + wide * fan_in].reshape(fan_in, wide)
                found.append((matrix[:, full:], last[:, :rest]))
            at += fan_in * fan_out
        for fan_out, begin in zip(sizes[1:], self.biases_at.tolist(), strict=True):
            found.append((flat[at : at + fan_out], panels[begin : begin + fan_out]))
            at += fan_out
        return found

    def first_layer_pieces(self, flat: Array, panels: Array) -> list[tuple[Array, Array]]:
        """Return the pairs of `pieces` for the weights of the first layer alone; the arrays hold nothing else."""
        fan_in, fan_out = self.units[:2].tolist()
        alone = Panels((fan_in, fan_out), self.shape)
        return alone.pieces(flat, panels)[:-1]  # without the biases


@intrinsic(prefer_literal=True)
def _turn(context, lanes, source, at, row_stride, n_rows, target, to, column_stride, n_columns):  # type: ignore[no-untyped-def]
    """Transpose a square: ``target[to + j * column_stride + i] = source[at + i * row_stride + j]``, i, j < `lanes`.

    Only `n_rows` rows of the source exist, and zeros take the place of the others; `n_columns` columns are written.
    """
    n = lanes.literal_value

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, source_array, at, row_stride, n_rows, target_array, to, column_stride, n_columns = arguments
        read, written = (
            context.make_array(kind)(context, builder, array).data
            for kind, array in ((source, source_array), (target, target_array))
        )
        vector = ir.VectorType(context.get_value_type(source.dtype), n)
        size = source.dtype.bitwidth // 8

        def place(array: Any, begin: Any, index: int, count: Any, stride: Any) -> tuple[Any, Any]:
            """Return the address of a vector (beyond `count`: of the last one), and whether the vector exists."""
            there = builder.icmp_signed("<", _INT(index), count)
            number = builder.select(there, _INT(index), builder.sub(count, _INT(1)))
            address = builder.gep(array, [builder.add(begin, builder.mul(number, stride))])
            return builder.bitcast(address, vector.as_pointer()), there

        square = []
        for i in range(n):
            address, there = place(read, at, i, n_rows, row_stride)
            row = builder.load(address)
            row.align = size
            square.append(builder.select(there, row, ir.Constant(vector, None)))
        # A number's place is (row, lane). Merging each row of the upper half with its partner in the lower half moves
        # the first bit of the row index to the end of the lane index, and the first bit of the lane index to the end
        # of the row index. After as many rounds as an index has bits, row and lane have changed places.
        for _ in range(n.bit_length() - 1):
            pairs = zip(square[: n // 2], square[n // 2 :], strict=True)
            square = [_merged(builder, upper, lower, n, half) for upper, lower in pairs for half in (0, n // 2)]
        for j in reversed(range(n)):  # a column that does not exist goes to the last one's place, before that one
            address, _ = place(written, to, j, n_columns, column_stride)
            stored = builder.store(square[j], address)
            stored.align = size
        return context.get_dummy_value()

    places = (types.intp,) * 3
    return types.none(lanes, source, *places, target, *places), build


def _merged(builder: Any, upper: Any, lower: Any, n: int, first: int) -> Any:
    """Interleave half of the numbers of two vectors, those from lane `first` on."""
    numbers = [first + lane // 2 + (n if lane % 2 else 0) for lane in range(n)]
    return builder.shuffle_vector(upper, lower, ir.Constant(ir.VectorType(ir.IntType(32), n), numbers))


@intrinsic(prefer_literal=True)
def _move(context, wide, source, at, target, to):  # type: ignore[no-untyped-def]
    """Copy `wide` numbers as one vector: ``target[to : to + wide] = source[at : at + wide]``."""
    n = wide.literal_value

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, source_array, at, target_array, to = arguments
        vector = ir.VectorType(context.get_value_type(source.dtype), n)

        def address(kind: Any, array: Any, place: Any) -> Any:
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [place]), vector.as_pointer())

        numbers = builder.load(address(source, source_array, at))
        stored = builder.store(numbers, address(target, target_array, to))
        numbers.align = stored.align = source.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.none(wide, source, types.intp, target, types.intp), build


@functools.cache
def column_copier(wide: int) -> Callable[..., None]:
    """Return ``copy_columns(source, at, stride, n_rows, n_columns, target)`` for panels of `wide` columns.

    It copies columns of a matrix of rows that are `stride` apart into the panels, one after the other.
    """

    @compiled
    def copy_columns(source: Array, at: int, stride: int, n_rows: int, n_columns: int, target: Array) -> None:
        for i in range(n_rows):
            for column in range(0, n_columns, wide):
                place = at + i * stride + column
                wanted_soon(source, place + _AHEAD * stride)
                _move(wide, source, place, target, column * n_rows + i * wide)

    return copy_columns


@functools.cache
def transposition(shape: TileShape) -> Callable[..., None]:
    """Return ``transpose(panels, at, fan_in, fan_out, transposed, to, first, stop)`` for a layer's weights.

    It transposes the columns from `first` to `stop`. `first` is a multiple of the numbers in a vector; `stop` is one
    too, or lies behind the last column.

    It works on squares that fit into the registers; number by number, it would take much of an online step.
    """
    lanes, width = shape.lanes, shape.width

    @compiled
    def transpose(
        panels: Array, at: int, fan_in: int, fan_out: int, transposed: Array, to: int, first: int, stop: int
    ) -> None:
        for column in range(first, min(stop, fan_out), lanes):
            panel = column // width * width
            wide = lanes if fan_out - panel <= lanes else width
            for row in range(0, fan_in, lanes):
                turned = row // width * width
                high = lanes if fan_in - turned <= lanes else width
                source = at + panel * fan_in + row * wide + column - panel
                target = to + turned * fan_out + column * high + row - turned
                _turn(
                    lanes, panels, source, wide, fan_in - row, transposed, target, high, fan_out - column
                )  # fmt: skip

    return transpose


@by_address
class Home(NamedTuple):
    """The arrays of a network in its own layout, and the same in panels; an array that it lacks is empty.

    `units`, `weights_at` and `biases_at` are those of `Panels`; `unscaled` are the first weights without the factors of
    a scaling layer.
    """

    units: Places
    weights_at: Places
    biases_at: Places
    parameters: Array
    first: Array
    second: Array
    unscaled: Array
    panel_parameters: Array
    panel_first: Array
    panel_second: Array
    panel_unscaled: Array


@functools.cache
def panel_copier(shape: TileShape) -> Callable[..., None]:
    """Return ``copy(home, homes, active, begin, end, into)``: arrays of networks into panels, or back.

    The networks are ``active[begin:end]``; row i of `homes` keeps the `Home` of network i, which is of the types of
    `home`.
    """
    lanes, width = shape.lanes, shape.width

    @joined
    def copy_weights(own: Array, packed: Array, fan_in: int, fan_out: int, into: bool) -> None:
        for top in range(0, fan_in, _ROWS):
            for column in range(0, fan_out, width):
                wide, count = lanes if fan_out - column <= lanes else width, min(width, fan_out - column)
                for i in range(top, min(top + _ROWS, fan_in)):
                    row = part(own, i * fan_out + column, count)
                    panel = part(packed, column * fan_in + i * wide, count)
                    if into:
                        for j in range(count):
                            panel[j] = row[j]
                    else:
                        for j in range(count):
                            row[j] = panel[j]

    @joined
    def copy_layers(home: Home, own: Array, packed: Array, into: bool) -> None:
        if own.size == 0:
            return
        at, n_layers = 0, home.weights_at.size
        for layer in range(n_layers):
            fan_in, fan_out, begin = home.units[layer], home.units[layer + 1], home.weights_at[layer]
            n_weights = fan_in * fan_out
            copy_weights(part(own, at, n_weights), part(packed, begin, packed.size - begin), fan_in, fan_out, into)
            at += n_weights
        for layer in range(n_layers):
            fan_out = home.units[layer + 1]
            row, panel = part(own, at, fan_out), part(packed, home.biases_at[layer], fan_out)
            copy_weights(row, panel, 1, fan_out, into)
            at += fan_out

    @compiled
    def copy(home: Home, homes: Array, active: Places, begin: int, end: int, into: bool) -> None:
        for place in range(begin, end):
            its = kept_at(home, homes, active[place])
            copy_layers(its, its.parameters, its.panel_parameters, into)
            copy_layers(its, its.first, its.panel_first, into)
            copy_layers(its, its.second, its.panel_second, into)
            if its.unscaled.size > 0:
                copy_weights(its.unscaled, its.panel_unscaled, its.units[0], its.units[1], into)

    return copy
