"""Forms: what values the metadata of a model file may hold at a place, by kind; everything else is refused.

A form describes a value, and `Form.check` refuses one that does not fit, naming its place in the file. Tuples count as
lists, because `gpuprop.estimators.plain_values.revived` makes tuples of them.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpuprop.model.refusals import refuse, shown

__all__ = [
    "FLAG",
    "FLOAT",
    "NONE",
    "SCALAR",
    "TEXT",
    "Either",
    "Fields",
    "Form",
    "Items",
    "Named",
    "Real",
    "Whole",
    "Word",
]


class Form(ABC):
    """What a value must be."""

    @property
    @abstractmethod
    def expected(self) -> str:
        """What fits, for a message."""

    @abstractmethod
    def fits(self, value: Any) -> bool:
        """Return whether a value is what this form says, without looking into it."""

    def check(self, value: Any, place: str) -> None:
        """Refuse a value that does not fit, within `gpuprop.model.refusals.naming`.

        Raises
        ------
        RefusedError
            It names `place`.
        """
        if not self.fits(value):
            refuse(f"{place}: got {shown(value)}, expected {self.expected}")


@dataclass(frozen=True)
class _Of(Form):
    """A value of some types."""

    types: tuple[type, ...]
    expected: str = ""

    def fits(self, value: Any) -> bool:
        return type(value) in self.types


@dataclass(frozen=True)
class Whole(Form):
    """An integer between two bounds."""

    least: int = -(2**63)
    most: int = 2**63 - 1

    @property
    def expected(self) -> str:
        """What fits, for a message."""
        return f"an integer from {self.least} to {self.most}"

    def fits(self, value: Any) -> bool:
        """Return whether this is such an integer; a truth value is none."""
        return type(value) is int and self.least <= value <= self.most


@dataclass(frozen=True)
class Real(Form):
    """A finite number between two bounds."""

    least: float = -sys.float_info.max
    most: float = sys.float_info.max

    @property
    def expected(self) -> str:
        """What fits, for a message."""
        most = "" if self.most == sys.float_info.max else f" and at most {self.most:g}"
        least = "" if self.least == -sys.float_info.max else f" of at least {self.least:g}"
        return f"a finite number{least}{most}"

    def fits(self, value: Any) -> bool:
        """Return whether this is such a number; a truth value is none."""
        return type(value) in (int, float) and self.least <= value <= self.most


@dataclass(frozen=True)
class Word(Form):
    """One of some texts."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        """What fits, for a message."""
        return " or ".join(map(repr, self.words))

    def fits(self, value: Any) -> bool:
        """Return whether this is one of them."""
        return type(value) is str and value in self.words


TEXT = _Of((str,), "text")
FLAG = _Of((bool,), "true or false")
NONE = _Of((type(None),), "null")
FLOAT = _Of((int, float), "a number")  # also NaN and infinity, for which files have names
SCALAR = _Of((int, float, bool, str, type(None)), "a number, text, true, false or null")


@dataclass(frozen=True)
class Either(Form):
    """A value of one of several forms; of two forms of lists, the first."""

    forms: tuple[Form, ...]

    def __init__(self, *forms: Form) -> None:
        object.__setattr__(self, "forms", forms)

    @property
    def expected(self) -> str:
        """What fits, for a message."""
        return " or ".join(form.expected for form in self.forms)

    def fits(self, value: Any) -> bool:
        """Return whether one of the forms fits."""
        return any(form.fits(value) for form in self.forms)

    def check(self, value: Any, place: str) -> None:
        """Refuse a value that fits none of the forms, or whose content does not fit the first that does."""
        super().check(value, place)
        next(form for form in self.forms if form.fits(value)).check(value, place)


@dataclass(frozen=True)
class Items(Form):
    """A list of values of one form."""

    form: Form
    least: int = 0
    most: int | None = None

    @property
    def expected(self) -> str:
        """What fits, for a message."""
        count = f" of {self.least}" if self.least == self.most else f" of {self.least} or more" if self.least else ""
        return f"a list{count}, each {self.form.expected}"

    def fits(self, value: Any) -> bool:
        """Return whether this is a list of the right length."""
        return (
            type(value) in (list, tuple) and self.least <= len(value) and (self.most is None or len(value) <= self.most)
        )

    def check(self, value: Any, place: str) -> None:
        """Refuse another value, or a list with an item that does not fit."""
        super().check(value, place)
        for i, item in enumerate(value):
            self.form.check(item, f"{place}[{i}]")


@dataclass(frozen=True)
class Named(Form):
    """An object of values of one form, or of any, under any names."""

    form: Form | None = None

    expected = "an object"

    def fits(self, value: Any) -> bool:
        """Return whether this is an object whose keys are text."""
        return type(value) is dict and all(type(key) is str for key in value)

    def check(self, value: Any, place: str) -> None:
        """Refuse another value, or an object with a value that does not fit."""
        super().check(value, place)
        if self.form is not None:
            for key, item in value.items():
                self.form.check(item, f"{place}.{key}")


@dataclass(frozen=True)
class Fields(Form):
    """An object of fields, each with a form of its own; others are refused.

    Attributes
    ----------
    required, optional : mapping of str to Form
    """

    required: Mapping[str, Form] = field(default_factory=dict)
    optional: Mapping[str, Form] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        """What fits, for a message."""
        return f"an object with {', '.join(self.required) or 'any fields'}"

    def fits(self, value: Any) -> bool:
        """Return whether this is an object."""
        return type(value) is dict

    def check(self, value: Any, place: str) -> None:
        """Refuse another value, an object that lacks a field or has an unknown one, or a field that does not fit."""
        super().check(value, place)
        known = {**self.optional, **self.required}
        for name, item in value.items():
            if name not in known:
                refuse(f"{place} holds an unknown {shown(name)}; upgrade gpuprop if a later version wrote the file")
            known[name].check(item, f"{place}.{name}")
        for name in self.required:
            if name not in value:
                refuse(f"{place}.{name} is missing")
