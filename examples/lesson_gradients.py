"""Lesson: how to check a gradient by differences, how large the step should be, and four mistakes that the check finds.

    python examples/lesson_gradients.py   # writes gradients.png

Change one weight by h, see how the loss changes, and divide: nothing is simpler, or slower. This estimate does not use
backpropagation, and can therefore judge it.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpuprop

MISTAKES = ["none", "missing f'", "W not transposed", "forgotten 1/m", "already updated weights"]


def backpropagate(network: gpuprop.Network, X: Any, y: Any, mistake: str = "none") -> tuple[float, Any, Any]:
    """Backpropagation through one hidden layer of logistic units under the squared error, right or with a mistake."""
    m = 1 if mistake == "forgotten 1/m" else len(X)
    a0, a1, a2 = network.activations(X)
    delta2 = (a2 - y) * a2 * (1 - a2) / m
    w2 = network.weights[1]
    if mistake == "already updated weights":
        w2 = w2 - 0.5 * a1.T @ delta2
    errors = delta2 @ (w2 if mistake == "W not transposed" else w2.T)
    delta1 = errors if mistake == "missing f'" else errors * a1 * (1 - a1)
    return network.loss(X, y), [a0.T @ delta1, a1.T @ delta2], [delta1.sum(axis=0), delta2.sum(axis=0)]


def diagnose(gradients: Any, network: gpuprop.Network, X: Any, y: Any) -> str:
    """Name the mistake from its symptoms."""
    report = gpuprop.check_gradients(network, X, y, gradients=gradients)
    if report.passed:
        return "none"
    if all(np.isclose(layer.analytic, len(X) * layer.numeric, rtol=1e-4) for layer in report.layers):
        return "forgotten 1/m"  # every derivative is too large, and by the same factor
    # The output layer is right, so the hidden deltas are wrong; those of a single sample are the bias gradients.
    x, target = X[:1], y[:1]
    ratio = gradients(network, x, target)[2][0] / network.loss_and_gradients(x, target)[2][0]
    a = network.activations(x)[1][0]
    if np.allclose(ratio, 1 / (a * (1 - a))):
        return "missing f'"
    # Weights that are one update old give a gradient that is nearly right; weights of other units give any number.
    return "already updated weights" if report.layers[0].relative_error < 0.1 else "W not transposed"


def difference_error(network: gpuprop.Network, X: Any, y: Any, h: float, *, central: bool) -> float:
    """Return the relative error of the whole gradient when it is estimated with step h."""
    _, weight_grads, bias_grads = network.copy(dtype="float64").loss_and_gradients(X, y)
    exact = np.concatenate([grads.ravel() for grads in (*weight_grads, *bias_grads)])
    probe = network.copy()
    estimate = np.zeros_like(exact)
    for place, value in enumerate(network.parameters):
        probe.parameters[place] = value + h
        up, upper = probe.loss(X, y), float(probe.parameters[place])
        probe.parameters[place] = value - h if central else value
        estimate[place] = (up - probe.loss(X, y)) / max(upper - float(probe.parameters[place]), 1e-300)
        probe.parameters[place] = value
    return float(np.linalg.norm(estimate - exact) / np.linalg.norm(exact))


def main(steps_per_decade: int = 4, out: str = "gradients.png") -> dict[str, Any]:
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(20, 4)), rng.uniform(size=(20, 3))
    logistic: dict[str, Any] = {
        "hidden_activation": "logistic",
        "output_activation": "logistic",
        "init": "uniform(1)",
        "seed": 0,
    }
    networks = {name: gpuprop.Network((4, 3, 3), dtype=name, **logistic) for name in ("float64", "float32")}

    steps = 10.0 ** np.arange(-13, 0.01, 1 / steps_per_decade)
    curves: dict[str, list[float]] = {}
    for label, dtype, central in (
        ("forward differences, float64", "float64", False),
        ("central differences, float64", "float64", True),
        ("central differences, float32", "float32", True),
    ):
        curves[label] = [difference_error(networks[dtype], X, y, float(h), central=central) for h in steps]
        best = int(np.argmin(curves[label]))
        print(f"{label}: best step {steps[best]:.0e}, relative error {curves[label][best]:.0e}")

    named, errors = {}, {}
    for mistake in MISTAKES:
        gradients = partial(backpropagate, mistake=mistake)
        report = gpuprop.check_gradients(networks["float64"], X, y, gradients=gradients)
        errors[mistake] = [layer.relative_error for layer in report.layers if "weights" in layer.name]
        named[mistake] = diagnose(gradients, networks["float64"], X, y)
        verdict = "passed" if report.passed else "FAILED"
        print(f"planted: {mistake:24} {verdict}, layer 1 {errors[mistake][0]:.0e}, layer 2 {errors[mistake][1]:.0e}"
              f"   named: {named[mistake]}")  # fmt: skip
    draw(steps, curves, errors, out)
    print(f"picture: {Path(out)}")
    return {"steps": steps, "curves": curves, "named": named, "errors": errors}


def draw(steps: Any, curves: dict[str, list[float]], errors: dict[str, list[float]], out: str) -> None:
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (label, curve), style in zip(curves.items(), ["C1-.", "C0-", "C3--"], strict=True):
        left.loglog(steps, curve, style, label=label)
    left.set(title="error of the difference quotient", xlabel="step h", ylabel="relative error", ylim=(1e-12, 1e2))
    left.legend(loc="lower left", fontsize=8)
    places = np.arange(len(errors))
    for layer, offset in ((0, -0.2), (1, 0.2)):
        heights = [max(pair[layer], 1e-12) for pair in errors.values()]
        right.bar(places + offset, heights, 0.4, bottom=0, label=f"layer {layer + 1}")
    right.axhline(1e-6, color="black", linestyle="--", linewidth=1, label="tolerance")
    right.set(title="the check's verdict on five backward passes", yscale="log", ylim=(1e-12, 1e3))
    right.set_xticks(places, [mistake.replace(" ", "\n") for mistake in errors])
    right.legend(loc="upper left", fontsize=8)
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Gradient checking: the step, and planted mistakes.")
    parser.add_argument("--steps-per-decade", type=int, default=4)
    parser.add_argument("--out", default="gradients.png")
    main(**vars(parser.parse_args()))
