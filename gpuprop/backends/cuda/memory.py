"""The memory of a training step on a GPU: all arrays that its launches read and write, allocated once.

::

    workspace     | a1 | z1 | d1 | a2 | ... | d of the output | sums1 | sums2 | ...       of one network, then the next
    buffer        | parameters of network 0 | of network 1 | ... | state | 4 spare |
    parameters    | weights of layer 1 | of layer 2 | ... | biases of layer 1 | ...       of one network
    state         | first moment of network 0 | of network 1 | ... | second moment of network 0 | ...

"a1" is the output of layer 1, "z1" its net input (where f' needs it), "d1" its delta, and "sums1" the column sums of
the delta, one row for each block row that forms them. Kernels take views that are made here once, so that a launch
converts nothing. The launch of all gradients finds its operands by their offsets. What lies here for a network, its
launches find `gpuprop_kernels.networks.Networks` apart from what lies here for the one before.

The parameters and the optimizer's arrays of a network move into the buffer, where the network and its training then
find them. An epoch begins with a copy of the buffer, so that any network can go back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.cuda.translation import kernel_activation
from gpuprop.backends.steps import places_of
from gpuprop.core.parameters import Parameters
from gpuprop_kernels import launch
from gpuprop_kernels.gradient import GradientJob
from gpuprop_kernels.head import MOST_CLASSES
from gpuprop_kernels.launch import blocks, padded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda.array_ops import CudaArrays
    from gpuprop.core.array_ops import Array
    from gpuprop.core.updates import Training

__all__ = ["Scratch", "StepMemory"]

SPARE = 4
"""Elements behind the optimizers' state, so that optimizers that remember nothing have an array, too."""


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


class StepMemory:
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
    buffer : array
        Parameters and optimizer state of all networks.
    parameters, optimizer_state : array
        The two parts of it.
    n_parameters, n_workspace : int
        Elements of one network.
    flat, state, gradients
        Views of these two, and of gradients in memory, as kernels take them.
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
        self._ops, self._trainings, self._max_rows, self._scratch = ops, trainings, one.part_size, scratch
        self._count = len(trainings)
        self.dtype, self.sizes, self.top = spec.dtype, spec.layer_sizes, spec.n_layers
        self.activations: list[Any] = [None, *(kernel_activation(one) for one in spec.activations)]
        self.has_head = self.top > 1 and self.sizes[-1] <= MOST_CLASSES
        self._lay_out(drops_inputs)
        self._allocate_buffer(one)
        self.adopt()
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

    def _allocate_buffer(self, one: Training) -> None:
        """Allocate the buffer, with a row of parameters and rows of optimizer state for each network."""
        parameters, names = one.layers.parameters, list(one.rule.state)
        self.n_parameters = size = parameters.flat.size
        self.n_weights = parameters.n_weights
        n_all = self._count * size
        self.buffer = self._ops.empty((1 + len(names)) * n_all + SPARE, self.dtype)
        self.parameters, self.optimizer_state = self.buffer[:n_all], self.buffer[n_all:]
        self._rows = [self.parameters[at : at + size] for at in range(0, n_all, size)]
        self._state_rows = [
            {name: self.optimizer_state[at + i * n_all :][:size] for i, name in enumerate(names)}
            for at in range(0, n_all, size)
        ]

    def adopt(self) -> None:
        """Move the arrays of each network into the buffer, unless they are there already."""
        for training, row, state_rows in zip(self._trainings, self._rows, self._state_rows, strict=True):
            layers, state = training.layers, training.rule.state
            if layers.parameters.flat is not row:
                row[...] = layers.parameters.flat
                layers.parameters = Parameters(row, layers.spec.layout, self._ops.row_padding)
            for name, state_row in state_rows.items():
                if state[name] is not state_row:
                    state_row[...] = state[name]
                    state[name] = state_row

    def release(self, place: int) -> None:
        """Give the network at this place arrays of its own again, so that it does not keep the whole buffer."""
        training, row, state = self._trainings[place], self._rows[place], self._trainings[place].rule.state
        if training.layers.parameters.flat is row:
            training.layers.parameters = Parameters(row.copy(), training.layers.spec.layout, self._ops.row_padding)
        for name, state_row in self._state_rows[place].items():
            if state[name] is state_row:
                state[name] = state_row.copy()

    def go_back(self, before: Array, places: Sequence[int], *, parameters: bool) -> None:
        """Restore the state of these networks, and perhaps their parameters, from a copy of the buffer or of states."""
        size, n_all = self.n_parameters, self._count * self.n_parameters
        n_arrays, missing = self.buffer.size // n_all, self.buffer.size - before.size
        for place in places:
            for i in range(0 if parameters else 1, n_arrays):
                at = i * n_all + place * size
                self.buffer[at : at + size] = before[at - missing : at - missing + size]

    def host_parameters(self) -> list[NDArray[Any]]:
        """Return the parameters of each network, without padding: one copy from the device serves them all."""
        host, layout = self._ops.to_numpy(self.parameters), self._trainings[0].layers.spec.layout
        rows = host.reshape(self._count, self.n_parameters)
        return [np.asarray(Parameters(row, layout, self._ops.row_padding).repacked(1).flat) for row in rows]

    def _view_parameters(self, keeps_gradients: bool) -> None:
        view, n_all = self._ops.runtime.view, self.parameters.size
        self.flat, self.state = view(self.parameters), view(self.optimizer_state)
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
