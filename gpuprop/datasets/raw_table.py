"""``RawTable``, a table as its file has it: typed columns, labels as they are spelled, and what was guessed.

Every reader of tables returns ``Columns``, from which ``raw_table`` makes the table; training on numbers alone takes
its columns as one matrix (``numeric_records``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.datasets.checks import data_error, listed, refuse_nonfinite
from gpuprop.datasets.numbers import MISSING, Reading, looks_like_number, read_numbers
from gpuprop.datasets.request import (
    Records,
    Request,
    Task,
    check_features,
    choose_named,
    is_target_guessed,
    row_place,
)

#: A column of which at least this share are numbers is a column of numbers with odd cells, not one of text.
NUMERIC_SHARE = 0.95
FEW_VALUES = 10
NUMBERS = "biufc"
CELLS_AT_A_TIME = 2**20


@dataclass(frozen=True, eq=False)
class RawTable:
    r"""A table with typed columns, as a file of text, Parquet or OpenML has it.

    Attributes
    ----------
    name : str
        The source, for messages.
    frame : pandas.DataFrame
        The columns of features, in the order of the file. A column holds numbers (NaN is a missing value) if it reads
        as numbers as a whole, else text. Dates are text in ISO form. Columns without names are called
        ``"column 1"``, ``"column 2"``, ..., counted from 1 with the target.
    target : pandas.Series or None
        The labels as they are spelled in a file of text, or stored in Parquet and OpenML; missing where nothing
        stands, and where ``NA`` and its like stand among numbers. Amounts with marks (``$1,200``, ``1,5``) are numbers.
    target_name : str or None
    names_known : bool
        Whether the names are those of the file.
    notes : tuple of str
        A sentence about each thing that was guessed or left out.
    place : callable
        Takes the index of a row and returns its name in a message: ``"line 7"``, ``"row 6"``.
    task : {"classification", "regression"} or None
        What the file says about the target beyond its values: a nominal column holds classes, amounts are numbers.
    target_guessed : bool
        Whether the target is the last column because nothing else was known.

    Examples
    --------
    >>> from pathlib import Path
    >>> import gpuprop
    >>> _ = Path("shop.csv").write_text("colour,price,y\nred,1.5,yes\nblue,2.5,no\n")
    >>> gpuprop.datasets.read_table("shop.csv").frame.shape
    (2, 2)
    """

    name: str
    frame: Any
    target: Any | None
    target_name: str | None
    names_known: bool
    notes: tuple[str, ...] = ()
    place: Callable[[int], str] = row_place
    task: Task | None = None
    target_guessed: bool = False

    def labels(self) -> NDArray[Any]:
        """Return the target as an array: bools, integers, floats, or text; a row without one is a ``DataError``."""
        if self.target is None:
            raise data_error(self.name, "was read without its target, expected one for each row")
        return _labels(self)


@dataclass(frozen=True, eq=False)
class Columns:
    """What a reader of tables found.

    Attributes
    ----------
    source : object
    frame : pandas.DataFrame
        All columns in their order, numbered from 0; each holds numbers or text.
    names : tuple of str or None
    target : int or None
        The index of the target column.
    place, notes
        As in `RawTable`.
    nominal : collection of int
        The columns that the source itself calls nominal.
    decimal : {".", ","} or None
        The decimal mark of the file, if something but its numbers tells it.
    separated : str
        What to say about the separator where there is only one column.
    spelled : callable or None
        Takes indices of columns and returns them as text, as the file spells them.
    """

    source: object
    frame: Any
    names: tuple[str, ...] | None
    target: int | None
    place: Callable[[int], str] = row_place
    notes: tuple[str, ...] = ()
    nominal: Collection[int] = ()
    decimal: str | None = None
    spelled: Callable[[Sequence[int]], Any] | None = None
    separated: str = ""


def dtype_kinds(frame: Any) -> list[str]:
    """Return the kind of each column's dtype; pandas takes a hundred times as long to give each column."""
    return [dtype.kind for dtype in frame.dtypes]


