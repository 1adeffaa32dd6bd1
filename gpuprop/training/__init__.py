"""Epochs: the trainer, its callbacks, and several trainings side by side.

`Trainer`, `Progress`, `RowOrders` and `counter_based_orders` are found here, each loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuprop.training.orders import RowOrders, counter_based_orders
    from gpuprop.training.records import Progress
    from gpuprop.training.trainer import Trainer

__all__ = ["Progress", "RowOrders", "Trainer", "counter_based_orders"]

_MODULES = {"Progress": "records", "RowOrders": "orders", "Trainer": "trainer", "counter_based_orders": "orders"}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used; afterwards it is an ordinary attribute."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
