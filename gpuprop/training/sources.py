"""Sources of row orders and rates that remember something, such as a ``RandomState``, beside the counter-based ones.

Such a source has two methods, as `gpuprop.Callback` has: ``state()`` returns what it remembers, made of mappings,
lists, text, numbers and arrays, and ``restore(state)`` takes it back. gpuprop's own orders and schedules are functions
of the epoch and the history, and need neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["restore_sources", "sources_of"]

_NAMES = ("row_orders", "schedule", "weight_decay_schedule", "dropout_schedule")


def sources_of(trainer: Any) -> dict[str, Any]:
    """Return what each source of a trainer remembers, by the trainer's attribute."""
    sources = {name: getattr(trainer, name) for name in _NAMES}
    return {name: one.state() for name, one in sources.items() if hasattr(one, "state") and hasattr(one, "restore")}


def restore_sources(trainer: Any, states: Mapping[str, Any]) -> None:
    """Give each source what `sources_of` returned."""
    for name, state in states.items():
        restore = getattr(getattr(trainer, name, None), "restore", None)
        if restore is not None:
            restore(state)
