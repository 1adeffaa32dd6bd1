"""Several trainings led side by side, so that networks of one shape make their updates together.

A training pauses before the updates of each epoch and says what they are (`gpuprop.core.updates.PausingFit`). Here all
trainings are brought to that point. A backend's plan for several trainings makes the updates of those that can share
calls, the others make their own, and then all go on to their next epoch. Each training keeps its own row orders,
records, callbacks and rules for stopping, and so it ends as it would have ended alone: a training that has converged
leaves before the next round, and one that diverges repeats that epoch alone, to find out where.

The backend's `plan` decides which updates are made together. If it refuses, the trainings take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.devices import plan as choose_plan
from gpuprop.backends.uploads import uploads_shared
from gpuprop.core.plan import SharedBuffer
from gpuprop.core.updates import MadeElsewhere
from gpuprop.errors import DeviceError, PlanError
from gpuprop.training.signals import end_if_asked, watching_signals

if TYPE_CHECKING:
    from gpuprop.core.plan import Plan
    from gpuprop.core.updates import EpochUpdates, PausingFit

__all__ = ["train_together"]


def train_together(trainings: Sequence[PausingFit]) -> list[Exception | None]:
    """Lead trainings that have not begun yet to their ends.

    Returns
    -------
    list
        For each training, the exception that ended it, or None.

    Raises
    ------
    KeyboardInterrupt
        If a training lets it pass; the same holds for everything else that is not an ``Exception``.
    """
    with watching_signals(interrupts_only=True):
        return _Lead(trainings).to_the_end()


class _Lead:
    """The trainings that still go on, and the plans that serve several of them."""

    def __init__(self, trainings: Sequence[PausingFit]) -> None:
        self._trainings = trainings
        self._outcomes: list[Exception | None] = [None] * len(trainings)
        self._waiting: dict[int, EpochUpdates] = {}
        self._plans: dict[Hashable, Plan | None] = {}

    def to_the_end(self) -> list[Exception | None]:
        """Advance all trainings, epoch by epoch."""
        try:
            with uploads_shared():
                self._advance_all([(i, training.send, None) for i, training in enumerate(self._trainings)])
            return self._rounds()
        except KeyboardInterrupt as interrupt:  # the others end, too, each where it stands
            with suppress(KeyboardInterrupt):
                self._advance_all([(i, self._trainings[i].throw, interrupt) for i in self._waiting])
            raise
        finally:
            for plan in self._plans.values():
                if isinstance(plan, SharedBuffer):
                    with suppress(DeviceError):  # of a device that has failed, the networks are on the CPU by now
                        plan.release()

    def _rounds(self) -> list[Exception | None]:
        while self._waiting:
            now = dict(self._waiting)
            shapes: dict[Hashable, list[int]] = {}
            for i, updates in now.items():
                # A training that a callback watches makes its own updates.
                own = updates.training.watched or updates.training.want not in ("auto", "joint")
                shapes.setdefault(i if own else updates.training.shape, []).append(i)
            for shape, members in shapes.items():
                self._epoch(shape, members, now)
        return self._outcomes

    def _advance(self, i: int, resume: Callable[[Any], EpochUpdates], what: Any) -> None:
        """Let training i go on to its next pause, or to its end; `resume` is its ``send`` or its ``throw``."""
        self._waiting.pop(i, None)
        try:
            self._waiting[i] = resume(what)
        except StopIteration:
            pass
        except Exception as error:
            self._outcomes[i] = error

    def _epoch(self, shape: Hashable, members: list[int], now: dict[int, EpochUpdates]) -> None:
        """Make the updates of trainings of one shape, and let them go on."""
        made: list[MadeElsewhere | None] = [None] * len(members)
        try:
            plan = self._plan_for(shape, members, now)
            if plan is not None:
                made = _made_by(plan, [now[i] for i in members])
        except BaseException as error:  # each training ends as if the error (Ctrl-C, say) had hit it alone
            self._advance_all([(i, self._trainings[i].throw, error) for i in members])
            return
        self._advance_all([(i, self._trainings[i].send, one) for i, one in zip(members, made, strict=True)])

    def _advance_all(self, steps: Sequence[tuple[int, Callable[[Any], EpochUpdates], Any]]) -> None:
        """Let several trainings go on, each as far as it comes; only then raise the interrupt of one."""
        interrupts = []
        for step in steps:
            try:
                self._advance(*step)
            except KeyboardInterrupt as interrupt:
                interrupts.append(interrupt)
        if interrupts:
            raise interrupts[0]

    def _plan_for(self, shape: Hashable, members: list[int], now: dict[int, EpochUpdates]) -> Plan | None:
        """Return the plan that serves these trainings together, or None if they must take turns."""
        if shape not in self._plans:
            trainings = [now[i].training for i in members]
            plan: Plan | None = None
            if len(trainings) > 1 or trainings[0].joined:
                try:
                    plan = choose_plan(trainings, want="joint")
                except PlanError:
                    plan = None
            self._plans[shape] = plan
        return self._plans[shape]


def _made_by(plan: Plan, epochs: list[EpochUpdates]) -> list[MadeElsewhere | None]:
    """Make an epoch of several trainings, and return what to tell each; None if it has to make its own updates.

    A signal that asks the trainings to end takes back the epoch: each training then ends where it last was complete.
    """
    n_updates, size = max(epoch.training.updates_of_epoch for epoch in epochs), plan.updates_of_call
    with plan.active():
        plan.begin_epoch(*epochs)
        try:
            for first in range(0, n_updates, size):
                end_if_asked()
                plan.run(first, min(first + size, n_updates))
            totals = plan.totals()
        except BaseException:
            plan.rewind()
            raise
        parameters = plan.host_parameters() if isinstance(plan, SharedBuffer) else [None] * len(epochs)
    reason = plan.reason
    return [
        MadeElsewhere(one, reason, partial(plan.rewind, place), own) if np.isfinite(one).all() else None
        for place, (one, own) in enumerate(zip(totals, parameters, strict=True))
    ]
