"""Every lesson is a notebook too: it is one, its code runs, and it shows the lines that matter."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.example_tools import EXAMPLES
from tests.test_lesson_pages import PAGES, python_blocks, script

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
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
        assert "](" not in prose.replace("](http", "")  # no link into the repository, which a notebook has left


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


def test_the_notebook_without_a_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells are the Python of the page; what the solutions have stays folded."""
    monkeypatch.chdir(tmp_path)
    (page,) = (page for page in PAGES if NOTEBOOKS.program_of(page.read_text()) is None)
    names: dict[str, Any] = {}
    codes = cells(page, "code")
    assert codes == [block.rstrip() for block in python_blocks(page)]
    for code in codes:
        exec(compile(code, page.name, "exec", dont_inherit=True), names)
    assert names["after"][1] > 0.85


def test_the_notebook_of_the_kernel_runs(tmp_path: Path) -> None:
    """It runs in a process of its own, because Numba reads at its import whether to simulate a GPU."""
    page = next(page for page in PAGES if NOTEBOOKS.program_of(page.read_text()) == "lesson_kernel")
    definitions, call, _ = cells(page, "code")
    notebook = tmp_path / "notebook.py"
    notebook.write_text(f"{definitions}\n\n\n{call}\n", encoding="utf-8")
    subprocess.run([sys.executable, notebook.name], cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "lesson_kernel.png").stat().st_size > 1000


def test_every_notebook_is_run_or_says_why() -> None:
    programs = {NOTEBOOKS.program_of(page.read_text()) for page in PAGES} - {None}
    apart = {
        "lesson_convergence": "it trains thirty networks, which takes half a minute; test_lessons.py runs its program",
        "lesson_depth": "it builds a thousand networks; test_lessons.py runs its program",
        "lesson_kernel": "the test above runs it",
        "lesson_ladder": "it compiles for a GPU, which test_lessons.py does where the tools are installed",
    }
    assert programs == set(NOTEBOOKS.SMALL) | set(apart)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_keeps_what_stands_in_brackets(page: Path) -> None:
    """Only links lose their brackets: an index such as ``weights[0][20, 5]`` keeps them."""
    text = "\n".join(cells(page, "markdown") + cells(page, "code"))
    for block in re.findall(r"^```\w+\n(.*?)^```$", page.read_text(), re.M | re.S):
        assert block.strip() in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_shows_the_lines_that_matter(page: Path) -> None:
    program = NOTEBOOKS.program_of(page.read_text())
    code = "" if program is None else NOTEBOOKS.lines_that_matter(program)
    headings = [text.partition("\n")[0] for text in cells(page, "markdown")]
    assert ("## The lines that matter" in headings) == bool(code)
    assert any(f"```python\n{code}\n```" in text for text in cells(page, "markdown")) or not code


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
    assert '"zeros": "zeros"' in shown["lesson_symmetry"]
    assert '"learning rate": ("rate"' in shown["lesson_convergence"]
