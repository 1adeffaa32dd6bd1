"""The memory of a training step on a GPU: all arrays that its launches read and write, allocated once.

::

    workspace     | a1 | z1 | d1 | a2 | ... | d of the output | sums1 | sums2 | ...       of one network, then the next
    parameters, optimizer's state      in a buffer of their own: `gpuprop.backends.cuda.network_buffer`

"a1" is the output of layer 1, "z1" its net input (where f' needs it), "d1" its delta, and "sums1" the column sums of
the delta, one row for each block row that forms them. Kernels take views that are made here once, so that a launch
converts nothing. The launch of all gradients finds its operands by their offsets. What lies here for a network, its
launches find `gpuprop_kernels.networks.Networks` apart from what lies here for the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.cuda.network_buffer import SPARE, NetworkBuffer
from gpuprop.backends.cuda.translation import kernel_activation
from gpuprop.backends.steps import places_of
from gpuprop_kernels import launch
from gpuprop_kernels.gradient import GradientJob
from gpuprop_kernels.head import MOST_CLASSES
from gpuprop_kernels.launch import blocks, padded

if TYPE_CHECKING:
    from gpuprop.backends.cuda.array_ops import CudaArrays
    from gpuprop.core.array_ops import Array
    from gpuprop.core.updates import Training

__all__ = ["Scratch", "StepMemory"]


class Scratch:
    """Arrays that nobody reads once an update has been made; plans that take turns share them.

    Parameters
    ----------
    ops : CudaArrays
    """

    def __init__(self, ops: CudaArrays) -> None:
        self._ops = ops
        self._arrays: dict[str, Array] = {}

    def take(self, name: str, size: int, dtype: Any) -> Array:
        """Return an array of this size; one that was allocated under this name before serves if it is large enough."""
        array = self._arrays.get(name)
        if array is None or array.size < size or array.dtype != dtype:
            array = self._arrays[name] = self._ops.empty(size, dtype)
        return array[:size]

    @property
    def n_bytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for array in self._arrays.values())


class StepMemory(NetworkBuffer):
    """Workspace, parameters and optimizer state of the updates of networks of one shape, as kernels take them.

    Parameters
    ----------
    ops : CudaArrays
    trainings : sequence of Training
        Their parameters, and their optimizers' arrays, move into one buffer.
    scratch : Scratch
        Holds the workspace and the gradients.
    keeps_gradients : bool
        Whether gradients are written to memory at all.
    drops_inputs : bool
        Whether the inputs of a part are written to memory as "a0", after their dropout.

    Attributes
    ----------
    n_workspace : int
        Elements of one network's workspace.
    gradients
        A view of gradients in memory, as kernels take it.
    view : dict
        A view of each array of the workspace, by name, as kernels take it.
    tiles : list
        The tile of each layer's products with rows of the batch; like `weights` and `biases`, it counts from 1.
    sum_rows : list of int
        The number of rows of each layer's column sums.
    """

    def __init__(
        self, ops: CudaArrays, trainings: Sequence[Training], scratch: Scratch, *, keeps_gradients: bool,
        drops_inputs: bool,
    ) -> None:  # fmt: skip
        (one, *_), spec = trainings, trainings[0].layers.spec
        super().__init__(ops, trainings)
        self._max_rows, self._scratch = one.part_size, scratch
        self.sizes, self.top = spec.layer_sizes, spec.n_layers
        self.activations: list[Any] = [None, *(kernel_activation(one) for one in spec.activations)]
        self.has_head = self.top > 1 and self.sizes[-1] <= MOST_CLASSES
        self._lay_out(drops_inputs)
        self._view_parameters(keeps_gradients)

    def _lay_out(self, drops_inputs: bool) -> None:
        """Allocate one flat workspace, with a view of each array in it: "a1", "z1", "d1" and "sums1" of layer 1, ..."""
        tall, sizes, lengths = self._max_rows, self.sizes, {}
        gathers = [not drops_inputs, *[False] * (self.top - 1)]
        self.tiles: list[Any] = [None]
        for size, from_data in zip(sizes[1:], gathers, strict=True):
            self.tiles.append(self._ops.tile(tall, size, self.dtype, needs_registers=from_data))
        self.sum_rows = [0, *(blocks(tall, tile.rows) for tile in self.tiles[1:])]
        if drops_inputs:
            lengths["a0"] = tall * padded(sizes[0])
        for layer in range(1, self.top):
            lengths[f"a{layer}"] = lengths[f"d{layer}"] = tall * padded(sizes[layer])
            if self.activations[layer].derivative_of == "z":
                lengths[f"z{layer}"] = lengths[f"a{layer}"]
        if self.has_head:
            # For the last two layers, each of the head's blocks leaves one row of column sums.
            self.sum_rows[-2:] = [blocks(tall, launch.head_rows().rows)] * 2
        else:
            lengths[f"z{self.top}"] = tall * padded(sizes[-1])
        lengths[f"d{self.top}"] = tall * padded(sizes[-1])
        for layer in range(1, self.top + 1):
            lengths[f"sums{layer}"] = self.sum_rows[layer] * padded(sizes[layer])
        ends = np.cumsum([0, *lengths.values()]).tolist()
        self._offsets = dict(zip(lengths, ends, strict=False))
        self.n_workspace = ends[-1]
        self._lengths = lengths
        view = self._ops.runtime.view
        self.counts = view(self._scratch.take("counts", self._count * self.sum_rows[-1], np.dtype(np.uint32)))
        self._workspace = self._scratch.take("workspace", self._count * self.n_workspace, self.dtype)
        self.whole_workspace = view(self._workspace)
        others = (self._count - 1) * self.n_workspace
        self.view = {
            name: view(self._workspace[self._offsets[name] : self._offsets[name] + n + others])
            for name, n in lengths.items()
        }

    def _view_parameters(self, keeps_gradients: bool) -> None:
        view, n_all = self._ops.runtime.view, self.parameters.size
        self.weights, self.biases, self._weights_at, self._biases_at = [None], [None], [0], [0]
        others, start = n_all - self.n_parameters, 0
        for n_in, n_out in pairwise(self.sizes):
            self._weights_at.append(start)
            self.weights.append(view(self.parameters[start : start + n_in * padded(n_out) + others]))
            start += n_in * padded(n_out)
        for n_out in self.sizes[1:]:
            self._biases_at.append(start)
            self.biases.append(view(self.parameters[start : start + padded(n_out) + others]))
            start += padded(n_out)
        self.gradients = view(self._scratch.take("gradients", n_all if keeps_gradients else SPARE, self.dtype))

    def gradient_jobs(self, *, gathers: bool) -> list[GradientJob]:
        """Return a job for each layer's gradient; if `gathers`, the first layer reads its inputs from the data set."""
        return [
            GradientJob(
                self.sizes[layer - 1],
                self.sizes[layer],
                self._offsets.get(f"a{layer - 1}", 0),
                self._offsets[f"d{layer}"],
                self._offsets[f"sums{layer}"],
                self.sum_rows[layer],
                self._weights_at[layer],
                self._biases_at[layer],
                gathered=layer == 1 and gathers,
            )
            for layer in range(1, self.top + 1)
        ]

    def source(self, layer: int) -> Any:
        """Return the array from which a hidden layer's derivative is computed: its net inputs or its outputs."""
        return self.view.get(f"z{layer}", self.view[f"a{layer}"])

    def places(self) -> Iterator[tuple[str, Array]]:
        """Yield what the last update of a lone network left, in the order of the algorithm."""
        layers = range(1, self.top + 1)
        names = {
            **{f"a{layer}": f"the output of layer {layer}" for layer in layers},
            "z" + str(self.top): f"the output of layer {self.top}",
            **{f"d{layer}": f"the delta of layer {layer}" for layer in reversed(layers)},
        }
        for short, name in names.items():
            if short in self._lengths:
                at = self._offsets[short]
                yield name, self._workspace[at : at + self._lengths[short]]
        yield from places_of(self._trainings[0].layers.parameters)
