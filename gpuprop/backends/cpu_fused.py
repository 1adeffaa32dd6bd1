"""The fused tier: a whole epoch in one compiled call over register tiles, for networks that are not small.

The step of `gpuprop.step`, with everything between the multiplications done while a product is still in the cache:

    rows of a block    x -> a[1] -> ... -> a[L] -> delta[L] -> ... -> delta[1]     forward, loss, deltas
    rows of a panel    gW = a[l-1].T @ delta[l] -> penalty -> optimizer            gradient and update

Weights and optimizer state lie in panels (`gpuprop.backends.cpu_panels`) while the epoch runs. The loops between the
multiplications are those of `cpu_loops` and `cpu_optimizers`; all deltas are formed before a weight changes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpuprop.backends import cpu_loops, cpu_optimizers
from gpuprop.backends.cpu_compile import compiled
from gpuprop.backends.cpu_panels import Panels, row_stride, transpose
from gpuprop.backends.cpu_tiles import TileShape, column_lister, multiplication, row_lister, tile_shape
from gpuprop.optimizers import FLUSH_EVERY, AdamW
from gpuprop.validation import is_sparse

if TYPE_CHECKING:
    from gpuprop.network import Network, TrainingData
    from gpuprop.step import UpdateRule

__all__ = ["FusedUpdates", "covers"]

Array = NDArray[Any]

#: Numbers of the left matrix that a block of rows may have: it is read once for each panel, out of the second cache.
_BLOCK = 65_536
#: Products of numbers in a training from which on the seconds of compiling, which the first such training pays, are
#: worth it.
FEWEST_PRODUCTS = 1e11
#: Share of the products with inputs that may be left for skipping the others to pay.
MOST_KEPT = 0.75
#: Numbers of a gradient between two calls of the optimizer: they stay in the first cache.
_PIECE = 4_096


class Kind(NamedTuple):
    """What the compiled code depends on; everything else are its arguments."""

    shape: TileShape
    hidden: str
    hidden_from_z: bool
    output: str
    output_from: str
    loss: str
    metric: str
    optimizer: str
    penalised: bool
    listed: bool


class Batches(NamedTuple):
    """The data set and how it is cut into batches."""

    inputs: Array
    targets: Array
    sample_weight: Array
    order: Array
    batch_weights: Array
    penalty_factors: Array
    rates: Array
    size: int
    scaled: bool
    shift: Array
    factor: Array


class Work(NamedTuple):
    """The arrays of a step. Layer l of `a`, `z`, `delta` begins at ``at[l]``, its rows are ``strides[l]`` apart."""

    at: Array
    strides: Array
    a: Array
    z: Array
    delta: Array
    y: Array
    weight: Array
    output_z: Array
    output_a: Array
    output_delta: Array
    gradient: Array
    totals: Array
    marks: Array
    column_lists: Array
    column_counts: Array
    row_lists: Array
    row_counts: Array


class Model(NamedTuple):
    """Weights and optimizer state in panels, where their layers begin, and the numbers that go with them."""

    units: Array
    weights_at: Array
    biases_at: Array
    transposed_at: Array
    parameters: Array
    transposed: Array
    first: Array
    second: Array
    hyperparameters: Array
    weight_decay: float
    l1: float
    l2: float
    hidden_parameter: float
    output_parameter: float


# --- the pieces of a step --------------------------------------------------------------------------------------------


@functools.cache
def _gather(kind: Kind) -> Callable[..., None]:
    """Return ``take_batch``: x into layer 0 of `a`, targets and weights beside it, and where x is not zero."""
    list_columns, list_rows, listed = column_lister(kind.shape.rows), row_lister(kind.shape.rows), kind.listed

    @compiled
    def take_batch(batches: Batches, work: Work, start: int, n_rows: int, n_features: int) -> None:
        stride = work.strides[0]
        for i in range(n_rows):
            source, row = batches.inputs[batches.order[start + i]], work.a[i * stride : i * stride + n_features]
            if batches.scaled:
                for j in range(row.size):
                    row[j] = (row.dtype.type(source[j]) - batches.shift[j]) * batches.factor[j]
            else:
                for j in range(row.size):
                    row[j] = source[j]
            target, own = batches.targets[batches.order[start + i]], work.y[i]
            for j in range(own.size):
                own[j] = target[j]
            if batches.sample_weight.size > 0:
                work.weight[i] = batches.sample_weight[batches.order[start + i]]
        if listed:
            list_columns(work.a, stride, n_rows, work.marks, work.column_lists, work.column_counts)
            list_rows(work.a, stride, n_rows, work.marks, work.row_lists, work.row_counts)

    return take_batch


@functools.cache
def _product(shape: TileShape, listed: bool) -> Callable[..., None]:
    """Return ``product(...)``: rows of `a` times all panels of a matrix (n, n_columns), a block of rows at a time."""
    multiply = multiplication(shape, listed)
    rows, lanes, width = shape.rows, shape.lanes, shape.width

    @compiled
    def product(
        a: Array, a_at: int, a_stride: int, n_rows: int, panels: Array, panels_at: int, n: int, n_columns: int,
        lists: Array, counts: Array, out: Array, out_at: int, out_stride: int,
    ) -> None:  # fmt: skip
        block = max(rows, _BLOCK // n // rows * rows)
        for first in range(0, n_rows, block):
            for column in range(0, n_columns, width):
                narrow = n_columns - column <= lanes
                multiply(
                    a, a_at + first * a_stride, a_stride, 1, min(block, n_rows - first),
                    panels, panels_at + column * n, lanes if narrow else width, narrow,
                    lists, counts, first // rows, n, out, out_at + first * out_stride + column, out_stride,
                )  # fmt: skip

    return product


@functools.cache
def _rows_pass(kind: Kind) -> Callable[..., None]:
    """Return ``rows_pass``: forward, loss and all deltas of a batch."""
    first_product, product = _product(kind.shape, kind.listed), _product(kind.shape, False)
    activate = cpu_loops.row_activation(kind.hidden)
    derive = cpu_loops.row_derivative(kind.hidden)
    activate_output = cpu_loops.activation_loop(kind.output)
    output_delta = cpu_loops.output_loop(kind.output, kind.output_from, kind.loss, kind.metric)
    hidden_from_z = kind.hidden_from_z

    @compiled
    def rows_pass(work: Work, model: Model, n_rows: int, n_weights: int, total_weight: float) -> None:
        units, at, strides = model.units, work.at, work.strides
        top = units.size - 1
        for layer in range(1, top + 1):
            fan_in, fan_out, stride = units[layer - 1], units[layer], strides[layer]
            out = work.z if hidden_from_z and layer < top else work.a
            if layer == 1:
                first_product(
                    work.a, at[0], strides[0], n_rows, model.parameters, model.weights_at[0], fan_in, fan_out,
                    work.column_lists, work.column_counts, out, at[1], stride,
                )  # fmt: skip
            else:
                product(
                    work.a, at[layer - 1], strides[layer - 1], n_rows, model.parameters, model.weights_at[layer - 1],
                    fan_in, fan_out, work.column_lists, work.column_counts, out, at[layer], stride,
                )  # fmt: skip
            biases = model.parameters[model.biases_at[layer - 1] : model.biases_at[layer - 1] + fan_out]
            if layer < top:
                for i in range(n_rows):
                    place = at[layer] + i * stride
                    a = work.a[place : place + fan_out]
                    if hidden_from_z:
                        z = work.z[place : place + fan_out]
                        for j in range(fan_out):
                            z[j] += biases[j]
                        for j in range(fan_out):
                            a[j] = z[j]
                    else:
                        for j in range(fan_out):
                            a[j] += biases[j]
                    activate(a, model.hidden_parameter)
            else:
                for i in range(n_rows):
                    place, z = at[layer] + i * stride, work.output_z[i]
                    a = work.a[place : place + fan_out]
                    for j in range(fan_out):
                        z[j] = a[j]
                activate_output(model.output_parameter, biases, True, work.output_z[:n_rows], work.output_a[:n_rows])

        output_delta(
            model.output_parameter, work.output_z[:n_rows], work.output_a[:n_rows], work.y[:n_rows],
            work.weight[:n_weights], total_weight, work.output_delta[:n_rows], work.totals,
        )  # fmt: skip
        for i in range(n_rows):
            place, given = at[top] + i * strides[top], work.output_delta[i]
            delta = work.delta[place : place + units[top]]
            for j in range(delta.size):
                delta[j] = given[j]
        for layer in range(top - 1, 0, -1):
            product(
                work.delta, at[layer + 1], strides[layer + 1], n_rows, model.transposed, model.transposed_at[layer - 1],
                units[layer + 1], units[layer], work.column_lists, work.column_counts, work.delta, at[layer],
                strides[layer],
            )  # fmt: skip
            for i in range(n_rows):
                place = at[layer] + i * strides[layer]
                source = work.z if hidden_from_z else work.a
                derive(
                    source[place : place + units[layer]], model.hidden_parameter,
                    work.delta[place : place + units[layer]],
                )  # fmt: skip

    return rows_pass


@functools.cache
def _panel_updates(kind: Kind, listed: bool) -> Callable[..., float]:
    """Return ``update_weights``: gradient, penalty and update of one layer's weights, piece by piece of a panel."""
    multiply = multiplication(kind.shape, listed)
    rows, lanes, width = kind.shape.rows, kind.shape.lanes, kind.shape.width
    update, decay, add_penalty = cpu_optimizers.UPDATES[kind.optimizer], cpu_optimizers.decay, cpu_loops.add_penalty
    decays, penalised = kind.optimizer == "adamw", kind.penalised

    @compiled
    def update_weights(
        work: Work, model: Model, layer: int, n_rows: int, rate: float, other: float, share: float, l1: float, l2: float
    ) -> float:
        fan_in, fan_out, penalty = model.units[layer - 1], model.units[layer], 0.0
        gradient = work.gradient
        for column in range(0, fan_out, width):
            narrow = fan_out - column <= lanes
            wide = lanes if narrow else width
            block = max(rows, _PIECE // wide // rows * rows)
            for first in range(0, fan_in, block):
                count = min(block, fan_in - first)
                multiply(
                    work.a, work.at[layer - 1] + first, 1, work.strides[layer - 1], count,
                    work.delta, work.at[layer] + column, work.strides[layer], narrow,
                    work.row_lists, work.row_counts, first // rows, n_rows, gradient, 0, wide,
                )  # fmt: skip
                begin = model.weights_at[layer - 1] + column * fan_in + first * wide
                end = begin + count * wide
                weights, grads = model.parameters[begin:end], gradient[: count * wide]
                if penalised:
                    penalty += add_penalty(weights, grads, l1, l2)
                if decays:
                    decay(weights, share)
                update(
                    weights, grads, model.first[begin:end], model.second[begin:end], rate, other, model.hyperparameters
                )
        return penalty

    return update_weights


@functools.cache
def _epoch(kind: Kind) -> Callable[..., None]:
    """Return the compiled updates of one kind of network."""
    take_batch, rows_pass = _gather(kind), _rows_pass(kind)
    update_first, update_others = _panel_updates(kind, kind.listed), _panel_updates(kind, False)
    rates_of, update = cpu_optimizers.RATES[kind.optimizer], cpu_optimizers.UPDATES[kind.optimizer]
    flush, flush_every = cpu_optimizers.flush_subnormals, FLUSH_EVERY
    lanes, width = kind.shape.lanes, kind.shape.width

    @compiled
    def updates(batches: Batches, work: Work, model: Model, steps_done: int, first: int, stop: int) -> None:
        units = model.units
        top = units.size - 1
        for index in range(first, stop):
            start = index * batches.size
            n_rows = min(batches.size, batches.order.size - start)
            take_batch(batches, work, start, n_rows, units[0])
            for layer in range(1, top):
                transpose(
                    model.parameters, model.weights_at[layer], units[layer], units[layer + 1], width, lanes,
                    model.transposed, model.transposed_at[layer - 1],
                )  # fmt: skip
            rows_pass(work, model, n_rows, min(n_rows, batches.sample_weight.size), batches.batch_weights[index])

            step = steps_done + index + 1
            rate, other = rates_of(batches.rates[index], step, model.hyperparameters)
            share = batches.rates[index] * model.weight_decay
            l1, l2 = batches.penalty_factors[index] * model.l1, batches.penalty_factors[index] * model.l2
            penalty = update_first(work, model, 1, n_rows, rate, other, share, l1, l2)
            for layer in range(2, top + 1):
                penalty += update_others(work, model, layer, n_rows, rate, other, share, l1, l2)
            work.totals[0] += batches.batch_weights[index] * penalty
            for layer in range(1, top + 1):
                begin = model.biases_at[layer - 1]
                end = begin + units[layer]
                grads = work.gradient[: units[layer]]
                for j in range(grads.size):
                    grads[j] = 0
                for i in range(n_rows):
                    place = work.at[layer] + i * work.strides[layer]
                    delta = work.delta[place : place + units[layer]]
                    for j in range(grads.size):
                        grads[j] += delta[j]
                update(
                    model.parameters[begin:end], grads, model.first[begin:end], model.second[begin:end], rate, other,
                    model.hyperparameters,
                )  # fmt: skip
            if step % flush_every == 0:
                flush(model.first)
                flush(model.second)

    return updates


# --- the plan --------------------------------------------------------------------------------------------------------


def covers(
    network: Network, data: TrainingData, rule: UpdateRule, part_size: int, update_size: int, n_updates: int
) -> bool:
    """Whether the fused updates do all that a training of `n_updates` asks for, and are the faster way."""
    hidden = {activation.name for activation in network.hidden_activations}
    return (
        3.0 * n_updates * update_size * network.n_weights >= FEWEST_PRODUCTS
        and update_size <= part_size
        and not is_sparse(data.inputs)
        and len(hidden) <= 1
        and all(cpu_loops.knows(activation, network.loss_function) for activation in network.layer_activations)
        and cpu_optimizers.is_built_in(rule.optimizer)
        and rule.clip_norm is None
        and rule.max_norm is None
        and not any(network.dropout)
    )


def mostly_zero(data: TrainingData, columns: tuple[Array, Array], rows: int) -> bool:
    """Whether skipping what is zero in the inputs saves more than finding it costs, judged by 256 rows at most.

    What can be skipped is a column that is zero in all rows of a tile, and a row that is zero in all its columns.
    """
    some = data.inputs[:: max(1, data.n_samples // 256)]
    there = some[: len(some) // rows * rows, : data.inputs.shape[1] // rows * rows]
    if there.size == 0:
        return False
    shift, factor = columns[0][: there.shape[1]], columns[1][: there.shape[1]]
    there = (there - shift) * factor != 0 if data.scaling is not None else there != 0
    kept = there.reshape(-1, rows, there.shape[1]).any(axis=1).mean()
    kept += there.reshape(len(there), -1, rows).any(axis=2).mean()
    return bool(kept / 2 < MOST_KEPT)


class FusedUpdates:
    """`gpuprop.backends.ops.UpdatePlan` by one compiled call over register tiles, of a training that `covers`.

    Parameters
    ----------
    network, data, rule, update_size
        As for `gpuprop.updates.PlainUpdates`.
    columns : pair of arrays of shape (n_features,)
        Shift and factor of each input.
    listed : bool or None, default=None
        Whether to skip what is zero in the inputs; None looks at some of them.
    """

    def __init__(
        self,
        network: Network,
        data: TrainingData,
        rule: UpdateRule,
        update_size: int,
        columns: tuple[Array, Array],
        listed: bool | None = None,
    ) -> None:
        self._network, self._data, self._rule, self._columns = network, data, rule, columns
        self._update_size = update_size
        dtype = network.dtype
        shape = tile_shape(dtype)
        if listed is None:
            listed = mostly_zero(data, columns, shape.rows)
        self._panels = panels = Panels(network.layer_sizes, shape)
        self._none = np.empty(0, dtype)
        self._state_before = {name: array.copy() for name, array in rule.state.items()}
        self._parameters = np.zeros(panels.size, dtype)
        self._state = [np.zeros(panels.size, dtype) for _ in rule.optimizer.slots]
        self._transposed = np.zeros(panels.transposed_size, dtype)
        self._work = _work(network, update_size, shape, listed)
        output = network.output_activation
        hidden = network.hidden_activations[0] if network.hidden_activations else network.output_activation
        hidden_name = "identity" if hidden is output else cpu_loops.base_name(hidden)
        self._parameters_of = cpu_loops.parameter_of(hidden, dtype), cpu_loops.parameter_of(output, dtype)
        self._updates = _epoch(
            Kind(
                shape,
                hidden_name,
                hidden.derivative_of == "z",
                cpu_loops.base_name(output),
                output.derivative_of,
                network.loss_function.name,
                data.metric,
                rule.optimizer.name,
                bool(network.l1 or network.l2),
                listed,
            )
        )

    def begin_epoch(  # noqa: D102  (contracts: see UpdatePlan)
        self,
        data: TrainingData,
        order: NDArray[np.int32],
        weights: NDArray[np.float64],
        penalty_factors: NDArray[np.float64],
        rates: NDArray[np.float64],
        steps_done: int,
    ) -> None:
        self._batches = Batches(
            inputs=data.inputs,
            targets=data.targets,
            sample_weight=self._none if data.sample_weight is None else data.sample_weight,
            order=order,
            batch_weights=weights,
            penalty_factors=penalty_factors,
            rates=rates,
            size=self._update_size,
            scaled=data.scaling is not None,
            shift=self._columns[0],
            factor=self._columns[1],
        )
        self._steps_done = steps_done
        for name, array in self._rule.state.items():
            self._state_before[name][...] = array
        self._work.totals[...] = 0.0

    def run(self, first: int, last: int) -> None:  # noqa: D102
        network, panels, optimizer = self._network, self._panels, self._rule.optimizer
        panels.pack(network.parameters, self._parameters)
        for name, own in zip(optimizer.slots, self._state, strict=True):
            panels.pack(self._rule.state[name], own)
        slots = (*self._state, self._parameters, self._parameters)[:2]
        model = Model(
            units=panels.units,
            weights_at=panels.weights_at,
            biases_at=panels.biases_at,
            transposed_at=panels.transposed_at,
            parameters=self._parameters,
            transposed=self._transposed,
            first=slots[0],
            second=slots[1],
            hyperparameters=cpu_optimizers.hyperparameters(optimizer),
            weight_decay=optimizer.weight_decay if isinstance(optimizer, AdamW) else 0.0,
            l1=network.l1,
            l2=network.l2,
            hidden_parameter=self._parameters_of[0],
            output_parameter=self._parameters_of[1],
        )
        self._updates(self._batches, self._work, model, self._steps_done, first, last)
        panels.unpack(self._parameters, network.parameters)
        for name, own in zip(optimizer.slots, self._state, strict=True):
            panels.unpack(own, self._rule.state[name])

    def totals(self) -> NDArray[np.float64]:  # noqa: D102
        return self._work.totals.copy()

    def rewind(self) -> None:  # noqa: D102
        for name, array in self._rule.state.items():
            array[...] = self._state_before[name]

    def places(self) -> Iterator[tuple[str, Array]]:  # noqa: D102
        network, work = self._network, self._work
        n_rows, layers = work.y.shape[0], range(1, network.n_layers + 1)

        def of(array: Array, layer: int) -> Array:
            at, stride, width = int(work.at[layer]), int(work.strides[layer]), network.layer_sizes[layer]
            return array[at : at + n_rows * stride].reshape(n_rows, stride)[:, :width]

        yield from ((f"the output of layer {layer}", of(work.a, layer)) for layer in layers[:-1])
        yield f"the output of layer {network.n_layers}", work.output_a
        yield "the loss", work.totals
        yield from ((f"the delta of layer {layer}", of(work.delta, layer)) for layer in reversed(layers))
        yield from ((f"the updated weights of layer {layer}", network.weights[layer - 1]) for layer in layers)
        yield from ((f"the updated biases of layer {layer}", network.biases[layer - 1]) for layer in layers)


def _work(network: Network, n_rows: int, shape: TileShape, listed: bool) -> Work:
    """Allocate the arrays of a step of at most `n_rows` rows."""
    dtype, sizes, rows = network.dtype, network.layer_sizes, shape.rows
    strides = [row_stride(width, shape) for width in sizes]
    starts = np.cumsum([0, *(n_rows * stride for stride in strides)])
    keeps_z = any(activation.derivative_of == "z" for activation in network.hidden_activations)
    n_columns = sizes[0] if listed else 0
    n_listed = n_rows if listed else 0

    def numbers(*sizes: int) -> Array:
        return np.zeros(sizes, dtype)

    return Work(
        at=starts[:-1].astype(np.int64),
        strides=np.array(strides, np.int64),
        a=numbers(starts[-1]),
        z=numbers(starts[-1] if keeps_z else 0),
        delta=numbers(starts[-1]),
        y=numbers(n_rows, sizes[-1]),
        weight=numbers(n_rows),
        output_z=numbers(n_rows, sizes[-1]),
        output_a=numbers(n_rows, sizes[-1]),
        output_delta=numbers(n_rows, sizes[-1]),
        gradient=numbers(max(_PIECE, rows * shape.width, max(sizes))),
        totals=np.zeros(2),
        marks=np.zeros(max(n_columns, n_listed * -(-n_columns // rows)), np.uint8),
        column_lists=np.zeros((-(-n_listed // rows), n_columns), np.int32),
        column_counts=np.zeros(-(-n_listed // rows), np.int64),
        row_lists=np.zeros((-(-n_columns // rows), n_listed), np.int32),
        row_counts=np.zeros(-(-n_columns // rows), np.int64),
    )
