"""Compile kernels with numba-cuda and with its successor numba-cuda-mlir, and compare the machine code.

    python benchmarks/next_compiler.py                       # a sample of the kernels for sm_80 and sm_90
    python benchmarks/next_compiler.py --every               # one kernel of each family
    python benchmarks/next_compiler.py --architecture 12.0 --tile 64x64_8x4 --json FILE

This needs ``pip install "numba-cuda[cu13]" "numba-cuda-mlir[cu13]" nvidia-cuda-nvcc nvidia-cuda-nvdisasm``, and no
device. numba-cuda is frozen; gpuprop stays with it until the figures below speak for its successor, and this program
tells whether the change is still one module's work (`gpuprop_kernels.target`). Each compiler has a process of its own.
The last column is the processor time that a kernel took from Python to machine code.

The exit status is 1 if a kernel of the successor does not compile, spills, computes in float64, or uses local memory
more often than is known.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SAMPLE = ("forward", "delta dropout", "gradient update gathering", "head", "update")
"""Families that meet every loader, store and barrier between them."""

KNOWN = {"gradient update gathering": 2, "gradient update": 6}
"""Accesses to local memory that are known. An optimizer's registers come from one of two branches, and the successor
keeps arrays that meet behind branches in memory."""

COMPILERS = ("numba-cuda", "numba-cuda-mlir")
VARIABLE = "GPUPROP_KERNEL_COMPILER"


def compile_here(
    families: set[str] | None, tile: str, architectures: list[tuple[int, int]]
) -> Iterator[dict[str, Any]]:
    """Compile the first kernel of each family with the compiler of this process, and yield its figures."""
    from gpuprop.measure.bench import sass
    from gpuprop.measure.bench.variants import flat_variants, product_variants

    done = set()
    for variant in [*product_variants(tile, "float32"), *flat_variants("float32")]:
        if variant.family in done or (families is not None and variant.family not in families):
            continue
        if variant.option.endswith("together") or (variant.family == "update" and variant.option != "adam"):
            continue  # several networks in one launch add offsets, and no loop of their own
        done.add(variant.family)
        for architecture in architectures:
            row: dict[str, Any] = {"kernel": variant.family, "architecture": architecture}
            begin = time.process_time()
            try:
                (report,) = sass.analyse([(variant, architecture)])
            except Exception as error:
                yield row | {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"}
                continue
            yield row | {
                "registers": report.registers,
                "shared": report.shared,
                "spilled": report.spilled,
                "local": report.local,
                "float64": report.float64,
                "fma": round(report.fma_fraction, 3),
                "seconds": round(time.process_time() - begin, 1),
            }


def rows_of(compiler: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Compile in a process that uses this compiler."""
    command = [sys.executable, __file__, "--worker", *sys.argv[1:]]
    done = subprocess.run(command, env=os.environ | {VARIABLE: compiler}, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def faults(row: dict[str, Any]) -> list[str]:
    """Return what is wrong with a kernel of the successor."""
    if "error" in row:
        return [row["error"]]
    allowed = {"local": KNOWN.get(row["kernel"], 0)}
    return [f"{what}: {row[what]}" for what in ("spilled", "local", "float64") if row[what] > allowed.get(what, 0)]


def line(name: str, row: dict[str, Any]) -> str:
    """Return one row of the table."""
    if "error" in row:
        return f"| {name} | does not compile: {row['error']} |"
    share = f"{row['fma']:.3f}" if row["fma"] else "-"
    return f"| {name} | {row['registers']} | {row['shared']} | {row['local']} | {share} | {row['seconds']:.1f} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", action="store_true", help="one kernel of each family, not only the sample")
    parser.add_argument("--tile", default="32x32_4x4")
    parser.add_argument("--architecture", default="8.0,9.0", help="compute capabilities, with commas between them")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.architecture.split(",")
    architectures = [(int(major), int(minor)) for major, minor in (name.split(".") for name in names)]
    if arguments.worker:
        for row in compile_here(None if arguments.every else set(SAMPLE), arguments.tile, architectures):
            print(json.dumps(row), flush=True)
        return 0
    present, successor = (rows_of(compiler, arguments) for compiler in COMPILERS)
    print("| kernel, architecture, compiler | registers | shared bytes | local accesses | multiply-adds | seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    wrong = []
    for old, new in zip(present, successor, strict=True):
        major, minor = new["architecture"]
        name = f"{new['kernel']}, sm_{major}{minor}"
        print(line(f"{name}, {COMPILERS[0]}", old))
        print(line(f"{name}, {COMPILERS[1]}", new), flush=True)
        wrong += [f"{name}: {fault}" for fault in faults(new)]
    if arguments.json:
        arguments.json.write_text(json.dumps({"present": present, "successor": successor}, indent=1), encoding="utf-8")
    for fault in wrong:
        print(f"with {COMPILERS[1]}, {fault}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
