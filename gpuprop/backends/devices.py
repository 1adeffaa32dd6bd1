"""Devices: their names, which of them this machine can use, and which one ``auto`` chooses.

Names: ``cpu`` (NumPy with compiled loops; plain NumPy where Numba is missing), ``numpy`` (always plain NumPy), ``cuda``
(the first NVIDIA GPU; processes that ``mpirun`` has started take the GPUs of their machine in turn), ``cuda:N``,
``cuda-sim`` (the CUDA kernels in Numba's simulator, for learning and testing) and ``auto`` (a GPU if one works, else
``cpu``; never the simulator). The environment variable GPUPROP_DEVICE overrides whatever name a program asks for.

Only ``auto`` falls back to another device, and it says why. Importing this module imports neither CuPy nor Numba.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from gpuprop.backends.installed import (
    INSTALL_CUDA,
    import_fault,
    loops_fault,
    nvidia_device_found,
    root_cause,
    versions,
)
from gpuprop.errors import BackendUnavailableError, unknown_name

if TYPE_CHECKING:
    from gpuprop.backends.cuda.runtime import Runtime
    from gpuprop.core.plan import Backend, Plan
    from gpuprop.core.updates import Training

__all__ = [
    "DEVICES",
    "ENVIRONMENT_VARIABLE",
    "Availability",
    "Choice",
    "availability",
    "choose",
    "get_ops",
    "host_ops",
    "plan",
    "resolve",
]

DEVICES = ("auto", "cpu", "numpy", "cuda", "cuda:N", "cuda-sim")
"""The names that a user may give for a device; N is the number of a GPU, counted from 0."""

ENVIRONMENT_VARIABLE = "GPUPROP_DEVICE"
"""This environment variable overrides the device that a program asks for; an empty value counts as not set."""

_OLDEST_CUPY, _OLDEST_NUMBA_CUDA = (14, 2), (0, 30)
_SIMULATOR_VARIABLE = "NUMBA_ENABLE_CUDASIM"

# Launchers of processes tell each of them its number among those of its machine: MPICH, Open MPI, Slurm's srun.
_LOCAL_RANK_VARIABLES = ("MPI_LOCALRANKID", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")

# Names that other programs use for the same devices; they serve to suggest the right one.
_OTHER_NAMES = {"gpu": "cuda", "nvidia": "cuda", "host": "cpu", "sim": "cuda-sim", "simulator": "cuda-sim"}


@dataclass(frozen=True)
class Choice:
    """A device that can be used.

    Attributes
    ----------
    device : str
        Its name, never ``auto``; for a GPU always with its number.
    backend : str
        The library that computes on it, e.g. ``"numpy"``.
    reason : str
        One line that says what was chosen and why.

    Examples
    --------
    >>> import gpuprop
    >>> gpuprop.backends.choose("numpy").device
    'numpy'
    """

    device: str
    backend: str
    reason: str


@dataclass(frozen=True)
class Availability:
    """What this machine can do with one device.

    Attributes
    ----------
    device : str
        Its name.
    usable : bool
        Whether a network can be put there.
    reason : str
        One line: what it is, or why it cannot be used and what to install.
    versions : dict of str to str
        The distributions that the device needs, with their versions; one that is not installed is left out.

    Examples
    --------
    >>> import gpuprop
    >>> [found.usable for found in gpuprop.backends.availability() if found.device == "numpy"]
    [True]
    """

    device: str
    usable: bool
    reason: str
    versions: dict[str, str] = field(default_factory=dict)


def choose(device: str = "auto") -> Choice:
    """Return the device that a request for `device` gets on this machine.

    Parameters
    ----------
    device : str, default="auto"
        One of `DEVICES`. GPUPROP_DEVICE, where it is set, takes its place.

    Returns
    -------
    Choice
        The device, its backend, and the reason in one line.

    Raises
    ------
    ValueError
        If the name is unknown or malformed; TypeError if it is not a string.
    BackendUnavailableError
        If a device other than ``auto`` was asked for and cannot be used; the message says what is missing.

    Examples
    --------
    >>> import gpuprop
    >>> gpuprop.backends.choose("numpy").device
    'numpy'
    """
    name, reason = resolve(device)
    if name != "cpu":
        return Choice(name, name.partition("-")[0].partition(":")[0], reason)
    fault = loops_fault()
    return Choice("cpu", "numpy" if fault else "numba", f"{reason}; plain NumPy: {fault}" if fault else reason)


def get_ops(device: str = "auto") -> Backend:
    """Return the primitives of the device that `choose` picks for `device`; the errors are those of `choose`.

    Raises
    ------
    BackendUnavailableError
        If a device that was asked for by name cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuprop
    >>> ops = gpuprop.backends.get_ops("numpy")
    >>> ops.to_numpy(ops.asarray(np.array([1.0, 2.0]), np.dtype("float64"))).tolist()
    [1.0, 2.0]
    """
    name, _ = resolve(device)
    if name.startswith("cuda"):
        from gpuprop.backends.cuda.emulated import EmulatingOps
        from gpuprop.backends.cuda.ops import CudaOps

        runtime = _runtime(name)
        return CudaOps(runtime) if _has_tensor_cores(runtime) else EmulatingOps(runtime)
    if name == "cpu":
        from gpuprop.backends.cpu.ops import CpuOps

        return CpuOps()
    from gpuprop.backends.numpy.ops import NumpyOps

    return NumpyOps(device=name)


def _has_tensor_cores(runtime: Runtime) -> bool:
    """Whether the device multiplies in the precisions of `gpuprop.core.precision`: since compute capability 8.0."""
    return runtime.device != "cuda-sim" and runtime.capability >= (8, 0)


def host_ops() -> Backend:
    """Return plain NumPy under the name "cpu"; it works whatever has failed, and ignores GPUPROP_DEVICE."""
    from gpuprop.backends.numpy.ops import NumpyOps

    return NumpyOps("cpu")


def plan(trainings: Sequence[Training], *, want: str = "auto") -> Plan:
    """Let the backend of a training, or of several of one shape, choose how their updates are made.

    See `gpuprop.core.plan.Backend.plan` for arguments and errors.
    """
    return cast("Backend", trainings[0].layers.ops).plan(trainings, want=want)


@functools.cache
def _runtime(name: str) -> Runtime:
    """Return the runtime of a device: all networks on the device share one runtime, and so one stream."""
    from gpuprop.backends.cuda.runtime import DeviceRuntime, SimulatorRuntime

    return SimulatorRuntime() if name == "cuda-sim" else DeviceRuntime(_gpu_index(name))


def resolve(device: str) -> tuple[str, str]:
    """Return the name of the device that `choose` picks, and the reason; choosing ``cpu`` does not import Numba.

    Raises
    ------
    ValueError
        If there is no such device.
    BackendUnavailableError
        If a device that was asked for by name cannot be used.

    Examples
    --------
    >>> import gpuprop
    >>> gpuprop.backends.resolve("numpy")[0]
    'numpy'
    """
    override = os.environ.get(ENVIRONMENT_VARIABLE)
    asked = ENVIRONMENT_VARIABLE if override else "device"
    name = _checked_name(override or device, asked)
    if name in ("cpu", "numpy"):
        return name, f"{asked} {name!r}: {'plain NumPy' if name == 'numpy' else 'NumPy with compiled loops'}"
    index = _gpu_index(name) if ":" in name else _own_gpu()
    usable, reason = _cuda_sim_usable() if name == "cuda-sim" else _cuda_usable(index)
    if usable:
        chosen = "cuda-sim" if name == "cuda-sim" else f"cuda:{index}"
        return chosen, f"{asked} {name!r} chose {chosen}: {reason}"
    if name == "auto":
        return "cpu", f"{asked} {name!r} chose cpu: {reason}"
    raise BackendUnavailableError(f"{asked} {name!r} cannot be used: {reason}")


def availability() -> list[Availability]:
    """Return what this machine can do with each device; the devices that always work come first.

    Examples
    --------
    >>> import gpuprop
    >>> sorted({"cpu", "numpy"} & {found.device for found in gpuprop.backends.availability()})
    ['cpu', 'numpy']
    """
    fault = loops_fault()
    cpu = f"plain NumPy: {fault}" if fault else "NumPy with compiled loops"
    cuda = ("cupy", "cupy-cuda12x", "cupy-cuda13x", "numba", "numba-cuda")
    return [
        Availability("cpu", True, cpu, versions("numpy", "numba")),
        Availability("numpy", True, "plain NumPy", versions("numpy")),
        Availability("cuda", *_cuda_usable(0), versions(*cuda)),
        Availability("cuda-sim", *_cuda_sim_usable(), versions("numba", "numba-cuda")),
    ]


def _checked_name(name: str, asked: str) -> str:
    """Return `name` if it can name a device; ``cuda:007`` becomes ``cuda:7``."""
    if not isinstance(name, str):
        raise TypeError(f"got device {name!r} of type {type(name).__name__}, expected a string such as 'cuda'")
    if re.fullmatch(r"cuda:[0-9]{1,9}", name):
        return f"cuda:{_gpu_index(name)}"
    if name in DEVICES and name != "cuda:N":
        return name
    kind, _, index = name.lower().partition(":")
    kind = _OTHER_NAMES.get(kind, kind)
    if kind == "cuda" and index and not re.fullmatch(r"[0-9]{1,9}", index):
        raise ValueError(f"got {asked} {name!r}, expected 'cuda:' and the number of a GPU, from 0; use 'cuda:0'")
    meant = f"{kind}:{index}" if index and kind == "cuda" else kind
    if meant in DEVICES or meant.startswith("cuda:"):
        raise ValueError(f"unknown {asked} {name!r}; did you mean {meant!r}? (known: {', '.join(DEVICES)})")
    raise unknown_name(asked, name, DEVICES)


def _gpu_index(name: str) -> int:
    """Return the number in ``cuda:N``, or 0 if there is none."""
    return int(name.partition(":")[2] or 0)


def _own_gpu() -> int:
    """Return the number of the GPU that is this process's turn: the first one, if ``mpirun`` has not started it."""
    given = next((os.environ[name] for name in _LOCAL_RANK_VARIABLES if name in os.environ), "")
    rank = int(given) if given.isdigit() else 0
    if rank == 0 or import_fault("cupy", "CuPy"):
        return 0
    import cupy

    with suppress(Exception):  # `_cuda_usable` says what is wrong with the driver
        return rank % int(cupy.cuda.runtime.getDeviceCount())
    return 0


