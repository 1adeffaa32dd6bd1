"""Tables as text, with columns between commas, semicolons, tabs, bars or blanks; pandas parses them.

What pandas cannot know is found here first: the separator and whether line 1 holds names.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from gpuprop.datasets import first_line
from gpuprop.datasets.checks import data_error, listed
from gpuprop.datasets.numbers import MISSING, looks_like_number
from gpuprop.datasets.opening import BINARY, TEXTS, first_bytes, kind_by_content, open_unpacked
from gpuprop.datasets.raw_table import Columns, check_names, dtype_kinds, groups_of_numbers, names_by_place
from gpuprop.datasets.request import Request, target_column
from gpuprop.errors import DataError

ENCODING = "utf-8-sig"  # UTF-8, with or without the byte order mark that spreadsheets write
SEPARATORS = ",;\t|"
BLANKS = " "  # stands for any run of blanks and tabs
LOOKED_AT = 200  # rows that tell the separator and the header,
CELLS_LOOKED_AT = 20_000  # but fewer of many columns
MANY_COLUMNS = 1000
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_COMMENT = re.compile(r"#+(\s|$)")


@dataclass(frozen=True)
class Layout:
    """How a file of text is laid out.

    Attributes
    ----------
    separator : str
        One character; a blank stands for any run of blanks and tabs.
    skipped : int
        The number of lines above the first row: Excel's ``sep=;``, and comments.
    in_comment : bool
        Whether the first row is a comment: the names, as ``numpy.savetxt`` writes them.
    """

    separator: str
    skipped: int = 0
    in_comment: bool = False

    def rows(self, stream: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of the last line and the fields of each row; skip blank lines, as pandas does."""
        lines = iter(stream)
        for _ in range(self.skipped):
            next(lines, None)
        if self.in_comment:
            lines = chain([next(lines, "").lstrip("#")], lines)
        if self.separator == BLANKS:
            lines = (" ".join(line.split()) for line in lines)
        reader = csv.reader(lines, delimiter=self.separator, skipinitialspace=True)
        for fields in reader:
            if fields and (len(fields) > 1 or fields[0].strip()):
                yield reader.line_num + self.skipped, fields


@dataclass(eq=False)
class _Text:
    """A file of text with its layout, its first rows, and what is said about it."""

    path: Path
    layout: Layout
    first_rows: list[tuple[int, list[str]]]
    notes: list[str] = field(default_factory=list)
    names: tuple[str, ...] | None = None
    max_unpacked: int | None = None

    @contextmanager
    def rows(self) -> Iterator[Iterator[tuple[int, list[str]]]]:
        with _open_text(self.path, self.max_unpacked) as stream:
            yield self.layout.rows(stream)

    def fields(self) -> list[list[str]]:
        return [fields for _, fields in self.first_rows]

    @property
    def width(self) -> int:
        """The number of fields that each row of data must have."""
        return len(self.first_rows[0][1] if self.names is None else self.names)

    @property
    def skipped(self) -> int:
        """The number of lines above the data."""
        return self.layout.skipped if self.names is None else self.first_rows[0][0]


def read_csv(path: Path, request: Request) -> Columns:
    """Read a table from a file of text: UTF-8, plain or compressed, with or without a line of names.

    The separator is the comma, semicolon, tab, bar or run of blanks with which the first rows have equally many
    fields; a first line ``sep=;`` (Excel) says it. Whether line 1 holds names: see `first_line.decide`. In the columns
    of features, pandas' spellings of a missing value are missing. In the target only an empty field is, because
    ``NA`` or ``None`` may be the name of a class.
    """
    try:
        text = _look_at(path, request.max_unpacked)
        if _has_names(text, request):
            text.names = _names(text)
        return _columns(text, request)
    except UnicodeDecodeError:
        raise _encoding_error(path, request.max_unpacked) from None
    except csv.Error as error:
        raise data_error(path, f"is not a valid CSV file: {error}; is a quotation mark not closed?") from None


@contextmanager
def _open_text(path: Path, max_unpacked: int | None) -> Iterator[TextIO]:
    with open_unpacked(path, max_unpacked) as stream, io.TextIOWrapper(stream, encoding=ENCODING, newline="") as text:
        yield text


# The layout


