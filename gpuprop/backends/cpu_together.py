"""The step of k networks of one shape at once: `gpuprop.step` with a leading axis, in fewer and larger calls.

Networks that see the same rows in the same order share each batch, and their first layers are one wide multiplication:
the weights of all lie below one another, ``z = W @ x.T`` with W (k * fan_out, fan_in), and so does the gradient.
Networks with rows or an order of their own gather their own batches, and the multiplications run over the leading axis.

The arrays of the hidden layers lie transposed, (k, units, rows): so the wide products are those that BLAS is fastest
at (with 32 rows of MNIST and ten times 64 units 543 microseconds, the other way round 685), and each network's
parameters are contiguous pieces that the loops of `cpu_optimizers` work on, each with its own rate and penalty.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.backends import cpu_fused, cpu_loops, cpu_optimizers
from gpuprop.backends.cpu_compile import compiled, inlined_sum
from gpuprop.network import Parameters
from gpuprop.optimizers import FLUSH_EVERY, AdamW

if TYPE_CHECKING:
    from gpuprop.updates import EpochUpdates

__all__ = ["JointUpdates", "kind_of"]

Array = NDArray[Any]

#: Numbers whose gradients get their penalty in one pass and are used up in the next, while they lie in the cache.
_PIECE = 4096


def kind_of(updates: EpochUpdates) -> Hashable:
    """Return what networks must have in common to be trained together; None for one that is trained alone.

    What they need not have in common: parameters, rows, order, targets, weights of samples, penalties, learning rates,
    and the hyperparameters of the optimizer. A training that is long enough for the fused tier is faster
    alone.
    """
    network, rule, data = updates.network, updates.rule, updates.data
    asked = (network, data, rule, updates.part_size, updates.update_size, updates.n_updates)
    covered = (
        not updates.watched
        and all(cpu_loops.knows(activation, network.loss_function) for activation in network.layer_activations)
        and cpu_optimizers.is_built_in(rule.optimizer)
        and rule.clip_norm is None
        and rule.max_norm is None
        and data.scaling is None
        and updates.update_size == updates.part_size
        and not any(network.dropout)
        and not cpu_fused.covers(*asked)
    )
    if not covered:
        return None
    return (
        network.layer_sizes,
        network.dtype,
        tuple(activation.name for activation in network.layer_activations),
        network.loss_function.name,
        data.metric,
        rule.optimizer.name,
        data.n_samples,
        updates.update_size,
    )


# --- the loops between the multiplications ----------------------------------------------------------------------------


@functools.cache
def _hidden_forward(name: str) -> Callable[..., None]:
    """Return ``loop(parameter, biases, keep_z, z, a)``: ``z += biases; a = f(z)``, a row a unit, with its own bias."""
    activate = cpu_loops.row_activation(name)

    @compiled
    def loop(parameter: float, biases: Array, keep_z: bool, z: Array, a: Array) -> None:
        for unit in range(a.shape[0]):
            row, bias = a[unit], biases[unit]
            if keep_z:
                net_input = z[unit]
                for j in range(row.size):
                    net_input[j] += bias
                for j in range(row.size):
                    row[j] = net_input[j]
            else:
                for j in range(row.size):
                    row[j] += bias
            activate(row, parameter)

    return loop


@functools.cache
def _hidden_delta(name: str) -> Callable[..., None]:
    """Return ``loop(source, parameter, delta, bias_grads)``: ``delta *= f'(source)``, and its sum for each unit."""
    multiply, sum_of = cpu_loops.row_derivative(name), cpu_loops.sum_of

    @compiled
    def loop(source: Array, parameter: float, delta: Array, bias_grads: Array) -> None:
        multiply(source.reshape(source.size), parameter, delta.reshape(delta.size))
        for unit in range(bias_grads.size):
            bias_grads[unit] = sum_of(delta[unit])

    return loop


@functools.cache
def _output(name: str, derivative_of: str, loss: str, metric: str) -> Callable[..., None]:
    """Return the loop over the networks' output layers: activation, loss, delta and the gradient of the biases."""
    activate, output = cpu_loops.activation_loop(name), cpu_loops.output_loop(name, derivative_of, loss, metric)
    sum_rows = cpu_loops.sum_rows

    @compiled
    def loop(
        parameter: float,
        biases: Array,
        z: Array,
        a: Array,
        y: Array,
        sample_weight: Array,
        total_weights: Array,
        delta: Array,
        bias_grads: Array,
        totals: Array,
    ) -> None:
        for i in range(z.shape[0]):
            activate(parameter, biases[i], True, z[i], a[i])
            target = y[i % y.shape[0]]  # of all, or its own
            output(parameter, z[i], a[i], target, sample_weight[i], total_weights[i], delta[i], totals[i])
            sum_rows(delta[i], False, bias_grads[i])

    return loop


