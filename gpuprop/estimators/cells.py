"""The cells of a table's column, read as what they are: numbers, moments in time, or values that are spelled out.

pandas does the reading. A cell is missing if pandas takes it for missing (None, NaN, NaT, ``pandas.NA``), if it is
empty or blank text, or if it is spelled in one of the ways that the user declares.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gpuprop.errors import DataError

__all__ = [
    "CellError",
    "Cells",
    "Missing",
    "Moments",
    "Numbers",
    "Spelled",
    "as_moments",
    "as_numbers",
    "as_spelled",
    "dates_in",
    "read",
    "read_columns",
    "spelling_of",
]

Array = NDArray[Any]

#: What `pandas.api.types.infer_dtype` calls objects that are numbers, and objects that are moments.
_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")
_MOMENTS = ("datetime64", "datetime", "date", "period")
_DURATIONS = ("timedelta64", "timedelta")

#: The spellings of dates that a whole column may have, tried in this order. Where day and month cannot be told apart,
#: the month stands first, as pandas has it.
DATE_FORMATS = (
    "ISO8601",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d.%m.%Y",
    "%m-%d-%Y",
    "%d-%m-%Y",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d %b %Y",
    "%b %d %Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%B %d, %Y",
)


class CellError(DataError):
    """A cell is not what its column holds.

    Attributes
    ----------
    column : str
    row : int
        The row's position in the table that was given, counted from 0.
    value : object
    """

    def __init__(self, column: str, row: int, value: object, expected: str) -> None:
        self.column, self.row, self.value, self._expected = column, row, value, expected
        super().__init__(self.at(f"row {row} (counted from 0)"))

    def at(self, place: str) -> str:
        """Return the message with another name of the place, e.g. "line 7"."""
        return f"column {self.column!r}, {place}: got {_short(self.value)}, expected {self._expected}"


@dataclass(frozen=True, eq=False)
class Numbers:
    """Numbers of shape (n_samples,), float64; NaN where the cell is missing."""

    values: NDArray[np.float64]
    whole: bool = False

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Whether each cell is missing."""
        return np.isnan(self.values)


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments in days since 1970-01-01 (UTC where there are time zones), NaN where the cell is missing.

    `format` is how text spelled them, see `DATE_FORMATS`; None if they were no text.
    """

    days: NDArray[np.float64]
    format: str | None = None

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Whether each cell is missing."""
        return np.isnan(self.days)


@dataclass(frozen=True, eq=False)
class Spelled:
    """Values by their spelling: ``spellings[codes]``, and code -1 where the cell is missing.

    `reread` says that a spelling which the user declared as missing occurred, so that the others may be numbers.
    """

    codes: NDArray[np.intp]
    spellings: tuple[str, ...]
    reread: bool = False

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Whether each cell is missing."""
        return self.codes < 0

    def counts(self) -> NDArray[np.intp]:
        """Return how often each spelling occurs."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.spellings))


Cells: TypeAlias = Numbers | Moments | Spelled


@dataclass(frozen=True, eq=False)
class Missing:
    """What stands for a missing cell beside those that pandas takes for one: `spellings`, and `numbers` among them."""

    spellings: frozenset[str]
    numbers: NDArray[np.float64]

    @classmethod
    def of(cls, values: Iterable[Any]) -> Missing:
        """Return the record of texts and numbers that stand for a missing cell."""
        given = [value for value in values if not pd.isna(value)]
        numbers = pd.to_numeric(pd.Series(given, dtype=object), errors="coerce").dropna()
        return cls(frozenset(spelling_of(value) for value in given), numbers.to_numpy(np.float64))


def read_columns(names: Sequence[str], frame: Any, missing: Missing) -> list[Cells]:
    """Return the cells of all columns of a pandas DataFrame; errors are those of `read`.

    Ordinary columns of numbers are read together, which for many columns, or a single row, is much faster.
    """
    cells: dict[int, Cells] = {}
    kinds = [dtype.kind if isinstance(dtype, np.dtype) else "" for dtype in frame.dtypes]
    numeric = [i for i, kind in enumerate(kinds) if kind in "iuf" and kind]
    if numeric:
        block = (frame if len(numeric) == len(kinds) else frame.iloc[:, numeric]).to_numpy(np.float64)
        for i, values in zip(numeric, block.T, strict=True):
            cells[i] = _finite(names[i], Numbers(_without(missing, values), kinds[i] in "iu"))
    return [cells[i] if i in cells else read(name, frame.iloc[:, i], missing) for i, name in enumerate(names)]


