"""Printing: colours, bars and rules on a terminal; plain aligned lines, without one escape code, everywhere else."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["is_terminal", "print_json", "print_table", "terminal"]


def is_terminal() -> bool:
    """Return whether standard output is a terminal that can move its cursor."""
    if not sys.stdout.isatty():
        return False
    console = terminal()
    return console.is_terminal and not console.is_dumb_terminal


def terminal() -> Console:
    """Return rich's view of standard output."""
    from rich.console import Console

    return Console(highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON document; NaN and infinity, which JSON lacks, are refused."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table.

    Parameters
    ----------
    headers : sequence of str
    rows : sequence of sequences of str
    right : sequence of int, default=()
        The columns that are set flush right, as numbers are.
    """
    if is_terminal():
        _print_rich_table(headers, rows, right)
        return
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        cells = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


def _print_rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for i, header in enumerate(headers):
        table.add_column(header, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text: what a file contains is not markup
    terminal().print(table)
