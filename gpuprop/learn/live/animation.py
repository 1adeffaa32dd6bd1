"""The frames of a training as a GIF, or as a self-contained page with a slider."""

from __future__ import annotations

import base64
import json
from html import escape
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from gpuprop.learn.live.frames import Frame, Recorder

__all__ = ["to_html", "write_gif"]

MAX_PICTURES = 60
"""The number of pictures in a GIF; more would make it large and slow to write."""

_FIELD = "PuOr"
"""The colours of the plane, brown to purple."""

_PAGE = Path(__file__).with_name("animation.html")


def to_html(recorder: Recorder, title: str) -> str:
    """Return a page with a slider that shows any frame; it loads nothing."""
    largest = max((np.abs(w).max() for frame in recorder.frames for w in frame.weights), default=1.0)
    data = {
        "title": title,
        "losses": recorder.losses,
        "largest": float(largest) or 1.0,
        "extent": recorder.extent,
        "points": recorder.points.round(6).tolist(),
        "names": recorder.names,
        "outputs": recorder.frames[0].activations[-1].shape[1],
        "frames": [_as_json(frame) for frame in recorder.frames],
    }
    text = json.dumps(data).replace("<", "\\u003c")  # so that nothing in a title can end the script
    return _PAGE.read_text(encoding="utf-8").replace("{{title}}", escape(title)).replace("{{data}}", text)


def _as_json(frame: Frame) -> dict[str, Any]:
    boundary = None if frame.boundary is None else base64.b64encode(_bytes(frame.boundary)).decode()
    return {
        "epoch": frame.epoch,
        "loss": frame.loss,
        "weights": [weights.round(4).tolist() for weights in frame.weights],
        "activations": [layer.round(4).tolist() for layer in frame.activations],
        "boundary": boundary,
    }


def _bytes(boundary: NDArray[Any]) -> bytes:
    """Return outputs from 0 to 1 as bytes; outputs beyond are clipped."""
    return bytes(np.rint(255 * boundary.clip(0, 1)).astype(np.uint8))


def write_gif(recorder: Recorder, file: IO[bytes], title: str, *, frames_per_second: int = 12) -> None:
    """Write the frames as a GIF: the network, the loss up to the frame, and the plane of a network with two inputs."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from PIL import Image

    has_plane = recorder.frames[0].boundary is not None
    figure = Figure(figsize=(10.4 if has_plane else 6.4, 3.4), dpi=80)
    figure.subplots_adjust(left=0.04, right=0.98, top=0.8, bottom=0.15, wspace=0.32)
    panels = figure.subplots(1, 2 + has_plane)
    if has_plane:
        figure.colorbar(ScalarMappable(Normalize(0, 1), _FIELD), ax=panels[2])
    largest = max(np.abs(w).max() for frame in recorder.frames for w in frame.weights) or 1.0
    pictures = []
    every = -(-len(recorder.frames) // MAX_PICTURES)
    for frame in [*recorder.frames[:-1:every], recorder.frames[-1]]:
        for axes in panels:
            axes.clear()
        figure.suptitle(f"{title}, epoch {frame.epoch}".replace("$", r"\$"))
        _draw_network(panels[0], frame, largest)
        _draw_losses(panels[1], recorder, frame.epoch)
        if frame.boundary is not None:
            _draw_plane(panels[2], recorder, frame.boundary)
        figure.canvas.draw()
        pictures.append(_picture(figure).convert("P", palette=Image.Palette.ADAPTIVE, colors=64))
    durations = [1000 // frames_per_second] * len(pictures)
    durations[-1] = 2000  # the last picture stays longer
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def _picture(figure: Any) -> Any:
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _draw_network(axes: Axes, frame: Frame, largest: float) -> None:
    """Draw units as circles shaded by the first sample's activation, and weights as lines."""
    columns = [_column(layer.shape[1]) for layer in frame.activations]
    for x, weights in enumerate(frame.weights):
        for (i, j), weight in np.ndenumerate(weights):
            color = "#0067a3" if weight > 0 else "#c04f00"
            style = "-" if weight > 0 else "--"
            width = 3.5 * abs(weight) / largest
            axes.plot([x, x + 1], [columns[x][i], columns[x + 1][j]], style, color=color, linewidth=width, zorder=1)
    for x, (layer, places) in enumerate(zip(frame.activations, columns, strict=True)):
        shade = layer[0].clip(-1, 1)
        axes.scatter([x] * len(places), places, c=shade, cmap="Greys", vmin=-1, vmax=1, s=120, edgecolors="k", zorder=2)
    axes.set(title="weights, and one sample", xlim=(-0.3, len(columns) - 0.7), ylim=(-0.6, 0.6))
    axes.axis("off")


def _column(n_units: int) -> NDArray[Any]:
    """Return the heights of a layer's units."""
    return np.linspace(0.5, -0.5, n_units) if n_units > 1 else np.zeros(1)


def _draw_losses(axes: Axes, recorder: Recorder, epoch: int) -> None:
    axes.plot(range(1, len(recorder.losses) + 1), recorder.losses, color="0.8")
    axes.plot(range(1, epoch + 1), recorder.losses[:epoch], color="#0067a3")
    axes.set(title="loss", xlabel="epoch")


def _draw_plane(axes: Axes, recorder: Recorder, boundary: NDArray[Any]) -> None:
    axes.imshow(boundary, extent=recorder.extent, cmap=_FIELD, vmin=0, vmax=1, aspect="auto", interpolation="bilinear")
    x, y, target = recorder.points.T
    axes.scatter(x, y, c=target, cmap=_marks(), edgecolors="w", s=45)
    across, up = (name.replace("$", r"\$") for name in recorder.names)
    axes.set(title="output over the two inputs", xlabel=across, ylabel=up)


def _marks() -> Any:
    """Return the colours of the samples, from black to yellow, which the field does not have."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("marks", ["#111111", "#ffd84d"])
