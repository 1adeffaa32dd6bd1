"""The kinds of columns in a table, and the inputs of a network that each becomes.

Each kind turns the cells of its column into inputs before scaling: an array (n_samples, n_inputs) with NaN where there
is nothing to say. `gpuprop.estimators.columns` scales them, and replaces NaN by 0, the median.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpuprop.estimators.cells import (
    DATE_FORMATS,
    Cells,
    Numbers,
    Spelled,
    as_moments,
    as_numbers,
    as_spelled,
    spelling_of,
)
from gpuprop.model.forms import FLAG, NONE, TEXT, Either, Fields, Form, Items, Real, Word

__all__ = [
    "FORMS",
    "KINDS",
    "PARTS",
    "Boolean",
    "Category",
    "Date",
    "Kind",
    "Number",
    "Role",
    "Unused",
    "kind_from_plain",
    "truth_values",
]

#: What an input is: a number of its own meaning, one that stays as it is, or the code of a category.
Role = Literal["number", "plain", "code"]

Array = NDArray[np.float64]

#: The parts of a date that go in circles: the places in the year, in the week and in the day.
PARTS = ("month", "weekday", "hour")

#: Spellings of no and yes, in lower case, in pairs.
_TRUTHS = (("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"), ("off", "on"), ("0", "1"))


@dataclass(frozen=True)
class _Kind:
    """What all kinds have.

    Attributes
    ----------
    name : str
        The column's name.
    missing : float
        The share of cells that were missing when the column was found.
    """

    kind: ClassVar[str]
    used: ClassVar[bool] = True

    name: str
    missing: float

    def to_plain(self) -> dict[str, Any]:
        """Return the column as JSON values; see `kind_from_plain`."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Number(_Kind):
    """Numbers: one input, and for `gaps` another one, 1 for a gap and 0 otherwise."""

    kind: ClassVar[str] = "number"

    gaps: bool

    @property
    def treatment(self) -> str:
        """What is done with the column, for a reader."""
        return "scaled" + (", an input for gaps" if self.gaps else "")

    def inputs(self) -> dict[str, Role]:
        """Return the names of the inputs, and what each is."""
        return _inputs(self.name, [], self.gaps)

    def encode(self, cells: Cells) -> Array:
        """Return the inputs before scaling, (n_samples, n_inputs)."""
        numbers = as_numbers(self.name, cells)
        return _with_gaps(numbers.values[:, None], numbers.missing, self.gaps)


@dataclass(frozen=True)
class Boolean(_Kind):
    """Truth values: one input, 1 for true, -1 for false, 0 for a gap; any usual spelling of them is understood."""

    kind: ClassVar[str] = "boolean"

    values: tuple[str, str]

    @property
    def treatment(self) -> str:
        """What is done with the column, for a reader."""
        no, yes = self.values
        return f"{yes} is 1, {no} is -1" + (", a gap is 0" if self.missing else "")

    def inputs(self) -> dict[str, Role]:
        """Return the names of the inputs, and what each is."""
        return {self.name: "plain"}

    def encode(self, cells: Cells) -> Array:
        """Return the inputs before scaling, (n_samples, 1)."""
        spelled = as_spelled(cells)
        signs = {word: sign for pair in _TRUTHS for word, sign in zip(pair, (-1.0, 1.0), strict=True)}
        values = [signs.get(spelling.lower(), 0.0) for spelling in spelled.spellings]
        return np.append(np.array(values, np.float64), 0.0)[spelled.codes][:, None]


