"""The plan for several networks on a GPU: which of them share their launches, and which take turns.

::

    trainings   | A B C D E F G |     of one shape
    groups      | A C D F | B G |     of one kind: one kernel serves them, see `kind`        E trains alone
    waves       | A C | D F | B G |   as many networks of a group as the device has room for
    an update   2 H + 1 launches a wave, whatever the number of its networks

Each network keeps the tiles and the order of sums that it has alone, so that it gets the bits of its lone fit in any
company. So it does not matter to it which groups and waves there are, nor that they are formed anew when half of the
networks of a wave have ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, cast

import numpy as np

from gpuprop.backends.cuda.block_plan import BlockPlan, chooses_block
from gpuprop.backends.cuda.kernel_plan import CudaPlan
from gpuprop.backends.cuda.memory import Scratch
from gpuprop.backends.cuda.residence import FREE_SHARE, HostRows
from gpuprop.backends.cuda.shared_rows import different, stackable
from gpuprop.backends.steps import places_of
from gpuprop.core.plan import SharedBuffer
from gpuprop.errors import DeviceMemoryError, PlanError
from gpuprop_kernels.arguments import INDEX_LIMIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda.array_ops import CudaArrays
    from gpuprop.core.array_ops import Array
    from gpuprop.core.plan import TrainingState
    from gpuprop.core.updates import EpochUpdates, Training

__all__ = ["TogetherPlan", "kernels_fault", "kind"]

MOST_NETWORKS = 65_535
"""The most blocks along z of a grid, which counts networks."""


def kernels_fault(training: Training) -> str | None:
    """Return why the fused kernels cannot make the updates of a training, or None if they can."""
    if not training.rule.optimizer.built_in:
        return f"there is no kernel for the optimizer {training.rule.optimizer.name!r}"
    if training.only_steps is not None:
        return training.only_steps
    if not training.rule.plain:
        return "the fused kernels know one learning rate for all parameters, and no trained factors of the inputs"
    return None


def cannot_join(training: Training) -> str | None:
    """Return why a training makes its own updates, or None if it can share launches with others of its kind."""
    if training.watched:
        return "a callback wants to be told of each update"
    if isinstance(training.data.inputs, HostRows):
        return "the data set does not fit the device, and each network's rows travel in an order of their own"
    return kernels_fault(training)


def kind(training: Training) -> Hashable:
    """Return what trainings must have in common to share launches: all that kernels are compiled for or take as sizes.

    They may differ in their initial parameters, rows and orders, numbers of rows, sample weights, learning rates and
    schedules, l1 and l2, shares and seeds of dropout, and the hyperparameters of their optimizer. But whether there
    are sample weights, penalties, or dropout of a layer, is a matter of the kind.
    """
    spec, rule, data = training.layers.spec, training.rule, training.data
    scaling = data.scaling
    scaled = None if scaling is None else (np.asarray(scaling.shift).tobytes(), np.asarray(scaling.scale).tobytes())
    return (
        (spec.layer_sizes, spec.activations, spec.loss, spec.dtype, spec.precision),
        (spec.penalised, tuple(map(bool, spec.dropout))),
        (rule.optimizer.name, rule.clip_norm, rule.max_norm, training.part_size, training.update_size),
        (data.inputs.dtype, data.metric, data.sample_weight is not None, scaled),
    )


class TogetherPlan(SharedBuffer):
    """`gpuprop.core.plan.Plan` for several trainings of one shape.

    A caller of `begin_epoch` may leave out trainings that have ended; the others keep their order.

    Parameters
    ----------
    ops : CudaArrays
    trainings : sequence of Training

    Raises
    ------
    PlanError
        If no two of them can share launches, or if there is no memory for that.
    """

    name = "joint"
    threads = None

    def __init__(self, ops: CudaArrays, trainings: Sequence[Training]) -> None:
        self._ops, self._trainings = ops, trainings
        self._faults = {id(one.layers): fault for one in trainings if (fault := cannot_join(one)) is not None}
        able = [one for one in trainings if id(one.layers) not in self._faults]
        groups: dict[Hashable, list[Training]] = {}
        for one in able:
            groups.setdefault(kind(one), []).append(one)
        alone = "no other network here has its kind of update" if len(trainings) > 1 else "there is only one network"
        self._faults |= {id(group[0].layers): alone for group in groups.values() if len(group) == 1}
        self._groups = [group for group in groups.values() if len(group) > 1]
        if not self._groups:
            raise PlanError(f"plan 'joint': {next(iter(self._faults.values()))}")
        try:
            self._form_waves(ops)
        except DeviceMemoryError as error:
            raise PlanError(f"plan 'joint': {error}") from error
        self._epochs: tuple[EpochUpdates, ...] = ()
        self._position = 0

    def _form_waves(self, ops: CudaArrays) -> None:
        """Make a plan for as many networks of each group as there is room for; their workspaces are shared."""
        self._scratch = Scratch(ops)
        budget = FREE_SHARE * ops.runtime.free_memory()
        n_networks = sum(map(len, self._groups))
        waves = []
        for group in self._groups:
            size = _most_in_a_wave(ops, group, budget * len(group) / n_networks)
            waves += [group[first : first + size] for first in range(0, len(group), size)]
        # The largest comes first, so that its workspace serves the others, too.
        waves.sort(key=len, reverse=True)
        self._plans = [self._plan_of(wave) for wave in waves]
        self._members, self._largest = waves, len(waves[0])

    def _plan_of(self, wave: Sequence[Training]) -> CudaPlan:
        ops = _ops_of(wave)
        return _path(ops, wave[0])(ops, wave, "auto", self._scratch)

    @property
    def reason(self) -> str:
        """What goes together, in one sentence."""
        n_networks, n_groups, n_waves = sum(map(len, self._groups)), len(self._groups), len(self._plans)
        text = f"joint: {n_networks} networks of one shape in the same launches"
        if n_groups > 1:
            text += f", in {n_groups} groups of one kind of update each"
        if n_waves > n_groups:
            text += f", in waves of at most {self._largest} because the device has no room for more"
        text += f"; {self._plans[0].reason.partition(': ')[2]}"
        for fault, count in Counter(self._faults.values()).items():
            text += f"; {count} {'trains' if count == 1 else 'train'} alone because {fault}"
        return text

    @property
    def updates_of_call(self) -> int:
        """The updates of a window, which a graph replays; those of an epoch, if waves have windows of other sizes."""
        sizes = {plan.updates_of_call for plan in self._plans}
        return sizes.pop() if len(sizes) == 1 else max(plan.n_updates for plan in self._plans)

    def active(self) -> AbstractContextManager[None]:
        return self._plans[0].active()

    def begin_epoch(self, *updates: EpochUpdates) -> None:
        self._epochs, self._position = updates, 0
        going_on = {id(epoch.training.layers) for epoch in updates}
        self._let_go([one for one in self._trainings if id(one.layers) not in going_on])
        self._trainings = [one for one in self._trainings if id(one.layers) in going_on]
        place_of = {id(epoch.training.layers): place for place, epoch in enumerate(updates)}
        #: For each plan that has work in this epoch, the places of its networks among the updates.
        self._at_work: list[tuple[CudaPlan, list[int]]] = []
        for plan, wave in zip(self._plans, self._members, strict=True):
            places = sorted(place_of[id(one.layers)] for one in wave if id(one.layers) in place_of)
            if places:
                plan.begin_epoch(*(updates[place] for place in places))
                self._at_work.append((plan, places))

    def _let_go(self, ended: Sequence[Training]) -> None:
        """Give networks whose training has ended their own arrays, and form a wave anew once half of it has ended."""
        if not ended:
            return
        gone = {id(one.layers) for one in ended}
        for index, (plan, wave) in enumerate(zip(self._plans, self._members, strict=True)):
            plan.release([one for one in wave if id(one.layers) in gone])
            left = [one for one in wave if id(one.layers) not in gone]
            if left and 2 * len(left) <= plan.n_networks:
                self._plans[index] = self._plan_of(left)
            self._members[index] = left

    def run(self, first: int, last: int) -> None:
        for plan, _ in self._at_work:
            if first < plan.n_updates:
                plan.run(first, min(last, plan.n_updates))
        self._position = last

    def totals(self) -> NDArray[np.float64]:
        totals = np.full((len(self._epochs), 2), np.nan)
        for plan, places in self._at_work:
            found = plan.totals()
            totals[places] = found
            diverged = np.flatnonzero(~np.isfinite(found).all(axis=1)).tolist()
            if diverged:  # they are left as they were
                plan.go_back(*diverged)
                totals[[places[one] for one in diverged]] = np.nan
        return totals

    def state(self) -> tuple[TrainingState, ...]:
        found = {
            place: state for plan, places in self._at_work for place, state in zip(places, plan.state(), strict=True)
        }
        return tuple(found[place] for place in sorted(found))

    def restore(self, *states: TrainingState) -> None:
        at = {place: i for i, place in enumerate(sorted(place for _, places in self._at_work for place in places))}
        for plan, places in self._at_work:
            plan.restore(*(states[at[place]] for place in places))
        self._position = states[0].position

    def rewind(self, *places: int) -> None:
        for plan, own in self._at_work:
            chosen = [i for i, place in enumerate(own) if not places or place in places]
            if chosen:
                plan.rewind(*chosen)

    def places(self) -> Iterator[tuple[str, Array]]:
        for number, epoch in enumerate(self._epochs, start=1):
            for name, array in places_of(epoch.training.layers.parameters):
                yield f"{name} of network {number}", array

    def host_parameters(self) -> list[NDArray[np.generic] | None]:
        found: list[NDArray[np.generic] | None] = [None] * len(self._epochs)
        for plan, places in self._at_work:
            for place, parameters in zip(places, plan.host_parameters(), strict=True):
                found[place] = parameters
        return found

    def release(self) -> None:
        for plan, wave in zip(self._plans, self._members, strict=True):
            plan.release(wave)


def _path(ops: CudaArrays, one: Training) -> type[CudaPlan]:
    """Return the plan that a lone training of this kind takes."""
    return BlockPlan if chooses_block(ops, one) else CudaPlan


def _ops_of(wave: Sequence[Training]) -> CudaArrays:
    """Return the primitives in the precision of these networks; one plan may have groups in several."""
    return cast("CudaArrays", wave[0].layers.ops)


def _most_in_a_wave(ops: CudaArrays, group: Sequence[Training], budget: float) -> int:
    """Return how many networks of a group make their updates at once.

    Parameters
    ----------
    ops : CudaArrays
    group : sequence of Training
    budget : float
        The bytes that the group may take.

    Raises
    ------
    DeviceMemoryError
        If there is no room for two.
    """
    one = group[0]
    sets, _ = different(ops, [training.data for training in group])
    if not stackable(sets):
        raise DeviceMemoryError("the data sets of all networks together have more numbers than an int32 index reaches")
    stacked = sum(data.inputs.nbytes + data.targets.nbytes for data in sets) if len(sets) > 1 else 0
    of_network, of_workspace = _path(ops, one).bytes_of_network(ops, one)
    most = min(
        MOST_NETWORKS, (INDEX_LIMIT - 1) // (max(of_network, of_workspace) // one.layers.spec.dtype.itemsize + 1)
    )
    left = budget - stacked - of_network * len(group)
    if left < 2 * of_workspace:
        needed = (stacked + of_network * len(group) + 2 * of_workspace) / 2**20
        raise DeviceMemoryError(
            f"{len(group)} networks need {needed:,.0f} MiB together, and may take {budget / 2**20:,.0f} MiB"
        )
    return int(max(1, min(len(group), most, left // of_workspace if of_workspace else len(group))))
