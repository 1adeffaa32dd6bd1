"""Epochs: the trainer, callbacks, and several trainings side by side.

This was a single module once: programs and pickles that name its classes here find them.
"""

from __future__ import annotations

import importlib
from typing import Any

_OF_THE_TRAINER = ("Progress", "RowOrders", "Trainer", "counter_based_orders")


def __getattr__(name: str) -> Any:
    """Load a name of the former module when it is first used."""
    if name not in _OF_THE_TRAINER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.trainer"), name)
