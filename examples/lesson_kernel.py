"""Lesson: a kernel in three forms, as a formula, in NumPy and in Numba; and each thread's work, step by step.

    python examples/lesson_kernel.py      # writes lesson_kernel.png

Backpropagation needs two kernels: the fused activation-derivative-delta, and the outer-product accumulation. They run
in Numba's simulator, which reports every line that a thread executes with the values of its variables. No GPU is
needed.
"""

from __future__ import annotations

import argparse
import inspect
import os
from pathlib import Path
from typing import Any

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # Numba reads it when it is imported

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gpuprop_kernels.ladder import launch
from gpuprop_kernels.ladder.coalesced import coalesced_kernel
from gpuprop_kernels.ladder.delta import hidden_delta_kernel
from gpuprop_kernels.ladder.stepping import Stepper
from gpuprop_kernels.target import float64

# Three samples, two hidden units, two outputs.
ACTIVATIONS = np.array([[0.6, 0.5], [0.8, 0.1], [0.25, 0.5]])
WEIGHTS = np.array([[0.5, -1.0], [2.0, 0.25]])
DELTA_NEXT = np.array([[0.1, -0.2], [0.4, 0.3], [-0.5, 0.2]])


def hidden_delta() -> tuple[Any, dict[int, list[str]]]:
    out = np.full_like(ACTIVATIONS, np.nan)
    stepper = Stepper(hidden_delta_kernel(float64))
    return out, stepper.run(launch.hidden_delta, DELTA_NEXT, WEIGHTS, ACTIVATIONS, out)


def accumulate() -> tuple[Any, dict[int, list[str]]]:
    out = np.full((2, 2), np.nan)
    stepper = Stepper(coalesced_kernel(float64))
    return out, stepper.run(launch.accumulate, "coalesced", ACTIVATIONS, DELTA_NEXT, out)


def report(title: str, formula: str, numpy_line: str, kernel: Any, steps: dict[int, list[str]], busy: int) -> None:
    print(f"{title}\n\n  formula  {formula}\n  NumPy    {numpy_line}\n  Numba")
    print("".join("    " + line for line in inspect.getsourcelines(kernel.fn)[0][1:]))
    for thread in range(busy):
        print(f"  thread {thread}")
        print("".join(f"    {step}\n" for step in steps[thread]))
    idle = len(steps) - busy
    print(f"  threads {busy} to {len(steps) - 1}: {len(steps[busy])} steps each; these {idle} have no element\n")


def main(out: str = "lesson_kernel.png") -> dict[str, Any]:
    delta, delta_steps = hidden_delta()
    gradient, gradient_steps = accumulate()
    print(f"a =\n{ACTIVATIONS}\nW =\n{WEIGHTS}\nd_next, in the second kernel d =\n{DELTA_NEXT}\n")
    report(
        "The fused activation-derivative-delta, 3 samples x 2 units",
        "d[n, i] = (sum_j d_next[n, j] W[i, j]) a[n, i] (1 - a[n, i])",
        "(delta_next @ weights.T) * a * (1 - a)",
        hidden_delta_kernel(float64),
        delta_steps,
        6,
    )
    report(
        "The outer-product accumulation, 2 x 2 weights over 3 samples",
        "gW[i, j] = sum_n a[n, i] d[n, j]",
        "a.T @ delta",
        coalesced_kernel(float64),
        gradient_steps,
        4,
    )
    by_numpy = (DELTA_NEXT @ WEIGHTS.T) * ACTIVATIONS * (1 - ACTIVATIONS)
    print(f"largest difference from NumPy: {abs(delta - by_numpy).max():.1e} and ", end="")
    print(f"{abs(gradient - ACTIVATIONS.T @ DELTA_NEXT).max():.1e}")
    draw(out)
    print(f"picture: {Path(out)}")
    return {"delta": (delta, delta_steps), "gradient": (gradient, gradient_steps)}


def draw(out: str) -> None:
    """Draw which numbers thread 3 of each kernel reads (blue) and writes (orange)."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    rows = {
        "delta: thread 3 is sample 1, unit 1": [
            ("delta_next", DELTA_NEXT, [(1, 0), (1, 1)]),
            ("W", WEIGHTS, [(1, 0), (1, 1)]),
            ("a", ACTIVATIONS, [(1, 1)]),
            ("delta", (DELTA_NEXT @ WEIGHTS.T) * ACTIVATIONS * (1 - ACTIVATIONS), [(1, 1)]),
        ],
        "gradient: thread 3 is weight 1, 1": [
            ("a", ACTIVATIONS, [(0, 1), (1, 1), (2, 1)]),
            ("delta", DELTA_NEXT, [(0, 1), (1, 1), (2, 1)]),
            ("gW", ACTIVATIONS.T @ DELTA_NEXT, [(1, 1)]),
        ],
    }
    panels: Any = figure.subfigures(2, 1)
    for line, (panel, (title, matrices)) in enumerate(zip(panels, rows.items(), strict=True)):
        panel.suptitle(title)
        for place, (axes, (name, matrix, touched)) in enumerate(
            zip(panel.subplots(1, 4 - line), matrices, strict=True)
        ):
            written = place == len(matrices) - 1
            for (row, column), value in np.ndenumerate(matrix):
                color = ("#fdae6b" if written else "#9ecae1") if (row, column) in touched else "0.93"
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=color, edgecolor="white"))
                axes.text(column, row, f"{value:.3g}", ha="center", va="center", color="k", fontsize=9)
            axes.set(
                title=("writes " if written else "reads ") + name, xlim=(-0.6, 1.6), ylim=(2.6, -0.6), aspect="equal"
            )
            axes.axis("off")
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One kernel, three ways, stepped thread by thread.")
    parser.add_argument("--out", default="lesson_kernel.png")
    main(**vars(parser.parse_args()))
