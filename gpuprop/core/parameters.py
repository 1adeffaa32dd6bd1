"""`Parameters`: one flat buffer of all weights and biases, and a view of each layer's."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import to_host

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array, ArrayOps

__all__ = ["Parameters", "padded"]

#: The row padding of each backend; see `gpuprop.core.ops.Ops.row_padding`.
ROW_PADDINGS = (1, 8)


def padded(n: int, multiple: int) -> int:
    """Return `n` rounded up to a multiple."""
    return -(-n // multiple) * multiple


class Parameters:
    """One flat buffer, and the weights and biases of each layer as views of it.

    All weights come first (W1, ..., WL, each row-major), then all biases, so that penalties and weight decay, which
    spare the biases, touch one contiguous slice. A backend may pad the rows of the matrices, and the biases, with
    zeros to a multiple of `row_padding` elements; on the host nothing is padded.

    Parameters
    ----------
    flat : array of shape (Parameters.count(layer_sizes, row_padding),)
    layer_sizes : tuple of int
    row_padding : int, default=1
    """

    def __init__(self, flat: Array, layer_sizes: tuple[int, ...], row_padding: int = 1) -> None:
        self.flat = flat
        self.layer_sizes = layer_sizes
        self.row_padding = row_padding
        self.weights: list[Array] = []
        self.biases: list[Array] = []
        start = 0
        for fan_in, fan_out in pairwise(layer_sizes):
            width = padded(fan_out, row_padding)
            self.weights.append(flat[start : start + fan_in * width].reshape(fan_in, width)[:, :fan_out])
            start += fan_in * width
        self.n_weights = start
        for fan_out in layer_sizes[1:]:
            self.biases.append(flat[start : start + fan_out])
            start += padded(fan_out, row_padding)

    def segments(self) -> list[tuple[int, int]]:
        """Return where the weights W[1] to W[L], and then the biases b[1] to b[L], begin and end in `flat`."""
        widths = [padded(fan_out, self.row_padding) for fan_out in self.layer_sizes[1:]]
        lengths = [fan_in * width for fan_in, width in zip(self.layer_sizes[:-1], widths, strict=True)] + widths
        ends = list(accumulate(lengths))
        return list(zip([0, *ends[:-1]], ends, strict=True))

    @staticmethod
    def count(layer_sizes: tuple[int, ...], row_padding: int = 1) -> int:
        """Return the number of weights and biases, padding included."""
        return sum((fan_in + 1) * padded(fan_out, row_padding) for fan_in, fan_out in pairwise(layer_sizes))

    def repacked(self, row_padding: int) -> Parameters:
        """Return a copy with another padding; the parameters must be on the host."""
        flat = np.zeros(self.count(self.layer_sizes, row_padding), self.flat.dtype)
        copy = Parameters(flat, self.layer_sizes, row_padding)
        for own, other in zip(self.weights + self.biases, copy.weights + copy.biases, strict=True):
            other[...] = own
        return copy

    def to_host(self, ops: ArrayOps) -> NDArray[Any]:
        """Return a flat copy on the host, without padding."""
        if self.row_padding == 1:
            return np.array(ops.to_numpy(self.flat))
        host = Parameters(ops.to_numpy(self.flat), self.layer_sizes, self.row_padding)
        return np.asarray(host.repacked(1).flat)

    @staticmethod
    def on_device(ops: ArrayOps, flat: NDArray[Any], layer_sizes: tuple[int, ...]) -> Parameters:
        """Return a copy on the device of a flat buffer of the host, with the backend's padding."""
        if ops.row_padding > 1:
            flat = Parameters(flat, layer_sizes).repacked(ops.row_padding).flat
        return Parameters(ops.asarray(flat, flat.dtype), layer_sizes, ops.row_padding)

    @staticmethod
    def in_layout(ops: ArrayOps, flat: Array, layer_sizes: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a flat array of any backend in the layout of this one; the same object if nothing has to change.

        Raises
        ------
        ValueError
            If the array does not have the size of these layers.
        """
        flat = ops.adopt(flat)
        if flat.size == Parameters.count(layer_sizes, ops.row_padding):
            return ops.asarray(flat, dtype)
        for row_padding in ROW_PADDINGS:
            if flat.size == Parameters.count(layer_sizes, row_padding):
                host = np.asarray(to_host(flat), dtype)
                bare = Parameters(host, layer_sizes, row_padding).repacked(1).flat
                return Parameters.on_device(ops, bare, layer_sizes).flat
        expected = Parameters.count(layer_sizes)
        raise ValueError(f"got a state of {flat.size} numbers, expected {expected}; resume with the network it is of")
