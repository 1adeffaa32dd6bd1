"""Handwritten digits, trained as in the textbooks: logistic units, squared error, plain gradient descent.

    python examples/digits.py             # writes digits.png

A 64-32-16-10 network on scikit-learn's 1,797 images of 8x8 pixels, a quarter of them held out. One sample at a time
(batch size 1) is how the algorithm was first taught, and it still works.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.model_selection import train_test_split

import gpuprop


def main(epochs: int = 60, seed: int = 0, out: str = "digits.png") -> float:
    X, y = gpuprop.datasets.load_digits()
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=seed)
    network = gpuprop.Network(
        (64, 32, 16, 10),
        hidden_activation="logistic",
        output_activation="logistic",
        loss="squared_error",
        init="glorot",
        seed=seed,
        input_scaling=gpuprop.InputScaling.divide(16),
        classes=range(10),
    )
    trainer = gpuprop.Trainer(
        network, optimizer="sgd", learning_rate=0.5, batch_size=1, epochs=epochs, validation=(X_test, y_test)
    )
    trainer.fit(X_train, y_train)
    loss, accuracy = network.evaluate(X_test, y_test)
    print(f"held-out images: loss {loss:.4f}, accuracy {accuracy:.4f}")

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels: Any = figure.subfigures(1, 2, width_ratios=[1, 1.2])
    curves, images = panels
    axes = curves.subplots()
    axes.plot(trainer.history["epoch"], trainer.history["train_accuracy"], "-", label="training")
    axes.plot(trainer.history["epoch"], trainer.history["validation_accuracy"], "--", label="held out")
    axes.set(title="accuracy", xlabel="epoch", ylim=(0, 1.02))
    axes.legend(loc="lower right")
    predicted = network.predict(X_test)
    wrong = np.flatnonzero(predicted != y_test)[:10]
    images.suptitle("images it gets wrong (it says / it is)")
    for place, axis in enumerate(images.subplots(2, 5).ravel()):
        axis.set_axis_off()
        if place < len(wrong):
            axis.imshow(X_test[wrong[place]].reshape(8, 8), cmap="gray_r")
            axis.set_title(f"{predicted[wrong[place]]} / {y_test[wrong[place]]}")
    figure.savefig(out, dpi=120)
    print(f"picture: {Path(out)}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Train 64-32-16-10 logistic units on the digits, one sample at a time."
    )
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="digits.png")
    main(**vars(parser.parse_args()))
