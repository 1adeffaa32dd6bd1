"""The loops between the multiplications, fused and compiled: what `CpuOps` and the compiled epoch are made of.

Each is one or two passes over arrays that exist already. Activations and losses are the scalar forms of
`gpuprop_kernels.formulas`, with the elementary functions of `gpuprop.backends.cpu.elementary`. A loop is made for one
of them and one dtype, as a CUDA kernel is, and only the loops that are used get compiled, some tenths of a second each.

Sources and the reference in NumPy: `gpuprop.maths.activations`, `gpuprop.maths.losses`, `gpuprop.maths.dropout`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import from_dtype
from numpy.typing import NDArray

from gpuprop.backends.cpu import elementary
from gpuprop.backends.cpu.compiling import compiled, inlined_sum, part, spliced
from gpuprop.backends.cpu.elementary import exp
from gpuprop.maths.losses import get_loss
from gpuprop_kernels.formulas.elementwise import ELEMENTWISE
from gpuprop_kernels.formulas.terms import LOSS_TERMS, Terms

if TYPE_CHECKING:
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss, Metric

__all__ = [
    "BLOCK",
    "activate_rows",
    "activation_loop",
    "add_penalty",
    "derivative_loop",
    "dot",
    "drop_row",
    "drop_rows",
    "forward_row",
    "gather_rows",
    "knows",
    "output_loop",
    "output_rows",
    "scale",
    "scaled_sum_of_squares",
    "sum_of_squares",
    "sum_rows",
    "times_derivative",
]

Array = NDArray[Any]
Number = Any  # of the arrays' dtype

#: Numbers of a layer between whose bias and whose activation they stay in the first cache.
BLOCK = 4_096


# --- activations ------------------------------------------------------------------------------------------------------


class Elementwise(NamedTuple):
    """An activation and its derivative, of one number and the activation's parameter."""

    function: Callable[[Number, Number], Number]
    derivative: Callable[[Number, Number], Number]


@functools.cache
def _elementwise(name: str, dtype: np.dtype[Any]) -> Elementwise:
    """Return the scalar form of an activation, compiled for a dtype."""
    return Elementwise(*map(spliced, ELEMENTWISE[name].build(from_dtype(dtype), elementary)))


def knows(activation: Activation, loss: Loss | None = None) -> bool:
    """Whether there are loops for this activation and this loss.

    There are none for a user's own.
    """
    return activation.built_in and (loss is None or loss.built_in)


# --- sums and places of one row --------------------------------------------------------------------------------------


@inlined_sum
def sum_of(row: Array) -> Number:
    """Return the sum of a row, in its dtype."""
    total = row.dtype.type(0)
    for k in range(row.size):
        total += row[k]
    return total


@inlined_sum
def dot(a: Array, b: Array) -> Number:
    """Return the inner product of two rows, in their dtype."""
    total = a.dtype.type(0)
    for k in range(a.size):
        total += a[k] * b[k]
    return total


@inlined_sum
def _squared_distance(a: Array, b: Array) -> Number:
    total = a.dtype.type(0)
    for k in range(a.size):
        total += (a[k] - b[k]) * (a[k] - b[k])
    return total


@spliced
def _largest(row: Array) -> Number:
    top = row[0]
    for k in range(row.size):
        top = row[k] if row[k] > top else top
    return top


@spliced
def _place_of_largest(row: Array) -> int:
    """Return the index of the largest entry, of the first one if there are several."""
    place, top = 0, row[0]
    for k in range(row.size):
        if row[k] > top:
            place, top = k, row[k]
    return place


# --- batches ---------------------------------------------------------------------------------------------------------


@compiled
def gather_rows(data: Array, order: Array, start: int, shift: Array, factor: Array, out: Array) -> None:
    """``out[i] = (data[order[start + i]] - shift) * factor``; shift and factor have one entry a column."""
    n_rows, width = out.shape
    for i in range(n_rows):
        source, row = part(data, order[start + i] * width, width), part(out, i * width, width)
        for j in range(width):
            row[j] = source[j]
        for j in range(width):
            row[j] = (row[j] - shift[j]) * factor[j]


