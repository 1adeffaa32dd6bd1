"""The device for a process that trains once: a short training runs in plain NumPy, with nothing to load or compile."""

from __future__ import annotations

import itertools
import os

from gpuprop.backends import ENVIRONMENT_VARIABLE, Choice, choose, resolve

__all__ = ["device_for_training", "plain_seconds"]

#: A training that takes at most this many seconds in plain NumPy is left to it by ``auto``: Numba alone takes a second
#: to load, and compiling loops that are not on disk yet takes ten.
SHORT = 2.0

# The seconds of an update in plain NumPy, measured on one core: for each layer its calls; for each weight its update,
# and for each row the weight's share in three products. The estimate is right to about a half.
_SECONDS_OF_LAYER, _SECONDS_OF_WEIGHT, _SECONDS_OF_PRODUCTS = 1.5e-4, 5e-9, 1.5e-10


def device_for_training(name: str, seconds: float, plan: str = "auto") -> Choice:
    """Return the device for a training that takes so many seconds in plain NumPy; ``auto`` gives NumPy a short one.

    This suits a process that trains once. A program trains often, and loads and compiles for all its trainings. A
    training whose `plan` is named is not given to NumPy, which offers plain steps only.
    """
    if name == plan == "auto" and not os.environ.get(ENVIRONMENT_VARIABLE) and seconds < SHORT:
        resolved, reason = resolve(name)
        if resolved == "cpu":
            return Choice("numpy", "numpy", f"{reason}; plain NumPy: so short a training needs no compiled loops")
    return choose(name)


def plain_seconds(layer_sizes: tuple[int, ...], batch_size: int, n_updates: int) -> float:
    """Return about how long a training takes in plain NumPy."""
    n_weights = sum(a * b for a, b in itertools.pairwise(layer_sizes))
    of_weight = _SECONDS_OF_WEIGHT + batch_size * _SECONDS_OF_PRODUCTS
    return n_updates * ((len(layer_sizes) - 1) * _SECONDS_OF_LAYER + n_weights * of_weight)
