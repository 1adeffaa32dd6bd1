"""Lesson: the activation functions, their derivatives, where these vanish, and what they cost.

    python examples/lesson_activations.py # writes activations.png

A unit learns through the derivative of its activation: if that is 0, no gradient from above reaches its weights. In
float32 the derivative becomes exactly 0 from a definite z on: on one side, on both sides, or nowhere.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpuprop

NAMES = gpuprop.activations.ACTIVATIONS
GRID = np.arange(0.0, 200.0, 0.01)


def derivative(name: str, z: Any) -> Any:
    """Return f'(z), whether the activation computes it from z or from its output."""
    activation = gpuprop.activations.get_activation(name)
    return activation.derivative(activation.source(z, activation.function(z)))


def zero_beyond(name: str, sign: int) -> float | None:
    """Return the first |z| of a fine grid from which on the float32 derivative is exactly 0, or None."""
    with np.errstate(under="ignore"):
        values = derivative(name, (sign * GRID).astype(np.float32))
    alive = np.flatnonzero(values)
    if len(alive) == 0:
        return 0.0
    return None if alive[-1] == len(GRID) - 1 else float(GRID[alive[-1] + 1])


def nanoseconds(function: Any, z: Any, repeats: int) -> float:
    """Return the time per element: the best of several measurements."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(z)
        times.append(time.perf_counter() - start)
    return float(1e9 * min(times) / z.size)


def main(size: int = 100_000, repeats: int = 30, out: str = "activations.png") -> dict[str, dict[str, Any]]:
    z = np.random.default_rng(0).normal(0.0, 3.0, size).astype(np.float32)
    found: dict[str, dict[str, Any]] = {}
    print(f"{'':12}{'largest':>9}{'exactly 0 in float32':>26}{'ns per element':>17}")
    print(f"{'':12}{'f-prime':>9}{'from z =':>13}{'and up to':>13}{'f':>8}{'f-prime':>9}")
    for name in NAMES:
        activation = gpuprop.activations.get_activation(name)
        source = activation.source(z, activation.function(z))
        row = {
            "largest": float(derivative(name, np.linspace(-8, 8, 1601)).max()),
            "above": zero_beyond(name, +1),
            "below": zero_beyond(name, -1),
            "function_ns": nanoseconds(activation.function, z, repeats),
            "derivative_ns": nanoseconds(activation.derivative, source, repeats),
        }
        found[name] = row
        above = "never" if row["above"] is None else f"{row['above']:.2f}"
        below = "never" if row["below"] is None else f"{0.0 - row['below']:.2f}"
        print(
            f"{name:12}{row['largest']:9.4f}{above:>13}{below:>13}{row['function_ns']:8.2f}{row['derivative_ns']:9.2f}"
        )
    draw(out)
    print(f"picture: {Path(out)}")
    return found


def draw(out: str) -> None:
    n_rows = -(-len(NAMES) // 3)
    figure = Figure(figsize=(12, 1 + 2 * n_rows), layout="constrained")
    z = np.linspace(-5, 5, 1000)  # with an even number of points none is at the kink at 0
    planes = figure.subplots(n_rows, 3, sharex=True).ravel()
    for axes in planes[len(NAMES) :]:
        axes.remove()
    for axes, name in zip(planes, NAMES, strict=False):
        axes.axhline(0, color="gray", linewidth=0.6)
        axes.axvline(0, color="gray", linewidth=0.6)
        axes.plot(z, gpuprop.activations.get_activation(name).function(z), label="f")
        axes.plot(z, derivative(name, z), "--", label="f'")
        axes.set(title=name, ylim=(-1.3, 2.2))
    figure.axes[0].legend(loc="upper left")
    for axes in figure.axes[-3:]:
        axes.set_xlabel("z")
    figure.savefig(out, dpi=85)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Activations: curves, derivatives, saturation, cost.")
    parser.add_argument("--size", type=int, default=100_000, help="elements to time")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", default="activations.png")
    main(**vars(parser.parse_args()))