def _cuda_usable(index: int) -> tuple[bool, str]:
    """Return whether the GPU of this number works here and, in one line, why or why not.

    The checks look at CuPy first, then at the driver, then at numba-cuda: a user would fix them in this order. A GPU
    works if a kernel runs on it and returns the right numbers.
    """
    if _simulating():
        return False, f"{_SIMULATOR_VARIABLE} is set, so that Numba only simulates CUDA; unset it"
    cupy_fault = import_fault("cupy", "CuPy")
    if cupy_fault and not nvidia_device_found():
        return False, "this machine shows no NVIDIA device"
    if cupy_fault:
        return False, cupy_fault
    import cupy

    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:
        # CuPy raises CUDARuntimeError. A broken driver may make it raise something else, which means the same here.
        return False, (
            f"CuPy finds no working NVIDIA GPU ({root_cause(error)}); check the driver with nvidia-smi, and that "
            "you may read and write /dev/nvidia*"
        )
    version_fault = _too_old("CuPy", cupy, _OLDEST_CUPY) or _driver_fault(cupy.cuda.runtime)
    if version_fault:
        return False, version_fault
    if index >= count:
        return False, f"there is no GPU {index}: CuPy finds {count}, numbered from 0"
    numba_fault = import_fault("numba_cuda", "numba-cuda") or import_fault("numba.cuda", "numba-cuda")
    numba_fault = numba_fault or _too_old("numba-cuda", sys.modules["numba_cuda"], _OLDEST_NUMBA_CUDA)
    return (False, numba_fault) if numba_fault else _kernel_runs(index)


