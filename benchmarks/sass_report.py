"""Compile the kernels for GPUs that this machine does not have, and print what the machine code looks like.

    python benchmarks/sass_report.py                       # every kernel at one tile, for sm_86 and sm_90
    python benchmarks/sass_report.py --tile 64x64_8x4 --architecture 8.0
    python benchmarks/sass_report.py --all [--json FILE]   # everything the launcher can choose: takes an hour

No GPU takes part, and nothing here is a time: registers, shared memory, spills, blocks per multiprocessor, the share of
multiply-adds in the inner loop and the width of its loads are what the assembler made.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from gpuprop.bench import sass
from gpuprop.bench.variants import Variant, flat_variants, product_variants

SINGLE = ("128x128_8x8", "64x64_8x4", "64x64_4x4", "32x32_4x4")
DOUBLE = ("64x64_4x4", "32x32_4x4")


def selected(arguments: argparse.Namespace) -> Iterator[Variant]:
    """Yield what the options ask for."""
    if arguments.all:
        from gpuprop_kernels.activations import HIDDEN

        for dtype, tiles in (("float32", SINGLE), ("float64", DOUBLE)):
            for tile in tiles:
                for activation in HIDDEN:
                    yield from product_variants(tile, dtype, activation)
            yield from flat_variants(dtype)
        return
    for tile in arguments.tile.split(","):
        yield from product_variants(tile, arguments.dtype, arguments.activation)
    if arguments.flat:
        yield from flat_variants(arguments.dtype)


def line(report: sass.Report) -> str:
    """Return one row of the table."""
    loads = " ".join(f"{op}:{n}" for memory in ("LDS", "LDG") for op, n in sorted(report.loads(memory).items()))
    return (
        f"{report.name:58s} sm_{report.capability[0]}{report.capability[1]:<2d} {report.registers:4d} regs "
        f"{report.shared:6d} B shared {report.spilled:3d} spilled {report.occupancy:2d} blocks "
        f"FMA {report.fma_fraction:.3f} f64 {report.float64:3d} local {report.local:2d} {loads}"
    )


def main() -> int:
    """Run the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="everything the launcher can choose")
    parser.add_argument("--tile", default="64x64_8x4", help=f"one or more of {', '.join(SINGLE)}")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--activation", default="relu")
    parser.add_argument("--architecture", default="", help="for example 8.0,9.0; all with --all")
    parser.add_argument("--flat", action="store_true", help="also the kernels without a tile")
    parser.add_argument("--json", type=Path, help="write the reports here too")
    arguments = parser.parse_args()
    if missing := sass.missing_tools():
        print(f"sass_report: {missing}", file=sys.stderr)
        return 1
    names = arguments.architecture or ("7.5,8.0,8.6,8.9,9.0,10.0,12.0" if arguments.all else "8.6,9.0")
    architectures = [(int(major), int(minor)) for major, minor in (name.split(".") for name in names.split(","))]
    reports = []
    for variant in selected(arguments):
        for capability in architectures:
            report = sass.analyse(variant.name, variant.kernel, variant.signature, variant.threads, capability)
            print(line(report), flush=True)
            reports.append(dataclasses.asdict(report) | {"fma_fraction": report.fma_fraction})
    if arguments.json:
        arguments.json.write_text(json.dumps(reports, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
