"""The scaling of inputs as the compiled loops take it: a shift and a factor for each column, in the network's dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.maths.scaling import InputScaling

__all__ = ["scaling_columns"]

Columns = tuple["NDArray[Any]", "NDArray[Any]"]

# Batch after batch asks for the columns of the same scaling.
_known: WeakKeyDictionary[InputScaling, Columns] = WeakKeyDictionary()


def scaling_columns(scaling: InputScaling | None, n_columns: int, dtype: np.dtype[Any]) -> Columns:
    """Return the shift and the factor of each column; without a scaling they are 0 and 1."""
    if scaling is None:
        return np.zeros(n_columns, dtype), np.ones(n_columns, dtype)
    known = _known.get(scaling)
    if known is None or known[0].dtype != dtype or known[0].size != n_columns:
        shift, factor = (
            np.array(np.broadcast_to(column.astype(dtype), n_columns)) for column in (scaling.shift, scaling.scale)
        )
        known = _known[scaling] = (shift, factor)
    return known
