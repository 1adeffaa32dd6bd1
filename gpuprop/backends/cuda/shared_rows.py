"""The rows that several trainings read, as one data set on the device, and where those of each training begin.

Trainings on the same arrays share them. Different data sets of one kind, such as the folds of a cross-validation, are
put one after the other, so that one launch reads the rows of all: an order of row numbers says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpuprop_kernels.arguments import INDEX_LIMIT
from gpuprop_kernels.launch import row_pitch

if TYPE_CHECKING:
    from gpuprop.backends.cuda.array_ops import CudaArrays
    from gpuprop.core.array_ops import Array
    from gpuprop.core.data import TrainingData

__all__ = ["SharedRows", "different", "stackable"]


class SharedRows:
    """Inputs and targets of all trainings.

    Parameters
    ----------
    ops : CudaArrays
    data : sequence of TrainingData

    Attributes
    ----------
    inputs, targets : arrays of the device
        The trainings' own, if all of them read the same.
    first_rows : list of int
        For each training the number of its first row in these arrays.
    """

    def __init__(self, ops: CudaArrays, data: Sequence[TrainingData]) -> None:
        sets, which = different(ops, data)
        self.inputs: Array = _stacked(ops, [one.inputs for one in sets])
        self.targets: Array = _stacked(ops, [one.targets for one in sets])
        starts = [0]
        for one in sets:
            starts.append(starts[-1] + one.n_samples)
        self.first_rows = [starts[number] for number in which]


def different(ops: CudaArrays, data: Sequence[TrainingData]) -> tuple[list[TrainingData], list[int]]:
    """Return the different data sets among these, and for each the number of the one with the same rows."""
    sets: list[TrainingData] = []
    which = []
    for one in data:
        known = next((number for number, other in enumerate(sets) if _same(ops, one, other)), len(sets))
        if known == len(sets):
            sets.append(one)
        which.append(known)
    return sets, which


def stackable(sets: Sequence[TrainingData]) -> bool:
    """Return whether an int32 index can address these data sets one after the other."""
    inputs = sets[0].inputs
    pitch = max(row_pitch(inputs.shape[1], inputs.dtype), row_pitch(sets[0].targets.shape[1], sets[0].targets.dtype))
    return sum(one.n_samples for one in sets) * pitch < INDEX_LIMIT


def _same(ops: CudaArrays, one: TrainingData, other: TrainingData) -> bool:
    pairs = ((one.inputs, other.inputs), (one.targets, other.targets))
    return all(_equal(ops, a, b) for a, b in pairs)


def _equal(ops: CudaArrays, a: Any, b: Any) -> bool:
    if a is b:
        return True
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    with ops.active():
        return bool(ops.to_numpy((a == b).all()))


def _stacked(ops: CudaArrays, arrays: Sequence[Array]) -> Array:
    """Return these matrices one below the other, in the layout of the device."""
    if len(arrays) == 1:
        return arrays[0]
    out = ops.empty((sum(len(array) for array in arrays), arrays[0].shape[1]), arrays[0].dtype)
    start = 0
    with ops.active():
        for array in arrays:
            out[start : start + len(array)] = array
            start += len(array)
    return out
