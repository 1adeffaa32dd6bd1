"""examples/worked_example.py runs, in a short form, computes what it should, and saves its picture."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.references.worked_example import descend

EXAMPLE = Path(__file__).parent.parent / "examples" / "worked_example.py"


def test_worked_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "worked_example.png"
    error = runpy.run_path(str(EXAMPLE))["main"](rounds=100, out=str(picture))
    assert error == pytest.approx(descend("original", 100)[0], rel=1e-12)
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = capsys.readouterr().out
    assert f"{descend('updated', 100)[0]:.8e} with already updated weights" in text
    assert "gradient check, original weights: passed" in text
    assert "gradient check, updated weights: FAILED" in text
