"""Columns: what the columns of a table hold, and the numbers that a network gets of them.

The numbers are scaled as RealMLP scales them: ``(x - median) / (q75 - q25)``; where the quartiles are equal
``2 (x - median) / (max - min)``; where all are equal the input is left out. Then ``x / sqrt(1 + (x / 3)^2)`` brings
what lies far outside near to 3. Inputs of categories are scaled like all others.

Source: D. Holzmueller, L. Grinsztajn and I. Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on
tabular data", NeurIPS 2024, arXiv 2407.04491.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gpuprop.errors import unknown_name
from gpuprop.estimators.cells import CellError, Cells, Missing, read_columns
from gpuprop.estimators.column_finding import find
from gpuprop.estimators.column_kinds import Category, Date, Kind, Number, Role, Unused, kind_from_plain
from gpuprop.model.forms import FLAG, NONE, TEXT, Either, Fields, Items, Named, Real, Whole

__all__ = ["COLUMNS", "CellError", "ColumnRow", "Columns", "as_frame", "is_frame", "with_gaps"]

Array = NDArray[Any]

#: The most inputs of one category, and the most frequent values of a text of many values that get an input each.
MOST_VALUES = 100
#: From here on a scaled number is 3 in float32 after the clip; farther out, its square could be infinite.
FAR = 1e6

#: What `Columns.to_plain` gives.
COLUMNS = Fields(
    {
        "columns": Items(Named(), 1),
        "named": FLAG,
        "center": Items(Real(), 1),
        "factor": Items(Real(), 1),
        "missing_values": Items(Either(TEXT, Real(), FLAG)),
        "max_categories": Whole(0),
        "most_one_hot": Either(NONE, Whole(0)),
    }
)


class ColumnRow(NamedTuple):
    """A column in the table that `Columns.table` gives.

    Attributes
    ----------
    name : str
    kind : str
        "number", "boolean", "category", "text", "date", "identifier", "constant" or "left out".
    missing : float
        The share of cells that were missing.
    treatment : str
        What is done with the column.
    """

    name: str
    kind: str
    missing: float
    treatment: str


@dataclass(frozen=True)
class Asked:
    """What the user says of a table, each as names, positions or a mask over the columns; see `Columns`."""

    categorical_features: Any = None
    numeric_features: Any = None
    date_features: Any = None
    drop: Any = None
    missing_values: tuple[Any, ...] = ()

    def of_columns(self, names: Sequence[str], named: bool) -> dict[str, str]:
        """Return what was said of each column, by its name.

        Raises
        ------
        ValueError
            If a column is unknown, or two things are said of it.
        """
        said: dict[str, str] = {}
        for option, what in (
            ("categorical_features", "category"),
            ("numeric_features", "number"),
            ("date_features", "date"),
            ("drop", "drop"),
        ):
            for name in _selected(option, getattr(self, option), names, named):
                if said.setdefault(name, what) != what:
                    raise ValueError(f"{option}: column {name!r} is also named as a {said[name]}; name it once")
        return said


class Columns:
    """The columns of a table: their kinds, found from the rows of a training, and the inputs of a network.

    Parameters
    ----------
    categorical_features, numeric_features, date_features : sequence of str, int or bool, or None, default=None
        Columns of which you know what they hold, where the rules below say something else: their names, their
        positions, or a mask with an entry for each column.
    drop : sequence of str, int or bool, or None, default=None
        Columns to leave out.
    missing_values : sequence of str or numbers, default=()
        Spellings of missing cells beside empty ones, None and NaN, such as ``["?", "-"]`` or ``[-999]``. A column of
        text in which one of them occurs, and otherwise only numbers, is a column of numbers.
    max_categories : int, default=100
        A column of text with more values is a text of many values; only its frequent values get inputs, at most this
        many.

    most_one_hot : int or None, default=None
        Categories of more values are codes, behind all other inputs, for a network that embeds them; None makes all
        categories one-hot.

    Attributes
    ----------
    kinds : tuple
        What each column is, in the table's order, see `gpuprop.estimators.column_kinds`.
    named : bool
        Whether the columns have names; without names they are known by their positions.
    input_names : list of str
        What each input of the network is, e.g. "city=Lima": numbers first, the codes of categories last.

    Notes
    -----
    - number: a column of numbers. A gap becomes the median; a column that had gaps in 5 rows of the training or more
      gets a second input, which says where, unless another column has the same.
    - boolean: truth values, or text such as yes and no: 1 and -1, and 0 for a gap.
    - category: other text, and every column of pandas' dtype "category": one-hot, or -1 and 1 for two values. A gap,
      and a value that training has not seen, is 0 everywhere.
    - text: text of more than `max_categories` values, or where a value has not even two rows on average. Values of 5
      rows or more are one-hot, and all others share one input. (Hashing was not chosen: what one row in a thousand
      says, a network learns by heart.)
    - date: days, and the place in the year, the week and the day as sine and cosine. Year and week need a record over
      time, of two years or two weeks: at least half of the months, or days, from the first to the last occur. Text is
      read as dates where all of it is spelled in one of the usual ways.
    - identifier: text of which every row has its own, whole numbers that count from 0 or 1, and different whole numbers
      under a name such as "customer_id". It is left out, unless no other column remains. Arrays have no names, and no
      column of theirs is taken for an identifier.
    - constant: a column of one value, or of none. It is left out.

    Examples
    --------
    >>> import pandas as pd
    >>> from gpuprop.estimators.columns import Columns
    >>> frame = pd.DataFrame({"city": ["Lima", "Oslo", "Lima", None], "member": ["yes", "no", "no", "no"]})
    >>> columns = Columns().fit(frame)
    >>> [(row.name, row.kind, row.missing) for row in columns.table()]
    [('city', 'category', 0.25), ('member', 'boolean', 0.0)]
    >>> columns.transform(frame).shape
    (4, 2)
    """

    def __init__(
        self,
        *,
        categorical_features: Any = None,
        numeric_features: Any = None,
        date_features: Any = None,
        drop: Any = None,
        missing_values: Sequence[Any] = (),
        max_categories: int = MOST_VALUES,
        most_one_hot: int | None = None,
    ) -> None:
        spelled = tuple(value for value in missing_values if not pd.isna(value))
        self.asked = Asked(categorical_features, numeric_features, date_features, drop, spelled)
        self._missing = Missing.of(spelled)
        self.max_categories = max_categories
        self.most_one_hot = most_one_hot

    # --- finding ---------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the kinds of the columns and their scaling.

        Parameters
        ----------
        X : data frame or array_like of shape (n_samples, n_features)
            A frame of pandas, polars or pyarrow, or of any library that has ``to_pandas`` or ``__dataframe__``.
        y : ignored

        Returns
        -------
        Columns
            This object.

        Raises
        ------
        CellError
            If a cell is not what an option says that its column holds, or is infinite.
        ValueError
            If an option names a column that is not there, or two columns have one name.
        TypeError
            If a cell is a list or another object that stands for no value.
        """
        frame = as_frame(X)
        names, self.named = _names(frame), _has_names(frame)
        if not frame.size:
            raise ValueError(
                f"X: got {frame.shape[0]} rows and {frame.shape[1]} columns, expected at least one of each"
            )
        _refuse_duplicates(names)
        said = self.asked.of_columns(names, self.named)
        cells = read_columns(names, frame, self._missing)
        found = [
            find(name, own, said.get(name), most=self.max_categories, named=self.named)
            for name, own in zip(names, cells, strict=True)
        ]
        if not any(one.kind.used for one in found):  # better an identifier than nothing
            found = [replace(one, kind=one.otherwise or one.kind) for one in found]
        self.kinds: tuple[Kind, ...] = tuple(self._coded(one.kind) for one in found)
        raw = _encoded(self.kinds, cells)
        center, factor = _scaling(raw)
        factor[_repeated_gaps(self.kinds, raw)] = 0.0
        coded = [role == "code" for kind in self.kinds for role in kind.inputs().values()] or [False]
        center, factor = np.where(coded, 0.0, center), np.where(coded, 1.0, factor)
        self._take_scaling(center, factor)
        return self

    def _coded(self, kind: Kind) -> Kind:
        if not isinstance(kind, Category) or self.most_one_hot is None:
            return kind
        return replace(kind, coded=kind.n_codes - 1 > self.most_one_hot)

    def _take_scaling(self, center: Array, factor: Array) -> None:
        self._center, self._factor = center, factor
        roles = np.array([role for kind in self.kinds for role in kind.inputs().values()] or ["plain"])
        by_role = [np.flatnonzero((roles == role) & (factor != 0)) for role in get_args(Role)]
        self._sizes = [len(places) for places in by_role]
        kept = np.concatenate(by_role)
        # A network needs an input, even where no column tells the rows apart.
        self._kept = kept if len(kept) else np.arange(1)

    # --- using -----------------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The names of all columns, in the order of the table; without names their positions, as text."""
        return [kind.name for kind in self.kinds]

    @property
    def input_names(self) -> list[str]:
        """What each input of the network is."""
        names = [name for kind in self.kinds for name in kind.inputs()] or ["nothing"]
        return [names[i] for i in self._kept]

    @property
    def input_owners(self) -> list[str]:
        """The column of the table that each input of the network comes from."""
        names = [kind.name for kind in self.kinds for _ in kind.inputs()] or ["nothing"]
        return [names[i] for i in self._kept]

    @property
    def layout(self) -> tuple[int, int, tuple[int, ...]]:
        """The inputs that are numbers, those that stay as they are, and the codes of each category behind them."""
        n_numbers = self._sizes[0]
        codes = tuple(kind.n_codes for kind in self.kinds if isinstance(kind, Category) and kind.coded)
        return n_numbers, len(self._kept) - n_numbers - len(codes), codes

    def table(self) -> list[ColumnRow]:
        """Return what was found of each column, in the order of the table."""
        return [
            ColumnRow(kind.name, kind.found if isinstance(kind, Unused) else kind.kind, kind.missing, kind.treatment)
            for kind in self.kinds
        ]

    def __str__(self) -> str:
        """Return the table as text, a line for each column."""
        rows = [("column", "kind", "missing", "what is done")]
        rows += [
            (row.name, row.kind, f"{row.missing:.1%}" if row.missing else "", row.treatment) for row in self.table()
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join(
            f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {missing:>{widths[2]}}  {treatment}"
            for name, kind, missing, treatment in rows
        )

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the inputs of the network.

        Parameters
        ----------
        X : data frame or array_like of shape (n_samples, n_features)
            As for `fit`. The columns of a frame are found by their names, in any order and among others; columns that
            are left out need not be there.

        Returns
        -------
        ndarray of shape (n_samples, n_inputs), float32

        Raises
        ------
        CellError
            If a cell is not what its column holds, e.g. text among numbers.
        ValueError
            If columns are missing; the message names them all.
        """
        used = [kind for kind in self.kinds if kind.used]
        frame = self._used_part(as_frame(X), [kind.name for kind in used])
        cells = read_columns([kind.name for kind in used], frame, self._missing)
        raw = _encoded(used, cells, len(frame))[:, self._kept]
        with np.errstate(over="ignore"):
            scaled = (raw - self._center[self._kept]) * self._factor[self._kept]
        scaled[np.isnan(scaled)] = 0.0
        np.clip(scaled, -FAR, FAR, out=scaled)
        n_scaled = scaled.shape[1] - len(self.layout[2])
        scaled[:, :n_scaled] /= np.sqrt(1 + (scaled[:, :n_scaled] / 3) ** 2)
        return np.asarray(scaled, np.float32)

    def _used_part(self, frame: Any, used: list[str]) -> Any:
        """Return the columns that are used, in the order of `used`, after checking that all are there."""
        own, given = self.names, _names(frame)
        if not (self.named and _has_names(frame)):
            if len(given) != len(own):
                raise ValueError(f"X has {len(given)} features, but Columns is expecting {len(own)} features as input")
            return frame if len(used) == len(own) else frame.iloc[:, [own.index(name) for name in used]]
        if given == used:
            return frame
        places = {name: i for i, name in enumerate(given)}
        missing = [name for name in used if name not in places]
        if missing:
            some = "column" if len(missing) == 1 else "columns"
            raise ValueError(
                f"X lacks the {some} {', '.join(map(repr, missing))} (it has {', '.join(map(repr, given))}); "
                "give all columns of the training but those that are left out, in any order"
            )
        _refuse_duplicates([name for name in given if name in set(used)])
        return frame.iloc[:, [places[name] for name in used]]

    # --- files -----------------------------------------------------------------------------------------------------

    def to_plain(self) -> dict[str, Any]:
        """Return everything that `transform` needs as JSON values."""
        spelled = self.asked.missing_values
        return {
            "columns": [kind.to_plain() for kind in self.kinds],
            "named": self.named,
            "center": self._center.tolist(),
            "factor": self._factor.tolist(),
            "missing_values": [value.item() if isinstance(value, np.generic) else value for value in spelled],
            "max_categories": self.max_categories,
            "most_one_hot": self.most_one_hot,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Columns:
        """Return the columns that `to_plain` described; they give the same inputs, bit for bit.

        Raises
        ------
        RefusedError, ValueError, LookupError
            If `plain` describes none.
        """
        COLUMNS.check(plain, "columns")
        columns = cls(
            missing_values=plain["missing_values"],
            max_categories=plain["max_categories"],
            most_one_hot=plain["most_one_hot"],
        )
        columns.kinds, columns.named = tuple(map(kind_from_plain, plain["columns"])), plain["named"]
        _refuse_duplicates(columns.names)
        center, factor = (np.array(plain[name], np.float64) for name in ("center", "factor"))
        n_inputs = sum(len(kind.inputs()) for kind in columns.kinds) or 1
        if center.shape != (n_inputs,) or factor.shape != (n_inputs,):
            raise ValueError(f"the scaling of the columns has shape {center.shape}, expected {n_inputs} numbers")
        columns._take_scaling(center, factor)
        return columns


# --- frames --------------------------------------------------------------------------------------------------------


def is_frame(X: Any) -> bool:
    """Whether `X` is a table with columns of their own types, rather than an array."""
    return hasattr(X, "columns") or hasattr(X, "column_names") or hasattr(X, "__dataframe__")


def as_frame(X: Any) -> Any:
    """Return a data frame of any library, or an array, as a pandas DataFrame.

    Raises
    ------
    ValueError
        If `X` is neither a frame nor two-dimensional.
    """
    if isinstance(X, pd.DataFrame):
        return X
    if is_frame(X):
        if hasattr(X, "to_pandas"):
            return X.to_pandas()
        with warnings.catch_warnings():  # pandas 3 deprecates the protocol, which is all that some frames have
            warnings.simplefilter("ignore")
            return pd.api.interchange.from_dataframe(X)
    array = with_gaps(X)
    if array.ndim != 2:
        raise ValueError(f"X: got shape {array.shape}, expected a data frame or an array (n_samples, n_features)")
    return pd.DataFrame(array)


def with_gaps(X: Any) -> Array:
    """Return an array in which what a masked array masks is missing: NaN among numbers, else None."""
    if not isinstance(X, np.ma.MaskedArray):
        return np.asarray(X)
    masked = np.ma.getmaskarray(X)
    if not masked.any():
        return np.asarray(X)
    numeric = X.dtype.kind in "biuf"
    array = np.array(X.data, np.result_type(X.dtype, np.float32) if numeric else object)
    array[masked] = np.nan if numeric else None
    return array


def _names(frame: Any) -> list[str]:
    return [str(name) for name in frame.columns]


def _has_names(frame: Any) -> bool:
    """Whether the columns have names; numbers are none, as for scikit-learn."""
    return all(isinstance(name, str) for name in frame.columns)


def _refuse_duplicates(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"X has several columns of the name {', '.join(map(repr, twice))}; give each its own name")


def _selected(option: str, given: Any, names: Sequence[str], named: bool) -> list[str]:
    """Return the names of the columns that an option selects."""
    if given is None:
        return []
    chosen = [given] if isinstance(given, str) else list(np.asarray(given, dtype=object).ravel())
    if chosen and all(isinstance(one, (bool, np.bool_)) for one in chosen):
        if len(chosen) != len(names):
            raise ValueError(f"{option}: got a mask of {len(chosen)} entries, expected {len(names)}, one a column")
        return [name for name, one in zip(names, chosen, strict=True) if one]
    selected = []
    for one in chosen:
        if isinstance(one, str) and named:
            if one not in names:
                raise ValueError(f"{option}: {unknown_name('column', one, names)}")
            selected.append(one)
        elif isinstance(one, (int, np.integer)) and -len(names) <= one < len(names):
            selected.append(names[int(one)])
        else:
            what = "names or positions" if named else "positions, because the columns have no names,"
            raise ValueError(f"{option}: got {one!r}, expected {what} of the {len(names)} columns")
    return selected


# --- numbers -------------------------------------------------------------------------------------------------------


def _encoded(kinds: Sequence[Kind], cells: Sequence[Cells], n_rows: int | None = None) -> Array:
    """Return the inputs of all columns before scaling; NaN where there is nothing to say."""
    n_rows = len(cells[0].missing) if n_rows is None else n_rows
    parts = [kind.encode(own) for kind, own in zip(kinds, cells, strict=True) if kind.used]
    return np.concatenate(parts, axis=1) if parts else np.zeros((n_rows, 1))


def _repeated_gaps(kinds: Sequence[Kind], raw: Array) -> list[int]:
    """Return the inputs that say where gaps are, and say the same as another one before."""
    seen: set[bytes] = set()
    repeated, end = [], 0
    for kind in kinds:
        end += len(kind.inputs())
        if isinstance(kind, Number | Date) and kind.gaps:
            gaps = raw[:, end - 1].tobytes()
            if gaps in seen:
                repeated.append(end - 1)
            seen.add(gaps)
    return repeated


def _scaling(raw: Array) -> tuple[Array, Array]:
    """Return what is subtracted from each input, and the factor: 0 for an input that is constant."""
    empty = np.isnan(raw).all(axis=0)
    known = np.where(empty, 0.0, raw)
    low, q25, median, q75, high = np.nanquantile(known, [0, 0.25, 0.5, 0.75, 1], axis=0)
    spread = np.where(q75 > q25, q75 - q25, (high - low) / 2)
    # Of a column of equal numbers, rounding errors make up the whole spread.
    usable = (spread > 0) & np.isfinite(spread)
    factor = np.divide(1.0, spread, out=np.zeros_like(spread), where=usable)
    return median, np.where(np.isfinite(factor), factor, 0.0)
