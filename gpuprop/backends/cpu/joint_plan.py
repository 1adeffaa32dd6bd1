"""The plan for several networks of one shape: which of them share their batches, and which are trained side by side.

Networks that see the same rows in the same order share each batch. Networks with rows or an order of their own are
updated in the same calls as long as their batches are small. A network that is in no group makes its own updates. One
that was in a group stays here, with the same bits, when it is the last one: its updates do not depend on the company.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import equal_numbers
from gpuprop.backends.cpu import joint
from gpuprop.backends.cpu.joint import JointUpdates, cannot_join
from gpuprop.backends.steps import places_of, put_back, taken_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.core.data import TrainingData
    from gpuprop.core.plan import TrainingState
    from gpuprop.core.updates import EpochUpdates, Training

__all__ = ["JointPlan"]

#: The products of two numbers, and the updates, in one call of `JointPlan.run`. It takes some tenths of a second, and
#: hands every network its parameters at the end: with an eighth of the products that was a quarter of its time.
_PRODUCTS, _MOST_UPDATES = 8_000_000_000, 1_000

#: A group of networks: whether they share their batches, and their indices among the trainings of an epoch.
Group = tuple[bool, tuple[int, ...]]


class JointPlan:
    """`gpuprop.core.plan.Plan` for several trainings of one shape.

    A caller of `begin_epoch` may leave out trainings that have ended; the others keep their order.

    Parameters
    ----------
    trainings : sequence of Training
        All of one shape.
    """

    name = "joint"
    threads = None

    def __init__(self, trainings: Sequence[Training]) -> None:
        self._alone = {id(training) for training in trainings if cannot_join(training) is not None}
        self._rows = _Rows()
        #: Those that have been in a group: they stay on this path, with its bits, until they end.
        self._joined = {id(training) for training in trainings if training.joined}
        n_joint = len(trainings) - len(self._alone)
        networks = "1 network" if n_joint == 1 else f"{n_joint} networks of one shape"
        self.reason = f"joint: {networks} in the same compiled calls"
        self.updates_of_call = max(1, min(_MOST_UPDATES, _PRODUCTS // sum(one.products for one in trainings)))
        self._made: dict[tuple[Any, ...], JointUpdates] = {}
        self._position = 0

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()

    def begin_epoch(self, *updates: EpochUpdates) -> None:
        self._epochs, self._position = updates, 0
        before, self._made, self._groups = self._made, {}, list(self._grouped())
        for member in (updates[place] for _, group in self._groups for place in group):
            if id(member.training) not in self._joined and member.on_joined is not None:
                member.on_joined()  # all of them, before one can end
            self._joined.add(id(member.training))
        for shared, group in self._groups:
            members = [updates[i] for i in group]
            key = (shared, *(id(member.training) for member in members))
            self._made[key] = before.get(key) or JointUpdates(members, shared=shared)
            self._made[key].begin(members)
        self._state_before = [
            {name: array.copy() for name, array in member.training.rule.state.items()} for member in updates
        ]
        self._flat_before = [member.training.layers.parameters.flat.copy() for member in updates]

    def run(self, first: int, last: int) -> None:
        for made in self._made.values():
            made.run(first, last)
        self._position = last
        if first > 0:  # a network that earlier calls have changed, and that diverges now, is left as it was at first
            for place in np.flatnonzero(np.isnan(self.totals()[:, 0])).tolist():
                self._epochs[place].training.layers.parameters.flat[...] = self._flat_before[place]
                self.rewind(place)

    def totals(self) -> NDArray[np.float64]:
        totals = np.full((len(self._epochs), 2), np.nan)
        for (_, group), made in zip(self._groups, self._made.values(), strict=True):
            totals[list(group)] = made.totals()
        return totals

    def state(self) -> tuple[TrainingState, ...]:
        pairs = zip(self._epochs, self.totals(), strict=True)
        return tuple(taken_out(member.training, self._position, totals) for member, totals in pairs)

    def restore(self, *states: TrainingState) -> None:
        for member, state in zip(self._epochs, states, strict=True):
            put_back(member.training, state)
        for (_, group), made in zip(self._groups, self._made.values(), strict=True):
            made.take_parameters()
            for i, place in enumerate(group):
                made.start_from(i, states[place].totals)
        self._position = states[0].position

    def rewind(self, *places: int) -> None:
        for place in places or range(len(self._epochs)):
            for name, array in self._epochs[place].training.rule.state.items():
                array[...] = self._state_before[place][name]

    def places(self) -> Iterator[tuple[str, Array]]:
        for number, member in enumerate(self._epochs, start=1):
            for name, array in places_of(member.training.layers.parameters):
                yield f"{name} of network {number}", array

    def _grouped(self) -> Iterator[Group]:
        """Yield the groups of this epoch; a training that is in no group makes its own updates."""
        batches: dict[tuple[int, bytes], list[int]] = {}
        for i, member in enumerate(self._epochs):
            if id(member.training) not in self._alone:
                key = (self._rows.number(member.training), member.order.tobytes())
                batches.setdefault(key, []).append(i)
        yield from ((True, tuple(group)) for group in batches.values() if len(group) > 1)
        rest = tuple(group[0] for group in batches.values() if len(group) == 1)
        if len(rest) < 2 or self._epochs[rest[0]].training.update_size > joint.LARGEST_OWN_BATCH:
            rest = tuple(place for place in rest if id(self._epochs[place].training) in self._joined)
        if rest:
            yield False, rest


class _Rows:
    """Number the data sets of trainings, so that equal rows and targets get equal numbers."""

    def __init__(self) -> None:
        self._of_training: dict[int, int] = {}
        self._different: list[TrainingData] = []

    def number(self, training: Training) -> int:
        """Return the number of a training's data set; it stays the same from epoch to epoch."""
        data = training.data
        if id(training) not in self._of_training:
            known = next((n for n, other in enumerate(self._different) if _same_rows(data, other)), None)
            if known is None:
                known = len(self._different)
                self._different.append(data)
            self._of_training[id(training)] = known
        return self._of_training[id(training)]


def _same_rows(one: TrainingData, other: TrainingData) -> bool:
    return equal_numbers(one.inputs, other.inputs) and equal_numbers(one.targets, other.targets)