@spliced
def drop_row(
    a: Array, threshold: int, factor: float, key: Array, layer: int, step: int, row: int, mask: Array, out: Array
) -> None:
    """``mask = factor`` where Philox keeps the unit, else 0; ``out = a * mask``. See `gpuprop.maths.dropout`."""
    low, word = np.uint64(0xFFFFFFFF), np.uint64(32)
    kept, dropped = mask.dtype.type(factor), mask.dtype.type(0)
    bound = np.uint64(threshold)
    for block in range((a.size + 3) // 4):
        c0, c1, c2, c3 = np.uint64(block), np.uint64(row), np.uint64(layer), np.uint64(step) & low
        k0, k1 = key[0], key[1]
        for _ in range(10):
            product0, product1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
            c0, c2 = (product1 >> word) ^ c1 ^ k0, (product0 >> word) ^ c3 ^ k1
            c1, c3 = product1 & low, product0 & low
            k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
        words = (c0, c1, c2, c3)
        for k in range(min(4, a.size - 4 * block)):
            mask[4 * block + k] = kept if (words[k] >> np.uint64(8)) < bound else dropped
    for j in range(a.size):
        out[j] = a[j] * mask[j]


@compiled
def drop_rows(
    a: Array, threshold: int, factor: float, key: Array, layer: int, step: int, first_row: int, mask: Array, out: Array
) -> None:
    """`drop_row` for every row of a batch."""
    for i in range(a.shape[0]):
        drop_row(a[i], threshold, factor, key, layer, step, first_row + i, mask[i], out[i])


# --- layers ----------------------------------------------------------------------------------------------------------


@functools.cache
def row_activation(name: str, dtype: np.dtype[Any]) -> Callable[[Array, float], None]:
    """Return ``activate(row, parameter)``: an activation that works number by number, on a flat array, in place."""
    function = _elementwise(name, dtype).function

    @spliced
    def activate(row: Array, parameter: float) -> None:
        p = row.dtype.type(parameter)
        for j in range(row.size):
            row[j] = function(row[j], p)

    return activate


@functools.cache
def _rows_activation(name: str, dtype: np.dtype[Any]) -> Callable[[Array, int, float], None]:
    """Return ``activate(rows, width, parameter)``: the activation of rows that lie one after the other, in place."""
    if name == "softmax":

        @spliced
        def activate_softmax(rows: Array, width: int, parameter: float) -> None:
            for i in range(rows.size // width):
                row = part(rows, i * width, width)
                top = _largest(row)
                for k in range(width):
                    row[k] -= top
            for k in range(rows.size):  # all rows at once: ten numbers do not fill two vectors
                rows[k] = exp(rows[k])
            for i in range(rows.size // width):
                row = part(rows, i * width, width)
                share = row.dtype.type(1) / sum_of(row)
                for k in range(width):
                    row[k] *= share

        return activate_softmax
    activate = row_activation(name, dtype)

    @spliced
    def activate_each(rows: Array, width: int, parameter: float) -> None:
        activate(rows, parameter)

    return activate_each


@functools.cache
def activation_loop(name: str, dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return the loop behind `activate_rows`, for an activation by its name."""
    activate = _rows_activation(name, dtype)

    @compiled
    def loop(parameter: float, biases: Array, keep_z: bool, z: Array, a: Array) -> None:
        n_rows, width = a.shape
        block = BLOCK // (width + 1) + 1
        for index in range((n_rows + block - 1) // block):
            first = index * block
            count = n_rows - first if first + block > n_rows else block
            begin, size = first * width, count * width
            for i in range(count):
                net_input = part(z, begin + i * width, width)
                for j in range(width):
                    net_input[j] += biases[j]
            rows = part(a, begin, size)
            if keep_z:
                net_inputs = part(z, begin, size)
                for k in range(size):
                    rows[k] = net_inputs[k]
            activate(rows, width, parameter)

    return loop


@functools.cache
def _row_loop(name: str, dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return the loop behind `forward_row`, for an activation by its name."""
    finish = activation_loop(name, dtype)

    @compiled
    def loop(
        parameter: float, inputs: Array, weights: Array, biases: Array, keep_z: bool, z: Array, out: Array
    ) -> None:
        fan_in, width = weights.shape
        x, row = part(inputs, 0, fan_in), part(z, 0, width)
        for j in range(width):
            row[j] = 0
        fours = fan_in // 4 * 4
        for k in range(0, fours, 4):
            x0, x1, x2, x3 = x[k], x[k + 1], x[k + 2], x[k + 3]
            if x0 == 0 and x1 == 0 and x2 == 0 and x3 == 0:
                continue
            w0, w1 = part(weights, k * width, width), part(weights, (k + 1) * width, width)
            w2, w3 = part(weights, (k + 2) * width, width), part(weights, (k + 3) * width, width)
            for j in range(width):
                row[j] = row[j] + x0 * w0[j] + x1 * w1[j] + x2 * w2[j] + x3 * w3[j]
        for k in range(fours, fan_in):
            w0 = part(weights, k * width, width)
            for j in range(width):
                row[j] += x[k] * w0[j]
        finish(parameter, biases, keep_z, z, out)

    return loop


def forward_row(
    activation: Activation, inputs: Array, weights: Array, biases: Array, z: Array | None, out: Array
) -> None:
    """``out = f(inputs @ weights + biases)`` for one sample: rows of the weights are added up, four at a time.

    Where four inputs are zero, as most pixels of a digit are, their rows are not read, which changes no bit unless a
    weight is not finite. Measured with 784 x 128 weights, in microseconds: digits 4, numbers without zeros 11, BLAS 12.
    """
    loop = _loop(_row_loop, activation, out.dtype)
    loop(activation.parameter, inputs, weights, biases, z is not None, out if z is None else z, out)


def activate_rows(activation: Activation, biases: Array, z: Array | None, a: Array) -> None:
    """``z += biases; a = f(z)``; without `z` the products are expected in `a`.

    After the bias everything happens in place in `a`: LLVM checks at run time that arrays do not overlap before it
    takes the vectorised loop, and two names for one array would send it to the slow one.
    """
    loop = _loop(activation_loop, activation, a.dtype)
    loop(activation.parameter, biases, z is not None, a if z is None else z, a)


@functools.lru_cache(maxsize=64)
def _loop(
    loop_for: Callable[[str, np.dtype[Any]], Callable[..., None]], activation: Activation, dtype: np.dtype[Any]
) -> Callable[..., None]:
    """Return an activation's loop, found once: looking for it takes as long as a small row."""
    return loop_for(activation.base_name, dtype)


@functools.cache
def row_derivative(name: str, dtype: np.dtype[Any]) -> Callable[[Array, float, Array], None]:
    """Return ``multiply(source, parameter, delta)``: ``delta *= f'(source)`` for flat arrays, in place."""
    derivative = _elementwise(name, dtype).derivative

    @spliced
    def multiply(source: Array, parameter: float, delta: Array) -> None:
        p = delta.dtype.type(parameter)
        for j in range(delta.size):
            delta[j] *= derivative(source[j], p)

    return multiply


@functools.cache
def derivative_loop(name: str, dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return the loop behind `times_derivative`, for an activation by its name."""
    multiply = row_derivative(name, dtype)

    @compiled
    def loop(source: Array, parameter: float, delta: Array) -> None:
        multiply(part(source, 0, source.size), parameter, part(delta, 0, delta.size))

    return loop


def times_derivative(activation: Activation, source: Array, delta: Array) -> None:
    """``delta *= f'(source)`` in place; source is a or z, whichever the activation declares."""
    _loop(derivative_loop, activation, delta.dtype)(source, activation.parameter, delta)


@compiled
def sum_rows(delta: Array, accumulate: bool, out: Array) -> None:
    """``out (+)= sum_i delta[i]``: the gradient of the biases."""
    n_rows, width = delta.shape
    if not accumulate:
        for j in range(width):
            out[j] = 0
    for i in range(n_rows):
        row = part(delta, i * width, width)
        for j in range(width):
            out[j] += row[j]


# --- losses -----------------------------------------------------------------------------------------------------------


@functools.cache
def _loss_terms(name: str, dtype: np.dtype[Any]) -> Terms:
    """Return the scalar form of a loss, ``"huber(1.35)"`` too, compiled for a dtype."""
    loss = get_loss(name)
    return Terms(*map(spliced, LOSS_TERMS[loss.base_name].build(from_dtype(dtype), elementary, loss.parameter)))


@functools.cache
def _row_loss(loss: str, from_z: bool, dtype: np.dtype[Any]) -> Callable[[Array, Array, Array, Array], Number]:
    """Return ``value(z, a, y, work)``: the loss of one sample; `work` is a row to work in."""
    terms = _loss_terms(loss, dtype)
    term = terms.from_z if from_z else terms.value
    shifted = from_z and get_loss(loss).canonical == "softmax"

    @spliced
    def value(z: Array, a: Array, y: Array, work: Array) -> Number:
        t = a.dtype.type
        # Net inputs are taken relative to the largest, of which softmax is independent; logsumexp of what is left is
        # -log of the largest output, because that is 1 / sum exp(z - top).
        top = _largest(z) if shifted else t(0)
        for k in range(work.size):
            work[k] = term(z[k] - top, a[k], y[k])
        constant = -math.log(_largest(a)) if shifted else t(0)
        return sum_of(work) + constant

    return value


# --- what is counted beside the loss, for one sample -----------------------------------------------------------------


@spliced
def _class_score(a: Array, y: Array) -> float:
    return 1.0 if _place_of_largest(a) == _place_of_largest(y) else 0.0


@spliced
def _labels_score(a: Array, y: Array) -> float:
    right = 1.0
    for k in range(a.size):
        if (a[k] > 0.5) != (y[k] > 0.5):
            right = 0.0
    return right


@spliced
def _residual_score(a: Array, y: Array) -> float:
    return float(_squared_distance(a, y))


_SCORES = {"class": _class_score, "labels": _labels_score, "residual": _residual_score}


# --- the output layer ------------------------------------------------------------------------------------------------


@functools.cache
def row_delta(name: str, loss: str, dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return ``delta(source, parameter, a, y, out)``: ``out = dL/dz`` of one sample, for a pair of names."""
    gradient = _loss_terms(loss, dtype).gradient
    if name == get_loss(loss).canonical:

        @spliced
        def canonical(source: Array, parameter: float, a: Array, y: Array, out: Array) -> None:
            for k in range(out.size):
                out[k] = a[k] - y[k]

        return canonical
    if name == "softmax":

        @spliced
        def of_softmax(source: Array, parameter: float, a: Array, y: Array, out: Array) -> None:
            for k in range(out.size):
                out[k] = gradient(a[k], y[k])
            shared = dot(out, a)
            for k in range(out.size):
                out[k] = a[k] * (out[k] - shared)

        return of_softmax
    derivative = _elementwise(name, dtype).derivative

    @spliced
    def elementwise(source: Array, parameter: float, a: Array, y: Array, out: Array) -> None:
        p = out.dtype.type(parameter)
        for k in range(out.size):
            out[k] = gradient(a[k], y[k]) * derivative(source[k], p)

    return elementwise


@functools.cache
def output_loop(name: str, derivative_of: str, loss: str, metric: str, dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return the loop behind `output_rows`, for names."""
    value = _row_loss(loss, name == get_loss(loss).canonical, dtype)
    delta_of, score = row_delta(name, loss, dtype), _SCORES[metric]
    from_z = derivative_of == "z"

    @compiled
    def loop(
        parameter: float,
        z: Array,
        a: Array,
        y: Array,
        sample_weight: Array,
        total_weight: float,
        delta: Array,
        totals: Array,
    ) -> None:
        t = a.dtype.type
        mean = 1.0 / total_weight if total_weight > 0 else 0.0
        loss_sum, score_sum = 0.0, 0.0
        n_rows, width = a.shape
        for i in range(n_rows):
            weight = float(sample_weight[i]) if sample_weight.size > 0 else 1.0
            own_z, own_a = part(z, i * width, width), part(a, i * width, width)
            own_y, out = part(y, i * width, width), part(delta, i * width, width)
            loss_sum += weight * float(value(own_z, own_a, own_y, out))
            score_sum += weight * score(own_a, own_y)
            delta_of(own_z if from_z else own_a, parameter, own_a, own_y, out)
            factor = t(weight * mean)
            for k in range(width):
                out[k] *= factor
        totals[0] += loss_sum
        totals[1] += score_sum

    return loop


@functools.lru_cache(maxsize=64)
def _output_loop_of(activation: Activation, loss: str, metric: Metric, dtype: np.dtype[Any]) -> Callable[..., None]:
    """Return the loop of an output layer, found once: looking for it takes as long as a small batch."""
    return output_loop(activation.base_name, activation.derivative_of, loss, metric, dtype)


def output_rows(
    activation: Activation,
    loss: Loss,
    metric: Metric,
    z: Array,
    a: Array,
    y: Array,
    sample_weight: Array | None,
    total_weight: float,
    delta: Array,
    totals: Array,
) -> None:
    """Loss, score and delta of the output layer, row by row."""
    loop = _output_loop_of(activation, loss.name, metric, a.dtype)
    weight = a[:0, 0] if sample_weight is None else sample_weight
    loop(activation.parameter, z, a, y, np.ascontiguousarray(weight), total_weight, delta, totals)


# --- parameters ------------------------------------------------------------------------------------------------------


@inlined_sum
def _penalty_sums(weights: Array) -> tuple[float, float]:
    """Return ``sum |W|`` and ``sum W^2``, in float64."""
    absolute, squares = 0.0, 0.0
    for i in range(weights.size):
        absolute += abs(float(weights[i]))
        squares += float(weights[i]) * float(weights[i])
    return absolute, squares


@compiled
def add_penalty(weights: Array, weight_grads: Array, l1: float, l2: float) -> float:
    """Add ``l1 sign(W) + l2 W`` to the gradients; return ``l1 sum |W| + l2 / 2 sum W^2``."""
    t = weights.dtype.type
    zero, lasso, ridge = t(0), t(l1), t(l2)
    for i in range(weights.size):
        w = weights[i]
        sign = lasso if w > zero else (-lasso if w < zero else w * zero)
        weight_grads[i] += sign + ridge * w
    absolute, squares = _penalty_sums(weights)
    return l1 * absolute + 0.5 * l2 * squares


@inlined_sum
def _sum_of_squares(values: Array) -> float:
    total = 0.0
    for i in range(values.size):
        total += float(values[i]) * float(values[i])
    return total


@inlined_sum
def scaled_sum_of_squares(values: Array, factor: float) -> float:
    """Return the sum of squares of a flat array times a factor, in float64."""
    total = 0.0
    for i in range(values.size):
        total += (float(values[i]) * factor) * (float(values[i]) * factor)
    return total


@compiled
def sum_of_squares(values: Array) -> float:
    """Return the sum of squares of a flat array, in float64."""
    return _sum_of_squares(values)


@compiled
def scale(values: Array, factor: float) -> None:
    """``values *= factor`` in place on a flat array."""
    f = values.dtype.type(factor)
    for i in range(values.size):
        values[i] *= f
