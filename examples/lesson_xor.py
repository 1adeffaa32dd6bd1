"""Lesson: XOR. A line cannot separate it, two hidden units can, and not every training finds out how.

    python examples/lesson_xor.py         # writes lesson_xor.png

Logistic units, squared error, plain gradient descent on all four points, initial weights uniform in [-1, 1], biases 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpuprop

X, Y = gpuprop.datasets.make_xor()
SQUARE = np.stack(np.meshgrid(np.linspace(-0.5, 1.5, 81), np.linspace(-0.5, 1.5, 81)), axis=-1).reshape(-1, 2)


class Watch(gpuprop.Callback):
    """Record outputs, error and the largest weight of each epoch; hold the hidden biases at 0 if asked."""

    def __init__(self, inputs: Any = X, *, without_bias: bool = False) -> None:
        self.inputs, self.without_bias = inputs, without_bias
        self.outputs: list[Any] = []
        self.errors: list[float] = []
        self.largest: list[float] = []

    def on_step_end(self, trainer: gpuprop.Trainer, epoch: int, step: int) -> None:
        if self.without_bias:
            trainer.network.biases[0][...] = 0.0

    def on_epoch_end(self, trainer: gpuprop.Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        self.outputs.append(trainer.network.forward(self.inputs)[:, 0])
        self.errors.append(trainer.network.loss(self.inputs, Y))
        self.largest.append(float(np.abs(trainer.network.parameters).max()))


def build(sizes: tuple[int, ...], seed: int) -> gpuprop.Network:
    return gpuprop.Network(
        sizes, hidden_activation="logistic", output_activation="logistic", dtype="float64", init="uniform(1)", seed=seed
    )


def descend(network: gpuprop.Network, updates: int, watch: Watch | None = None, inputs: Any = X) -> gpuprop.Network:
    """Descend on all four points. Many updates make one epoch: its bookkeeping costs more than four points do."""
    per_epoch = 500 if watch is None else 10
    gpuprop.Trainer(
        network,
        optimizer="sgd",
        learning_rate=8.0,
        batch_size=4,
        epochs=updates // per_epoch,
        shuffle=False,
        callbacks=[] if watch is None else [watch],
    ).fit(np.tile(inputs, (per_epoch, 1)), np.tile(Y, per_epoch))
    return network


def with_ones(column: int, updates: int) -> Any:
    """Train 2-4-1 with a column of ones among the inputs instead of hidden biases; return its outputs."""
    twin, network = build((2, 4, 1), 0), build((3, 4, 1), 0)
    network.weights[0][...] = np.insert(twin.weights[0], column, twin.biases[0], axis=0)
    network.weights[1][...], network.biases[1][...] = twin.weights[1], twin.biases[1]
    inputs = np.insert(X, column, 1.0, axis=1)
    return descend(network, updates, Watch(inputs, without_bias=True), inputs).forward(inputs)


def main(seeds: int = 400, updates: int = 1500, longer: int = 10, out: str = "lesson_xor.png") -> dict[str, Any]:
    line = descend(build((2, 1), 0), updates)
    print(f"no hidden unit: outputs {np.round(line.forward(X)[:, 0], 3)}, error {line.loss(X, Y):.4f}")

    models = [with_ones(0, updates), with_ones(2, updates), descend(build((2, 4, 1), 0), updates).forward(X)]
    gap = float(max(np.abs(model - models[-1]).max() for model in models))
    print(f"ones as the first column, as the last, or biases: outputs differ by at most {gap:.1e}")

    errors: dict[int, list[float]] = {}
    solved: dict[int, Any] = {}
    for hidden in (2, 4):
        networks = [descend(build((2, hidden, 1), seed), updates) for seed in range(seeds)]
        solved[hidden] = np.array([bool(((net.forward(X)[:, 0] > 0.5) == Y).all()) for net in networks])
        errors[hidden] = sorted(net.loss(X, Y) for net in networks)
        print(f"2-{hidden}-1: {solved[hidden].sum()} of {seeds} seeds solve it, {solved[hidden].mean():.1%}")

    watch, stuck_watch = Watch(), Watch()
    good = descend(build((2, 2, 1), int(solved[2].argmax())), updates, watch)
    stuck = descend(build((2, 2, 1), int(solved[2].argmin())), longer * updates, stuck_watch)
    for share in (1, longer):
        place = share * updates // 10 - 1
        print(
            f"stuck after {share * updates} updates: outputs {np.round(stuck_watch.outputs[place], 3)}, "
            f"error {stuck_watch.errors[place]:.6f}, largest weight {stuck_watch.largest[place]:.1f}"
        )
    draw(line, good, stuck, watch, stuck_watch, errors, out)
    print(f"picture: {Path(out)}")
    return {
        "line": line.forward(X), "gap": gap, "solved": solved, "errors": errors, "watch": watch, "stuck": stuck_watch,
    }  # fmt: skip


def draw(line: Any, good: Any, stuck: Any, watch: Watch, stuck_watch: Watch, errors: Any, out: str) -> None:
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    (course, counts, longer), planes = figure.subplots(2, 3)
    for x, style, curve in zip(X, ["-", "--", "-.", ":"], np.array(watch.outputs).T, strict=True):
        course.plot(np.arange(1, len(curve) + 1) * 10, curve, style, label=f"{x[0]:.0f} xor {x[1]:.0f}")
    error_axes = course.twinx()
    error_axes.plot(np.arange(1, len(watch.errors) + 1) * 10, watch.errors, "k", linewidth=1)
    error_axes.set(ylabel="error (black)", ylim=(0, 0.14))
    course.set(title="2-2-1: outputs and error", xlabel="updates", ylim=(0, 1))
    course.legend(loc="center right")
    for hidden, style in ((2, "C3"), (4, "C0--")):
        counts.plot(np.linspace(0, 100, len(errors[hidden])), errors[hidden], style, label=f"2-{hidden}-1")
    counts.set(title="final errors of all seeds, sorted", xlabel="percent of the seeds", yscale="log")
    counts.legend()
    steps = np.arange(1, len(stuck_watch.errors) + 1) * 10
    longer.plot(steps, stuck_watch.errors, "C3")
    longer.set(title="the stuck one, given more time", xlabel="updates", ylabel="error (red)", ylim=(0, 0.14))
    weight_axes = longer.twinx()
    weight_axes.plot(steps, stuck_watch.largest, "k--")
    weight_axes.set(ylabel="largest weight (dashed)", ylim=(0, None))
    for axes, network, title in zip(
        planes, (line, good, stuck), ("a line", "2-2-1, solved", "2-2-1, stuck"), strict=True
    ):
        grid = network.forward(SQUARE).reshape(81, 81)
        shown = axes.contourf(*SQUARE.T.reshape(2, 81, 81), grid, levels=np.linspace(0, 1, 12), cmap="RdBu_r")
        axes.scatter(X[:, 0], X[:, 1], c=Y, cmap="RdBu_r", edgecolors="white", linewidths=2, s=120)
        axes.set(title=title, xlabel="x1", ylabel="x2")
    figure.colorbar(shown, ax=planes[2], shrink=0.8)
    figure.savefig(out, dpi=85)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="XOR from many beginnings.")
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--longer", type=int, default=10, help="train the stuck network this many times as long")
    parser.add_argument("--out", default="lesson_xor.png")
    main(**vars(parser.parse_args()))
