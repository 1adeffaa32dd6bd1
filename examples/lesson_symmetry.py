"""Lesson: hidden units that start equal stay equal forever.

    python examples/lesson_symmetry.py    # writes symmetry.png

The same network learns the digits from four starting points: all weights 0; all weights 0.1; all within a ten-millionth
of 0.1; and weights drawn uniformly from [-epsilon, epsilon]. After every epoch we measure how much the weights into one
hidden unit differ from the weights into the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpuprop

BEGINNINGS: dict[str, Any] = {
    "zeros": "zeros",
    "all 0.1": lambda rng, fan_in, fan_out: np.full((fan_in, fan_out), 0.1),
    "0.1 +- 1e-7": lambda rng, fan_in, fan_out: 0.1 + rng.uniform(-1e-7, 1e-7, (fan_in, fan_out)),
    "uniform, +- 0.12": "uniform(0.12)",
}


class Spread(gpuprop.Callback):
    """Record after every epoch how much the hidden units' incoming weights differ."""

    def __init__(self) -> None:
        self.spread: list[float] = []

    def on_epoch_end(self, trainer: gpuprop.Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        self.spread.append(float(np.ptp(trainer.network.weights[0], axis=1).max()))


def learn(init: Any, epochs: int, rows: int) -> dict[str, Any]:
    X, y = gpuprop.datasets.load_digits()
    X, y = X[:rows], y[:rows]
    network = gpuprop.Network(
        (64, 16, 10),
        hidden_activation="logistic",
        loss="categorical_cross_entropy",
        dtype="float64",
        init=init,
        input_scaling=gpuprop.InputScaling.divide(16),
        seed=0,
    )
    spread = Spread()
    trainer = gpuprop.Trainer(
        network, optimizer="sgd", learning_rate=0.5, batch_size=32, epochs=epochs, callbacks=[spread]
    ).fit(X, y)
    return {
        "spread": spread.spread,
        "rank": int(np.linalg.matrix_rank(network.weights[0])),
        "weights": network.weights[0],
        "accuracy": network.evaluate(X, y)[1],
        "accuracies": trainer.history["train_accuracy"],
    }


def main(epochs: int = 500, rows: int = 1797, out: str = "symmetry.png") -> dict[str, dict[str, Any]]:
    found = {name: learn(init, epochs, rows) for name, init in BEGINNINGS.items()}
    print(f"after {epochs} epochs, 16 hidden units:")
    for name, run in found.items():
        print(
            f"{name:17} largest difference between hidden columns {run['spread'][-1]:.4g}"
            f"   rank of W1 {run['rank']:2}   accuracy {run['accuracy']:.3f}"
        )
    draw(found, out)
    print(f"picture: {Path(out)}")
    return found


def draw(found: dict[str, dict[str, Any]], out: str) -> None:
    figure = Figure(figsize=(12, 5), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=[1, 1.5])
    left, right = halves
    accuracy_axes, spread_axes = left.subplots(2, 1, sharex=True)
    for (name, run), line in zip(found.items(), ["-", "--", "-", "-."], strict=True):
        epochs = range(1, len(run["spread"]) + 1)
        accuracy_axes.plot(epochs, run["accuracies"], line)
        spread_axes.plot(epochs, run["spread"], line, label=name)
    accuracy_axes.set(title="training accuracy", xscale="log", ylim=(0, 1.02))
    spread_axes.set(title="largest difference between hidden units", xlabel="epoch", ylim=(-3e-9, 20))
    spread_axes.set_yscale("symlog", linthresh=1e-8)
    spread_axes.legend(loc="center right", bbox_to_anchor=(1, 0.4), fontsize=8)
    right.suptitle("what 8 of the hidden units have learned: the 64 weights into each as an image")
    for row, (name, run) in zip(right.subplots(len(found), 8), found.items(), strict=True):
        largest = float(np.abs(run["weights"]).max())
        for unit, image in enumerate(row):
            image.imshow(run["weights"][:, unit].reshape(8, 8), cmap="RdBu_r", vmin=-largest, vmax=largest)
            image.set(xticks=[], yticks=[])
        row[0].set_title(name, loc="left", fontsize=10)
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train from equal and from different initial weights.")
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--rows", type=int, default=1797)
    parser.add_argument("--out", default="symmetry.png")
    main(**vars(parser.parse_args()))
