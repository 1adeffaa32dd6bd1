"""Lesson: the lecture's backpropagation, sample by sample, gives the same as the library's matrix multiplications.

    python examples/lesson_algorithm.py   # writes algorithm.png

The lecture's matrices Theta^(l) hold the biases in column 0, and every layer begins with a unit a_0 = 1. For each
sample the deltas are computed backwards and delta a^T is added to an accumulator; at the end D = Delta / m.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpuprop


def logistic(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def lecture(thetas: list[Any], X: Any, Y: Any, keep: list[Any] | None = None) -> tuple[float, list[Any]]:
    """Return the cost J and its derivatives D^(l) with respect to Theta^(l)."""
    m = len(X)
    cost = 0.0
    accumulators = [np.zeros_like(theta) for theta in thetas]  # Delta^(l) = 0
    for x, y in zip(X, Y, strict=True):
        a = [np.append(1.0, x)]  # a^(1) = x, and a_0 = 1 before it
        for theta in thetas:
            a.append(np.append(1.0, logistic(theta @ a[-1])))  # z = Theta a, a = g(z)
        h = a[-1][1:]  # the output needs no a_0
        cost -= float(y @ np.log(h) + (1 - y) @ np.log(1 - h))
        delta = h - y  # delta^(L)
        for layer in reversed(range(len(thetas))):
            accumulators[layer] += np.outer(delta, a[layer])  # Delta += delta a^T
            if layer > 0:  # the input layer has no delta: training does not change the input
                delta = (thetas[layer].T @ delta * a[layer] * (1 - a[layer]))[1:]  # and a_0 has no delta either
        if keep is not None:
            keep.append(accumulators[0].copy())
    return cost / m, [accumulator / m for accumulator in accumulators]


def descend(thetas: list[Any], derivatives: list[Any], rate: float, order: Any) -> list[Any]:
    """Update the layers in the given order."""
    new = list(thetas)
    for layer in order:
        new[layer] = thetas[layer] - rate * derivatives[layer]
    return new


def main(rows: int = 500, updates: int = 30, out: str = "algorithm.png") -> dict[str, Any]:
    pixels, labels = gpuprop.datasets.load_digits()
    X, Y = pixels[:rows] / 16.0, np.eye(10)[labels[:rows]]
    network = gpuprop.Network(
        (64, 25, 10), hidden_activation="logistic", loss="binary_cross_entropy", dtype="float64", seed=0
    )
    layers = range(1, network.n_layers + 1)
    thetas = [network.theta(layer) for layer in layers]

    accumulated: list[Any] = []
    start = time.perf_counter()
    cost, derivatives = lecture(thetas, X, Y, accumulated)
    loop_seconds = time.perf_counter() - start
    network.loss_and_gradients(X, Y)  # the first call loads and compiles, and is not timed
    start = time.perf_counter()
    loss, weight_grads, bias_grads = network.loss_and_gradients(X, Y)
    batch_seconds = time.perf_counter() - start
    batched = [np.column_stack([gb, gw.T]) for gw, gb in zip(weight_grads, bias_grads, strict=True)]
    gaps = [float(np.abs(d - g).max() / np.abs(g).max()) for d, g in zip(derivatives, batched, strict=True)]
    print(f"J: loop {cost:.15f}, batch {loss:.15f}")
    for layer, theta, gap in zip(layers, thetas, gaps, strict=True):
        print(f"D^({layer}) {theta.shape}: loop and batch differ by {gap:.1e} of the largest entry")
    print(f"the loop took {loop_seconds / batch_seconds:.0f} times as long as the batch")

    downwards, upwards = (descend(thetas, derivatives, 0.5, order) for order in ([1, 0], [0, 1]))
    same_bits = all(np.array_equal(one, other) for one, other in zip(downwards, upwards, strict=True))
    print(f"layers updated from the top or from the bottom: {'the same bits' if same_bits else 'DIFFERENT'}")

    differences = []
    for _ in range(updates):
        thetas = descend(thetas, lecture(thetas, X, Y)[1], 0.5, [0, 1])
        _, weight_grads, bias_grads = network.loss_and_gradients(X, Y)
        for parameters, grads in zip([*network.weights, *network.biases], [*weight_grads, *bias_grads], strict=True):
            parameters -= 0.5 * grads
        differences.append(max(float(np.abs(network.theta(k) - thetas[k - 1]).max()) for k in layers))
    print(f"after {updates} updates the weights differ by at most {differences[-1]:.1e}")
    draw(np.array(accumulated), batched[0], differences, out)
    print(f"picture: {Path(out)}")
    return {"gaps": gaps, "cost": cost, "loss": loss, "same_bits": same_bits, "differences": differences}


def draw(accumulated: Any, batched: Any, differences: list[float], out: str) -> None:
    figure = Figure(figsize=(12, 4), layout="constrained")
    panels: Any = figure.subfigures(1, 3, width_ratios=[0.8, 1, 1])
    unit = int(np.abs(batched[:, 1:]).sum(axis=1).argmax())
    panels[0].suptitle(f"Delta / samples so far,\nweights into hidden unit {unit + 1}")
    largest = np.abs(batched[unit, 1:]).max()
    shown = [1, 10, 100, len(accumulated)]
    for axes, seen in zip(panels[0].subplots(2, 2).ravel(), shown, strict=True):
        image = accumulated[min(seen, len(accumulated)) - 1, unit, 1:].reshape(8, 8) / seen
        axes.imshow(image, cmap="RdBu_r", vmin=-2 * largest, vmax=2 * largest)
        axes.set(xlabel=f"{seen} sample{'s' * (seen > 1)}", xticks=[], yticks=[])
    axes = panels[1].subplots()
    counts = np.arange(1, len(accumulated) + 1)
    for column in np.abs(batched[unit]).argsort()[-4:]:
        (line,) = axes.plot(counts, accumulated[:, unit, column] / counts, linewidth=1)
        axes.axhline(batched[unit, column], color=line.get_color(), linestyle="--", linewidth=1)
    axes.set(title="four entries of it; dashed: the batch", xlabel="samples", xscale="log")
    axes = panels[2].subplots()
    axes.plot(range(1, len(differences) + 1), differences, "k.-")
    axes.set(title="loop against batch: largest difference", xlabel="updates", ylim=(0, None))
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The lecture's loop over samples, against the batch.")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--out", default="algorithm.png")
    main(**vars(parser.parse_args()))
