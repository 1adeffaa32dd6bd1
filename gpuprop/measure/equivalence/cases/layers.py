"""Cases of a layer: the batch, forward, hidden delta, gradient accumulation, dropout."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.ops import Dropping
from gpuprop.core.parameters import Parameters
from gpuprop.maths.activations import ACTIVATIONS, OUTPUT_ACTIVATIONS, Activation, get_activation
from gpuprop.maths.scaling import InputScaling
from gpuprop.measure.equivalence import oracle, tolerances
from gpuprop.measure.equivalence.case import DTYPES, SHAPES, Case, Check, Output, normal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.ops import Ops

__all__ = ["cases"]

LARGE = ((300, 39, 401), (513, 39, 961), (1409, 39, 1537))
"""Shapes whose results take 32x32, 64x64 and 128x128 tiles to fill GPUs of 40 to 190 multiprocessors."""

SCALINGS = {
    "as they are": None,
    "divided": InputScaling.divide(255),
    "by column": InputScaling(np.linspace(-1.0, 1.0, 17), np.linspace(0.1, 2.0, 17)),
}


def cube(z):  # type: ignore[no-untyped-def]
    """A user's own activation, which Numba compiles for CUDA."""
    return z * z * z * 0.5


def cube_derivative(z):  # type: ignore[no-untyped-def]
    """Its derivative."""
    return 1.5 * z * z


OWN = Activation("cube", cube, cube_derivative, derivative_of="z", cuda=(cube, cube_derivative))
# Beside the oracle's: parameters other than the defaults, and a user's own.
_FURTHER: dict[str, tuple[oracle.Elementwise, oracle.Elementwise]] = {
    "leaky_relu(0.2)": (lambda z: np.where(z > 0, z, 0.2 * z), lambda z: np.where(z > 0, 1.0, 0.2)),
    "elu(0.5)": (
        lambda z: np.where(z > 0, z, 0.5 * np.expm1(np.minimum(z, 0))),
        lambda z: np.where(z > 0, 1.0, 0.5 * np.exp(np.minimum(z, 0))),
    ),
    "cube": (cube, cube_derivative),
}


def cases() -> Iterator[Case]:
    """Yield the cases, primitive by primitive."""
    for dtype in DTYPES:
        for source in ("uint8", dtype):
            for scaling in SCALINGS:
                check = partial(take_batch, source, scaling)
                quick = (source, scaling) in (("uint8", "divided"), (dtype, "by column"))
                yield Case("batch", f"{source} rows {scaling}", dtype, check, quick)
        yield Case("batch", "targets and sample weights", dtype, take_targets)
        for shape in SHAPES + LARGE:
            yield Case("forward", _named(shape), dtype, partial(forward, shape, "tanh"), *_effort(shape))
        for name in (*OUTPUT_ACTIVATIONS, *_FURTHER):
            yield Case("forward", name, dtype, partial(forward, (5, 7, 9), name), name in ("relu", "silu", "softmax"))
            if name != "softmax":
                yield Case("forward", f"{name}, extreme inputs", dtype, partial(extremes, name))
        for shape in SHAPES + LARGE:
            check = partial(hidden_delta, shape, "tanh", False)
            yield Case("hidden delta", _named(shape), dtype, check, *_effort(shape))
        for name in (*ACTIVATIONS, *_FURTHER):
            check = partial(hidden_delta, (5, 7, 9), name, name in ("silu", "tanh"))
            yield Case("hidden delta", name, dtype, check, name in ("silu", "relu"))
        for accumulate in (False, True):
            for shape in SHAPES + LARGE:
                name = f"{'accumulated' if accumulate else 'overwritten'} {_named(shape)}"
                yield Case("gradient", name, dtype, partial(gradient, shape, accumulate), *_effort(shape))
        for rate in (0.25, 0.75):
            yield Case("dropout", f"rate {rate}", dtype, partial(dropout, rate), rate == 0.25)


