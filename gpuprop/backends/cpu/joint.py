"""The step of k networks of one shape at once: `gpuprop.core.step` over register tiles, with a leading axis.

Networks that see the same rows in the same order share each batch. The batch is gathered once, its zeros are found
once, and the first layers of all networks become one wide multiplication: the batch stays in the cache while the panels
of all networks' weights pass through it. Networks with rows or an order of their own gather their own batches; nothing
else differs.

The weights and the optimizer state of each network lie in panels (`gpuprop.backends.cpu.panels`). As in the fused tier,
the optimizer consumes each piece of a gradient while it is in the first cache, so that no whole gradient is ever
stored. The fused tier compiles a whole epoch for one kind of training, which pays only for long trainings. The
functions compiled here serve many kinds of training and compile in a fraction of that time. In return each step makes
some calls from Python, whose cost the k networks share.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.arrays import is_sparse
from gpuprop.backends.cpu import fused, loops, optimizer_loops
from gpuprop.backends.cpu.compiling import compiled
from gpuprop.backends.cpu.fused_step import LEFT_BLOCK, PIECE
from gpuprop.backends.cpu.panels import Panels, row_strides, transposition
from gpuprop.backends.cpu.subnormals import subnormals_flushed
from gpuprop.backends.cpu.tiles import TileShape, column_lister, multiplication, row_lister, tile_shape
from gpuprop.core.parameters import padded
from gpuprop.maths.optimizers import FLUSH_EVERY

if TYPE_CHECKING:
    from gpuprop.core.updates import EpochUpdates, Training

__all__ = ["LARGEST_OWN_BATCH", "JointUpdates", "cannot_join"]

Array = NDArray[Any]

#: Networks with rows of their own are faster alone if their batches have more rows than this. With 256 rows, training
#: together took 0.87 (784-512-10) and 0.99 (784-64-10) of the time, with 512 rows 1.13 and 1.17 (784-16-10).
LARGEST_OWN_BATCH = 256
#: Networks are faster alone, with BLAS, if the activations of their widest layer have more numbers than this.
_LARGEST_LAYER = 2**18

#: The optimizer is called for pieces of a gradient of this many numbers: with their weights and state they fit into the


def cannot_join(training: Training) -> str | None:
    """Return why a training should run alone, or None if it can share its updates with others of its shape.

    Networks of one shape may differ in their parameters, rows, order, targets, sample weights, penalties, learning
    rates, and hyperparameters of the optimizer. A training runs alone if its batches are so large that BLAS multiplies
    faster than the tiles, or if it is long enough for the fused tier: for 784-64-10 with batches of 32, an update then
    takes 115 microseconds alone, against 107 together.
    """
    spec, rule = training.layers.spec, training.rule
    if training.watched:
        return "a callback wants to be told of each update"
    for activation in spec.activations:
        if not loops.knows(activation, spec.loss):
            return f"there are no compiled loops for {activation.name} with the loss {spec.loss.name}"
    if not rule.optimizer.built_in:
        return f"there is no compiled loop for the optimizer {rule.optimizer.name!r}"
    if training.only_steps is not None:
        return training.only_steps
    if not rule.plain:
        return "parameters have learning rates of their own, or the inputs trained factors"
    if rule.clip_norm is not None or rule.max_norm is not None:
        return "a limit on norms looks at all numbers of a network together"
    if training.data.scaling is not None:
        return "the inputs are scaled batch by batch"
    if training.update_size != training.part_size:
        return "the gradients of several batches add up to one update"
    if any(spec.dropout):
        return "units are dropped"
    if training.update_size * max(spec.layer_sizes[1:]) > _LARGEST_LAYER:
        return "batches and layers are so large that BLAS multiplies faster"
    if fused.cannot_fuse(training) is None and fused.not_worth_fusing(training) is None:
        return "each training is long enough for the fused loops"
    return None


# --- what is compiled ------------------------------------------------------------------------------------------------
#
# The arrays of a layer have shape (k, rows * stride), or (1, rows * stride) where all networks have the same rows;
# `panels` is (k, size of a network's buffer). Numba treats slices of 1-d arrays as contiguous.


@functools.cache
def _products(shape: TileShape) -> Callable[..., None]:
    """Return ``products(...)``: ``out = a @ W`` for a layer of every network, by tiles that skip zeros if `listed`."""
    multiply, multiply_listed = multiplication(shape, False), multiplication(shape, True)
    rows, lanes, width = shape.rows, shape.lanes, shape.width

    @compiled
    def products(
        a: Array, a_stride: int, n_rows: int, panels: Array, at: int, fan_in: int, fan_out: int, listed: bool,
        lists: Array, counts: Array, out: Array, out_stride: int,
    ) -> None:  # fmt: skip
        block = max(rows, LEFT_BLOCK // fan_in // rows * rows)
        for i in range(panels.shape[0]):
            own = i % a.shape[0]
            for first in range(0, n_rows, block):
                count = min(block, n_rows - first)
                for column in range(0, fan_out, width):
                    narrow = fan_out - column <= lanes
                    wide = lanes if narrow else width
                    if listed:
                        multiply_listed(
                            a[own], first * a_stride, a_stride, 1, rows * a_stride, count, panels[i],
                            at + column * fan_in, wide, narrow, lists[own], counts[own], first // rows, fan_in, out[i],
                            first * out_stride + column, out_stride, panels[i], 0, 0, 0,
                        )  # fmt: skip
                    else:
                        multiply(
                            a[own], first * a_stride, a_stride, 1, rows * a_stride, count, panels[i],
                            at + column * fan_in, wide, narrow, lists[0], counts[0], 0, fan_in, out[i],
                            first * out_stride + column, out_stride, panels[i], 0, 0, 0,
                        )  # fmt: skip

    return products


@functools.cache
def _hidden_forward(name: str, dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return ``forward(...)``: ``a += biases``, kept in `z` if needed, and ``a = f(a)``, for every network."""
    activate = loops.row_activation(name, dtype)

    @compiled
    def forward(parameter: float, biases: Array, n_rows: int, stride: int, keep_z: bool, z: Array, a: Array) -> None:
        n_units = biases.shape[1]
        for i in range(a.shape[0]):
            for place in range(0, n_rows * stride, stride):
                row, bias = a[i, place : place + n_units], biases[i]
                for j in range(n_units):
                    row[j] += bias[j]
                if keep_z:
                    net_input = z[i, place : place + n_units]
                    for j in range(n_units):
                        net_input[j] = row[j]
                activate(row, parameter)

    return forward


