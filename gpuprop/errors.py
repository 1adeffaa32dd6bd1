"""The errors that gpuprop raises beside ``ValueError`` and ``TypeError``.

Every message has one shape: what was got, what was expected, what to do. The command line prints them as one
line, so none of them contains a line break.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BackendUnavailableError",
    "DataError",
    "GpupropError",
    "ModelFileError",
    "NonFiniteLossError",
    "unknown_name",
]


class GpupropError(Exception):
    """Base class of gpuprop's own errors."""


class BackendUnavailableError(GpupropError, RuntimeError):
    """A device was asked for by name and cannot be used; the message says what to install."""


class DataError(GpupropError, ValueError):
    """A data set or a data file is not what it should be; names file, place and expectation."""


class ModelFileError(GpupropError, ValueError):
    """A model file is truncated, corrupted, oversized, hostile or of an unknown format."""


class NonFiniteLossError(GpupropError, ArithmeticError):
    """Training met a NaN or an infinity.

    Attributes
    ----------
    epoch, step : int
        Where it began, counted from 1; ``step`` counts the updates within the epoch.
    layer : str
        The first place, in the order of the algorithm, that held a non-finite number.
    """

    def __init__(self, message: str, *, epoch: int, step: int, layer: str) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.layer = layer


def unknown_name(kind: str, name: object, known: Iterable[str]) -> ValueError:
    """Return the ``ValueError`` for a name that is not known, suggesting the nearest known one.

    Parameters
    ----------
    kind : str
        What the name stands for, e.g. ``"activation"``.
    name : object
        What was given.
    known : iterable of str
        The names that exist.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), names, n=3, cutoff=0.5)
    near.sort(key=lambda other: sorted(other) != sorted(str(name).lower()))  # two letters exchanged: the likeliest slip
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"unknown {kind} {name!r}{hint} (known: {', '.join(names)})")
