"""What a training is: its settings and its data, in a form that can be kept in a file and compared on a resume."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import is_sparse

if TYPE_CHECKING:
    from gpuprop.core.array_ops import ArrayOps
    from gpuprop.core.data import TrainingData

__all__ = ["described", "different_data", "different_place", "different_settings", "fingerprints", "settings_of"]

#: The trainer's attributes that decide what is computed. `epochs` may grow, and `learning_rate` is compared apart.
_COMPARED = (
    "optimizer",
    "batch_size",
    "schedule",
    "clip_norm",
    "max_norm",
    "early_stopping",
    "keep_best",
    "monitor",
    "accumulation_steps",
    "drop_last",
    "learning_rate_factors",
    "parametrization",
    "scaling_layer",
    "label_smoothing",
    "weight_decay",
    "weight_decay_schedule",
    "weight_decay_factors",
    "dropout_schedule",
    "row_orders",
    "seed",
    "conventions",
)

#: Longer lists, such as a scaling of many inputs, are compared by their SHA-256.
_MOST_VALUES = 32

#: What a setting is where a description does not name it.
_DEFAULTS = {"network's precision": "float32"}

#: The network's arguments that change no number.
_NAMES = ("classes", "feature_names", "target_name")


def settings_of(trainer: Any) -> dict[str, Any]:
    """Return everything about a training that a resume must find unchanged, as JSON values.

    Raises
    ------
    ValueError
        If the network's loss or activations have names that do not say what they are, see ``Network.get_config``.
    """
    network = {name: value for name, value in trainer.network.get_config().items() if name not in _NAMES}
    own = {name: described(getattr(trainer, name)) for name in _COMPARED}
    share = trainer.validation if isinstance(trainer.validation, float) else None
    own |= {"validation": share}
    if trainer.shards is not None:
        own["shards"] = trainer.shards
    if trainer.metrics:  # a checkpoint of a version without metrics has no word of them
        own["metrics"] = list(trainer.metrics)
    return {f"network's {name}": described(value) for name, value in network.items()} | own


def described(value: Any) -> Any:
    """Return a setting as JSON values: the fields of an object of gpuprop's, and the name of any other."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        found = [described(one) for one in value]
        if len(found) <= _MOST_VALUES:
            return found
        return f"{len(found)} values with the SHA-256 {hashlib.sha256(json.dumps(found).encode()).hexdigest()}"
    if isinstance(value, Mapping):
        return {str(key): described(one) for key, one in value.items()}
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": name} | {one.name: described(getattr(value, one.name)) for one in fields(value)}
    return name


def different_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each setting that is not what it was."""
    then, now = _DEFAULTS | dict(then), _DEFAULTS | dict(now)
    return [
        f"{name} was {then.get(name)!r} and is {now.get(name)!r}"
        for name in dict.fromkeys([*now, *then])
        if then.get(name) != now.get(name)
    ]


def different_place(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a phrase for each thing about the place of a training that is not what it was."""

    def flat(place: Mapping[str, Any]) -> dict[str, Any]:
        return {name: one for name, one in place.items() if name != "versions"} | dict(place.get("versions", {}))

    return tuple(different_settings(flat(then), flat(now)))


def fingerprints(parts: Mapping[str, TrainingData | None], ops: ArrayOps) -> dict[str, str]:
    """Return the SHA-256 of type, shape and content of the arrays that a training works with.

    Parameters
    ----------
    parts : mapping of str to TrainingData or None
        The data by the beginning of their name: "" for those that are trained on, "validation ".
    ops : ArrayOps
        Of the device that holds them.

    Returns
    -------
    dict of str to str
        Of X, y and sample_weight of each part, as the network takes them.
    """
    found: dict[str, str] = {}
    for part, data in parts.items():
        if data is None:
            continue
        arrays = {"X": data.inputs, "y": data.targets, "sample_weight": data.sample_weight}
        found |= {part + name: _fingerprint(array, ops) for name, array in arrays.items() if array is not None}
    return found


def _fingerprint(array: Any, ops: ArrayOps) -> str:
    digest = hashlib.sha256()
    host = array.host if hasattr(array, "host") else array  # rows that are streamed lie on the host
    pieces = (host.indptr, host.indices, host.data) if is_sparse(host) else (host,)
    for piece in pieces:
        values = np.ascontiguousarray(piece if isinstance(piece, np.ndarray) else ops.to_numpy(piece))
        digest.update(f"{values.dtype.name} {values.shape} of {tuple(host.shape)}\n".encode())
        digest.update(values.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def different_data(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return a phrase for each array that is not what it was."""
    return [
        f"{name} is {'missing' if name not in now else 'new' if name not in then else 'another array'}"
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name)
    ]
