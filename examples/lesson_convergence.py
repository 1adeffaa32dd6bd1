"""Lesson: how settings change convergence. One setting varies at a time, the others stay; several seeds for each.

    python examples/lesson_convergence.py # writes convergence.png

The base is a 64-32-10 relu network on the digits: plain descent at a rate of 0.1, batches of 32, 450 images held out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.model_selection import train_test_split

import gpuprop

BASE: dict[str, Any] = {
    "hidden": (32,), "activation": "relu", "init": None, "optimizer": "sgd", "rate": 0.1, "rows": 1347, "noise": 0.0
}  # fmt: skip
FACTORS: dict[str, tuple[str, list[Any]]] = {
    "depth": ("hidden", [(32,), (32, 32, 32), (32,) * 10]),
    "width": ("hidden", [(2,), (8,), (32,), (256,)]),
    "activation": ("activation", ["relu", "tanh", "logistic"]),
    "learning rate": ("rate", [0.001, 0.01, 0.1, 1.0, 5.0]),
    "optimizer": ("optimizer", ["sgd", "momentum", "rmsprop", "adam"]),
    "initial weights": ("init", ["zeros", "uniform(0.01)", "he", "uniform(3)"]),
    "wrong labels": ("noise", [0.0, 0.2, 0.5]),
    "training images": ("rows", [50, 200, 1347]),
}


def learn(seed: int, epochs: int, settings: dict[str, Any]) -> list[float]:
    """Return the held-out accuracy after each epoch; after a divergence, that of the last good parameters."""
    X, y = gpuprop.datasets.load_digits()
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=450, random_state=seed)
    X_train, y_train = X_train[: settings["rows"]], y_train[: settings["rows"]].copy()
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(y_train)) < settings["noise"]
    y_train[wrong] = (y_train[wrong] + rng.integers(1, 10, wrong.sum())) % 10
    network = gpuprop.Network(
        (64, *settings["hidden"], 10),
        hidden_activation=settings["activation"],
        loss="categorical_cross_entropy",
        init=settings["init"],
        seed=seed,
        input_scaling=gpuprop.InputScaling.divide(16),
    )
    trainer = gpuprop.Trainer(
        network,
        optimizer=settings["optimizer"],
        # Each optimizer has its own natural rate.
        learning_rate=settings["rate"] if settings["optimizer"] == "sgd" else None,
        batch_size=32,
        epochs=epochs,
        validation=(X_test, y_test),
    )
    try:
        trainer.fit(X_train, y_train)
    except gpuprop.NonFiniteLossError as error:
        print(f"   {error}")
    curve = trainer.history.get("validation_accuracy", [])
    return curve + [network.evaluate(X_test, y_test)[1]] * (epochs - len(curve))


def main(epochs: int = 30, seeds: int = 5, out: str = "convergence.png") -> dict[str, dict[Any, Any]]:
    def all_seeds(settings: dict[str, Any]) -> Any:
        return np.array([learn(seed, epochs, settings) for seed in range(seeds)])

    found: dict[str, dict[Any, Any]] = {}
    base = all_seeds(BASE)
    for factor, (name, values) in FACTORS.items():
        print(factor)
        found[factor] = {}
        for value in values:
            curves = base if value == BASE[name] else all_seeds({**BASE, name: value})
            found[factor][value] = curves
            last = curves[:, -1]
            print(
                f"   {label(factor, value):14} mean {last.mean():.3f}  ({last.min():.3f} to {last.max():.3f})",
                flush=True,
            )
    draw(found, out)
    print(f"picture: {Path(out)}")
    return found


def label(factor: str, value: Any) -> str:
    if factor == "depth":
        return f"{len(value)} x 32"
    return f"{value:.0%}" if factor == "wrong labels" else str(value[0] if isinstance(value, tuple) else value)


def draw(found: dict[str, dict[Any, Any]], out: str) -> None:
    figure = Figure(figsize=(9.4, 5), layout="constrained")
    for axes, (factor, runs) in zip(
        figure.subplots(2, 4, sharex=True, sharey=True).ravel(), found.items(), strict=True
    ):
        for number, (value, curves) in enumerate(runs.items()):
            epochs = range(1, curves.shape[1] + 1)
            axes.fill_between(
                epochs, curves.min(axis=0), curves.max(axis=0), color=f"C{number}", alpha=0.15, linewidth=0
            )
            style = ["-", "--", "-.", ":"][number % 4]
            axes.plot(epochs, curves.mean(axis=0), f"C{number}" + style, label=label(factor, value))
        axes.set(title=factor, ylim=(0, 1.02))
        axes.legend(fontsize=7, loc="center right" if factor == "learning rate" else "lower right")
    for axes in figure.axes[4:]:
        axes.set_xlabel("epoch")
    figure.supylabel("held-out accuracy: mean and range over the seeds", fontsize=10)
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Vary one thing at a time and watch convergence.")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", default="convergence.png")
    main(**vars(parser.parse_args()))
