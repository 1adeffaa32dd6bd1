"""Tables on a terminal: with rules where they fit, never with figures or names cut up."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

import pytest
from rich.control import Control

from gpuprop.cli import console

ORDERS = "\x1b[31mred\x1b]0;title\x07 \x9b2J\rgone\x08\x7f \u202eevil\u2028"
SHOWN = r"\x1b[31mred\x1b]0;title\x07 \x9b2J\rgone\x08\x7f \u202eevil\u2028"


class Screen(io.StringIO):
    """What a terminal gets."""

    def isatty(self) -> bool:
        return True


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


def test_orders_to_a_terminal_are_shown_and_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "300")
    with console.safe_streams():
        print(f"a line: {ORDERS}\tand a tab")
        console.print_notes([ORDERS])
        console.print_table(("name", ORDERS), [[ORDERS, "1"]])
        terminal = console.terminal()
        terminal.print(f"[bold]{ORDERS}[/bold]")
        terminal.control(Control.home())
    text = screen.getvalue()
    assert text.count(SHOWN) == 4  # of a text of its own, rich leaves some out
    assert "a line: " + SHOWN + "\tand a tab\n" in text
    assert "\x1b[1m" in text  # rich's own orders reach the terminal: bold, and
    assert "\x1b[H" in text  # the cursor's place
    assert not any(order in text for order in ("\x1b[31m", "\x1b]0", "\x07", "\x9b", "\r", "\x08", "\x7f", "\u202e"))
