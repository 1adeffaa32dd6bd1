"""The step over register tiles, and a whole epoch of it in one compiled call.

It is the step of `gpuprop.core.step`, with everything between the multiplications done while a product is in the cache:

    rows of a batch    x -> a[1] -> ... -> a[L] -> delta[L] -> ... -> delta[1]     forward, loss, deltas
    pieces of a panel  gW = a[l-1].T @ delta[l] -> penalty -> optimizer            gradient and update

All deltas are formed before a weight changes. Several threads may make a step together (`gpuprop.backends.cpu.team`):
each takes some of the rows, then some of the pieces. Under a limit on the gradient's norm all gradients are kept, and
updated when the norm is known. Weights and optimizer state lie in panels (`gpuprop.backends.cpu.panels`); the functions
of one row are those of `loops`, the optimizers those of `optimizer_loops`; `gpuprop.backends.cpu.fused` allocates
and calls.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpuprop.backends.cpu import loops, optimizer_loops
from gpuprop.backends.cpu.compiling import compiled, joined, part, rows_of, spliced, wanted_soon
from gpuprop.backends.cpu.panels import LINE, column_copier, transposition
from gpuprop.backends.cpu.team import Team, meet, share
from gpuprop.backends.cpu.tiles import TileShape, column_lister, multiplication, row_lister
from gpuprop.backends.cpu.tuples import by_address, kept_at
from gpuprop.maths.optimizers import FLUSH_EVERY

__all__ = [
    "GATHERED", "GATHERED_PIECE", "OWN", "PIECE", "Batches", "Kind", "Members", "Model", "Work", "alone", "epoch",
    "piece_of_copies", "rows_by_panels",
]  # fmt: skip

Array = NDArray[Any]
Numbers = tuple[float, ...]  # of an update, see `gpuprop_kernels.formulas.rules`

#: Numbers of the left matrix that a block of rows may have: it is read once for each panel, out of the second cache.
_LEFT_BLOCK = 131_072
#: Numbers of a gradient between two calls of the optimizer: with weights and state they stay in the first cache.
PIECE = 1_024
#: Numbers in the outputs of a layer, over a batch, from which on they and the deltas above are copied for a gradient:
#: where what a tile reads lies side by side, it is not in a page, and in a line, of its own for each sample.
GATHERED = 16_384
#: Numbers of a gradient between two calls of the optimizer where both factors are copied: 128 rows share a panel, which
#: comes from the second cache, and the optimizer finds what it needs in one of the two, because tiles asked for it.
GATHERED_PIECE = 4_096
#: Numbers of the copied left factor: a panel after the other reads them, out of half of a second cache of 512 KiB.
_GATHERED_LEFT = 65_536
#: Pieces into which the gradient of a layer is cut at least, so that the threads of a team have equal shares of them.
_PIECES = 8
#: Weights of a layer from which on its gradient's tiles ask for what its update reads; fewer are in the cache anyway.
_ASKED = 32_768


class Kind(NamedTuple):
    """What the compiled code depends on; everything else are its arguments.

    `hidden` names the different activations of the hidden layers and tells from what their derivatives are taken;
    `Model.codes` says which of them a layer has. `grouped` says that parameters have learning rates of their own, and
    `inputs_scaled` that there is a `gpuprop.core.scaling_layer.ScalingLayer`.
    """

    dtype: np.dtype[Any]
    shape: TileShape
    hidden: tuple[tuple[str, bool], ...]
    output: str
    output_from: str
    loss: str
    metric: str
    optimizer: str
    penalised: bool
    clipped: bool
    limited: bool
    dropped: bool
    listed: bool
    grouped: bool
    inputs_scaled: bool


@by_address
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


@by_address
class Work(NamedTuple):
    """The arrays of a step. Layer l of a flat one begins at ``at[l]``, its rows are ``strides[l]`` apart.

    `inputs` is what the next layer reads: `a` itself, or with units dropped. `gradient` holds a piece, or under a
    limit on the gradient's norm all of it. `rows` and `columns` are where both factors of a gradient are copied to.
    `tile_totals` and `penalties` are what each tile of rows and each piece of weights adds to `totals`. Threads share
    all but those in `OWN`.
    """

    at: Array
    strides: Array
    a: Array
    z: Array
    inputs: Array
    masks: Array
    delta: Array
    y: Array
    weight: Array
    output_z: Array
    output_a: Array
    output_delta: Array
    gradient: Array
    rows: Array
    columns: Array
    totals: Array
    tile_totals: Array
    penalties: Array
    marks: Array
    column_lists: Array
    column_counts: Array
    row_lists: Array
    row_counts: Array


OWN = ("gradient", "rows", "columns", "marks")
"""The arrays of `Work` that each thread has for itself."""


@by_address
class Model(NamedTuple):
    """Weights and optimizer state in panels, where their layers begin, and the numbers that go with them.

    `rate_factors` and `gradient_factors` are those of the rule. The fields that begin with ``scale`` belong to a
    scaling layer: its factors, what the optimizer remembers of them, the sums for their gradient (a row for each panel,
    of which the first becomes the total), the first weights without the factors, in panels, and the factor of the rate.
    """

    units: Array
    codes: Array
    from_z: Array
    activation_parameters: Array
    weights_at: Array
    biases_at: Array
    transposed_at: Array
    parameters: Array
    transposed: Array
    first: Array
    second: Array
    hyperparameters: Array
    l1: float
    l2: float
    clip_norm: float
    max_norm: float
    drop_thresholds: Array
    drop_factors: Array
    drop_key: Array
    rate_factors: Array
    gradient_factors: Array
    scale: Array
    scale_first: Array
    scale_second: Array
    scale_sums: Array
    scale_weights: Array
    scale_rate_factor: float


@by_address
class Members(NamedTuple):
    """The networks that make their updates in one call.

    Row i of `batches` and `models` holds the address of everything that network i has for itself, see
    `gpuprop.backends.cpu.tuples.kept_at`; without rows there is only one network. `active` names the networks that have
    not ended. `n_updates` are each one's updates in an epoch, `steps_done` those before the epoch, `totals` its sums.
    """

    batches: Array
    models: Array
    active: Array
    n_updates: Array
    steps_done: Array
    totals: Array


def alone(totals: Array) -> Members:
    """Return the members of a call for one network, whose sums are those of the step; the caller counts its updates."""
    none, first, all_updates = np.empty((0, 0), np.uint8), np.zeros(1, np.int64), np.full(1, np.iinfo(np.int64).max)
    return Members(none, none, first, all_updates, np.zeros(1, np.int64), totals.reshape(1, 2))


# --- the pieces of a step --------------------------------------------------------------------------------------------


@functools.cache
def _gather(kind: Kind) -> Callable[..., None]:
    """Return ``take_batch``: x into layer 0 of `a`, targets and weights beside it."""

    @spliced
    def take_batch(batches: Batches, work: Work, start: int, top: int, end: int, n_features: int) -> None:
        stride, n_targets = work.strides[0], batches.targets.shape[1]
        shift, factor = batches.shift, batches.factor
        for i in range(top, end):
            sample = np.int64(batches.order[start + i])
            source, row = part(batches.inputs, sample * n_features, n_features), part(work.a, i * stride, n_features)
            if i + 2 < end:  # in an order of its own: the processor cannot know which row is next
                following = np.int64(batches.order[start + i + 2]) * n_features
                for j in range(0, n_features, LINE // batches.inputs.itemsize):
                    wanted_soon(batches.inputs, following + j)
            if batches.scaled:
                for j in range(row.size):
                    row[j] = (row.dtype.type(source[j]) - shift[j]) * factor[j]
            else:
                for j in range(row.size):
                    row[j] = source[j]
            target, own = part(batches.targets, sample * n_targets, n_targets), part(work.y, i * n_targets, n_targets)
            for j in range(own.size):
                own[j] = target[j]
            if batches.sample_weight.size > 0:
                work.weight[i] = batches.sample_weight[sample]

    return take_batch


@functools.cache
def _drop(kind: Kind) -> Callable[..., None]:
    """Return ``drop_layer``: the layer's units into `inputs`, some of them zero; see `gpuprop.maths.dropout`."""
    drop_row = loops.drop_row

    @spliced
    def drop_layer(work: Work, model: Model, layer: int, top: int, end: int, steps_done: int) -> None:
        width, threshold, factor = model.units[layer], model.drop_thresholds[layer], model.drop_factors[layer]
        for i in range(top, end):
            place = work.at[layer] + i * work.strides[layer]
            a, inputs = part(work.a, place, width), part(work.inputs, place, width)
            mask = part(work.masks, place, width)
            drop_row(a, threshold, factor, model.drop_key, layer, steps_done, i, mask, inputs)

    return drop_layer


