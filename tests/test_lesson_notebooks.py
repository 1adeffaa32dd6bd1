"""Every lesson is a notebook too: it is one, its code runs, and it shows the lines that matter."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.example_tools import EXAMPLES
from tests.test_lesson_pages import PAGES, script

NOTEBOOKS = script("notebooks")


def cells(page: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOKS.notebook(page)["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_is_a_notebook(page: Path) -> None:
    made = NOTEBOOKS.notebook(page)
    assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in made["cells"]]
    assert len(set(ids)) == len(ids)
    for code in cells(page, "code"):
        compile(code, page.name, "exec")
    for text in cells(page, "markdown"):
        assert "](" not in text.replace("](http", "")  # no link into the repository, which a notebook has left


@pytest.mark.parametrize("program", sorted(NOTEBOOKS.SMALL))
def test_it_runs(program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells run in their order; sizes are those of a test, and the picture is drawn but not shown."""
    monkeypatch.chdir(tmp_path)
    page = next(page for page in PAGES if NOTEBOOKS.program_of(page.read_text()) == program)
    definitions, call, show = cells(page, "code")
    module = ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", module)
    exec(compile(definitions, program, "exec", dont_inherit=True), vars(module))
    sizes = NOTEBOOKS.SMALL[program]
    exec(compile(call.replace('.png")', f'.png", {sizes})'), program, "exec", dont_inherit=True), vars(module))
    assert vars(module)["found"]
    assert (tmp_path / f"{program}.png").stat().st_size > 1000
    assert f'Image("{program}.png")' in show


def test_pages_show_lines_of_their_programs() -> None:
    shown: dict[str, Any] = {}
    for page in PAGES:
        program = NOTEBOOKS.program_of(page.read_text())
        if program is None:
            continue
        code = NOTEBOOKS.lines_that_matter(program)
        source = (EXAMPLES / f"{program}.py").read_text()
        assert all(line.strip() in source for line in code.splitlines())
        shown[program] = code
        assert not code or code in NOTEBOOKS.with_lines(page.read_text())
    assert sum(bool(code) for code in shown.values()) >= len(shown) - 2
    assert "below.gradient += node.gradient * local" in shown["lesson_by_hand"]