def groups_of_numbers(frame: Any, kinds: str = "iuf") -> Iterator[tuple[list[int], NDArray[np.float64]]]:
    """Yield the places of some columns at a time whose dtype is of these kinds, and their numbers as one matrix.

    Many columns of few rows are taken together, and columns of very many rows one by one.
    """
    places = [i for i, kind in enumerate(dtype_kinds(frame)) if kind in kinds]
    size = max(1, CELLS_AT_A_TIME // max(1, len(frame)))
    for start in range(0, len(places), size):
        some = places[start : start + size]
        part = frame if len(some) == frame.shape[1] else frame.iloc[:, some]
        yield some, part.to_numpy(np.float64, na_value=np.nan)


def check_names(source: object, names: Iterable[str]) -> None:
    """Raise ``DataError`` if two columns have one name."""
    duplicates = sorted(name for name, count in Counter(names).items() if count > 1)
    if duplicates:
        raise data_error(
            source, f"got several columns named {listed(duplicates)}, expected distinct names; rename them"
        )


def raw_table(columns: Columns, request: Request) -> RawTable:
    """Return the table of what a reader found: numbers wherever a whole column is numbers, and the target apart."""
    frame, target = columns.frame, columns.target
    if frame.shape[0] == 0 or frame.shape[1] == 0:
        raise data_error(columns.source, "has no rows of data, expected at least one")
    if target is not None and frame.shape[1] == 1:
        raise data_error(
            columns.source,
            "got 1 column(s), expected at least one feature beside the target" + columns.separated,
        )
    names = columns.names or names_by_place(columns.source, frame.shape[1], target, request)
    notes = list(columns.notes)
    task: Task | None = "classification" if target in columns.nominal else None
    guessed = is_target_guessed(columns.names, target, request)
    if guessed:
        notes.append(
            f"The last column, {names[frame.shape[1] - 1]!r}, was taken for the target; --target names another."
        )
    if target is not None and request.with_target and _is_text(frame[target]):
        frame[target] = _without_gaps_among_numbers(frame[target])
    for index, numbers in _numbers_in_text(columns, names, request, notes).items():
        if index == target:
            task = "regression"
        frame[index] = numbers
    series = None if target is None else frame.pop(target).rename(names[target])
    if request.with_target and series is not None and _is_text(series) and task is None:
        spelled = series[series.isin(MISSING)].unique().tolist()
        if spelled:
            notes.append(
                f"In the target {names[target or 0]!r}, {listed(spelled)} is a label; --na makes it a missing value."
            )
    frame.columns = [name for i, name in enumerate(names) if i != target]
    _refuse_infinities(columns.source, frame, columns.place)
    return RawTable(
        name=str(columns.source),
        frame=frame,
        target=series if request.with_target else None,
        target_name=None if target is None else names[target],
        names_known=columns.names is not None,
        notes=tuple(notes),
        place=columns.place,
        task=task,
        target_guessed=guessed,
    )


def _without_gaps_among_numbers(target: Any) -> Any:
    """Return a target in which ``NA`` and its like are missing if all other cells are numbers; else they are labels."""
    gaps = target.isin(MISSING)
    rest = target[~gaps].dropna()
    if not gaps.any() or not _may_hold_numbers(rest) or not read_numbers(rest).is_whole:
        return target
    return target.where(~gaps, None)


def names_by_place(source: object, n_columns: int, target: int | None, request: Request) -> tuple[str, ...]:
    """Return names for columns without any: a model's in its order, else their places."""
    places = tuple(f"column {i + 1}" for i in range(n_columns))
    known = request.feature_names
    if known is None or set(known) <= set(places):
        return places
    n_features = n_columns - (target is not None)
    if n_features != len(known):
        raise data_error(
            source,
            f"got {n_features} columns without names, expected the {len(known)} of the model: {listed(known)}; "
            "if line 1 holds names, say --header",
        )
    rest = iter(known)
    return tuple(places[i] if i == target else next(rest) for i in range(n_columns))


def _is_text(column: Any) -> bool:
    return column.dtype.kind not in NUMBERS


def _numbers_in_text(
    columns: Columns, names: Sequence[str], request: Request, notes: list[str]
) -> dict[int, NDArray[np.float64]]:
    """Return the columns of text that hold numbers, as numbers, and note how they were read.

    The target's labels stay as they are spelled, unless they are amounts with marks.
    """
    frame, source = columns.frame, columns.source
    kinds = [request.kinds.get(name) for name in names]
    of_dtypes = dtype_kinds(frame)
    wanted = [
        i
        for i in range(frame.shape[1])
        if kinds[i] != "text"
        and (i != columns.target or request.with_target)
        and i not in columns.nominal
        and of_dtypes[i] not in NUMBERS
        and (kinds[i] == "number" or _may_hold_numbers(frame[i]))
    ]
    readings = {i: read_numbers(frame[i]) for i in wanted}
    told = {reading.decimal for reading in readings.values() if reading.decimal and reading.is_whole}
    decimal = told.pop() if len(told) == 1 else columns.decimal
    if decimal is not None:
        readings |= {i: read_numbers(frame[i], decimal) for i, reading in readings.items() if reading.ambiguous}
    if decimal == "," and columns.spelled is not None:  # what pandas took for 1.234 may be 1 234
        floats = [i for i, kind in enumerate(of_dtypes) if kind == "f"]
        texts = columns.spelled(floats)
        readings |= {i: reading for i in floats if (reading := read_numbers(texts[i], decimal)).example}
    found = {}
    for i, reading in readings.items():
        _refuse_disagreement(columns, names[i], i, reading)
        if i != columns.target and _is_column_of_numbers(reading, kinds[i]):
            _refuse_odd_cell(columns, names[i], i, reading, kinds[i])
        if not reading.is_whole:
            continue
        if reading.ambiguous is not None:
            row = int(np.argmax((frame[i].astype(object) == reading.ambiguous).to_numpy(bool)))
            raise data_error(
                source,
                f"{columns.place(row)}, column {names[i]!r}: the mark in {reading.ambiguous!r} may stand before "
                "decimals or between thousands, and nothing else in the file tells which; write the numbers without it",
            )
        if reading.example is not None:
            cell, value = reading.example
            shown = np.format_float_positional(value, trim="-")
            notes.append(f"Column {names[i]!r} was read as numbers: {cell!r} is {shown}.")
        if i != columns.target or reading.example is not None:
            found[i] = reading.values
    return found


def _may_hold_numbers(texts: Any) -> bool:
    head = texts.dropna().head(200)
    return len(head) > 0 and sum(map(looks_like_number, map(str, head))) >= 0.5 * len(head)


def _is_column_of_numbers(reading: Reading, kind: str | None) -> bool:
    """Return whether a column with cells that are no numbers is one of numbers nevertheless."""
    n_odd = int(reading.odd.sum())
    if n_odd == 0 or kind == "number":
        return n_odd > 0
    return is_odd_in_numbers(reading)


def is_odd_in_numbers(reading: Reading) -> bool:
    """Return whether the few cells that are no numbers stand in a column of numbers.

    Such a column has many different numbers, or a single odd cell; ``0, 1, 2, 3+`` is a column of four texts.
    """
    n_odd, numbers = int(reading.odd.sum()), reading.values[~np.isnan(reading.values)]
    if n_odd == 0 or len(numbers) < NUMERIC_SHARE * (len(numbers) + n_odd):
        return False
    return n_odd == 1 or len(np.unique(numbers)) > FEW_VALUES


def _refuse_odd_cell(columns: Columns, name: str, index: int, reading: Reading, kind: str | None) -> None:
    row = int(np.argmax(reading.odd))
    cell = str(columns.frame[index].iloc[row])[:60]
    n_numbers = int((~np.isnan(reading.values)).sum())
    where, missing = (
        f"{columns.place(row)}, {_title(name, columns.names is not None)}",
        f"missing value (--na {cell!r})",
    )
    if kind == "number":
        raise data_error(
            columns.source, f"{where}: got {cell!r}, expected a number; correct it, or name it as a {missing}"
        )
    raise data_error(
        columns.source,
        f"{where}: got {cell!r}, expected a number, as in {n_numbers} other rows; correct it, name it as a {missing}, "
        f"or name the column as text (--categorical {name!r})",
    )


def _refuse_disagreement(columns: Columns, name: str, index: int, reading: Reading) -> None:
    """Refuse a column in which every cell is a number, but not all are written in one way."""
    if not reading.odd.any() or np.isnan(reading.values).all():
        return
    cells = columns.frame[index]
    if not all(map(looks_like_number, cells[reading.odd].unique())):
        return
    row, other = int(np.argmax(reading.odd)), int(np.argmin(np.isnan(reading.values)))
    raise data_error(
        columns.source,
        f"{columns.place(row)}, {_title(name, columns.names is not None)}: got {cells.iloc[row]!r}, but "
        f"{cells.iloc[other]!r} in {columns.place(other)}; write the column's numbers in one way, or name it as text "
        f"(--categorical {name!r})",
    )


def _refuse_infinities(source: object, frame: Any, place: Callable[[int], str]) -> None:
    for places, numbers in groups_of_numbers(frame, "f"):
        infinite = np.isinf(numbers)
        if infinite.any():
            which = int(np.argmax(infinite.any(axis=0)))
            row = int(np.argmax(infinite[:, which]))
            raise data_error(
                source,
                f"{place(row)}, column {frame.columns[places[which]]!r}: got {numbers[row, which]}, expected a finite "
                "number",
            )


# Columns of numbers as one matrix


def numeric_records(table: RawTable, request: Request) -> Records:
    """Return the features that the request asks for as one matrix, and the target."""
    names = tuple(table.frame.columns)
    n_columns = len(names) + (table.target_name is not None)
    if table.names_known:
        chosen = choose_named(table.name, names, table.target_name, request)
    else:
        chosen = list(range(len(names)))
    check_features(table.name, n_columns, len(chosen), request)
    return Records(
        name=table.name,
        X=_matrix(table, chosen),
        target=None if table.target is None else _labels(table),
        feature_names=tuple(names[i] for i in chosen) if table.names_known else None,
        target_name=table.target_name if table.names_known and table.target is not None else None,
        place=table.place,
        notes=table.notes,
        task=table.task,
    )


def _matrix(table: RawTable, chosen: Sequence[int]) -> NDArray[np.float64]:
    """Return columns as one float64 matrix; a column of text raises an error that names its first text."""
    frame = table.frame if chosen == list(range(table.frame.shape[1])) else table.frame.iloc[:, chosen]
    X = np.empty(frame.shape, np.float64)
    titles = [_title(name, table.names_known) for name in frame.columns]
    for places, numbers in groups_of_numbers(frame, NUMBERS):
        X[:, places] = numbers
    for position, kind in enumerate(dtype_kinds(frame)):
        if kind not in NUMBERS:
            X[:, position] = _from_text(table, frame.iloc[:, position], titles[position])
    refuse_nonfinite(table.name, X, table.place, lambda position: titles[position])
    return X


def _title(name: str, is_known: bool) -> str:
    return f"column {name!r}" if is_known or not name.startswith("column ") else name


def _from_text(table: RawTable, column: Any, title: str) -> NDArray[np.float64]:
    truths = column.str.strip().str.casefold().map({"true": 1.0, "false": 0.0})
    if bool((truths.notna() | column.isna()).all()):
        return np.asarray(truths.to_numpy(np.float64, na_value=np.nan))
    reading = read_numbers(column)  # a nominal column may hold numbers
    if reading.odd.any():
        row = int(np.argmax(reading.odd))
        raise data_error(
            table.name,
            f"{table.place(row)}, {title}: got {str(column.iloc[row])[:60]!r}, expected a number; "
            "leave the column out, or encode its values as numbers",
        )
    return reading.values


def _labels(table: RawTable) -> NDArray[Any]:
    """Return the target as an array: bools, integers, floats, or text (dtype object)."""
    target, title = table.target, _title(str(table.target_name), table.names_known)
    assert target is not None
    missing = target.isna().to_numpy(bool)
    if missing.any():
        row = int(np.argmax(missing))
        raise data_error(
            table.name,
            f"{table.place(row)}, {title}: got a missing value, expected a target; fill it in, or remove the row",
        )
    kinds = {"b": np.bool_, "i": np.int64, "u": np.uint64, "f": np.float64}
    return np.asarray(target.to_numpy(kinds.get(target.dtype.kind, object)))
