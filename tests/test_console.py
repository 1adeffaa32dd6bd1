"""Tables on a terminal: with rules where they fit, never with figures or names cut up."""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.control import Control

from gpuprop.cli import console, main
from gpuprop.cli import train as train_command
from gpuprop.training.callbacks.progress import LiveEpochTable

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


def test_a_terminal_gets_lines_that_break_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    screen = Screen()
    long = "  a sentence about the file /a/path/that/is/far/longer/than/all/sixty/columns/of/this/terminal.safetensors"
    for stream in (screen, io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stream)
        with console.safe_streams():
            print(long)
            print("--no-early-stopping " * 5)
            print("short")
        lines = stream.getvalue().splitlines()
        assert " ".join(stream.getvalue().split()) == " ".join(f"{long} {'--no-early-stopping ' * 5} short".split())
        if stream is screen:
            assert lines[:2] == ["  a sentence about the file", f"    {long.split()[-1]}"]
            assert all(len(line) <= 60 or len(line.split()) == 1 for line in lines)
            assert all(word == "--no-early-stopping" for line in lines[2:-1] for word in line.split())
        else:
            assert lines[0] == long


def test_help_at_60_columns_is_in_groups_and_breaks_no_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def words_of(columns: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        main(["train", "--help"])
        page = capsys.readouterr().out
        assert all(len(line) <= columns for line in page.splitlines())
        return [word for word in page.split() if word != "\\"]

    words = words_of(60)
    assert words == words_of(100)
    assert "categorical_cross_entropy," in words
    assert [word for word in words if word in ("Data:", "Network:", "Training:", "Machine:", "Files:")] == [
        *("Data:", "Network:", "Training:", "Machine:", "Files:")
    ]
    groups = train_command._GROUPS
    named = [name for names in groups.values() for name in names]
    parameters = set(inspect.signature(train_command.train).parameters) - {"context", "data"}
    assert sorted(named) == sorted(parameters)


@pytest.mark.parametrize(("width", "left"), [(60, 5), (100, 8), (52, 4)])
def test_the_epochs_of_a_narrow_terminal_have_the_columns_that_fit(width: int, left: int) -> None:
    trainer = SimpleNamespace(metrics={"f1": SimpleNamespace(column="validation_f1")}, epochs=3)
    columns = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "validation_f1")
    record = {"epoch": 1, **dict.fromkeys((*columns, "learning_rate", "seconds"), 0.5)}
    table = LiveEpochTable("accuracy", lambda: Console(width=width))
    header, line = table.header(trainer), table.line(trainer, record)
    assert len(header) == len(line) <= width
    assert len(line.split()) == left
    assert "f1" in header
    assert "val. acc." in header
