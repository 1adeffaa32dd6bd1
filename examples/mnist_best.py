"""MNIST as far as a multilayer perceptron goes: 98.6 % by dropout, 99.5 % by new images in each epoch.

    python examples/mnist_best.py dropout          # 784-1024-1024-10, dropout, max-norm, smoothed labels
    python examples/mnist_best.py deformations     # 784-1000-500-10 on images deformed on the fly

Each writes its history (NAME.csv), the model (NAME.safetensors) and a picture of the test images that it gets wrong
(NAME.png), and goes on from its last checkpoint if it is started again. The test images choose nothing: the last
epoch's network is the result. docs/mnist.md has the figures and times of the runs that were made.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import gpuprop
from gpuprop.datasets import Deformations, augmented

SIZES = {"dropout": (784, 1024, 1024, 10), "deformations": (784, 1000, 500, 10)}
EPOCHS = {"dropout": 50, "deformations": 70}


def main(
    recipe: str = "deformations",
    epochs: int | None = None,
    rows: int = 60000,
    seed: int = 0,
    out: str | None = None,
    device: str = "auto",
) -> float:
    (X, y), (X_test, y_test) = gpuprop.datasets.load_mnist()
    X, y = X[:rows], y[:rows]
    path = Path(out or f"mnist-{recipe}.png")
    network = gpuprop.Network(
        SIZES[recipe],
        loss="categorical_cross_entropy",
        dropout=(0.2, 0.4) if recipe == "dropout" else 0.0,  # of the pixels, of the hidden units
        input_scaling=gpuprop.InputScaling.divide(255),
        seed=seed,
        device=device,
    )
    trainer = gpuprop.Trainer(
        network,
        epochs=epochs or EPOCHS[recipe],
        learning_rate=0.002,
        schedule="one-cycle",
        max_norm=2.0 if recipe == "dropout" else None,
        label_smoothing=0.1 if recipe == "dropout" else 0.0,
        validation=(X_test, y_test),
        verbose=True,
        callbacks=[gpuprop.callbacks.CSVLogger(path.with_suffix(".csv"))],
        checkpoint=path.with_suffix(".checkpoint"),
    )
    if recipe == "deformations":
        trainer.fit(augmented(X, y, Deformations(), seed=seed), resume_from="auto")
    else:
        trainer.fit(X, y, resume_from="auto")
    accuracy = network.evaluate(X_test, y_test)[1]
    network.save(path.with_suffix(".safetensors"))

    predicted = network.predict(X_test)
    wrong = np.flatnonzero(predicted != y_test)
    print(f"{network}: test accuracy {accuracy:.4f}, {len(wrong)} images wrong")
    figure = Figure(figsize=(12, 9), layout="constrained")
    figure.suptitle(f"{len(wrong)} of {len(y_test)} test images are wrong (it says / it is)")
    for place, axis in enumerate(figure.subplots(8, 15).ravel()):
        axis.set_axis_off()
        if place < len(wrong):
            image = wrong[place]
            axis.imshow(X_test[image].reshape(28, 28), cmap="gray_r")
            axis.set_title(f"{predicted[image]} / {y_test[image]}", fontsize=9)
    figure.savefig(path, dpi=100)
    print(f"picture: {path}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a multilayer perceptron on MNIST as well as it goes.")
    parser.add_argument("recipe", choices=list(SIZES))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--rows", type=int, default=60000, help="training images to use")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", help="the picture; the other files get its name")
    main(**vars(parser.parse_args()))
