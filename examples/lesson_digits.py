"""Lesson: handwritten digits by the textbook's recipe on several splits, and by a recipe that does better.

    python examples/lesson_digits.py      # writes lesson_digits.png; --epochs 100 is ten times quicker

The textbook's recipe: 64-32-16-10 logistic units, squared error, weights normal / sqrt(fan_in), one sample at a time,
learning rate 0.1, 1,000 epochs. Ours: 64-128-10, relu and softmax, cross-entropy, Adam, dropout, 60 epochs. Both train
on the same rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.model_selection import train_test_split

import gpuprop

SCALING = gpuprop.InputScaling.divide(16)


def textbook(seed: int, epochs: int, held_out: Any) -> gpuprop.Trainer:
    network = gpuprop.Network(
        (64, 32, 16, 10),
        hidden_activation="logistic",
        output_activation="logistic",
        loss="squared_error",
        init=lambda rng, fan_in, fan_out: rng.normal(size=(fan_in, fan_out)) / np.sqrt(fan_in),
        seed=seed,
        input_scaling=SCALING,
        classes=range(10),
    )
    return gpuprop.Trainer(
        network, optimizer="sgd", learning_rate=0.1, batch_size=1, epochs=epochs, validation=held_out
    )


def ours(seed: int, epochs: int, held_out: Any) -> gpuprop.Trainer:
    network = gpuprop.Network(
        (64, 128, 10), loss="categorical_cross_entropy", dropout=(0.1, 0.3), seed=seed, input_scaling=SCALING
    )
    epochs = min(epochs, 60)
    return gpuprop.Trainer(
        network, learning_rate=0.005, batch_size=32, epochs=epochs, schedule="cosine", validation=held_out
    )


def main(epochs: int = 1000, splits: int = 10, out: str = "lesson_digits.png") -> dict[str, dict[str, Any]]:
    X, y = gpuprop.datasets.load_digits()
    found: dict[str, dict[str, Any]] = {}
    for name, recipe in (("textbook", textbook), ("ours", ours)):
        curves, recalls = [], []
        for seed in range(splits):
            X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=450, random_state=seed)
            trainer = recipe(seed, epochs, (X_test, y_test)).fit(X_train, y_train)
            right = trainer.network.predict(X_test) == y_test
            curves.append(trainer.history["validation_accuracy"])
            recalls.append([right[y_test == digit].mean() for digit in range(10)])
            print(f"{name}, split {seed}: {right.mean():.4f}", flush=True)
        accuracy = np.array([curve[-1] for curve in curves])
        recall = np.mean(recalls, axis=0)
        found[name] = {"accuracy": accuracy, "recall": recall, "curves": np.array(curves)}
        print(f"{name}: mean {accuracy.mean():.4f}, min {accuracy.min():.4f}, max {accuracy.max():.4f}")
        print("   recall by digit: " + "  ".join(f"{digit}: {share:.3f}" for digit, share in enumerate(recall)))
    draw(found, out)
    print(f"picture: {Path(out)}")
    return found


def draw(found: dict[str, dict[str, Any]], out: str) -> None:
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    curve_axes, split_axes, digit_axes = figure.subplots(1, 3, width_ratios=[1.2, 0.7, 1.2])
    for place, (name, run) in enumerate(found.items()):
        color = f"C{place}"
        epochs = range(1, run["curves"].shape[1] + 1)
        curve_axes.fill_between(epochs, run["curves"].min(axis=0), run["curves"].max(axis=0), color=color, alpha=0.2)
        curve_axes.plot(epochs, run["curves"].mean(axis=0), color, label=name)
        split_axes.plot(np.full(len(run["accuracy"]), place), run["accuracy"], color + "o", alpha=0.5)
        split_axes.plot(place, run["accuracy"].mean(), "k_", markersize=30)
        digit_axes.bar(np.arange(10) + 0.4 * place - 0.2, run["recall"], 0.4, color=color, label=name)
    curve_axes.set(title="held-out accuracy: mean and range", xlabel="epoch", xscale="log", ylim=(0.8, 1))
    curve_axes.legend(loc="lower right")
    split_axes.set(title="by split, and the mean", xlim=(-0.6, 1.6))
    split_axes.set_xticks([0, 1], list(found))
    digit_axes.set(title="recall by digit", xlabel="digit", ylim=(0.85, 1))
    digit_axes.set_xticks(range(10))
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Digits: the textbook's recipe and a better one, over several splits.")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--out", default="lesson_digits.png")
    main(**vars(parser.parse_args()))
