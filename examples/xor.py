"""XOR: the smallest problem that needs a hidden layer, drawn while it is learned.

    python examples/xor.py                # writes xor.png

No line separates the four points, so a network without hidden units cannot learn them. Two hidden units can; the
picture shows epoch by epoch how the outputs approach their targets.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpuprop


class Watch(gpuprop.Callback):
    """Record the network's four outputs after every epoch."""

    def __init__(self, X: Any) -> None:
        self.X = X
        self.outputs: list[Any] = []

    def on_epoch_end(self, trainer: gpuprop.Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        self.outputs.append(trainer.network.forward(self.X)[:, 0])


def main(epochs: int = 500, seed: int = 0, out: str = "xor.png") -> float:
    X, y = gpuprop.datasets.make_xor()
    network = gpuprop.Network((2, 4, 1), hidden_activation="tanh", loss="binary_cross_entropy", seed=seed)
    watch = Watch(X)
    trainer = gpuprop.Trainer(network, learning_rate=0.05, batch_size=4, epochs=epochs, callbacks=[watch])
    trainer.fit(X, y)

    for x, target, output in zip(X, y, network.forward(X)[:, 0], strict=True):
        print(f"{x[0]:.0f} xor {x[1]:.0f}  target {target}  output {output:.4f}")
    accuracy = float(np.mean(network.predict(X) == y))
    print(f"accuracy {accuracy:.2f}")

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, output_axes, plane_axes = figure.subplots(1, 3)
    loss_axes.plot(trainer.history["train_loss"])
    loss_axes.set(title="loss", xlabel="epoch", yscale="log")
    for x, line, curve in zip(X, ["-", "--", "-.", ":"], np.array(watch.outputs).T, strict=True):
        output_axes.plot(curve, line, label=f"{x[0]:.0f} xor {x[1]:.0f}")
    output_axes.set(title="outputs", xlabel="epoch", ylim=(-0.05, 1.05))
    output_axes.legend()
    grid = np.linspace(-0.5, 1.5, 101)
    plane = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    image = network.forward(plane).reshape(101, 101)
    shown = plane_axes.imshow(image, origin="lower", extent=(-0.5, 1.5, -0.5, 1.5), cmap="RdBu_r", vmin=0, vmax=1)
    plane_axes.scatter(X[:, 0], X[:, 1], c=y, cmap="RdBu_r", edgecolors="white", linewidths=2, s=120)
    plane_axes.set(title="what the network says between the points", xlabel="x1", ylabel="x2")
    figure.colorbar(shown, ax=plane_axes, shrink=0.7)
    figure.savefig(out, dpi=120)
    print(f"picture: {Path(out)}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Learn XOR, and draw how it is learned.")
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="xor.png")
    main(**vars(parser.parse_args()))
