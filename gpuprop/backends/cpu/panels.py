"""The layout of the fused tier: matrices cut into panels that a register tile reads from left to right.

A matrix (fan_in, fan_out) is cut into panels of `width` columns; the last is as narrow as one vector if that is enough.
A panel is stored row after row, the missing columns of the last as zeros:

    panel 0: w[0, 0:32] w[1, 0:32] ... w[fan_in - 1, 0:32]    panel 1: w[0, 32:64] w[1, 32:64] ...

so that the tile multiplication reads one vector after the other. From a row-major matrix of 512 columns, whose rows are
all in the same few sets of the cache, the same multiplication takes a third longer.

The layers lie in the order of `gpuprop.core.parameters.Parameters`: all weights, then all biases. An optimizer works on
single numbers and does not see the difference; the padding has no gradient and stays zero.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from gpuprop.backends.cpu.compiling import compiled
from gpuprop.backends.cpu.tiles import TileShape

__all__ = ["Panels", "aligned", "padded", "row_stride", "transposition"]

Array = NDArray[Any]
Places = NDArray[np.int64]

LINE = 64
"""Bytes of a line of the cache."""

#: Rows of a matrix that are copied to or from panels at a time, and the numbers from which on that is done. All rows of
#: one panel after the other are a page apart: the parameters and the memory of Adam of 784-1024-1024-1024-10 took 17 ms
#: to copy and 24 to copy back, and take 7 and 7.
_ROWS, _NUMBERS = 32, 32_768

_INT = ir.IntType(64)


def padded(n: int, multiple: int) -> int:
    """Return `n` rounded up to a multiple."""
    return -(-n // multiple) * multiple


def aligned(sizes: int | tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return zeros that begin with a cache line: of NumPy's own arrays every vector would lie in two."""
    n_bytes = int(np.prod(sizes)) * dtype.itemsize
    raw = np.zeros(n_bytes + LINE, np.uint8)
    begin = -raw.ctypes.data % LINE
    return raw[begin : begin + n_bytes].view(dtype).reshape(sizes)


def row_stride(n_columns: int, shape: TileShape) -> int:
    """Return how far apart the rows of a layer are: whole vectors, tiles to the end, and not in the same cache sets.

    Rows whose distance is a multiple of 512 bytes fall into a few of the sets of the first cache.
    """
    stride = padded(padded(n_columns, shape.rows), shape.lanes)
    return stride if stride // shape.lanes % 8 else stride + shape.lanes


class Panels:
    """Where each layer's weights and biases are in a flat buffer of panels.

    Attributes
    ----------
    units : array of int64
        The layer sizes, the input's first.
    weights_at, biases_at, transposed_at : array of int64
        Of layer l at index l - 1: where its weights and biases begin in the buffer, and its transposed weights in a
        buffer of their own.
    n_weights, size, transposed_size : int
        Lengths: of all weights, of the buffer, of the buffer of transposed weights.
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
        """Return views of the same parameters in a flat buffer of the network's and in panels.

        They are the weights, some rows of all full panels of a layer at a time and then those of its last panel, and
        the biases of each layer; the padding is in none of them.
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


@intrinsic(prefer_literal=True)
def _turn(context, lanes, source, at, row_stride, n_rows, target, to, column_stride, n_columns):  # type: ignore[no-untyped-def]
    """Write the square ``source[at + i * row_stride + j]``, of `lanes` rows, to ``target[to + j * column_stride + i]``.

    Of the rows `n_rows` are there, the others are zeros; `n_columns` are written.
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
            """Return where a vector is, or the last of `count`, and whether there are so many."""
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
        # A number's place is (row, lane). Merging each row of the upper half with one of the lower half moves the
        # first bit of the row's number to the end of the lane's, and the first of the lane's to the end of the row's:
        # after as many rounds as a lane's number has bits, the two have changed places.
        for _ in range(n.bit_length() - 1):
            pairs = zip(square[: n // 2], square[n // 2 :], strict=True)
            square = [_merged(builder, upper, lower, n, half) for upper, lower in pairs for half in (0, n // 2)]
        for j in reversed(range(n)):  # what is missing goes where the last column goes afterwards
            address, _ = place(written, to, j, n_columns, column_stride)
            stored = builder.store(square[j], address)
            stored.align = size
        return context.get_dummy_value()

    places = (types.intp,) * 3
    return types.none(lanes, source, *places, target, *places), build


def _merged(builder: Any, upper: Any, lower: Any, n: int, first: int) -> Any:
    """Return half of the numbers of two vectors, from `first` on, in turn."""
    numbers = [first + lane // 2 + (n if lane % 2 else 0) for lane in range(n)]
    return builder.shuffle_vector(upper, lower, ir.Constant(ir.VectorType(ir.IntType(32), n), numbers))


@functools.cache
def transposition(shape: TileShape) -> Callable[..., None]:
    """Return ``transpose(panels, at, fan_in, fan_out, transposed, to, first, stop)``: columns of a layer's weights.

    Those from `first`, a multiple of the numbers in a vector, to `stop`, which is another or lies behind the last one.

    By squares that fit into the registers: number by number it takes much of an online step.
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
