"""The loops between the multiplications, fused and compiled: what `CpuOps` and the compiled epoch are made of.

Each is one or two passes over arrays that exist already. Activations, losses and metrics are functions of one number
or of one row, in tables by name; a loop is made for one of them, as a CUDA kernel is, and only the loops that are used
get compiled, some tenths of a second each.

Formulas, sources and the reference in NumPy: `gpuprop.activations`, `gpuprop.losses`, `gpuprop.maths.dropout`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpuprop.backends.cpu.compiling import compiled, inlined, inlined_sum, part
from gpuprop.backends.cpu.elementary import exp, expm1, logistic, normal_distribution, softplus, tanh
from gpuprop.maths.losses import LOSSES, get_loss

if TYPE_CHECKING:
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss, Metric

__all__ = [
    "BLOCK",
    "activate_rows",
    "activation_loop",
    "add_penalty",
    "base_name",
    "derivative_loop",
    "drop_row",
    "drop_rows",
    "forward_row",
    "gather_rows",
    "knows",
    "output_loop",
    "output_rows",
    "parameter_of",
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

_DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)
_QUARTER = 0.25


# --- activations: f(z, p) and f'(a or z, p), p being the slope of leaky_relu and the alpha of elu ---------------------


@inlined
def _identity(z: Number, p: Number) -> Number:
    return z


@inlined
def _identity_derivative(a: Number, p: Number) -> Number:
    return type(a)(1)


@inlined
def _logistic(z: Number, p: Number) -> Number:
    return logistic(z)


@inlined
def _logistic_derivative(a: Number, p: Number) -> Number:
    return a * (type(a)(1) - a)


@inlined
def _tanh(z: Number, p: Number) -> Number:
    return tanh(z)


@inlined
def _tanh_derivative(a: Number, p: Number) -> Number:
    return (type(a)(1) - a) * (type(a)(1) + a)


@inlined
def _relu(z: Number, p: Number) -> Number:
    return type(z)(0) if z < 0 else z  # asked in this way, NaN stays NaN


@inlined
def _relu_derivative(a: Number, p: Number) -> Number:
    return type(a)(1) if a > 0 else type(a)(0)


@inlined
def _leaky_relu(z: Number, p: Number) -> Number:
    return p * z if z < 0 else z


@inlined
def _leaky_relu_derivative(a: Number, p: Number) -> Number:
    return type(a)(1) if a > 0 else p


@inlined
def _elu(z: Number, p: Number) -> Number:
    return p * expm1(z) if z < 0 else z


@inlined
def _elu_derivative(a: Number, p: Number) -> Number:
    return type(a)(1) if a > 0 else a + p


@inlined
def _softplus(z: Number, p: Number) -> Number:
    return softplus(z)


@inlined
def _softplus_derivative(a: Number, p: Number) -> Number:
    return -expm1(-a)


@inlined
def _gelu(z: Number, p: Number) -> Number:
    return z * normal_distribution(z)


@inlined
def _gelu_derivative(z: Number, p: Number) -> Number:
    t = type(z)
    return normal_distribution(z) + z * (exp(t(-0.5) * z * z) * t(_DENSITY_AT_0))


@inlined
def _silu(z: Number, p: Number) -> Number:
    return z * logistic(z)


@inlined
def _silu_derivative(z: Number, p: Number) -> Number:
    s = logistic(z)
    return s * (type(z)(1) + z * (type(z)(1) - s))


@inlined
def _exponential(z: Number, p: Number) -> Number:
    limit = type(z)(p)
    return exp(limit if z > limit else z)


@inlined
def _exponential_derivative(a: Number, p: Number) -> Number:
    return a


class Elementwise(NamedTuple):
    """An activation and its derivative, of one number and the activation's parameter."""

    function: Callable[[Number, Number], Number]
    derivative: Callable[[Number, Number], Number]


