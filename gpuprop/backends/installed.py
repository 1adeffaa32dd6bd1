"""Which optional modules can be imported, what is wrong with the others, and which versions are installed."""

from __future__ import annotations

import functools
import importlib
import os
import shutil
from importlib import metadata
from pathlib import Path

__all__ = ["INSTALL_CUDA", "import_fault", "loops_fault", "nvidia_device_found", "root_cause", "versions"]

INSTALL_CUDA = "pip install 'gpuprop[cu13]' for CUDA 13 or 'gpuprop[cu12]' for CUDA 12"
"""The command that installs CuPy and numba-cuda."""


@functools.cache
def loops_fault() -> str | None:
    """Return in one line why ``cpu`` is plain NumPy here, or None if its loops can be compiled; this imports Numba."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "NUMBA_DISABLE_JIT is set"
    install = "pip install numba"
    return import_fault("numba", "Numba", install) or import_fault("gpuprop.backends.cpu.loops", "Numba", install)


def import_fault(module: str, title: str, install: str = INSTALL_CUDA) -> str | None:
    """Return what is wrong with an optional module and how to install it, or None if it can be imported."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module.partition(".")[0]:
            return f"{title} is not installed; {install}"
        return f"{title} cannot be imported ({root_cause(error)}); {install}"
    except Exception as error:
        # A module built for other libraries or another driver may raise any exception when it is imported.
        return f"{title} cannot be imported ({root_cause(error)}); {install}"
    return None


def nvidia_device_found() -> bool:
    """Return whether this machine shows an NVIDIA device, without any library that could use it.

    A driver leaves files in /dev or /proc, that of Windows Subsystem for Linux /dev/dxg, and every driver brings
    nvidia-smi.
    """
    signs = (*Path("/dev").glob("nvidia[0-9c]*"), Path("/dev/dxg"), Path("/proc/driver/nvidia/version"))
    return any(sign.exists() for sign in signs) or shutil.which("nvidia-smi") is not None


def root_cause(error: BaseException) -> str:
    """Return the first cause of `error` in one line; CuPy wraps a missing library in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def versions(*distributions: str) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    found = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
