"""Which device a command computes on, and what is said about it."""

from __future__ import annotations

import itertools
import logging
import os
from typing import TYPE_CHECKING

from gpuprop.cli.options import wrong_options

if TYPE_CHECKING:
    from gpuprop.backends import Choice

__all__ = ["check_device", "device_for_training", "plain_seconds", "use_device"]

#: Seconds of plain NumPy up to which ``auto`` leaves a training to it: Numba alone takes one to be loaded, and compiled
#: loops that are not on disk yet take ten to be made.
SHORT = 2.0

# What an update takes in plain NumPy, measured on one core: the calls of a layer; of a weight, its update, and for each
# row the three products that it has a part in. An estimate, right to about a half.
_SECONDS_OF_LAYER, _SECONDS_OF_WEIGHT, _SECONDS_OF_PRODUCTS = 1.5e-4, 5e-9, 1.5e-10


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


def device_for_training(name: str, seconds: float) -> Choice:
    """Return the device for a training of so many seconds of plain NumPy, which ``auto`` gives a short one.

    Only a command chooses so: its process trains once, whereas what a program loads serves many trainings.
    """
    from gpuprop.backends import ENVIRONMENT_VARIABLE, Choice, choose, resolve

    if name == "auto" and not os.environ.get(ENVIRONMENT_VARIABLE) and seconds < SHORT:
        resolved, reason = resolve(name)
        if resolved == "cpu":
            return Choice("numpy", "numpy", f"{reason}; plain NumPy: so short a training needs no compiled loops")
    return choose(name)


def plain_seconds(layer_sizes: tuple[int, ...], batch_size: int, n_updates: int) -> float:
    """Return about how long a training takes in plain NumPy."""
    n_weights = sum(a * b for a, b in itertools.pairwise(layer_sizes))
    of_weight = _SECONDS_OF_WEIGHT + batch_size * _SECONDS_OF_PRODUCTS
    return n_updates * ((len(layer_sizes) - 1) * _SECONDS_OF_LAYER + n_weights * of_weight)


def _prepare(name: str) -> None:
    """Switch the simulator on where it is meant: Numba reads its variable when it is imported."""
    from gpuprop.backends import ENVIRONMENT_VARIABLE

    if (os.environ.get(ENVIRONMENT_VARIABLE) or name) == "cuda-sim":
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    _show_compiling()


def _show_compiling() -> None:
    """Let kernels and loops say on stderr that they are being compiled, which takes a while before the first epoch."""
    for name in ("gpuprop.kernels", "gpuprop.loops"):
        logger = logging.getLogger(name)
        if not logger.handlers:
            logger.addHandler(logging.StreamHandler())
            logger.setLevel(logging.INFO)
            logger.propagate = False
