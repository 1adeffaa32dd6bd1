"""The page docs/instruments.md: its programs run, from top to bottom, and what it names exists."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

import gpuprop

PAGE = (Path(__file__).parent.parent / "docs" / "instruments.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_programs_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUPROP_DEVICE", "numpy")
    space: dict[str, object] = {}
    assert len(BLOCKS) >= 5
    for block in BLOCKS:
        exec(compile(block, "docs/instruments.md", "exec"), space)
    assert "4/4" in capsys.readouterr().out


def test_every_callback_that_ships_is_on_the_page() -> None:
    named = set(re.findall(r"^\| `(\w+)\(", PAGE, flags=re.MULTILINE))
    shipped = set(gpuprop.callbacks.__all__) - {"Callback"}
    assert shipped <= named


@pytest.mark.parametrize(
    "module",
    [
        "cli.run_list", "datasets.augmented", "datasets.deformations", "estimators.base", "estimators.trust",
        "learn.report.charts", "measure.bench.speedrun", "model.explanations", "model.views", "training.calibration",
        "training.callbacks.base", "training.callbacks.csv_file", "training.callbacks.kept_models",
        "training.callbacks.progress", "training.profiling", "training.rate_finder",
    ],
)  # fmt: skip
def test_the_examples_of_the_docstrings_run(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUPROP_DEVICE", "numpy")
    result = doctest.testmod(importlib.import_module(f"gpuprop.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
