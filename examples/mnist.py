"""MNIST in a dozen lines: 60,000 images, one hidden layer, 98 % in under a minute on a laptop.

    python examples/mnist.py              # writes mnist.png

The images stay 8-bit in memory; the network's input scaling brings each batch to [0, 1].
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpuprop


class Report(gpuprop.Callback):
    """Print one line for each epoch."""

    def on_epoch_end(self, trainer: gpuprop.Trainer, epoch: int, record: Mapping[str, Any]) -> None:
        print(
            f"epoch {epoch:2d}  loss {record['train_loss']:.4f}  training {record['train_accuracy']:.4f}  "
            f"test {record['validation_accuracy']:.4f}  {record['seconds']:.1f} s"
        )


def main(epochs: int = 10, rows: int = 60000, seed: int = 0, out: str = "mnist.png", device: str = "auto") -> float:
    (X, y), (X_test, y_test) = gpuprop.datasets.load_mnist()
    network = gpuprop.Network(
        (784, 128, 10),
        loss="categorical_cross_entropy",
        seed=seed,
        device=device,
        input_scaling=gpuprop.InputScaling.divide(255),
    )
    trainer = gpuprop.Trainer(
        network,
        epochs=epochs,
        schedule="one-cycle",
        learning_rate=0.004,
        validation=(X_test, y_test),
        callbacks=[Report()],
    )
    trainer.fit(X[:rows], y[:rows])
    accuracy = network.evaluate(X_test, y_test)[1]
    print(f"{network}: test accuracy {accuracy:.4f}")

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels: Any = figure.subfigures(1, 2)
    curves, units = panels
    axes = curves.subplots()
    axes.plot(trainer.history["epoch"], trainer.history["train_loss"], "-o", label="training")
    axes.plot(trainer.history["epoch"], trainer.history["validation_loss"], "--s", label="test")
    axes.set(title="loss", xlabel="epoch", ylim=(0, None))
    axes.legend()
    units.suptitle("what 32 of the hidden units look for")
    weights = network.to("cpu").weights[0]
    for unit, axis in enumerate(units.subplots(4, 8).ravel()):
        limit = np.abs(weights[:, unit]).max()
        axis.imshow(weights[:, unit].reshape(28, 28), cmap="RdBu", vmin=-limit, vmax=limit)
        axis.set_axis_off()
    figure.savefig(out, dpi=120)
    print(f"picture: {Path(out)}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a 784-128-10 network on MNIST.")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rows", type=int, default=60000, help="training images to use")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", default="mnist.png")
    main(**vars(parser.parse_args()))
