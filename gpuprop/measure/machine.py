"""The machine: its device with figures, the versions of everything involved, and whether its times count.

The reports of ``gpuprop selfcheck`` and ``gpuprop bench`` begin with this.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast

from gpuprop.errors import GpupropError

if TYPE_CHECKING:
    from gpuprop.backends.cuda.ops import CudaOps
    from gpuprop.core.ops import Ops

__all__ = ["as_cuda", "clock_fault", "describe", "versions"]

PACKAGES = (
    "numpy", "scikit-learn", "numba", "numba-cuda", "cupy", "cupy-cuda12x", "cupy-cuda13x", "torch", "jax",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of gpuprop, Python, the operating system, and the packages that are installed."""
    from gpuprop.version import __version__

    found = {"gpuprop": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def as_cuda(ops: Ops) -> CudaOps | None:
    """Return the backend if it runs CUDA kernels, else None; nothing is imported to find out."""
    return cast("CudaOps", ops) if ops.backend == "cuda" else None


def describe(ops: Ops) -> dict[str, Any]:
    """Return what is known about the device of a backend.

    Returns
    -------
    dict
        "device" and "name"; of a GPU also "compute_capability", "memory_bytes", "multiprocessors", "l2_bytes", "uuid",
        "cuda_driver" and "cuda_runtime" (the CUDA versions that driver and runtime are for), and, where ``nvidia-smi``
        knows them, "driver", "max_clock_mhz" and "power_limit_w". All values are text or numbers.
    """
    if ops.device == "cuda-sim":
        return {"device": ops.device, "name": "Numba's simulator of CUDA"}
    if not ops.device.startswith("cuda"):
        return {"device": ops.device, "name": _processor(), "processors": len(_usable_processors())}
    runtime, index = _cuda(ops)
    found = runtime.getDeviceProperties(index)
    numbers = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    cuda_driver, cuda_runtime = (f"{number // 1000}.{number % 1000 // 10}" for number in numbers)
    return {
        "device": ops.device,
        "name": found["name"].decode(),
        "compute_capability": f"{found['major']}.{found['minor']}",
        "memory_bytes": int(found["totalGlobalMem"]),
        "multiprocessors": int(found["multiProcessorCount"]),
        "l2_bytes": int(found["l2CacheSize"]),
        "uuid": _uuid(ops),
        "cuda_driver": cuda_driver,
        "cuda_runtime": cuda_runtime,
        **_asked_of_nvidia_smi(_uuid(ops)),
    }


def clock_fault(ops: Ops) -> str | None:
    """Return in one line why times taken on this device must not be shown; None if they count.

    A time counts as a GPU's if NVIDIA's own tool lists the very device that computed.
    """
    if ops.device == "cuda-sim":
        return "the simulator's times say nothing about a GPU"
    if not ops.device.startswith("cuda"):
        return None
    uuid = _uuid(ops)
    if uuid in _nvidia_smi("-L"):
        return None
    return f"nvidia-smi does not list a device {uuid}: without that, times do not count as a GPU's"


def _cuda(ops: Ops) -> tuple[Any, int]:
    """Return CuPy's runtime module and the number of the GPU."""
    cuda = as_cuda(ops)
    if cuda is None:
        raise GpupropError(
            f"got device {ops.device!r} on backend {ops.backend!r}, expected gpuprop's own backend, cuda"
        )
    return cuda.runtime.xp.cuda.runtime, int(ops.device.partition(":")[2] or 0)


def _uuid(ops: Ops) -> str:
    """Return the GPU's identity as nvidia-smi writes it, without the prefix (which differs for a part of a GPU).

    It comes from Numba: CuPy's properties cut it off at its first zero byte.
    """
    from numba import cuda

    return str(cuda.gpus[_cuda(ops)[1]].uuid).partition("-")[2]


def _nvidia_smi(*arguments: str) -> str:
    """Return what nvidia-smi prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout


def _asked_of_nvidia_smi(uuid: str) -> dict[str, str]:
    """Return the figures that only nvidia-smi knows; none for a device that it does not list."""
    if uuid not in _nvidia_smi("-L"):
        return {}
    fields = {"driver": "driver_version", "max_clock_mhz": "clocks.max.sm", "power_limit_w": "power.limit"}
    said = _nvidia_smi(f"--query-gpu=uuid,{','.join(fields.values())}", "--format=csv,noheader,nounits")
    rows = [[part.strip() for part in line.split(",")] for line in said.splitlines()]
    # A part of a GPU has no line of its own; the driver is the same for all.
    values = next((row[1:] for row in rows if row[0] == f"GPU-{uuid}"), rows[0][1:2] if rows else [])
    return {name: value for name, value in zip(fields, values, strict=False) if not value.startswith("[")}


def _processor() -> str:
    """Return the processor's model, where the system names it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  (not a file of the user's)
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _usable_processors() -> set[int] | range:
    """Return the processors that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
