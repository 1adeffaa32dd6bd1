"""The forward kernel: a = f(x W + b), gathering, scaling, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuprop.measure.equivalence import oracle, tolerances
from gpuprop_kernels import launch
from gpuprop_kernels.activations import HIDDEN, Activation
from gpuprop_kernels.dropout import mask_constants
from gpuprop_kernels.forward import source_loader
from gpuprop_kernels.launch import padded
from gpuprop_kernels.sectors import takes_sectors
from gpuprop_kernels.tile import SMALL
from tests.kernels import support as s

IDENTITY = Activation("identity")
GATHERED = [
    *((source, SMALL) for source in ("bytes", "floats", "bytes_by_column", "floats_by_column")),
    *((source, tile) for tile in (s.SLICED, s.QUARTERED) for source in ("bytes", "bytes_by_column")),
]
"""Sources with the tile that gathers them."""


def operands(shape: tuple[int, int, int], dtype: Any, seed: int = 0) -> tuple[Any, Any, Any]:
    """Return x, W and b."""
    n, k, m = shape
    rng = np.random.default_rng(seed)
    return s.normal(rng, (n, k), dtype), s.normal(rng, (k, m), dtype), s.normal(rng, (m,), dtype)


def run(x: Any, w: Any, b: Any, tile: Any, **options: Any) -> Any:
    """Run the kernel on dense inputs and return its output."""
    out = s.poison(len(x) * padded(w.shape[1]), w.dtype)
    given: dict[str, Any] = {"activation": IDENTITY, "batch": s.batch(len(x))} | options
    launch.forward_layer(
        s.matrix(x), s.matrix(w), s.vector(b), out, n_in=w.shape[0], n_out=w.shape[1], tile=tile, **given
    )
    return s.read(out, len(x), w.shape[1])


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
@pytest.mark.parametrize("tile", [SMALL, s.SLICED], ids=s.case_name)
@pytest.mark.parametrize("shape", s.SHAPES, ids=str)
def test_product_and_bias(shape: Any, tile: Any, dtype: Any) -> None:
    x, w, b = operands(shape, dtype)
    s.check_product(run(x, w, b, tile), x, w, b)


@pytest.mark.parametrize(("tile", "dtype"), s.production_cases(), ids=s.case_name)
def test_production_tiles(tile: Any, dtype: Any) -> None:
    x, w, b = operands((33, 39, 35), dtype)
    s.check_product(run(x, w, b, tile), x, w, b)


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
@pytest.mark.parametrize("name", [*HIDDEN, "exponential"])
def test_activation(name: str, dtype: Any) -> None:
    # f, f' and z of net inputs up to +-1e4: W is the identity, b is zero.
    z = np.concatenate([np.linspace(-6, 6, 21), [-1e4, -100.0, -1e-3, 0.0, 1e-3, 50.0, 1e4]])
    z = np.minimum(z, 20.0 if name == "exponential" else 1e4).reshape(4, 7).astype(dtype)
    kept_z = s.poison(4 * 8, dtype)
    a = run(z, np.eye(7, dtype=dtype), np.zeros(7, dtype), SMALL, activation=Activation(name), z=kept_z)
    np.testing.assert_array_equal(s.read(kept_z, 4, 7), z)
    expected = oracle.activate(name, z.astype(np.float64))
    # gelu and silu multiply a tail by z, so that a relative error of exp(-z*z/2) grows with z*z.
    growth = 1 + np.minimum(z.astype(np.float64) ** 2, 100) if name == "gelu" else 1.0
    s.check(a, expected, growth * tolerances.elementwise_bound("activation", expected, dtype), name)


@pytest.mark.parametrize("parameter", [0.2, 0.5])
@pytest.mark.parametrize("name", ["leaky_relu", "elu"])
def test_parameter(name: str, parameter: float) -> None:
    z = np.linspace(-3, 3, 14, dtype=np.float32).reshape(2, 7)
    a = run(z, np.eye(7, dtype=z.dtype), np.zeros(7, z.dtype), SMALL, activation=Activation(name, parameter))
    low = parameter * (z if name == "leaky_relu" else np.expm1(z.astype(np.float64)))
    expected = np.where(z > 0, z, low)
    s.check(a, expected, tolerances.elementwise_bound("activation", expected, z.dtype), name)


def cube(z):  # type: ignore[no-untyped-def]
    """A user's own activation, with a literal that is float64."""
    return z * z * z * 0.5


def cube_derivative(z):  # type: ignore[no-untyped-def]
    """Its derivative."""
    return 1.5 * z * z


