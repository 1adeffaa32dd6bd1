"""The parts of the pictures of networks and graphs: boxes, lines and a highlighter, as SVG for light and dark pages."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

__all__ = ["Box", "Drawing", "Edge"]

_STYLE = """
.net { --ink: #1c2330; --soft: #5a6475; --edge: #8b97a8; --paper: #fff; --card: #f2f5f9; --plus: #0067a3;
  --minus: #c04f00; --marker: #ffd75e; font-family: system-ui, sans-serif; font-size: 13px; }
@media (prefers-color-scheme: dark) { .net { --ink: #e6e9ef; --soft: #9aa5b5; --edge: #6c788a; --paper: #14181f;
  --card: #212833; --plus: #6cbcf0; --minus: #f0a35e; --marker: #6b5300; } }
.net text { fill: var(--ink); text-anchor: middle; font-variant-numeric: tabular-nums; }
.net .paper { fill: var(--paper); }
.net .box { fill: var(--card); stroke: var(--edge); }
.net .name { font-weight: 600; }
.net .soft { fill: var(--soft); }
.net .note { text-anchor: start; }
.net .edge { stroke: var(--edge); fill: none; }
.net .plus { stroke: var(--plus); }
.net .minus { stroke: var(--minus); stroke-dasharray: 6 3; }
.net .label { font-size: 12px; stroke: var(--paper); stroke-width: 9px; paint-order: stroke; stroke-linejoin: round; }
.net .marker { stroke: var(--marker); stroke-width: 13px; stroke-linecap: round; stroke-linejoin: round; fill: none; }
"""

_LINE_HEIGHT, _PADDING = 17, 9


@dataclass(frozen=True)
class Box:
    """Lines of text in a frame; the first line is its name.

    Attributes
    ----------
    x, y : float
        The centre.
    lines : tuple of str
    width : float
    """

    x: float
    y: float
    lines: tuple[str, ...]
    width: float = 116.0

    @property
    def height(self) -> float:
        """The height that the lines need."""
        return _LINE_HEIGHT * len(self.lines) + 2 * _PADDING

    @property
    def left(self) -> tuple[float, float]:
        """The point where lines arrive."""
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> tuple[float, float]:
        """The point where lines leave."""
        return self.x + self.width / 2, self.y


@dataclass(frozen=True)
class Edge:
    """A line between two boxes.

    Attributes
    ----------
    start, end : tuple of float
    label : str
    label_at : float
        Where the label stands, as a share of the line's length.
    sign : float
        The colour shows whether this number is positive, negative or 0; the line of a negative one is also dashed.
    width : float
    """

    start: tuple[float, float]
    end: tuple[float, float]
    label: str = ""
    label_at: float = 0.5
    sign: float = 0.0
    width: float = 1.5


class Drawing:
    """Collects shapes: boxes lie above the lines, and the highlighter lies below them."""

    def __init__(self) -> None:
        self._markers: list[str] = []
        self._edges: list[str] = []
        self._labels: list[str] = []
        self._boxes: list[str] = []

    def box(self, box: Box, *, marked: bool = False) -> None:
        """Add a box, highlighted if it is `marked`."""
        x, y = box.x - box.width / 2, box.y - box.height / 2
        frame = f'x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="8"'
        if marked:
            self._markers.append(f'<rect class="marker" {frame}/>')
        self._boxes.append(f'<rect class="box" {frame}/>')
        for index, line in enumerate(box.lines):
            kind = "name" if index == 0 else ""
            self._boxes.append(_text(box.x, y + _PADDING + _LINE_HEIGHT * (index + 0.76), line, kind))

    def edge(self, edge: Edge, *, marked: bool = False) -> None:
        """Add a line, highlighted if it is `marked`."""
        start, end, at = edge.start, edge.end, edge.label_at
        ends = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
        if marked:
            self._markers.append(f'<line class="marker" {ends}/>')
        kind = "edge" + (" plus" if edge.sign > 0 else " minus" if edge.sign < 0 else "")
        self._edges.append(f'<line class="{kind}" stroke-width="{edge.width:.1f}" {ends}/>')
        x, y = start[0] + at * (end[0] - start[0]), start[1] + at * (end[1] - start[1])
        if edge.label:
            self._labels.append(_text(x, y + 4, edge.label, "label"))

    def note(self, x: float, y: float, text: str, *, centred: bool = False, soft: bool = True) -> None:
        """Add a line of text outside all boxes."""
        kind = ("soft " if soft else "") + ("" if centred else "note")
        self._boxes.append(_text(x, y, text, kind.strip()))

    def svg(self, width: float, height: float, title: str, *, standalone: bool) -> str:
        """Return the drawing as a file of its own (`standalone`) or as a part of an HTML page."""
        namespace = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
        size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
        shapes = "\n".join([*self._markers, *self._edges, *self._labels, *self._boxes])
        return (
            f'<svg{namespace} class="net" {size} role="img">\n<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n'
            f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>\n{shapes}\n</svg>\n'
        )


def _text(x: float, y: float, text: str, kind: str) -> str:
    mark = f' class="{kind}"' if kind else ""
    return f'<text{mark} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