@inlined_sum
def _ridge(weights: Array, weight_grads: Array, l2: float, out: Array) -> float:
    """``out = weight_grads + l2 W``; return ``l2 / 2 sum W^2``: `cpu_loops.add_penalty` for the usual case.

    Beside, not in place: the gradients of ten networks lie in slow memory, and would have to be written there again.
    """
    factor, total = weights.dtype.type(l2), weights.dtype.type(0)
    for i in range(weights.size):
        out[i] = weight_grads[i] + factor * weights[i]
        total += weights[i] * weights[i]
    return 0.5 * l2 * float(total)


@functools.cache
def _update(optimizer: str) -> Callable[..., None]:
    """Return the loop that adds each network's penalty and updates its parameters, piece by piece."""
    update, rates_of, add_penalty = (
        cpu_optimizers.UPDATES[optimizer],
        cpu_optimizers.RATES[optimizer],
        cpu_loops.add_penalty,
    )
    decay, flush = cpu_optimizers.decay, cpu_optimizers.flush_subnormals
    decays, flush_every, piece_size, ridge = optimizer == "adamw", FLUSH_EVERY, _PIECE, _ridge

    @compiled
    def loop(
        w: Array,
        g: Array,
        first: Array,
        second: Array,
        starts: Array,
        n_weight_blocks: int,
        rates: Array,
        steps: Array,
        hyperparameters: Array,
        weight_decay: Array,
        l1: Array,
        l2: Array,
        total_weights: Array,
        totals: Array,
    ) -> None:
        k = rates.size
        piece = np.empty(piece_size, w.dtype)
        for block in range(starts.size - 1):
            size = (starts[block + 1] - starts[block]) // k
            for i in range(k):
                begin = starts[block] + i * size
                rate, other = rates_of(rates[i], steps[i], hyperparameters[i])
                penalty = 0.0
                for start in range(begin, begin + size, piece_size):
                    stop = min(start + piece_size, begin + size)
                    parameters, gradients = w[start:stop], g[start:stop]
                    if block < n_weight_blocks:
                        if l1[i] > 0:
                            penalty += add_penalty(parameters, gradients, l1[i], l2[i])
                        elif l2[i] > 0:
                            penalty += ridge(parameters, gradients, l2[i], piece)
                            gradients = piece[: stop - start]
                        if decays:
                            decay(parameters, rates[i] * weight_decay[i])
                    update(
                        parameters,
                        gradients,
                        first[start:stop],
                        second[start:stop],
                        rate,
                        other,
                        hyperparameters[i],
                    )
                    if steps[i] % flush_every == 0:
                        flush(first[start:stop])
                        flush(second[start:stop])
                totals[i, 0] += total_weights[i] * penalty

    return loop


# --- parameters and the workspace -------------------------------------------------------------------------------------


