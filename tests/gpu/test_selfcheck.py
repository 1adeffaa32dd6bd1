"""All equivalence cases on a GPU, each twice; compiling their kernels takes most of the time."""

from __future__ import annotations

import pytest

from gpuprop.backends import get_ops
from gpuprop.measure import machine
from gpuprop.measure.equivalence.case import Case, run_case
from gpuprop.measure.equivalence.cases import all_cases

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.title)
def test_case(case: Case) -> None:
    outcome = run_case(case, get_ops("cuda"))
    print(f"{outcome.worst}: {outcome.share:.2f} of the bound")
    assert outcome.n_checks
    assert outcome.passed, outcome.error


def test_the_report_describes_the_gpu() -> None:
    found = machine.describe(get_ops("cuda"))
    assert found["device"] == "cuda:0"
    assert found["memory_bytes"] > 2**28
    assert found["multiprocessors"] > 0
    assert float(found["compute_capability"]) >= 7.5
    assert len(found["uuid"]) == 36
    # Only a GPU that NVIDIA's own tool lists has a driver version, and only its times count.
    assert ("driver" in found) is (machine.clock_fault(get_ops("cuda")) is None)
