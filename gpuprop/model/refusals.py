"""How readers and writers of model files refuse: a fault becomes a `ModelFileError`, one line that names the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from gpuprop.errors import ModelFileError, printable

__all__ = ["RefusedError", "naming", "one_line", "refuse", "refusing", "shown"]


class RefusedError(ValueError):
    """A fault of a file; `naming` puts the file's name in front of it."""


def refuse(fault: str) -> NoReturn:
    """Raise a `RefusedError`; the caller runs within `naming`, which adds the name of the file."""
    raise RefusedError(fault)


@contextmanager
def naming(path: str | os.PathLike[str], done: str) -> Iterator[None]:
    """Turn every fault of the file `path`, and every failure to access it, into a ModelFileError that names it."""
    try:
        yield
    except RefusedError as fault:
        raise ModelFileError(f"{one_line(path)}: {fault}") from None
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise ModelFileError(f"{one_line(path)}: cannot be {done}: {reason}") from error
    except RecursionError:
        raise ModelFileError(f"{one_line(path)}: its JSON is nested too deeply") from None
    except MemoryError as error:
        raise ModelFileError(f"{one_line(path)}: cannot be {done}: not enough memory for it") from error


@contextmanager
def refusing(given: str, what: str) -> Iterator[None]:
    """Refuse parameters or metadata from which a network, an estimator or an ensemble cannot be built."""
    try:
        yield
    except RefusedError:
        raise
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        refuse(f"its {given} do not make {what}: {one_line(error)}")


def shown(value: object) -> str:
    """Return a short printable form of a value that a file contains."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(value: object) -> str:
    """Return the text of `value` on one printable line of at most 1000 characters."""
    return printable(" ".join(str(value).splitlines()))[:1000]