def _too_old(title: str, module: ModuleType, oldest: tuple[int, int]) -> str | None:
    """Return that a package is too old, and what to install; None if it is new enough or names no version."""
    found = re.match(r"(\d+)\.(\d+)", getattr(module, "__version__", ""))
    if found is None or (int(found[1]), int(found[2])) >= oldest:
        return None
    return f"{title} {module.__version__} is too old, expected {oldest[0]}.{oldest[1]} or newer; {INSTALL_CUDA}"


def _driver_fault(runtime: Any) -> str | None:
    """Return that the driver is too old for the toolkit of CuPy, and what to do; None if it is new enough.

    A driver runs every toolkit of its own major version, and older ones.
    """
    driver, toolkit = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver // 1000 >= toolkit // 1000:
        return None
    supported, needed = (f"{version // 1000}.{version % 1000 // 10}" for version in (driver, toolkit))
    other = ", or pip install 'gpuprop[cu12]' in a fresh environment" if driver // 1000 == 12 else ""
    return f"the driver supports CUDA up to {supported} and CuPy was built for {needed}; update the driver{other}"


@functools.cache
def _kernel_runs(index: int) -> tuple[bool, str]:
    """Return whether a small kernel gives the right numbers on a GPU, and a description of the GPU or of the fault."""
    try:
        from gpuprop.backends.cuda.ops import CudaOps
        from gpuprop_kernels import launch

        ops = CudaOps(_runtime(f"cuda:{index}"))
        # The kernel must shorten the two weights of a unit from norm 5 to norm 2.5.
        weights = ops.asarray([[3.0], [-4.0]], "float32")
        with ops.runtime.active():
            launch.limit_incoming_norm(ops.flat(weights), 0, 2.5, ops.whole_batch(1), n_in=2, n_out=1)
        found = ops.to_numpy(weights).ravel().tolist()
        if found != [1.5, -2.0]:
            return False, f"a kernel returned {found} instead of [1.5, -2.0]; the GPU or its driver is faulty"
        return True, ops.runtime.describe()
    except Exception as error:
        # After any error this GPU cannot be used: ``cuda`` says why, and ``auto`` takes the CPU.
        return False, f"a kernel does not run on GPU {index} ({root_cause(error)}); {INSTALL_CUDA}"


def _cuda_sim_usable() -> tuple[bool, str]:
    """Return whether Numba's CUDA simulator can be used and, in one line, why or why not."""
    fault = import_fault("numba", "Numba", "pip install numba")
    if fault:
        return False, fault
    if not _simulating():
        return False, f"Numba's simulator is off; set {_SIMULATOR_VARIABLE}=1 in the environment before Python starts"
    return True, "the CUDA kernels in Numba's simulator, a Python thread for each CUDA thread: slow, for learning"


def _simulating() -> bool:
    """Return whether Numba simulates CUDA, or would do so if it were imported now; importing it decides that."""
    config = getattr(getattr(sys.modules.get("numba"), "core", None), "config", None)
    if config is not None:
        return bool(config.ENABLE_CUDASIM)
    return os.environ.get(_SIMULATOR_VARIABLE, "0") not in ("", "0")
