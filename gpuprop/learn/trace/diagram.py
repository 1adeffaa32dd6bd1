"""A picture of a network: values on its units, weights on its lines, and the path of one partial derivative.

The derivative of the error by a weight depends on everything between the two: the weight's line, the unit that it
enters, and every way from there to the error. The picture highlights all of it. Of a layer with many units it shows the
most active ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.learn.trace.drawing import Box, Drawing, Edge
from gpuprop.learn.trace.expressions import Expression, Product, Sum, Symbol, evaluate
from gpuprop.learn.trace.text import TextWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.learn.trace.record import TraceRecord

__all__ = ["diagram"]

#: Of a layer with more units than this, only the most active are drawn.
MAX_UNITS = 6
#: Lines between two layers have labels if there are at most this many.
MAX_LABELS = 12
#: A network with more layers than this is refused, because its picture would be wider than a screen.
MAX_LAYERS = 12

_ROW, _TOP, _GAP = 132.0, 104.0, 108.0

#: A weight by its place: the layer that it leads into, the unit that it leaves, the unit that it enters.
Place = tuple[int, int, int]


def diagram(trace: TraceRecord, weight: str | None = None, *, standalone: bool = True) -> str:
    """Return the picture of a traced sample as SVG.

    Parameters
    ----------
    trace : TraceRecord
        The `Trace` that `gpuprop.trace.trace` returned; the picture shows its numbers before the update.
    weight : str or None, default=None
        The weight whose derivative is explained, in the trace's notation: ``w5``, ``weights[1][0, 0]``,
        ``Theta^(2)_1,1``; in a network with many weights ``w(i7,h3)``. None takes the weight from the most active unit
        of the last hidden layer to the output with the largest error.
    standalone : bool, default=True
        Whether the picture is a file of its own, or a part of an HTML page.

    Raises
    ------
    ValueError
        If there is no such weight, or the network has more than `MAX_LAYERS` layers.
    """
    n_layers = len(trace.numbers.layers)
    if n_layers + 1 > MAX_LAYERS:
        raise ValueError(
            f"got a network of {n_layers + 1} layers, expected at most {MAX_LAYERS}: "
            "the picture would be wider than a screen"
        )
    return _Diagram(trace, weight).draw(standalone)


class _Diagram:
    """Draws one picture."""

    def __init__(self, trace: TraceRecord, weight: str | None) -> None:
        self._trace = trace
        self._symbols = trace.symbols
        self._writer = TextWriter(trace.dtype)
        self._sizes = [len(trace.numbers.inputs), *(len(layer.z) for layer in trace.numbers.layers)]
        self._top = len(self._sizes) - 1
        self._place = self._named(weight) if weight is not None else self._default_place()
        self._units = [self._shown(layer) for layer in range(self._top + 1)]
        self._height = _ROW * max(self._rows(layer) for layer in range(self._top + 1))
        # The gap between two columns has room for the longest label.
        longest = 6.4 * max(len(self._label(layer, i, j)) for layer, i, j in self._labelled())
        gap = max(_GAP, 12 + 1.15 * longest)
        self._column = 116 + gap
        # A label stands near the start of its line, before lines cross, and as far from the middle as it fits.
        self._label_at = max(0.3, (longest / 2 + 5) / gap)

    # --- what is shown -------------------------------------------------------------------------------------------

    def _activity(self, layer: int) -> NDArray[Any]:
        """Return how much each unit matters: the size of its output, for an output unit the size of its error."""
        numbers = self._trace.numbers
        outputs = [numbers.inputs, *(hidden.activations for hidden in numbers.layers[:-1]), numbers.errors]
        return np.asarray(np.abs(outputs[layer]))

    def _default_place(self) -> Place:
        below, above = (int(np.argmax(self._activity(layer))) for layer in (self._top - 1, self._top))
        return self._top, below, above

    def _named(self, name: str) -> Place:
        wanted = name.replace(" ", "")
        for layer in range(1, self._top + 1):
            for i in range(self._sizes[layer - 1]):
                for j in range(self._sizes[layer]):
                    if self._writer.write(self._symbols.weight(layer, i, j)).replace(" ", "") == wanted:
                        return layer, i, j
        example = self._writer.write(self._symbols.weight(*self._default_place()))
        raise ValueError(f"weight: got {name!r}, expected one as this notation writes it, such as {example}")

    def _shown(self, layer: int) -> list[int]:
        """Return the units of a layer to draw: all, or the most active and the one that the weight leaves or enters."""
        size = self._sizes[layer]
        if size <= MAX_UNITS:
            return list(range(size))
        into, i, j = self._place
        chosen = {i} if layer == into - 1 else {j} if layer == into else set()
        for unit in np.argsort(-self._activity(layer), kind="stable"):
            if len(chosen) == MAX_UNITS - 1:  # the last row says how many are left out
                break
            chosen.add(int(unit))
        return sorted(chosen)

    def _rows(self, layer: int) -> int:
        """Return the number of a layer's rows, with one for the note that says how many units are left out."""
        return len(self._units[layer]) + (len(self._units[layer]) < self._sizes[layer])

    def _labelled(self) -> set[Place]:
        """Return the weights with a label: all of them between layers with few lines, else only the explained one."""
        places = {self._place}
        for layer in range(1, self._top + 1):
            below, above = self._units[layer - 1], self._units[layer]
            if len(below) * len(above) <= MAX_LABELS:
                places |= {(layer, i, j) for i in below for j in above}
        return places

    def _label(self, layer: int, i: int, j: int) -> str:
        weight = self._symbols.weight(layer, i, j)
        return f"{self._writer.write(weight)} = {_short(weight.value)}"

    def _marked(self, layer: int, unit: int) -> bool:
        """Return whether a unit lies between the weight and the error."""
        into, i, j = self._place
        return unit == i if layer == into - 1 else unit == j if layer == into else layer > into

    # --- drawing -------------------------------------------------------------------------------------------------

    def draw(self, standalone: bool) -> str:
        drawing = Drawing()
        boxes = [
            {unit: Box(*self._at(layer, row), self._lines(layer, unit)) for row, unit in enumerate(units)}
            for layer, units in enumerate(self._units)
        ]
        for layer in range(1, self._top + 1):
            self._edges(drawing, layer, boxes)
        for layer, column in enumerate(boxes):
            for unit, box in column.items():
                drawing.box(box, marked=self._marked(layer, unit))
            left_out = self._sizes[layer] - len(column)
            if left_out:
                x, y = self._at(layer, len(column))
                drawing.note(x, y - 44, f"and {left_out:,} more", centred=True)
        self._errors(drawing, boxes[-1])
        bottom = _TOP - _ROW / 2 + self._height + 24
        for index, line in enumerate(self._explanation()):
            drawing.note(24, bottom + 22 * index, line, soft=False)
        drawing.note(24, 24, self._trace.title)
        return drawing.svg(self._column * (self._top + 1) + 320, bottom + 64, self._trace.title, standalone=standalone)

    def _at(self, layer: int, row: int) -> tuple[float, float]:
        return 82 + self._column * layer, _TOP + (self._height - _ROW * self._rows(layer)) / 2 + _ROW * row

    def _lines(self, layer: int, unit: int) -> tuple[str, ...]:
        q = self._symbols
        if layer == 0:
            return q.unit(0, unit), _short(q.out(0, unit).value)
        _, out, net, *_ = q.GENERAL
        return (
            q.unit(layer, unit),
            f"{q.BIAS} {_short(q.bias(layer, unit).value)}",
            f"{net} {_short(q.net(layer, unit).value)}",
            f"{out} {_short(q.out(layer, unit).value)}",
            f"δ {_short(q.delta(layer, unit).value)}",
        )

    def _edges(self, drawing: Drawing, layer: int, boxes: list[dict[int, Box]]) -> None:
        below, above = boxes[layer - 1], boxes[layer]
        values = self._trace.numbers.layers[layer - 1].weights
        largest = max(1e-30, max(abs(float(values[i, j])) for i in below for j in above))
        labelled, few = self._labelled(), len(below) * len(above) <= MAX_LABELS
        for i, start in below.items():
            for j, end in above.items():
                weight = self._symbols.weight(layer, i, j)
                this = (layer, i, j) == self._place
                further = layer > self._place[0] and self._marked(layer - 1, i)
                line = Edge(
                    start.right,
                    end.left,
                    label=self._label(layer, i, j) if (layer, i, j) in labelled else "",
                    label_at=self._label_at if few else 0.5,
                    sign=weight.value,
                    width=0.8 + 3.2 * abs(weight.value) / largest,
                )
                drawing.edge(line, marked=this or further)

    def _errors(self, drawing: Drawing, outputs: dict[int, Box]) -> None:
        """Draw each output's target and share of the error, and the sum of the shares."""
        q = self._symbols
        total = Box(
            82 + self._column * (self._top + 1) + 166,
            _TOP + (self._height - _ROW) / 2,
            (self._writer.write(q.error), _short(q.error.value)),
            96,
        )
        for k, output in outputs.items():
            marked = self._marked(self._top, k)
            lines = (self._writer.write(q.output_error(k)), _short(q.output_error(k).value))
            share = Box(output.x + self._column, output.y, (*lines, f"{q.GENERAL[5]} {_short(q.target(k).value)}"))
            drawing.edge(Edge(output.right, share.left), marked=marked)
            drawing.edge(Edge(share.right, total.left), marked=marked)
            drawing.box(share, marked=marked)
        drawing.box(total, marked=True)

    def _explanation(self) -> list[str]:
        """Return the derivative as a product along the path, in symbols and in numbers."""
        layer, i, j = self._place
        q, write = self._symbols, self._writer.write
        result = q.error_by_weight(layer, i, j)
        factors: tuple[Expression, ...] = (q.delta(layer, j), q.net_by_weight(layer, i, j))
        if self._trace.numbers.layers[layer - 1].derivative is not None:
            factors = (q.error_by_out(layer, j), q.out_by_net(layer, j), q.net_by_weight(layer, i, j))
        formula: Expression = Product(factors)
        rest = result.value - evaluate(formula)
        if abs(rest) > 1e-4 * abs(result.value):  # the share of the penalties
            formula = Sum((formula, Symbol("decay", "", rest)))
        numbers = f"{write(formula, numbers=True)} = {self._writer.number(result.value)}"
        return [f"{write(result)} = {write(formula)}", f"= {numbers}"]


def _short(value: float) -> str:
    return f"{value + 0.0:.4g}"  # + 0.0: no negative zero