@dataclass(frozen=True)
class Category(_Kind):
    """Values without an order: one input for each of `values`, 1 where the cell has it and 0 otherwise.

    Two values share one input, -1 and 1. A gap is 0 everywhere; so is a value that was not seen in training, unless
    `rest` says that all values but the frequent ones share an input. A `coded` category is a single input instead, the
    number of the value from 1, and 0 for a gap, which a network embeds.
    """

    kind: ClassVar[str] = "category"

    values: tuple[str, ...]
    rest: bool = False
    coded: bool = False

    @property
    def n_codes(self) -> int:
        """How many codes there are, 0 for a gap included."""
        return len(self.values) + self.rest + 1

    @property
    def in_one(self) -> bool:
        """Whether both values share one input."""
        return len(self.values) == 2 and not self.rest

    @property
    def treatment(self) -> str:
        """What is done with the column, for a reader."""
        if self.in_one:
            return f"{self.values[1]} is 1, {self.values[0]} is -1" + (", a gap is 0" if self.missing else "")
        how = "embedded" if self.coded else "one-hot"
        if self.rest:
            return f"{how}, its {len(self.values)} frequent values and an input for all others"
        return f"{how}, {len(self.values)} value{'s' if len(self.values) > 1 else ''}"

    def inputs(self) -> dict[str, Role]:
        """Return the names of the inputs, and what each is."""
        if self.coded:
            return {self.name: "code"}
        if self.in_one:
            return {f"{self.name}={self.values[1]}": "plain"}
        names = [f"{self.name}={value}" for value in self.values] + ([f"{self.name} has another value"] * self.rest)
        return dict.fromkeys(names, "plain")

    def encode(self, cells: Cells) -> Array:
        """Return the inputs before scaling, (n_samples, n_inputs)."""
        spelled = as_spelled(cells)
        places = {value: i for i, value in enumerate(self.values)}
        if isinstance(cells, Numbers):  # "007" of the training may have become 7 in another file
            places = {_number_in(value): i for value, i in places.items()} | places
        of_spelling = np.array([places.get(one, -1 - self.rest) for one in spelled.spellings], np.intp)
        chosen = np.append(of_spelling, -1)[spelled.codes]
        if self.coded:  # -1, a gap, is 0, and -2, all other values, comes last
            return np.asarray(np.where(chosen < -1, self.n_codes - 1, chosen + 1)[:, None], np.float64)
        if self.in_one:
            return np.asarray(np.array([-1.0, 1.0, 0.0])[chosen][:, None], np.float64)
        # The last row but one belongs to all other values (-2), the last row to a gap (-1).
        width = len(self.values) + self.rest
        rows = np.vstack(
            [np.eye(len(self.values), width), np.eye(1, width, width - 1) * self.rest, np.zeros((1, width))]
        )
        return np.asarray(rows[chosen], np.float64)


@dataclass(frozen=True)
class Text(Category):
    """Text of many values: those that are frequent are treated as a category, and all others share an input."""

    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Date(_Kind):
    """Moments: days since 1970-01-01, and the `parts` that go in circles, each as sine and cosine.

    Parts are "month" (the place in the year), "weekday" and "hour" (the place in the day). For `gaps` there is another
    input, 1 for a gap and 0 otherwise.
    """

    kind: ClassVar[str] = "date"

    format: str | None
    parts: tuple[str, ...]
    gaps: bool

    @property
    def treatment(self) -> str:
        """What is done with the column, for a reader."""
        spelled = "" if self.format in (None, "ISO8601") else f", read as {self.format}"
        circles = f", {', '.join(self.parts)} as sine and cosine" if self.parts else ""
        return f"days{circles}{', an input for gaps' if self.gaps else ''}{spelled}"

    def inputs(self) -> dict[str, Role]:
        """Return the names of the inputs, and what each is."""
        circles = [f"{self.name}: {part} ({wave})" for part in self.parts for wave in ("sine", "cosine")]
        return _inputs(self.name, circles, self.gaps)

    def encode(self, cells: Cells) -> Array:
        """Return the inputs before scaling, (n_samples, n_inputs)."""
        moments = as_moments(self.name, cells, self.format)
        angles = [2 * np.pi * turns(moments.days, part) for part in self.parts]
        circles = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
        return _with_gaps(np.column_stack([moments.days, *circles]), moments.missing, self.gaps)


