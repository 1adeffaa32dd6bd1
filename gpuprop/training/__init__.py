"""Epochs: the trainer, its callbacks, and several trainings side by side.

`Trainer`, `Progress`, `RowOrders` and `counter_based_orders` are found here, each loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprop.lazy import lazy_names

if TYPE_CHECKING:
    from gpuprop.training.orders import RowOrders, counter_based_orders
    from gpuprop.training.records import Progress
    from gpuprop.training.trainer import Trainer

__all__ = ["Progress", "RowOrders", "Trainer", "counter_based_orders"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Progress": "records:Progress",
        "RowOrders": "orders:RowOrders",
        "Trainer": "trainer:Trainer",
        "counter_based_orders": "orders:counter_based_orders",
    },
)
