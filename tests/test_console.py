"""Tables on a terminal: with rules where they fit, never with figures or names cut up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gpuprop.cli import console


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns, as the commands of a notebook have."""
    monkeypatch.setattr(console, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")


def shown(capsys: pytest.CaptureFixture[str], headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    console.print_table(headers, rows, right=range(1, len(headers) - 1))
    return capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("columns")
def test_text_is_folded_and_figures_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, ("step", "share of bound", "why"), [["forward", "0.0123456789", "word " * 30]])
    assert "─" in lines[1]
    assert "forward" in lines[2]
    assert "0.0123456789" in lines[2]
    assert sum(line.count("word") for line in lines) == 30
    assert max(map(len, lines)) <= 80


@pytest.mark.usefixtures("columns")
def test_a_table_that_is_too_wide_keeps_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"microseconds {i}" for i in range(9)]
    lines = shown(capsys, names, [[f"{i}.25" for i in range(9)]] * 2)
    assert [line.split() for line in lines[1:]] == [[f"{i}.25" for i in range(9)]] * 2
    assert all(name in lines[0] for name in names)
