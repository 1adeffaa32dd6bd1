"""The device that a command computes on: it is checked first, and the command says which one it is."""

from __future__ import annotations

import logging
import os

from gpuprop.cli.options import wrong_options

__all__ = ["check_device", "use_device"]


def use_device(name: str) -> str:
    """Check a device and return the line that says what was chosen."""
    from gpuprop.backends import choose

    _prepare(name)
    with wrong_options():
        return choose(name).reason


def check_device(name: str) -> None:
    """Refuse a device that does not exist or cannot be used, before anything else is done."""
    from gpuprop.backends import resolve

    _prepare(name)
    with wrong_options():
        resolve(name)


def _prepare(name: str) -> None:
    """Switch the simulator on for ``cuda-sim``: Numba reads its variable when it is imported."""
    from gpuprop.backends import ENVIRONMENT_VARIABLE

    if (os.environ.get(ENVIRONMENT_VARIABLE) or name) == "cuda-sim":
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    _show_compiling()


def _show_compiling() -> None:
    """Say on stderr that kernels or loops are being compiled: the first epoch waits for that."""
    for name in ("gpuprop.kernels", "gpuprop.loops"):
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.StreamHandler())
            logger.setLevel(logging.INFO)
            logger.propagate = False
