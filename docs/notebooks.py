"""The lessons as notebooks, and the lines of each program that matter; both are taken from page and program.

A notebook has the text of the page, with its hints and solutions folded, the program without its command line, and a
call of its `main`. The site offers them for download, and `tests/test_lesson_notebooks.py` runs them with the small
sizes of `SMALL`. A lesson that is added to `docs/lessons` and `examples` needs nothing here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["LINES", "SMALL", "lines_that_matter", "notebook", "program_of", "with_lines"]

DOCS = Path(__file__).resolve().parent
EXAMPLES = DOCS.parent / "examples"
_PROGRAM = re.compile(r"^    python examples/(lesson_\w+)\.py$", re.M)
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]*\)")
#: Each has one group, so that a split keeps what lies between: a block of code, of Python, and what unfolds.
_BLOCK = re.compile(r"(^```.*?^```$)", re.M | re.S)
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
_FOLDED = re.compile(r"(^<details>.*?^</details>$)", re.M | re.S)

#: What makes a cell of its number and its text, and the text.
Cell = tuple[Callable[[int, str], dict[str, Any]], str]

#: The function or the constant of a program that stands on its page; of others it is the first function that is short.
LINES = {
    "lesson_by_hand": "backward",
    "lesson_algorithm": "lecture",
    "lesson_convergence": "FACTORS",
    "lesson_gradients": "backpropagate",
    "lesson_symmetry": "BEGINNINGS",
    "lesson_tensor_cores": "multiply",
    "lesson_xor": "descend",
    "lesson_kernel": "accumulate",
}
_MOST_LINES = 20

#: Sizes with which a notebook runs in the time of a test; those of a reader are the defaults of `main`.
SMALL = {
    "lesson_activations": "size=1000, repeats=1",
    "lesson_algorithm": "rows=120, updates=5",
    "lesson_by_hand": "",
    "lesson_digits": "epochs=1, splits=1",
    "lesson_gradients": "steps_per_decade=2",
    "lesson_notations": "",
    "lesson_optimizers": "steps=20, epochs=1",
    "lesson_softmax": "",
    "lesson_symmetry": "epochs=20, rows=64",
    "lesson_tensor_cores": "",
    "lesson_xor": "seeds=2, updates=500, longer=1",
}


def program_of(text: str) -> str | None:
    """Return the name of the program of a lesson's page: ``lesson_xor``."""
    found = _PROGRAM.search(text)
    return found[1] if found else None


def lines_that_matter(program: str) -> str:
    """Return the source of the function or constant that a page shows; empty if the program has none that is short."""
    source = (EXAMPLES / f"{program}.py").read_text(encoding="utf-8")
    wanted = LINES.get(program)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AnnAssign):
            continue
        name = _name_of(node)
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        short = length <= _MOST_LINES and not name.startswith("_") and name not in ("main", "draw")
        if name == wanted or (wanted is None and short and isinstance(node, ast.FunctionDef)):
            lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
            return "\n".join(line[node.col_offset :] for line in lines)
    return ""


def _name_of(node: ast.FunctionDef | ast.AnnAssign) -> str:
    """Return the name that a definition defines; empty for an assignment to a part of something."""
    if isinstance(node, ast.FunctionDef):
        return node.name
    return node.target.id if isinstance(node.target, ast.Name) else ""


def with_lines(text: str) -> str:
    """Return a lesson's page with the lines that matter before its exercises."""
    program = program_of(text)
    code = "" if program is None else lines_that_matter(program)
    if not code:
        return text
    part = f"## The lines that matter\n\nFrom `examples/{program}.py`:\n\n```python\n{code}\n```\n\n"
    return text.replace("## Exercises\n", f"{part}## Exercises\n", 1)


def notebook(page: Path) -> dict[str, Any]:
    """Return the notebook of a lesson: its text, the program in its place, and a call of `main`.

    The lines that matter stand before the exercises, as on the site. A page without a program has its Python in cells.
    """
    source_of_page = page.read_text(encoding="utf-8")
    text = re.sub(r"^!\[[^\]]*\]\([^)]*\)\n+", "", source_of_page, flags=re.M)  # the pictures are drawn anew
    first, *rest = re.split(r"^(?=## )", _without_links(with_lines(text)), flags=re.M)
    program = program_of(source_of_page)
    if program is None:
        return _notebook([cell for part in (first, *rest) for cell in _cells_of(part)])
    source = (EXAMPLES / f"{program}.py").read_text(encoding="utf-8")
    code = source.partition('\nif __name__ == "__main__":')[0]
    call = f'found = main(out="{program}.png")'
    codes = [(_code, code), (_code, call), (_code, _SHOW.format(program))]
    return _notebook([(_text, first), *codes, *((_text, part) for part in rest)])


def _without_links(text: str) -> str:
    """Return a page whose links into the repository, from which a notebook is taken away, are their words only."""
    return _outside(_BLOCK, text, lambda prose: _LINK.sub(r"\1", prose))


def _outside(block: re.Pattern[str], text: str, change: Callable[[str], str]) -> str:
    """Change the text between the blocks, and keep the blocks."""
    parts = block.split(text)
    return "".join(part if number % 2 else change(part) for number, part in enumerate(parts))


def _cells_of(text: str) -> list[Cell]:
    """Return a part of a page as cells, its Python as code; what is folded stays text."""
    cells: list[Cell] = []
    for number, part in enumerate(_FOLDED.split(text)):
        for place, piece in enumerate([part] if number % 2 else _PYTHON.split(part)):
            if piece.strip():
                cells.append((_code if place % 2 else _text, piece))
    return cells


def _notebook(cells: list[Cell]) -> dict[str, Any]:
    return {
        "cells": [make(number, text) for number, (make, text) in enumerate(cells)],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


_SHOW = 'from IPython.display import Image\n\nImage("{}.png")'


def _text(number: int, text: str) -> dict[str, Any]:
    return {"id": f"cell-{number}", "cell_type": "markdown", "metadata": {}, "source": _lines(text)}


def _code(number: int, text: str) -> dict[str, Any]:
    lines = _lines(text)
    return {"id": f"cell-{number}", "cell_type": "code", "metadata": {}, "source": lines, "outputs": [],
            "execution_count": None}  # fmt: skip


def _lines(text: str) -> list[str]:
    return text.strip().splitlines(keepends=True)
