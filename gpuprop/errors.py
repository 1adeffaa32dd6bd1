"""The errors that gpuprop raises beside ``ValueError`` and ``TypeError``.

Every message has one shape: what was got, what was expected, what to do. The command line prints them as one
line, so none of them contains a line break.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from signal import Signals
from typing import Any

import numpy as np

__all__ = [
    "BackendUnavailableError",
    "CommunicatorError",
    "DataError",
    "DeviceError",
    "DeviceMemoryError",
    "GpupropError",
    "ModelFileError",
    "NonFiniteLossError",
    "PlanError",
    "ResumeError",
    "TrainingEnded",
    "check_integer",
    "check_real",
    "printable",
    "unknown_name",
]

# Everything by which a text could give a terminal orders, or change the order of what is read: the controls of ASCII
# and of ISO 8859 but tab and line feed, Unicode's separators of lines, and its embeddings, overrides and isolates.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class GpupropError(Exception):
    """Base class of gpuprop's own errors.

    Examples
    --------
    >>> import gpuprop
    >>> try:
    ...     gpuprop.load("no-such-model.safetensors")
    ... except gpuprop.GpupropError as error:
    ...     print(type(error).__name__)
    ModelFileError
    """


class BackendUnavailableError(GpupropError, RuntimeError):
    """A device was asked for by name and cannot be used; the message says what to install.

    Examples
    --------
    >>> import gpuprop
    >>> try:
    ...     gpuprop.Network((2, 1), device="cuda:99")
    ... except gpuprop.BackendUnavailableError as error:
    ...     print("cuda" in str(error))
    True
    """


class CommunicatorError(GpupropError, RuntimeError):
    """The processes of a training cannot go on together; the message says which of them has failed, or differs.

    Examples
    --------
    >>> import gpuprop
    >>> issubclass(gpuprop.CommunicatorError, gpuprop.GpupropError)
    True
    """


class DeviceError(GpupropError, RuntimeError):
    """A GPU failed in the middle of its work; what was on it is lost.

    Examples
    --------
    >>> import gpuprop
    >>> issubclass(gpuprop.DeviceError, gpuprop.GpupropError)
    True
    """


class DeviceMemoryError(GpupropError, MemoryError):
    """The memory of a GPU does not suffice; the message says what was needed and what to make smaller.

    Examples
    --------
    >>> import gpuprop
    >>> issubclass(gpuprop.DeviceMemoryError, gpuprop.GpupropError)
    True
    """


class DataError(GpupropError, ValueError):
    """A data set or a data file is not what it should be; names file, place and expectation.

    Examples
    --------
    >>> import gpuprop
    >>> try:
    ...     gpuprop.datasets.load("no-such-file.csv")
    ... except gpuprop.DataError as error:
    ...     print(str(error)[:16])
    no-such-file.csv
    """


class ModelFileError(GpupropError, ValueError):
    """A model file is truncated, corrupted, oversized, hostile or of an unknown format.

    Examples
    --------
    >>> import gpuprop
    >>> try:
    ...     gpuprop.load("no-such-model.safetensors")
    ... except gpuprop.ModelFileError as error:
    ...     print(str(error)[:13])
    no-such-model
    """


class PlanError(GpupropError, ValueError):
    """A path that was asked for by name cannot make the updates of a training; the message says why.

    Examples
    --------
    >>> import gpuprop
    >>> issubclass(gpuprop.PlanError, gpuprop.GpupropError)
    True
    """


class ResumeError(GpupropError, ValueError):
    """A training cannot go on from where another one stood; the message names each difference.

    Examples
    --------
    >>> import gpuprop
    >>> issubclass(gpuprop.ResumeError, gpuprop.GpupropError)
    True
    """


class TrainingEnded(GpupropError, RuntimeError):  # noqa: N818  # an end that was asked for is no error
    """A signal has asked a training to end; parameters and optimizer are those of the last completed epoch.

    Attributes
    ----------
    signal : signal.Signals
        SIGTERM, SIGHUP or SIGUSR1.

    Examples
    --------
    >>> import signal
    >>> import gpuprop
    >>> gpuprop.TrainingEnded("ended by SIGTERM", signal=signal.SIGTERM).signal.name
    'SIGTERM'
    """

    def __init__(self, message: str, *, signal: Signals) -> None:
        super().__init__(message)
        self.signal = signal


class NonFiniteLossError(GpupropError, ArithmeticError):
    """Training met a NaN or an infinity.

    Attributes
    ----------
    epoch, step : int
        Where it began, counted from 1; ``step`` counts the updates within the epoch.
    layer : str
        The first place, in the order of the algorithm, that held a non-finite number.

    Examples
    --------
    >>> import gpuprop
    >>> issubclass(gpuprop.NonFiniteLossError, gpuprop.GpupropError)
    True
    """

    def __init__(self, message: str, *, epoch: int, step: int, layer: str) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.step = step
        self.layer = layer


def printable(text: str) -> str:
    r"""Return a text with its control characters as Python spells them: a terminal shows them and obeys none.

    Tabs and line feeds stay. The function is for whatever a file may have brought into a text: labels, names of
    columns and files, the messages of other libraries.

    Examples
    --------
    >>> from gpuprop.errors import printable
    >>> print(printable("a\x1b[31mb"))
    a\x1b[31mb
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


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


def check_integer(name: str, value: object, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`, or raise ``TypeError`` / ``ValueError``."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: got {value!r}, expected an integer of at least {minimum}")
    if value < minimum:
        raise ValueError(f"{name}: got {value}, expected an integer of at least {minimum}")
    return int(value)


def check_real(
    name: str,
    value: Any,
    minimum: float,
    maximum: float = np.inf,
    *,
    open_minimum: bool = False,
    open_maximum: bool = False,
) -> float:
    """Return `value` as a finite float between the bounds, or raise ``TypeError`` / ``ValueError``."""
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: got {value!r}, expected a number")
    number = float(value)
    below = number <= minimum if open_minimum else number < minimum
    above = number >= maximum if open_maximum else number > maximum
    if not np.isfinite(number) or below or above:
        upper = "" if maximum == np.inf else f" and {'below' if open_maximum else 'at most'} {maximum:g}"
        lower = "above" if open_minimum else "at least"
        raise ValueError(f"{name}: got {value}, expected a finite number {lower} {minimum:g}{upper}")
    return number
