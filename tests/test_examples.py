"""Every example runs, in a short form, does what it says, and saves its picture. The lessons: test_lessons.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.example_tools import EXAMPLES, load_example


@pytest.mark.parametrize(
    ("name", "options", "accuracy"),
    [
        ("xor", {}, 1.0),
        ("digits", {"epochs": 8}, 0.9),
        ("mnist", {"epochs": 1, "rows": 10000}, 0.85),
        ("mnist_best", {"recipe": "dropout", "epochs": 1, "rows": 1000}, 0.2),
        ("mnist_best", {"recipe": "deformations", "epochs": 1, "rows": 1000}, 0.2),
    ],
)
def test_example(name: str, options: dict[str, Any], accuracy: float, tmp_path: Path) -> None:
    picture = tmp_path / f"{name}.png"
    assert load_example(name).main(**options, out=str(picture)) >= accuracy
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_every_example_is_tested() -> None:
    tested = {"xor", "digits", "mnist", "mnist_best", "worked_example"}  # the last one in test_examples_worked.py
    lessons = {path.stem for path in EXAMPLES.glob("lesson_*.py")}  # in test_lessons.py
    assert {path.stem for path in EXAMPLES.glob("*.py")} - lessons == tested