def read(name: str, column: Any, missing: Missing) -> Cells:
    """Return the cells of a pandas Series.

    Parameters
    ----------
    name : str
        The column's name, for errors.
    column : pandas.Series
    missing : Missing
        What else stands for a missing cell.

    Raises
    ------
    ValueError
        If a number is infinite or complex.
    TypeError
        If a cell is a list or another object that stands for no value.
    """
    dtype = column.dtype
    kinds = pd.api.types
    if kinds.is_bool_dtype(dtype) or isinstance(dtype, pd.CategoricalDtype):
        return _spelled_objects(name, column, missing)
    if kinds.is_complex_dtype(dtype):
        raise ValueError(f"Complex data not supported: column {name!r} holds complex numbers, expected real ones")
    if kinds.is_timedelta64_dtype(dtype):
        return _numbers(name, column / pd.Timedelta(days=1), missing)
    if kinds.is_numeric_dtype(dtype):
        return _numbers(name, column, missing)
    if kinds.is_datetime64_any_dtype(dtype) or isinstance(dtype, pd.PeriodDtype):
        return Moments(_days(column))
    return _objects(name, column, missing)


def as_spelled(cells: Cells) -> Spelled:
    """Return the cells by their spelling; 1 and 1.0 are spelled alike."""
    if isinstance(cells, Spelled):
        return cells
    values = cells.values if isinstance(cells, Numbers) else cells.days
    codes, distinct = pd.factorize(values)
    if isinstance(cells, Numbers):
        return Spelled(codes, tuple(spelling_of(value) for value in distinct.tolist()))
    moments = pd.to_datetime(distinct, unit="D")
    return Spelled(codes, tuple(str(moment) for moment in moments))


def as_numbers(name: str, cells: Cells) -> Numbers:
    """Return the cells as numbers; text is read as pandas reads it.

    Raises
    ------
    CellError
        If a cell is no number.
    """
    if isinstance(cells, Numbers):
        return cells
    expected = "a number; correct it, or declare its spelling with missing_values"
    if isinstance(cells, Moments):
        row = int(np.argmin(cells.missing))
        raise CellError(name, row, pd.Timestamp(0) + pd.Timedelta(days=cells.days[row]), expected)
    text = pd.Series(list(cells.spellings), dtype=object).replace({"True": "1", "False": "0"})
    values = pd.to_numeric(text, errors="coerce").to_numpy(np.float64)
    if not np.isfinite(values).all():
        wrong = int(np.argmin(np.isfinite(values)))
        raise CellError(name, _first(cells, wrong), cells.spellings[wrong], expected)
    return Numbers(_by_code(values, cells.codes), bool((values == np.floor(values)).all()))


def as_moments(name: str, cells: Cells, known: str | None = None) -> Moments:
    """Return the cells as moments.

    Parameters
    ----------
    name : str
    cells : Cells
        Whole numbers of 8 digits are read as 20240131, and those of 4 digits as years.
    known : str or None, default=None
        The format of text that is tried first, see `DATE_FORMATS`.

    Raises
    ------
    CellError
        If a cell is no moment.
    """
    if isinstance(cells, Moments):
        return cells
    spelled = as_spelled(cells)
    formats = dict.fromkeys([*([] if known is None else [known]), *DATE_FORMATS, "%Y%m%d", "%Y"])
    if isinstance(cells, Numbers):
        formats = dict.fromkeys(["%Y%m%d", "%Y"])
    best: tuple[int, Array] | None = None
    for one in formats:
        days = _parsed(spelled.spellings, one)
        wrong = int(np.isnan(days).sum())
        if not wrong:
            return Moments(_by_code(days, spelled.codes), one)
        if best is None or wrong < best[0]:
            best = wrong, days
    assert best is not None
    i = int(np.argmax(np.isnan(best[1])))
    expected = "a date such as 2024-01-31; correct it, or declare its spelling with missing_values"
    raise CellError(name, _first(spelled, i), spelled.spellings[i], expected)


def dates_in(cells: Spelled) -> Moments | None:
    """Return the cells as moments if all that are not missing are spelled as dates, in one and the same way."""
    # ISO 8601 also allows "2024" and "20240131"; such text is a number, unless the user says that it is a date.
    if not cells.spellings or any(spelling.isdigit() for spelling in cells.spellings):
        return None
    if not any(sign.isdigit() for sign in cells.spellings[0]):  # every date has a day, and pandas tries formats slowly
        return None
    for one in DATE_FORMATS:
        # The first spelling decides quickly that a column of ordinary text holds no dates.
        if not np.isnan(_parsed(cells.spellings[:1], one)).any():
            days = _parsed(cells.spellings, one)
            if not np.isnan(days).any():
                return Moments(_by_code(days, cells.codes), one)
    return None


