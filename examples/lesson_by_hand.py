"""Lesson: the chain rule on a graph, by hand. First f = (x + y) z, then a logistic unit and its error.

    python examples/lesson_by_hand.py     # writes by_hand.png

Every operation knows only two things: its result, and its local gradients, the derivatives of the result by its inputs.
Going backwards, the gradient that arrives from above is multiplied by each local gradient and handed down.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import gpuprop


class Node:
    """A number, the operation that made it, and (after `backward`) the derivative of the final result by it."""

    def __init__(self, name: str, value: float, inputs: tuple[tuple[Node, float], ...] = ()) -> None:
        self.name, self.value, self.inputs = name, value, inputs  # each input with its local gradient
        self.gradient = 0.0

    def __add__(self, other: Node) -> Node:
        return Node("+", self.value + other.value, ((self, 1.0), (other, 1.0)))

    def __sub__(self, other: Node) -> Node:
        return Node("-", self.value - other.value, ((self, 1.0), (other, -1.0)))

    def __mul__(self, other: Node) -> Node:
        return Node("*", self.value * other.value, ((self, other.value), (other, self.value)))

    def logistic(self) -> Node:
        a = 1 / (1 + math.exp(-self.value))
        return Node("g", a, ((self, a * (1 - a)),))

    def half_square(self) -> Node:
        return Node("½ ( )²", self.value**2 / 2, ((self, self.value),))

    def order(self) -> list[Node]:
        """Return the graph with every node after its inputs."""
        seen: dict[int, Node] = {}

        def visit(node: Node) -> None:
            for below, _ in node.inputs:
                visit(below)
            seen.setdefault(id(node), node)

        visit(self)
        return list(seen.values())

    def backward(self) -> None:
        """Fill in all gradients: the gradient from above times the local gradient, added up over all uses."""
        nodes = self.order()
        self.gradient = 1.0
        for node in reversed(nodes):
            for below, local in node.inputs:
                below.gradient += node.gradient * local


def report(title: str, result: Node) -> None:
    print(title)
    for node in result.order():
        print(f"   {node.name:8} value {node.value:10.6f}   gradient {node.gradient:10.6f}")


def main(out: str = "by_hand.png") -> dict[str, Any]:
    x, y, z = Node("x", -2.0), Node("y", 5.0), Node("z", -4.0)
    f = (x + y) * z
    f.backward()
    report("f = (x + y) z", f)

    # One unit with the numbers of the worked example's h1 and target, but a single input.
    i, w, b, target = Node("i", 0.05), Node("w", 0.15), Node("b", 0.35), Node("target", 0.01)
    error = ((w * i + b).logistic() - target).half_square()
    error.backward()
    report("\nE = ½ (g(w i + b) - target)²", error)

    network = gpuprop.Network((1, 1), output_activation="logistic", dtype="float64")
    network.weights[0][...], network.biases[0][...] = w.value, b.value
    loss, (weight_grads,), (bias_grads,) = network.loss_and_gradients([[i.value]], [[target.value]])
    print(f"\nthe library: E {loss:.6f}, dE/dw {weight_grads[0, 0]:.6f}, dE/db {bias_grads[0]:.6f}")
    draw([("f = (x + y) z", f), ("E = ½ (g(w i + b) - target)²", error)], out)
    print(f"picture: {Path(out)}")
    return {
        "f": (f.value, x.gradient, y.gradient, z.gradient),
        "graph": (error.value, w.gradient, b.gradient),
        "library": (loss, float(weight_grads[0, 0]), float(bias_grads[0])),
    }


def draw(graphs: list[tuple[str, Node]], out: str) -> None:
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    for axes, (title, result) in zip(figure.subplots(1, 2, width_ratios=[1, 1.6]), graphs, strict=True):
        nodes = result.order()
        column: dict[int, int] = {}
        for node in nodes:
            column[id(node)] = max((column[id(below)] + 1 for below, _ in node.inputs), default=0)
        places: dict[int, tuple[int, float]] = {
            id(node): (column[id(node)], -row) for row, node in enumerate([n for n in nodes if not n.inputs])
        }
        for node in nodes:
            if node.inputs:  # an operation is drawn at the mean height of its inputs
                heights = [places[id(below)][1] for below, _ in node.inputs]
                places[id(node)] = (column[id(node)], sum(heights) / len(heights))
            for below, local in node.inputs:
                (x0, y0), (x1, y1) = places[id(below)], places[id(node)]
                axes.annotate("", (x1 - 0.16, y1), (x0 + 0.16, y0), arrowprops={"arrowstyle": "->", "color": "gray"})
                middle = ((x0 + x1) / 2, (y0 + y1) / 2 + 0.06)
                axes.annotate(f"{local:.4g}", middle, color="gray", ha="center", va="bottom", fontsize=9)
        for node in nodes:
            place = places[id(node)]
            axes.text(*place, node.name, ha="center", va="center", bbox={"boxstyle": "round", "facecolor": "white"})
            axes.annotate(f"{node.value:.4g}", place, (0, 14), textcoords="offset points", ha="center", color="C0")
            axes.annotate(f"{node.gradient:.4g}", place, (0, -22), textcoords="offset points", ha="center", color="C3")
        axes.set(
            title=title,
            xlim=(-0.4, max(column.values()) + 0.4),
            ylim=(min(row for _, row in places.values()) - 0.4, 0.4),
        )
        axes.set_axis_off()
    figure.supxlabel(
        "blue: value, forwards     gray: local gradient of the edge     red: gradient of the result", fontsize=10
    )
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The chain rule on a graph, by hand.")
    parser.add_argument("--out", default="by_hand.png")
    main(**vars(parser.parse_args()))
