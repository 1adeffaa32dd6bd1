"""``gpuprop selfcheck``: all cases on one device, and their report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from gpuprop.measure import machine
from gpuprop.measure.equivalence.case import Case, Outcome, run_case
from gpuprop.measure.equivalence.cases import all_cases

if TYPE_CHECKING:
    from gpuprop.core.ops import Ops

__all__ = ["REPORT_FORMAT", "Group", "SelfCheck"]

REPORT_FORMAT = "gpuprop selfcheck 1"
"""The "format" of a report, which benchmarks/render_results.py checks."""


@dataclass(frozen=True)
class Group:
    """The outcomes of one step of the algorithm in one precision."""

    name: str
    dtype: str
    outcomes: tuple[Outcome, ...]

    @property
    def worst(self) -> Outcome:
        """The outcome that used most of its bound, failures first."""
        return max(self.outcomes, key=lambda outcome: (not outcome.passed, outcome.share))

    @property
    def passed(self) -> bool:
        """Whether all passed."""
        return all(outcome.passed for outcome in self.outcomes)


class SelfCheck:
    """All cases on one device.

    Parameters
    ----------
    ops : Ops
    quick : bool
        Run the small selection, once each.
    cases : sequence of Case or None, default=None
        None runs gpuprop's own.

    Attributes
    ----------
    outcomes : list of Outcome
        Of the cases that `run` has run so far.
    clock_fault : str or None
        Why the times of this device must not be shown; None if they count.
    """

    def __init__(self, ops: Ops, *, quick: bool, cases: Sequence[Case] | None = None) -> None:
        self.quick = quick
        self.cases = all_cases(quick=quick, large=ops.backend == "cuda") if cases is None else list(cases)
        self.outcomes: list[Outcome] = []
        self.device = machine.describe(ops)
        self.clock_fault = machine.clock_fault(ops)
        self.seconds = 0.0
        self._ops = ops

    def run(self) -> Iterator[Outcome]:
        """Run case by case, and yield each outcome; a device that fails ends the run."""
        begin = time.perf_counter()
        for case in self.cases:
            outcome = run_case(case, self._ops, runs=1 if self.quick else 2)
            self.outcomes.append(outcome)
            self.seconds = time.perf_counter() - begin
            yield outcome
            if outcome.lost:
                return

    @property
    def failures(self) -> list[Outcome]:
        """The outcomes that did not pass."""
        return [outcome for outcome in self.outcomes if not outcome.passed]

    @property
    def passed(self) -> bool:
        """Whether every case was run, and passed."""
        return len(self.outcomes) == len(self.cases) > 0 and not self.failures

    def groups(self) -> list[Group]:
        """Return the outcomes by step and precision, in the order in which they were run."""
        keyed = groupby(self.outcomes, key=lambda outcome: (outcome.case.group, outcome.case.dtype))
        return [Group(name, dtype, tuple(outcomes)) for (name, dtype), outcomes in keyed]

    def report(self) -> dict[str, Any]:
        """Return everything as JSON values; seconds only where they count."""
        return {
            "format": REPORT_FORMAT,
            "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "device": self.device,
            "versions": machine.versions(),
            "quick": self.quick,
            "passed": self.passed,
            "n_cases": len(self.cases),
            "n_run": len(self.outcomes),
            "seconds": None if self.clock_fault else self.seconds,
            "no_times_because": self.clock_fault or "",
            "outcomes": [self._entry(outcome) for outcome in self.outcomes],
        }

    def _entry(self, outcome: Outcome) -> dict[str, Any]:
        case = outcome.case
        entry: dict[str, Any] = {
            "group": case.group,
            "name": case.name,
            "dtype": case.dtype,
            "passed": outcome.passed,
            # The share of a NaN is infinite, and JSON has no infinity.
            "share_of_bound": min(outcome.share, 1e300),
            "worst": outcome.worst,
            "checks": outcome.n_checks,
            "error": outcome.error or "",
        }
        return entry if self.clock_fault else entry | {"seconds": outcome.seconds}
