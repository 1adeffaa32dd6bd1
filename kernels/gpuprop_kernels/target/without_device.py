"""Compile a kernel to PTX for any compute capability, without a driver and without a device."""

from __future__ import annotations

from typing import Any

from gpuprop_kernels.target import MLIR

__all__ = ["ptx"]

Capability = tuple[int, int]


def ptx(kernel: Any, signature: tuple[Any, ...], capability: Capability) -> str:
    """Return the PTX of a kernel for arguments of these types, from the compiler that `target` has chosen.

    From compute capability 9.0 up the code is for the architecture-specific target, as on a machine that has such a
    device.
    """
    return (_from_mlir if MLIR else _from_numba_cuda)(kernel, signature, capability)


class _Device:
    """It replaces the driver's device: Numba asks that for its capability when it inlines a device function."""

    compute_capability: Capability = (9, 0)


def _from_numba_cuda(kernel: Any, signature: tuple[Any, ...], capability: Capability) -> str:
    from numba import cuda
    from numba.cuda import dispatcher

    _Device.compute_capability = capability
    original = dispatcher.get_current_device
    dispatcher.get_current_device = _Device
    try:
        bounds = kernel.targetoptions.get("launch_bounds")
        options = {"launch_bounds": bounds} if bounds else {}
        target = (*capability, "a") if capability >= (9, 0) else capability
        text, _ = cuda.compile_ptx(kernel.py_func, signature, cc=target, **options)
    finally:
        dispatcher.get_current_device = original
    return str(text)


def _from_mlir(kernel: Any, signature: tuple[Any, ...], capability: Capability) -> str:
    from numba_cuda_mlir import cuda, tools, types

    # The library asks the driver for its device's capability even where it is told one; this is what it remembers.
    tools._cached_cc = capability
    major, minor = capability
    options = {"chip": f"sm_{major}{minor}{'a' if capability >= (9, 0) else ''}"}
    bounds = kernel.targetoptions.get("launch_bounds")
    dispatcher = cuda.jit(**options, **({"launch_bounds": bounds} if bounds else {}))(kernel.py_func)
    return str(dispatcher.compile(types.void(*signature)).ptx)
