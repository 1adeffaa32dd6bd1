"""Lesson: the gradient kernel in six steps, and the machine code of each.

    python examples/lesson_ladder.py      # writes lesson_ladder.png; needs pip install 'gpuprop[test]', no GPU

Each step of ``gpuprop_kernels/ladder`` is compiled for a GPU, which need not be here, and the machine code is counted:
the multiply-adds among the instructions of the inner loop, its loads, and the registers of a thread. These counts are
exact. The time that a step takes can only be measured on a GPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gpuprop.measure.bench import sass
from gpuprop.measure.bench.variants import Variant


def reports(capability: tuple[int, int]) -> dict[str, sass.Report]:
    import numba

    from gpuprop_kernels.ladder.launch import LADDER

    buffer, integer = numba.float32[::1], numba.int32
    jobs = []
    for name, step in LADDER.items():
        rate = (numba.float32,) if name == "fused epilogue" else ()
        signature = (buffer, buffer, buffer, integer, integer, integer, *rate)
        jobs.append((Variant(name, "", "", "float32", step.threads, step.build(numba.float32), signature), capability))
    return dict(zip(LADDER, sass.analyse(jobs), strict=True))


def per_multiply_add(report: sass.Report) -> dict[str, float]:
    """Draw the instructions of the inner loop for each multiply-add, by their purpose."""
    fused = sum(n for op, n in report.loop.items() if op.startswith("FFMA"))
    kinds = {"multiply-adds": ("FFMA",), "from shared memory": ("LDS",), "from and to global memory": ("LDG", "STG")}
    counts = {kind: sum(n for op, n in report.loop.items() if op.startswith(start)) for kind, start in kinds.items()}
    counts["other: addresses, loop"] = sum(report.loop.values()) - sum(counts.values())
    return {kind: count / fused for kind, count in counts.items()}


def main(capability: str = "9.0", out: str = "lesson_ladder.png") -> dict[str, Any]:
    if missing := sass.missing_tools():
        raise SystemExit(f"lesson_ladder: {missing}; pip install 'gpuprop[test]'")
    major, minor = map(int, capability.split("."))
    found = reports((major, minor))
    print(
        f"{'compute capability ' + capability:<18} FMA share  registers  shared bytes  blocks  loads in the inner loop"
    )
    for name, report in found.items():
        loads = {**report.loads("LDS"), **report.loads("LDG")}
        shown = ", ".join(f"{count} {op}" for op, count in loads.items())
        print(
            f"{name:<22} {report.fma_fraction:>9.3f} {report.registers:>10} {report.shared:>13} {report.occupancy:>7}"
            f"  {shown}"
        )
    draw(found, out)
    print(f"picture: {Path(out)}")
    return found


def draw(found: dict[str, sass.Report], out: str) -> None:
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.4])
    names = [f"{place} {name}" for place, name in enumerate(found, start=1)]
    left.barh(names, [report.fma_fraction for report in found.values()], color="C0")
    left.set(title="share of multiply-adds in the inner loop", xlim=(0, 1))
    left.invert_yaxis()
    start = np.zeros(len(found))
    for kind in per_multiply_add(next(iter(found.values()))):
        counts = np.array([per_multiply_add(report)[kind] for report in found.values()])
        right.barh(names, counts, left=start, label=kind)
        start += counts
    right.set(title="instructions for each multiply-add", xlabel="of the inner loop")
    right.invert_yaxis()
    right.set_yticks([])
    right.legend()
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The gradient kernel in six steps, as machine code.")
    parser.add_argument("--capability", default="9.0", help="for example 8.6 or 9.0")
    parser.add_argument("--out", default="lesson_ladder.png")
    main(**vars(parser.parse_args()))
