"""The equivalence cases on the CPU's backends, the way they fail, and ``gpuprop selfcheck``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuprop.backends import get_ops
from gpuprop.backends.numpy.ops import NumpyOps
from gpuprop.errors import DeviceError
from gpuprop.maths.losses import LOSSES
from gpuprop.maths.optimizers import OPTIMIZERS
from gpuprop.measure import machine
from gpuprop.measure.bench.whole_updates import CONFIGS, Config
from gpuprop.measure.equivalence import selfcheck
from gpuprop.measure.equivalence.case import Case, Check, Output, run_case
from gpuprop.measure.equivalence.cases import all_cases
from tests.cli_tools import Cli

CASES = all_cases(large=False)
# Each activation and loss in each precision is a loop of its own, which test_cpu_loops compiles and compares too.
ON_CPU = [case for case in CASES if case.dtype == "float32" or case.group not in ("forward", "loss", "hidden delta")]


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    return Cli(capsys)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_case_in_numpy(case: Case) -> None:
    check("numpy", case)


@pytest.mark.parametrize("case", ON_CPU, ids=lambda case: case.title)
def test_case_in_compiled_loops(case: Case) -> None:
    check("cpu", case)


def check(device: str, case: Case) -> None:
    outcome = run_case(case, get_ops(device))
    print(f"{outcome.worst}: {outcome.share:.2f} of the bound")
    assert outcome.n_checks
    assert outcome.passed, outcome.error


def test_cases_have_names_of_their_own_and_cover_what_there_is() -> None:
    titles = [case.title for case in all_cases()]
    assert len(set(titles)) == len(titles) >= 300
    for name in OPTIMIZERS:
        assert {f"update: {name}, float32", f"whole updates: {name}, float64"} <= set(titles)
    for name in LOSSES:
        assert any(title.startswith(f"loss: {name}") for title in titles)
    assert {case.dtype for case in all_cases(quick=True)} == {"float32", "float64"}


# --- a case that must fail, fails ---------------------------------------------------------------------------------


class Wrong(NumpyOps):
    """NumPy with one primitive that does something else."""

    def __init__(self, name: str, replacement: Any) -> None:
        super().__init__()
        setattr(self, name, lambda *arguments, **options: replacement(super(Wrong, self), *arguments, **options))


def outcome_with(ops: NumpyOps, title: str) -> Any:
    return run_case(next(case for case in CASES if case.title == title), ops)


def late_biases(ops: Any, x: Any, w: Any, b: Any, activation: Any, z: Any, out: Any) -> None:
    ops.forward(x, w, 1.001 * b, activation, z, out)


def no_mask(ops: Any, delta: Any, w: Any, activation: Any, source: Any, mask: Any, out: Any) -> None:
    ops.hidden_delta(delta, w, activation, source, None, out)


def overwrites(ops: Any, x: Any, delta: Any, w: Any, b: Any, *, accumulate: bool) -> None:
    ops.accumulate_gradient(x, delta, w, b, accumulate=False)


def a_row_too_far(ops: Any, data: Any, order: Any, start: int, scaling: Any, out: Any) -> None:
    ops.take_batch(data, order, start, scaling, out.base[: len(out) + 1])


def a_unit_unwritten(ops: Any, x: Any, w: Any, b: Any, activation: Any, z: Any, out: Any) -> None:
    before = out[0, 0]
    ops.forward(x, w, b, activation, z, out)
    out[0, 0] = before


def stale_masks(ops: Any, a: Any, dropping: Any, *rest: Any) -> None:
    ops.drop(a, dropping._replace(step=dropping.step - 1), *rest)


class Noise:
    """A gradient whose last bit differs from call to call."""

    calls = 0

    def __call__(self, ops: Any, x: Any, delta: Any, w: Any, b: Any, *, accumulate: bool) -> None:
        Noise.calls += 1
        ops.accumulate_gradient(x, delta, w, b, accumulate=accumulate)
        w[0, 0] = np.nextafter(w[0, 0], np.float32((-1) ** Noise.calls * np.inf), dtype=w.dtype)


@pytest.mark.parametrize(
    ("name", "replacement", "title", "complaint"),
    [
        ("forward", late_biases, "forward: 7x17x33, float32", "times the bound"),
        ("forward", a_unit_unwritten, "forward: tanh, float64", "inf times the bound"),
        ("hidden_delta", no_mask, "hidden delta: silu, float32", "times the bound"),
        ("accumulate_gradient", overwrites, "gradient: accumulated 7x17x33, float32", "times the bound"),
        ("accumulate_gradient", Noise(), "gradient: overwritten 7x17x33, float32", "other bits"),
        ("take_batch", a_row_too_far, "batch: uint8 rows divided, float32", "behind the output"),
        ("drop", stale_masks, "dropout: rate 0.25, float32", "times the bound"),
    ],
)
def test_a_defect_is_found(name: str, replacement: Any, title: str, complaint: str) -> None:
    assert outcome_with(NumpyOps(), title).passed
    outcome = outcome_with(Wrong(name, replacement), title)
    assert not outcome.passed
    assert complaint in (outcome.error or "")


# --- the command --------------------------------------------------------------------------------------------------


def test_selfcheck_passes_and_reports(cli: Cli, tmp_path: Path) -> None:
    result = cli.run("selfcheck", "--device", "numpy", "--quick", "--report", "r.json")
    n = len(all_cases(quick=True))
    assert f"selfcheck: passed, {n} of {n} cases run on" in result.out
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["format"], report["passed"], report["n_run"]) == (selfcheck.REPORT_FORMAT, True, n)
    assert report["device"]["device"] == "numpy"
    assert {"gpuprop", "python", "platform", "numpy"} <= set(report["versions"])
    assert all(entry["share_of_bound"] <= 1 and entry["seconds"] >= 0 for entry in report["outcomes"])


def test_a_device_that_computes_rightly_is_timed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    right = [case for case in CASES if case.title == "forward: relu, float32"]
    monkeypatch.setattr(selfcheck, "all_cases", lambda **_: right)
    monkeypatch.setitem(CONFIGS, "a", Config("a", (784, 5, 10), 16))
    result = cli.run("selfcheck", "--device", "numpy", "--report", "r.json")
    assert re.search(r"an update of 784-5-10, gpuprop \(numpy\): [\d,.]+ microseconds", result.out)
    assert json.loads(Path("r.json").read_text())["timings"][0]["microseconds"]["p50"] > 0
    monkeypatch.setattr(machine, "clock_fault", lambda ops: "an emulator")
    assert json.loads(cli.run("selfcheck", "--device", "numpy", "--json").out)["timings"] == []


def lost(ops: Any, dtype: Any) -> Iterator[Check]:
    raise DeviceError("cuda:0 failed: an illegal address")
    yield


def cases_that_fail() -> list[Case]:
    def wrong(ops: Any, dtype: Any) -> Iterator[Check]:
        yield Check("one", 2.0, 1.0, 0.5)

    def not_a_number(ops: Any, dtype: Any) -> Iterator[Check]:
        yield Check("x", Output(ops, (2, 2), dtype).read(), np.zeros((2, 2)), 1.0)

    return [
        Case("first", "wrong", "float32", wrong),
        Case("first", "nan", "float32", not_a_number),
        Case("second", "lost", "float32", lost),
        Case("second", "never run", "float32", wrong),
    ]


def test_failures_are_told_and_a_lost_device_ends_the_run(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfcheck, "all_cases", lambda **_: cases_that_fail())
    result = cli("selfcheck", "--device", "numpy", "--report", "r.json")
    assert (result.status, result.err) == (1, "")
    assert "FAILED first: wrong, float32: one: the error is 2 times the bound" in result.out
    assert "FAILED second: lost, float32: DeviceError: cuda:0 failed: an illegal address" in result.out
    assert "the device failed; 1 cases were not run" in result.out
    assert "selfcheck: FAILED, 3 cases, 3 of 4 cases run" in result.last_line or "report" in result.last_line
    report = json.loads(Path("r.json").read_text())
    assert [entry["passed"] for entry in report["outcomes"]] == [False] * 3
    assert report["outcomes"][1]["share_of_bound"] == 1e300
    assert cli("selfcheck", "--device", "numpy", "--json").status == 1


def test_a_missing_device_and_a_report_that_cannot_be_written(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nowhere" in cli.fail("selfcheck", "--device", "numpy", "--report", "nowhere/r.json").err
    assert cli.fail("selfcheck", "--device", "cuda:99").status == 1
    assert cli.fail("selfcheck", "--device", "nmupy").status == 2


def test_the_simulator_gets_the_quick_cases_and_shows_no_times(tmp_path: Path) -> None:
    # Two cases only: what the simulator computes is the business of tests/kernels.
    program = (
        "import sys; from gpuprop.measure.equivalence import selfcheck as s; all_ = s.all_cases;"
        "s.all_cases = lambda **how: [c for c in all_(**how) if c.quick and c.group == 'batch'] if how['quick'] else 1;"
        "from gpuprop.__main__ import main; sys.exit(main(['selfcheck', '--device', 'cuda-sim', '--report', 'r.json']))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "no times: the simulator's times say nothing about a GPU" in done.stdout
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["seconds"] is None
    assert not any("seconds" in entry for entry in report["outcomes"])


# --- the machine ---------------------------------------------------------------------------------------------------


class FakeRuntime:
    """CuPy's runtime module, as far as `machine` asks it."""

    def getDeviceProperties(self, index: int) -> dict[str, Any]:  # noqa: N802  (CuPy's name)
        return {
            "name": b"Some GPU", "major": 7, "minor": 5, "totalGlobalMem": 2**34, "multiProcessorCount": 40,
            "l2CacheSize": 2**22,
        }  # fmt: skip

    def driverGetVersion(self) -> int:  # noqa: N802
        return 13010

    def runtimeGetVersion(self) -> int:  # noqa: N802
        return 12090


