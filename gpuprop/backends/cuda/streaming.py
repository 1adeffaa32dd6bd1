"""Data sets larger than a GPU's share for them: chunks of rows that travel while the chunk before is worked on.

::

    host       rows of chunk k + 1 --gathered by the epoch's order--> pinned buffer (k + 1) % 2
    copies                                                            pinned buffer --> device buffer (k + 1) % 2
    updates    chunk k, in device buffer k % 2 ...................... chunk k + 1

Two buffers on either side, and events between the three: a copy waits until the updates that read its device buffer are
done, updates wait for the copy of their rows, and only the host waits for a copy before it overwrites what is copied.
The rows of a chunk lie in the epoch's order, so that updates find the numbers that they find in a resident data set.

The rule: a data set is resident if it takes no more than GPUPROP_DATA_MEMORY (bytes, or a number with K, M or G), by
default four fifths of what is free, and every array has fewer than 2**31 elements. Otherwise, or if its upload runs
out of memory, it is streamed, in chunks of whole updates of which two take no more than that. A sparse matrix is always
streamed: it stays CSR on the host, and its rows become dense chunk by chunk.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import is_sparse
from gpuprop.errors import DeviceMemoryError
from gpuprop_kernels.arguments import INDEX_LIMIT
from gpuprop_kernels.launch import row_pitch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gpuprop.backends.cuda.ops import CudaOps
    from gpuprop.backends.cuda.runtime import Runtime
    from gpuprop.core.ops import Array

__all__ = ["ENVIRONMENT_VARIABLE", "HostRows", "RowStream", "data_memory", "fits", "open_stream"]

ENVIRONMENT_VARIABLE = "GPUPROP_DATA_MEMORY"
"""Bytes of a GPU's memory that a data set may take, e.g. ``500M``; empty counts as not set."""

FREE_SHARE = 0.8
"""Of the free memory, where the variable is not set: the rest is for the workspace of a training."""