def test_own_activation() -> None:
    z = np.linspace(-3, 3, 14, dtype=np.float32).reshape(2, 7)
    own = Activation("cube", functions=(cube, cube_derivative), own_derivative_of="z")
    a = run(z, np.eye(7, dtype=z.dtype), np.zeros(7, z.dtype), SMALL, activation=own)
    expected = 0.5 * z.astype(np.float64) ** 3
    s.check(a, expected, tolerances.elementwise_bound("activation", expected, z.dtype), "cube")


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
@pytest.mark.parametrize(("source", "tile"), GATHERED, ids=s.case_name)
def test_gathered_rows(source: str, tile: Any, dtype: Any) -> None:
    rng = np.random.default_rng(3)
    samples, n, k, m = 29, 17, 13 if tile is SMALL else 45, 9
    batch = s.batch(n, samples)
    if source.startswith("bytes"):
        data = rng.integers(0, 256, (samples, k)).astype(np.uint8)
    else:
        data = s.normal(rng, (samples, k), dtype)
    by_column = source.endswith("by_column")
    shift = s.normal(rng, (k,), dtype) if by_column else np.zeros(k, dtype)
    scale = rng.uniform(0.001, 0.01, k if by_column else 1).astype(dtype)
    rows = s.data_rows(data, source, shift, scale)
    w, b = s.normal(rng, (k, m), dtype), s.normal(rng, (m,), dtype)
    out = s.poison(n * padded(m), dtype)
    launch.forward_layer(rows, s.matrix(w), s.vector(b), out, batch, activation=IDENTITY, n_in=k, n_out=m, tile=tile)
    x = (s.rows_of(batch, data).astype(dtype) - shift) * scale
    s.check_product(s.read(out, n, m), x, w, b)

    copied = s.poison(n * padded(k), dtype)
    launch.load_batch(rows, copied, batch, n_features=k)
    np.testing.assert_array_equal(s.read(copied, n, k), x)


@pytest.mark.parametrize("features", [1, 3, 16, 17, 31, 32, 33, 48, 49, 77, 96], ids=str)
@pytest.mark.parametrize("tile", [SMALL, s.DEEP, s.FOUR_LANES], ids=s.case_name)
@pytest.mark.parametrize("source", ["bytes", "bytes_by_column"])
def test_sectors_of_bytes(source: str, tile: Any, features: int) -> None:
    # The last sector comes first, in half where its bytes end before its middle.
    assert takes_sectors(tile, source_loader(source, np.float32))
    rng = np.random.default_rng(features)
    samples, n, m = 19, 11, 9
    batch, data = s.batch(n, samples), rng.integers(1, 256, (samples, features)).astype(np.uint8)
    # No byte is zero but those of the padding, and behind the last row there is nothing: what is not the row's is seen.
    shift, scale = np.zeros(features, np.float32), np.full(1, 0.004, np.float32)
    if source == "bytes_by_column":
        shift, scale = s.normal(rng, (features,), np.float32), rng.uniform(0.001, 0.01, features).astype(np.float32)
    rows = s.data_rows(data, source, shift, scale)
    w, b = s.normal(rng, (features, m), np.float32), s.normal(rng, (m,), np.float32)
    out = s.poison(n * padded(m), np.float32)
    layer: dict[str, Any] = {"activation": IDENTITY, "n_in": features, "n_out": m, "tile": tile}
    launch.forward_layer(rows, s.matrix(w), s.vector(b), out, batch, **layer)
    x = (s.rows_of(batch, data).astype(np.float32) - shift) * scale
    s.check_product(s.read(out, n, m), x, w, b)


def test_ragged_batch_leaves_the_rest() -> None:
    x, w, b = operands((17, 5, 6), np.float32)
    batch = s.batch(11, 17, max_rows=17)
    out = s.poison(17 * 8, np.float32)
    launch.forward_layer(
        s.matrix(x), s.matrix(w), s.vector(b), out, batch, activation=IDENTITY, n_in=5, n_out=6, tile=SMALL
    )
    s.check_product(s.read(out, 17, 6, filled_rows=11), x[:11], w, b)


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
def test_dropout(dtype: Any) -> None:
    x, w, b = operands((9, 5, 11), dtype)
    seed, layer, step, rate = 0x1234_5678_9ABC, 2, 77, 0.3
    mask, keep = (s.upload(a) for a in mask_constants(rate, seed, layer, dtype))
    dropout = launch.Dropout(mask, keep)
    a = run(x, w, b, SMALL, activation=Activation("tanh"), batch=s.batch(9, step=step), dropout=dropout)
    factors = oracle.dropout_mask(9, 11, 1 - rate, seed, layer, step)
    assert ((a == 0) == (factors == 0)).all()
    expected = np.tanh(x.astype(np.float64) @ w + b) * factors
    bound = 2 * tolerances.product_bound(np.abs(x) @ np.abs(w) + np.abs(b), 5, dtype)
    s.check(a, expected, bound, "dropout")


def test_input_dropout(shuffled_blocks: None) -> None:
    data = np.random.default_rng(1).integers(0, 256, (13, 10)).astype(np.uint8)
    batch = s.batch(7, 13, step=3)
    mask, keep = (s.upload(a) for a in mask_constants(0.25, 42, 0, np.float32))
    out = s.poison(7 * padded(10), np.float32)
    rows = s.data_rows(data, "bytes", np.zeros(1, np.float32), np.ones(1, np.float32))
    launch.load_batch(rows, out, batch, n_features=10, dropout=launch.Dropout(mask, keep))
    factors = oracle.dropout_mask(7, 10, 0.75, 42, 0, 3).astype(np.float32)
    np.testing.assert_array_equal(s.read(out, 7, 10), s.rows_of(batch, data) * factors)
    again = s.poison(7 * padded(10), np.float32)
    launch.load_batch(rows, again, batch, n_features=10, dropout=launch.Dropout(mask, keep))
    assert s.download(again).tobytes() == s.download(out).tobytes()