@functools.cache
def _hidden_delta(name: str, dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return ``derive(...)``: ``delta *= f'(source)``, for every network."""
    multiply = loops.row_derivative(name, dtype)

    @compiled
    def derive(parameter: float, n_units: int, n_rows: int, stride: int, source: Array, delta: Array) -> None:
        for i in range(delta.shape[0]):
            for place in range(0, n_rows * stride, stride):
                multiply(source[i, place : place + n_units], parameter, delta[i, place : place + n_units])

    return derive


@functools.cache
def _output(name: str, derivative_of: str, loss: str, metric: str, dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return the loop over the networks' output layers: activation, loss and delta, in place of the net inputs."""
    activate = loops.activation_loop(name, dtype)
    output = loops.output_loop(name, derivative_of, loss, metric, dtype)

    @compiled
    def loop(
        parameter: float,
        biases: Array,
        n_rows: int,
        stride: int,
        z: Array,
        a: Array,
        y: Array,
        sample_weight: Array,
        total_weights: Array,
        out: Array,
        delta: Array,
        totals: Array,
    ) -> None:
        n_units, n_weighted = biases.shape[1], min(n_rows, sample_weight.shape[1])
        for i in range(delta.shape[0]):
            for row in range(n_rows):
                for j in range(n_units):
                    z[row, j] = delta[i, row * stride + j]
            activate(parameter, biases[i], True, z[:n_rows], a[:n_rows])
            target, weight = y[i % y.shape[0]], sample_weight[i]
            output(
                parameter, z[:n_rows], a[:n_rows], target[:n_rows], weight[:n_weighted], total_weights[i], out[:n_rows],
                totals[i],
            )  # fmt: skip
            for row in range(n_rows):
                for j in range(n_units):
                    delta[i, row * stride + j] = out[row, j]

    return loop


@functools.cache
def _transposes(shape: TileShape) -> Callable[..., None]:
    """Return ``transposes(...)``, which transposes a layer's weights for every network."""
    transpose = transposition(shape)

    @compiled
    def transposes(panels: Array, at: int, fan_in: int, fan_out: int, out: Array) -> None:
        for i in range(panels.shape[0]):
            transpose(panels[i], at, fan_in, fan_out, out[i], 0, 0, fan_out)

    return transposes


@functools.cache
def _update(optimizer: str, shape: TileShape, dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return ``update(...)``: gradient, penalty and optimizer of a layer of every network, piece by piece."""
    multiply, multiply_listed = multiplication(shape, False), multiplication(shape, True)
    optimize, numbers_of = optimizer_loops.update_pass(optimizer, dtype), optimizer_loops.numbers_of(optimizer)
    for_biases, add_penalty = optimizer_loops.for_biases(optimizer), loops.add_penalty
    rows, lanes, width, piece_size = shape.rows, shape.lanes, shape.width, PIECE

    @compiled
    def update(
        panels: Array, moments: Array, squares: Array, at: int, biases_at: int, fan_in: int, fan_out: int,
        a: Array, a_stride: int, delta: Array, delta_stride: int, n_rows: int, listed: bool, lists: Array,
        counts: Array, gradient: Array, rates: Array, steps: Array, hyperparameters: Array, l1: Array, l2: Array,
        total_weights: Array, totals: Array,
    ) -> None:  # fmt: skip
        for i in range(panels.shape[0]):
            own, w, first, second, penalty = i % a.shape[0], panels[i], moments[i], squares[i], 0.0
            numbers = numbers_of(rates[i], steps[i], hyperparameters[i])
            for column in range(0, fan_out, width):
                narrow = fan_out - column <= lanes
                wide = lanes if narrow else width
                block = max(rows, piece_size // wide // rows * rows)
                for top in range(0, fan_in, block):
                    count = min(block, fan_in - top)
                    begin = at + column * fan_in + top * wide
                    end = begin + count * wide
                    if listed:
                        multiply_listed(
                            a[own], top, 1, a_stride, rows, count, delta[i], column, delta_stride, narrow,
                            lists[own], counts[own], top // rows, n_rows, gradient, 0, wide, w, 0, 0, 0,
                        )  # fmt: skip
                    else:
                        multiply(
                            a[own], top, 1, a_stride, rows, count, delta[i], column, delta_stride, narrow,
                            lists[0], counts[0], 0, n_rows, gradient, 0, wide, w, 0, 0, 0,
                        )  # fmt: skip
                    parameters, piece = w[begin:end], gradient[: count * wide]
                    if l1[i] > 0 or l2[i] > 0:
                        penalty += add_penalty(parameters, piece, l1[i], l2[i])
                    optimize(parameters, piece, first[begin:end], second[begin:end], numbers)
            totals[i, 0] += total_weights[i] * penalty

            sums = gradient[:fan_out]
            for j in range(fan_out):
                sums[j] = 0
            for row in range(n_rows):
                for j in range(fan_out):
                    sums[j] += delta[i, row * delta_stride + j]
            begin, end = biases_at, biases_at + fan_out
            optimize(w[begin:end], sums, first[begin:end], second[begin:end], for_biases(numbers))

    return update


# --- the updates ------------------------------------------------------------------------------------------------------


class _Zeros:
    """Lists of what is not zero in a shared batch or in each network's own; empty where the lists do not pay."""

    def __init__(self, shape: TileShape, n_batches: int, n_rows: int, n_columns: int) -> None:
        rows = shape.rows
        self._list_columns, self._list_rows = column_lister(rows), row_lister(rows)
        row_tiles, column_tiles = -(-n_rows // rows), -(-n_columns // rows)
        self._marks = np.zeros(max(n_columns, n_rows * column_tiles), np.uint8)
        self.columns = np.zeros((n_batches, row_tiles, n_columns), np.int32), np.zeros((n_batches, row_tiles), np.int64)
        self.rows = np.zeros((n_batches, column_tiles, n_rows), np.int32), np.zeros((n_batches, column_tiles), np.int64)

    def find(self, x: Array, stride: int, n_rows: int) -> None:
        """Fill the lists for each of the batches `x`."""
        for i, batch in enumerate(x):
            self._list_columns(batch, stride, n_rows, self._marks, *(lists[i] for lists in self.columns))
            self._list_rows(batch, stride, n_rows, self._marks, *(lists[i] for lists in self.rows))


class JointUpdates:
    """The updates of an epoch of k networks of one shape; see `cannot_join`.

    Parameters
    ----------
    members : sequence of EpochUpdates
        Those of any epoch of these networks: the arrays allocated here serve all later epochs too.
    shared : bool
        Whether the networks see the same rows with the same targets in the same order.
    """

    def __init__(self, members: Sequence[EpochUpdates], *, shared: bool) -> None:
        self._shared = shared
        k, training = len(members), members[0].training
        spec, data, n_rows = training.layers.spec, training.data, training.update_size
        sizes, dtype = spec.layer_sizes, spec.dtype
        self._sizes, self._size, self._dtype = sizes, n_rows, dtype
        shape = tile_shape(dtype)
        self._panels = Panels(sizes, shape)

        def numbers(*sizes: int) -> Array:
            return np.zeros(sizes, dtype)

        self._panel_parameters = numbers(k, self._panels.size)
        optimizer = training.rule.optimizer
        self._state = [numbers(k, self._panels.size) for _ in optimizer.slots]
        self._biases = [
            self._panel_parameters[:, at : at + units]
            for at, units in zip(self._panels.biases_at.tolist(), sizes[1:], strict=True)
        ]
        self._transposed = [numbers(k, fan_out * padded(fan_in, shape.lanes)) for fan_in, fan_out in _layers(sizes)[1:]]
        self._gradient = numbers(max(PIECE, shape.rows * shape.width, *sizes))

        # Index l of `a` and `delta` belongs to layer l; `delta` holds both net inputs and deltas of the output layer.
        *hidden, output = spec.activations
        n_batches = 1 if shared else k
        self._strides = row_strides(tuple(sizes), shape)
        of_layers = [numbers(k, n_rows * stride) for stride in self._strides[1:]]
        self._a = [numbers(n_batches, n_rows * self._strides[0]), *of_layers[:-1]]
        self._z = [np.zeros_like(a) if f.derivative_of == "z" else a for a, f in zip(self._a[1:], hidden, strict=True)]
        self._delta = [np.zeros_like(a) for a in of_layers]
        self._x, self._y = numbers(n_rows, sizes[0]), numbers(n_batches, n_rows, sizes[-1])
        self._output_work = [numbers(n_rows, sizes[-1]) for _ in range(3)]
        self._listed = is_sparse(data.inputs) or fused.mostly_zero(data, (self._x[:0, 0],) * 2, shape.rows)
        self._zeros = _Zeros(shape, n_batches, *((n_rows, sizes[0]) if self._listed else (0, 0)))

        self._products, self._transposes, self._update = (
            _products(shape),
            _transposes(shape),
            _update(optimizer.name, shape, dtype),
        )
        self._hidden = [
            (_hidden_forward(f.base_name, dtype), _hidden_delta(f.base_name, dtype), f.parameter) for f in hidden
        ]
        self._output = _output(output.base_name, output.derivative_of, spec.loss.name, data.metric, dtype)
        self._output_parameter = output.parameter

    def run(self, first: int, last: int) -> None:
        """Make the updates `first` to `last` - 1, and give each network its new parameters and optimizer state.

        A network whose parameters or totals have become infinite or NaN keeps its old parameters.
        """
        n_visited = len(self._epochs[0].order)
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
        with subnormals_flushed(), quiet:
            for index in range(first, last):
                start = index * self._size
                n_rows = min(self._size, n_visited - start)
                weight = self._take_batch(start, n_rows)
                self._forward(n_rows)
                self._backward(n_rows, weight, index)
                self._make_update(n_rows, index)
        for i, member in enumerate(self._epochs):
            self._hand_over(i, member)

    def totals(self) -> NDArray[np.float64]:
        """Return each network's sums of weighted loss and score; NaN for one that kept its old parameters."""
        totals = self._totals.copy()
        totals[~np.isfinite(self._panel_parameters).all(axis=1)] = np.nan
        return totals

    def begin(self, members: Sequence[EpochUpdates]) -> None:
        """Take what is new in an epoch of these networks."""
        self._epochs = members
        self.take_parameters()
        self._members = members[:1] if self._shared else members
        self._totals = np.zeros((len(members), 2))
        self._sample_weight = np.empty((len(members), 0), self._dtype)
        if any(member.data.sample_weight is not None for member in members):
            ones = np.ones(members[0].data.n_samples, self._dtype)
            weights = [member.data.sample_weight for member in members]
            self._sample_weight = np.stack([ones if weight is None else weight for weight in weights])

        def of_steps(name: str) -> Array:
            """Return an array with a row for each step and a column for each network."""
            return np.ascontiguousarray(np.stack([getattr(member, name) for member in members], axis=1))

        self._rates, self._weights = of_steps("rates"), of_steps("weights")
        factors = of_steps("penalty_factors")
        self._l1 = factors * [member.training.layers.spec.l1 for member in members]
        self._l2 = factors * [member.training.layers.spec.l2 for member in members]
        self._steps_done = np.array([member.steps_done for member in members])
        optimizers = [member.training.rule.optimizer for member in members]
        self._hyperparameters = np.stack([optimizer_loops.hyperparameters(optimizer) for optimizer in optimizers])

    def _take_batch(self, start: int, n_rows: int) -> Array:
        """``x, y = rows of the data set``, once for all networks or for each; return each network's sample weights."""
        for i, member in enumerate(self._members):
            ops, data, x = member.training.layers.ops, member.data, self._x[:n_rows]
            ops.take_batch(data.inputs, member.order, start, None, x)
            ops.take_batch(data.targets, member.order, start, None, self._y[i, :n_rows])
            self._a[0][i].reshape(self._size, -1)[:n_rows, : self._sizes[0]] = x
        if self._listed:
            self._zeros.find(self._a[0], self._strides[0], n_rows)
        if not self._sample_weight.size:
            return self._sample_weight
        orders = [member.order[start : start + n_rows] for member in self._members]
        weights = [weight[orders[i % len(orders)]] for i, weight in enumerate(self._sample_weight)]
        return np.stack(weights)

    def _forward(self, n_rows: int) -> None:
        """``a[l] = f_l(a[l-1] @ W[l] + b[l])``; of the output layer only the product ``a[L-1] @ W[L]``."""
        for layer, (fan_in, fan_out) in enumerate(_layers(self._sizes)):
            is_output = layer == len(self._hidden)
            out, stride = self._delta[-1] if is_output else self._a[layer + 1], self._strides[layer + 1]
            self._products(
                self._a[layer], self._strides[layer], n_rows, self._panel_parameters, self._panels.weights_at[layer],
                fan_in, fan_out, self._listed and layer == 0, *self._zeros.columns, out, stride,
            )  # fmt: skip
            if not is_output:
                forward, _, parameter = self._hidden[layer]
                z = self._z[layer]
                forward(parameter, self._biases[layer], n_rows, stride, z is not out, z, out)

    def _backward(self, n_rows: int, weight: Array, index: int) -> None:
        """Form the deltas, from the output layer down, with the weights from before this update."""
        z, a, out = self._output_work
        self._output(
            self._output_parameter, self._biases[-1], n_rows, self._strides[-1], z, a, self._y, weight,
            self._weights[index], out, self._delta[-1], self._totals,
        )  # fmt: skip
        for layer in range(len(self._hidden), 0, -1):
            _, derive, parameter = self._hidden[layer - 1]
            units, above = self._sizes[layer], self._sizes[layer + 1]
            weights, delta, stride = self._transposed[layer - 1], self._delta[layer - 1], self._strides[layer]
            self._transposes(self._panel_parameters, self._panels.weights_at[layer], units, above, weights)
            self._products(
                self._delta[layer], self._strides[layer + 1], n_rows, weights, 0, above, units, False,
                *self._zeros.columns, delta, stride,
            )  # fmt: skip
            derive(parameter, units, n_rows, stride, self._z[layer - 1], delta)

    def _make_update(self, n_rows: int, index: int) -> None:
        """Form gradients and new parameters, layer by layer."""
        moments, squares = (*self._state, self._panel_parameters, self._panel_parameters)[
            :2
        ]  # state arrays that the optimizer lacks are never touched
        steps = self._steps_done + index + 1
        for layer, (fan_in, fan_out) in enumerate(_layers(self._sizes)):
            self._update(
                self._panel_parameters, moments, squares, self._panels.weights_at[layer], self._panels.biases_at[layer],
                fan_in, fan_out, self._a[layer], self._strides[layer], self._delta[layer], self._strides[layer + 1],
                n_rows, self._listed and layer == 0, *self._zeros.rows, self._gradient, self._rates[index], steps,
                self._hyperparameters, self._l1[index], self._l2[index], self._weights[index],
                self._totals,
            )  # fmt: skip
        for i in np.flatnonzero(steps % FLUSH_EVERY == 0):
            for slot in self._state:
                optimizer_loops.flush_subnormals(slot[i])

    def take_parameters(self) -> None:
        """Copy parameters and optimizer state of each network into panels."""
        for i, member in enumerate(self._epochs):
            for own, panels in self._both(i, member):
                panels[...] = 0  # clears the padding too, where a training that diverged may have left NaN
                for piece, packed in self._panels.pieces(own, panels):
                    packed[...] = piece

    def start_from(self, i: int, totals: NDArray[np.float64]) -> None:
        """Go on from the sums of earlier updates of this epoch."""
        self._totals[i] = totals

    def _hand_over(self, i: int, member: EpochUpdates) -> None:
        if not (np.isfinite(self._totals[i]).all() and np.isfinite(self._panel_parameters[i]).all()):
            return
        for own, panels in self._both(i, member):
            for piece, packed in self._panels.pieces(own, panels):
                piece[...] = packed

    def _both(self, i: int, member: EpochUpdates) -> Iterator[tuple[Array, Array]]:
        """Yield pairs of views of network i's parameters and optimizer state: in its own layout, and in panels."""
        rule = member.training.rule
        yield member.training.layers.parameters.flat, self._panel_parameters[i]
        for slot, name in zip(self._state, rule.optimizer.slots, strict=True):
            yield rule.state[name], slot[i]


def _layers(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the pair (fan_in, fan_out) of each layer."""
    return list(pairwise(sizes))
