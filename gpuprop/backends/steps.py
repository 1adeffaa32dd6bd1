"""The plan that every backend has: one primitive after the other, as `gpuprop.core.step` writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gpuprop.backends.threads import limited_blas
from gpuprop.core import step
from gpuprop.core.parameters import Parameters
from gpuprop.core.plan import TrainingState
from gpuprop.core.updates import Batch, Moment
from gpuprop.core.workspace import TrainingWorkspace

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array, ArrayOps
    from gpuprop.core.rule import UpdateRule
    from gpuprop.core.updates import EpochUpdates, Training

__all__ = ["Memory", "StepsPlan", "places_of", "put_back", "scaling_arrays", "scaling_on_host", "taken_out"]


class StepsPlan:
    """`gpuprop.core.plan.Plan` that calls the primitives: one `gpuprop.core.step.training_step` after the other.

    Parameters
    ----------
    training : Training
    reason : str
        One sentence that says which path this is and why it was chosen.
    n_threads : int or None
        The most threads that BLAS may use; None leaves it alone.
    around_updates : callable
        Returns the context in which updates are made; a CPU that is slow on subnormal numbers flushes them there.
    """

    name = "steps"
    updates_of_call = 1

    def __init__(
        self,
        training: Training,
        reason: str,
        *,
        n_threads: int | None,
        around_updates: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        layers = training.layers
        ops, spec = layers.ops, layers.spec
        self.reason = reason
        self.threads = n_threads
        self._training, self._around_updates = training, around_updates
        self._work = TrainingWorkspace(ops, spec, training.part_size)
        size = layers.parameters.flat.size
        n_scratch = max(1, training.rule.optimizer.scratch_arrays)  # clipping needs one
        scratch = tuple(ops.asarray(np.zeros(size), spec.dtype) for _ in range(n_scratch))
        self._rule = replace(training.rule, scratch=scratch)
        self._memory_before = Memory(self._rule)
        self._position = 0

    def active(self) -> AbstractContextManager[None]:
        """Limit the threads of BLAS."""
        return limited_blas(self.threads)

    def begin_epoch(self, *updates: EpochUpdates) -> None:
        """Take what is new in an epoch."""
        (self._epoch,) = updates
        self._order = self._training.layers.ops.asarray(self._epoch.order, np.int32)
        # Python's own numbers: a small update takes as long as taking a few out of an array.
        epoch = self._epoch
        columns = (epoch.weights, epoch.rates, epoch.penalty_factors)
        self._weights, self._rates, self._penalty_factors = (column.tolist() for column in columns)
        n_updates = len(self._rates)
        self._dropout_factors = [1.0] * n_updates if epoch.dropout_factors is None else epoch.dropout_factors.tolist()
        self._decays = [0.0] * n_updates if epoch.decays is None else epoch.decays.tolist()
        self._memory_before.keep()
        self._work.totals[...] = 0.0
        self._position = 0

    def run(self, first: int, last: int) -> None:
        """Make the updates `first` to `last` - 1."""
        with self._around_updates():
            for index in range(first, last):
                self._step(index)
        self._position = last

    def _step(self, index: int) -> None:
        epoch, size = self._epoch, self._training.update_size
        data, start = epoch.data, index * size
        batch = Batch(data, self._order, start, min(start + size, len(epoch.order)), self._weights[index])
        moment = Moment(
            self._rates[index],
            epoch.steps_done + index,
            self._penalty_factors[index],
            self._dropout_factors[index],
            self._decays[index],
        )
        self._train(batch, moment)

    def _train(self, batch: Batch, moment: Moment) -> None:
        step.training_step(self._training.layers, self._work, batch, self._rule, moment)

    def totals(self) -> NDArray[np.float64]:
        """Return the sums of loss and score over the epoch so far, (1, 2)."""
        return np.array(self._training.layers.ops.to_numpy(self._work.totals))[None, :]

    def state(self) -> tuple[TrainingState, ...]:
        """Return what the remaining updates depend on."""
        return (taken_out(self._training, self._position, self.totals()[0]),)

    def restore(self, *states: TrainingState) -> None:
        """Go on from a state."""
        (state,) = states
        put_back(self._training, state)
        self._work.totals[...] = self._training.layers.ops.asarray(state.totals, np.float64)
        self._position = state.position

    def rewind(self, *places: int) -> None:
        """Restore the optimizer's memory to what it was at the beginning of the epoch."""
        self._memory_before.restore()

    def places(self) -> Iterator[tuple[str, Array]]:
        """Yield what the last update left, in the order of the algorithm."""
        layers, work = self._training.layers, self._work
        numbers = range(1, layers.spec.n_layers + 1)
        yield from ((f"the output of layer {layer}", work.a[layer]) for layer in numbers)
        yield "the loss", work.totals
        yield from ((f"the delta of layer {layer}", work.delta[layer]) for layer in reversed(numbers))
        yield from ((f"the weight gradient of layer {layer}", work.gradients.weights[layer - 1]) for layer in numbers)
        yield from ((f"the bias gradient of layer {layer}", work.gradients.biases[layer - 1]) for layer in numbers)
        yield from places_of(layers.parameters)


