"""The plan for several networks of one shape: which of them make their updates in the same calls.

Networks for which the same code is compiled form a group (`gpuprop.backends.cpu.joint.kinds_of`), if their updates, all
together, are worth compiling it. A network that is in no group makes its own updates. One that was in a group stays
here, with the same bits, when it is the last one: its updates do not depend on the company.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from gpuprop.backends.cpu.joint import JointUpdates, kinds_of, not_worth_joining
from gpuprop.backends.steps import places_of, put_back, taken_out
from gpuprop.backends.threads import limited_blas, threads_beside_a_team

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.core.plan import TrainingState
    from gpuprop.core.updates import EpochUpdates, Training

__all__ = ["JointPlan", "groups_of"]

#: The products of two numbers, and the updates of a network, in one call of `JointPlan.run`: some tenths of a second.
_PRODUCTS, _MOST_UPDATES = 8_000_000_000, 1_000


def groups_of(trainings: Sequence[Training], *, asked: bool) -> list[tuple[bool, list[int]]]:
    """Return the groups: whether zeros are skipped, and the places of the trainings.

    Parameters
    ----------
    trainings : sequence of Training
    asked : bool
        Whether the path was asked for by name. Otherwise short trainings are in no group.
    """
    found = []
    for listed, places in kinds_of(trainings):
        members = [trainings[place] for place in places]
        stays = any(one.joined for one in members)
        if stays or (len(members) > 1 and (asked or not_worth_joining(members) is None)):
            found.append((listed, places))
    return found


class JointPlan:
    """`gpuprop.core.plan.Plan` for several trainings of one shape.

    A caller of `begin_epoch` may leave out trainings that have ended; the others keep their order.

    Parameters
    ----------
    trainings : sequence of Training
        All of one shape.
    groups : list of (bool, list of int)
        See `groups_of`.
    """

    name = "joint"
    threads = None

    def __init__(self, trainings: Sequence[Training], groups: Sequence[tuple[bool, list[int]]]) -> None:
        self._trainings = trainings  # while they live, nothing else has their ids
        self._groups: list[JointUpdates] = []
        self._places: dict[int, tuple[int, int]] = {}  # of a training by its id: group, and number there
        for listed, places in groups:
            members = [trainings[place] for place in places]
            self._places |= {id(one): (len(self._groups), i) for i, one in enumerate(members)}
            self._groups.append(JointUpdates(members, listed=listed))
        n_joint = len(self._places)
        networks = "1 network" if n_joint == 1 else f"{n_joint} networks of one shape"
        self.reason = f"joint: {networks} in the same compiled calls"
        self.updates_of_call = max(1, min(_MOST_UPDATES, _PRODUCTS // sum(one.products for one in trainings)))
        self._joined = {id(one) for one in trainings if one.joined}
        #: For each group at work, the places of its networks among the updates of the epoch.
        self._at_work: list[tuple[JointUpdates, list[int]]] = []
        self._position = 0

    def active(self) -> AbstractContextManager[None]:
        return limited_blas(threads_beside_a_team(self._trainings[0]))

    def begin_epoch(self, *updates: EpochUpdates) -> None:
        self._epochs, self._position = updates, 0
        found: dict[int, list[tuple[int, int]]] = {}
        for place, one in enumerate(updates):
            if id(one.training) in self._places:
                group, i = self._places[id(one.training)]
                found.setdefault(group, []).append((place, i))
        for one in updates:
            if id(one.training) in self._places and id(one.training) not in self._joined:
                self._joined.add(id(one.training))
                if one.on_joined is not None:
                    one.on_joined()  # all of them, before one can end
        self._at_work = []
        for group, members in found.items():
            made, places = self._groups[group], [place for place, _ in members]
            made.begin([updates[place] for place in places], [i for _, i in members])
            self._at_work.append((made, places))

    def run(self, first: int, last: int) -> None:
        for made, _ in self._at_work:
            made.run(first, last)
        self._position = last

    def totals(self) -> NDArray[np.float64]:
        totals = np.full((len(self._epochs), 2), np.nan)
        for made, places in self._at_work:
            totals[places] = made.totals()
        return totals

    def state(self) -> tuple[TrainingState, ...]:
        pairs = zip(self._epochs, self.totals(), strict=True)
        return tuple(taken_out(one.training, self._position, totals) for one, totals in pairs)

    def restore(self, *states: TrainingState) -> None:
        for one, state in zip(self._epochs, states, strict=True):
            put_back(one.training, state)
            group, i = self._places[id(one.training)]
            self._groups[group].start_from(i, state.totals)
        self._position = states[0].position

    def rewind(self, *places: int) -> None:
        for place in places or range(len(self._epochs)):
            found = self._places.get(id(self._epochs[place].training))
            if found is not None:
                self._groups[found[0]].rewind(found[1])

    def places(self) -> Iterator[tuple[str, Array]]:
        for number, one in enumerate(self._epochs, start=1):
            for name, array in places_of(one.training.layers.parameters):
                yield f"{name} of network {number}", array