def _look_at(path: Path, max_unpacked: int | None) -> _Text:
    """Find the separator from the first rows."""
    with _open_text(path, max_unpacked) as stream:
        lines = list(islice(stream, LOOKED_AT + 1))
        is_whole = not stream.readline()
    n_lines = max(20, CELLS_LOOKED_AT // (1 + max(lines[-1].count(s) for s in SEPARATORS + BLANKS))) if lines else 0
    lines, is_whole = lines[:n_lines], is_whole and len(lines) <= n_lines
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise data_error(path, "holds only blank lines, expected rows of data")
    other = kind_by_content(first.lstrip().encode(), TEXTS)
    if other is not None:
        raise data_error(path, f"is {other}")
    said = _SEP_LINE.fullmatch(first)
    skipped = lines.index(first) + 1 if said else 0
    comments = list(takewhile(_COMMENT.match, lines[skipped:]))
    body = lines[skipped + len(comments) :]
    if not any(line.strip() for line in body):
        raise data_error(path, f"holds only the line {lines[-1].strip()!r}, expected rows of data")
    separator = said[1] if said else _separator(body, is_whole)
    layout, notes = Layout(separator, skipped), []
    if comments:
        layout = _below_comments(layout, comments, body)
        notes += [f"Comments were left out: the first {layout.skipped} line(s)."] if layout.skipped else []
    rows = list(layout.rows(lines))
    if not rows:
        raise data_error(path, f"holds only the line {body[0].strip()!r}, expected rows of data")
    return _Text(path, layout, rows if is_whole or len(rows) == 1 else rows[:-1], notes, max_unpacked=max_unpacked)


def _below_comments(layout: Layout, comments: Sequence[str], body: Sequence[str]) -> Layout:
    """Skip the comments at the top, but not a last one that has a name for each column."""
    in_comment = layout.separator == BLANKS  # elsewhere "# of rooms" may be a name
    found = Layout(layout.separator, in_comment=in_comment)
    _, names = next(found.rows(comments[-1:]), (0, []))
    _, fields = next(Layout(layout.separator).rows(body))
    has_names = len(names) == len(fields) and not any(map(looks_like_number, names))
    skipped = layout.skipped + len(comments) - has_names
    return replace(layout, skipped=skipped, in_comment=has_names and in_comment)


def _separator(lines: Sequence[str], is_whole: bool) -> str:
    """Return the separator that gives the rows equally many fields; of several, the one that leaves most numbers."""
    found = {separator: _fit(lines, separator, is_whole) for separator in SEPARATORS + BLANKS}
    best = max(SEPARATORS, key=lambda separator: found[separator])
    fits, numbers, _ = found[best]
    blanks_fit, blanks_numbers, _ = found[BLANKS]
    if blanks_fit == 1 and (blanks_numbers > numbers + 0.25 or (fits < 1 and blanks_numbers >= numbers)):
        return BLANKS
    if fits > 0.5:
        return best
    first = next(line for line in lines if line.strip())
    return max(SEPARATORS, key=first.count)


def _fit(lines: Sequence[str], separator: str, is_whole: bool) -> tuple[float, float, int]:
    """Return the share of rows with equally many fields, the share of numbers among them, and how many they are."""
    try:
        rows = [fields for _, fields in Layout(separator).rows(lines)]
    except csv.Error:
        return 0.0, 0.0, 0
    if not is_whole and len(rows) > 1:
        rows = rows[:-1]  # the sample may end within a quoted line break
    body = rows[1:] or rows
    width, count = Counter(map(len, body)).most_common(1)[0] if body else (0, 0)
    if width < 2:
        return 0.0, 0.0, 0
    widths = {width, width - 1} if width > 2 else {width}  # a line of names may lack one; see _names
    count += body is not rows and len(rows[0]) in widths
    fields = [cell for row in body for cell in row if cell]
    numbers = sum(map(looks_like_number, fields)) / max(1, len(fields))
    return count / len(rows), numbers, width


# Names


def _has_names(text: _Text, request: Request) -> bool:
    line, first = text.first_rows[0]
    if request.header is not None:
        is_header = request.header
    else:
        is_header, guessed = first_line.decide(
            text.path, text.fields(), target=request.target, known=request.known_names, missing=request.na_values
        )
        if guessed:
            text.notes.append(first_line.note(is_header, line, first))
    if is_header and len(text.first_rows) == 1:
        raise data_error(
            text.path, f"has no rows of data after line {line}, which holds the names; expected at least one"
        )
    target = request.target
    if (
        not is_header
        and request.with_target
        and isinstance(target, str)
        and not re.fullmatch(r"-?\d+|column \d+", target)
    ):
        raise data_error(
            text.path,
            f"got target {target!r}, but the columns have no names: line {line} was taken for a row, {listed(first)}; "
            "give the target's index (0 is the first column, -1 the last), or --header if the line holds names",
        )
    return is_header


def _names(text: _Text) -> tuple[str, ...]:
    """Return the names in line 1; a column without one has the name ""."""
    line, names = text.first_rows[0][0], [name.strip() for name in text.first_rows[0][1]]
    check_names(text.path, [name for name in names if name])
    body = text.fields()[1:]
    if {len(fields) for fields in body} != {len(names) + 1}:
        return tuple(names)
    if not any(fields[-1].strip() for fields in body):  # a separator ends the lines of data
        return (*names, "")
    row_names = [fields[0] for fields in body]
    if text.layout.separator in (BLANKS, "\t") and len(set(row_names)) == len(row_names) > 1:
        return ("", *names)  # as R's write.table writes names of rows
    raise data_error(
        text.path,
        f"line {text.first_rows[1][0]} has {len(names) + 1} fields, expected {len(names)}, as line {line} has; "
        f"a name is missing there ({listed(names)})",
    )


# The frame


def _columns(text: _Text, request: Request) -> Columns:
    """Parse the file, and leave out columns that hold nothing."""
    target = _expected_target(text, request)
    # To have spellings of missing values for each of very many columns takes pandas longer than to read one again.
    texts = {} if target is None or text.width > MANY_COLUMNS else {target: ("", *request.na_values)}
    frame = _parse(text, request, texts)
    kept = _kept(text, frame, request)
    names = None if text.names is None else tuple(text.names[i] or f"Unnamed: {i}" for i in kept)
    target = target_column(text.path, len(kept), names, request)
    # Labels, and all but numbers, keep the spelling of the file; pandas makes bools of TRUE and true.
    known = names or names_by_place(text.path, len(kept), target, request)
    of_dtypes = dtype_kinds(frame)
    wanted = [
        i
        for i, k in enumerate(kept)
        if (of_dtypes[k] not in "iuf" and not _is_text(frame[k])) or request.kinds.get(known[i]) == "text"
    ]
    wanted += [] if target is None or kept[target] in texts else [target]
    if wanted:
        again = {kept[i]: ("", *request.na_values) if i == target else (*MISSING, *request.na_values) for i in wanted}
        for column, values in _parse(text, request, again, only=True).items():
            frame[column] = values
    if len(kept) < frame.shape[1]:
        frame = frame[kept]
    frame.columns = range(len(kept))

    def place(row: int) -> str:
        with text.rows() as rows:
            return f"line {next(islice(rows, row + (names is not None), None), (0, []))[0]}"

    def spelled(columns: Sequence[int]) -> Any:
        asked = {kept[i]: (*MISSING, *request.na_values) for i in columns}
        return _parse(text, request, asked, only=True).rename(columns={kept[i]: i for i in columns})

    has_points = any(_have_fractions(numbers) for _, numbers in groups_of_numbers(frame, "f"))
    return Columns(
        source=text.path,
        frame=frame,
        names=names,
        target=target,
        place=place,
        notes=tuple(text.notes),
        decimal="." if text.layout.separator == "," or has_points else None,
        spelled=spelled,
        separated="; fields stand between commas, semicolons, tabs, bars (|) or blanks",
    )


def _expected_target(text: _Text, request: Request) -> int | None:
    """Return the target's index in the file as far as its first rows tell it; it is parsed as text at once."""
    names = text.names or ("",) * text.width
    rows = text.fields()[text.names is not None :]
    held = [i for i in range(text.width) if names[i] or any(row[i].strip() for row in rows if i < len(row))]
    if not held:
        return None
    try:
        target = target_column(text.path, len(held), text.names and [names[i] for i in held], request)
    except DataError:  # the columns are not all known yet
        return None
    return None if target is None else held[target]


def _kept(text: _Text, frame: Any, request: Request) -> list[int]:
    """Return the columns to read, and note the others: those without name and values, and the index of a frame."""
    names = text.names
    if names is not None:
        nameless = [i for i in frame.columns if not names[i]]
    else:
        nameless = [] if len(request.feature_names or ()) == frame.shape[1] else [frame.shape[1] - 1]
    empty = [i for i in nameless if bool(frame[i].isna().all()) and frame.shape[1] > 1]
    if empty:
        which = listed([i + 1 for i in empty])
        text.notes.append(f"Column {which} of {frame.shape[1]} has neither a name nor values and was left out.")
    if names is not None and not names[0] and 0 not in empty and frame.shape[1] > 2:
        numbers = frame[0]
        if numbers.dtype.kind in "iu" and numbers.is_unique and "Unnamed: 0" not in request.known_names:
            text.notes.append("The first column without a name numbers the rows (the index of a data frame); left out.")
            empty.append(0)
    left_out = set(empty)
    kept = [i for i in frame.columns if i not in left_out]
    unnamed = [f"Unnamed: {i}" for i in kept if names is not None and not names[i]]
    if unnamed:
        text.notes.append(f"The columns without a name are called {listed(unnamed)}, as pandas calls them.")
    return kept


def _is_text(column: Any) -> bool:
    """Return whether pandas made text of a column, not bools or a mixture."""
    if str(column.dtype) in ("str", "string"):
        return True
    return column.dtype.kind != "b" and bool(column.map(lambda cell: isinstance(cell, str), na_action="ignore").all())


def _have_fractions(values: NDArray[np.float64]) -> bool:
    return bool(np.any(np.trunc(values) != values, where=np.isfinite(values)))


def _parse(text: _Text, request: Request, texts: Mapping[int, Sequence[str]], *, only: bool = False) -> Any:
    """Let pandas parse the rows; ``texts`` are read as text and have missing values of their own."""
    import pandas as pd

    missing: Any = [*MISSING, *request.na_values]
    if texts:
        missing = {i: texts.get(i, missing) for i in (texts if only else range(text.width))}
    separator = text.layout.separator
    try:
        with _open_text(text.path, text.max_unpacked) as stream:
            for _ in range(text.skipped):  # skiprows would count a quoted line break differently from csv
                stream.readline()
            frame = pd.read_csv(
                stream,
                sep=r"\s+" if separator == BLANKS else separator,
                header=None,
                index_col=False,
                usecols=sorted(texts) if only else None,
                dtype=dict.fromkeys(texts, str) or None,
                skipinitialspace=True,
                keep_default_na=False,
                na_values=missing,
                low_memory=False,  # one type for the whole column
            )
    except (ValueError, OverflowError, MemoryError) as error:  # pandas' ParserError is a ValueError
        if isinstance(error, UnicodeDecodeError | DataError):
            raise
        _refuse_ragged(text)
        unclosed = re.search(r"EOF inside string starting at row (\d+)", str(error))
        reason = f"a quotation mark is not closed, in row {int(unclosed[1]) + 1} of the data" if unclosed else error
        raise data_error(text.path, f"is not a valid CSV file: {reason}") from None
    # pandas fills short lines, which then have missing values in the last column.
    if not only and (frame.shape[1] != text.width or frame.iloc[:, -1].isna().any()):
        _refuse_ragged(text)
    return frame


def _refuse_ragged(text: _Text) -> None:
    with text.rows() as rows:
        for line, fields in islice(rows, int(text.names is not None), None):
            if len(fields) != text.width:
                raise data_error(
                    text.path,
                    f"line {line} has {len(fields)} fields, expected {text.width}, as the lines above it have "
                    f"(between {_title(text.layout.separator)})",
                )


def _title(separator: str) -> str:
    return {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", BLANKS: "blanks"}.get(
        separator, repr(separator)
    )


def _encoding_error(path: Path, max_unpacked: int | None) -> DataError:
    """Return the error for a file that is not UTF-8; pandas would count from the start of a block."""
    start = first_bytes(path)
    other = kind_by_content(start, BINARY)
    if other is not None:
        return data_error(path, f"got byte {start[0]:02x} at offset 0, expected UTF-8 text: it is {other}")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data_error(
            path, f"got byte {start[0]:02x} at offset 0, expected UTF-8: it is UTF-16; save it as CSV UTF-8"
        )
    offset = 0
    with open_unpacked(path, max_unpacked) as stream:
        decoder = codecs.getincrementaldecoder("utf-8")()
        while chunk := stream.read(1 << 20):
            held = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                place = offset - held + error.start
                byte = error.object[error.start]
                return data_error(
                    path, f"got byte {byte:02x} at offset {place}, expected UTF-8 text; save it as UTF-8 (CSV UTF-8)"
                )
            offset += len(chunk)
    return data_error(path, "ends within a letter, expected UTF-8 text; save it as UTF-8")
