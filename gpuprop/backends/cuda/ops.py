"""The primitives made of the kernels of `gpuprop_kernels`, on a GPU and in Numba's simulator.

Inference, evaluation and gradients take them one by one. A training takes `gpuprop.backends.cuda.kernel_plan`, which
fuses neighbouring primitives and waits for nothing between two updates.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpuprop.backends.cuda.array_ops import CudaArrays
from gpuprop.backends.cuda.launches import limit_incoming_norms
from gpuprop.backends.cuda.plans import plan as choose_plan
from gpuprop.backends.cuda.residence import HostRows
from gpuprop.backends.cuda.translation import (
    IDENTITY,
    METRICS,
    kernel_activation,
    kernel_loss,
    slot_scalars,
)
from gpuprop.maths.dropout import keep_mask
from gpuprop_kernels import launch
from gpuprop_kernels.gradient import GradientJob, job_table
from gpuprop_kernels.launch import padded
from gpuprop_kernels.optimizers import SCALARS

if TYPE_CHECKING:
    from gpuprop.core.array_ops import Array
    from gpuprop.core.ops import Dropping, OutputLayer, Outputs
    from gpuprop.core.parameters import Parameters
    from gpuprop.core.plan import Backend, Plan
    from gpuprop.core.rule import Group, UpdateRule
    from gpuprop.core.updates import Training
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.optimizers import Optimizer
    from gpuprop.maths.scaling import InputScaling

__all__ = ["CudaOps"]


class CudaOps(CudaArrays):
    """`gpuprop.core.plan.Backend` by CUDA kernels: float64, float32, and precisions of tensor cores."""

    def in_precision(self, precision: str, *, emulate: bool = False) -> Backend:
        if precision == self.precision:
            return self
        twin = copy.copy(self)
        twin.precision = precision
        return twin

    def take_batch(self, data: Array, order: Array, start: int, scaling: InputScaling | None, out: Array) -> None:
        with self.runtime.active():
            if isinstance(data, HostRows):
                which = self.to_numpy(order[start : start + len(out)])
                data, start = self.asarray(data.take(which), data.dtype), 0
                order = self.asarray(np.arange(len(out)), np.int32)
            if data.ndim == 1:
                out[...] = data[order[start : start + len(out)]]
                return
            batch = self.batch(len(out), self.runtime.view(order), start)
            rows = self.rows(data, scaling, out.dtype)
            launch.load_batch(rows, self.flat(out), batch, n_features=data.shape[1])

    def drop(self, a: Array, dropping: Dropping, mask: Array, out: Array) -> None:
        n_rows, n_columns = a.shape
        rate, seed, layer, step, first_row = dropping
        kept = keep_mask(
            rate, seed=seed, layer=layer, step=step, n_rows=n_rows, n_columns=n_columns, first_row=first_row
        )
        with self.runtime.active():
            mask[...] = self.asarray(kept / (1.0 - rate), mask.dtype)
            self.runtime.xp.multiply(a, mask, out=out)

    def forward(
        self,
        inputs: Array,
        weights: Array,
        biases: Array,
        activation: Activation,
        z: Array | None,
        out: Array,
    ) -> None:
        (n_rows, n_in), n_out = inputs.shape, out.shape[1]
        softmax = activation.name == "softmax"
        with self.runtime.active():
            launch.forward_layer(
                self.flat(inputs),
                self.flat(weights),
                self.padded_biases(biases),
                self.flat(out),
                self.whole_batch(n_rows),
                activation=IDENTITY if softmax else kernel_activation(activation),
                n_in=n_in,
                n_out=n_out,
                tile=self.tile(n_rows, n_out, out.dtype),
                z=None if z is None else self.flat(z),
            )
            if softmax:
                flat = self.flat(out)
                launch.softmax_rows(flat, flat, n_rows=n_rows, n_out=n_out, stream=self.runtime.stream)

    def output_delta(
        self, outputs: Outputs, layer: OutputLayer, total_weight: float, delta: Array, totals: Array
    ) -> None:
        z, _, y, sample_weight = outputs
        n_rows, n_out = z.shape
        scalars = np.zeros(SCALARS)
        # A batch whose weights are all zero has no loss and no gradient.
        scalars[0] = 1.0 / total_weight if total_weight > 0 else 0.0
        with self.runtime.active():
            losses = self.empty((launch.row_blocks(n_rows) * 2,), z.dtype)
            launch.loss_rows(
                self.flat(z),
                self.flat(y),
                None if sample_weight is None else self.flat(sample_weight),
                self.flat(delta),
                self.flat(losses),
                self.constant(scalars, z.dtype),
                self.whole_batch(n_rows),
                output=kernel_activation(layer.activation),
                loss=kernel_loss(layer.loss),
                metric=METRICS[layer.metric],
                n_out=n_out,
                targets_ld=padded(n_out),
            )
            totals += losses.reshape(-1, 2).sum(axis=0, dtype=np.float64)

    def hidden_delta(
        self,
        delta: Array,
        weights: Array,
        activation: Activation,
        source: Array,
        mask: Array | None,
        out: Array,
    ) -> None:
        (n_rows, n_units), n_next = out.shape, delta.shape[1]
        with self.runtime.active():
            tile = self.tile(n_rows, n_units, out.dtype)
            sums = self.empty((launch.blocks(n_rows, tile.rows), n_units), out.dtype)
            launch.hidden_delta(
                self.flat(delta),
                self.flat(weights),
                self.flat(source),
                self.flat(out),
                self.flat(sums),
                self.whole_batch(n_rows),
                activation=kernel_activation(activation),
                n_units=n_units,
                n_next=n_next,
                tile=tile,
            )
            if mask is not None:
                out *= mask

    def accumulate_gradient(
        self, inputs: Array, delta: Array, weight_grads: Array, bias_grads: Array, *, accumulate: bool
    ) -> None:
        (n_rows, n_in), n_out = inputs.shape, delta.shape[1]
        with self.runtime.active():
            tile = self.tile(n_in, n_out, delta.dtype, needs_registers=True)
            # Inputs and deltas lie in different arrays, so the kernel reads the inputs as a data set.
            job = GradientJob(n_in, n_out, 0, 0, 0, n_rows, 0, 0, gathered=True)
            jobs, _ = job_table([job], tile)
            weights_job = jobs[: jobs.size // 2]  # the other half is the job for the biases
            gradients = self.flat(weight_grads)
            launch.accumulate_gradients(
                self.rows(inputs, None, inputs.dtype),
                self.flat(delta),
                gradients,
                gradients,
                self.constant(weights_job, np.int32),
                self.constant(np.zeros(SCALARS), delta.dtype),
                self.whole_batch(n_rows),
                mode="accumulate" if accumulate else "slab",
                tile=tile,
                n_jobs=1,
                n_blocks=launch.blocks(padded(n_out), tile.columns) * launch.blocks(n_in, tile.rows),
            )
            sums = delta.sum(axis=0)
            bias_grads[...] = bias_grads + sums if accumulate else sums

    def add_penalty(
        self,
        parameters: Parameters,
        gradients: Parameters,
        l1: float,
        l2: float,
        total_weight: float,
        totals: Array,
    ) -> None:
        xp, n = self.runtime.xp, parameters.n_weights
        with self.runtime.active():
            weights = parameters.flat[:n]
            gradients.flat[:n] += l1 * xp.sign(weights) + l2 * weights
            wide = weights.astype(np.float64)
            totals[0] += total_weight * (l1 * xp.abs(wide).sum() + 0.5 * l2 * (wide * wide).sum())

    def update(
        self, parameters: Parameters, gradients: Parameters, rule: UpdateRule, learning_rate: float, step: int
    ) -> None:
        xp, flat = self.runtime.xp, parameters.flat
        with self.runtime.active():
            if rule.clip_norm is not None:
                norm = xp.sqrt(xp.square(gradients.flat.astype(np.float64)).sum())
                factor = xp.minimum(1.0, rule.clip_norm / xp.maximum(norm, rule.clip_norm))
                gradients.flat[...] *= factor.astype(flat.dtype)
            for group in rule.groups(parameters, gradients):
                self._update_group(group, rule.optimizer, learning_rate * group.rate_factor, step)
            if rule.max_norm is not None:
                limit_incoming_norms(self.flat(flat), parameters.layer_sizes, rule.max_norm, self.whole_batch(1))

    def _update_group(self, group: Group, optimizer: Optimizer, rate: float, step: int) -> None:
        """Take one step of the optimizer with parameters of one learning rate."""
        xp, flat, state = self.runtime.xp, group.parameters, group.state
        if not optimizer.built_in:  # the kernels do not know it
            optimizer.update(flat, group.gradients, state, rate, step, group.scratch, group.n_weights)
            return
        memory = xp.concatenate([*state.values(), xp.zeros(4, flat.dtype)])
        launch.update_parameters(
            self.flat(flat),
            self.flat(memory),
            self.flat(group.gradients),
            self.constant(slot_scalars(optimizer, rate, step, 1.0), flat.dtype),
            self.whole_batch(1),
            optimizer=optimizer.name,
            n_weights=group.n_weights,
        )
        for index, array in enumerate(state.values()):
            array[...] = memory[index * flat.size : (index + 1) * flat.size]

    def plan(self, trainings: Sequence[Training], *, want: str = "auto") -> Plan:
        return choose_plan(self, trainings, want)
