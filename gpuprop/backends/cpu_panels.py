"""The layout of the fused tier: matrices cut into panels that a register tile reads from left to right.

A matrix (fan_in, fan_out) is cut into panels of `width` columns; the last is as narrow as one vector if that is enough.
A panel is stored row after row, the missing columns of the last as zeros:

    panel 0: w[0, 0:32] w[1, 0:32] ... w[fan_in - 1, 0:32]    panel 1: w[0, 32:64] w[1, 32:64] ...

so that the tile multiplication reads one vector after the other. From a row-major matrix of 512 columns, whose rows are
all in the same few sets of the cache, the same multiplication takes a third longer.

The order of the layers is that of `gpuprop.network.Parameters`: all weights, then all biases. An optimizer works on
single numbers and does not see the difference; the padding has no gradient and stays zero.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.backends.cpu_compile import compiled
from gpuprop.backends.cpu_tiles import TileShape

__all__ = ["Panels", "padded", "row_stride", "transpose"]

Array = NDArray[Any]
Places = NDArray[np.int64]


def padded(n: int, multiple: int) -> int:
    """Return `n` rounded up to a multiple."""
    return -(-n // multiple) * multiple


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

    def pack(self, flat: Array, panels: Array) -> None:
        """Copy a flat buffer of the network's into panels, zeros into the padding: a diverged training left NaN."""
        panels[...] = 0
        _move(flat, panels, self.units, self.weights_at, self.biases_at, self.shape.width, self.shape.lanes, True)

    def unpack(self, panels: Array, flat: Array) -> None:
        """Copy panels into a flat buffer of the network's."""
        _move(flat, panels, self.units, self.weights_at, self.biases_at, self.shape.width, self.shape.lanes, False)


@compiled
def _move(
    flat: Array, panels: Array, units: Places, weights_at: Places, biases_at: Places, width: int, lanes: int, pack: bool
) -> None:
    at = 0
    for layer in range(units.size - 1):
        fan_in, fan_out = units[layer], units[layer + 1]
        for k in range(fan_in):
            for column in range(0, fan_out, width):
                rest = (fan_out - column + lanes - 1) // lanes * lanes
                wide = min(width, rest)
                place, count = weights_at[layer] + column * fan_in + k * wide, min(width, fan_out - column)
                here, there = flat[at + column : at + column + count], panels[place : place + count]
                for j in range(count):
                    if pack:
                        there[j] = here[j]
                    else:
                        here[j] = there[j]
            at += fan_out
    for layer in range(units.size - 1):
        for j in range(units[layer + 1]):
            if pack:
                panels[biases_at[layer] + j] = flat[at + j]
            else:
                flat[at + j] = panels[biases_at[layer] + j]
        at += units[layer + 1]


@compiled
def transpose(
    panels: Array, at: int, fan_in: int, fan_out: int, width: int, lanes: int, transposed: Array, to: int
) -> None:
    """Write the panels of the transposed weights of a layer, block by block of a panel of each."""
    for column in range(0, fan_out, width):
        wide = min(width, (fan_out - column + lanes - 1) // lanes * lanes)
        for row in range(0, fan_in, width):
            high = min(width, (fan_in - row + lanes - 1) // lanes * lanes)
            for j in range(min(wide, fan_out - column)):
                source = at + column * fan_in + row * wide + j
                target = to + row * fan_out + (column + j) * high
                for i in range(min(high, fan_in - row)):
                    transposed[target + i] = panels[source + i * wide]