@dataclass(frozen=True)
class Unused(_Kind):
    """A column that is left out: `found` says as what ("identifier", "constant", "text", "left out"), `reason` why."""

    used: ClassVar[bool] = False
    kind: ClassVar[str] = "unused"

    found: str
    reason: str

    @property
    def treatment(self) -> str:
        """What is done with the column, for a reader."""
        return f"left out: {self.reason}"

    def inputs(self) -> dict[str, Role]:
        """Return the names of the inputs: none."""
        return {}

    def encode(self, cells: Cells) -> Array:
        """Return no inputs, (n_samples, 0)."""
        return np.empty((len(cells.missing), 0))


Kind: TypeAlias = Number | Boolean | Category | Text | Date | Unused

#: All kinds by their names in files.
KINDS: dict[str, type[Kind]] = {kind.kind: kind for kind in (Number, Boolean, Category, Text, Date, Unused)}


_OWN: dict[str, dict[str, Form]] = {
    "number": {"gaps": FLAG},
    "boolean": {"values": Items(TEXT, 2, 2)},
    "category": {"values": Items(TEXT), "rest": FLAG, "coded": FLAG},
    "text": {"values": Items(TEXT), "rest": FLAG, "coded": FLAG},
    "date": {"format": Either(NONE, Word(DATE_FORMATS)), "parts": Items(Word(PARTS)), "gaps": FLAG},
    "unused": {"found": TEXT, "reason": TEXT},
}
#: What ``to_plain`` of each kind gives.
FORMS = {kind: Fields({"kind": TEXT, "name": TEXT, "missing": Real(0, 1), **own}) for kind, own in _OWN.items()}


def kind_from_plain(plain: Mapping[str, Any]) -> Kind:
    """Return the column that ``to_plain`` described.

    Raises
    ------
    RefusedError, ValueError, LookupError
        If it describes none.
    """
    FORMS[plain["kind"]].check(plain, f"the {plain['kind']} column")
    content: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
    }
    kind = KINDS[content.pop("kind")]
    for name, value in content.items():
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError(f"{name} of column {content['name']!r}: got {value!r}, expected different texts")
    return kind(**content)


def truth_values(spelled: Spelled) -> tuple[str, str] | None:
    """Return the spellings of false and true if the values are one of the usual pairs, or None."""
    own = {spelling.lower(): spelling for spelling in spelled.spellings}
    for no, yes in _TRUTHS:
        if set(own) == {no, yes} and len(spelled.spellings) == 2:
            return own[no], own[yes]
    return None


def turns(days: Array, part: str) -> Array:
    """Return the place in the year ("month"), the week ("weekday") or the day ("hour"): from 0 to 1, NaN for a gap."""
    whole = np.floor(days)
    if part == "hour":
        return days - whole
    if part == "weekday":
        return (whole + 3) % 7 / 7  # 1970-01-01 was a Thursday; 0 is Monday
    known = np.isfinite(whole)
    date = np.where(known, whole, 0).astype(np.int64).astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    length = (month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")
    through = (date - month.astype("datetime64[D]")) / length
    return np.where(known, (month.astype(np.int64) % 12 + through) / 12, np.nan)


def _number_in(text: str) -> str:
    """Return the spelling of the number that `text` stands for, or `text` itself."""
    try:
        return spelling_of(float(text))
    except (ValueError, OverflowError):  # no number, or none that is finite
        return text


def _inputs(name: str, others: list[str], gaps: bool) -> dict[str, Role]:
    """Return the inputs of a number: itself, the others that belong to it, and where its gaps are."""
    inputs: dict[str, Role] = {name: "number"}
    return inputs | dict.fromkeys([*others, *([f"{name} is missing"] * gaps)], "plain")


def _with_gaps(inputs: Array, missing: NDArray[np.bool_], gaps: bool) -> Array:
    return np.column_stack([inputs, missing]) if gaps else inputs