class _JointParameters:
    """The parameters of k networks in one flat buffer: a block for each layer's weights, then one for its biases.

    Attributes
    ----------
    weights : list of arrays
        Of hidden layers (k, fan_out, fan_in), transposed; of the output layer (k, fan_in, fan_out).
    biases : list of arrays of shape (k, fan_out)
    starts : array of int
        Where each block begins in `flat`, and where the last one ends.
    """

    def __init__(self, k: int, layer_sizes: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.layer_sizes = layer_sizes
        pairs = list(pairwise(layer_sizes))
        shapes = [(k, fan_out, fan_in) for fan_in, fan_out in pairs[:-1]] + [(k, *pairs[-1])]
        bias_shapes = [(k, fan_out) for fan_out in layer_sizes[1:]]
        self.starts = np.array(list(accumulate((int(np.prod(s)) for s in [*shapes, *bias_shapes]), initial=0)))
        self.flat = np.zeros(self.starts[-1], dtype)
        blocks = [self.flat[start:stop] for start, stop in pairwise(self.starts)]
        self.weights = [block.reshape(shape) for block, shape in zip(blocks, shapes, strict=False)]
        self.biases = [b.reshape(shape) for b, shape in zip(blocks[len(shapes) :], bias_shapes, strict=True)]

    def _pairs(self, i: int, flat: Array) -> list[tuple[Array, Array]]:
        """Return network i's arrays here, and views of the same shape of a flat buffer of its own."""
        own = Parameters(flat, self.layer_sizes)
        here = [weights[i].T for weights in self.weights[:-1]] + [self.weights[-1][i]]
        here += [biases[i] for biases in self.biases]
        return list(zip(here, own.weights + own.biases, strict=True))

    def take(self, i: int, flat: Array) -> None:
        """Copy from network i's flat buffer."""
        for here, own in self._pairs(i, flat):
            here[...] = own

    def give(self, i: int, flat: Array) -> None:
        """Copy to network i's flat buffer."""
        for here, own in self._pairs(i, flat):
            own[...] = here


class _Batch:
    """The workspace of a batch of `n` rows; the arrays of hidden layers are (k, units, n), see the module."""

    def __init__(self, n: int, k: int, n_batches: int, layer_sizes: tuple[int, ...], keep_z: list[bool], like: Array):
        dtype = like.dtype
        hidden = layer_sizes[1:-1]
        self.x = np.empty((n_batches, n, layer_sizes[0]), dtype)
        self.y = np.empty((n_batches, n, layer_sizes[-1]), dtype)
        self.weight = np.empty((k, n), dtype)
        self.no_weight = np.empty((k, 0), dtype)
        self.a = [np.empty((k, units, n), dtype) for units in hidden]
        self.z = [np.empty_like(a) if kept else a for a, kept in zip(self.a, keep_z, strict=True)]
        self.delta = [np.empty_like(a) for a in self.a]
        self.output = np.empty((k, n, layer_sizes[-1]), dtype)
        self.output_z, self.output_delta = np.empty_like(self.output), np.empty_like(self.output)


# --- the updates ------------------------------------------------------------------------------------------------------


def _transposed(matrices: Array) -> Array:
    return matrices.transpose(0, 2, 1)


def _rows(stack: Array) -> Array:
    """Return the matrices of a stack below one another, as one matrix."""
    return stack.reshape(-1, stack.shape[-1])


class JointUpdates:
    """The updates of an epoch of k networks of one kind, see `kind_of`.

    Parameters
    ----------
    members : sequence of EpochUpdates
        Of any epoch of these networks: what is allocated here serves all that follow.
    shared : bool
        Whether the networks see the same rows with the same targets in the same order.
    """

    def __init__(self, members: Sequence[EpochUpdates], *, shared: bool) -> None:
        self._shared = shared
        k, network = len(members), members[0].network
        sizes, dtype = network.layer_sizes, network.dtype
        optimizer = members[0].rule.optimizer
        self._parameters, self._gradients = (_JointParameters(k, sizes, dtype) for _ in range(2))
        self._state = [_JointParameters(k, sizes, dtype) for _ in optimizer.slots]
        self._update = _update(optimizer.name)

        *hidden, output = network.layer_activations
        keep_z = [activation.derivative_of == "z" for activation in hidden]
        n_rows, size = members[0].data.n_samples, members[0].update_size
        self._batches = {
            n: _Batch(n, k, 1 if shared else k, sizes, keep_z, self._parameters.flat)
            for n in {size, n_rows % size or size}
        }
        self._hidden = [
            (_hidden_forward(name), _hidden_delta(name), cpu_loops.parameter_of(activation, dtype))
            for activation, name in ((activation, cpu_loops.base_name(activation)) for activation in hidden)
        ]
        self._output = _output(
            cpu_loops.base_name(output), output.derivative_of, network.loss_function.name, members[0].data.metric
        )
        self._output_parameter = cpu_loops.parameter_of(output, dtype)

    def run(self, members: Sequence[EpochUpdates]) -> list[Array | None]:
        """Make the updates and return the totals of each network: sums of weighted loss and of weighted score.

        A network whose parameters or totals are not finite any more is left as it was, and gets None instead.
        """
        self._begin(members)
        size, n_rows = members[0].update_size, members[0].data.n_samples
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            for index, start in enumerate(range(0, n_rows, size)):
                work = self._batches[min(size, n_rows - start)]
                self._take_batch(work, start)
                self._forward(work)
                self._backward(work, index)
                self._make_update(index)
        return [self._finished(i, member) for i, member in enumerate(members)]

    def _begin(self, members: Sequence[EpochUpdates]) -> None:
        dtype = self._parameters.flat.dtype
        for i, member in enumerate(members):
            self._parameters.take(i, member.network.parameters)
            for slot, name in zip(self._state, member.rule.optimizer.slots, strict=True):
                slot.take(i, member.rule.state[name])
        self._members = members[:1] if self._shared else members
        self._totals = np.zeros((len(members), 2))
        self._sample_weight: Array | None = None
        if any(member.data.sample_weight is not None for member in members):
            ones = np.ones(members[0].data.n_samples, dtype)
            weights = [member.data.sample_weight for member in members]
            self._sample_weight = np.stack([ones if weight is None else weight for weight in weights])

        def of_steps(name: str) -> Array:
            """Return a row for each step, with a number for each network."""
            return np.ascontiguousarray(np.stack([getattr(member, name) for member in members], axis=1))

        self._rates, self._weights = of_steps("rates"), of_steps("weights")
        factors = of_steps("penalty_factors")
        self._l1 = factors * [member.network.l1 for member in members]
        self._l2 = factors * [member.network.l2 for member in members]
        self._steps_done = np.array([member.steps_done for member in members])
        optimizers = [member.rule.optimizer for member in members]
        self._hyperparameters = np.stack([cpu_optimizers.hyperparameters(optimizer) for optimizer in optimizers])
        self._decay = np.array([o.weight_decay if isinstance(o, AdamW) else 0.0 for o in optimizers])

    def _take_batch(self, work: _Batch, start: int) -> None:
        """``x, y = rows of the data set``, of one for all or of each."""
        for i, member in enumerate(self._members):
            ops, data = member.network.ops, member.data
            ops.take_batch(data.inputs, member.order, start, None, work.x[i])
            ops.take_batch(data.targets, member.order, start, None, work.y[i])
        if self._sample_weight is None:
            return
        for i, weight in enumerate(self._sample_weight):
            order = self._members[i % len(self._members)].order[start : start + work.x.shape[1]]
            np.take(weight, order, out=work.weight[i], mode="clip")

    def _forward(self, work: _Batch) -> None:
        """``a[l] = f_l(W[l] @ a[l-1] + b[l])``, up to the net inputs of the output layer."""
        weights, biases = self._parameters.weights, self._parameters.biases
        for layer, (forward, _, parameter) in enumerate(self._hidden):
            a, z = work.a[layer], work.z[layer]
            if layer > 0:
                np.matmul(weights[layer], work.a[layer - 1], out=z)
            elif self._shared:
                np.matmul(_rows(weights[0]), work.x[0].T, out=_rows(z))
            else:
                np.matmul(weights[0], _transposed(work.x), out=z)
            forward(parameter, biases[layer].reshape(-1), z is not a, _rows(z), _rows(a))
        below = _transposed(work.a[-1]) if work.a else work.x
        np.matmul(below, weights[-1], out=work.output_z)

    def _backward(self, work: _Batch, index: int) -> None:
        """The deltas, from the output layer down, and the gradients; with the weights as they still are."""
        weights, grads, delta = self._parameters.weights, self._gradients, work.output_delta
        self._output(
            self._output_parameter,
            self._parameters.biases[-1],
            work.output_z,
            work.output,
            work.y,
            work.no_weight if self._sample_weight is None else work.weight,
            self._weights[index],
            delta,
            grads.biases[-1],
            self._totals,
        )
        np.matmul(work.a[-1] if work.a else _transposed(work.x), delta, out=grads.weights[-1])
        above, weights_above = _transposed(delta), weights[-1]
        for layer in range(len(self._hidden) - 1, -1, -1):
            _, derive, parameter = self._hidden[layer]
            delta, source = work.delta[layer], work.z[layer]
            np.matmul(weights_above, above, out=delta)
            derive(_rows(source), parameter, _rows(delta), grads.biases[layer].reshape(-1))
            if layer > 0:
                np.matmul(delta, _transposed(work.a[layer - 1]), out=grads.weights[layer])
            elif self._shared:
                np.matmul(_rows(delta), work.x[0], out=_rows(grads.weights[0]))
            else:
                np.matmul(delta, work.x, out=grads.weights[0])
            above, weights_above = delta, _transposed(weights[layer])

    def _make_update(self, index: int) -> None:
        parameters = self._parameters
        slots = [slot.flat for slot in self._state]
        first, second = (*slots, parameters.flat, parameters.flat)[:2]
        self._update(
            parameters.flat,
            self._gradients.flat,
            first,
            second,
            parameters.starts,
            len(parameters.weights),
            self._rates[index],
            self._steps_done + index + 1,
            self._hyperparameters,
            self._decay,
            self._l1[index],
            self._l2[index],
            self._weights[index],
            self._totals,
        )

    def _finished(self, i: int, member: EpochUpdates) -> Array | None:
        """Hand network i its new parameters and its optimizer's memory, if they are finite."""
        flat = np.empty_like(member.network.parameters)
        self._parameters.give(i, flat)
        if not (np.isfinite(self._totals[i]).all() and np.isfinite(flat).all()):
            return None
        member.network.parameters[...] = flat
        for slot, name in zip(self._state, member.rule.optimizer.slots, strict=True):
            slot.give(i, member.rule.state[name])
        totals: Array = self._totals[i]
        return totals
