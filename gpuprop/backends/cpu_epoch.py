"""Many updates of a small network in one compiled call: online gradient descent in microseconds a step.

Where a step multiplies little, a call from Python into NumPy costs more than what it computes. `plan` makes one
function of the loops that `CpuOps` uses, in the order of `gpuprop.step`, with a multiplication of our own instead of
BLAS's, and hands back a callable that makes any number of updates at once.

It covers the built-in activations (one for all hidden layers), losses and optimizers, sample weights and penalties;
with dropout, a limit on norms, accumulated batches or a user's own function the step is made one primitive at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpuprop.backends import cpu_loops, cpu_optimizers
from gpuprop.backends.cpu_compile import compiled, inlined
from gpuprop.optimizers import FLUSH_EVERY, AdamW
from gpuprop.updates import PlainUpdates
from gpuprop.validation import is_sparse

if TYPE_CHECKING:
    from gpuprop.network import Network, TrainingData, TrainingWorkspace
    from gpuprop.step import UpdateRule

__all__ = ["FEWEST_UPDATES", "LARGEST_STEP", "CompiledUpdates", "covers"]

Array = NDArray[Any]

#: Rows of a batch times weights, up to which our multiplication and no calls beat BLAS and some twenty calls.
#: Measured with AVX-512: even at 64-64-10 with batches of 32, which is 150,000.
LARGEST_STEP = 150_000

#: Updates of a training from which on the seconds of compiling, which only the first such training pays, are worth it:
#: a step made of primitives costs some 50 microseconds more.
FEWEST_UPDATES = 10_000


# --- the multiplication ----------------------------------------------------------------------------------------------


@compiled
def multiply(a: Array, b: Array, out: Array) -> None:
    """``out = a @ b``; `a` may be a transposed view. Each row of `out` is a sum of rows of `b`, four at a time.

    Four, because `out` is then loaded and stored once for four fused operations, and because LLVM gives up on
    vectorising where it would have to compare more than eight pairs of arrays for overlap. The first rows are written
    and not added, which saves setting `out` to zero. Elements are addressed by two indices: a view of each row would
    cost 20 ns of counted references, with batches of one row more than the row itself.
    """
    n, n_columns = a.shape[1], out.shape[1]
    for i in range(out.shape[0]):
        if n < 4:
            done = 1
            f = a[i, 0]
            for j in range(n_columns):
                out[i, j] = f * b[0, j]
        else:
            done = 4
            f0, f1, f2, f3 = a[i, 0], a[i, 1], a[i, 2], a[i, 3]
            for j in range(n_columns):
                out[i, j] = f0 * b[0, j] + f1 * b[1, j] + (f2 * b[2, j] + f3 * b[3, j])
        blocks = (n - done) // 4
        for block in range(blocks):
            k = done + 4 * block
            f0, f1, f2, f3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            for j in range(n_columns):
                out[i, j] += f0 * b[k, j] + f1 * b[k + 1, j] + (f2 * b[k + 2, j] + f3 * b[k + 3, j])
        for k in range(done + 4 * blocks, n):
            f = a[i, k]
            for j in range(n_columns):
                out[i, j] += f * b[k, j]


@compiled
def transpose(matrix: Array, out: Array) -> None:
    """``out = matrix.T``."""
    for i in range(matrix.shape[0]):
        row = matrix[i]
        for j in range(row.size):
            out[j, i] = row[j]


@inlined
def _matrix(flat: Array, start: int, n_rows: int, n_columns: int) -> Array:
    """Return a piece of a flat buffer as a matrix."""
    return flat[start : start + n_rows * n_columns].reshape(n_rows, n_columns)


# --- the epoch -------------------------------------------------------------------------------------------------------


class Batches(NamedTuple):
    """The data set and how it is cut into batches."""

    inputs: Array
    targets: Array
    sample_weight: Array
    order: Array
    batch_weights: Array
    penalty_factors: Array
    size: int
    shift: Array
    factor: Array


class Buffers(NamedTuple):
    """The workspace of a batch of at most `n_rows` rows: layer l of `a` begins at ``n_rows * units[:l].sum()``."""

    n_rows: int
    units: Array
    a: Array
    z: Array
    delta: Array
    y: Array
    weight: Array
    transposed: Array
    totals: Array


class Model(NamedTuple):
    """Parameters, gradients and optimizer state, flat, and the numbers that go with them."""

    parameters: Array
    gradients: Array
    first: Array
    second: Array
    hyperparameters: Array
    weight_decay: float
    l1: float
    l2: float
    hidden_parameter: float
    output_parameter: float


@functools.cache
def _epoch(
    hidden: str,
    hidden_from_z: bool,
    output: str,
    output_from: str,
    loss: str,
    metric: str,
    optimizer: str,
    penalised: bool,
) -> Callable[..., None]:
    """Return the compiled updates of one kind of network: the step of `gpuprop.step`, over and over."""
    activate_hidden = cpu_loops.activation_loop(hidden)
    activate_output = cpu_loops.activation_loop(output)
    derive_hidden = cpu_loops.derivative_loop(hidden)
    output_delta = cpu_loops.output_loop(output, output_from, loss, metric)
    rates_of, update = cpu_optimizers.RATES[optimizer], cpu_optimizers.UPDATES[optimizer]
    gather_rows, sum_rows, add_penalty = cpu_loops.gather_rows, cpu_loops.sum_rows, cpu_loops.add_penalty
    decay, flush = cpu_optimizers.decay, cpu_optimizers.flush_subnormals
    decays = optimizer == "adamw"
    flush_every = FLUSH_EVERY

    @compiled
    def updates(
        batches: Batches, work: Buffers, model: Model, rates: Array, steps_done: int, first: int, stop: int
    ) -> None:
        units = work.units
        top = units.size - 1
        n_weights = 0
        for layer in range(top):
            n_weights += units[layer] * units[layer + 1]
        parameters, gradients = model.parameters, model.gradients

        for index in range(first, stop):
            start = index * batches.size
            rows = min(batches.size, batches.order.size - start)

            # take a batch
            x = _matrix(work.a, 0, rows, units[0])
            gather_rows(batches.inputs, batches.order, start, batches.shift, batches.factor, x)
            y = work.y[:rows]
            for i in range(rows):
                target, row = batches.targets[batches.order[start + i]], y[i]
                for k in range(row.size):
                    row[k] = target[k]
            weight = work.weight[: min(rows, batches.sample_weight.size)]
            for i in range(weight.size):
                weight[i] = batches.sample_weight[batches.order[start + i]]

            # forward
            w_start, b_start, below_start = 0, n_weights, 0
            for layer in range(1, top + 1):
                fan_in, fan_out = units[layer - 1], units[layer]
                here = below_start + work.n_rows * fan_in
                below = _matrix(work.a, below_start, rows, fan_in)
                a, z = _matrix(work.a, here, rows, fan_out), _matrix(work.z, here, rows, fan_out)
                biases = parameters[b_start : b_start + fan_out]
                keep_z = hidden_from_z or layer == top
                multiply(below, _matrix(parameters, w_start, fan_in, fan_out), z if keep_z else a)
                if layer == top:
                    activate_output(model.output_parameter, biases, keep_z, z, a)
                else:
                    activate_hidden(model.hidden_parameter, biases, keep_z, z, a)
                w_start += fan_in * fan_out
                b_start += fan_out
                below_start = here

            # output delta
            here = below_start
            a, z = _matrix(work.a, here, rows, units[top]), _matrix(work.z, here, rows, units[top])
            delta = _matrix(work.delta, here, rows, units[top])
            total_weight = batches.batch_weights[index]
            output_delta(model.output_parameter, z, a, y, weight, total_weight, delta, work.totals)

            # hidden deltas, with the weights as they still are, and gradients
            for layer in range(top, 0, -1):
                fan_in, fan_out = units[layer - 1], units[layer]
                w_start -= fan_in * fan_out
                b_start -= fan_out
                below_start = here - work.n_rows * fan_in
                below = _matrix(work.a, below_start, rows, fan_in)
                delta = _matrix(work.delta, here, rows, fan_out)
                if layer > 1:
                    weights = _matrix(parameters, w_start, fan_in, fan_out)
                    transposed = _matrix(work.transposed, 0, fan_out, fan_in)
                    transpose(weights, transposed)
                    delta_below = _matrix(work.delta, below_start, rows, fan_in)
                    multiply(delta, transposed, delta_below)
                    source = _matrix(work.z, below_start, rows, fan_in) if hidden_from_z else below
                    derive_hidden(source, model.hidden_parameter, delta_below)
                multiply(below.T, delta, _matrix(gradients, w_start, fan_in, fan_out))
                sum_rows(delta, False, gradients[b_start : b_start + fan_out])
                here = below_start
            if penalised:
                factor = batches.penalty_factors[index]
                penalty = add_penalty(
                    parameters[:n_weights], gradients[:n_weights], factor * model.l1, factor * model.l2
                )
                work.totals[0] += total_weight * penalty

            # update
            step = steps_done + index + 1
            if decays:
                decay(parameters[:n_weights], rates[index] * model.weight_decay)
            rate, other = rates_of(rates[index], step, model.hyperparameters)
            update(parameters, gradients, model.first, model.second, rate, other, model.hyperparameters)
            if step % flush_every == 0:
                flush(model.first)
                flush(model.second)

    return updates


# --- the plan --------------------------------------------------------------------------------------------------------


def covers(
    network: Network, data: TrainingData, rule: UpdateRule, part_size: int, update_size: int, n_updates: int
) -> bool:
    """Whether the compiled updates do all that a training of `n_updates` asks for, and are the faster way."""
    hidden = {activation.name for activation in network.hidden_activations}
    return (
        update_size * network.n_weights <= LARGEST_STEP
        and n_updates >= FEWEST_UPDATES
        and update_size <= part_size
        and not is_sparse(data.inputs)
        and len(hidden) <= 1
        and all(cpu_loops.knows(activation, network.loss_function) for activation in network.layer_activations)
        and cpu_optimizers.is_built_in(rule.optimizer)
        and rule.clip_norm is None
        and rule.max_norm is None
        and not any(network.dropout)
    )


def _lay_out(work: TrainingWorkspace, units: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Move the layers of a, z and delta into one buffer each; the workspace's arrays become views of them."""
    dtype, n_rows = work.a[0].dtype, work.n_rows
    buffers = tuple(np.zeros(n_rows * sum(units), dtype) for _ in range(3))
    starts = [n_rows * count for count in accumulate(units, initial=0)]
    for name, flat in zip(("a", "z", "delta"), buffers, strict=True):
        views = [
            flat[start : start + n_rows * width].reshape(n_rows, width)
            for start, width in zip(starts, units, strict=False)
        ]
        given = getattr(work, name)
        setattr(work, name, [None if old is None else new for old, new in zip(given, views, strict=True)])
    work.inputs = list(work.a[:-1])
    return buffers[0], buffers[1], buffers[2]


