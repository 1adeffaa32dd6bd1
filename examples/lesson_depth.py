"""Lesson: how depth changes the gradient, and how relu units die.

    python examples/lesson_depth.py       # writes depth.png

On its way down a delta is multiplied by W and by f' once for every layer. We measure the gradient that reaches the
first layer before any training, for depths 2 to 20 and every activation; then the relu units that a large rate kills.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpuprop

NAMES = [name for name in gpuprop.activations.ACTIVATIONS if name != "identity"]
DEPTHS = range(2, 21)
DYING = {"relu": "C3", "leaky_relu": "C0", "leaky_relu(0.1)": "C2"}


def gradient_norms(name: str, depth: int, X: Any, y: Any, seeds: int) -> Any:
    """Return the root mean square of each layer's weight gradients, as a geometric mean over seeds."""
    logs = []
    for seed in range(seeds):
        network = gpuprop.Network(
            (64, *[32] * depth, 10),
            hidden_activation=name,
            loss="categorical_cross_entropy",
            dtype="float64",
            seed=seed,
            input_scaling=gpuprop.InputScaling.divide(16),
        )
        _, weight_grads, _ = network.loss_and_gradients(X, y)
        logs.append([np.log(np.sqrt(np.mean(grads**2))) for grads in weight_grads])
    return np.exp(np.mean(logs, axis=0))


def train(name: str, seed: int, X: Any, y: Any, epochs: int, rate: float) -> dict[str, list[float]]:
    """Train, and return the history with the shares of silent units."""
    network = gpuprop.Network(
        (64, 64, 64, 64, 10),
        hidden_activation=name,
        loss="categorical_cross_entropy",
        seed=seed,
        input_scaling=gpuprop.InputScaling.divide(16),
    )
    activity = gpuprop.callbacks.UnitActivity(X)
    trainer = gpuprop.Trainer(network, learning_rate=rate, batch_size=16, epochs=epochs, callbacks=[activity])
    return trainer.fit(X, y).history


def main(
    rows: int = 500, seeds: int = 5, epochs: int = 25, rate: float = 0.05, out: str = "depth.png"
) -> dict[str, Any]:
    X, y = gpuprop.datasets.load_digits()
    first = {name: [gradient_norms(name, d, X[:128], y[:128], seeds)[0] for d in DEPTHS] for name in NAMES}
    print(f"gradient of the first layer, {DEPTHS[-1]} hidden layers against {DEPTHS[0]}:")
    for name in NAMES:
        print(f"{name:12} {first[name][-1] / first[name][0]:8.1e}")
    layers = {name: gradient_norms(name, 20, X[:128], y[:128], seeds) for name in NAMES}

    histories = {name: [train(name, seed, X[:rows], y[:rows], epochs, rate) for seed in range(seeds)] for name in DYING}
    print(f"\nthree hidden layers of 64, Adam with a learning rate of {rate}, {seeds} seeds:")
    shares = {}
    for name, runs in histories.items():
        zero, dead = (
            [float(np.mean([run[f"{what}_share_{layer}"][-1] for run in runs])) for layer in (1, 2, 3)]
            for what in ("zero", "dead")
        )
        shares[name] = {"zero": zero, "dead": dead}
        accuracy = [run["train_accuracy"][-1] for run in runs]
        print(
            f"{name:16} by layer: zero activations {' '.join(f'{share:4.0%}' for share in zero)},"
            f" dead units {' '.join(f'{share:4.0%}' for share in dead)};"
            f" accuracy {np.mean(accuracy):.2f} ({min(accuracy):.2f} to {max(accuracy):.2f})"
        )
    draw(first, layers, histories, out)
    print(f"picture: {Path(out)}")
    return {"first": first, "shares": shares}


def draw(first: Any, layers: Any, histories: Any, out: str) -> None:
    figure = Figure(figsize=(12, 7), layout="constrained")
    (depth_axes, layer_axes), (dead_axes, accuracy_axes) = figure.subplots(2, 2)
    for number, name in enumerate(NAMES):
        style = ["-", "--"][number % 2]
        depth_axes.semilogy(DEPTHS, first[name], style, label=name)
        layer_axes.semilogy(range(1, len(layers[name]) + 1), layers[name], style)
    depth_axes.set(title="gradient of the first layer", xlabel="hidden layers", xticks=range(2, 21, 2))
    depth_axes.legend(fontsize=8, ncols=2)
    layer_axes.set(title="20 hidden layers: gradient by layer", xlabel="layer (21 is the output)")
    for name, color in DYING.items():
        for layer, style in ((1, "-"), (2, "--"), (3, ":")):
            shares = np.mean([run[f"dead_share_{layer}"] for run in histories[name]], axis=0)
            dead_axes.plot(range(1, len(shares) + 1), shares, color + style, label=f"{name}, layer {layer}")
        accuracy = [run["train_accuracy"] for run in histories[name]]
        epochs = range(1, len(accuracy[0]) + 1)
        accuracy_axes.plot(epochs, np.mean(accuracy, axis=0), color, label=name)
        accuracy_axes.fill_between(epochs, np.min(accuracy, axis=0), np.max(accuracy, axis=0), color=color, alpha=0.15)
    dead_axes.set(title="share of dead units, mean over the seeds", xlabel="epoch", ylim=(-0.02, 1.02))
    dead_axes.legend(fontsize=8, loc="center", bbox_to_anchor=(0.5, 0.2), ncols=3)
    accuracy_axes.set(title="training accuracy, mean and range", xlabel="epoch", ylim=(0, 1.02))
    accuracy_axes.legend(loc="lower right")
    figure.savefig(out, dpi=85)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Gradients through many layers; dying relu units.")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--rate", type=float, default=0.05, help="of Adam; its default in the library is 0.001")
    parser.add_argument("--out", default="depth.png")
    main(**vars(parser.parse_args()))
