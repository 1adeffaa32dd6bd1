"""`decide` finds out whether the first line of a file of text holds the names of the columns.

What is known decides: what the user says, the name of the target, the names of a model's columns. Else the fields of
line 1 are compared with the columns below them, and where they tell nothing, the file is refused: a row that is taken
for names is lost, and names that are taken for a row become a sample or a class.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from gpuprop.datasets.checks import data_error, listed
from gpuprop.datasets.numbers import MISSING, is_number, looks_like_number

#: A column of one of these names is the target of a file for which no other is named.
TARGET_NAMES = ("y", "target", "label", "class")

#: What a gap may look like, also where nothing says that it is one.
GAPS = (*MISSING, "?", "-", ".")

_ADVICE = "say which with --header or --no-header (in Python: header=True or header=False)"


def decide(
    source: object,
    rows: Sequence[Sequence[str]],
    *,
    target: str | int | None = None,
    known: Sequence[str] = (),
    missing: Sequence[str] = (),
) -> tuple[bool, bool]:
    """Return whether line 1 holds names, and whether that was guessed.

    Parameters
    ----------
    source : object
        Names the file in messages.
    rows : sequence of sequences of str
        The fields of line 1 and of some rows below it.
    target : str, int or None
        The target column as the user names it. A text that is not an index, or no valid one, can only be a name.
    known : sequence of str
        The names of a model's columns.
    missing : sequence of str
        What stands for a missing value, beside the usual spellings.

    Raises
    ------
    DataError
        If nothing tells it. The message shows line 1.
    """
    first = [field.strip() for field in rows[0]]
    if isinstance(target, str) and target in first and not _is_index(target, len(first)):
        return True, False
    fields = set(first)
    shared = [name for name in known if name in fields]
    if shared and (len(shared) == len(known) or not all(map(is_number, shared))):
        return True, False
    found = _guess(first, rows[1:], {*GAPS, *missing})
    if found is None and known and not any(map(is_number, known)) and all(map(is_number, first)):
        return False, False
    if found is None:
        raise data_error(source, f"line 1 holds {listed(first)}, which may be names or a row of data; {_ADVICE}")
    return found, True


def note(is_header: bool, line: int, first: Sequence[str]) -> str:
    """Return the sentence that tells what was guessed about a line."""
    if is_header:
        return (
            f"Line {line} was taken for the names of the columns ({listed(first, 4)}); --no-header reads it as a row."
        )
    return f"Line {line} was taken for a row of data ({listed(first, 4)}); --header reads it as names."


def _is_index(target: str, n_columns: int) -> bool:
    return target.removeprefix("-").isdecimal() and -n_columns <= int(target) < n_columns


def _guess(first: Sequence[str], below: Sequence[Sequence[str]], gaps: set[str]) -> bool | None:
    """Compare each field with the column below it; a contradiction tells nothing.

    A text above numbers is a name, and so is each of 0, 1, 2, ..., the names that pandas gives to nameless columns. A
    field that comes again below it belongs to a row, and so does a number with a fraction above numbers. Where neither
    is, a text above few different ones is probably a name, and a number like those below it is probably none.
    """
    named = first[1:] if not first[0] else first  # pandas' index has no name
    if len(named) > 2 and list(named) == [str(i) for i in range(len(named))]:
        return True
    numbers = [field for field in first if looks_like_number(field)]
    if not below:
        return not numbers
    series = numbers[:2] == ["0", "1"] if len(numbers) == 2 else len(numbers) > 2 and _in_equal_steps(numbers)
    evidence = [
        _evidence(field, [row[i].strip() for row in below if i < len(row) and row[i].strip() not in gaps], series)
        for i, field in enumerate(first)
        if field not in gaps
    ]
    if "names!" in evidence:
        return None if "row!" in evidence or "number" in evidence else True
    if "row!" in evidence:
        return False
    if "names?" in evidence:
        return None if "row?" in evidence or "number" in evidence else True
    if "row?" in evidence or "number" in evidence:
        return False
    if not numbers:
        return True
    # A row whose numbers all lie outside what their columns hold would be a rare one.
    return None if (series and len(below) >= 5) or evidence.count("outside") > 1 else False


def _evidence(field: str, column: Sequence[str], series: bool) -> str:
    """Return what a field of line 1 is, by the column below it.

    That is a part of names or of a row, surely (!) or probably (?); a number like those below it; a number outside what
    they are; or nothing that tells.
    """
    if not column:
        return ""
    numeric = all(map(looks_like_number, column))
    if not looks_like_number(field):
        if numeric:
            return "names!"
        if field.casefold() in TARGET_NAMES:
            return "" if field in column else "names!"
        if field in column:
            return "row!"
        if re.search(r"\d", field) and {_shape(value) for value in column} == {_shape(field)}:
            return "row?"  # a date above dates, K-1000 above K-1001
        return "names?" if len(set(column)) <= len(column) / 2 else ""
    if not numeric:
        if field in column:
            return "row!"
        return "" if any(map(looks_like_number, column)) else "names?"
    if _has_fraction(field) and not series:
        return "row!"
    if all(map(_has_fraction, column)) and not _has_fraction(field):
        return "names?"
    values = [float(value) for value in column if is_number(value)]
    if not is_number(field) or not values:
        return ""
    if min(values) <= float(field) <= max(values):
        return "" if series else "number"
    if len(values) < 10:
        return ""
    return "names?" if series and all(map(_has_fraction, column)) else "outside"


def _has_fraction(field: str) -> bool:
    return field.startswith("-") or re.search(r"[.,eE]", field) is not None


def _shape(field: str) -> str:
    return re.sub(r"[^\W\d_]", "a", re.sub(r"\d+", "9", field))


def _in_equal_steps(fields: Sequence[str]) -> bool:
    """Return whether plain numbers count in equal steps, as years and wavelengths do."""
    if not all(map(is_number, fields)):
        return False
    steps = [float(b) - float(a) for a, b in pairwise(fields)]
    return steps[0] != 0 and all(abs(step - steps[0]) <= 1e-6 * abs(steps[0]) for step in steps)
