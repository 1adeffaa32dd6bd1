"""The primitives of ``device="cpu"``: NumPy's BLAS for the multiplications, compiled loops for all between them.

What the loops do not know, a user's own activation or optimizer, is left to `NumpyOps`; so is everything where Numba
is missing or broken. Numba is imported by the first primitive that is called.
"""

from __future__ import annotations

import functools
import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from gpuprop.arrays import is_sparse
from gpuprop.backends.installed import loops_fault
from gpuprop.backends.numpy.ops import NumpyOps
from gpuprop.maths.dropout import keep_threshold
from gpuprop.maths.optimizers import FLUSH_EVERY, clip_by_norm, limit_incoming_norm

if TYPE_CHECKING:
    from gpuprop.core.ops import Array, UpdatePlan
    from gpuprop.core.step import UpdateRule
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss, Metric
    from gpuprop.maths.optimizers import Optimizer
    from gpuprop.maths.scaling import InputScaling
    from gpuprop.model.network import Network, Parameters, TrainingData

__all__ = ["CpuOps", "compiled_loops"]

# Sums of squared gradients that leave no doubt: neither has one of the squares overflowed or vanished in float64, nor
# will the factor that shortens them in float32. Otherwise the careful norm of gpuprop.optimizers is taken.
_USUAL_SQUARES = (1e-60, 1e60)


@functools.cache
def compiled_loops() -> tuple[Any, Any] | None:
    """Return the modules `loops` and `optimizer_loops`, or None where they cannot be used."""
    if loops_fault():
        return None
    from gpuprop.backends.cpu import loops, optimizer_loops

    return loops, optimizer_loops


