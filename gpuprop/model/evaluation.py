"""What a network answers to a whole data set: outputs, loss and score, and the gradient of the loss.

The rows are processed in chunks, so that the memory needed depends on the widest layer and not on the number of rows.
"""

from __future__ import annotations

import math
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
from gpuprop.model.inputs import check_inputs, check_sample_weight, check_targets

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.core.layers import Layers
    from gpuprop.core.parameters import Parameters
    from gpuprop.core.spec import Spec
    from gpuprop.maths.losses import Metric
    from gpuprop.maths.scaling import InputScaling

__all__ = ["chunks", "loss_and_score", "objective", "plain_data", "plain_outputs", "prepared"]

#: The rows that inference and whole-data gradients process at a time: enough for multiplications at full speed, and few
#: enough that the activations of a wide network take only tens of megabytes.
CHUNK_ROWS = 4096
#: The most numbers in the widest layer of a chunk; it matters for sparse data, which can have 100,000 columns and more.
CHUNK_ELEMENTS = 2**24
#: The rows of plain data that inference on the CPU processes at a time: few enough for the second cache, and enough
#: that the threads of BLAS, if it has several, work longer than they wait for one another.
BLOCK_ROWS = 1024

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


def plain_outputs(layers: Layers, X: object) -> NDArray[Any] | None:
    """Return the outputs for plain data; None for other data, and if a number is not finite.

    Plain is a C-contiguous NumPy array of the network's dtype and width, for a network on the host. It is read in
    place, a block of rows at a time, and nothing but the result and one block's layers is allocated.
    """
    spec = layers.spec
    if (
        type(X) is not np.ndarray
        or X.dtype != spec.dtype
        or X.ndim != 2
        or X.shape[1] != spec.layer_sizes[0]
        or not spec.plain
        or len(X) == 0
        or not X.flags.c_contiguous
        or not layers.ops.on_host
    ):
        return None
    n_rows = min(BLOCK_ROWS, len(X))
    outputs = np.empty((len(X), spec.layer_sizes[-1]), spec.dtype)
    hidden = [np.empty((n_rows, width), spec.dtype) for width in spec.layer_sizes[1:-1]]
    forward = layers.ops.forward
    for start in range(0, len(X), n_rows):
        a = X[start : start + n_rows]
        # A finite sum of squares shows, in a tenth of the time, that all numbers are finite. An infinite one may also
        # come from finite but huge numbers.
        if not math.isfinite(np.dot(flat := a.reshape(-1), flat)) and not np.isfinite(a).all():
            return None
        rows = hidden if len(a) == n_rows else [layer[: len(a)] for layer in hidden]
        for weights, biases, activation, out in zip(
            layers.weights, layers.biases, spec.activations, [*rows, outputs[start : start + n_rows]], strict=True
        ):
            forward(a, weights, biases, activation, None, out)
            a = out
    return outputs


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
    layers: Layers, data: TrainingData, dropout_step: int | None = None, penalty_factor: float = 1.0
) -> tuple[float, float]:
    """Return the loss, penalties included and multiplied by `penalty_factor`, and the accuracy or R2."""
    ops, spec = layers.ops, layers.spec
    work = _whole_data_workspace(layers, data.n_samples, dropout_step)
    order = ops.asarray(np.arange(data.n_samples), np.int32)
    for start in range(0, data.n_samples, work.n_rows):
        part = work.rows(min(work.n_rows, data.n_samples - start))
        step.take_batch(layers, part, data, order, start)
        step.forward_pass(layers, part, dropout_step, first_row=start)
        step.output_delta(layers, part, data, data.total_weight)
    loss_total, score_total = ops.to_numpy(work.totals)
    loss = float(loss_total) / data.total_weight
    if spec.penalised:
        weights = ops.to_numpy(layers.parameters.flat)[: layers.parameters.n_weights]
        loss += penalty_factor * penalty(weights, spec.l1, spec.l2)
    return loss, data.score(float(score_total))


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