class CompiledUpdates(PlainUpdates):
    """`gpuprop.backends.ops.UpdatePlan` by one compiled call for any number of updates, of a training that `covers`.

    Parameters
    ----------
    network, work, data, rule, update_size
        As for `gpuprop.updates.PlainUpdates`; the workspace must not have been used yet.
    columns : pair of arrays of shape (n_features,)
        Shift and factor of each input.
    """

    def __init__(
        self,
        network: Network,
        work: TrainingWorkspace,
        data: TrainingData,
        rule: UpdateRule,
        update_size: int,
        columns: tuple[Array, Array],
    ) -> None:
        super().__init__(network, work, data, rule, update_size)
        units, dtype = network.layer_sizes, network.dtype
        a, z, delta = _lay_out(work, units)
        self._columns = columns
        self._none = np.empty(0, dtype)
        self._buffers = Buffers(
            n_rows=work.n_rows,
            units=np.array(units, np.int64),
            a=a,
            z=z,
            delta=delta,
            y=work.y[0],
            weight=work.sample_weight[0],
            transposed=np.zeros(max(network.weights[layer].size for layer in range(network.n_layers)), dtype),
            totals=work.totals,
        )
        output = network.output_activation
        hidden = network.hidden_activations[0] if network.hidden_activations else output
        hidden_name = "identity" if hidden is output and output.name == "softmax" else cpu_loops.base_name(hidden)
        self._parameters_of = cpu_loops.parameter_of(hidden, dtype), cpu_loops.parameter_of(output, dtype)
        self._updates = _epoch(
            hidden_name,
            hidden.derivative_of == "z",
            cpu_loops.base_name(output),
            output.derivative_of,
            network.loss_function.name,
            data.metric,
            rule.optimizer.name,
            bool(network.l1 or network.l2),
        )

    def run(self, first: int, last: int) -> None:  # noqa: D102  (contracts: see UpdatePlan)
        network, data, rule = self._network, self._data, self._rule
        batches = Batches(
            inputs=data.inputs,
            targets=data.targets,
            sample_weight=self._none if data.sample_weight is None else data.sample_weight,
            order=self._order,
            batch_weights=self._weights,
            penalty_factors=self._penalty_factors,
            size=self._update_size,
            shift=self._columns[0],
            factor=self._columns[1],
        )
        slots = cpu_optimizers.slots(rule.optimizer, rule.state, self._none)
        model = Model(
            parameters=network.parameters,
            gradients=self._work.gradients.flat,
            first=slots[0],
            second=slots[1],
            hyperparameters=cpu_optimizers.hyperparameters(rule.optimizer),
            weight_decay=rule.optimizer.weight_decay if isinstance(rule.optimizer, AdamW) else 0.0,
            l1=network.l1,
            l2=network.l2,
            hidden_parameter=self._parameters_of[0],
            output_parameter=self._parameters_of[1],
        )
        self._updates(batches, self._buffers, model, self._rates, self._steps_done, first, last)
