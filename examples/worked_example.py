"""The worked example: one round of backpropagation number by number, then 10,000 rounds.

    python examples/worked_example.py     # writes worked_example.png

Some texts print last digits that their own algorithm does not give. Here two computations run side by side: one forms
the hidden deltas with the weights as they were, the other with output weights that have already been updated. Only the
first follows the gradient, and the gradient check shows that.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpuprop

LEARNING_RATE = 0.5
Gradients = Callable[[gpuprop.Network, Any, Any], tuple[float, list[Any], list[Any]]]


def descend(gradients: Gradients, rounds: int) -> tuple[list[float], list[Any]]:
    """Return the error and the outputs after 0, 1, ..., `rounds` rounds; the biases are held fixed."""
    network, x, y = gpuprop.trace.worked_example()
    errors, outputs = [], [network.forward(x)[0]]
    for _ in range(rounds):
        error, weight_grads, _ = gradients(network, x, y)
        errors.append(error)
        for weights, grads in zip(network.weights, weight_grads, strict=True):
            weights -= LEARNING_RATE * grads
        outputs.append(network.forward(x)[0])
    return [*errors, network.loss(x, y)], outputs


def main(rounds: int = 10_000, out: str = "worked_example.png") -> float:
    network, x, y = gpuprop.trace.worked_example()
    print(gpuprop.trace.trace(network, x, y, learning_rate=LEARNING_RATE))

    updated = gpuprop.trace.updated_weights_gradients
    errors, outputs = descend(gpuprop.Network.loss_and_gradients, rounds)
    errors_updated, _ = descend(updated, rounds)
    print(f"\nE after {rounds} rounds")
    print(f"   {errors[-1]:.8e} with the original weights")
    print(f"   {errors_updated[-1]:.8e} with already updated weights")
    for name, gradients in (("original", None), ("updated", updated)):
        passed = gpuprop.check_gradients(network, x, y, gradients=gradients).passed
        print(f"gradient check, {name} weights: {'passed' if passed else 'FAILED'}")

    figure = Figure(figsize=(11, 4), layout="constrained")
    error_axes, output_axes, gap_axes = figure.subplots(1, 3)
    error_axes.loglog(range(1, rounds + 1), errors[1:])
    error_axes.set(title="error", xlabel="round")
    for k, (line, target) in enumerate(zip(("-", "--"), y[0], strict=True)):
        output_axes.semilogx(range(1, rounds + 1), [output[k] for output in outputs[1:]], line, label=f"o{k + 1}")
        output_axes.axhline(target, color="gray", linewidth=0.8)
    output_axes.set(title="outputs, and their targets in gray", xlabel="round")
    output_axes.legend()
    gap = np.array(errors_updated[1:]) / np.array(errors[1:]) - 1
    gap_axes.semilogx(range(1, rounds + 1), 100 * gap)
    gap_axes.axhline(0, color="gray", linewidth=0.8)
    gap_axes.set(title="error with already updated weights,\nagainst the right one", xlabel="round", ylabel="percent")
    figure.savefig(out, dpi=120)
    print(f"picture: {Path(out)}")
    return errors[-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compute the worked example, one round and many.")
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--out", default="worked_example.png")
    main(**vars(parser.parse_args()))
