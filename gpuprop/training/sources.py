"""Sources of row orders and rates that remember something, such as a ``RandomState``, beside the counter-based ones.

Such a source has two methods, as `gpuprop.Callback` has: ``state()`` returns what it remembers, made of mappings,
lists, text, numbers and arrays, and ``restore(state)`` takes it back. gpuprop's own orders and schedules are functions
of the epoch and the history, and need neither. A third method is optional: ``later()`` returns a function that returns
what ``state()`` would return now, where working that out takes time and is seldom needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["marked_sources", "restore_sources", "sources_of"]

_NAMES = ("row_orders", "schedule", "weight_decay_schedule", "dropout_schedule")


def sources_of(trainer: Any) -> dict[str, Any]:
    """Return what each source of a trainer remembers, by the trainer's attribute."""
    return {name: one.state() for name, one in _remembering(trainer)}


def marked_sources(trainer: Any) -> Callable[[], dict[str, Any]]:
    """Return a function that returns what `sources_of` would return now, also when the sources have gone on."""
    marks = {name: one.later() if hasattr(one, "later") else _known(one.state()) for name, one in _remembering(trainer)}
    return lambda: {name: mark() for name, mark in marks.items()}


def _remembering(trainer: Any) -> list[tuple[str, Any]]:
    sources = [(name, getattr(trainer, name)) for name in _NAMES]
    return [(name, one) for name, one in sources if hasattr(one, "state") and hasattr(one, "restore")]


def _known(state: Any) -> Callable[[], Any]:
    return lambda: state


def restore_sources(trainer: Any, states: Mapping[str, Any]) -> None:
    """Give each source what `sources_of` returned."""
    for name, state in states.items():
        restore = getattr(getattr(trainer, name, None), "restore", None)
        if restore is not None:
            restore(state)
