"""Parameters and records as plain JSON, and back.

Nothing in a file is executed: a value is a number, a text, a list of these, or one of gpuprop's optimizers, schedules
and activations, which a file names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from gpuprop.errors import unknown_name
from gpuprop.maths.activations import Activation
from gpuprop.maths.optimizers import OPTIMIZERS, Optimizer
from gpuprop.maths.schedules import SCHEDULES, Schedule
from gpuprop.model.refusals import shown
from gpuprop.training.tabular_presets import TabularPreset

__all__ = ["plain", "revived"]


def plain(name: str, value: Any) -> Any:
    """Return `value` as JSON; what JSON lacks becomes an object with a single key that says what it is.

    Raises
    ------
    ValueError
        If a file cannot hold the value; the message begins with `name`.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(name, one) for one in value]
    if isinstance(value, dict):
        return {"items": [[plain(name, key), plain(name, one)] for key, one in value.items()]}
    if isinstance(value, (np.dtype, type)) and name == "dtype":
        return np.dtype(value).name
    if isinstance(value, Activation):
        return {"activation": value.name}
    if isinstance(value, TabularPreset):
        return {"preset": {field.name: plain(name, getattr(value, field.name)) for field in fields(value)}}
    for kind, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        if type(value) in known.values():
            settings = {field.name: plain(name, getattr(value, field.name)) for field in fields(value)}
            return {kind: [value.name, settings]}
    raise ValueError(
        f"{name}: got {value!r}, expected numbers, texts, lists, or gpuprop's own objects; a file holds no others"
    )


def revived(value: Any, activations: Mapping[str, Activation] | None = None) -> Any:
    """Return the value that `plain` described; lists come back as tuples.

    Parameters
    ----------
    value : JSON value
    activations : mapping of str to Activation or None, default=None
        The user's own activations by name; any other activation stays a name.

    Raises
    ------
    TypeError, ValueError, LookupError
        If `value` describes no value.
    """
    if isinstance(value, list):
        return tuple(revived(one, activations) for one in value)
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError(f"got {shown(value)}, expected an object with a single key that says what it is")
    ((kind, content),) = value.items()
    makers: dict[str, Callable[[Any], Any]] = {
        "float": _not_finite,
        "items": lambda pairs: {revived(key, activations): revived(one, activations) for key, one in _pairs(pairs)},
        "activation": lambda name: (activations or {}).get(name, name),
        "optimizer": lambda pair: _known(OPTIMIZERS, pair),
        "schedule": lambda pair: _known(SCHEDULES, pair),
        "preset": lambda settings: TabularPreset(**_settings(settings)),
    }
    if kind not in makers:
        raise unknown_name("kind of value", kind, makers)
    return makers[kind](content)


def _not_finite(spelled: Any) -> float:
    if spelled not in ("nan", "inf", "-inf"):
        raise ValueError(f"got the float {shown(spelled)}, expected 'nan', 'inf' or '-inf'")
    return float(spelled)


def _pairs(pairs: Any) -> list[Any]:
    if not isinstance(pairs, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):
        raise ValueError(f"got the items {shown(pairs)}, expected pairs of a key and a value")
    return pairs


def _settings(settings: Any) -> dict[str, Any]:
    if not isinstance(settings, dict):
        raise ValueError(f"got the settings {shown(settings)}, expected an object")
    return {name: revived(value) for name, value in settings.items()}


def _known(registry: Mapping[str, type[Optimizer] | type[Schedule]], pair: Any) -> Any:
    if not isinstance(pair, list) or len(pair) != 2 or pair[0] not in list(registry):
        raise ValueError(f"got {shown(pair)}, expected a name, one of {', '.join(registry)}, and settings")
    return registry[pair[0]](**_settings(pair[1]))
