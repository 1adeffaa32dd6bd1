"""Compile the kernels for GPUs that this machine does not have, and print figures of the machine code.

    python benchmarks/sass_report.py                       # every kernel at one tile, for sm_86 and sm_90
    python benchmarks/sass_report.py --tile 64x64_8x4 --architecture 8.0
    python benchmarks/sass_report.py --all [--json FILE]   # everything the launcher can choose: takes an hour
    python benchmarks/sass_report.py --all --activation tanh --dtype float32      # a part of that

No GPU takes part, and no time is measured. The figures describe the assembler's output: registers, shared memory,
spills, blocks per multiprocessor, the share of multiply-adds in the inner loop and the width of its loads. Reports are
kept on disk, so that only changed kernels are compiled again. The exit status is 1 if a kernel violates
tests/sass_bounds.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

# The bounds are in the folder of the tests, which are not an installed package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpuprop.measure.bench import sass
from gpuprop.measure.bench.sass import Report
from gpuprop.measure.bench.sass_batch import compile_selections
from gpuprop.measure.bench.variants import Selection
from tests.sass_bounds import violations

SINGLE = ("128x128_8x8", "64x64_8x4", "64x64_4x4", "32x32_4x4")
DOUBLE = ("64x64_4x4", "32x32_4x4")


def selected(arguments: argparse.Namespace) -> Iterator[Selection]:
    """Yield the selections that the options ask for."""
    names = arguments.architecture
    capabilities = tuple((int(major), int(minor)) for major, minor in (n.split(".") for n in names.split(",") if n))
    if arguments.all:
        from gpuprop_kernels.activations import HIDDEN

        for dtype, tiles in (("float32", SINGLE), ("float64", DOUBLE)):
            for tile in ("", *tiles):
                for activation in HIDDEN if tile else ("relu",):
                    if all(
                        wanted is None or name in wanted.split(",")
                        for name, wanted in (
                            (dtype, arguments.dtype), (tile, arguments.tile), (activation, arguments.activation),
                        )
                    ):  # fmt: skip
                        yield Selection(tile, capabilities or sass.ARCHITECTURES, (), activation, dtype)
        return
    capabilities = capabilities or ((8, 6), (9, 0))
    for tile in [*(arguments.tile or "64x64_8x4").split(","), *[""] * arguments.flat]:
        yield Selection(tile, capabilities, (), arguments.activation or "relu", arguments.dtype or "float32")


def line(report: Report) -> str:
    """Return one row of the table of all."""
    loads = " ".join(f"{op}:{n}" for memory in ("LDS", "LDG") for op, n in sorted(report.loads(memory).items()))
    return (
        f"{report.name:72s} {report.registers:4d} regs {report.shared:6d} B shared {report.spilled:3d} spilled "
        f"{report.occupancy:2d} blocks FMA {report.fma_fraction:.3f} f64 {report.float64:3d} local {report.local:2d} "
        f"{loads}"
    )


def summary(reports: Iterable[Report]) -> Iterator[str]:
    """Yield a line for each family, tile and dtype, with the worst figures over architectures and options."""
    groups: dict[tuple[str, str, str], list[Report]] = {}
    for report in reports:
        groups.setdefault((report.dtype, report.family, report.tile), []).append(report)
    yield f"{'worst of each kernel':42s} compiled registers  shared blocks spilled local   FMA  (where)"
    for (dtype, family, tile), rows in sorted(groups.items()):
        slowest = min(rows, key=lambda report: report.fma_fraction)
        where = f"{slowest.option} for sm_{slowest.capability[0]}{slowest.capability[1]}"
        fma = f"{slowest.fma_fraction:.3f}  ({where})" if tile else "    -"
        yield (
            f"{f'{dtype} {family} {tile}':42s} {len(rows):8d} {max(r.registers for r in rows):9d} "
            f"{max(r.shared for r in rows):7d} {min(r.occupancy for r in rows):6d} {max(r.spilled for r in rows):7d} "
            f"{max(r.local for r in rows):5d} {fma}"
        )


def main() -> int:
    """Run the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="everything that the launcher can choose, or the named part")
    parser.add_argument("--tile", help=f"one or more of {', '.join(SINGLE)}; default 64x64_8x4, with --all every one")
    parser.add_argument("--dtype", choices=["float32", "float64"], help="default float32, with --all both")
    parser.add_argument("--activation", help="default relu, with --all every one")
    parser.add_argument("--architecture", default="", help="for example 8.0,9.0; all with --all")
    parser.add_argument("--flat", action="store_true", help="also the kernels without a tile")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the reports here too")
    arguments = parser.parse_args()
    if missing := sass.missing_tools():
        print(f"sass_report: {missing}", file=sys.stderr)
        return 1
    reports = []
    for report in compile_selections(selected(arguments), arguments.processes):
        print(line(report), flush=True)
        reports.append(report)
    print("\n", *summary(reports), sep="\n")
    wrong = [violation for report in reports for violation in violations(report)]
    print(*wrong, sep="\n")
    if arguments.json:
        rows = [dataclasses.asdict(report) | {"fma_fraction": report.fma_fraction} for report in reports]
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
