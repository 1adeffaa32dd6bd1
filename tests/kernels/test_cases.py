"""Some of the equivalence cases of ``gpuprop selfcheck``, in the simulator; tests/gpu runs all of them on a GPU."""

from __future__ import annotations

import pytest

from gpuprop.backends import get_ops
from gpuprop.measure.equivalence.case import Case, run_case
from gpuprop.measure.equivalence.cases import all_cases
from tests.kernels import support as s

BLOCK = "one block, one network: two hidden layers, dropout and penalties"
WHOLE = {"whole updates: uint8 rows, float64", f"{BLOCK}, float32", f"{BLOCK}, float64"}
LAYERS = ("batch", "forward", "hidden delta", "gradient", "dropout", "update")
CASES = [
    case
    for case in all_cases(quick=True)
    if case.title in WHOLE or (case.dtype == "float32" and case.group in LAYERS)
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_case(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)
    outcome = run_case(case, get_ops("cuda" if s.ON_DEVICE else "cuda-sim"), runs=1)
    print(f"{outcome.worst}: {outcome.share:.2f} of the bound")
    assert outcome.n_checks
    assert outcome.passed, outcome.error
