"""Lesson: one round of backpropagation in three notations, and how the choice of the loss changes a delta.

    python examples/lesson_notations.py   # writes notations.png

The article's net and out, the lecture's z^(l), a^(l), Theta^(l), and the library's arrays name the same numbers. Then
the same network is trained with the cross-entropy: its output delta is more than five times as large.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpuprop

NOTATIONS = ["mazur", "lecture", "code"]


def main(out: str = "notations.png") -> dict[str, Any]:
    network, x, y = gpuprop.trace.worked_example()
    traces = {name: gpuprop.trace.trace(network, x, y, notation=name).to_dict()["terms"] for name in NOTATIONS}
    print("the way to dE/dw5, term by term")
    for terms in zip(*traces.values(), strict=True):
        if any(part in terms[0]["symbol"] for part in ("dE/dout_o1", "dout_o1/", "delta_o1", "w5")):
            symbols = "   ".join(f"{term['symbol']:28}" for term in terms)
            print(f"   {symbols}{terms[0]['value']:13.9f}")

    print(f"\nTheta^(1), as network.theta(1):\n{network.theta(1)}")

    twin = gpuprop.Network(
        (2, 2, 2), hidden_activation="logistic", loss="binary_cross_entropy", dtype="float64", device="numpy"
    )
    for layer in (1, 2):
        twin.set_theta(layer, network.theta(layer))
    deltas = {
        name: gpuprop.trace.trace(net, x, y).numbers.layers[-1].delta
        for name, net in (("squared error", network), ("cross-entropy", twin))
    }
    print()
    for name, delta in deltas.items():
        print(f"{name}: delta_o1 = {delta[0]:.4f}, delta_o2 = {delta[1]:.4f}")
    draw(float(network.forward(x)[0, 0]), float(y[0, 0]), deltas, out)
    print(f"picture: {Path(out)}")
    return {"traces": traces, "deltas": deltas}


def draw(output: float, target: float, deltas: dict[str, Any], out: str) -> None:
    a = np.linspace(0, 1, 201)
    figure = Figure(figsize=(6.5, 3.8), layout="constrained")
    axes = figure.subplots()
    curves = {"squared error": (a - target) * a * (1 - a), "cross-entropy": a - target}
    for (name, curve), style in zip(curves.items(), ["C0-", "C1--"], strict=True):
        axes.plot(a, curve, style, label=f"{name}: {'(a - y) a (1 - a)' if style == 'C0-' else 'a - y'}")
        axes.plot(output, deltas[name][0], style[:2] + "o", markersize=8)
        axes.annotate(
            f"{deltas[name][0]:.4f}", (output, deltas[name][0]), (-12, 8), textcoords="offset points", ha="right"
        )
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.set(title=f"delta of an output whose target is {target}", xlabel="output a", ylabel="delta")
    axes.legend(loc="upper left")
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One round in three notations; the delta of two losses.")
    parser.add_argument("--out", default="notations.png")
    main(**vars(parser.parse_args()))
