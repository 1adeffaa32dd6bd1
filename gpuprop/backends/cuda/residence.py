"""Whether a data set lives on the device, and how much of the device's memory it may take.

A data set is resident if it takes no more than GPUPROP_DATA_MEMORY (bytes, or a number with K, M or G), by default four
fifths of what is free, and if every array has fewer than 2**31 elements. Otherwise, or if its upload runs out of
memory, it stays on the host as `HostRows` and is streamed. A sparse matrix always stays on the host, as CSR.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from gpuprop.arrays import is_sparse
from gpuprop_kernels.arguments import INDEX_LIMIT
from gpuprop_kernels.launch import row_pitch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gpuprop.backends.cuda.runtime import Runtime

__all__ = ["ENVIRONMENT_VARIABLE", "HostRows", "data_memory", "fits", "row_bytes"]

ENVIRONMENT_VARIABLE = "GPUPROP_DATA_MEMORY"
"""Bytes of a GPU's memory that a data set may take, e.g. ``500M``; empty counts as not set."""

FREE_SHARE = 0.8
"""The share of the free memory that data may take if the variable is not set; a training's workspace takes the rest."""


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
        """Return these rows as a dense array."""
        taken = self.host[rows]
        dense: NDArray[Any] = taken.toarray() if is_sparse(taken) else taken
        return dense


def data_memory(runtime: Runtime) -> float:
    """Return the bytes that a data set may take on a device; infinity if nothing limits them.

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


def row_bytes(arrays: Sequence[Any]) -> int:
    """Return the bytes that one row of all these arrays takes in the layout of a device."""
    return sum(
        (row_pitch(a.shape[1], a.dtype) if a.ndim == 2 else 1) * a.dtype.itemsize for a in arrays if a is not None
    )


def fits(runtime: Runtime, arrays: Sequence[Any]) -> bool:
    """Return whether these arrays of the host may be copied to the device and stay there."""
    n_rows = arrays[0].shape[0]
    small = all(a is None or a.ndim < 2 or n_rows * row_pitch(a.shape[1], a.dtype) < INDEX_LIMIT for a in arrays)
    return small and n_rows * row_bytes(arrays) <= data_memory(runtime)
