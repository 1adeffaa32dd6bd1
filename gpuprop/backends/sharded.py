"""The plan whose updates are cut into a fixed number of shards, which several processes may divide among themselves.

Each shard's gradient is formed by the primitives of `gpuprop.core.step`, with one thread of BLAS, whose bits depend on
the number of its threads. `gpuprop.core.communicator` says how the shards are added. Every process then has the whole
gradient, to which penalties are added, and makes the same update of its own copy of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gpuprop.backends.steps import StepsPlan, places_of, put_back, taken_out
from gpuprop.core import step
from gpuprop.core.communicator import Communicator, add_in_a_tree
from gpuprop.core.parameters import Parameters
from gpuprop.core.updates import Batch, Moment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.core.plan import TrainingState
    from gpuprop.core.updates import Training

__all__ = ["AddUp", "ShardedPlan", "add_up_on_host"]

#: Replaces a flat array of a device by the sum of those of all processes.
AddUp: TypeAlias = "Callable[[Array, Communicator], None]"

_SHARDS = "totals of shards"
"""The name of the part of a state that holds the sums of each shard, and in a last row those of the penalties."""


def add_up_on_host(flat: Array, communicator: Communicator) -> None:
    """Replace an array of the host by the sum of those of all processes."""
    communicator.sum_gradients(flat)


class ShardedPlan(StepsPlan):
    """`gpuprop.core.plan.Plan` that forms the gradient of each shard by itself and adds the shards in a fixed tree.

    Parameters
    ----------
    training : Training
        With a sharding.
    around_updates : callable
        See `StepsPlan`.
    add_up : callable
        Adds an array of this process's device to those of the others.
    """

    name = "sharded"

    def __init__(
        self,
        training: Training,
        *,
        around_updates: Callable[[], AbstractContextManager[None]] = nullcontext,
        add_up: AddUp = add_up_on_host,
    ) -> None:
        assert training.sharding is not None, "the choice of a plan has looked"
        self._sharding = sharding = training.sharding
        self._add_up = add_up
        n_shards, size = sharding.n_shards, sharding.communicator.size
        of_shard = -(-training.update_size // n_shards)
        processes = "one process" if size == 1 else f"{size} processes"
        super().__init__(
            replace(training, part_size=max(1, min(training.part_size, of_shard))),
            f"sharded: {n_shards} shards of each update, formed by {processes} and added in one fixed tree, so that "
            "any number of processes gives the same bits",
            n_threads=training.n_threads or 1,
            around_updates=around_updates,
        )
        ops, spec = training.layers.ops, training.layers.spec
        count = Parameters.count(spec.layout, ops.row_padding)
        # A sum of 2^l shards waits on level l for its neighbour; the last level is the branch of this process.
        self._levels = [
            Parameters(ops.asarray(np.zeros(count), spec.dtype), spec.layout, ops.row_padding)
            for _ in range(len(sharding.own).bit_length())
        ]
        # A row for each shard, and a last one for the penalties, which every process adds for itself.
        self._shard_totals = ops.asarray(np.zeros((n_shards + 1, 2)), np.float64)
        self._gathered = np.zeros((n_shards + 1, 2))

    @property
    def gradients(self) -> Parameters:
        """The sum over all shards that the last update was made from."""
        return self._levels[-1]

    def begin_epoch(self, *updates: Any) -> None:
        """Take what is new in an epoch."""
        with self._training.layers.ops.active():
            super().begin_epoch(*updates)
            self._shard_totals[...] = 0.0
        self._gathered[...] = 0.0

    def run(self, first: int, last: int) -> None:
        """Make the updates `first` to `last` - 1, and learn the sums of all shards."""
        super().run(first, last)
        own, totals = self._sharding.own, self._training.layers.ops.to_numpy(self._shard_totals)
        rows = self._sharding.communicator.gather(np.array(totals[own.start : own.stop]))
        self._gathered[...] = np.concatenate([*rows, totals[-1:]])

    def _step(self, index: int) -> None:
        layers, epoch, size = self._training.layers, self._epoch, self._training.update_size
        start, weight = index * size, self._weights[index]
        n_rows = min(start + size, len(epoch.order)) - start
        steps_done, dropout_factor = epoch.steps_done + index, self._dropout_factors[index]
        for place, shard in enumerate(self._sharding.own):
            first, end = self._sharding.rows(n_rows, shard)
            batch = Batch(epoch.data, self._order, start + first, start + end, weight, first)
            self._work.totals[...] = 0.0
            if first == end:
                self._work.gradients.flat[...] = 0.0
            step.batch_gradients(layers, self._work, batch, steps_done, dropout_factor)
            self._shard_totals[shard] += self._work.totals
            self._add(place)
        self._add_up(self.gradients.flat, self._sharding.communicator)
        self._work.totals[...] = 0.0
        step.add_penalty(layers, self.gradients, weight, self._work.totals, self._penalty_factors[index])
        self._shard_totals[-1] += self._work.totals
        moment = Moment(
            self._rates[index], steps_done, self._penalty_factors[index], dropout_factor, self._decays[index]
        )
        step.update(layers, self.gradients, self._rule, moment)

    def _add(self, place: int) -> None:
        """Take the gradient of this process's shard of that place into the tree."""
        levels, level = self._levels, 0
        if place % 2 == 0:
            levels[0].flat[...] = self._work.gradients.flat
        else:
            levels[0].flat[...] += self._work.gradients.flat
            level = 1
            while place >> level & 1:
                levels[level].flat[...] += levels[level - 1].flat
                level += 1
            levels[level], levels[level - 1] = levels[level - 1], levels[level]

    def totals(self) -> NDArray[np.float64]:
        """Return the sums of loss and score over the epoch so far, (1, 2)."""
        return np.asarray(add_in_a_tree(self._gathered[:-1]) + self._gathered[-1])[None, :]

    def state(self) -> tuple[TrainingState, ...]:
        """Return what the remaining updates depend on; it is the same for every process."""
        parts = {_SHARDS: self._gathered.copy()}
        return (taken_out(self._training, self._position, self.totals()[0], parts),)

    def restore(self, *states: TrainingState) -> None:
        """Go on from a state."""
        (state,) = states
        ops = self._training.layers.ops
        with ops.active():
            put_back(self._training, state)
        parts = state.parts.get(_SHARDS)
        if parts is None or parts.shape != self._gathered.shape:
            self._gathered[...] = 0.0
            self._gathered[-1] = state.totals
        else:
            self._gathered[...] = parts
        with ops.active():
            self._shard_totals[...] = ops.asarray(self._gathered, np.float64)
        self._position = state.position

    def places(self) -> Iterator[tuple[str, Array]]:
        """Yield what the last update left that every process has: sums of loss and gradients, and parameters."""
        layers = self._training.layers
        numbers = range(1, layers.spec.n_layers + 1)
        yield "the loss", layers.ops.asarray(self.totals(), np.float64)
        yield from ((f"the weight gradient of layer {layer}", self.gradients.weights[layer - 1]) for layer in numbers)
        yield from ((f"the bias gradient of layer {layer}", self.gradients.biases[layer - 1]) for layer in numbers)
        yield from places_of(layers.parameters)
