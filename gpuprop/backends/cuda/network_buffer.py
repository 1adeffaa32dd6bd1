"""The parameters and the optimizers' state of networks of one shape, in one buffer on a GPU.

::

    buffer        | parameters of network 0 | of network 1 | ... | state | 4 spare |
    parameters    | weights of layer 1 | of layer 2 | ... | biases of layer 1 | ...       of one network
    state         | first moment of network 0 | of network 1 | ... | second moment of network 0 | ...

The parameters and the optimizer's arrays of a network move into the buffer, where the network and its training then
find them. An epoch begins with a copy of the buffer, so that any network can go back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.steps import places_of
from gpuprop.core.parameters import Parameters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda.array_ops import CudaArrays
    from gpuprop.core.array_ops import Array
    from gpuprop.core.updates import Training

__all__ = ["SPARE", "NetworkBuffer"]

SPARE = 4
"""Elements behind the optimizers' state, so that optimizers that remember nothing have an array, too."""


class NetworkBuffer:
    """The buffer of some networks.

    Parameters
    ----------
    ops : CudaArrays
    trainings : sequence of Training
        Their parameters, and their optimizers' arrays, move into the buffer.

    Attributes
    ----------
    buffer : array
        Parameters and optimizer state of all networks.
    parameters, optimizer_state : array
        The two parts of it.
    n_parameters, n_weights : int
        Elements of one network: of all its parameters, and of its weights.
    flat, state
        Views of these two, as kernels take them.
    """

    def __init__(self, ops: CudaArrays, trainings: Sequence[Training]) -> None:
        self._ops, self._trainings, self._count = ops, trainings, len(trainings)
        self.dtype = trainings[0].layers.spec.dtype
        self._allocate_buffer(trainings[0])
        self.adopt()
        view = ops.runtime.view
        self.flat, self.state = view(self.parameters), view(self.optimizer_state)

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

    def places(self) -> Iterator[tuple[str, Array]]:
        """Yield what the last update of a lone network left: its parameters."""
        yield from places_of(self._trainings[0].layers.parameters)
