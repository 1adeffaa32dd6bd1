"""The folder benchmarks/: a script for each kernel, contributed reports, what is accepted and how it is rendered."""

from __future__ import annotations

import ast
import copy
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from gpuprop.measure.bench.documents import REPORT_FORMAT as BENCH
from gpuprop.measure.bench.kernels import KERNELS
from gpuprop.measure.bench.roofline import Roof
from gpuprop.measure.equivalence.selfcheck import REPORT_FORMAT as SELFCHECK
from tests.cli_tools import Cli

ROOT = Path(__file__).parent.parent
RENDER = runpy.run_path(str(ROOT / "benchmarks" / "render_results.py"))

# Made up: no such device, no such times.
DEVICE = {
    "device": "cuda:0", "name": "Imaginary 9000", "compute_capability": "9.9", "memory_bytes": 2**34,
    "driver": "999.1", "uuid": "",
}  # fmt: skip
VERSIONS = {"gpuprop": "0.1.0", "python": "3.12.0", "numpy": "2.4.0", "cupy-cuda13x": "14.2.0"}
COMMON = {"date": "2026-01-01T00:00:00Z", "device": DEVICE, "versions": VERSIONS, "no_times_because": ""}
OUTCOME = {
    "group": "forward", "name": "relu", "dtype": "float32", "passed": True, "share_of_bound": 0.25, "seconds": 1.0,
}  # fmt: skip
CHECKED = COMMON | {
    "format": SELFCHECK, "passed": True, "n_cases": 1, "n_run": 1, "seconds": 1.0, "outcomes": [OUTCOME],
}  # fmt: skip
SPREAD = {"p20": 1.0, "p50": 1234.5, "p80": 2000}
TIMED = {"contender": "gpuprop", "microseconds": SPREAD, "samples": 30, "gflop_per_s": 12.0}
KERNEL = TIMED | {"kernel": "a|b", "shape": [1, 2, 3], "dtype": "float32", "gb_per_s": 1.0, "share_of_roof": 0.5}
STEP = TIMED | {"sizes": [784, 128, 10], "batch_size": 128, "loss": 1.25}
REPORTS = {
    "check": CHECKED,
    "kernels": COMMON | {"format": BENCH, "kind": "kernels", "results": [KERNEL]},
    "step": COMMON | {"format": BENCH, "kind": "step", "results": [STEP]},
    "epoch": COMMON | {"format": BENCH, "kind": "epoch", "results": [STEP]},
}


def write(folder: Path, **reports: Any) -> list[Path]:
    paths = [folder / f"{name}.json" for name in reports]
    for path, report in zip(paths, reports.values(), strict=True):
        path.write_text(json.dumps(report))
    return paths


def test_made_up_reports_are_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write(tmp_path, **REPORTS)
    assert RENDER["main"](["--check", *map(str, paths)]) == 0
    assert capsys.readouterr().out == "4 reports can be contributed\n"
    (tmp_path / "README.md").write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    assert RENDER["main"](["--folder", str(tmp_path), "--write"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("before\n<!-- results -->\n| GPU |")
    assert text.endswith("<!-- end of results -->\nafter\n")
    assert "old" not in text
    assert "| Imaginary 9000 | 9.9 | 999.1 | 0.1.0 | 14.2.0 | 1 of 1 | 0.25 | passed |" in text
    assert "| Imaginary 9000 | a\\|b | 1x2x3 float32 | gpuprop | 1,234.5 | 1.0 to 2,000.0 | 12 |" in text
    assert text.count("| Imaginary 9000 | 784-128-10 | 128 | gpuprop |") == 2


def broken(name: str, *path: Any, value: Any) -> Any:
    report = copy.deepcopy(REPORTS[name])
    place: Any = report
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return report


@pytest.mark.parametrize(
    ("report", "complaint"),
    [
        (broken("check", "device", "driver", value=None), "report.device.driver: got None, expected str"),
        (broken("check", "no_times_because", value="an emulator"), "its times do not count: an emulator"),
        (broken("check", "outcomes", value=[]), "outcomes: got list, expected a list that is not empty"),
        (broken("check", "passed", value=1), "report.passed: got 1, expected bool"),
        (broken("kernels", "results", 0, "microseconds", "p50", value=-1), "microseconds.p50: got -1"),
        (broken("kernels", "results", 0, "gflop_per_s", value=float("nan")), "gflop_per_s: got nan"),
        (broken("step", "kind", value="steps"), "expected 'gpuprop selfcheck 1' or 'gpuprop bench 1'"),
        ([], "report: got list, expected an object"),
    ],
)
def test_what_is_wrong_is_named(
    report: Any, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = write(tmp_path, x=report)
    assert RENDER["main"](["--check", str(path)]) == 1
    assert complaint in capsys.readouterr().err


def test_not_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{")
    assert RENDER["main"](["--folder", str(tmp_path)]) == 1
    assert "x.json: not JSON" in capsys.readouterr().err


def test_what_the_commands_write_lacks_only_a_gpu(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli = Cli(capsys)
    cli.run("selfcheck", "--device", "numpy", "--quick", "--report", "s.json")
    arguments = ("--device", "numpy", "--only", "rows", "--shape", "3x4x5", "--rounds", 1)
    roof = Roof("this device", {"float32": 1e10}, 1e10, "made up")
    monkeypatch.setattr("gpuprop.measure.bench.kernels.measure_roof", lambda *_, **__: roof)
    cli.run("bench", "kernels", *arguments, "--report", "k.json")
    for name in ("s.json", "k.json"):
        found = list(RENDER["flaws"](json.loads(Path(name).read_text())))
        assert len(found) == 4
        assert all(
            re.match(r"report\.device\.(compute_capability|memory_bytes|driver|uuid): got None", f) for f in found
        )


def test_the_results_that_are_here_are_rendered() -> None:
    folder = ROOT / "benchmarks" / "results"
    text = RENDER["render"]([RENDER["load"](path) for path in sorted(folder.glob("*.json"))])
    assert f"<!-- results -->\n{text}<!-- end of results -->" in (folder / "README.md").read_text(encoding="utf-8")


# --- a script for each kernel ---------------------------------------------------------------------------------------


def test_every_kernel_with_a_launcher_has_a_benchmark() -> None:
    launchers = ast.parse((ROOT / "kernels" / "gpuprop_kernels" / "launch.py").read_text(encoding="utf-8"))
    imports = [node for node in launchers.body if isinstance(node, ast.ImportFrom)]
    modules = {
        str(node.module).partition(".")[2] for node in imports if any(n.name.endswith("_kernel") for n in node.names)
    }
    scripts = {path.stem.removeprefix("bench_") for path in (ROOT / "benchmarks").glob("bench_*.py")}
    assert {"forward", "head", "rows", "delta", "gradient", "update"} <= modules <= scripts


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("bench_*.py")), ids=lambda path: path.stem)
def test_benchmark_scripts(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(path), "--device", "numpy", "--shape", "5x4x3", "--rounds", "1", "--json"])
    roof = Roof("this device", {"float32": 1e10}, 1e10, "made up")
    monkeypatch.setattr("gpuprop.measure.bench.kernels.measure_roof", lambda *_, **__: roof)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 0
    names = {result["kernel"] for result in json.loads(capsys.readouterr().out)["results"]}
    assert path.stem.removeprefix("bench_") in names <= set(KERNELS)
