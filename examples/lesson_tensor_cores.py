"""Lesson: what a tensor core does, which of its numbers belong to which thread, and what it rounds away.

    python examples/lesson_tensor_cores.py      # writes lesson_tensor_cores.png

A warp of 32 threads multiplies a 16 x 8 matrix by an 8 x 8 one in one instruction. Each thread brings four numbers of
A and two of B, and gets four of the product. Here NumPy does it, thread by thread; no GPU is needed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import gpuprop
from gpuprop.core.precision import PRECISIONS, round_to_bf16, round_to_tf32, split

A = np.array([[(3 * i + 5 * k) % 7 - 3 for k in range(8)] for i in range(16)], np.float32)
B = np.array([[(2 * k + 3 * j) % 5 - 2 for j in range(8)] for k in range(8)], np.float32)
WATCHED = 13  # the thread that the picture shows


def places(thread: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]]:
    """Return which elements of A, of B and of the product a thread holds: a0 to a3, b0 and b1, c0 to c3."""
    g, t = divmod(thread, 4)
    a = [(g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4)]
    b = [(t, g), (t + 4, g)]
    c = [(g, 2 * t), (g, 2 * t + 1), (g + 8, 2 * t), (g + 8, 2 * t + 1)]
    return a, b, c


def multiply(registers_a: Any, registers_b: Any) -> Any:
    """What the instruction computes: the registers of 32 threads become matrices, and their product registers."""
    a, b, c = np.empty((16, 8)), np.empty((8, 8)), np.empty((32, 4))
    for thread in range(32):
        in_a, in_b, _ = places(thread)
        for register, place in enumerate(in_a):
            a[place] = registers_a[thread][register]
        for register, place in enumerate(in_b):
            b[place] = registers_b[thread][register]
    for thread in range(32):
        c[thread] = [a[row] @ b[:, column] for row, column in places(thread)[2]]
    return c


def spelled(x: float) -> str:
    """Return sign, exponent and fraction of a float32 number, bit by bit."""
    bits = f"{np.float32(x).view(np.uint32):032b}"
    return f"{bits[0]} {bits[1:9]} {bits[9:16]}|{bits[16:19]}|{bits[19:]}"


def worked_example(precision: str) -> dict[str, float]:
    """Return numbers of one round of the worked example, with the operands of all products rounded."""
    network, x, y = gpuprop.trace.worked_example()
    network = network.copy(dtype="float32", precision=precision)
    outputs = network.forward(x)[0]
    error, weight_grads, _ = network.loss_and_gradients(x, y)
    return {
        "out_o1": outputs[0].item(),
        "out_o2": outputs[1].item(),
        "E": error,
        "dE/dw5": weight_grads[1][0, 0].item(),
        "dE/dw1": weight_grads[0][0, 0].item(),
    }


def main(out: str = "lesson_tensor_cores.png") -> dict[str, Any]:
    registers = multiply(*([[matrix[p] for p in places(n)[i]] for n in range(32)] for i, matrix in enumerate((A, B))))
    product = np.empty((16, 8))
    for thread in range(32):
        for place, value in zip(places(thread)[2], registers[thread], strict=True):
            product[place] = value
    matrices: list[Any] = [A, B, product]
    held = (matrix[p] for matrix, own in zip(matrices, places(WATCHED), strict=True) for p in own)
    names = ("a0", "a1", "a2", "a3", "b0", "b1", "c0", "c1", "c2", "c3")
    print(f"thread {WATCHED}: " + ", ".join(f"{name} = {value:g}" for name, value in zip(names, held, strict=True)))
    print(f"largest difference from A @ B: {abs(product - A @ B).max():g}\n")
    x = np.array([0.1], np.float32)
    hi, lo = split(x)
    roundings = {"float32": x, "tf32": round_to_tf32(x), "bf16": round_to_bf16(x), "tf32x3 hi": hi, "tf32x3 lo": lo}
    for name, value in roundings.items():
        print(f"0.1 in {name:10} {spelled(value[0])}  {value[0]:.12f}")
    found = {precision: worked_example(precision) for precision in PRECISIONS}
    network, x, y = gpuprop.trace.worked_example()
    outputs, (_, grads, _) = network.forward(x)[0], network.loss_and_gradients(x, y)
    exact = {"out_o1": outputs[0], "out_o2": outputs[1], "E": network.loss(x, y)}
    exact |= {"dE/dw5": grads[1][0, 0], "dE/dw1": grads[0][0, 0]}
    print(f"\n{'':8}{'float64':>13}" + "".join(f"{name:>13}" for name in found))
    for name in found["float32"]:
        print(f"{name:8}{exact[name]:13.9f}" + "".join(f"{own[name]:13.9f}" for own in found.values()))
    errors = {p: {name: abs(own[name] / exact[name] - 1) for name in own} for p, own in found.items()}
    draw(product, errors, out)
    print(f"picture: {Path(out)}")
    return {"product": product, "errors": errors}


def draw(product: Any, errors: dict[str, dict[str, float]], out: str) -> None:
    """Draw the fragments of one thread in the three matrices, and the errors of the worked example."""
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(3, 2))
    left, right = parts
    grid = left.subplots(2, 2, width_ratios=(1, 1), height_ratios=(1, 2))
    grid[0, 0].axis("off")
    grid[0, 0].text(0, 0.3, f"One instruction, 32 threads:\nA (16 x 8) times B (8 x 8).\nColoured: thread {WATCHED}.")
    panels = ((grid[1, 0], "A", A, "a"), (grid[0, 1], "B", B, "b"), (grid[1, 1], "A B", product, "c"))
    for (axes, title, matrix, letter), own in zip(panels, places(WATCHED), strict=True):
        for place, value in np.ndenumerate(matrix):
            register = f"\n{letter}{own.index(place)}" if place in own else ""
            corner = (place[1] - 0.5, place[0] - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor="#fdae6b" if register else "0.94", edgecolor="white"))
            axes.text(
                place[1], place[0], f"{value:.0f}{register}", ha="center", va="center", fontsize=7, linespacing=0.9
            )
        axes.set(xlim=(-0.6, 7.6), ylim=(len(matrix) - 0.4, -0.6), title=title, xticks=range(8), aspect="equal")
        axes.set_yticks(range(len(matrix)))
        axes.tick_params(length=0, labelsize=7)
    axes = right.subplots()
    names = list(errors["float32"])
    for shift, (precision, marker) in enumerate(zip(errors, "osD^", strict=True)):
        axes.semilogy(np.arange(5) + shift / 8 - 0.2, list(errors[precision].values()), marker, label=precision)
    axes.set(title="the worked example: relative errors", ylim=(1e-9, 1e-1), xticks=range(5), xticklabels=names)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(out, dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a tensor core does, and what it rounds away.")
    parser.add_argument("--out", default="lesson_tensor_cores.png")
    main(**vars(parser.parse_args()))
