"""What measuring needs of a backend: its array library and a clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gpuprop.measure.bench.measure import Clock, DeviceClock, HostClock

if TYPE_CHECKING:
    from gpuprop.backends.cuda.ops import CudaOps
    from gpuprop.core.ops import Ops

__all__ = ["as_cuda", "clock", "namespace"]


def as_cuda(ops: Ops) -> CudaOps | None:
    """Return the backend if it runs CUDA kernels, else None; nothing is imported to find out."""
    return cast("CudaOps", ops) if ops.backend == "cuda" else None


def namespace(ops: Ops) -> Any:
    """Return CuPy for a GPU, else NumPy."""
    cuda = as_cuda(ops)
    return cuda.runtime.xp if cuda else np


def clock(ops: Ops) -> Clock:
    """Return the clock that times single calls on the device."""
    cuda = as_cuda(ops)
    return DeviceClock(cuda) if cuda and ops.device != "cuda-sim" else HostClock()