def spelling_of(value: object) -> str:
    """Return the text that stands for a value, the same for 1, 1.0 and "1".

    Raises
    ------
    TypeError
        If `value` is an object that has no text.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (datetime, date, np.datetime64, pd.Period)):
        return str(value)
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        if type(value).__str__ is object.__str__ and type(value).__repr__ is object.__repr__:
            raise TypeError(f"argument must be a string or a number, got {type(value).__name__}") from None
        return str(value)  # such as the intervals of pandas.cut
    return str(int(number)) if number.is_integer() else repr(number)


def _objects(name: str, column: Any, missing: Missing) -> Cells:
    """Read a column of text, or of Python objects."""
    codes, distinct, hit = _factorized(name, column, missing)
    kind = pd.api.types.infer_dtype(pd.Series(distinct, dtype=object))
    if kind == "complex":
        raise ValueError(f"Complex data not supported: column {name!r} holds complex numbers, expected real ones")
    if kind in _NUMBERS:
        values = np.array([float(value) for value in distinct], np.float64)
        return _finite(name, Numbers(_by_code(values, codes), all(value == int(value) for value in distinct)))
    if kind in _DURATIONS:
        values = np.array([pd.Timedelta(value) / pd.Timedelta(days=1) for value in distinct], np.float64)
        return Numbers(_by_code(values, codes))
    if kind == "time":
        hours = np.array([one.hour + one.minute / 60 + one.second / 3600 for one in distinct], np.float64)
        return Numbers(_by_code(hours, codes))
    if kind in _MOMENTS:
        return Moments(_by_code(_days(pd.Series(distinct)), codes))
    return _merged(name, codes, distinct, hit)


def _spelled_objects(name: str, column: Any, missing: Missing) -> Spelled:
    return _merged(name, *_factorized(name, column, missing))


def _factorized(name: str, column: Any, missing: Missing) -> tuple[Array, list[Any], bool]:
    """Return the code of each cell (-1 is missing), the distinct values, and whether a declared spelling occurs."""
    try:
        codes, distinct = pd.factorize(column)
    except TypeError:  # a value that has no hash: a list, a dict
        row = next(i for i, value in enumerate(column) if getattr(value, "__hash__", None) is None)
        got = type(column.iloc[row]).__name__
        raise TypeError(
            f"column {name!r}, row {row} (counted from 0): argument must be a string or a number, got {got}"
        ) from None
    values = list(distinct)
    declared = missing.spellings
    gone = np.array([isinstance(value, str) and not value.strip() for value in values], bool)
    hits = np.array([bool(declared) and _spelling_at(name, value) in declared for value in values], bool)
    gone |= hits
    if not gone.any():
        return np.asarray(codes), values, False
    renumbered = np.where(gone, -1, np.cumsum(~gone) - 1)
    kept = [value for value, one in zip(values, gone, strict=True) if not one]
    return np.append(renumbered, -1)[codes], kept, bool(hits.any())


def _merged(name: str, codes: Array, distinct: Iterable[Any], hit: bool) -> Spelled:
    """Return values by their spelling; those that are spelled alike are one."""
    places: dict[str, int] = {}
    renumbered = [places.setdefault(_spelling_at(name, value), len(places)) for value in distinct]
    return Spelled(np.append(np.array(renumbered, np.intp), -1)[codes], tuple(places), hit)


def _spelling_at(name: str, value: object) -> str:
    try:
        return spelling_of(value)
    except TypeError as error:
        raise TypeError(f"column {name!r}: {error}") from None


def _numbers(name: str, column: Any, missing: Missing) -> Numbers:
    values = _without(missing, column.to_numpy(dtype=np.float64, na_value=np.nan))
    return _finite(name, Numbers(values, pd.api.types.is_integer_dtype(column.dtype)))


def _without(missing: Missing, values: Array) -> Array:
    """Return the values with NaN in place of numbers that stand for a missing cell."""
    return np.where(np.isin(values, missing.numbers), np.nan, values) if len(missing.numbers) else values


def _finite(name: str, numbers: Numbers) -> Numbers:
    infinite = np.isinf(numbers.values)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise CellError(name, row, numbers.values[row], "a finite number (infinity is none); replace it")
    return numbers


def _days(column: Any) -> NDArray[np.float64]:
    """Return days since 1970-01-01 of a pandas Series of moments."""
    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    moments = pd.to_datetime(column, utc=True)
    days: NDArray[np.float64] = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
    return np.asarray(days, np.float64)


def _parsed(spellings: Sequence[str], one: str) -> NDArray[np.float64]:
    """Return days since 1970-01-01, NaN for text that is not of this format."""
    text = pd.Series(list(spellings), dtype=object)
    try:
        moments = pd.to_datetime(text, format=one, errors="coerce", utc=True)
    except (ValueError, OverflowError):  # a format that pandas does not know, or a year that it cannot hold
        return np.full(len(text), np.nan)
    return _days(moments)


def _by_code(values: Array, codes: Array) -> Array:
    """Return ``values[codes]``, NaN for the code -1."""
    return np.append(values, np.nan)[codes]


def _first(cells: Spelled, code: int) -> int:
    """Return the first row that has this code."""
    return int(np.argmax(cells.codes == code))


def _short(value: object) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
