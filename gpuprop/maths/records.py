"""What records of activations and losses have in common: names with a parameter, and what makes two of them equal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from gpuprop.errors import unknown_name

__all__ = ["base_name", "comparable", "named", "numbered"]

Record = TypeVar("Record")


def base_name(name: str) -> str:
    """Return a name without its parameter: ``leaky_relu`` of ``leaky_relu(0.2)``."""
    return name.partition("(")[0]


def numbered(name: str, value: float, default: float) -> str:
    """Return a name with its parameter, or alone where the parameter is the default one."""
    return name if value == default else f"{name}({value!r})"


def comparable(value: Any) -> Any:
    """Return what stands for a field in a comparison: partials of one function with equal arguments are equal."""
    if not isinstance(value, partial):
        return value
    return value.func, value.args, {name: comparable(argument) for name, argument in value.keywords.items()}


def named(
    kind: str,
    name: Any,
    known: Mapping[str, Record],
    parametric: Mapping[str, Callable[[float], Record]],
    suggested: Any = None,
) -> Record:
    """Return the record of a name such as ``"relu"`` or ``"leaky_relu(0.2)"``.

    Parameters
    ----------
    kind : str
        What it names, for the error: "activation" or "loss".
    name : str
    known : mapping of str to record
    parametric : mapping of str to callable
        ``make(parameter)`` for those whose names take one.
    suggested : iterable of str or None
        The names that an error lists, where they are not all that are known.

    Raises
    ------
    ValueError
        If there is no such record, or the parameter is out of its range.
    """
    match = re.fullmatch(r"(\w+)\(([^()]+)\)", str(name).replace(" ", ""))
    if match and match[1] in parametric:
        try:
            return parametric[match[1]](float(match[2]))
        except ValueError as error:
            raise ValueError(f"{kind} {name!r}: {error}") from None
    if name not in known:
        raise unknown_name(kind, name, known if suggested is None else suggested)
    return known[name]
