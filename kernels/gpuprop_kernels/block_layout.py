"""Where everything of one network lies in the shared memory of its block, and how much of it there must be.

::

    shared memory   | reductions | W1 .. bL | s | t | a0 | a1 z1 d1 | a2 z2 d2 | ... | zL |      one buffer of the dtype
                     a number a     the flat    up to      the rows of a batch; z only where      zL becomes
                     thread         parameters  two        f' needs it                            the output's delta
                                                states

The table that the kernel reads has eight numbers a layer (`LAYER_SIZE`), the first layer first::

    n_in  n_out  inputs_at  outputs_at  |  source_at  delta_at  weights_at  biases_at

`source_at` is where the layer's f' finds what it takes, its outputs or its net inputs. For the output layer
`outputs_at`, `source_at` and `delta_at` are one place. Rows are `shapes.padded`, as in global memory, so that
parameters and states come and go as they lie. Two more numbers for each row would spare the deltas' bank conflicts and
cost a fifth of the memory, which decides whether a network fits at all.

Budget: 64-32-16-10 in float32 with adam and 32 rows needs 33.8 KiB for parameters and states, 20 KiB for the batch and
1 KiB for reductions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gpuprop_kernels.shapes import blocks, padded
from gpuprop_kernels.target import SIM

__all__ = [
    "LANES", "LANE_BITS", "LAYER_SIZE", "MOST_UPDATES", "BlockLayout", "block_layout", "fits_a_block", "multiply_adds",
    "worth_a_block",
]  # fmt: skip

LAYER_SIZE = 8
"""Numbers of a layer in the table."""

LANE_BITS = 2
LANES = 1 << LANE_BITS
"""Threads that share a row at the output layer."""

PRODUCTS_OF_A_LAUNCH = 2**17
"""The multiply-adds that a block makes in the time of one launch. This was computed, not measured on a GPU: a block of
256 threads that makes one for each two loads from shared memory reaches some 50 a nanosecond, and a launch inside of a
graph takes 2 to 3 microseconds."""

MOST_UPDATES = 4096
"""The most updates in one launch, so that a launch takes some tenths of a second at most."""

_FEWEST_THREADS, _MOST_THREADS = (16, 16) if SIM else (64, 256)


@dataclass(frozen=True)
class BlockLayout:
    """What a launch needs to know of the networks' shape.

    Attributes
    ----------
    table : int32 array of shape (n_layers * LAYER_SIZE,)
    size : int
        Elements of shared memory.
    threads : int
        Threads of a block.
    n_parameters : int
        Elements of the flat parameters, padding included.
    """

    table: NDArray[np.int32]
    size: int
    threads: int
    n_parameters: int

    @property
    def n_layers(self) -> int:  # noqa: D102
        return len(self.table) // LAYER_SIZE


def block_layout(sizes: Sequence[int], rows: int, *, state_arrays: int, keeps_z: bool) -> BlockLayout:
    """Return the layout for updates of up to `rows` rows.

    Parameters
    ----------
    sizes : sequence of int
        The number of inputs, then the units of each layer.
    rows : int
    state_arrays : int
        Arrays of the optimizer's state.
    keeps_z : bool
        Whether the hidden layers' f' takes the net input.
    """
    lds = [padded(n) for n in sizes]
    weights = [n_in * ld for n_in, ld in zip(sizes[:-1], lds[1:], strict=True)]
    n_parameters = sum(weights) + sum(lds[1:])
    threads = _threads(max(blocks(rows * ld, 4) for ld in lds))
    weights_at, biases_at = threads, threads + sum(weights)
    inputs_at = threads + (1 + state_arrays) * n_parameters
    end = inputs_at + rows * lds[0]
    table, top = [], len(sizes) - 1
    for layer, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
        area = rows * lds[layer]
        outputs_at = end
        hidden = layer < top
        source_at = outputs_at + area * (hidden and keeps_z)
        delta_at = source_at + area * hidden
        end = delta_at + area
        table += [n_in, n_out, inputs_at, outputs_at, source_at, delta_at, weights_at, biases_at]
        weights_at, biases_at, inputs_at = weights_at + weights[layer - 1], biases_at + lds[layer], outputs_at
    return BlockLayout(np.array(table, np.int32), end, threads, n_parameters)


def fits_a_block(
    sizes: Sequence[int], rows: int, *, itemsize: int, state_arrays: int, block_memory: int, keeps_z: bool = False
) -> bool:
    """Return whether a network trains in a block: it fits `block_memory`, and its launches would take longer."""
    layout = block_layout(sizes, rows, state_arrays=state_arrays, keeps_z=keeps_z)
    return layout.size * itemsize <= block_memory and worth_a_block(sizes, rows)


def worth_a_block(sizes: Sequence[int], rows: int) -> bool:
    """Return whether a block makes an update in the time of the 2 L - 1 launches that L layers take."""
    return multiply_adds(sizes, rows) <= PRODUCTS_OF_A_LAUNCH * (2 * len(sizes) - 3)


def multiply_adds(sizes: Sequence[int], rows: int) -> int:
    """Return the multiply-adds of an update: forward and gradient of each layer, and the delta of each hidden one."""
    return rows * sum((2 + (layer > 0)) * n_in * n_out for layer, (n_in, n_out) in enumerate(pairwise(sizes)))


def _threads(groups: int) -> int:
    """Return a power of two: a thread for each group of four numbers of the widest layer's rows, within bounds."""
    return min(_MOST_THREADS, max(_FEWEST_THREADS, 1 << (groups - 1).bit_length()))
