"""The array library and the clock that go with a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.measure.bench.measure import Clock, DeviceClock, HostClock
from gpuprop.measure.machine import as_cuda

if TYPE_CHECKING:
    from gpuprop.core.ops import Ops

__all__ = ["clock", "namespace"]


def namespace(ops: Ops) -> Any:
    """Return CuPy for a GPU, else NumPy."""
    cuda = as_cuda(ops)
    return cuda.runtime.xp if cuda else np


def clock(ops: Ops) -> Clock:
    """Return the clock that times single calls on the device."""
    cuda = as_cuda(ops)
    return DeviceClock(cuda) if cuda and ops.device != "cuda-sim" else HostClock()