@functools.cache
def rows_by_panels(shape: TileShape, listed: bool) -> Callable[..., None]:
    """Return ``product(...)``: rows of `a` times all panels of a matrix (n, n_columns), a block of rows at a time."""
    multiply = joined(multiplication(shape, listed))
    rows, lanes, width = shape.rows, shape.lanes, shape.width
    asks = 2 if listed else 1  # of the steps about half are left

    @joined
    def product(
        a: Array, a_at: int, a_stride: int, n_rows: int, panels: Array, panels_at: int, n: int, n_columns: int,
        lists: Array, counts: Array, first_tile: int, out: Array, out_at: int, out_stride: int,
    ) -> None:  # fmt: skip
        block = max(rows, _LEFT_BLOCK // n // rows * rows)
        n_tiles = (min(block, n_rows) + rows - 1) // rows
        # The tiles of a panel share in asking for the next one.
        share, stride = n * width // n_tiles, (asks * width + n_tiles - 1) // n_tiles
        for first in range(0, n_rows, block):
            for column in range(0, n_columns, width):
                narrow = n_columns - column <= lanes
                multiply(
                    a, a_at + first * a_stride, a_stride, 1, rows * a_stride, min(block, n_rows - first),
                    panels, panels_at + column * n, lanes if narrow else width, narrow,
                    lists, counts, first_tile + first // rows, n, out, out_at + first * out_stride + column, out_stride,
                    panels, panels_at + (column + width) * n, share, stride,
                )  # fmt: skip

    return product


def _one_of(functions: list[Callable[..., None]]) -> Callable[..., None]:
    """Return ``chosen(code, *arguments)``, which calls the function of that number; with one there is no choice."""
    first = functions[0]
    if len(functions) == 1:

        @spliced
        def only(code: int, source: Array, parameter: float, target: Array) -> None:
            first(source, parameter, target)

        return only
    others = _one_of(functions[1:])

    @spliced
    def chosen(code: int, source: Array, parameter: float, target: Array) -> None:
        if code == 0:
            first(source, parameter, target)
        else:
            others(code - 1, source, parameter, target)

    return chosen


@functools.cache
def _activation_of(name: str, from_z: bool, dtype: np.dtype[Any]) -> Callable[[Array, float, Array], None]:
    """Return ``activate(z, parameter, a)`` for the net inputs in `a`, which are kept in `z` if needed."""
    function = loops.row_activation(name, dtype)

    @spliced
    def activate(z: Array, parameter: float, a: Array) -> None:
        if from_z:
            for j in range(a.size):
                z[j] = a[j]
        function(a, parameter)

    return activate


@functools.cache
def _forward(kind: Kind) -> Callable[..., None]:
    """Return ``forward``: a[1] to a[L - 1], and the net inputs of the output layer."""
    tile_rows = kind.shape.rows
    first_product, product = rows_by_panels(kind.shape, kind.listed), rows_by_panels(kind.shape, False)
    activate = _one_of([_activation_of(name, from_z, kind.dtype) for name, from_z in kind.hidden])
    keeps_z, dropped, drop_layer = any(from_z for _, from_z in kind.hidden), kind.dropped, _drop(kind)

    @spliced
    def forward(work: Work, model: Model, top: int, n_rows: int, steps_done: int) -> None:
        units, at, strides = model.units, work.at, work.strides
        n_layers, first_tile = units.size - 1, top // tile_rows
        for layer in range(1, n_layers + 1):
            below, fan_in, fan_out = layer - 1, units[layer - 1], units[layer]
            under, stride = at[below] + top * strides[below], strides[layer]
            here = at[layer] + top * stride
            if layer == 1:
                first_product(
                    work.inputs, under, strides[0], n_rows, model.parameters, model.weights_at[0], fan_in, fan_out,
                    work.column_lists, work.column_counts, first_tile, work.a, here, stride,
                )  # fmt: skip
            else:
                product(
                    work.inputs, under, strides[below], n_rows, model.parameters, model.weights_at[below], fan_in,
                    fan_out, work.column_lists, work.column_counts, first_tile, work.a, here, stride,
                )  # fmt: skip
            if layer == n_layers:
                for i in range(n_rows):
                    a, z = part(work.a, here + i * stride, fan_out), part(work.output_z, (top + i) * fan_out, fan_out)
                    for j in range(fan_out):
                        z[j] = a[j]
                return
            biases = part(model.parameters, model.biases_at[below], fan_out)
            block = max(1, loops.BLOCK // stride)
            for first in range(0, n_rows, block):
                last = min(first + block, n_rows)
                for i in range(first, last):
                    a = part(work.a, here + i * stride, fan_out)
                    for j in range(fan_out):
                        a[j] += biases[j]
                # The padding too, which nobody reads: in one loop over all rows no vector is left half empty.
                a = part(work.a, here + first * stride, (last - first) * stride)
                z = part(work.z, here + first * stride, (last - first) * stride) if keeps_z else a
                activate(model.codes[below], z, model.activation_parameters[below], a)
            if dropped:
                drop_layer(work, model, layer, top, top + n_rows, steps_done)

    return forward


@functools.cache
def _deltas(kind: Kind) -> Callable[..., None]:
    """Return ``deltas``: output activation, loss, and the deltas of all layers."""
    product, tile_rows = rows_by_panels(kind.shape, False), kind.shape.rows
    derive = _one_of([loops.row_derivative(name, kind.dtype) for name, _ in kind.hidden])
    some_from_z, dropped = any(from_z for _, from_z in kind.hidden), kind.dropped
    activate_output = joined(loops.activation_loop(kind.output, kind.dtype))
    output_delta = joined(loops.output_loop(kind.output, kind.output_from, kind.loss, kind.metric, kind.dtype))

    @spliced
    def deltas(work: Work, model: Model, top: int, end: int, weighted: bool, total_weight: float) -> None:
        units, at, strides, n_rows = model.units, work.at, work.strides, end - top
        n_layers = units.size - 1
        n_outputs, stride = units[n_layers], strides[n_layers]
        parameter = model.activation_parameters[n_layers - 1]
        biases = part(model.parameters, model.biases_at[n_layers - 1], n_outputs)
        activate_output(parameter, biases, True, rows_of(work.output_z, top, end), rows_of(work.output_a, top, end))
        for first in range(top, end, tile_rows):
            last = min(first + tile_rows, end)
            totals = part(work.tile_totals, first // tile_rows * 2, 2)
            totals[0] = totals[1] = 0.0
            z, a = rows_of(work.output_z, first, last), rows_of(work.output_a, first, last)
            y, delta = rows_of(work.y, first, last), rows_of(work.output_delta, first, last)
            weight = part(work.weight, first, last - first if weighted else 0)
            output_delta(parameter, z, a, y, weight, total_weight, delta, totals)
        for i in range(top, end):
            delta = part(work.delta, at[n_layers] + i * stride, n_outputs)
            given = part(work.output_delta, i * n_outputs, n_outputs)
            for j in range(delta.size):
                delta[j] = given[j]
        for layer in range(n_layers - 1, 0, -1):
            above, width, here = layer + 1, units[layer], at[layer] + top * strides[layer]
            product(
                work.delta, at[above] + top * strides[above], strides[above], n_rows, model.transposed,
                model.transposed_at[layer - 1], units[above], width, work.column_lists, work.column_counts,
                top // tile_rows, work.delta, here, strides[layer],
            )  # fmt: skip
            block = max(1, loops.BLOCK // strides[layer]) * strides[layer]
            for first in range(0, n_rows * strides[layer], block):
                place, count = here + first, min(block, n_rows * strides[layer] - first)
                delta, source = part(work.delta, place, count), part(work.a, place, count)  # the padding stays zero
                if dropped:
                    mask = part(work.masks, place, count)
                    for j in range(count):
                        delta[j] *= mask[j]
                if some_from_z and model.from_z[layer - 1]:
                    source = part(work.z, place, count)
                derive(model.codes[layer - 1], source, model.activation_parameters[layer - 1], delta)

    return deltas


def piece_of_copies(shape: TileShape) -> Callable[[int, int], int]:
    """Return ``rows_of_piece(n_rows, fan_in)``: rows of weights between two calls of the optimizer, factors copied."""
    rows, most = shape.rows, max(shape.rows, GATHERED_PIECE // shape.width // shape.rows * shape.rows)

    def rows_of_piece(n_rows: int, fan_in: int) -> int:
        block = min(most, _GATHERED_LEFT // n_rows, (fan_in + _PIECES - 1) // _PIECES)
        return max(rows, (block + rows - 1) // rows * rows)

    return rows_of_piece


@functools.cache
def _panel_updates(kind: Kind) -> Callable[..., int]:
    """Return ``update_weights``: gradient, penalty and update of one layer's weights, piece by piece of a panel.

    Some rows of weights are one thread's, in turn; it returns the number of the last piece, counted over all layers.
    """
    multiply, multiply_listed = joined(multiplication(kind.shape, False)), joined(multiplication(kind.shape, True))
    rows, lanes, width = kind.shape.rows, kind.shape.lanes, kind.shape.width
    copy_left, copy_right = joined(column_copier(rows)), joined(column_copier(width))
    update, add_penalty = _update(kind), joined(loops.add_penalty)
    penalised, clipped, listed = kind.penalised, kind.clipped, kind.listed
    grouped, inputs_scaled, update_unscaled = kind.grouped, kind.inputs_scaled, _unscaled_update(kind)
    own_block, rows_of_piece = max(rows, PIECE // width // rows * rows), spliced(piece_of_copies(kind.shape))
    asks = 2 if listed else 1

    @spliced
    def update_weights(
        work: Work, model: Model, team: Team, piece_number: int, layer: int, n_rows: int, numbers: Numbers, l1: float,
        l2: float,
    ) -> int:  # fmt: skip
        gradient, lists, counts = work.gradient, work.row_lists, work.row_counts
        below, fan_in, fan_out = layer - 1, model.units[layer - 1], model.units[layer]
        left, left_at, left_stride = work.inputs, work.at[below], work.strides[below]
        right, right_at, right_stride = work.delta, work.at[layer], work.strides[layer]
        gathered = n_rows * fan_in >= GATHERED
        block, tile_stride, panel_stride = own_block, rows, 1
        if gathered:
            copy_right(right, right_at, right_stride, n_rows, fan_out, work.columns)
            left, left_stride, tile_stride = work.rows, rows, n_rows * rows
            block = rows_of_piece(n_rows, fan_in)
            right, right_at, right_stride, panel_stride = work.columns, 0, width, n_rows
        # The tiles of a piece share in asking for what its update reads, and for the next panel: a quarter for each.
        wanted = (model.parameters, model.first, model.second, right)
        quarter = (block + 4 * rows - 1) // (4 * rows) * rows if fan_in * fan_out >= _ASKED else block
        share = block * width * rows // quarter
        soon_stride = (asks * share + n_rows - 1) // n_rows
        for first in range(0, fan_in, block):
            piece_number += 1
            if piece_number % team.n_threads != team.thread:
                continue
            penalty = 0.0
            count, row_at = min(block, fan_in - first), left_at + first
            if gathered:
                copy_left(work.inputs, row_at, work.strides[below], n_rows, count, left)
                row_at = 0
            for column in range(0, fan_out, width):
                narrow = fan_out - column <= lanes
                wide = lanes if narrow else width
                begin = model.weights_at[below] + column * fan_in + first * wide
                kept_at, column_at = begin if clipped else 0, right_at + column * panel_stride
                for done in range(0, count, quarter):
                    soon_at = begin if done < 3 * quarter else column_at + width * panel_stride
                    top, place, tiled = row_at + done // rows * tile_stride, kept_at + done * wide, count - done
                    # With the 1 written here (in `product`, as the next argument), Numba compiles a `multiply` of which
                    # it is a constant: a variable in its place costs an update of config a 4 %.
                    if listed and layer == 1:
                        multiply_listed(
                            left, top, 1, left_stride, tile_stride, min(quarter, tiled), right, column_at, right_stride,
                            narrow, lists, counts, (first + done) // rows, n_rows, gradient, place, wide,
                            wanted[done // quarter], soon_at, share, soon_stride,
                        )  # fmt: skip
                    else:
                        multiply(
                            left, top, 1, left_stride, tile_stride, min(quarter, tiled), right, column_at, right_stride,
                            narrow, lists, counts, 0, n_rows, gradient, place, wide,
                            wanted[done // quarter], soon_at, share, soon_stride,
                        )  # fmt: skip
                piece = part(gradient, kept_at, count * wide)
                if penalised:
                    penalty += add_penalty(part(model.parameters, begin, count * wide), piece, l1, l2)
                if inputs_scaled and layer == 1:
                    update_unscaled(model, begin, piece, column // width * fan_in + first, wide, first, numbers)
                    continue
                if grouped:
                    factor = piece.dtype.type(model.gradient_factors[below])
                    for j in range(piece.size):
                        piece[j] *= factor
                if not clipped:
                    update(model, begin, piece, numbers)
            work.penalties[piece_number] = penalty
        return piece_number

    return update_weights


@functools.cache
def _update(kind: Kind) -> Callable[..., None]:
    """Return ``update``: the optimizer on a piece of the parameters."""
    optimize = optimizer_loops.update_pass(kind.optimizer, kind.dtype)

    @spliced
    def update(model: Model, begin: int, gradient: Array, numbers: Numbers) -> None:
        own = part(model.parameters, begin, gradient.size)
        first, second = part(model.first, begin, gradient.size), part(model.second, begin, gradient.size)
        optimize(own, gradient, first, second, numbers)

    return update


@functools.cache
def _unscaled_update(kind: Kind) -> Callable[..., None]:
    """Return ``update_unscaled``: the optimizer on a piece of V, from the gradient of ``W = s V``.

    See `gpuprop.core.scaling_layer`. The piece's share of the gradient of s goes to ``scale_sums``, from `sums_at` on.
    """
    optimize, add_up, grouped = optimizer_loops.update_pass(kind.optimizer, kind.dtype), loops.dot, kind.grouped

    @spliced
    def update_unscaled(
        model: Model, begin: int, gradient: Array, sums_at: int, wide: int, first: int, numbers: Numbers
    ) -> None:
        own = part(model.scale_weights, begin, gradient.size)
        for i in range(gradient.size // wide):
            row, factor = part(gradient, i * wide, wide), model.scale[first + i]
            model.scale_sums[sums_at + i] = add_up(part(own, i * wide, wide), row)
            if grouped:
                factor = row.dtype.type(factor * model.gradient_factors[0])
            for j in range(wide):
                row[j] *= factor
        optimize(own, gradient, part(model.first, begin, own.size), part(model.second, begin, own.size), numbers)

    return update_unscaled


@functools.cache
def _scale_update(kind: Kind) -> Callable[..., None]:
    """Return ``update_scale``: the optimizer on the factors of the inputs, once all pieces have given their sums."""
    optimize = optimizer_loops.update_pass(kind.optimizer, kind.dtype)

    @spliced
    def update_scale(model: Model, numbers: Numbers) -> None:
        n_features = model.scale.size
        total = part(model.scale_sums, 0, n_features)
        for start in range(n_features, model.scale_sums.size, n_features):
            sums = part(model.scale_sums, start, n_features)
            for j in range(n_features):
                total[j] += sums[j]
        optimize(model.scale, total, model.scale_first, model.scale_second, numbers)

    return update_scale


@joined
def scale_weights(model: Model, column: int, stop_column: int, lanes: int, width: int) -> None:
    """``W = s V`` for the panels of the first layer that begin at the columns from `column` to `stop_column`."""
    n_features, fan_out = model.units[0], model.units[1]
    for start in range(column, stop_column, width):
        wide = lanes if fan_out - start <= lanes else width
        for i in range(n_features):
            place, factor = model.weights_at[0] + start * n_features + i * wide, model.scale[i]
            own, unscaled = part(model.parameters, place, wide), part(model.scale_weights, place, wide)
            for j in range(wide):
                own[j] = factor * unscaled[j]


@functools.cache
def _bias_updates(kind: Kind) -> Callable[..., None]:
    """Return ``update_biases``: sums of the deltas, and the update of a layer's biases."""
    update, clipped = _update(kind), kind.clipped

    @spliced
    def update_biases(work: Work, model: Model, layer: int, n_rows: int, numbers: Numbers) -> None:
        width, begin = model.units[layer], model.biases_at[layer - 1]
        kept_at = begin if clipped else 0
        gradient = part(work.gradient, kept_at, width)
        for j in range(width):
            gradient[j] = 0
        for i in range(n_rows):
            delta = part(work.delta, work.at[layer] + i * work.strides[layer], width)
            for j in range(width):
                gradient[j] += delta[j]
        if not clipped:
            update(model, begin, gradient, numbers)

    return update_biases


@joined
def clip(gradient: Array, max_norm: float) -> None:
    """Do as `gpuprop.optimizers.clip_by_norm`: a norm that is not finite is left, so that it is seen."""
    largest = 0.0
    for i in range(gradient.size):
        size = abs(float(gradient[i]))
        if not size <= largest:
            largest = size
    if not 0.0 < largest < math.inf:
        return
    squares = loops.scaled_sum_of_squares(gradient, 1.0 / largest)
    scaled_norm = math.sqrt(squares)
    if largest * scaled_norm > max_norm:
        divisor, factor = gradient.dtype.type(largest), gradient.dtype.type(max_norm / scaled_norm)
        for i in range(gradient.size):
            gradient[i] = gradient[i] / divisor * factor  # the single factor can be too small for float32


@joined
def limit_incoming_norm(panel: Array, wide: int, n_columns: int, max_norm: float) -> None:
    """Do as `gpuprop.optimizers.limit_incoming_norm` for the columns of a panel."""
    fan_in = panel.size // wide
    for j in range(n_columns):
        squares = 0.0
        for k in range(fan_in):
            squares += float(panel[k * wide + j]) ** 2
        norm = math.sqrt(squares)
        if max_norm < norm < math.inf:
            factor = panel.dtype.type(max_norm / norm)
            for k in range(fan_in):
                panel[k * wide + j] *= factor


@functools.cache
def epoch(kind: Kind) -> Callable[..., None]:
    """Return ``networks(batches, work, model, team, members, begin, end, first, stop)``: updates of some networks.

    The networks `begin` to `end` - 1 of `members` make the updates `first` to `stop` - 1 of an epoch, one network after
    the other: the parameters and the optimizer state of one stay in the second cache.
    """
    updates = _updates(kind)

    @compiled
    def networks(
        batches: Batches, work: Work, model: Model, team: Team, members: Members, begin: int, end: int, first: int,
        stop: int,
    ) -> None:  # fmt: skip
        for place in range(begin, end):
            i = members.active[place]
            if team.thread == 0:
                work.totals[0], work.totals[1] = members.totals[i, 0], members.totals[i, 1]
            own_batches, own_model = kept_at(batches, members.batches, i), kept_at(model, members.models, i)
            # Networks with fewer rows have fewer updates.
            updates(own_batches, work, own_model, team, members.steps_done[i], first, min(stop, members.n_updates[i]))
            if team.thread == 0:
                members.totals[i, 0], members.totals[i, 1] = work.totals[0], work.totals[1]

    return networks


@functools.cache
def _updates(kind: Kind) -> Callable[..., None]:
    """Return ``updates(batches, work, model, team, steps_done, first, stop)``: some of a network's updates."""
    take_batch, forward, deltas, drop_layer = _gather(kind), _forward(kind), _deltas(kind), _drop(kind)
    update_weights, update_biases, update = _panel_updates(kind), _bias_updates(kind), _update(kind)
    numbers_of, for_biases = optimizer_loops.numbers_of(kind.optimizer), optimizer_loops.for_biases(kind.optimizer)
    transpose = joined(transposition(kind.shape))
    flush, flush_every = joined(optimizer_loops.flush_subnormals), FLUSH_EVERY
    tile_rows, listed = kind.shape.rows, kind.listed
    list_columns, list_rows = joined(column_lister(tile_rows)), joined(row_lister(tile_rows))
    lanes, width, dropped, clipped, limited = (
        kind.shape.lanes, kind.shape.width, kind.dropped, kind.clipped, kind.limited
    )  # fmt: skip
    grouped, inputs_scaled, update_scale = kind.grouped, kind.inputs_scaled, _scale_update(kind)

    @joined
    def updates(
        batches: Batches, work: Work, model: Model, team: Team, steps_done: int, first: int, stop: int
    ) -> None:  # fmt: skip
        units, stride = model.units, work.strides[0]
        top = units.size - 1
        n_weights = model.biases_at[0]
        for index in range(first, stop):
            start = index * batches.size
            n_rows = min(batches.size, batches.order.size - start)
            weighted, total_weight = batches.sample_weight.size > 0, batches.batch_weights[index]
            step = steps_done + index + 1
            n_tiles = (n_rows + tile_rows - 1) // tile_rows
            own, after = share(n_tiles, team)
            row, end = own * tile_rows, min(after * tile_rows, n_rows)

            take_batch(batches, work, start, row, end, units[0])
            if dropped:
                drop_layer(work, model, 0, row, end, step - 1)
            if listed and row < end:
                inputs = part(work.inputs, row * stride, (end - row) * stride)
                lists, counts = rows_of(work.column_lists, own, after), part(work.column_counts, own, after - own)
                list_columns(inputs, stride, end - row, work.marks, lists, counts)
            for layer in range(1, top):
                column, stop_column = share((units[layer + 1] + lanes - 1) // lanes, team)
                transpose(
                    model.parameters, model.weights_at[layer], units[layer], units[layer + 1],
                    model.transposed, model.transposed_at[layer - 1], column * lanes, stop_column * lanes,
                )  # fmt: skip
            meet(team)  # all rows are there, and all weights transposed
            if listed:
                tile, stop_tile = share(work.row_counts.size, team)
                inputs = part(work.inputs, tile * tile_rows, n_rows * stride - tile * tile_rows)
                lists, counts = rows_of(work.row_lists, tile, stop_tile), part(work.row_counts, tile, stop_tile - tile)
                list_rows(inputs, stride, n_rows, work.marks, lists, counts)
            if row < end:
                forward(work, model, row, end - row, step - 1)
                deltas(work, model, row, end, weighted, total_weight)
            meet(team)  # all deltas are formed, and no weight has changed

            numbers = numbers_of(batches.rates[index], step, model.hyperparameters)
            numbers_of_biases = for_biases(numbers)
            l1, l2 = batches.penalty_factors[index] * model.l1, batches.penalty_factors[index] * model.l2
            number: Any = np.int64(-1)  # for a bare -1 Numba would compile `update_weights` once more
            for layer in range(1, top + 1):
                if grouped:
                    rate, factors = batches.rates[index], model.rate_factors
                    numbers = numbers_of(rate * factors[layer - 1], step, model.hyperparameters)
                    numbers_of_biases = for_biases(
                        numbers_of(rate * factors[top + layer - 1], step, model.hyperparameters)
                    )
                number = update_weights(work, model, team, number, layer, n_rows, numbers, l1, l2)
                if layer % team.n_threads == team.thread:
                    update_biases(work, model, layer, n_rows, numbers_of_biases)
            if clipped:
                clip(work.gradient, model.clip_norm)
                n_biases = work.gradient.size - n_weights
                update(model, 0, part(work.gradient, 0, n_weights), numbers)
                update(model, n_weights, part(work.gradient, n_weights, n_biases), numbers_of_biases)
            if limited:
                for layer in range(top):
                    for column in range(0, units[layer + 1], width):
                        n_columns = min(width, units[layer + 1] - column)
                        wide = lanes if n_columns <= lanes else width
                        begin = model.weights_at[layer] + column * units[layer]
                        panel = part(model.parameters, begin, wide * units[layer])
                        limit_incoming_norm(panel, wide, n_columns, model.max_norm)
            if step % flush_every == 0:
                meet(team)
                begin, last = share(model.parameters.size, team)
                flush(part(model.parameters, begin, last - begin))
                flush(part(model.first, begin, last - begin))
                flush(part(model.second, begin, last - begin))
            meet(team)  # all weights have changed
            if inputs_scaled:
                if team.thread == 0:
                    rate = batches.rates[index] * model.scale_rate_factor
                    update_scale(model, for_biases(numbers_of(rate, step, model.hyperparameters)))
                meet(team)  # the factors have changed
                panel, stop_panel = share((units[1] + width - 1) // width, team)
                scale_weights(model, panel * width, min(stop_panel * width, units[1]), lanes, width)
                meet(team)
            if team.thread == 0:
                penalty = 0.0
                for piece in range(number + 1):
                    penalty += work.penalties[piece]
                for tile in range(n_tiles):
                    work.totals[0] += work.tile_totals[tile, 0]
                    work.totals[1] += work.tile_totals[tile, 1]
                work.totals[0] += total_weight * penalty

    return updates
