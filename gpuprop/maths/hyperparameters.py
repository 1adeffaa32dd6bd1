"""Hyperparameters as data: a default, and the interval that a value must lie in.

Optimizers and schedules are frozen dataclasses whose fields are declared with :func:`hyperparameter`; one
function checks them all, so that every wrong value gets the same kind of error.
"""

from __future__ import annotations

from dataclasses import Field, field, fields
from numbers import Integral, Real
from typing import Any

__all__ = ["check_hyperparameters", "hyperparameter"]


def hyperparameter(default: float, interval: str) -> Any:
    """Declare a numeric field of a dataclass.

    Parameters
    ----------
    default : float or int
        An int makes it a whole number.
    interval : str
        The values allowed, in the usual notation, e.g. ``"[0, 1)"`` or ``"(0, inf)"``.
    """
    return field(default=default, metadata={"interval": interval})


def check_hyperparameters(owner: Any) -> None:
    """Check every declared field of a dataclass instance; to be called by its ``__post_init__``.

    Values become plain Python numbers: a NumPy float64 scalar would promote float32 arithmetic to float64.

    Raises
    ------
    ValueError
        If a value is not a number, or lies outside its interval; NaN always does.
    """
    for declared in fields(owner):
        if "interval" in declared.metadata:
            object.__setattr__(owner, declared.name, _checked(owner, declared))


def _checked(owner: Any, declared: Field[Any]) -> int | float:
    value, default, interval = getattr(owner, declared.name), declared.default, declared.metadata["interval"]
    whole = isinstance(default, int)
    is_number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not is_number or not _lies_in(float(value), interval):
        raise ValueError(
            f"{type(owner).__name__} got {declared.name}={value!r}, expected {'an integer' if whole else 'a number'} "
            f"in {interval}; leave it out for the default {default!r}"
        )
    return int(value) if whole else float(value)


def _lies_in(value: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    return above and below
