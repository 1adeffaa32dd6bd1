"""The primitives of ``device="cpu"``: NumPy's BLAS multiplies, and compiled loops do everything in between.

`NumpyOps` takes over where the loops cannot serve: for a user's own activation or optimizer, and for everything if
Numba is missing or broken. The first primitive that is called imports Numba.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import is_sparse
from gpuprop.backends.choosing import check_plan_name, only_one, plain_steps, rounding_note, sharded
from gpuprop.backends.cpu.columns import scaling_columns
from gpuprop.backends.installed import loops_fault
from gpuprop.backends.numpy.ops import NumpyOps
from gpuprop.core.precision import product
from gpuprop.maths.dropout import keep_threshold
from gpuprop.maths.optimizers import FLUSH_EVERY, clip_by_norm, limit_incoming_norm

if TYPE_CHECKING:
    from gpuprop.core.array_ops import Array
    from gpuprop.core.ops import Dropping, OutputLayer, Outputs
    from gpuprop.core.parameters import Parameters
    from gpuprop.core.plan import Plan
    from gpuprop.core.rule import UpdateRule
    from gpuprop.core.updates import Training
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.scaling import InputScaling

__all__ = ["CpuOps", "compiled_loops"]

# For sums of squared gradients within these bounds the fast norm is safe: no square has overflowed or vanished in
# float64, and neither will the clipping factor in float32. Otherwise the careful norm of gpuprop.maths.optimizers is
# taken.
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

    @property
    def backend(self) -> str:
        return "numpy" if compiled_loops() is None else "numba"

    def take_batch(self, data: Array, order: Array, start: int, scaling: InputScaling | None, out: Array) -> None:
        found = compiled_loops()
        plain = data.ndim != 2 or is_sparse(data) or (scaling is None and data.dtype == out.dtype)
        if found is None or plain:
            super().take_batch(data, order, start, scaling, out)
        else:
            shift, factor = scaling_columns(scaling, out.shape[1], out.dtype)
            found[0].gather_rows(data, order, start, shift, factor, out)

    def drop(self, a: Array, dropping: Dropping, mask: Array, out: Array) -> None:
        found = compiled_loops()
        if found is None:
            super().drop(a, dropping, mask, out)
            return
        rate, seed, layer, step, first_row = dropping
        key = np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint64)
        found[0].drop_rows(a, keep_threshold(rate), 1.0 / (1.0 - rate), key, layer, step, first_row, mask, out)

    def forward(
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
        if len(inputs) == 1 and self.precision == "float32":
            found[0].forward_row(activation, inputs, weights, biases, z, out)
            return
        product(inputs, weights, self.precision, out if z is None else z)
        found[0].activate_rows(activation, biases, z, out)

    def output_delta(
        self, outputs: Outputs, layer: OutputLayer, total_weight: float, delta: Array, totals: Array
    ) -> None:
        found = compiled_loops()
        if found is None or not found[0].knows(layer.activation, layer.loss):
            super().output_delta(outputs, layer, total_weight, delta, totals)
            return
        activation, loss, metric = layer
        z, a, y, sample_weight = outputs
        found[0].output_rows(activation, loss, metric, z, a, y, sample_weight, total_weight, delta, totals)

    def hidden_delta(
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
        product(delta, weights.T, self.precision, out)
        if mask is not None:
            out *= mask
        found[0].times_derivative(activation, source, out)

    def accumulate_gradient(
        self, inputs: Array, delta: Array, weight_grads: Array, bias_grads: Array, *, accumulate: bool
    ) -> None:
        found = compiled_loops()
        if found is None:
            super().accumulate_gradient(inputs, delta, weight_grads, bias_grads, accumulate=accumulate)
            return
        if accumulate:
            weight_grads += product(inputs.T, delta, self.precision)
        else:
            product(inputs.T, delta, self.precision, weight_grads)
        found[0].sum_rows(delta, accumulate, bias_grads)

    def add_penalty(
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

    def update(
        self, parameters: Parameters, gradients: Parameters, rule: UpdateRule, learning_rate: float, step: int
    ) -> None:
        found, optimizer = compiled_loops(), rule.optimizer
        if found is None or not optimizer.built_in:
            super().update(parameters, gradients, rule, learning_rate, step)
            return
        loops, optimizers = found
        rate = float(learning_rate)
        if rule.clip_norm is not None:
            _clip(loops, gradients.flat, rule.clip_norm, rule.scratch[0])
        for own, given, state, _, n_weights, factor in rule.groups(parameters, gradients):
            optimizers.update(optimizer, own, given, state, rate * factor, step, n_weights)
        if step % FLUSH_EVERY == 0:
            for values in (parameters.flat, *rule.state.values()):
                optimizers.flush_subnormals(values)
        if rule.max_norm is not None:
            for weights in parameters.weights:
                limit_incoming_norm(weights, rule.max_norm)

    def plan(self, trainings: Sequence[Training], *, want: str = "auto") -> Plan:
        fault = loops_fault()
        if fault is not None:
            shards = sharded(trainings, want)
            if shards is not None:
                return shards
            check_plan_name(want, ("steps",), f"cpu without compiled loops ({fault})")
            because = f"one primitive after the other, in plain NumPy{rounding_note(self)}: {fault}"
            return plain_steps(only_one(trainings, fault), because)
        from gpuprop.backends.cpu.plans import plan

        return plan(trainings, want)


def _clip(loops: Any, gradients: Array, max_norm: float, scratch: Array) -> None:
    """Clip as `gpuprop.maths.optimizers.clip_by_norm` does, but in one pass if the gradients are of usual size."""
    squares = loops.sum_of_squares(gradients)
    if not _USUAL_SQUARES[0] < squares < _USUAL_SQUARES[1]:
        clip_by_norm(gradients, max_norm, scratch)
    elif math.sqrt(squares) > max_norm:
        loops.scale(gradients, max_norm / math.sqrt(squares))
