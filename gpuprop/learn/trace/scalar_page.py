"""A `Computation` as plain text, as a picture of its graph, and as an HTML page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from gpuprop.learn.trace.drawing import Box, Drawing, Edge
from gpuprop.learn.trace.page import document

if TYPE_CHECKING:
    from gpuprop.learn.trace.computation import Computation, Node

__all__ = ["page", "picture", "text"]

_COLUMN, _ROW = 210.0, 92.0


def _number(value: float) -> str:
    return f"{value + 0.0:.10g}"


def _forward(trace: Computation) -> list[str]:
    lines = []
    for node in trace.results:
        numbers = _substituted(node)
        lines.append(f"{node.name} = {node.formula} = {numbers} = {_number(node.value)}")
    return lines


def _enclosed(value: float) -> str:
    """Write a number as the right operand of an operator: a negative one in parentheses."""
    text = _number(value)
    return f"({text})" if text.startswith("-") else text


def _substituted(node: Node) -> str:
    """Write the formula of a node with the values of its inputs."""
    values = [part.value for part in node.inputs]
    if node.operation == "neg":
        return f"-{_enclosed(values[0])}"
    if node.operation.isalpha():
        return f"{node.operation}({', '.join(map(_number, values))})"
    return f"{_number(values[0])} {node.operation} {_enclosed(values[1])}"


def _local(trace: Computation) -> list[str]:
    return [
        f"d{node.name}/d{part.name} = {_number(local)}"
        for node in trace.results
        for part, local in zip(node.inputs, node.local, strict=True)
        if not part.constant
    ]


def _backward(trace: Computation) -> list[str]:
    """Write one line for each value, from the result back: a sum over the places that use the value."""
    lines = ["df/df = 1"]
    for node in reversed([*trace.variables, *trace.results[:-1]]):
        uses = [
            (user, local)
            for user in trace.results
            for part, local in zip(user.inputs, user.local, strict=True)
            if part is node
        ]
        symbols = " + ".join(f"df/d{user.name} * d{user.name}/d{node.name}" for user, _ in uses)
        numbers = " + ".join(f"{_number(user.gradient)} * {_enclosed(local)}" for user, local in uses)
        lines.append(f"df/d{node.name} = {symbols} = {numbers} = {_number(node.gradient)}")
    return lines


def text(trace: Computation) -> str:
    """Return the trace as plain text."""
    given = ", ".join(f"{node.name} = {_number(node.value)}" for node in trace.variables)
    parts = [
        (f"f = {trace.formula} at {given}", []),
        ("1. Forward: operation by operation", _forward(trace)),
        ("2. Local gradients: what each operation knows by itself", _local(trace)),
        ("3. Backward: what arrives from above, times the local gradient", _backward(trace)),
    ]
    return "\n".join("\n".join([title, *(f"   {line}" for line in lines), ""]) for title, lines in parts).rstrip()


def picture(trace: Computation, *, standalone: bool = True) -> str:
    """Return the graph as SVG: each box shows a value and the derivative of f by it, each line a local gradient."""
    places = _places(trace)
    boxes = {
        id(node): Box(90 + _COLUMN * column, 100 + _ROW * row, _lines(node), 132)
        for node, (column, row) in zip(_drawn(trace), places, strict=True)
    }
    drawing = Drawing()
    for node in trace.results:
        for part, local in zip(node.inputs, node.local, strict=True):
            if not part.constant:
                drawing.edge(Edge(boxes[id(part)].right, boxes[id(node)].left, label=f"{local + 0.0:.4g}"))
    for box in boxes.values():
        drawing.box(box)
    drawing.note(24, 28, f"f = {trace.formula}: values in the boxes, local gradients on the lines")
    columns, rows = (max(place[axis] for place in places) for axis in (0, 1))
    return drawing.svg(
        max(_COLUMN * columns + 180, 440), 160 + _ROW * rows, f"The graph of {trace.formula}", standalone=standalone
    )


def _lines(node: Node) -> tuple[str, ...]:
    name = f"{node.name} = {node.formula}" if node.operation else node.name
    return name, f"{node.value + 0.0:.5g}", f"df/d{node.name} = {node.gradient + 0.0:.4g}"


def _drawn(trace: Computation) -> list[Node]:
    """Return the nodes that get a box: a number of the formula is shown in the boxes of the nodes that use it."""
    return [node for node in trace.nodes if not node.constant]


def _places(trace: Computation) -> list[tuple[int, float]]:
    """Return column and row of each drawn node: variables beside their first user, results between their inputs."""
    column: dict[int, int] = {}
    row: dict[int, float] = {}
    for node in trace.results:
        column[id(node)] = 1 + max((column.get(id(part), 0) for part in node.inputs), default=0)
    for node in trace.variables:
        row[id(node)] = len(row)
        column[id(node)] = min(column[id(user)] for user in trace.results if node in user.inputs) - 1
    taken: dict[int, list[float]] = {}
    for node in trace.variables:
        taken.setdefault(column[id(node)], []).append(row[id(node)])
    for node in trace.results:
        inputs = [row[id(part)] for part in node.inputs if not part.constant]
        wanted = sum(inputs) / len(inputs) if inputs else float(len(row))
        others = taken.setdefault(column[id(node)], [])
        while any(abs(wanted - other) < 1 for other in others):
            wanted += 0.5
        others.append(wanted)
        row[id(node)] = wanted
    return [(column[id(node)], row[id(node)]) for node in _drawn(trace)]


def page(trace: Computation) -> str:
    """Return the trace as one HTML document."""

    def section(title: str, lines: list[str]) -> str:
        terms = "".join(f'<div class="term"><span>{escape(line)}</span></div>' for line in lines)
        return f'<section>\n<h2>{title}</h2>\n<div class="card">{terms}</div>\n</section>'

    given = [f"{node.name} = {_number(node.value)}" for node in trace.variables]
    return document(
        "A computation by hand",
        [
            "<h1>A computation by hand</h1>",
            f"<p>f = {escape(trace.formula)} at {escape(', '.join(given))}</p>",
            f'<div class="picture small">{picture(trace, standalone=False)}</div>',
            section("1. Forward: operation by operation", _forward(trace)),
            section("2. Local gradients: what each operation knows by itself", _local(trace)),
            section("3. Backward: what arrives from above, times the local gradient", _backward(trace)),
        ],
    )
