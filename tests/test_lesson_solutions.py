"""Every exercise of the lessons has a hint and a solution that unfold, and the solutions' numbers are right.

A solution's Python runs here, in the folder of examples as the lessons tell their readers, and must print the block of
text below it. What would take minutes, or depends on the machine, says so in a comment: ``<!-- not run: ... -->``.
"""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from tests.example_tools import EXAMPLES
from tests.test_lesson_notebooks import cells
from tests.test_lesson_pages import PAGES

_EXERCISE = re.compile(
    r"^(\d+)\. [^<]+?\n\n<details><summary>Hint</summary>\n\n(.*?)\n\n</details>\n"
    r"<details><summary>Solution</summary>\n\n(.*?)\n\n</details>$",
    re.M | re.S,
)
_FOLDED = re.compile(r"^<details>.*?^</details>$", re.M | re.S)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\w)")
_DECIMAL = re.compile(r"(?<![\d.])\d*\.\d+")


@dataclass(frozen=True)
class Exercise:
    """One exercise of a page, as the page has it."""

    page: str
    number: int
    hint: str
    solution: str

    @property
    def programs(self) -> list[tuple[str, str]]:
        """Each block of Python with the text that it prints, which stands below it."""
        return re.findall(r"^```python\n(.*?)^```\n\n```text\n(.*?)^```", self.solution + "\n", re.M | re.S)

    @property
    def reason(self) -> str:
        """Why no test runs the solution; empty if one does."""
        found = re.search(r"^<!-- not run: (.+) -->$", self.solution, re.M)
        return found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"


def section(page: Path) -> str:
    """Return the part of a page that has the exercises."""
    return page.read_text().partition("## Exercises\n")[2].partition("\n## ")[0]


def exercises(page: Path) -> list[Exercise]:
    return [Exercise(page.stem, int(number), *folded) for number, *folded in _EXERCISE.findall(section(page))]


ALL = [exercise for page in PAGES for exercise in exercises(page)]
RUN = [exercise for exercise in ALL if exercise.programs and not exercise.reason]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_exercise_has_a_hint_and_a_solution(page: Path) -> None:
    found = exercises(page)
    assert len(found) >= 3
    listed = re.findall(r"^(\d+)\. ", _FOLDED.sub("", section(page)), re.M)
    assert [exercise.number for exercise in found] == list(map(int, listed)) == list(range(1, len(found) + 1))
    for exercise in found:
        assert len(re.findall(r"[.?!](?=\s|$)", exercise.hint)) in (1, 2), exercise
        assert len(exercise.solution.split()) > 15, exercise


@pytest.mark.parametrize("exercise", ALL, ids=str)
def test_what_is_not_run_says_why(exercise: Exercise) -> None:
    """Python without its output is only in solutions that name a reason; it is Python all the same."""
    blocks = re.findall(r"^```python\n(.*?)^```", exercise.solution, re.M | re.S)
    assert len(exercise.programs) == len(blocks) or exercise.reason
    for block in blocks:
        compile(block, str(exercise), "exec")


def close(printed: str, stated: str) -> bool:
    """Whether a number is the stated one: whole numbers below 100 exactly, others but for their last digit.

    A training ends a little elsewhere where sums are rounded in another order: numbers of one or two decimals may
    differ by two units of the last one, and whole numbers above 100, which are counts, by a fiftieth.
    """
    mantissa, _, exponent = stated.partition("e")
    decimals = len(mantissa.partition(".")[2])
    difference = abs(float(printed) - float(stated))
    if not decimals and not exponent:
        return difference <= (abs(float(stated)) / 50 if abs(float(stated)) > 100 else 0)
    unit = 10.0 ** (int(exponent or 0) - decimals)
    return difference <= (2.001 if decimals <= 2 else 1.001) * unit


@pytest.mark.parametrize("exercise", RUN, ids=str)
def test_the_solution_prints_what_it_states(
    exercise: Exercise, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)  # "the solutions run in the folder examples"
    monkeypatch.chdir(tmp_path)
    for code, stated in exercise.programs:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(exercise), "exec", dont_inherit=True), vars(ModuleType("solution")))
        words = _NUMBER.sub("#", printed.getvalue()).split()
        assert words == _NUMBER.sub("#", stated).split()
        for one, other in zip(_NUMBER.findall(printed.getvalue()), _NUMBER.findall(stated), strict=True):
            assert close(one, other), f"prints {one}, states {other}"


@pytest.mark.parametrize("exercise", RUN, ids=str)
def test_the_text_states_no_other_numbers(exercise: Exercise) -> None:
    """A decimal in a solution's sentences is one that its program has or prints, or that the lesson above it has."""
    page = next(page for page in PAGES if page.stem == exercise.page)
    known = page.read_text().partition("## Exercises\n")[0]
    known += "".join(code + stated for code, stated in exercise.programs)
    text = re.sub(r"^```.*?^```", "", exercise.solution, flags=re.M | re.S)
    assert [number for number in _DECIMAL.findall(text) if number not in known] == []


def test_most_solutions_are_run() -> None:
    assert len([exercise for exercise in ALL if exercise.reason]) <= 10
    assert len(RUN) >= 35


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_they_unfold_in_the_notebook_too(page: Path) -> None:
    text = "\n".join(cells(page, "markdown"))
    assert text.count("<details>") == text.count("</details>") == 2 * len(exercises(page))
    for exercise in exercises(page):
        for code, _ in exercise.programs:
            assert code in text