def _named(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _effort(shape: tuple[int, int, int]) -> tuple[bool, bool]:
    """Return whether a shape is among the quick ones, and among those for a GPU only."""
    return shape == SHAPES[1], shape in LARGE


def functions(name: str) -> tuple[Activation, oracle.Elementwise, oracle.Elementwise]:
    """Return an activation, and f and f' in float64."""
    f, slope = _FURTHER[name] if name in _FURTHER else oracle.ACTIVATIONS[name]
    return OWN if name == "cube" else get_activation(name, output=True), f, slope


def take_batch(source: str, scaling: str, ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """Rows by a permutation, from a start within it."""
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 256, (40, 17)) if source == "uint8" else rng.standard_normal((40, 17))
    data, order, chosen = raw.astype(source), rng.permutation(40).astype(np.int32), SCALINGS[scaling]
    shift, scale = (0.0, 1.0) if chosen is None else (chosen.shift, chosen.scale)
    for n in (1, 7, 33):
        out = Output(ops, (n, 17), dtype)
        ops.take_batch(ops.asarray(data, data.dtype), ops.asarray(order, np.int32), 3, chosen, out.array)
        rows = data[order[3 : 3 + n]].astype(np.float64)
        bound = tolerances.elementwise_bound("scaling", (np.abs(rows) + np.abs(shift)) * np.abs(scale), dtype)
        yield Check(f"{n} rows", out.read(), (rows - shift) * scale, bound)


def take_targets(ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """Targets and weights are copied as they are."""
    rng = np.random.default_rng(2)
    order = rng.permutation(40).astype(np.int32)
    for shape in ((40, 3), (40,)):
        data, out = normal(rng, shape, dtype), Output(ops, (9, *shape[1:]), dtype)
        ops.take_batch(ops.asarray(data, dtype), ops.asarray(order, np.int32), 30, None, out.array)
        yield Check(f"{len(shape)} dimensions", out.read(), data[order[30:39]])


def _activation_bound(name: str, z: NDArray[Any], expected: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return how wrong f of an exact z may be."""
    growth: Any = 1.0
    if name == "gelu":  # its tail is z exp(-z z / 2), whose relative error grows with z z
        growth = 1 + np.minimum(z**2, 100)
    elif name == "softmax":  # the rounding of z minus its largest passes through the exponential
        growth = 2 * (1 + np.abs(z).max(axis=1, keepdims=True))
    return np.asarray(growth * tolerances.elementwise_bound("activation", expected, dtype))


def forward(shape: tuple[int, int, int], name: str, ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """The net input against the product, a against f of the device's own z; the same bits where z is not kept."""
    n, n_in, n_out = shape
    rng = np.random.default_rng(3)
    x, w, b = normal(rng, (n, n_in), dtype), normal(rng, (n_in, n_out), dtype), normal(rng, (n_out,), dtype)
    w /= np.sqrt(n_in).astype(dtype)
    layer = Parameters.on_device(ops, np.concatenate([w.ravel(), b]), (n_in, n_out))
    z, a, alone = (Output(ops, (n, n_out), dtype) for _ in range(3))
    activation = get_activation(name, output=True) if name == "softmax" else functions(name)[0]
    inputs = ops.asarray(x, dtype)
    ops.forward(inputs, layer.weights[0], layer.biases[0], activation, z.array, a.array)
    ops.forward(inputs, layer.weights[0], layer.biases[0], activation, None, alone.array)
    wide = [m.astype(np.float64) for m in (x, w, b)]
    magnitude = np.abs(wide[0]) @ np.abs(wide[1]) + np.abs(wide[2])
    expected = wide[0] @ wide[1] + wide[2]
    yield Check("z", z.read(), expected, tolerances.product_bound(magnitude, n_in, dtype))
    yield from _no_worse_than_numpy(z.read(), expected, x @ w + b, magnitude)
    own = z.read().astype(np.float64)
    expected = oracle.activate(name, own) if name == "softmax" else functions(name)[1](own)
    yield Check("a", a.read(), expected, _activation_bound(name, own, expected, dtype))
    yield Check("a without z", alone.read(), a.read())


def _no_worse_than_numpy(actual: Any, expected: Any, numpys: Any, magnitude: Any) -> Iterator[Check]:
    """A product's largest error may be twice that of NumPy in the same precision, and a few roundings."""
    limit = 2 * np.abs(numpys - expected).max() + 4 * tolerances.unit(actual.dtype) * magnitude.max()
    yield Check("largest error beside NumPy's", np.abs(actual - expected).max(), 0.0, limit)


def extremes(name: str, ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """The activation of net inputs up to +-1e4, where exponentials overflow: the weights are the identity."""
    z = np.concatenate([np.linspace(-6, 6, 21), [-1e4, -100.0, -1e-3, 0.0, 1e-3, 50.0, 1e4]])
    z = np.minimum(z, 20.0 if name == "exponential" else 1e4).reshape(4, 7).astype(dtype)
    layer = Parameters.on_device(ops, np.concatenate([np.eye(7).ravel(), np.zeros(7)]).astype(dtype), (7, 7))
    activation, f, _ = functions(name)
    a = Output(ops, z.shape, dtype)
    ops.forward(ops.asarray(z, dtype), layer.weights[0], layer.biases[0], activation, None, a.array)
    wide = z.astype(np.float64)
    yield Check("a", a.read(), f(wide), _activation_bound(name, wide, f(wide), dtype))


def hidden_delta(
    shape: tuple[int, int, int], name: str, masked: bool, ops: Ops, dtype: np.dtype[Any]
) -> Iterator[Check]:
    """(delta W^T) f', times a dropout mask or not."""
    n, following, units = shape
    rng = np.random.default_rng(4)
    delta, w = normal(rng, (n, following), dtype), normal(rng, (units, following), dtype)
    z, mask = normal(rng, (n, units), dtype), (2.0 * rng.integers(0, 2, (n, units))).astype(dtype)
    activation, f, slope_of = functions(name)
    wide = z.astype(np.float64)
    source = z if activation.derivative_of == "z" else f(wide).astype(dtype)
    layer = Parameters.on_device(ops, np.concatenate([w.ravel(), np.zeros(following, dtype)]), (units, following))
    out, device = Output(ops, (n, units), dtype), partial(ops.asarray, dtype=dtype)
    factor = device(mask) if masked else None
    ops.hidden_delta(device(delta), layer.weights[0], activation, device(source), factor, out.array)
    slope = slope_of(wide) * (mask if masked else 1.0)
    left, right = delta.astype(np.float64), w.astype(np.float64).T
    bound = tolerances.product_bound(np.abs(left) @ np.abs(right), following, dtype) * np.maximum(1, np.abs(slope))
    bound += tolerances.elementwise_bound("derivative", np.abs(left @ right) * np.maximum(1, np.abs(slope)), dtype)
    yield Check("delta", out.read(), (left @ right) * slope, bound)


def gradient(shape: tuple[int, int, int], accumulate: bool, ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """a^T delta and the column sums of delta; the gradients of the layer above stay NaN."""
    n_in, n, n_out = shape
    rng = np.random.default_rng(5)
    x, delta = normal(rng, (n, n_in), dtype), normal(rng, (n, n_out), dtype)
    sizes = (n_in, n_out, 2)
    before = np.full(Parameters.count(sizes), np.nan, dtype)
    start = Parameters(before, sizes)
    if accumulate:
        start.weights[0][...], start.biases[0][...] = normal(rng, (n_in, n_out), dtype), normal(rng, (n_out,), dtype)
    gradients = Parameters.on_device(ops, before.copy(), sizes)
    ops.accumulate_gradient(
        ops.asarray(x, dtype), ops.asarray(delta, dtype), gradients.weights[0], gradients.biases[0],
        accumulate=accumulate,
    )  # fmt: skip
    after = Parameters(gradients.to_host(ops), sizes)
    if not (np.isnan(after.weights[1]).all() and np.isnan(after.biases[1]).all()):
        raise ValueError("the gradients of another layer were written")
    old_w, old_b = (np.nan_to_num(part.astype(np.float64)) for part in (start.weights[0], start.biases[0]))
    left, right = x.astype(np.float64).T, delta.astype(np.float64)
    magnitude = np.abs(left) @ np.abs(right) + np.abs(old_w)
    yield Check("weights", after.weights[0], old_w + left @ right, tolerances.product_bound(magnitude, n, dtype))
    if not accumulate:
        yield from _no_worse_than_numpy(after.weights[0], left @ right, x.T @ delta, magnitude)
    bound = tolerances.product_bound(np.abs(right).sum(axis=0) + np.abs(old_b), n, dtype)
    yield Check("biases", after.biases[0], old_b + right.sum(axis=0), bound)


def dropout(rate: float, ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """The generator's own bits, for the rows in the middle of a batch."""
    a = normal(np.random.default_rng(6), (9, 13), dtype)
    mask, out = Output(ops, a.shape, dtype), Output(ops, a.shape, dtype)
    ops.drop(ops.asarray(a, dtype), Dropping(rate, 2**40 + 5, 2, 7, 4), mask.array, out.array)
    expected = oracle.dropout_mask(13, 13, 1 - rate, 2**40 + 5, 2, 7)[4:]
    yield Check("units kept", mask.read() != 0, expected != 0)
    yield Check("mask", mask.read(), expected, tolerances.elementwise_bound("scaling", expected, dtype))
    yield Check("out", out.read(), a * expected, tolerances.elementwise_bound("scaling", a * expected, dtype))
