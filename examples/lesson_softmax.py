"""Lesson: softmax turns scores into probabilities, and must be computed with care.

    python examples/lesson_softmax.py     # writes softmax.png

Four scores, as a classifier of pictures might give them, become four probabilities. Only the differences of the scores
count, and so the largest can be subtracted from all of them, which prevents overflow.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import gpuprop

LABELS = ["cat", "dog", "frog", "car"]
SCORES = np.array([5.1, 3.2, -1.7, -2.0])


def naive_softmax(z: Any) -> Any:
    """Compute the formula as it is written: exponentials, divided by their sum."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp(z) / np.exp(z).sum()


def first_failure(dtype: type[np.floating[Any]]) -> int:
    """Return the smallest whole number by which the scores can be raised so that the naive form gives no answer."""
    shift = 0
    while np.isfinite(naive_softmax((SCORES + shift).astype(dtype))).all():
        shift += 1
    return shift


def main(out: str = "softmax.png") -> dict[str, Any]:
    softmax = gpuprop.activations.get_activation("softmax", output=True).function
    exponentials = np.exp(SCORES)
    probabilities = softmax(SCORES)
    print(f"{'':6}{'score':>8}{'exp':>10}{'share':>9}")
    for label, *row in zip(LABELS, SCORES, exponentials, probabilities, strict=True):
        print("{:6}{:8.1f}{:10.4f}{:9.4f}".format(label, *row))
    print(f"{'sum':14}{exponentials.sum():10.4f}{probabilities.sum():9.4f}")

    shifted = float(np.abs(softmax(SCORES + 1000) - probabilities).max())
    print(f"\nall scores raised by 1000: the shares change by at most {shifted:.0e}")
    failures = {dtype.__name__: first_failure(dtype) for dtype in (np.float32, np.float64)}
    for name, shift in failures.items():
        print(f"the naive form in {name} fails from a shift of {shift}: exp({SCORES[0] + shift:.1f}) is infinite there")

    # A layer whose weights are the identity passes the scores through, so its bias gradient is dLoss/dscore.
    network = gpuprop.Network(
        (4, 4), loss="categorical_cross_entropy", dtype="float64", init=lambda _, m, n: np.eye(m, n)
    )
    loss, _, (delta,) = network.loss_and_gradients(SCORES[np.newaxis], [0])
    print(f"\nif it is a cat: loss -ln {probabilities[0]:.4f} = {loss:.4f}, its gradient a - y = {np.round(delta, 4)}")

    draw(exponentials, probabilities, softmax, out)
    print(f"picture: {Path(out)}")
    return {
        "exponentials": exponentials,
        "probabilities": probabilities,
        "shifted": shifted,
        "failures": failures,
        "delta": delta,
    }


def draw(exponentials: Any, probabilities: Any, softmax: Any, out: str) -> None:
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    *bars, line = figure.subplots(1, 4)
    titles = ["scores z", "exponentials exp(z)", "shares of their sum"]
    for axes, values, title, form in zip(
        bars, [SCORES, exponentials, probabilities], titles, ["%.1f", "%.2f", "%.2f"], strict=True
    ):
        axes.bar_label(axes.bar(LABELS, values, color=["C0", "C1", "C2", "C3"]), fmt=form, padding=2)
        axes.set_title(title)
        axes.axhline(0, color="gray", linewidth=0.8)
        axes.margins(y=0.15)
    shifts = np.arange(0, 121, dtype=np.float32)
    scores = SCORES.astype(np.float32)
    line.plot(shifts, [softmax(scores + c)[0] for c in shifts], label="largest subtracted", linewidth=5, alpha=0.35)
    line.plot(shifts, [naive_softmax(scores + c)[0] for c in shifts], "k--", label="naive: ends in inf / inf")
    line.set(title="share of the cat, float32", xlabel="added to all four scores", ylim=(0, 1))
    line.legend(loc="lower center")
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Softmax: scores, exponentials, shares; and where the formula overflows."
    )
    parser.add_argument("--out", default="softmax.png")
    main(**vars(parser.parse_args()))
