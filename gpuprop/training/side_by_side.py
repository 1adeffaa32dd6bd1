"""Several trainings led side by side, so that networks of one shape make their updates together.

A training pauses before the updates of each epoch and says what they are (`gpuprop.core.updates.PausingFit`). Here all
trainings are brought to that point. A backend's plan for several trainings makes the updates of those that can share
calls, the others make their own, and then all go on to their next epoch. Each training keeps its own row orders,
records, callbacks and rules for stopping, and so it ends as it would have ended alone: a training that has converged
leaves before the next round, and one that diverges repeats that epoch alone, to find out where.

The backend's `plan` decides which updates are made together. If it refuses, the trainings take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
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

__all__ = ["SideBySide", "train_together"]


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
        together = SideBySide(trainings)
        together.advance()
        return together.outcomes


class SideBySide:
    """Trainings that are led side by side, for some epochs at a time or to their ends.

    Parameters
    ----------
    trainings : sequence of PausingFit
        They have not begun yet.

    Attributes
    ----------
    outcomes : list
        For each training, the exception that ended it, or None.
    epochs : list of int
        The epochs that each has made.
    """

    def __init__(self, trainings: Sequence[PausingFit]) -> None:
        self._trainings = trainings
        self.outcomes: list[Exception | None] = [None] * len(trainings)
        self.epochs = [0] * len(trainings)
        self._begun = False
        self._waiting: dict[int, EpochUpdates] = {}
        self._plans: dict[Hashable, Plan | None] = {}

    def advance(self, epochs: Sequence[int] | None = None) -> None:
        """Let the trainings go on.

        Parameters
        ----------
        epochs : sequence of int or None, default=None
            Up to how many epochs each has made, all calls counted; None leads all to their ends. A training may end
            earlier by its own rules.

        Raises
        ------
        KeyboardInterrupt
            If a training lets it pass. The others have then ended, too, each where it stood.
        """
        try:
            self._rounds(epochs)
        except KeyboardInterrupt as interrupt:
            with suppress(KeyboardInterrupt):
                self._advance_all([(i, self._trainings[i].throw, interrupt) for i in self._waiting])
            raise
        finally:
            for plan in self._plans.values():
                if isinstance(plan, SharedBuffer):
                    with suppress(DeviceError):  # of a device that has failed, the networks are on the CPU by now
                        plan.release()

    def leave(self, places: Iterable[int]) -> None:
        """Let trainings end where they are, as if nobody asked for more epochs."""
        for i in places:
            if self._waiting.pop(i, None) is not None:
                self._trainings[i].close()
        self._plans.clear()  # which count on the company that they had

    def _rounds(self, epochs: Sequence[int] | None) -> None:
        if not self._begun:
            self._begun = True
            with uploads_shared():
                self._advance_all([(i, training.send, None) for i, training in enumerate(self._trainings)])
        while now := {i: one for i, one in self._waiting.items() if epochs is None or self.epochs[i] < epochs[i]}:
            shapes: dict[Hashable, list[int]] = {}
            for i, updates in now.items():
                # A training that a callback watches makes its own updates.
                own = updates.training.watched or updates.training.want not in ("auto", "joint")
                shapes.setdefault(i if own else updates.training.shape, []).append(i)
            for shape, members in shapes.items():
                self._epoch(shape, members, now)

    def _advance(self, i: int, resume: Callable[[Any], EpochUpdates], what: Any) -> None:
        """Let training i go on to its next pause, or to its end; `resume` is its ``send`` or its ``throw``."""
        made = self._waiting.pop(i, None) is not None
        try:
            self._waiting[i] = resume(what)
        except StopIteration:
            pass
        except Exception as error:
            self.outcomes[i] = error
            return
        self.epochs[i] += made

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
                asked = any(one.joined or one.want == "joint" for one in trainings)
                try:
                    plan = choose_plan(trainings, want="joint" if asked else "auto")
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
    reason, finite = plan.reason, np.logical_and.reduce(np.isfinite(totals), axis=1)
    return [
        MadeElsewhere(one, reason, partial(plan.rewind, place), own) if sound else None
        for place, (one, own, sound) in enumerate(zip(totals, parameters, finite, strict=True))
    ]
