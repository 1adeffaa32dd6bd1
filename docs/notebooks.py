"""The lessons as notebooks, and the lines of each program that matter; both are taken from page and program.

A notebook has the text of the page, the program without its command line, and a call of its `main`. The site offers
them for download, and `tests/test_lesson_notebooks.py` runs them with the small sizes of `SMALL`. A lesson that is
added to `docs/lessons` and `examples` needs nothing here.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

__all__ = ["LINES", "SMALL", "lines_that_matter", "notebook", "program_of", "with_lines"]

DOCS = Path(__file__).resolve().parent
EXAMPLES = DOCS.parent / "examples"
_PROGRAM = re.compile(r"^    python examples/(lesson_\w+)\.py$", re.M)

#: The function of a program that stands on its page; of others it is the first that is short.
LINES = {
    "lesson_by_hand": "backward",
    "lesson_algorithm": "lecture",
    "lesson_gradients": "backpropagate",
    "lesson_xor": "descend",
    "lesson_kernel": "accumulate",
}
_MOST_LINES = 20

#: Sizes with which a notebook runs in the time of a test; those of a reader are the defaults of `main`.
SMALL = {
    "lesson_activations": "size=1000, repeats=1",
    "lesson_algorithm": "rows=120, updates=5",
    "lesson_by_hand": "",
    "lesson_gradients": "steps_per_decade=2",
    "lesson_notations": "",
    "lesson_softmax": "",
    "lesson_symmetry": "epochs=20, rows=64",
    "lesson_xor": "seeds=2, updates=500, longer=1",
}


def program_of(text: str) -> str | None:
    """Return the name of the program of a lesson's page: ``lesson_xor``."""
    found = _PROGRAM.search(text)
    return found[1] if found else None


def lines_that_matter(program: str) -> str:
    """Return the source of the function that a page shows; empty if the program has none that is short."""
    source = (EXAMPLES / f"{program}.py").read_text(encoding="utf-8")
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for node in functions:
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        wanted = LINES.get(program)
        short = length <= _MOST_LINES and not node.name.startswith("_") and node.name not in ("main", "draw")
        if node.name == wanted or (wanted is None and short):
            lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
            return "\n".join(line[node.col_offset :] for line in lines)
    return ""


def with_lines(text: str) -> str:
    """Return a lesson's page with the lines that matter before its exercises."""
    program = program_of(text)
    code = "" if program is None else lines_that_matter(program)
    if not code:
        return text
    part = f"## The lines that matter\n\nFrom `examples/{program}.py`:\n\n```python\n{code}\n```\n\n"
    return text.replace("## Exercises\n", f"{part}## Exercises\n", 1)


def notebook(page: Path) -> dict[str, Any]:
    """Return the notebook of a lesson: its text, the program in its place, and a call of `main`."""
    text = re.sub(r"^!\[[^\]]*\]\([^)]*\)\n+", "", page.read_text(encoding="utf-8"), flags=re.M)  # they are drawn anew
    text = re.sub(r"\]\((?!https?:)[^)]*\)", "]", text).replace("\\[", "[")  # links lead out of a notebook
    text = re.sub(r"\[([^\]\n]+)\](?!\()", r"\1", text)
    program = program_of(page.read_text(encoding="utf-8"))
    first, *rest = re.split(r"^(?=## )", text, flags=re.M)
    cells = [_text(0, first)]
    if program is not None:
        source = (EXAMPLES / f"{program}.py").read_text(encoding="utf-8")
        code = source.partition('\nif __name__ == "__main__":')[0]
        cells += [_code(1, code), _code(2, f'found = main(out="{program}.png")'), _code(3, _SHOW.format(program))]
    for number, part in enumerate(rest, start=len(cells)):
        cells.append(_text(number, part))
    return {
        "cells": cells,
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
