"""The primitives in plain NumPy: the readable reference that every other backend is compared with."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import is_sparse, to_host
from gpuprop.backends.choosing import check_plan_name, only_one, plain_steps, rounding_note, sharded
from gpuprop.core.precision import product
from gpuprop.errors import BackendUnavailableError
from gpuprop.maths import losses
from gpuprop.maths.dropout import keep_mask
from gpuprop.maths.optimizers import clip_by_norm, limit_incoming_norm

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.core.ops import Dropping, OutputLayer, Outputs
    from gpuprop.core.parameters import Parameters
    from gpuprop.core.plan import Backend, Plan
    from gpuprop.core.rule import UpdateRule
    from gpuprop.core.updates import Training
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.scaling import InputScaling

__all__ = ["NumpyOps"]


class NumpyOps:
    """`gpuprop.core.ops.Ops` on NumPy arrays, float32 and float64.

    Parameters
    ----------
    device : {"cpu", "numpy"}, default="numpy"
        The name it was chosen by.

    Attributes
    ----------
    precision : str
        What products round their operands to; `in_precision` returns a backend with another one.
    """

    row_padding = 1
    on_host = True

    def __init__(self, device: str = "numpy") -> None:
        self.device = device
        self.precision = "float32"

    @property
    def backend(self) -> str:
        return "numpy"

    def active(self) -> AbstractContextManager[None]:
        return nullcontext()

    def adopt(self, array: Any) -> Any:
        return to_host(array)

    def asarray(self, array: Any, dtype: DTypeLike) -> Array:
        if is_sparse(array):
            return array.tocsr().astype(dtype, copy=False)
        return np.ascontiguousarray(array, dtype=dtype)

    def load(self, *arrays: Any) -> tuple[Any, ...]:
        return tuple(None if array is None else self.asarray(array, array.dtype) for array in arrays)

    def to_numpy(self, array: Array) -> NDArray[Any]:
        return np.asarray(array)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        return np.empty(shape, dtype)

    def synchronize(self) -> None:
        pass

    def in_precision(self, precision: str, *, emulate: bool = False) -> Backend:
        if precision not in (self.precision, "float32") and not emulate:
            raise BackendUnavailableError(
                f"precision {precision!r}: the device {self.device!r} has no instruction for it, which GPUs of compute "
                "capability 8.0 or more have; use precision='float32', or emulate=True to round the operands here"
            )
        twin = copy.copy(self)
        twin.precision = precision
        return twin

    def plan(self, trainings: Sequence[Training], *, want: str = "auto") -> Plan:
        shards = sharded(trainings, want)
        if shards is not None:
            return shards
        check_plan_name(want, ("steps",), "numpy")
        training = only_one(trainings, "plain NumPy trains one network after the other")
        return plain_steps(training, f"one primitive after the other, in plain NumPy{rounding_note(self)}")

    def take_batch(self, data: Array, order: Array, start: int, scaling: InputScaling | None, out: Array) -> None:
        rows = order[start : start + len(out)]
        if is_sparse(data):
            data[rows].toarray(out=out)
        elif data.dtype == out.dtype:
            np.take(data, rows, axis=0, out=out, mode="clip")
        else:
            out[...] = data[rows]
        if scaling is not None:
            scaling.apply(out)

    def drop(self, a: Array, dropping: Dropping, mask: Array, out: Array) -> None:
        n_rows, n_columns = a.shape
        rate, seed, layer, step, first_row = dropping
        kept = keep_mask(
            rate, seed=seed, layer=layer, step=step, n_rows=n_rows, n_columns=n_columns, first_row=first_row
        )
        np.multiply(kept, mask.dtype.type(1.0 / (1.0 - rate)), out=mask)
        np.multiply(a, mask, out=out)

    def forward(
        self,
        inputs: Array,
        weights: Array,
        biases: Array,
        activation: Activation,
        z: Array | None,
        out: Array,
    ) -> None:
        net_input = out if z is None else z
        product(inputs, weights, self.precision, net_input)
        net_input += biases
        out[...] = activation.function(net_input)

    def output_delta(
        self, outputs: Outputs, layer: OutputLayer, total_weight: float, delta: Array, totals: Array
    ) -> None:
        z, a, y, sample_weight = outputs
        values, delta[...] = losses.output_delta(layer.loss, layer.activation, z, a, y)
        scores = losses.score(a, y, layer.metric)
        if sample_weight is not None:
            values = values * sample_weight
            scores = scores * sample_weight
            delta *= sample_weight[:, None]
        # A batch whose weights are all zero has no loss and no gradient.
        delta *= 1.0 / total_weight if total_weight > 0 else 0.0
        totals += (values.sum(dtype=np.float64), scores.sum(dtype=np.float64))

    def hidden_delta(
        self,
        delta: Array,
        weights: Array,
        activation: Activation,
        source: Array,
        mask: Array | None,
        out: Array,
    ) -> None:
        product(delta, weights.T, self.precision, out)
        if mask is not None:
            out *= mask
        out *= activation.derivative(source)

    def accumulate_gradient(
        self, inputs: Array, delta: Array, weight_grads: Array, bias_grads: Array, *, accumulate: bool
    ) -> None:
        if accumulate:
            weight_grads += product(inputs.T, delta, self.precision)
            bias_grads += delta.sum(axis=0)
        else:
            product(inputs.T, delta, self.precision, weight_grads)
            np.sum(delta, axis=0, out=bias_grads)

    def add_penalty(
        self,
        parameters: Parameters,
        gradients: Parameters,
        l1: float,
        l2: float,
        total_weight: float,
        totals: Array,
    ) -> None:
        weights = parameters.flat[: parameters.n_weights]
        weight_grads = gradients.flat[: gradients.n_weights]
        weight_grads += l1 * np.sign(weights) + l2 * weights
        totals[0] += total_weight * losses.penalty(weights, l1, l2)

    def update(
        self, parameters: Parameters, gradients: Parameters, rule: UpdateRule, learning_rate: float, step: int
    ) -> None:
        if rule.clip_norm is not None:
            clip_by_norm(gradients.flat, rule.clip_norm, rule.scratch[0])
        for own, given, state, scratch, n_weights, factor in rule.groups(parameters, gradients):
            rule.optimizer.update(own, given, state, learning_rate * factor, step, scratch, n_weights)
        if rule.max_norm is not None:
            for weights in parameters.weights:
                limit_incoming_norm(weights, rule.max_norm)
