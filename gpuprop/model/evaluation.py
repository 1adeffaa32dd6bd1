"""What a network answers to a whole data set: outputs, loss and score, and the gradient of the loss.

The rows are processed in chunks, so that the memory needed depends on the widest layer and not on the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gpuprop.arrays import contiguous
from gpuprop.core import step
from gpuprop.core.data import TrainingData
from gpuprop.core.updates import Batch
from gpuprop.core.workspace import TrainingWorkspace, Workspace
from gpuprop.errors import DeviceMemoryError
from gpuprop.maths.losses import penalty
from gpuprop.model.host_pass import host_totals
from gpuprop.model.inputs import check_inputs, check_sample_weight, check_targets

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.core.layers import Layers
    from gpuprop.core.parameters import Parameters
    from gpuprop.core.spec import Spec
    from gpuprop.maths.losses import Metric
    from gpuprop.maths.scaling import InputScaling

__all__ = ["chunks", "loss_and_score", "mean_loss_and_score", "objective", "plain_data", "prepared", "totals"]

#: The rows that inference and whole-data gradients process at a time: enough for multiplications at full speed, and few
#: enough that the activations of a wide network take only tens of megabytes.
CHUNK_ROWS = 4096
#: The most numbers in the widest layer of a chunk; it matters for sparse data, which can have 100,000 columns and more.
CHUNK_ELEMENTS = 2**24

_AnyWorkspace = TypeVar("_AnyWorkspace", Workspace, TrainingWorkspace)


def chunks(layers: Layers, X: ArrayLike, scaling: InputScaling | None, *, keep_z: bool) -> Iterator[Workspace]:
    """Run the forward pass over all rows, a chunk at a time."""
    ops, spec = layers.ops, layers.spec
    inputs, scaling = check_inputs(X, spec.n_inputs, spec.dtype, scaling)
    (data,) = ops.load(inputs)
    n_samples = inputs.shape[0]
    order = ops.asarray(np.arange(n_samples), np.int32)
    work = _room_for(spec, n_samples, lambda n_rows: Workspace(ops, spec, n_rows, keep_z=keep_z))
    for start in range(0, n_samples, work.n_rows):
        part = work.rows(min(work.n_rows, n_samples - start))
        step.take_inputs(layers, part, data, scaling, order, start)
        step.forward_pass(layers, part)
        yield part


def prepared(
    layers: Layers, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, scaling: InputScaling | None,
    metric: Metric,
) -> TrainingData:  # fmt: skip
    """Check a data set and bring it to the device; see `gpuprop.model.inputs` for what is refused.

    `metric` is the network's; class indices are scored as classes even if the loss is one for numbers.
    """
    ops, spec = layers.ops, layers.spec
    n_outputs, dtype = spec.layer_sizes[-1], spec.dtype
    with ops.active():
        inputs, scaling = check_inputs(ops.adopt(X), spec.n_inputs, dtype, scaling)
        n_samples = inputs.shape[0]
        targets, class_indices = check_targets(ops.adopt(y), n_samples, n_outputs, dtype, spec.loss)
        weight = check_sample_weight(ops.adopt(sample_weight), n_samples, dtype)
        wide_weight = None if weight is None else contiguous(weight, np.dtype(np.float64))
        metric = "class" if class_indices and metric == "residual" else metric
        loaded_inputs, loaded_targets, loaded_weight = ops.load(inputs, targets, weight)
        return TrainingData(
            inputs=loaded_inputs,
            scaling=scaling,
            targets=loaded_targets,
            sample_weight=loaded_weight,
            wide_weight=wide_weight,
            total_weight=float(n_samples if wide_weight is None else wide_weight.sum()),
            metric=metric,
            total_variation=_total_variation(targets, wide_weight) if metric == "residual" else 0.0,
        )


def plain_data(inputs: Array, targets: Array, metric: Metric) -> TrainingData:
    """Return a data set of the host of which everything has been checked; there are no sample weights."""
    return TrainingData(
        inputs=inputs,
        scaling=None,
        targets=targets,
        sample_weight=None,
        wide_weight=None,
        total_weight=float(len(inputs)),
        metric=metric,
        total_variation=_total_variation(targets, None) if metric == "residual" else 0.0,
    )


def loss_and_score(
    layers: Layers,
    data: TrainingData,
    dropout_step: int | None = None,
    penalty_factor: float = 1.0,
    *,
    outputs: NDArray[Any] | None = None,
) -> tuple[float, float]:
    """Return the loss, penalties included and multiplied by `penalty_factor`, and the accuracy or R2.

    `outputs`, of shape (n_samples, n_outputs) on the host, gets the network's outputs if it is given.
    """
    return mean_loss_and_score(layers, data, totals(layers, data, dropout_step, outputs), penalty_factor)


def totals(
    layers: Layers, data: TrainingData, dropout_step: int | None = None, outputs: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """Return the sums of the weighted loss, without penalties, and of the weighted score; see `loss_and_score`."""
    found = host_totals(layers, data, outputs) if dropout_step is None else None
    return _totals(layers, data, dropout_step, outputs) if found is None else found


def mean_loss_and_score(
    layers: Layers, data: TrainingData, sums: NDArray[np.float64], penalty_factor: float = 1.0
) -> tuple[float, float]:
    """Return what `loss_and_score` returns, from the sums that `totals` returned."""
    spec = layers.spec
    loss_total, score_total = sums
    loss = float(loss_total) / data.total_weight
    if spec.penalised:
        weights = layers.ops.to_numpy(layers.parameters.flat)[: layers.parameters.n_weights]
        loss += penalty_factor * penalty(weights, spec.l1, spec.l2)
    return loss, data.score(float(score_total))


def _totals(
    layers: Layers, data: TrainingData, dropout_step: int | None, outputs: NDArray[Any] | None
) -> NDArray[np.float64]:
    """Return the sums of the weighted loss and score, by the primitives of any device."""
    ops = layers.ops
    work = _whole_data_workspace(layers, data.n_samples, dropout_step)
    order = ops.asarray(np.arange(data.n_samples), np.int32)
    for start in range(0, data.n_samples, work.n_rows):
        part = work.rows(min(work.n_rows, data.n_samples - start))
        step.take_batch(layers, part, data, order, start)
        step.forward_pass(layers, part, dropout_step, first_row=start)
        if outputs is not None:
            outputs[start : start + part.n_rows] = ops.to_numpy(part.a[-1])
        step.output_delta(layers, part, data, data.total_weight)
    return ops.to_numpy(work.totals)


def objective(
    layers: Layers, data: TrainingData, dropout_step: int | None, penalty_factor: float = 1.0
) -> Callable[[], tuple[float, Parameters]]:
    """Return a function that gives the loss on `data`, and its gradient in an array that the next call reuses."""
    ops, total_weight = layers.ops, data.total_weight
    work = _whole_data_workspace(layers, data.n_samples, dropout_step)
    order = ops.asarray(np.arange(data.n_samples), np.int32)
    whole = Batch(data, order, 0, data.n_samples, total_weight)

    def loss_and_gradients() -> tuple[float, Parameters]:
        work.totals[...] = 0.0
        step.loss_and_gradients(layers, work, whole, dropout_step, penalty_factor)
        return float(ops.to_numpy(work.totals)[0]) / total_weight, work.gradients

    return loss_and_gradients


def _whole_data_workspace(layers: Layers, n_samples: int, dropout_step: int | None) -> TrainingWorkspace:
    ops, spec, with_dropout = layers.ops, layers.spec, dropout_step is not None
    return _room_for(spec, n_samples, lambda n_rows: TrainingWorkspace(ops, spec, n_rows, with_dropout=with_dropout))


def _room_for(spec: Spec, n_samples: int, workspace: Callable[[int], _AnyWorkspace]) -> _AnyWorkspace:
    """Return a workspace for a chunk of samples: `CHUNK_ROWS`, or fewer if layers are wide or memory is short."""
    n_rows = max(1, min(CHUNK_ROWS, CHUNK_ELEMENTS // max(spec.layer_sizes), n_samples))
    while True:
        try:
            return workspace(n_rows)
        except DeviceMemoryError:
            if n_rows == 1:
                raise
            n_rows //= 2


def _total_variation(targets: Array, weight: Array | None) -> float:
    """Return the weighted sum of squares of the targets about their mean."""
    centred = targets - np.average(targets, axis=0, weights=weight)
    total = len(targets) if weight is None else float(weight.sum())
    return float(np.average(centred**2, axis=0, weights=weight).sum()) * total
