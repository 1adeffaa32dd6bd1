"""Printing: colours, bars and rules on a terminal; plain aligned lines, without one escape code, everywhere else."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from gpuprop.training.scores import Report

__all__ = ["is_terminal", "print_json", "print_report", "print_table", "terminal"]

_LEGIBLE = 24
"""The least number of characters that a folded column of text keeps."""


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
    """Print one JSON document; NaN and infinity are errors, since JSON does not have them."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_report(report: Report) -> None:
    """Print the figures of a test part; the last line is ``test accuracy: 0.9793`` or ``test R2: 0.8123``."""
    print(report.text)
    print(f"test {report.metric}: {report.score:.4f}", flush=True)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table.

    Parameters
    ----------
    headers : sequence of str
    rows : sequence of sequences of str
    right : sequence of int, default=()
        The columns to set flush right, as numbers are.
    """
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    if is_terminal() and _print_rich_table(headers, rows, right, widths):
        return
    for row in (headers, *rows):
        cells = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())


def _print_rich_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int], widths: Sequence[int]
) -> bool:
    """Print a table with rules; return False and print nothing if the terminal is too narrow.

    The widest column of text is folded, as long as it stays legible; figures and names are never folded.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = terminal()
    folded = max((i for i in range(len(widths)) if i not in right), key=lambda i: widths[i], default=0)
    missing = sum(widths) + 3 * len(widths) - console.width
    if missing > 0 and widths[folded] - missing < _LEGIBLE:
        return False
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for i, header in enumerate(headers):
        justify: Literal["right", "left"] = "right" if i in right else "left"
        table.add_column(header, justify=justify, overflow="fold", no_wrap=i != folded)
    for row in rows:
        table.add_row(*map(Text, row))  # Text is not read as markup, whatever a file contains
    console.print(table)
    return True
