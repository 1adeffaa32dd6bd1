"""Printing: colours, bars and rules on a terminal; plain aligned lines, without one escape code, everywhere else.

A display never stops a command. While a command runs, standard output and error are `Stream` objects, which print with
replacements what the encoding lacks and what a terminal would obey, and stop printing when the other end has gone or
is full; see `safe_streams`. Only rich, through `terminal`, gives a terminal orders.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

from gpuprop.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

    from gpuprop.training.scores import Report

__all__ = [
    "Stream",
    "heard_warnings",
    "is_terminal",
    "mark_saved",
    "print_json",
    "print_notes",
    "print_report",
    "print_table",
    "safe_streams",
    "terminal",
    "warn",
    "warn_if_unfinished",
]

_LEGIBLE = 24
"""The least number of characters that a folded column of text keeps."""


class Stream:
    """A standard stream to which writing never fails, and through which no file gives the terminal orders.

    A character that the encoding lacks is written as its number, as Python's error handler "backslashreplace" does,
    and so is one that a terminal would obey, see `gpuprop.errors.printable`. After the first write that the system
    refuses, nothing more is written.

    Parameters
    ----------
    stream : text stream or None
        None is what Python has for a stream that was closed before it started (``gpuprop ... >&-``).

    Attributes
    ----------
    fault : OSError or None
        Why nothing more is written.
    results_are_saved : bool
        Whether what the command was asked for is in a file already, so that the display is only a copy of it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.results_are_saved = False
        self.fault: OSError | None = None
        if stream is None:
            self.fault = OSError(errno.EBADF, "it is closed")

    def write(self, text: str) -> int:
        """Write what can be written, and what a terminal would obey as Python spells it.

        A terminal gets lines that are too long for it in pieces, broken between words, which it would not do itself.
        """
        shown = printable(text)
        if self.isatty():
            width = shutil.get_terminal_size().columns
            shown = "\n".join(broken(line, width) for line in shown.split("\n"))
        self.write_orders(shown)
        return len(text)

    def write_orders(self, text: str) -> int:
        """Write a text as it is, with whatever it tells the terminal to do; for rich only."""
        if self._stream is not None and self.fault is None:
            try:
                try:
                    self._stream.write(text)
                except UnicodeEncodeError as error:
                    self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
            except (OSError, ValueError) as error:  # ValueError: the stream has been closed
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Hand what was written to the system."""
        if self._stream is not None and self.fault is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._fail(error)

    def isatty(self) -> bool:
        """Return whether this is a terminal that still takes what is written."""
        return self._stream is not None and self.fault is None and self._stream.isatty()

    def _fail(self, error: Exception) -> None:
        self.fault = error if isinstance(error, OSError) else OSError(errno.EBADF, str(error))
        with suppress(OSError, ValueError):
            # Python would complain once more when it flushes the stream at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())

    def __getattr__(self, name: str) -> Any:
        if self._stream is None and name == "fileno":
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return getattr(self._stream, name)


def broken(line: str, width: int) -> str:
    """Return a line with line breaks between its words, so that it fits; what follows a break is indented by two.

    A word that is longer than the line stays whole.
    """
    if len(line) <= width or width < _LEGIBLE:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    pieces = textwrap.wrap(
        line,
        width,
        subsequent_indent=f"{indent if len(indent) < width // 2 else ''}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(pieces)


@contextmanager
def safe_streams() -> Iterator[Stream]:
    """Put `Stream` objects in the places of standard output and standard error; the value is standard output."""
    before = sys.stdout, sys.stderr
    output, error = Stream(sys.stdout), Stream(sys.stderr)
    sys.stdout, sys.stderr = cast("TextIO", output), cast("TextIO", error)
    try:
        yield output
    finally:
        output.flush()
        error.flush()
        sys.stdout, sys.stderr = before


def mark_saved() -> None:
    """Say that the results of the command are in a file: a display that fails is then a warning, and no error."""
    if isinstance(sys.stdout, Stream):
        sys.stdout.results_are_saved = True


@contextmanager
def heard_warnings() -> Iterator[list[str]]:
    """Collect what libraries warn a user of, each message once; they print several lines for each, with their paths."""
    heard: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        for category in (UserWarning, RuntimeWarning):
            warnings.simplefilter("always", category)
        yield heard
    heard += dict.fromkeys(str(one.message) for one in caught)


def warn(message: object) -> None:
    """Print a warning as one line on standard error."""
    print(f"gpuprop: warning: {' '.join(str(message).split())}", file=sys.stderr, flush=True)


def warn_if_unfinished(model: Path) -> None:
    """Warn that a model is that of a checkpoint, because its training has not come to its end."""
    from gpuprop.model.container import is_unfinished

    if is_unfinished(model):
        warn(f"{model}: the training has not come to its end; this is the model of its last checkpoint")


def is_terminal() -> bool:
    """Return whether standard output is a terminal that can move its cursor."""
    if not sys.stdout.isatty():
        return False
    console = terminal()
    return console.is_terminal and not console.is_dumb_terminal


class _Orders:
    """What rich writes to: a `Stream` that passes its orders to the terminal on."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.write = stream.write_orders

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def terminal() -> Console:
    """Return rich's view of standard output; what it prints contains no orders but rich's own."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Terminal(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    output: Any = sys.stdout
    return Terminal(file=_Orders(output) if isinstance(output, Stream) else None, highlight=False)  # type: ignore[arg-type]


def print_json(value: Any) -> None:
    """Print one JSON document; NaN and infinity are errors, since JSON does not have them."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_notes(notes: Iterable[str]) -> None:
    """Print what was guessed when a file was read, a line for each sentence."""
    for note in notes:
        print(f"note: {note}")


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
    headers, *rows = ([printable(cell).replace("\n", "\\n") for cell in row] for row in (headers, *rows))
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