class HostRows:
    """A part of a data set that stays on the host: inputs, targets or sample weights.

    Parameters
    ----------
    host : ndarray of shape (n_samples,) or (n_samples, n_columns), or CSR matrix
    """

    def __init__(self, host: Any) -> None:
        self.host = host
        self.shape, self.dtype, self.ndim = host.shape, host.dtype, host.ndim

    def take(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return some rows, dense."""
        taken = self.host[rows]
        dense: NDArray[Any] = taken.toarray() if is_sparse(taken) else taken
        return dense


def data_memory(runtime: Runtime) -> float:
    """Return the bytes that a data set may take on a device; infinite where nothing limits them.

    Raises
    ------
    ValueError
        If GPUPROP_DATA_MEMORY is not a number of bytes.
    """
    given = os.environ.get(ENVIRONMENT_VARIABLE)
    if not given:
        return FREE_SHARE * runtime.free_memory()
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMG]?)(?:i?B)?", given.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{ENVIRONMENT_VARIABLE}: got {given!r}, expected bytes such as 500000000, 500M or 2G")
    return float(match[1]) * float(1024 ** " KMG".index(match[2].upper() or " "))


def _row_bytes(arrays: Sequence[Any]) -> int:
    """Return the bytes of a row of all these arrays together as a device lays them out."""
    return sum(
        (row_pitch(a.shape[1], a.dtype) if a.ndim == 2 else 1) * a.dtype.itemsize for a in arrays if a is not None
    )


def fits(runtime: Runtime, arrays: Sequence[Any]) -> bool:
    """Return whether these arrays of the host may become resident."""
    n_rows = arrays[0].shape[0]
    small = all(a is None or a.ndim < 2 or n_rows * row_pitch(a.shape[1], a.dtype) < INDEX_LIMIT for a in arrays)
    return small and n_rows * _row_bytes(arrays) <= data_memory(runtime)


def open_stream(ops: CudaOps, arrays: Sequence[HostRows | None], update_size: int, most_updates: int) -> RowStream:
    """Return a stream whose chunks are as many whole updates as there is room for, at most `most_updates`.

    Raises
    ------
    DeviceMemoryError
        If there is no room for two updates; the message says what was needed, what is free, and what to lower.
    """
    hosts = [None if a is None else a.host for a in arrays]
    limit = data_memory(ops.runtime)
    widest = max(row_pitch(a.shape[1], a.dtype) for a in hosts if a is not None and a.ndim == 2)
    n_updates = min(
        most_updates,
        int(min(limit / (2 * update_size * _row_bytes(hosts)), most_updates)),
        (INDEX_LIMIT - 1) // (widest * update_size),
    )
    while n_updates:
        try:
            return RowStream(ops, hosts, n_updates * update_size)
        except DeviceMemoryError:
            n_updates //= 2
    needed, free = 2 * update_size * _row_bytes(hosts) / 2**20, ops.runtime.free_memory() / 2**20
    raise DeviceMemoryError(
        f"{ops.device}: two updates of {update_size:,} rows need {needed:,.1f} MiB for their data, which may take "
        f"{limit / 2**20:,.1f} MiB ({free:,.0f} MiB are free); lower batch_size or accumulation_steps, or raise "
        f"{ENVIRONMENT_VARIABLE}"
    )


class RowStream:
    """Chunks of an epoch's rows in two buffers of a device.

    Parameters
    ----------
    ops : CudaOps
    hosts : list of ndarray, CSR matrix or None
        Inputs, targets and sample weights.
    chunk_rows : int
        Rows of a chunk, but for the last one.

    Attributes
    ----------
    buffers : two lists of arrays or None
        On the device, in the order of `hosts`: chunk k is in ``buffers[k % 2]``.
    """

    def __init__(self, ops: CudaOps, hosts: list[Any], chunk_rows: int) -> None:
        self._runtime, self._hosts, self.chunk_rows = ops.runtime, hosts, chunk_rows
        shapes = [None if a is None else (chunk_rows, *a.shape[1:]) for a in hosts]
        dtypes = [None if a is None else a.dtype for a in hosts]

        def arrays(make: Any) -> list[Any]:
            return [None if s is None else make(s, t) for s, t in zip(shapes, dtypes, strict=True)]

        self.buffers: list[list[Array | None]] = [arrays(ops.empty) for _ in range(2)]
        whole = [[None if a is None else ops.whole(a) for a in buffer] for buffer in self.buffers]
        self._whole = whole
        self._pinned = [[None if a is None else ops.runtime.pinned(a.shape, a.dtype) for a in pair] for pair in whole]
        self._copied: list[Any] = [None, None]
        self._read = [ops.runtime.mark()] * 2

    def begin(self, order: NDArray[np.int32], weight: NDArray[Any] | None) -> None:
        """Begin an epoch in this order, with these sample weights."""
        self._order, self._present = order, -1
        if weight is not None:
            self._hosts[2] = weight

    def fetch(self, chunk: int) -> None:
        """Have the rows of a chunk there for the work that is asked for from now on, unless they are."""
        if chunk == self._present or chunk * self.chunk_rows >= len(self._order):
            return
        self._present, place = chunk, chunk % 2
        rows = self._order[chunk * self.chunk_rows : (chunk + 1) * self.chunk_rows]
        if self._copied[place] is not None:
            self._copied[place].synchronize()
        for host, pinned in zip(self._hosts, self._pinned[place], strict=True):
            if host is None or pinned is None:
                continue
            out = pinned[: len(rows)] if host.ndim == 1 else pinned[: len(rows), : host.shape[1]]
            if is_sparse(host):
                out[...] = host[rows].toarray()
            else:
                np.take(host, rows, axis=0, out=out, mode="clip")
        pairs = [(p, w) for p, w in zip(self._pinned[place], self._whole[place], strict=True) if p is not None]
        self._copied[place] = self._runtime.send(pairs, self._read[place])

    def leave(self, chunk: int) -> None:
        """Say that all work on a chunk has been asked for; begin to bring the next one."""
        self._read[chunk % 2] = self._runtime.mark()
        self.fetch(chunk + 1)
