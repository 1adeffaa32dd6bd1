"""`Parameters`: one flat buffer of all that a network trains, and a view of each layer's part."""

from __future__ import annotations

import functools
from itertools import accumulate, islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpuprop.arrays import at_cache_line, to_host

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array, ArrayOps

__all__ = ["Layout", "Parameters", "padded"]

#: The row padding of each backend; see `gpuprop.core.ops.Ops.row_padding`.
ROW_PADDINGS = (1, 8)


def padded(n: int, multiple: int) -> int:
    """Return `n` rounded up to a multiple."""
    return -(-n // multiple) * multiple


class Layout(NamedTuple):
    """What a network's parameters are.

    Attributes
    ----------
    layer_sizes : tuple of int
    has_slopes : bool
        Whether each hidden unit has a slope, see `gpuprop.core.slopes`.
    embedding : tuple of int
        The numbers of parameters of an `InputEmbedding`; empty without one.
    batch_norm : bool
        Whether each hidden unit has a scale, and running averages of mean and variance, see `gpuprop.core.blocks`.
    """

    layer_sizes: tuple[int, ...]
    has_slopes: bool = False
    embedding: tuple[int, ...] = ()
    batch_norm: bool = False

    @property
    def vectors(self) -> tuple[int, ...]:
        """The lengths of what follows the weights.

        These are biases, slopes of the hidden layers, their scales, means and variances, and embeddings.
        """
        hidden = self.layer_sizes[1:-1]
        return (*self.layer_sizes[1:], *(hidden * self.has_slopes), *(hidden * 3 * self.batch_norm), *self.embedding)


@functools.lru_cache(maxsize=64)
def _segments(layout: Layout, row_padding: int) -> tuple[tuple[int, int], ...]:
    widths = [padded(fan_out, row_padding) for fan_out in layout.layer_sizes[1:]]
    lengths = [fan_in * width for fan_in, width in zip(layout.layer_sizes[:-1], widths, strict=True)]
    lengths += [padded(length, row_padding) for length in layout.vectors]
    ends = list(accumulate(lengths))
    return tuple(zip([0, *ends[:-1]], ends, strict=True))


class Parameters:
    """One flat buffer, and the parameters of each layer as views of it.

    All weights come first (W1, ..., WL, each row-major), then all biases, so that penalties and weight decay, which
    spare the biases, touch one contiguous slice; then slopes, what batch normalisation has, and embeddings, where there
    are some. Running averages lie here, too, so that they are kept, moved and restored with the rest; their gradient is
    always zero, which every optimizer leaves alone. A backend may pad
    the rows of the matrices, and the vectors, with zeros to a multiple of `row_padding` elements; on the host nothing
    is padded.

    Parameters
    ----------
    flat : array of shape (Parameters.count(layout, row_padding),)
    layout : Layout or tuple of int
        A tuple is the layer sizes of a network without slopes and embeddings.
    row_padding : int, default=1
    """

    def __init__(self, flat: Array, layout: Layout | tuple[int, ...], row_padding: int = 1) -> None:
        self.flat = flat
        self.layout = layout = _layout(layout)
        self.layer_sizes = layout.layer_sizes
        self.row_padding = row_padding
        self.weights: list[Array] = []
        start = 0
        for fan_in, fan_out in pairwise(layout.layer_sizes):
            width = padded(fan_out, row_padding)
            self.weights.append(flat[start : start + fan_in * width].reshape(fan_in, width)[:, :fan_out])
            start += fan_in * width
        self.n_weights = start
        vectors = []
        for length in layout.vectors:
            vectors.append(flat[start : start + length])
            start += padded(length, row_padding)
        n_hidden, rest = len(self.weights) - 1, iter(vectors)
        n_slopes, n_scales = n_hidden * layout.has_slopes, n_hidden * layout.batch_norm
        self.biases: list[Array] = list(islice(rest, n_hidden + 1))
        self.slopes: list[Array] = list(islice(rest, n_slopes))
        self.scales: list[Array] = list(islice(rest, n_scales))
        self.means: list[Array] = list(islice(rest, n_scales))
        self.variances: list[Array] = list(islice(rest, n_scales))
        self.embedding: list[Array] = list(rest)

    @property
    def arrays(self) -> list[Array]:
        """Views of all parameters, in their order in `flat`."""
        normalising = [*self.scales, *self.means, *self.variances]
        return [*self.weights, *self.biases, *self.slopes, *normalising, *self.embedding]

    def segments(self) -> tuple[tuple[int, int], ...]:
        """Return where each of `arrays` begins and ends in `flat`, its padding included."""
        return _segments(self.layout, self.row_padding)

    @staticmethod
    def count(layout: Layout | tuple[int, ...], row_padding: int = 1) -> int:
        """Return the number of parameters, padding included."""
        found = _layout(layout)
        weights = sum(fan_in * padded(fan_out, row_padding) for fan_in, fan_out in pairwise(found.layer_sizes))
        return weights + sum(padded(length, row_padding) for length in found.vectors)

    def repacked(self, row_padding: int) -> Parameters:
        """Return a copy with another padding; the parameters must be on the host."""
        flat = np.zeros(self.count(self.layout, row_padding), self.flat.dtype)
        copy = Parameters(flat, self.layout, row_padding)
        for own, other in zip(self.arrays, copy.arrays, strict=True):
            other[...] = own
        return copy

    def to_host(self, ops: ArrayOps) -> NDArray[Any]:
        """Return a flat copy on the host, without padding."""
        if self.row_padding == 1:
            return np.array(ops.to_numpy(self.flat))
        host = Parameters(ops.to_numpy(self.flat), self.layout, self.row_padding)
        return np.asarray(host.repacked(1).flat)

    @staticmethod
    def on_device(ops: ArrayOps, flat: NDArray[Any], layout: Layout | tuple[int, ...]) -> Parameters:
        """Return a copy on the device of a flat buffer of the host, with the backend's padding."""
        if ops.row_padding > 1:
            flat = Parameters(flat, layout).repacked(ops.row_padding).flat
        elif ops.on_host:
            flat = at_cache_line(np.ascontiguousarray(flat))
        return Parameters(ops.asarray(flat, flat.dtype), layout, ops.row_padding)

    @staticmethod
    def in_layout(ops: ArrayOps, flat: Array, layout: Layout | tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a flat array of any backend in the layout of this one; the same object if nothing has to change.

        Raises
        ------
        ValueError
            If the array does not have the size of these layers.
        """
        flat = ops.adopt(flat)
        if flat.size == Parameters.count(layout, ops.row_padding):
            return ops.asarray(flat, dtype)
        for row_padding in ROW_PADDINGS:
            if flat.size == Parameters.count(layout, row_padding):
                host = np.asarray(to_host(flat), dtype)
                bare = Parameters(host, layout, row_padding).repacked(1).flat
                return Parameters.on_device(ops, bare, layout).flat
        expected = Parameters.count(layout)
        raise ValueError(f"got a state of {flat.size} numbers, expected {expected}; resume with the network it is of")


def _layout(layout: Layout | tuple[int, ...]) -> Layout:
    """Return a layout; plain layer sizes stand for one without slopes and embeddings."""
    return layout if isinstance(layout, Layout) else Layout(layout)