def places_of(parameters: Parameters) -> Iterator[tuple[str, Array]]:
    """Yield the parameters that an update left, layer by layer."""
    kinds = (("weights", parameters.weights), ("biases", parameters.biases), ("slopes", parameters.slopes))
    for what, arrays in kinds:
        yield from ((f"the updated {what} of layer {layer}", array) for layer, array in enumerate(arrays, start=1))
    yield from (("the updated embeddings", array) for array in parameters.embedding)


def taken_out(
    training: Training,
    position: int,
    totals: NDArray[np.float64],
    parts: dict[str, NDArray[Any]] | None = None,
) -> TrainingState:
    """Return the state of a training: parameters and optimizer's memory, copied from the layout of its device."""
    layers = training.layers
    ops, layout, padding = layers.ops, layers.spec.layout, layers.parameters.row_padding
    return TrainingState(
        parameters=layers.parameters.to_host(ops),
        optimizer={name: Parameters(flat, layout, padding).to_host(ops) for name, flat in training.rule.state.items()},
        position=position,
        totals=np.array(totals, np.float64),
        parts=parts or {},
        scaling_layer=scaling_on_host(training.rule, ops),
    )


def put_back(training: Training, state: TrainingState) -> None:
    """Write the parameters and the optimizer's memory of a state into the arrays of a training.

    Raises
    ------
    ValueError
        If the state belongs to another network or optimizer.
    """
    layers, rule = training.layers, training.rule
    ops, layout, dtype = layers.ops, layers.spec.layout, layers.spec.dtype
    if set(state.optimizer) != set(rule.state):
        raise ValueError(
            f"got a state with {', '.join(sorted(state.optimizer)) or 'no optimizer arrays'}, expected "
            f"{', '.join(sorted(rule.state)) or 'none'} for the optimizer {rule.optimizer.name!r}"
        )
    pairs = [(layers.parameters.flat, state.parameters)]
    pairs += [(rule.state[name], state.optimizer[name]) for name in rule.state]
    for own, given in pairs:
        if given.shape != (Parameters.count(layout),) or given.dtype != dtype:
            raise ValueError(
                f"got a state of {given.shape} numbers in {given.dtype}, expected ({Parameters.count(layout)},) in "
                f"{dtype}; go on with the network that it belongs to"
            )
        own[...] = Parameters.on_device(ops, given, layout).flat
    scaling = dict(scaling_arrays(rule))
    if set(scaling) != set(state.scaling_layer):
        raise ValueError("got a state with a scaling layer for a training without one, or the other way round")
    for name, array in scaling.items():
        array[...] = ops.asarray(state.scaling_layer[name], dtype)


def scaling_arrays(rule: UpdateRule) -> list[tuple[str, Array]]:
    """Return the arrays of a rule's scaling layer, with their names; none if it has no such layer."""
    return [] if rule.scaling_layer is None else list(rule.scaling_layer.arrays())


def scaling_on_host(rule: UpdateRule, ops: ArrayOps) -> dict[str, NDArray[Any]]:
    """Return copies of these arrays on the host; `ops` are those of their device."""
    return {name: np.array(ops.to_numpy(array)) for name, array in scaling_arrays(rule)}


class Memory:
    """A copy of what a rule remembers, so that an epoch can be made again.

    Parameters
    ----------
    rule : UpdateRule
    """

    def __init__(self, rule: UpdateRule) -> None:
        self._arrays = [*rule.state.values(), *(array for _, array in scaling_arrays(rule))]
        self._copies = [array.copy() for array in self._arrays]

    @property
    def n_bytes(self) -> int:
        """The bytes of the copy."""
        return sum(copy.nbytes for copy in self._copies)

    def follow(self, rule: UpdateRule) -> None:
        """Copy another rule's arrays from now on; they have the sizes of those before."""
        self._arrays = [*rule.state.values(), *(array for _, array in scaling_arrays(rule))]

    def keep(self) -> None:
        """Copy what the rule remembers now."""
        for copy, array in zip(self._copies, self._arrays, strict=True):
            copy[...] = array

    def restore(self) -> None:
        """Write the copy back."""
        for copy, array in zip(self._copies, self._arrays, strict=True):
            array[...] = copy
