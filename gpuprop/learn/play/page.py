"""The page itself: `play.html` with the problems and with the formulas that they need."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from gpuprop.learn.play.javascript import activation_code, loss_code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuprop.learn.play.problems import Problem

__all__ = ["render"]

_PAGE = Path(__file__).with_name("play.html")


def render(problems: Sequence[Problem], title: str = "Backpropagation to play with") -> str:
    """Return a self-contained page that loads nothing: the first problem is shown, the others can be chosen.

    Parameters
    ----------
    problems : sequence of Problem
    title : str

    Raises
    ------
    ValueError
        If an activation or a loss has no formula in its record.

    Examples
    --------
    >>> from gpuprop.learn.play import render, worked_problem
    >>> "<svg" in render([worked_problem()])
    True
    """
    activations = {one.name: one for problem in problems for one in problem.network.layer_activations}
    losses = {one.name: one for problem in problems for one in [problem.network.loss_function]}
    lines = [
        "const ACTIVATIONS = {",
        *(f"  {json.dumps(name)}: {activation_code(one)}," for name, one in activations.items()),
        "};",
        "const LOSSES = {",
        *(f"  {json.dumps(name)}: {loss_code(one)}," for name, one in losses.items()),
        "};",
    ]
    data = json.dumps([problem.to_dict() for problem in problems]).replace("<", "\\u003c")
    parts = {"title": escape(title), "formulas": "\n".join(lines), "data": data}
    page = _PAGE.read_text(encoding="utf-8")
    for name, text in parts.items():
        page = page.replace("{{" + name + "}}", text)
    return page
