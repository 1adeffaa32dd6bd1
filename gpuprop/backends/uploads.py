"""Data sets that several trainings begin with, brought to a GPU once.

An ensemble, a search or a cross-validation begins many trainings on the same arrays of the host, one after the other.
While they begin nobody changes these arrays, so that the first upload serves all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from gpuprop.arrays import equal_numbers, is_sparse

__all__ = ["uploaded", "uploads_shared"]

#: For each upload its device, the array of the host, and that of the device; None outside of `uploads_shared`.
_uploads: ContextVar[list[tuple[object, Any, Any]] | None] = ContextVar("uploads", default=None)


@contextmanager
def uploads_shared() -> Iterator[None]:
    """Let uploads of equal arrays share their arrays of the device, in this block; nobody may write to either."""
    token = _uploads.set([])
    try:
        yield
    finally:
        _uploads.reset(token)


def uploaded(device: object, arrays: tuple[Any, ...], upload: Callable[[tuple[Any, ...]], Any]) -> tuple[Any, ...]:
    """Return these arrays of the host on the device: those of earlier uploads, and for the rest what `upload` returns.

    A data set lies in one place: where `upload` leaves only a part of it on the host, it is called for all arrays.
    """
    known = _uploads.get()
    if known is None or any(is_sparse(array) for array in arrays):
        return tuple(upload(arrays))
    there = {place: _earlier(known, device, array) for place, array in enumerate(arrays)}
    missing = [place for place, array in enumerate(arrays) if there[place] is None and array is not None]
    if missing:
        new = upload(tuple(arrays[place] for place in missing))
        there.update(zip(missing, new, strict=True))
        if len({type(array) for array in there.values() if array is not None}) > 1:
            return tuple(upload(arrays))
        known += [(device, arrays[place], there[place]) for place in missing]
    return tuple(there[place] for place in range(len(arrays)))


def _earlier(known: list[tuple[object, Any, Any]], device: object, array: Any) -> Any:
    """Return an earlier upload of equal numbers to this device, or None."""
    if array is None:
        return None
    return next((there for where, here, there in known if where is device and equal_numbers(array, here)), None)
