"""Check the reports of GPUs, and render them as Markdown tables.

python benchmarks/render_results.py                   # the tables of benchmarks/results, on standard output
python benchmarks/render_results.py --write           # the same, into benchmarks/results/README.md
python benchmarks/render_results.py --check FILE ...  # whether reports can be contributed
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpuprop.measure.bench.documents import REPORT_FORMAT as BENCH
from gpuprop.measure.equivalence.selfcheck import REPORT_FORMAT as SELFCHECK

RESULTS = Path(__file__).parent / "results"
NONE_YET = "No GPU has reported: none yet."
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->"

CHECK_HEADERS = (
    "GPU", "compute capability", "driver", "gpuprop", "CuPy", "cases", "largest share of bound", "result",
)  # fmt: skip

Report = dict[str, Any]

# The entries that a report must have, and their types; a nested dict describes an object.
DEVICE = {"device": str, "name": str, "compute_capability": str, "memory_bytes": int, "driver": str, "uuid": str}
COMMON = {"format": str, "date": str, "device": DEVICE, "versions": {"gpuprop": str, "python": str, "numpy": str}}
OUTCOME = {"group": str, "name": str, "dtype": str, "passed": bool, "share_of_bound": float, "seconds": float}
SPREAD = {"p20": float, "p50": float, "p80": float}
TIMED = {"contender": str, "microseconds": SPREAD, "samples": int, "gflop_per_s": float}
RESULT = {
    "kernels": TIMED | {"kernel": str, "shape": list, "dtype": str, "gb_per_s": float, "share_of_roof": float},
    "step": TIMED | {"sizes": list, "batch_size": int, "loss": float},
    "epoch": TIMED | {"sizes": list, "batch_size": int, "loss": float},
}


def flaws(report: Any) -> Iterator[str]:
    """Yield the reasons why a report cannot be accepted."""
    yield from _shape_flaws("report", report, COMMON)
    kind = report.get("format") if isinstance(report, dict) else None
    if kind == SELFCHECK:
        yield from _shape_flaws("report", report, {"passed": bool, "n_cases": int, "n_run": int, "seconds": float})
        yield from _list_flaws("outcomes", report.get("outcomes"), OUTCOME)
    elif kind == BENCH and report.get("kind") in RESULT:
        yield from _list_flaws("results", report.get("results"), RESULT[report["kind"]])
    elif isinstance(report, dict):
        yield f"format: got {kind!r} {report.get('kind', '')}, expected {SELFCHECK!r} or {BENCH!r}"
    if isinstance(report, dict) and report.get("no_times_because"):
        yield f"its times do not count: {report['no_times_because']}"


def _shape_flaws(where: str, value: Any, expected: dict[str, Any]) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: got {type(value).__name__}, expected an object"
        return
    for name, kind in expected.items():
        found = value.get(name)
        if isinstance(kind, dict):
            yield from _shape_flaws(f"{where}.{name}", found, kind)
        elif kind is float and not (isinstance(found, (int, float)) and 0 <= found < math.inf):
            yield f"{where}.{name}: got {found!r}, expected a number of at least 0"
        elif kind is not float and type(found) is not kind:
            yield f"{where}.{name}: got {found!r}, expected {kind.__name__}"


def _list_flaws(where: str, values: Any, expected: dict[str, Any]) -> Iterator[str]:
    if not isinstance(values, list) or not values:
        yield f"{where}: got {type(values).__name__}, expected a list that is not empty"
        return
    for index, value in enumerate(values):
        yield from _shape_flaws(f"{where}[{index}]", value, expected)


def load(path: Path) -> Report:
    """Read and check a report; ``ValueError`` names everything that is wrong with it."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path.name}: not JSON ({error})") from error
    found = list(flaws(report))
    if found:
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(f"{path.name}: {'; '.join(found[:3])}{more}")
    return report  # type: ignore[no-any-return]


def render(reports: Sequence[Report]) -> str:
    """Return the Markdown of some reports: first the checks, then the times."""
    checks = [report for report in reports if report["format"] == SELFCHECK]
    timed = [report for report in reports if report["format"] == BENCH]
    parts = []
    if checks:
        parts.append(_table(CHECK_HEADERS, [_check_row(report) for report in checks]))
    for kind, title in (("kernels", "Kernels"), ("step", "Updates"), ("epoch", "Epochs of MNIST")):
        rows = [row for report in timed if report["kind"] == kind for row in _timed_rows(report)]
        if rows:
            what = ("kernel", "shape") if kind == "kernels" else ("network", "batch")
            headers = ("GPU", *what, "contender", "us p50", "p20 to p80", "GFLOP/s")
            parts.append(f"### {title}\n\n{_table(headers, rows)}")
    return "\n".join(parts) if parts else NONE_YET + "\n"


def _check_row(report: Report) -> list[str]:
    device, versions = report["device"], report["versions"]
    cupy = next((versions[name] for name in ("cupy-cuda13x", "cupy-cuda12x", "cupy") if name in versions), "-")
    worst = max(outcome["share_of_bound"] for outcome in report["outcomes"])
    cases = f"{report['n_run']} of {report['n_cases']}"
    result = "passed" if report["passed"] else "FAILED"
    names = [device["name"], device["compute_capability"], device["driver"], versions["gpuprop"], cupy]
    return [*names, cases, f"{worst:.2f}", result]


def _timed_rows(report: Report) -> Iterator[list[str]]:
    for result in report["results"]:
        if report["kind"] == "kernels":
            what = [result["kernel"], "x".join(map(str, result["shape"])) + f" {result['dtype']}"]
        else:
            what = ["-".join(map(str, result["sizes"])), str(result["batch_size"])]
        spread = result["microseconds"]
        times = [f"{spread['p50']:,.1f}", f"{spread['p20']:,.1f} to {spread['p80']:,.1f}"]
        yield [report["device"]["name"], *what, result["contender"], *times, f"{result['gflop_per_s']:,.0f}"]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=RESULTS, help="the folder of the reports")
    parser.add_argument("--write", action="store_true", help="put the tables into the folder's README.md")
    parser.add_argument("--check", nargs="+", type=Path, metavar="FILE", help="check these reports, render nothing")
    options = parser.parse_args(arguments)
    reports = []
    for path in options.check or sorted(options.folder.glob("*.json")):
        try:
            reports.append(load(path))
        except (OSError, ValueError) as error:
            print(f"render_results: error: {error}", file=sys.stderr)
            return 1
    if options.check:
        print(f"{len(reports)} reports can be contributed")
        return 0
    text = render(reports)
    if not options.write:
        print(text, end="")
        return 0
    readme = options.folder / "README.md"
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    whole = re.sub(pattern, lambda _: BEGIN + text + END, readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    readme.write_text(whole, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