UUID = "00010203-0405-0607-0809-0a0b0c0d0e0f"
WHOLE = f"GPU 0: Some GPU (UUID: GPU-{UUID})\n"
PART = f"GPU 0: Some GPU (UUID: GPU-ff)\n  MIG 1g.10gb Device 0: (UUID: MIG-{UUID})\n"
QUERIED = f"GPU-{UUID}, 580.65.06, 1590, [N/A]\n"


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> NumpyOps:
    monkeypatch.setattr(machine, "_cuda", lambda ops: (FakeRuntime(), 0))
    monkeypatch.setattr(machine, "_uuid", lambda ops: UUID)
    return NumpyOps("cuda:0")


@pytest.mark.parametrize(
    ("listed", "queried", "figures"),
    [
        (WHOLE, QUERIED, {"driver": "580.65.06", "max_clock_mhz": "1590"}),
        (PART, "GPU-ff, 580.65.06, 1590, 70.00\n", {"driver": "580.65.06"}),
        ("GPU 0: other (UUID: GPU-ff)\n", "GPU-ff, 580.65.06, 1590, 70.00\n", {}),
        ("", "", {}),
    ],
    ids=["a GPU", "a part of one", "another", "no nvidia-smi"],
)
def test_times_count_on_a_gpu_that_nvidia_smi_lists(
    listed: str, queried: str, figures: dict[str, str], fake_gpu: NumpyOps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_nvidia_smi", lambda *a: listed if a[0] == "-L" else queried)
    assert (machine.clock_fault(fake_gpu) is None) is bool(figures)
    found = machine.describe(fake_gpu)
    assert (found["name"], found["compute_capability"]) == ("Some GPU", "7.5")
    assert (found["cuda_driver"], found["cuda_runtime"]) == ("13.1", "12.9")
    assert {name: found[name] for name in ("driver", "max_clock_mhz", "power_limit_w") if name in found} == figures


def test_without_nvidia_smi_no_time_counts(fake_gpu: NumpyOps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "nvidia-smi does not list" in (machine.clock_fault(fake_gpu) or "")
    assert machine.clock_fault(NumpyOps()) is None
