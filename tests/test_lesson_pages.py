"""The pages of docs/ fit the programs, pictures and sources beside them; so this runs in the checkout only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.example_tools import EXAMPLES

ROOT = EXAMPLES.parent
PAGES = sorted((ROOT / "docs" / "lessons").glob("[0-9]*.md"))


def test_every_lesson_has_a_page() -> None:
    lessons = {path.stem.removeprefix("lesson_") for path in EXAMPLES.glob("lesson_*.py")}
    on_pages = {
        name for page in PAGES for name in re.findall(r"^    python examples/lesson_(\w+)\.py$", page.read_text(), re.M)
    }
    assert on_pages == lessons


def test_the_index_lists_every_page() -> None:
    text = (ROOT / "docs" / "lessons" / "README.md").read_text()
    assert re.findall(r"\]\((\d\d-[\w-]+\.md)\)", text) == [page.name for page in PAGES]
    assert re.findall(r"`lesson_(\w+)\.py`", text) == [
        name for page in PAGES for name in re.findall(r"^    python examples/lesson_(\w+)\.py$", page.read_text(), re.M)
    ]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path) -> None:
    text = page.read_text()
    assert "\n## In the library\n" in text
    for picture in re.findall(r"\((images/[^)]+)\)", text):
        assert (page.parent / picture).stat().st_size < 150_000
    places = re.findall(r"\[`(\w+)`\]\((\S+\.py)\)", text)
    assert places
    for name, file in places:
        assert re.search(rf"^\s*(def|class) {name}\b", (page.parent / file).read_text(), re.M), (name, file)
