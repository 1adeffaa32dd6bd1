"""States as JSON values and tensors, the only things that a model file holds.

Arrays, and long lists of numbers, become tensors. JSON has no NaN and no infinity, so these numbers get a name.
Nothing that is packed here is executed when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.model.refusals import refuse, shown

__all__ = ["pack", "unpack"]

Tensors = dict[str, NDArray[Any]]

#: Lists of at least so many numbers become tensors: a header has room for 8 MiB of JSON.
_LONG = 16
_TENSOR, _EMPTY, _LIST, _FLOAT = "$tensor", "$empty", "$list", "$float"
#: A mapping whose keys have an order of their own, which JSON's sorted keys would lose: a history's columns.
_ITEMS = "$items"


def pack(value: Any, tensors: Tensors, name: str) -> Any:
    """Return `value` as JSON values, and put its arrays into `tensors`.

    Parameters
    ----------
    value : object
        Made of mappings with keys of text, lists, tuples, text, numbers, None and arrays.
    tensors : dict
        Gets the arrays, under names that begin with `name`.
    name : str

    Raises
    ------
    TypeError
        If `value` holds something else.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_FLOAT: str(value)}
    if isinstance(value, np.ndarray):
        if value.size == 0:
            return {_EMPTY: [value.dtype.name, list(value.shape)]}
        if value.ndim == 0:
            return pack(value[()], tensors, name)
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, (list, tuple)):
        return _packed_list(list(value), tensors, name)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key.startswith("$"):
                raise TypeError(f"{name}: got the key {key!r}, expected text that does not begin with $")
        packed = {key: pack(one, tensors, f"{name}.{key}") for key, one in value.items()}
        return packed if list(packed) == sorted(packed) else {_ITEMS: [list(item) for item in packed.items()]}
    raise TypeError(f"{name}: got {type(value).__name__}, expected mappings, lists, text, numbers, None or arrays")


def _packed_list(values: list[Any], tensors: Tensors, name: str) -> Any:
    kinds = {type(one) for one in values}
    if len(values) >= _LONG and kinds <= {float, type(None)} and float in kinds:
        tensors[f"{name}.numbers"] = np.array([math.nan if one is None else one for one in values])
        if type(None) in kinds:
            tensors[f"{name}.known"] = np.array([one is not None for one in values])
        return {_LIST: name}
    if len(values) >= _LONG and kinds == {int} and max(map(abs, values)) < 2**63:
        tensors[f"{name}.numbers"] = np.array(values, np.int64)
        return {_LIST: name}
    if len(values) >= _LONG and kinds == {type(None)}:
        tensors[f"{name}.known"] = np.zeros(len(values), np.bool_)
        return {_LIST: name}
    return [pack(one, tensors, f"{name}.{i}") for i, one in enumerate(values)]


def unpack(packed: Any, tensors: Mapping[str, NDArray[Any]]) -> Any:
    """Return what `pack` was given, with lists for tuples.

    Raises
    ------
    gpuprop.model.refusals.RefusedError
        If a tensor is missing.
    """
    if isinstance(packed, list):
        return [unpack(one, tensors) for one in packed]
    if not isinstance(packed, dict):
        return packed
    if _FLOAT in packed:
        return float(packed[_FLOAT])
    if _EMPTY in packed:
        dtype, shape = packed[_EMPTY]
        if 0 not in shape:
            refuse(f"got an empty array of shape {shown(shape)}")
        return np.zeros(shape, dtype)
    if _TENSOR in packed:
        return _tensor(packed[_TENSOR], tensors)
    if _LIST in packed:
        name = packed[_LIST]
        known = tensors.get(f"{name}.known")
        if f"{name}.numbers" not in tensors and known is not None:
            return [None] * len(known)
        numbers = _tensor(f"{name}.numbers", tensors).tolist()
        return numbers if known is None else [n if k else None for n, k in zip(numbers, known, strict=True)]
    items = packed[_ITEMS] if _ITEMS in packed else packed.items()
    return {key: unpack(one, tensors) for key, one in items}


def _tensor(name: Any, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    if name not in tensors:
        refuse(f"tensor {shown(name)} is missing")
    return tensors[name]
