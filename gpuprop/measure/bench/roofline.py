"""The peak rates of a device: measured on a device that is here, taken from data sheets for others.

A floor is arithmetic, not a measurement: the larger of operations / peak and bytes / bandwidth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.measure.bench.measure import Contender, Spread

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from gpuprop.measure.bench.measure import Clock

__all__ = ["DEVICES", "Roof", "Work", "measure_roof", "step_work"]


@dataclass(frozen=True)
class Roof:
    """Peak rates of a device.

    Attributes
    ----------
    name : str
    flops : dict of str to float
        Floating-point operations a second, by dtype; a multiply-add counts as two.
    bandwidth : float
        Bytes a second, reads and writes together.
    source : str
        Where the figures come from.
    """

    name: str
    flops: dict[str, float]
    bandwidth: float
    source: str

    def floor(self, work: Work, dtype: DTypeLike) -> float:
        """Return the seconds that this work takes at least."""
        return max(work.flops / self.flops[np.dtype(dtype).name], work.bytes / self.bandwidth)

    def entry(self, dtype: DTypeLike) -> dict[str, Any]:
        """Return the rates for a dtype as JSON values."""
        return {
            "flops": self.flops[np.dtype(dtype).name],
            "bytes_per_second": self.bandwidth,
            "source": self.source,
        }


@dataclass(frozen=True)
class Work:
    """Floating-point operations, and bytes that must at least be moved between memory and chip."""

    flops: float
    bytes: float


def _sheet(name: str, single: float, double: float, gigabytes: float, source: str) -> Roof:
    return Roof(name, {"float32": single * 1e12, "float64": double * 1e12}, gigabytes * 1e9, source)


DEVICES = (
    _sheet("NVIDIA T4", 8.1, 0.25, 320, "NVIDIA T4 datasheet (float64: 1/32 of float32)"),
    _sheet("NVIDIA A100 40GB", 19.5, 9.7, 1555, "NVIDIA A100 datasheet, without tensor cores"),
    _sheet("NVIDIA GeForce RTX 4090", 82.6, 1.3, 1008, "NVIDIA Ada GPU architecture whitepaper, boost clock"),
    _sheet("NVIDIA H100 SXM", 66.9, 33.5, 3350, "NVIDIA H100 datasheet, without tensor cores"),
)
"""Some GPUs that gpuprop is meant for."""


def measure_roof(xp: Any, clock: Clock, dtype: DTypeLike, *, rounds: int = 7, size: int, copied: int) -> Roof:
    """Measure a device: the rate of a large product by its library, and the bandwidth of a copy beyond its caches.

    Parameters
    ----------
    xp : module
        NumPy or CuPy.
    clock : Clock
    dtype : dtype
    rounds, size, copied : int
        Samples, the best of which counts; rows of the square matrices; bytes to copy.
    """
    n = copied // np.dtype(dtype).itemsize
    a, b, product = (xp.ones((size, size), dtype) for _ in range(3))
    source, target = xp.ones(n, dtype), xp.zeros(n, dtype)
    contenders = (
        Contender("product", lambda: xp.matmul(a, b, out=product), dict),
        Contender("copy", lambda: xp.copyto(target, source), dict),
    )
    best = {}
    for contender in contenders:
        sample = clock.prepare(contender, cold=True)
        best[contender.name] = min(sample() for _ in range(rounds))
    return Roof(
        "this device",
        {np.dtype(dtype).name: 2.0 * size**3 / best["product"]},
        2.0 * source.nbytes / best["copy"],
        f"measured: a product of {size}x{size} matrices, and a copy of {source.nbytes / 2**20:.0f} MiB",
    )


def step_work(sizes: Sequence[int], batch_size: int, itemsize: int, state_arrays: int) -> Work:
    """Return the work of one update: three products for each layer, two for the first, and the bytes to move.

    The rows of the batch are read as bytes, and parameters and optimizer state are read and written, each once.
    """
    products = [2.0 * batch_size * fan_in * fan_out for fan_in, fan_out in pairwise(sizes)]
    parameters = sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))
    moved = 2 * (1 + state_arrays) * parameters * itemsize + batch_size * (sizes[0] + itemsize)
    return Work(3 * sum(products) - products[0], moved)


def rates(work: Work, spread: Spread) -> tuple[float, float]:
    """Return GFLOP/s and GB/s of the median call."""
    return work.flops / spread.p50 * 1e-9, work.bytes / spread.p50 * 1e-9
