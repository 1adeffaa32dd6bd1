"""What measuring needs of a backend: its array library, the context of its stream, a clock."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gpuprop.bench.measure import Clock, DeviceClock, HostClock

if TYPE_CHECKING:
    from gpuprop.backends.cuda_ops import CudaOps
    from gpuprop.backends.ops import Ops

__all__ = ["active", "as_cuda", "clock", "namespace"]


def as_cuda(ops: Ops) -> CudaOps | None:
    """Return the backend if it runs CUDA kernels, else None; nothing is imported to find out."""
    return cast("CudaOps", ops) if ops.backend == "cuda" else None


def namespace(ops: Ops) -> Any:
    """Return CuPy for a GPU, else NumPy."""
    cuda = as_cuda(ops)
    return cuda.runtime.xp if cuda else np


def active(ops: Ops) -> AbstractContextManager[None]:
    """Return the context in which the library's calls go to the device and its stream."""
    cuda = as_cuda(ops)
    return cuda.runtime.active() if cuda else nullcontext()


def clock(ops: Ops) -> Clock:
    """Return the clock that times single calls on the device."""
    cuda = as_cuda(ops)
    return DeviceClock(cuda) if cuda and ops.device != "cuda-sim" else HostClock()
