"""Lesson: ten optimizers in a narrow valley, at a saddle point, and on a network.

    python examples/lesson_optimizers.py                 # writes optimizers.png
    python examples/lesson_optimizers.py --animate o.gif # the paths, step by step

The surfaces have two parameters, so that they can be drawn. Each optimizer gets a learning rate with which it does well
in the valley, and the same one at the saddle point.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import gpuprop

RATES = {
    "sgd": 0.03, "momentum": 0.01, "nesterov": 0.01, "adagrad": 0.5, "adadelta": 20.0,
    "rmsprop": 0.02, "adam": 0.1, "adamax": 0.1, "nadam": 0.1, "adamw": 0.1,
}  # fmt: skip
#: name: (function, gradient, start, test whether the goal is reached)
SURFACES: dict[str, tuple[Any, Any, Any, Any]] = {
    "valley": (
        lambda x, y: (x**2 + 50 * y**2) / 2,
        lambda x, y: (x, 50 * y),
        (-2.0, 0.6),
        lambda path: np.hypot(*path.T) < 0.1,
    ),
    "saddle": (
        lambda x, y: (x**2 - y**2) / 2 + y**4 / 4,
        lambda x, y: (x, -y + y**3),
        (-2.0, 0.001),
        lambda path: np.abs(path[:, 1]) > 0.5,
    ),
}


def descend(name: str, gradient: Any, start: Any, steps: int) -> Any:
    """Return the path of an optimizer, shape (steps + 1, 2)."""
    optimizer = gpuprop.optimizers.get_optimizer(name)
    place = np.array(start)
    state = {slot: np.zeros(2) for slot in optimizer.slots}
    scratch = [np.zeros(2) for _ in range(max(1, optimizer.scratch_arrays))]
    path = [place.copy()]
    for step in range(1, steps + 1):
        optimizer.update(place, np.array(gradient(*place)), state, RATES[name], step, scratch, n_weights=2)
        path.append(place.copy())
    return np.array(path)


def train(name: str, epochs: int) -> list[float]:
    """Return the training loss by epoch of a small network on the digits, at the optimizer's default rate."""
    X, y = gpuprop.datasets.load_digits()
    network = gpuprop.Network(
        (64, 32, 10), loss="categorical_cross_entropy", seed=0, input_scaling=gpuprop.InputScaling.divide(16)
    )
    return gpuprop.Trainer(network, optimizer=name, batch_size=32, epochs=epochs).fit(X, y).history["train_loss"]


def main(steps: int = 300, epochs: int = 20, animate: str | None = None, out: str = "optimizers.png") -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    needed: dict[str, dict[str, int | None]] = {}
    for surface, (_, gradient, start, done) in SURFACES.items():
        paths[surface] = {name: descend(name, gradient, start, steps) for name in RATES}
        needed[surface] = {}
        for name, path in paths[surface].items():
            reached = done(path)
            needed[surface][name] = int(reached.argmax()) if reached.any() else None
    losses = {name: train(name, epochs) for name in RATES}
    print(f"{'':10}{'rate':>7}{'into the valley':>17}{'off the saddle':>16}{'loss on digits':>16}")
    for name, rate in RATES.items():
        valley, saddle = (str(needed[surface][name] or f"over {steps}") for surface in SURFACES)
        print(f"{name:10}{rate:7.2f}{valley:>17}{saddle:>16}{losses[name][-1]:16.4f}")
    draw(paths, losses, out)
    print(f"picture: {Path(out)}")
    if animate:
        draw_animation(paths, animate)
        print(f"animation: {Path(animate)}")
    return {"paths": paths, "needed": needed, "losses": losses}


def draw_surface(axes: Any, surface: str) -> None:
    x, y = np.meshgrid(np.linspace(-2.3, 1.2, 141), np.linspace(-1.3, 1.3, 131))
    axes.contour(x, y, SURFACES[surface][0](x, y), levels=15, colors="lightgray", linewidths=0.8)
    axes.set(title=surface, xlim=(-2.3, 1.2), ylim=(-1.3, 1.3))


def styles() -> dict[str, dict[str, Any]]:
    return {name: {"color": f"C{number}", "ls": ["-", "--"][number % 2]} for number, name in enumerate(RATES)}


def draw(paths: dict[str, dict[str, Any]], losses: dict[str, list[float]], out: str) -> None:
    figure = Figure(figsize=(12, 4), layout="constrained")
    *planes, loss_axes = figure.subplots(1, 3)
    for axes, surface in zip(planes, SURFACES, strict=True):
        draw_surface(axes, surface)
        for name, style in styles().items():
            axes.plot(*paths[surface][name].T, **style, linewidth=1.2, label=name)
    for name, style in styles().items():
        loss_axes.semilogy(range(1, len(losses[name]) + 1), losses[name], **style, label=name)
    loss_axes.set(title="digits: training loss, default rates", xlabel="epoch")
    loss_axes.legend(fontsize=7, ncols=2, loc="lower left")
    figure.savefig(out, dpi=85)


def draw_animation(paths: dict[str, dict[str, Any]], out: str, frames: int = 40) -> None:
    """Write the paths as a GIF, which shows every update at first and later fewer and fewer."""
    steps = len(paths["valley"]["sgd"]) - 1
    canvas: Any = FigureCanvasAgg(figure := Figure(figsize=(7, 3.6), dpi=80, layout="constrained"))
    title, lines = figure.suptitle("0 updates", fontsize=10), []
    for axes, surface in zip(figure.subplots(1, 2), SURFACES, strict=True):
        draw_surface(axes, surface)
        for name, style in styles().items():
            lines.append((axes.plot([], [], **style, marker="o", markevery=[-1], label=name)[0], paths[surface][name]))
    figure.axes[0].legend(fontsize=6, ncols=2, loc="upper right")
    pictures = []
    for count in np.unique(np.geomspace(1, steps + 1, frames).astype(int)) - 1:
        title.set_text(f"{count} updates")
        for line, path in lines:
            line.set_data(*path[: count + 1].T)
        canvas.draw()
        figure.set_layout_engine("none")  # the same limits as in the first picture
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    palette = pictures[len(pictures) // 2].quantize(128, method=Image.Quantize.MAXCOVERAGE)
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    first.save(out, save_all=True, append_images=others, duration=[200] * len(others) + [3000], loop=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Optimizers on two surfaces and on a network.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--animate", metavar="FILE.gif", help="also write the paths as an animation")
    parser.add_argument("--out", default="optimizers.png")
    main(**vars(parser.parse_args()))
