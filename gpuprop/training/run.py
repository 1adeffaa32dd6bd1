"""A fit at work: what it trains, where it may go back to, and what it does at the boundaries of its updates."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.devices import plan as choose_plan
from gpuprop.backends.steps import taken_out
from gpuprop.core.parameters import Parameters
from gpuprop.core.plan import TrainingState
from gpuprop.errors import DeviceError, PlanError
from gpuprop.training.callbacks.base import Callback
from gpuprop.training.kept_plans import renewed
from gpuprop.training.signals import finishing
from gpuprop.training.sources import marked_sources, restore_sources
from gpuprop.training.windows import WindowedPlan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import ArrayOps
    from gpuprop.core.data import TrainingData
    from gpuprop.core.plan import Plan
    from gpuprop.core.updates import EpochUpdates, MadeElsewhere, Training
    from gpuprop.model.network import Network
    from gpuprop.training.metrics import ValidationScores
    from gpuprop.training.records import Patience, Within
    from gpuprop.training.windows import Windows

__all__ = ["Run", "step_callbacks"]

#: A call that makes updates should last between these two, in seconds: signals and checkpoints wait for its end.
_SHORT, _LONG = 0.05, 0.3


def step_callbacks(trainer: Any) -> list[Callback]:
    """Return the callbacks that want to be told of each update."""
    return [one for one in trainer.callbacks if type(one).on_step_end is not Callback.on_step_end]


@dataclass
class Run:
    """What a fit works with.

    Attributes
    ----------
    training : Training
        As a plan knows it.
    data : dict of str to TrainingData or None
        The data before their labels were smoothed, by the beginning of their names: "" and "validation ".
    patience : Patience
    settings : dict
        What the training is, see `gpuprop.training.settings`.
    first_rate : float
        The learning rate that the training began with.
    parameters : ndarray of shape (n_parameters,)
        Those that the optimizer's memory belongs to: of the last completed epoch, or of the state that the training
        goes on from.
    ops, row_padding
        Of the device that holds the optimizer's memory.
    within : Within or None
        Where the training goes on within an epoch, until that epoch is complete.
    former_place : dict
        Where the training that goes on from a checkpoint has been, see `gpuprop.training.stored`.
    rate : float or None
        The learning rate as callbacks had left it in the training that goes on.
    stopped : bool
        Whether a callback had ended the training that is to go on.
    scores : ValidationScores or None
        What is evaluated after each epoch.
    windows : Windows or None
        Where the rows stay on disk: those that are in memory.
    """

    training: Training
    data: dict[str, TrainingData | None]
    patience: Patience
    settings: dict[str, Any]
    first_rate: float
    parameters: NDArray[Any]
    ops: ArrayOps
    row_padding: int
    within: Within | None = None
    former_place: dict[str, Any] = field(default_factory=dict)
    rate: float | None = None
    stopped: bool = False
    scores: ValidationScores | None = None
    windows: Windows | None = None

    #: The plan, once it has been chosen, and what was said of one that serves several trainings.
    plan: Plan | None = field(default=None, init=False)
    reason: str | None = field(default=None, init=False)
    #: Whether an epoch that is not complete was entered, whether callbacks were told so, when, and at which rate.
    entered: bool = field(default=False, init=False)
    epoch_begun: bool = field(default=False, init=False)
    begin: float = field(default=0.0, init=False)
    epoch_rate: float = field(default=0.0, init=False)
    #: What returns what the sources of orders and rates remembered before that, and the learning rate before that.
    marks: Callable[[], dict[str, Any]] = field(default=dict, init=False)
    rate_before: float = field(default=0.0, init=False)
    #: What the updates of an epoch began with, if not at its beginning.
    start: TrainingState | None = field(default=None, init=False)
    #: Whether the plan is at work, and what brings the optimizer's memory back to `parameters`.
    making: bool = field(default=False, init=False)
    undo: Callable[[], None] | None = field(default=None, init=False)
    #: Whether the optimizer's memory was lost with a device, and whether a checkpoint could not be written.
    lost: bool = field(default=False, init=False)
    unwritten: bool = field(default=False, init=False)
    fingerprints: dict[str, str] | None = field(default=None, init=False)
    #: The callbacks that know of this training.
    told: list[Callback] = field(default_factory=list, init=False)
    _pieces: int = field(default=1, init=False)

    def begun_callbacks(self, trainer: Any) -> list[Callback]:
        """Return the trainer's callbacks that know of this training; one that was just added does not yet."""
        return [one for one in trainer.callbacks if any(one is known for known in self.told)]

    @property
    def leads(self) -> bool:
        """Whether this process calls the callbacks and writes files: of several, the one of rank 0."""
        return self.training.sharding is None or self.training.sharding.communicator.rank == 0

    @property
    def plan_reason(self) -> str | None:
        """How updates are made and why, in one sentence; None before the first epoch has begun."""
        return self.reason if self.plan is None else self.plan.reason

    @property
    def plan_name(self) -> str | None:
        """The name of the path."""
        if self.reason is not None:
            return self.reason.partition(":")[0]
        return None if self.plan is None else self.plan.name

    @property
    def threads(self) -> int | None:
        """The number of BLAS's threads on which the bits depend, if one has been chosen."""
        return self.training.n_threads if self.plan is None else self.plan.threads

    def plan_of(self, network: Network, want: str) -> Plan:
        """Return the plan of the updates, chosen when it is first needed."""
        if self.plan is None:
            anew = self.former_place or self.training.sharding or self.windows
            kept = None if anew else renewed(network, self.training, want)
            self.plan = choose_plan([self.training], want=want) if kept is None else kept
            former = self.former_place.get("plan")
            here = self.former_place.get("device") == self.ops.device
            if want == "auto" and self.ops.on_host and here and former not in (None, self.plan.name):
                # A larger number of planned epochs would choose another path, and so other bits.
                with suppress(PlanError):
                    self.plan = choose_plan([self.training], want=str(former))
            if self.windows is not None:
                self.plan = WindowedPlan(self.plan, self.windows)
        return self.plan

    # --- an epoch ------------------------------------------------------------------------------------------------

    def begin_epoch(self, trainer: Any, epoch: int) -> None:
        """Tell the callbacks of an epoch, unless it began before the state that the training goes on from."""
        self.begin, self.rate_before = time.perf_counter(), trainer.learning_rate
        self.marks = marked_sources(trainer) if self.within is None else partial(dict, self.within.sources)
        self.entered = True
        if self.within is None:
            for callback in self.begun_callbacks(trainer):
                callback.on_epoch_begin(trainer, epoch + 1)
            self.epoch_rate = trainer.learning_rate
        else:
            self.begin -= self.within.seconds
            self.epoch_rate = self.within.learning_rate
            restore_sources(trainer, self.within.sources)
        self.epoch_begun = True

    def take(self, made: MadeElsewhere) -> NDArray[np.float64]:
        """Take updates that a plan for several trainings has made, and return the totals of the epoch."""
        self.undo, self.reason = made.undo, made.reason
        return made.totals

    def make(self, trainer: Any, updates: EpochUpdates, at_boundary: Callable[[int], None]) -> NDArray[np.float64]:
        """Make the updates of an epoch, or what is left of them, and return the totals of the epoch.

        Parameters
        ----------
        trainer : Trainer
        updates : EpochUpdates
        at_boundary : callable
            Called with the number of the epoch's updates so far, before each call that makes some.
        """
        plan, callbacks, n_updates = (
            self.plan_of(trainer.network, trainer.plan),
            step_callbacks(trainer) if self.leads else [],
            trainer.steps_per_epoch,
        )
        with plan.active():
            plan.begin_epoch(updates)
            first = 0
            if self.within is not None and self.within.position:
                within = self.within
                begun = taken_out(self.training, within.position, within.totals, within.parts)
                self.start = replace(begun, parameters=self.parameters)
                plan.restore(self.start)
                first = self.within.position
            self.making, self.undo = True, plan.rewind
            while first < n_updates:
                at_boundary(first)
                watched = self.training.watched
                stop = first + 1 if watched else self._stop(trainer, plan.updates_of_call, first, n_updates)
                if trainer.communicator is not None:  # it follows from times, which differ
                    stop = trainer.communicator.broadcast(stop)
                self._run(plan, first, stop)
                first = stop
                for callback in callbacks:
                    callback.on_step_end(trainer, trainer.epochs_done + 1, stop)
            (totals,) = plan.totals()
        self.making = False
        return np.asarray(totals)

    def on_host(self, flat: Any) -> NDArray[Any]:
        """Return a copy on the host of a flat array of the training's device, without padding."""
        return Parameters(flat, self.training.layers.spec.layout, self.row_padding).to_host(self.ops)

    def _stop(self, trainer: Any, of_call: int, first: int, n_updates: int) -> int:
        """Return up to which update to go in one call."""
        stop = min((first // of_call + self._pieces) * of_call, n_updates)
        if trainer.checkpoint is None or not self.leads:
            return stop
        due = trainer.checkpoint.next_update(trainer.steps_done + first)
        return stop if due is None else min(stop, due - trainer.steps_done)

    def _run(self, plan: Plan, first: int, stop: int) -> None:
        """Make updates in one call, and find out how many the next call should make."""
        began = time.perf_counter()
        plan.run(first, stop)
        if stop - first < self._pieces * plan.updates_of_call:
            return
        self.ops.synchronize()
        took = time.perf_counter() - began
        if took < _SHORT:
            self._pieces *= 2
        elif took > _LONG:
            self._pieces = max(1, self._pieces // 2)

    @property
    def seconds(self) -> float:
        """How long the epoch has taken."""
        return time.perf_counter() - self.begin

    def watch(self, watched: bool) -> None:
        """Note whether a callback must be told of each update: some paths depend on it."""
        if watched != self.training.watched:
            self.training, self.plan = replace(self.training, watched=watched), None

    def complete_epoch(self, parameters: NDArray[Any]) -> None:
        """Note that an epoch is complete, with these parameters."""
        self.parameters, self.undo, self.within, self.start = parameters, None, None, None
        self.entered = self.epoch_begun = False

    # --- going back ----------------------------------------------------------------------------------------------

    def go_back(self, trainer: Any) -> None:
        """Give the network and the optimizer what belongs together: the state before the epoch that has begun."""
        with finishing():
            if self.undo is not None:
                try:
                    self.undo()
                except DeviceError:
                    self.lost = True
            if self.entered:
                restore_sources(trainer, self.marks())
                trainer.learning_rate = self.rate_before
            self.undo, self.making, self.entered, self.epoch_begun = None, False, False, False