_ELEMENTWISE = {
    "identity": Elementwise(_identity, _identity_derivative),
    "logistic": Elementwise(_logistic, _logistic_derivative),
    "tanh": Elementwise(_tanh, _tanh_derivative),
    "relu": Elementwise(_relu, _relu_derivative),
    "leaky_relu": Elementwise(_leaky_relu, _leaky_relu_derivative),
    "elu": Elementwise(_elu, _elu_derivative),
    "softplus": Elementwise(_softplus, _softplus_derivative),
    "gelu": Elementwise(_gelu, _gelu_derivative),
    "silu": Elementwise(_silu, _silu_derivative),
    "exponential": Elementwise(_exponential, _exponential_derivative),
}


def base_name(activation: Activation) -> str:
    """Return the name without a parameter: ``leaky_relu`` of ``leaky_relu(0.2)``."""
    return activation.name.partition("(")[0]


def knows(activation: Activation, loss: Loss | None = None) -> bool:
    """Whether there are loops for this activation and this loss.

    There are none for a user's own.
    """
    return activation.built_in and (loss is None or _is_built_in(loss))


def parameter_of(activation: Activation, dtype: np.dtype[Any]) -> float:
    """Return the parameter of a built-in activation: slope, alpha, or where the exponential saturates; else 0."""
    if activation.name == "exponential":
        return _QUARTER * math.log(np.finfo(dtype).max)
    given: float = next(iter(getattr(activation.function, "keywords", {}).values()), 0.0)
    return given


# --- sums and places of one row --------------------------------------------------------------------------------------


@inlined_sum
def sum_of(row: Array) -> Number:
    """Return the sum of a row, in its dtype."""
    total = row.dtype.type(0)
    for k in range(row.size):
        total += row[k]
    return total


@inlined_sum
def _dot(a: Array, b: Array) -> Number:
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


@inlined
def _largest(row: Array) -> Number:
    top = row[0]
    for k in range(row.size):
        top = row[k] if row[k] > top else top
    return top


@inlined
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
    for i in range(out.shape[0]):
        source, row = data[order[start + i]], out[i]
        for j in range(row.size):
            row[j] = source[j]
        for j in range(row.size):
            row[j] = (row[j] - shift[j]) * factor[j]


@inlined
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
def row_activation(name: str) -> Callable[[Array, float], None]:
    """Return ``activate(row, parameter)``: an activation that works number by number, on a flat array, in place."""
    function = _ELEMENTWISE[name].function

    @inlined
    def activate(row: Array, parameter: float) -> None:
        p = row.dtype.type(parameter)
        for j in range(row.size):
            row[j] = function(row[j], p)

    return activate


@functools.cache
def _rows_activation(name: str) -> Callable[[Array, int, float], None]:
    """Return ``activate(rows, width, parameter)``: the activation of rows that lie one after the other, in place."""
    if name == "softmax":

        @inlined
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
    activate = row_activation(name)

    @inlined
    def activate_each(rows: Array, width: int, parameter: float) -> None:
        activate(rows, parameter)

    return activate_each


