"""The checks that all readers share: that a file is one, that it fits into memory, that its numbers are finite."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpuprop.errors import DataError, printable

# Deflate spends at least 2 bits on 258 bytes of output, so that no valid stream grows by more than this factor
# (zlib, "Technical details": 1032:1). A header that declares more is false, which a reader knows without unpacking.
DEFLATE_MAX_RATIO = 1032

# What a compressed file may grow to, unless the user allows more: data of any use are rarely packed 200 to 1, and half
# a gigabyte harms nobody.
MOST_RATIO = 200
FREE_BYTES = 2**29
MAX_UNPACKED = "GPUPROP_MAX_UNPACKED"
"""The environment variable that allows more bytes, or fewer, for all commands."""
_UNITS = {"": 1, "B": 1, "K": 10**3, "KB": 10**3, "M": 10**6, "MB": 10**6, "G": 10**9, "GB": 10**9, "T": 10**12}


def data_error(source: object, message: object) -> DataError:
    """Return the error for a data source: its name, then the message, on one printable line."""
    return DataError(printable(" ".join(f"{source}: {message}".split())))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def listed(names: Sequence[object], limit: int = 8) -> str:
    """Return the names as text, at most ``limit`` of them."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return f"{shown}, and {len(names) - limit} more" if len(names) > limit else shown


def open_file(path: Path) -> tuple[BinaryIO, int]:
    """Open a regular, non-empty file for reading.

    Returns
    -------
    stream : BinaryIO
        The open file, for the caller to close.
    n_bytes : int
        Its size.

    Raises
    ------
    DataError
        If it is missing, a folder, not a regular file, unreadable or empty.
    """
    try:
        state = path.stat()
        if stat.S_ISREG(state.st_mode):  # a read from a pipe or a terminal could wait forever
            stream = path.open("rb")
    except FileNotFoundError:
        raise data_error(path, "no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise data_error(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(state.st_mode):
        kind = "a folder" if stat.S_ISDIR(state.st_mode) else "not a regular file"
        raise data_error(path, f"is {kind}, expected a file")
    n_bytes = state.st_size
    if n_bytes == 0:
        stream.close()
        raise data_error(path, "is empty (0 bytes)")
    return stream, n_bytes


def check_file(path: Path) -> int:
    """Check as ``open_file`` does, for a reader that opens the file itself; return the size in bytes."""
    stream, n_bytes = open_file(path)
    stream.close()
    refuse_oversized(path, n_bytes)
    return n_bytes


def physical_memory() -> int | None:
    """Return the machine's memory in bytes, or None if the system does not tell (Windows)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def refuse_oversized(source: object, n_bytes: int) -> None:
    """Raise ``DataError`` if ``n_bytes`` exceed the machine's memory; readers call this before they allocate."""
    memory = physical_memory()
    if memory is not None and n_bytes > memory:
        raise data_error(source, f"holds {n_bytes} bytes of data, expected at most this machine's {memory} bytes")


def refuse_unpacked(source: object, n_bytes: int, n_packed: int, most: int | None) -> None:
    """Raise ``DataError`` if compressed data grow beyond the limit; readers call this before they unpack.

    Parameters
    ----------
    source : object
    n_bytes : int
        The bytes that the file says it holds, or that came out of it so far.
    n_packed : int
        The bytes of the file.
    most : int or None
        The most bytes that the user allows. None takes the variable `MAX_UNPACKED`, and without it `FREE_BYTES`, or
        `MOST_RATIO` times the file if that is more.
    """
    refuse_oversized(source, n_bytes)
    limit = most or _limit_of_all() or max(FREE_BYTES, MOST_RATIO * n_packed)
    if n_bytes > limit:
        raise data_error(
            source,
            f"is compressed, and its {n_packed} bytes unpack to {n_bytes} or more, expected at most {limit}; if you "
            f"trust the file, allow more with {MAX_UNPACKED}={n_bytes} (in Python: max_unpacked={n_bytes})",
        )


def _limit_of_all() -> int | None:
    """Return the limit of the environment variable, e.g. 4GB, or None."""
    said = os.environ.get(MAX_UNPACKED, "").strip()
    if not said:
        return None
    found = re.fullmatch(r"(\d+)\s*([A-Z]*)", said.upper())
    if found is None or found[2] not in _UNITS or int(found[1]) == 0:
        raise DataError(printable(f"{MAX_UNPACKED}: got {said!r}, expected a number of bytes such as 800MB or 4GB"))
    return int(found[1]) * _UNITS[found[2]]


def refuse_nonfinite(
    source: object,
    values: NDArray[Any],
    place: Callable[[int], str],
    column_name: Callable[[int], str],
) -> None:
    """Raise ``DataError`` naming row and column of the first NaN or infinity in ``values`` (n,) or (n, K)."""
    if values.dtype.kind != "f":
        return
    finite = np.isfinite(values)
    if finite.all():
        return
    row, column = np.argwhere(~finite.reshape(len(values), -1))[0]
    value = values.reshape(len(values), -1)[row, column]
    got = "a missing value or NaN" if np.isnan(value) else str(value)
    raise data_error(
        source,
        f"{place(int(row))}, {column_name(int(column))}: got {got}, expected a finite number; "
        "replace it, or remove the row",
    )


def as_features(values: NDArray[Any]) -> NDArray[Any]:
    """Return values of shape (n, ...) as the matrix X (n, n_features) in the smallest dtype that training takes.

    Images are flattened. uint8, float32 and float64 stay as they are; bool becomes uint8; float16 and integers of
    8 and 16 bits become float32, which holds them exactly; larger integers become float64 (exact up to 2**53).
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    dtype: np.dtype[Any]
    if kind == "b" or (kind == "u" and size == 1):
        dtype = np.dtype(np.uint8)
    elif kind == "f" and size >= 4:
        dtype = values.dtype.newbyteorder("=")
    else:
        dtype = np.dtype(np.float32 if size <= 2 else np.float64)
    return np.ascontiguousarray(values, dtype=dtype).reshape(len(values), -1)
