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
        Floating-point operations a second, by dtype; a multiply-add counts as two. "tf32" and "bf16", where they are
        known, are those of dense products on tensor cores with float32 sums.
    bandwidth : float
        Bytes a second, reads and writes together.
    source : str
        Where the figures come from.
    multiprocessors : int, default=1
        So many blocks of a product are computed at the same time.
    """

    name: str
    flops: dict[str, float]
    bandwidth: float
    source: str
    multiprocessors: int = 1

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


def _sheet(name: str, teraflops: dict[str, float], gigabytes: float, multiprocessors: int, source: str) -> Roof:
    rates = {kind: rate * 1e12 for kind, rate in teraflops.items()}
    return Roof(name, rates, gigabytes * 1e9, source, multiprocessors)


DEVICES = (
    _sheet("NVIDIA T4", {"float32": 8.1, "float64": 0.25}, 320, 40, "NVIDIA T4 datasheet (float64: 1/32 of float32)"),
    _sheet(
        "NVIDIA A100 40GB",
        {"float32": 19.5, "float64": 9.7, "tf32": 156, "bf16": 312},
        1555,
        108,
        "NVIDIA A100 datasheet; tensor cores without sparsity",
    ),
    _sheet(
        "NVIDIA GeForce RTX 4090",
        {"float32": 82.6, "float64": 1.3, "tf32": 82.6, "bf16": 165.2},
        1008,
        128,
        "NVIDIA Ada GPU architecture whitepaper, boost clock; tensor cores without sparsity",
    ),
    _sheet(
        "NVIDIA H100 SXM",
        {"float32": 66.9, "float64": 33.5, "tf32": 494.7, "bf16": 989.4},
        3350,
        132,
        "NVIDIA H100 datasheet; tensor cores without sparsity",
    ),
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