class CpuOps(NumpyOps):
    """`gpuprop.core.ops.Ops` on NumPy arrays, float32 and float64, with compiled loops."""

    def __init__(self) -> None:
        super().__init__(device="cpu")
        self._columns: WeakKeyDictionary[InputScaling, tuple[Array, Array]] = WeakKeyDictionary()

    @property
    def backend(self) -> str:  # noqa: D102  (contracts: see Ops)
        return "numpy" if compiled_loops() is None else "numba"

    def take_batch(  # noqa: D102
        self, data: Array, order: Array, start: int, scaling: InputScaling | None, out: Array
    ) -> None:
        found = compiled_loops()
        plain = data.ndim != 2 or is_sparse(data) or (scaling is None and data.dtype == out.dtype)
        if found is None or plain:
            super().take_batch(data, order, start, scaling, out)
        else:
            shift, factor = self._scaling_columns(scaling, out)
            found[0].gather_rows(data, order, start, shift, factor, out)

    def _scaling_columns(self, scaling: InputScaling | None, like: Array) -> tuple[Array, Array]:
        """Return shift and factor of each column of `like`, in its dtype."""
        n_columns, dtype = like.shape[1], like.dtype
        if scaling is None:
            return np.zeros(n_columns, dtype), np.ones(n_columns, dtype)
        known = self._columns.get(scaling)
        if known is None or known[0].dtype != dtype or known[0].size != n_columns:
            shift, factor = (
                np.array(np.broadcast_to(column.astype(dtype), n_columns)) for column in (scaling.shift, scaling.scale)
            )
            known = self._columns[scaling] = (shift, factor)
        return known

    def drop(  # noqa: D102
        self, a: Array, rate: float, seed: int, layer: int, step: int, first_row: int, mask: Array, out: Array
    ) -> None:
        found = compiled_loops()
        if found is None:
            super().drop(a, rate, seed, layer, step, first_row, mask, out)
            return
        key = np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint64)
        found[0].drop_rows(a, keep_threshold(rate), 1.0 / (1.0 - rate), key, layer, step, first_row, mask, out)

    def forward(  # noqa: D102
        self,
        inputs: Array,
        weights: Array,
        biases: Array,
        activation: Activation,
        z: Array | None,
        out: Array,
    ) -> None:
        found = compiled_loops()
        if found is None or not found[0].knows(activation):
            super().forward(inputs, weights, biases, activation, z, out)
            return
        if len(inputs) == 1:
            found[0].forward_row(activation, inputs, weights, biases, z, out)
            return
        np.matmul(inputs, weights, out=out if z is None else z)
        found[0].activate_rows(activation, biases, z, out)

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
        found = compiled_loops()
        if found is None or not found[0].knows(activation, loss):
            super().output_delta(z, a, y, sample_weight, total_weight, activation, loss, metric, delta, totals)
            return
        found[0].output_rows(activation, loss, metric, z, a, y, sample_weight, total_weight, delta, totals)

    def hidden_delta(  # noqa: D102
        self,
        delta: Array,
        weights: Array,
        activation: Activation,
        source: Array,
        mask: Array | None,
        out: Array,
    ) -> None:
        found = compiled_loops()
        if found is None or not found[0].knows(activation):
            super().hidden_delta(delta, weights, activation, source, mask, out)
            return
        np.matmul(delta, weights.T, out=out)
        if mask is not None:
            out *= mask
        found[0].times_derivative(activation, source, out)

    def accumulate_gradient(  # noqa: D102
        self, inputs: Array, delta: Array, weight_grads: Array, bias_grads: Array, *, accumulate: bool
    ) -> None:
        found = compiled_loops()
        if found is None:
            super().accumulate_gradient(inputs, delta, weight_grads, bias_grads, accumulate=accumulate)
            return
        if accumulate:
            weight_grads += inputs.T @ delta
        else:
            np.matmul(inputs.T, delta, out=weight_grads)
        found[0].sum_rows(delta, accumulate, bias_grads)

    def add_penalty(  # noqa: D102
        self,
        parameters: Parameters,
        gradients: Parameters,
        l1: float,
        l2: float,
        total_weight: float,
        totals: Array,
    ) -> None:
        found = compiled_loops()
        if found is None:
            super().add_penalty(parameters, gradients, l1, l2, total_weight, totals)
            return
        n_weights = parameters.n_weights
        penalty = found[0].add_penalty(parameters.flat[:n_weights], gradients.flat[:n_weights], l1, l2)
        totals[0] += total_weight * penalty

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
        found = compiled_loops()
        if found is None or not optimizer.built_in:
            super().update(parameters, gradients, optimizer, state, scratch, learning_rate, step, clip_norm, max_norm)
            return
        loops, optimizers = found
        flat, rate = parameters.flat, float(learning_rate)
        if clip_norm is not None:
            _clip(loops, gradients.flat, clip_norm, scratch[0])
        optimizers.update(optimizer, flat, gradients.flat, state, rate, step, parameters.n_weights)
        if step % FLUSH_EVERY == 0:
            for values in (flat, *state.values()):
                optimizers.flush_subnormals(values)
        if max_norm is not None:
            for weights in parameters.weights:
                limit_incoming_norm(weights, max_norm)

    def subnormals_flushed(self) -> AbstractContextManager[None]:
        """Return a context in which this thread takes subnormal numbers for zero, see `subnormals`."""
        if compiled_loops() is None:
            return nullcontext()
        from gpuprop.backends.cpu import subnormals

        return subnormals.subnormals_flushed()

    def plan_updates(
        self,
        network: Network,
        data: TrainingData,
        rule: UpdateRule,
        *,
        part_size: int,
        update_size: int,
        n_updates: int,
    ) -> UpdatePlan | None:
        """Return many updates as one compiled call; None where the step is made by primitives.

        `gpuprop.backends.cpu.fused` says what is covered, and when it wins.
        """
        if compiled_loops() is None:
            return None
        from gpuprop.backends.cpu import fused

        if not fused.covers(network, data, rule, part_size, update_size, n_updates):
            return None
        columns = self._scaling_columns(data.scaling, np.empty((1, network.layer_sizes[0]), network.dtype))
        return fused.FusedUpdates(network, data, rule, update_size, columns)


def _clip(loops: Any, gradients: Array, max_norm: float, scratch: Array) -> None:
    """Do as `gpuprop.optimizers.clip_by_norm`, in one pass where the gradients are of usual size."""
    squares = loops.sum_of_squares(gradients)
    if not _USUAL_SQUARES[0] < squares < _USUAL_SQUARES[1]:
        clip_by_norm(gradients, max_norm, scratch)
    elif math.sqrt(squares) > max_norm:
        loops.scale(gradients, max_norm / math.sqrt(squares))
