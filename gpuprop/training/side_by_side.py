"""Several trainings led side by side, so that networks of one shape make their updates together.

A training pauses before the updates of each epoch and says what they are (`gpuprop.core.updates.Training`). Here all of
them are brought to that point; those whose updates can be made in one go are made in one go, the others make their own,
and all go on to their next epoch. Everything else, row orders, records, callbacks, rules for stopping, is each
training's own business, and so each ends as it would have ended alone: one that has converged is not there any more in
the next round, and one that diverges makes that epoch once more, alone, to find out where.

Which updates go together is the backend's decision: `gpuprop.backends.cpu.joint`. On other devices, and without
compiled loops, the trainings take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import is_sparse
from gpuprop.backends.cpu.ops import CpuOps, compiled_loops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cpu.joint import JointUpdates
    from gpuprop.core.updates import EpochUpdates, Training
    from gpuprop.model.network import TrainingData

__all__ = ["train_together"]


def train_together(trainings: Sequence[Training]) -> list[Exception | None]:
    """Lead trainings that have not begun yet to their ends.

    Returns
    -------
    list
        For each the exception that ended it, or None.

    Raises
    ------
    KeyboardInterrupt
        Where a training lets it pass; so for everything that is not an ``Exception``.
    """
    return _Lead(trainings).to_the_end()


class _Lead:
    """The trainings that still go on, and what serves several of them."""

    def __init__(self, trainings: Sequence[Training]) -> None:
        self._trainings = trainings
        self._outcomes: list[Exception | None] = [None] * len(trainings)
        self._waiting: dict[int, EpochUpdates] = {}
        self._joint: dict[tuple[bool, tuple[int, ...]], JointUpdates] = {}
        self._rows = _Rows()

    def to_the_end(self) -> list[Exception | None]:
        for i, training in enumerate(self._trainings):
            self._advance(i, training.send, None)
        while self._waiting:
            now, self._waiting = self._waiting, {}
            before, self._joint = self._joint, {}
            for group, shared in self._groups(now):
                self._epoch(group, shared, now, before)
        return self._outcomes

    def _advance(self, i: int, resume: Callable[[Any], EpochUpdates], what: Any) -> None:
        """Let training i go on to its next pause, or to its end; `resume` is its ``send`` or its ``throw``."""
        try:
            self._waiting[i] = resume(what)
        except StopIteration:
            pass
        except Exception as error:
            self._outcomes[i] = error

    def _epoch(self, group: tuple[int, ...], shared: bool, now: dict[int, EpochUpdates], before: Any) -> None:
        """Make the updates of a group, and let its trainings go on; one that is alone makes its own."""
        totals: list[NDArray[np.float64] | None] = [None] * len(group)
        if len(group) > 1:
            from gpuprop.backends.cpu.joint import JointUpdates

            members = [now[i] for i in group]
            try:
                joint = before.get((shared, group)) or JointUpdates(members, shared=shared)
                totals = joint.run(members)
            except BaseException as error:  # each ends as if it had come over it alone, Ctrl-C for example
                for i in group:
                    self._advance(i, self._trainings[i].throw, error)
                return
            self._joint[shared, group] = joint
        for i, total in zip(group, totals, strict=True):
            self._advance(i, self._trainings[i].send, total)

    def _groups(self, now: dict[int, EpochUpdates]) -> Iterator[tuple[tuple[int, ...], bool]]:
        """Yield groups of trainings whose updates can be made in one go, and whether they share their batches."""
        kinds: dict[Hashable, dict[Hashable, list[int]]] = {}
        for i, updates in now.items():
            kind = _kind(updates)
            if kind is None:
                yield (i,), False
            else:
                batches = (self._rows.number(i, updates.data), updates.order.tobytes())
                kinds.setdefault(kind, {}).setdefault(batches, []).append(i)
        for groups in kinds.values():
            yield from ((tuple(group), True) for group in groups.values() if len(group) > 1)
            rest = tuple(group[0] for group in groups.values() if len(group) == 1)
            if rest and _apart(now[rest[0]]):
                yield from (((i,), False) for i in rest)
            elif rest:
                yield rest, False


def _kind(updates: EpochUpdates) -> Hashable:
    if not isinstance(updates.network.ops, CpuOps) or compiled_loops() is None:
        return None
    from gpuprop.backends.cpu.joint import kind_of

    return kind_of(updates)


def _apart(updates: EpochUpdates) -> bool:
    """Whether trainings of this kind with rows of their own are faster one after the other."""
    from gpuprop.backends.cpu.joint import LARGEST_OWN_BATCH

    return updates.update_size > LARGEST_OWN_BATCH


class _Rows:
    """Numbers for the data sets of trainings: equal rows and targets have equal numbers."""

    def __init__(self) -> None:
        self._of_training: dict[int, int] = {}
        self._different: list[TrainingData] = []

    def number(self, i: int, data: TrainingData) -> int:
        """Return the number of the data set of training i, which it keeps from epoch to epoch."""
        if i not in self._of_training:
            known = next((n for n, other in enumerate(self._different) if _same_rows(data, other)), None)
            if known is None:
                known = len(self._different)
                self._different.append(data)
            self._of_training[i] = known
        return self._of_training[i]


def _same_rows(one: TrainingData, other: TrainingData) -> bool:
    return _equal(one.inputs, other.inputs) and _equal(one.targets, other.targets)


def _equal(a: Any, b: Any) -> bool:
    """Whether two arrays, or two CSR matrices, hold the same numbers."""
    if a.shape != b.shape or a.dtype != b.dtype or is_sparse(a) != is_sparse(b):
        return False
    if is_sparse(a):
        return all(np.array_equal(getattr(a, part), getattr(b, part)) for part in ("indptr", "indices", "data"))
    same_memory = a.ctypes.data == b.ctypes.data and a.strides == b.strides
    return same_memory or np.array_equal(a, b)