@functools.cache
def activation_loop(name: str) -> Callable[..., None]:
    """Return the loop behind `activate_rows`, for a name."""
    activate = _rows_activation(name)

    @compiled
    def loop(parameter: float, biases: Array, keep_z: bool, z: Array, a: Array) -> None:
        n_rows, width = a.shape
        block = max(1, BLOCK // max(1, width))
        for first in range(0, n_rows, block):
            last = min(first + block, n_rows)
            for i in range(first, last):
                row, net_input = part(a, i * width, width), part(z, i * width, width)
                if keep_z:
                    for j in range(width):
                        net_input[j] += biases[j]
                    for j in range(width):
                        row[j] = net_input[j]
                else:
                    for j in range(width):
                        row[j] += biases[j]
            activate(part(a, first * width, (last - first) * width), width, parameter)

    return loop


@functools.cache
def _row_loop(name: str) -> Callable[..., None]:
    """Return the loop behind `forward_row`, for a name."""
    finish = activation_loop(name)

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
    loop, parameter = _loop_and_parameter(_row_loop, activation, out.dtype)
    loop(parameter, inputs, weights, biases, z is not None, out if z is None else z, out)


def activate_rows(activation: Activation, biases: Array, z: Array | None, a: Array) -> None:
    """``z += biases; a = f(z)``; without `z` the products are expected in `a`.

    After the bias everything happens in place in `a`: LLVM checks at run time that arrays do not overlap before it
    takes the vectorised loop, and two names for one array would send it to the slow one.
    """
    loop, parameter = _loop_and_parameter(activation_loop, activation, a.dtype)
    loop(parameter, biases, z is not None, a if z is None else z, a)


@functools.lru_cache(maxsize=64)
def _loop_and_parameter(
    loop_for: Callable[[str], Callable[..., None]], activation: Activation, dtype: np.dtype[Any]
) -> tuple[Callable[..., None], float]:
    """Return an activation's loop and its parameter, found once: looking for them takes as long as a small row."""
    return loop_for(base_name(activation)), parameter_of(activation, dtype)


@functools.cache
def row_derivative(name: str) -> Callable[[Array, float, Array], None]:
    """Return ``multiply(source, parameter, delta)``: ``delta *= f'(source)`` for flat arrays, in place."""
    derivative = _ELEMENTWISE[name].derivative

    @inlined
    def multiply(source: Array, parameter: float, delta: Array) -> None:
        p = delta.dtype.type(parameter)
        for j in range(delta.size):
            delta[j] *= derivative(source[j], p)

    return multiply


@functools.cache
def derivative_loop(name: str) -> Callable[..., None]:
    """Return the loop behind `times_derivative`, for a name."""
    multiply = row_derivative(name)

    @compiled
    def loop(source: Array, parameter: float, delta: Array) -> None:
        multiply(source.reshape(source.size), parameter, delta.reshape(delta.size))

    return loop


def times_derivative(activation: Activation, source: Array, delta: Array) -> None:
    """``delta *= f'(source)`` in place; source is a or z, whichever the activation declares."""
    derivative_loop(base_name(activation))(source, parameter_of(activation, delta.dtype), delta)


@compiled
def sum_rows(delta: Array, accumulate: bool, out: Array) -> None:
    """``out (+)= sum_i delta[i]``: the gradient of the biases."""
    if not accumulate:
        for j in range(out.size):
            out[j] = 0
    for i in range(delta.shape[0]):
        row = delta[i]
        for j in range(out.size):
            out[j] += row[j]


# --- losses: of one output --------------------------------------------------------------------------------------------


@inlined
def _inside(a: Number) -> Number:
    """Keep an output strictly between 0 and 1, so that logarithms stay finite; NaN stays."""
    t = type(a)
    tiny, below_one = np.finfo(t).tiny, t(1) - t(0.5) * np.finfo(t).eps
    return tiny if a < tiny else (below_one if a > below_one else a)


@inlined
def _above_zero(a: Number) -> Number:
    tiny = np.finfo(type(a)).tiny
    return tiny if a < tiny else a


@inlined
def _xlogy(y: Number, a: Number) -> Number:
    """``y log(a)``, and 0 where ``y = 0``."""
    return type(a)(0) if y == 0 else y * math.log(a)


@inlined
def _squared_error(z: Number, a: Number, y: Number) -> Number:
    return type(a)(0.5) * (a - y) * (a - y)


@inlined
def _squared_error_gradient(a: Number, y: Number) -> Number:
    return a - y


@inlined
def _binary_cross_entropy(z: Number, a: Number, y: Number) -> Number:
    one, p = type(a)(1), _inside(a)
    return -(_xlogy(y, p) + _xlogy(one - y, one - p))


@inlined
def _binary_cross_entropy_from_z(z: Number, a: Number, y: Number) -> Number:
    return softplus(z) - y * z


@inlined
def _binary_cross_entropy_gradient(a: Number, y: Number) -> Number:
    one, p = type(a)(1), _inside(a)
    return (one - y) / (one - p) - y / p


@inlined
def _categorical_cross_entropy(z: Number, a: Number, y: Number) -> Number:
    return -_xlogy(y, _inside(a))


@inlined
def _categorical_cross_entropy_from_shifted_z(z: Number, a: Number, y: Number) -> Number:
    return -y * z


@inlined
def _categorical_cross_entropy_gradient(a: Number, y: Number) -> Number:
    return -y / _inside(a)


@inlined
def _poisson(z: Number, a: Number, y: Number) -> Number:
    return y * (_xlogy(type(y)(1), type(y)(1) if y == 0 else y) - math.log(_above_zero(a))) - y + a


@inlined
def _poisson_from_z(z: Number, a: Number, y: Number) -> Number:
    return y * (_xlogy(type(y)(1), type(y)(1) if y == 0 else y) - z) - y + a


@inlined
def _poisson_gradient(a: Number, y: Number) -> Number:
    return type(a)(1) - y / _above_zero(a)


@inlined
def _absolute_error(z: Number, a: Number, y: Number) -> Number:
    return abs(a - y)


@inlined
def _absolute_error_gradient(a: Number, y: Number) -> Number:
    t = type(a)
    return t(1) if a > y else (t(-1) if a < y else (a - y) * t(0))  # NaN stays NaN


class LossTerms(NamedTuple):
    """What one output adds to the loss, the same from the net input of the canonical activation, and dL/da."""

    value: Callable[[Number, Number, Number], Number]
    value_from_z: Callable[[Number, Number, Number], Number]
    gradient: Callable[[Number, Number], Number]


_LOSS_TERMS = {
    "squared_error": LossTerms(_squared_error, _squared_error, _squared_error_gradient),
    "binary_cross_entropy": LossTerms(
        _binary_cross_entropy, _binary_cross_entropy_from_z, _binary_cross_entropy_gradient
    ),
    "categorical_cross_entropy": LossTerms(
        _categorical_cross_entropy, _categorical_cross_entropy_from_shifted_z, _categorical_cross_entropy_gradient
    ),
    "poisson": LossTerms(_poisson, _poisson_from_z, _poisson_gradient),
    "absolute_error": LossTerms(_absolute_error, _absolute_error, _absolute_error_gradient),
}


def _huber_terms(limit: float) -> LossTerms:
    """Return huber's terms with its delta."""

    @inlined
    def huber(z: Number, a: Number, y: Number) -> Number:
        t = type(a)
        distance = abs(a - y)
        inside = t(limit) if distance > t(limit) else distance
        return inside * (distance - t(0.5) * inside)

    @inlined
    def gradient(a: Number, y: Number) -> Number:
        t = type(a)
        r = a - y
        return t(limit) if r > t(limit) else (t(-limit) if r < t(-limit) else r)

    return LossTerms(huber, huber, gradient)


def _pinball_terms(quantile: float) -> LossTerms:
    """Return pinball's terms for a quantile."""

    @inlined
    def pinball(z: Number, a: Number, y: Number) -> Number:
        t = type(a)
        above = y - a
        return t(quantile) * above if above > t(0) else t(quantile - 1.0) * above

    @inlined
    def gradient(a: Number, y: Number) -> Number:
        t = type(a)
        return t(-quantile) if a < y else (t(1.0 - quantile) if a > y else t(0))

    return LossTerms(pinball, pinball, gradient)


_PARAMETRIC_TERMS = {"huber": _huber_terms, "pinball": _pinball_terms}


def _keywords(function: Any) -> dict[str, float]:
    """Return what a formula with a parameter was made with, ``{"delta": 1.35}``; else nothing."""
    return dict(getattr(function, "keywords", {}))


@functools.cache
def _loss_terms(name: str) -> LossTerms:
    """Return the terms of a loss by its name, ``"huber(1.35)"`` too."""
    if name in _LOSS_TERMS:
        return _LOSS_TERMS[name]
    (parameter,) = _keywords(get_loss(name).value).values()
    return _PARAMETRIC_TERMS[name.partition("(")[0]](parameter)


def _is_built_in(loss: Loss) -> bool:
    """Whether a loss is one of the package's, and not a user's own of the same name."""
    if loss.name in _LOSS_TERMS:
        return LOSSES[loss.name] is loss
    if loss.name.partition("(")[0] not in _PARAMETRIC_TERMS:
        return False
    own = get_loss(loss.name)
    return all(
        getattr(given, "func", None) is getattr(known, "func", None) and _keywords(given) == _keywords(known)
        for given, known in ((loss.value, own.value), (loss.gradient, own.gradient))
    )


@functools.cache
def _row_loss(loss: str, from_z: bool) -> Callable[[Array, Array, Array, Array], Number]:
    """Return ``value(z, a, y, work)``: the loss of one sample; `work` is a row to work in."""
    terms = _loss_terms(loss)
    term = terms.value_from_z if from_z else terms.value
    shifted = from_z and loss == "categorical_cross_entropy"

    @inlined
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


@inlined
def _class_score(a: Array, y: Array) -> float:
    return 1.0 if _place_of_largest(a) == _place_of_largest(y) else 0.0


@inlined
def _labels_score(a: Array, y: Array) -> float:
    right = 1.0
    for k in range(a.size):
        if (a[k] > 0.5) != (y[k] > 0.5):
            right = 0.0
    return right


@inlined
def _residual_score(a: Array, y: Array) -> float:
    return float(_squared_distance(a, y))


_SCORES = {"class": _class_score, "labels": _labels_score, "residual": _residual_score}


# --- the output layer ------------------------------------------------------------------------------------------------


@functools.cache
def row_delta(name: str, loss: str) -> Callable[..., None]:
    """Return ``delta(source, parameter, a, y, out)``: ``out = dL/dz`` of one sample, for a pair of names."""
    gradient = _loss_terms(loss).gradient
    if name == get_loss(loss).canonical:

        @inlined
        def canonical(source: Array, parameter: float, a: Array, y: Array, out: Array) -> None:
            for k in range(out.size):
                out[k] = a[k] - y[k]

        return canonical
    if name == "softmax":

        @inlined
        def of_softmax(source: Array, parameter: float, a: Array, y: Array, out: Array) -> None:
            for k in range(out.size):
                out[k] = gradient(a[k], y[k])
            shared = _dot(out, a)
            for k in range(out.size):
                out[k] = a[k] * (out[k] - shared)

        return of_softmax
    derivative = _ELEMENTWISE[name].derivative

    @inlined
    def elementwise(source: Array, parameter: float, a: Array, y: Array, out: Array) -> None:
        p = out.dtype.type(parameter)
        for k in range(out.size):
            out[k] = gradient(a[k], y[k]) * derivative(source[k], p)

    return elementwise


@functools.cache
def output_loop(name: str, derivative_of: str, loss: str, metric: str) -> Callable[..., None]:
    """Return the loop behind `output_rows`, for names."""
    value = _row_loss(loss, name == get_loss(loss).canonical)
    delta_of, score = row_delta(name, loss), _SCORES[metric]
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
        for i in range(a.shape[0]):
            weight = float(sample_weight[i]) if sample_weight.size > 0 else 1.0
            out = delta[i]
            loss_sum += weight * float(value(z[i], a[i], y[i], out))
            score_sum += weight * score(a[i], y[i])
            delta_of(z[i] if from_z else a[i], parameter, a[i], y[i], out)
            factor = t(weight * mean)
            for k in range(out.size):
                out[k] *= factor
        totals[0] += loss_sum
        totals[1] += score_sum

    return loop


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
    loop = output_loop(base_name(activation), activation.derivative_of, loss.name, metric)
    weight = a[:0, 0] if sample_weight is None else sample_weight
    loop(parameter_of(activation, a.dtype), z, a, y, np.ascontiguousarray(weight), total_weight, delta, totals)


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
