"""Data sets larger than a GPU's share for them: chunks of rows that travel while the chunk before is worked on.

::

    host       rows of chunk k + 1 --gathered by the epoch's order--> pinned buffer (k + 1) % 2
    copies                                                            pinned buffer --> device buffer (k + 1) % 2
    updates    chunk k, in device buffer k % 2 ...................... chunk k + 1

Two buffers on either side, and events between the three: a copy waits until the updates that read its device buffer are
done, updates wait for the copy of their rows, and only the host waits for a copy before it overwrites what is copied.
The rows of a chunk lie in the epoch's order, so that updates find the numbers that they find in a resident data set.

`gpuprop.backends.cuda.residence` says which data sets are streamed. A chunk holds whole updates, as many as fit: two
chunks take no more than the data may take. Rows of a sparse matrix become dense chunk by chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import is_sparse
from gpuprop.backends.cuda.residence import ENVIRONMENT_VARIABLE, HostRows, data_memory, row_bytes
from gpuprop.errors import DeviceMemoryError
from gpuprop_kernels.arguments import INDEX_LIMIT
from gpuprop_kernels.launch import row_pitch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gpuprop.backends.cuda.array_ops import CudaArrays
    from gpuprop.core.array_ops import Array

__all__ = ["RowStream", "open_stream"]


def open_stream(ops: CudaArrays, arrays: Sequence[HostRows | None], update_size: int, most_updates: int) -> RowStream:
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
        int(min(limit / (2 * update_size * row_bytes(hosts)), most_updates)),
        (INDEX_LIMIT - 1) // (widest * update_size),
    )
    while n_updates:
        try:
            return RowStream(ops, hosts, n_updates * update_size)
        except DeviceMemoryError:
            n_updates //= 2
    needed, free = 2 * update_size * row_bytes(hosts) / 2**20, ops.runtime.free_memory() / 2**20
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

    def __init__(self, ops: CudaArrays, hosts: list[Any], chunk_rows: int) -> None:
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
        """Bring the rows of a chunk to the device, unless it holds them; later work waits for them."""
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
        """Note that all work on a chunk has been started, and begin to bring the next one."""
        self._read[chunk % 2] = self._runtime.mark()
        self.fetch(chunk + 1)
