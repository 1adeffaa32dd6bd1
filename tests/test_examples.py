"""Every example runs, in a short form, does what it says, and saves its picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "options", "accuracy"),
    [("xor", {}, 1.0), ("digits", {"epochs": 8}, 0.9), ("mnist", {"epochs": 1, "rows": 10000}, 0.85)],
)
def test_example(name: str, options: dict[str, Any], accuracy: float, tmp_path: Path) -> None:
    picture = tmp_path / f"{name}.png"
    assert load(name).main(**options, out=str(picture)) >= accuracy
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_every_example_is_tested() -> None:
    tested = {"xor", "digits", "mnist", "worked_example"}  # the last one in test_examples_worked.py
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested
