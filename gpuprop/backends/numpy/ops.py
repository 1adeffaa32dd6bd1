"""The primitives in plain NumPy: the readable reference that every other backend is compared with."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import is_sparse, to_host
from gpuprop.maths import losses
from gpuprop.maths.dropout import keep_mask
from gpuprop.maths.optimizers import clip_by_norm, limit_incoming_norm

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from gpuprop.core.ops import Array
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss, Metric
    from gpuprop.maths.optimizers import Optimizer
    from gpuprop.maths.scaling import InputScaling
    from gpuprop.model.network import Parameters

__all__ = ["NumpyOps"]


class NumpyOps:
    """`gpuprop.core.ops.Ops` on NumPy arrays, float32 and float64.

    Parameters
    ----------
    device : {"cpu", "numpy"}, default="numpy"
        The name it was chosen by.
    """

    row_padding = 1

    def __init__(self, device: str = "numpy") -> None:
        self.device = device

    @property
    def backend(self) -> str:  # noqa: D102  (contracts: see Ops)
        return "numpy"

    def active(self) -> AbstractContextManager[None]:  # noqa: D102
        return nullcontext()

    def adopt(self, array: Any) -> Any:  # noqa: D102
        return to_host(array)

    def asarray(self, array: Any, dtype: DTypeLike) -> Array:  # noqa: D102
        if is_sparse(array):
            return array.tocsr().astype(dtype, copy=False)
        return np.ascontiguousarray(array, dtype=dtype)

    def load(self, *arrays: Any) -> tuple[Any, ...]:  # noqa: D102
        return tuple(None if array is None else self.asarray(array, array.dtype) for array in arrays)

    def to_numpy(self, array: Array) -> NDArray[Any]:  # noqa: D102
        return np.asarray(array)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:  # noqa: D102
        return np.empty(shape, dtype)

    def synchronize(self) -> None:  # noqa: D102
        pass

    def take_batch(  # noqa: D102
        self, data: Array, order: Array, start: int, scaling: InputScaling | None, out: Array
    ) -> None:
        rows = order[start : start + len(out)]
        if is_sparse(data):
            data[rows].toarray(out=out)
        elif data.dtype == out.dtype:
            np.take(data, rows, axis=0, out=out, mode="clip")
        else:
            out[...] = data[rows]
        if scaling is not None:
            scaling.apply(out)

    def drop(  # noqa: D102
        self, a: Array, rate: float, seed: int, layer: int, step: int, first_row: int, mask: Array, out: Array
    ) -> None:
        n_rows, n_columns = a.shape
        kept = keep_mask(
            rate, seed=seed, layer=layer, step=step, n_rows=n_rows, n_columns=n_columns, first_row=first_row
        )
        np.multiply(kept, mask.dtype.type(1.0 / (1.0 - rate)), out=mask)
        np.multiply(a, mask, out=out)

    def forward(  # noqa: D102
        self,
        inputs: Array,
        weights: Array,
        biases: Array,
        activation: Activation,
        z: Array | None,
        out: Array,
    ) -> None:
        net_input = out if z is None else z
        np.matmul(inputs, weights, out=net_input)
        net_input += biases
        out[...] = activation.function(net_input)

    def output_delta(  # noqa: D102
        self,
        z: Array,
        a: Array,
        y: Array,
        sample_weight: Array | None,
        total_weight: float,
        activation: Activation,
        loss: Loss,
        metric: Metric,
        delta: Array,
        totals: Array,
    ) -> None:
        values, delta[...] = losses.output_delta(loss, activation, z, a, y)
        scores = losses.score(a, y, metric)
        if sample_weight is not None:
            values = values * sample_weight
            scores = scores * sample_weight
            delta *= sample_weight[:, None]
        # A batch whose weights are all zero has no loss and no gradient.
        delta *= 1.0 / total_weight if total_weight > 0 else 0.0
        totals += (values.sum(dtype=np.float64), scores.sum(dtype=np.float64))

    def hidden_delta(  # noqa: D102
        self,
        delta: Array,
        weights: Array,
        activation: Activation,
        source: Array,
        mask: Array | None,
        out: Array,
    ) -> None:
        np.matmul(delta, weights.T, out=out)
        if mask is not None:
            out *= mask
        out *= activation.derivative(source)

    def accumulate_gradient(  # noqa: D102
        self, inputs: Array, delta: Array, weight_grads: Array, bias_grads: Array, *, accumulate: bool
    ) -> None:
        if accumulate:
            weight_grads += inputs.T @ delta
            bias_grads += delta.sum(axis=0)
        else:
            np.matmul(inputs.T, delta, out=weight_grads)
            np.sum(delta, axis=0, out=bias_grads)

    def add_penalty(  # noqa: D102
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

    def update(  # noqa: D102
        self,
        parameters: Parameters,
        gradients: Parameters,
        optimizer: Optimizer,
        state: dict[str, Array],
        scratch: tuple[Array, ...],
        learning_rate: float,
        step: int,
        clip_norm: float | None,
        max_norm: float | None,
    ) -> None:
        if clip_norm is not None:
            clip_by_norm(gradients.flat, clip_norm, scratch[0])
        optimizer.update(parameters.flat, gradients.flat, state, learning_rate, step, scratch, parameters.n_weights)
        if max_norm is not None:
            for weights in parameters.weights:
                limit_incoming_norm(weights, max_norm)
