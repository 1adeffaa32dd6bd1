"""A formula's way through backpropagation: values forwards, local gradients, and the chain rule backwards.

    print(gpuprop.trace.trace_scalar("(x + y) * z", x=-2, y=5, z=-4))

`computation` says what a formula may contain, and computes it; `scalar_page` writes and draws the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpuprop.learn.trace.computation import Computation, Node, compute
from gpuprop.learn.trace.scalar_page import page, picture, text

__all__ = ["Node", "ScalarTrace", "trace_scalar"]


@dataclass(frozen=True)
class ScalarTrace(Computation):
    """A formula computed forwards and differentiated backwards, as text, as JSON, as a page and as a picture.

    The attributes are those of `Computation`: ``formula``, ``nodes``, ``value``, ``gradients``, ``variables`` and
    ``results``.

    Examples
    --------
    >>> import gpuprop
    >>> found = gpuprop.trace.trace_scalar("w * x + b", w=2, x=3, b=1)
    >>> found.value, found.gradients["w"]
    (7.0, 3.0)
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the trace as JSON values."""
        return {
            "formula": self.formula,
            "value": self.value,
            "gradients": self.gradients,
            "nodes": [
                {
                    "name": node.name,
                    "formula": node.formula,
                    "value": node.value,
                    "local": {part.name: local for part, local in zip(node.inputs, node.local, strict=True)},
                    "gradient": node.gradient,
                }
                for node in self.nodes
            ],
        }

    def __str__(self) -> str:
        """Return the trace as plain text."""
        return text(self)

    def to_svg(self) -> str:
        """Return the graph as a picture, values above and gradients below."""
        return picture(self)

    def to_html(self) -> str:
        """Return a self-contained page: the graph, and every product of the chain rule."""
        return page(self)


def trace_scalar(formula: str = "(x + y) * z", **values: float) -> ScalarTrace:
    """Compute a formula value by value, and its derivative by each of its variables.

    Parameters
    ----------
    formula : str, default="(x + y) * z"
    **values : float
        The value of each variable. Without any, the default formula is computed at x = -2, y = 5, z = -4.

    Raises
    ------
    ValueError
        If `formula` is not a formula, a variable has no value, a value belongs to no variable, or a value or a
        derivative is not finite.

    Examples
    --------
    >>> import gpuprop
    >>> gpuprop.trace.trace_scalar("(x + y) * z", x=-2, y=5, z=-4).gradients
    {'x': -4.0, 'y': -4.0, 'z': 3.0}
    """
    if formula == "(x + y) * z" and not values:
        values = {"x": -2.0, "y": 5.0, "z": -4.0}
    found = compute(formula, values)
    return ScalarTrace(found.formula, found.nodes)
