"""The pictures of a report as SVG, in the page's own colours: curves, a confusion matrix, reliability, predictions."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.training.calibration import Reliability

__all__ = ["curves", "image", "matrix", "reliability_diagram", "scatter"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 460, 260, 72, 40, 12, 14


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten.

    Examples
    --------
    >>> from gpuprop.learn.report.charts import ticks
    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def shown(value: float) -> str:
    """Return a number for an axis."""
    return f"{value:.3g}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.1e}"


class _Plane:
    """A pair of axes with grid lines, labels and titles."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], titles: tuple[str, str]) -> None:
        (self._x0, x1), (self._y0, y1) = x, y
        self._dx, self._dy = (x1 - self._x0) or 1.0, (y1 - self._y0) or 1.0
        self.parts: list[str] = []
        for value in ticks(self._y0, self._y0 + self._dy):
            at = self.y(value)
            self.parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            self._text(_LEFT - 6, at + 4, shown(value), "end")
        for value in ticks(self._x0, self._x0 + self._dx):
            self._text(self.x(value), _HEIGHT - _BOTTOM + 16, shown(value), "middle")
        self._text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, titles[0], "middle")
        middle = (_TOP + _HEIGHT - _BOTTOM) / 2
        self.parts.append(
            f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">'
            f"{escape(titles[1])}</text>"
        )

    def x(self, value: float) -> float:
        """Return the place of a value."""
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - self._x0) / self._dx

    def y(self, value: float) -> float:
        """Return the place of a value."""
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (value - self._y0) / self._dy

    def _text(self, x: float, y: float, text: str, anchor: str) -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def line(self, xs: Sequence[float], ys: Sequence[float | None], kind: str) -> None:
        """Draw a curve; a value that is missing or infinite leaves a gap."""
        pieces: list[list[str]] = [[]]
        for x, y in zip(xs, ys, strict=True):
            if y is None or not math.isfinite(y):
                pieces.append([])
            else:
                pieces[-1].append(f"{self.x(x):.1f},{self.y(y):.1f}")
        for piece in filter(None, pieces):
            if len(piece) == 1:
                cx, cy = piece[0].split(",")
                self.parts.append(f'<circle class="{kind}" cx="{cx}" cy="{cy}" r="3"/>')
            else:
                self.parts.append(f'<polyline class="{kind}" points="{" ".join(piece)}"/>')

    def svg(self, title: str) -> str:
        """Return the picture."""
        return (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(self.parts)}</svg>'
        )


def curves(history: Mapping[str, Sequence[float | None]], columns: Mapping[str, str], title: str) -> str:
    """Draw columns of a history by epoch.

    Parameters
    ----------
    history : mapping of str to sequences
    columns : mapping of str to str
        The class of the line of each column, see the page's style.
    title : str
        Of the vertical axis.
    """
    values = [value for name in columns for value in history[name] if value is not None and math.isfinite(value)]
    if not values:
        return '<p class="soft">no finite value</p>'
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.5
    epochs = [float(epoch or 0) for epoch in history["epoch"]]
    plane = _Plane((epochs[0], epochs[-1]), (low - margin, high + margin), ("epoch", title))
    for name, kind in columns.items():
        plane.line(epochs, history[name], kind)
    keys = " &nbsp; ".join(
        f'<span class="key {kind}">{escape(name.replace("_", " ", 1))}</span>' for name, kind in columns.items()
    )
    return f'{plane.svg(title)}<p class="soft">{keys}</p>'


def matrix(counts: NDArray[Any], classes: Sequence[str]) -> str:
    """Draw a confusion matrix: right answers in one colour by their share, mistakes in another on a scale of their own.

    So a class that is taken for another in one case of a hundred can still be seen.
    """
    n_classes = len(classes)
    largest = max(1, int((counts - np.diag(np.diag(counts))).max()))
    totals = np.maximum(counts.sum(axis=1), 1)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in classes)
    rows = []
    for true in range(n_classes):
        cells = []
        for guess in range(n_classes):
            count = int(counts[true, guess])
            share = count / totals[true] if true == guess else count / largest
            kind = "right" if true == guess else "wrong"
            strength = 0 if count == 0 else round(15 + 70 * share)
            cells.append(f'<td class="{kind}" style="--share: {strength}%">{count if count else ""}</td>')
        rows.append(f'<tr><th scope="row">{escape(classes[true])}</th>{"".join(cells)}</tr>')
    return (
        '<div class="scroll"><table class="matrix"><thead><tr><th>true \\ predicted</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="soft">Right answers are coloured by their share of the class, mistakes by their number: the '
        f"strongest colour stands for {largest}.</p>"
    )


def reliability_diagram(found: Reliability) -> str:
    """Draw the accuracy of the rows in each bin over their confidence; on the diagonal the two agree."""
    plane = _Plane((0.0, 1.0), (0.0, 1.0), ("confidence", "accuracy"))
    plane.line([0.0, 1.0], [0.0, 1.0], "ideal")
    filled = found.counts > 0
    largest = float(found.counts.max())
    for confidence, accuracy, count in zip(
        found.confidence[filled], found.accuracy[filled], found.counts[filled], strict=True
    ):
        radius = 2.5 + 6 * math.sqrt(count / largest)
        plane.parts.append(
            f'<circle class="train dot" cx="{plane.x(confidence):.1f}" cy="{plane.y(accuracy):.1f}" r="{radius:.1f}">'
            f"<title>{count} rows, confidence {confidence:.3f}, accuracy {accuracy:.3f}</title></circle>"
        )
    return plane.svg("reliability") + '<p class="soft">The area of a dot is the number of its rows.</p>'


def scatter(y: NDArray[Any], predicted: NDArray[Any], most: int = 2000) -> str:
    """Draw predictions of a regression against true values; at most `most` rows are drawn."""
    true, guess = y.reshape(-1)[:most], predicted.reshape(-1)[:most]
    low, high = float(min(true.min(), guess.min())), float(max(true.max(), guess.max()))
    plane = _Plane((low, high), (low, high), ("true value", "predicted value"))
    plane.line([low, high], [low, high], "ideal")
    for one, other in zip(true.tolist(), guess.tolist(), strict=True):
        plane.parts.append(f'<circle class="train dot" cx="{plane.x(one):.1f}" cy="{plane.y(other):.1f}" r="2.5"/>')
    return plane.svg("predictions against true values")


def image(pixels: NDArray[Any], *, alt: str) -> str:
    """Return a gray picture, dark on light, as an element that holds its own PNG."""
    values = np.asarray(pixels, np.float64)
    low, span = values.min(), np.ptp(values) or 1.0
    gray = np.rint(255 * (1 - (values - low) / span)).astype(np.uint8)
    lines = b"".join(b"\0" + row.tobytes() for row in gray)
    head = struct.pack(">IIBBBBB", gray.shape[1], gray.shape[0], 8, 0, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(lines)) + _chunk(b"IEND", b"")
    )
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
