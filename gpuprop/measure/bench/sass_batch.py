"""Compile many kernels for many architectures: in several processes, and each only once.

The machine code of a kernel depends on the code of the kernels and on the versions of the compilers. Reports are
therefore kept on disk under a hash of both, as soon as they are made, and a run that was interrupted goes on from
there. One process compiles all kernels that multiply alike, one after the other: they share device functions, and most
of the time of a compilation goes into typing those (three of four seconds for the first architecture; each further
architecture takes one second).

    python -m gpuprop.measure.bench.sass_batch REPORTS < SELECTIONS

reads a list of `Selection` as JSON and writes the reports to a file.
"""

from __future__ import annotations

import ast
import dataclasses
import gc
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from gpuprop.measure.bench import sass, variants
from gpuprop.measure.bench.sass import Capability, Report
from gpuprop.measure.bench.variants import Selection, Variant

__all__ = ["cache_folder", "compile_selections", "reports_from_json", "write_reports"]

KEPT = 4
"""Number of versions of the kernels whose reports stay on disk."""

BATCH = 28
"""Number of kernels that are compiled before their reports are kept."""

Job = tuple[Variant, Capability]


def cache_folder() -> Path:
    """Return the folder of the reports on the present sources and compilers."""
    import gpuprop_kernels

    kernels = Path(gpuprop_kernels.__file__).parent
    # `target.cache` only stores compiled kernels; it does not change them.
    sources = [path for path in kernels.rglob("*.py") if path != kernels / "target" / "cache.py"]
    sources += [Path(sass.__file__), Path(variants.__file__)]
    text = hashlib.sha256(sass.versions().encode())
    for path in sorted(sources):
        text.update(path.name.encode() + _code(path).encode())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "gpuprop" / "machine-code" / text.hexdigest()[:16]


def _code(path: Path) -> str:
    """Return a source without its comments and documentation, which the compiler does not see."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]  # type: ignore[attr-defined]
    return ast.dump(tree)


def compile_selections(selections: Iterable[Selection], processes: int = 2) -> Iterator[Report]:
    """Yield a report on each selected kernel and architecture, each once, as soon as it is ready."""
    jobs = {
        _file_name(variant, capability): (variant, capability)
        for selection in selections
        for variant in selection.variants()
        for capability in selection.capabilities
    }
    folder = cache_folder()
    todo = []
    for name, job in jobs.items():
        try:
            yield from reports_from_json(json.loads((folder / name).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            todo.append(job)
    yield from _compile(todo, processes, folder)
    _prune(folder.parent)


def _file_name(variant: Variant | Report, capability: Capability) -> str:
    parts = (variant.family, variant.option, variant.tile, variant.dtype, f"sm_{capability[0]}{capability[1]}")
    return "-".join(parts).replace(" ", "_") + ".json"


def _compile(jobs: list[Job], processes: int, folder: Path) -> Iterator[Report]:
    """Compile in several processes, kernels with common device functions in the same one."""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for variant, capability in jobs:
        groups.setdefault(variant.operands, []).append((variant, capability))
    # The largest groups come first, so that no process is left with one at the end.
    shares = sorted(groups.values(), key=len, reverse=True)
    if not shares:
        return
    # A fork has already imported the kernel factories and Numba; what it compiles stays in the child.
    _shares[:] = shares
    with multiprocessing.get_context("fork").Pool(processes, gc.disable) as pool:
        for reports in pool.imap_unordered(partial(_share, folder=folder), range(len(shares))):
            yield from reports


_shares: list[list[Job]] = []


def _share(index: int, folder: Path) -> list[Report]:
    made: list[Report] = []
    for first in range(0, len(_shares[index]), BATCH):
        # Numba's compiler makes so many objects that Python's cyclic collector would take a quarter of the time.
        reports = sass.analyse(_shares[index][first : first + BATCH])
        gc.collect()
        for report in reports:
            _keep(report, folder)
        made += reports
    return made


def _keep(report: Report, folder: Path) -> None:
    """Write a report to the cache, if the cache can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{os.getpid()}.part"
        write_reports(part, [report])
        part.replace(folder / _file_name(report, report.capability))
    except OSError:
        return


def _prune(root: Path) -> None:
    try:
        folders = sorted(root.iterdir(), key=lambda folder: folder.stat().st_mtime)
        for folder in folders[:-KEPT]:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return


def write_reports(path: Path, reports: Iterable[Report]) -> None:
    """Write reports as a list in JSON."""
    path.write_text(json.dumps([dataclasses.asdict(report) for report in reports]), encoding="utf-8")


def reports_from_json(rows: Iterable[dict[str, Any]]) -> list[Report]:
    """Return the reports that `write_reports` wrote, as JSON reads them."""
    return [Report(**(row | {"capability": tuple(row["capability"])})) for row in rows]


def main() -> None:
    """Compile the selections on the standard input."""
    wanted = [Selection.from_json(row) for row in json.load(sys.stdin)]
    write_reports(Path(sys.argv[1]), compile_selections(wanted))


if __name__ == "__main__":
    main()
