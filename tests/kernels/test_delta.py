"""The hidden delta kernel: d = (d_next W_next^T) * f', with the column sums for the bias gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuprop.measure.equivalence import oracle, tolerances
from gpuprop_kernels import launch
from gpuprop_kernels.activations import HIDDEN, Activation
from gpuprop_kernels.dropout import mask_constants
from gpuprop_kernels.launch import blocks, padded
from gpuprop_kernels.tile import SMALL
from tests.kernels import support as s


def run(d_next: Any, w_next: Any, source: Any, tile: Any, name: str, **options: Any) -> tuple[Any, Any]:
    """Run the kernel; return the delta and the column sums, added over the tiles."""
    n, units = source.shape
    out = s.poison(n * padded(units), source.dtype)
    n_sums = blocks(n, tile.rows)
    sums = s.poison(n_sums * padded(units), source.dtype)
    given: dict[str, Any] = {"batch": s.batch(n), "activation": Activation(name)} | options
    launch.hidden_delta(
        s.matrix(d_next), s.matrix(w_next), s.matrix(source), out, sums,
        n_units=units, n_next=d_next.shape[1], tile=tile, **given,
    )  # fmt: skip
    return s.read(out, n, units), s.read(sums, n_sums, units).astype(np.float64).sum(axis=0)


def compare(got: tuple[Any, Any], d_next: Any, w_next: Any, slope: Any, what: str) -> None:
    """Check delta and column sums against the float64 product times the slope."""
    wide, weights = d_next.astype(np.float64), w_next.astype(np.float64)
    error, magnitude = wide @ weights.T, np.abs(wide) @ np.abs(weights).T
    dtype = d_next.dtype
    bound = tolerances.product_bound(magnitude, d_next.shape[1], dtype) * np.maximum(1, np.abs(slope))
    bound = bound + tolerances.elementwise_bound("derivative", np.abs(error) * np.maximum(1, np.abs(slope)), dtype)
    s.check(got[0], error * slope, bound, what)
    own = np.abs(got[0].astype(np.float64))
    sums_bound = tolerances.product_bound(own.sum(axis=0), len(own), dtype)
    s.check(got[1], got[0].astype(np.float64).sum(axis=0), sums_bound, f"{what}: column sums")


def operands(shape: tuple[int, int, int], dtype: Any) -> tuple[Any, Any, Any]:
    """Return d_next (n, next), W_next (units, next) and z (n, units)."""
    n, following, units = shape
    rng = np.random.default_rng(1)
    return (
        s.normal(rng, (n, following), dtype), s.normal(rng, (units, following), dtype), s.normal(rng, (n, units), dtype)
    )  # fmt: skip


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
@pytest.mark.parametrize("tile", [SMALL, s.SLICED], ids=s.case_name)
@pytest.mark.parametrize("shape", s.SHAPES, ids=str)
def test_delta(shape: Any, tile: Any, dtype: Any) -> None:
    d_next, w_next, z = operands(shape, dtype)
    got = run(d_next, w_next, np.maximum(z, 0), tile, "relu")
    compare(got, d_next, w_next, (z > 0) * 1.0, "relu")


@pytest.mark.parametrize(("tile", "dtype"), s.production_cases(), ids=s.case_name)
def test_production_tiles(tile: Any, dtype: Any) -> None:
    d_next, w_next, z = operands((33, 37, 35), dtype)
    compare(run(d_next, w_next, np.tanh(z), tile, "tanh"), d_next, w_next, 1 - np.tanh(z.astype(float)) ** 2, "tanh")


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
@pytest.mark.parametrize("name", HIDDEN)
def test_activation(name: str, dtype: Any) -> None:
    d_next, w_next, z = operands((7, 9, 13), dtype)
    a = oracle.activate(name, z.astype(np.float64)).astype(dtype)
    source = z if Activation(name).derivative_of == "z" else a
    slope = oracle.ACTIVATIONS[name][1](z.astype(np.float64))
    compare(run(d_next, w_next, source, SMALL, name), d_next, w_next, slope, name)


@pytest.mark.parametrize("name", ["tanh", "silu"])
def test_dropout(name: str) -> None:
    # tanh takes its derivative from the stored, scaled output; silu from the net input.
    d_next, w_next, z = operands((9, 5, 11), np.float64)
    factors = oracle.dropout_mask(9, 11, 0.6, 99, 1, 4)
    mask, keep = (s.upload(a) for a in mask_constants(0.4, 99, 1, np.float64))
    source = np.tanh(z) * factors if name == "tanh" else z
    dropout = launch.Dropout(mask, keep)
    got = run(d_next, w_next, source, SMALL, name, batch=s.batch(9, step=4), dropout=dropout)
    compare(got, d_next, w_next, oracle.ACTIVATIONS[name][1](z) * factors, name)


def test_ragged_batch() -> None:
    d_next, w_next, z = operands((17, 5, 6), np.float32)
    out, sums = s.poison(17 * 8, np.float32), s.poison(3 * 8, np.float32)
    launch.hidden_delta(
        s.matrix(d_next), s.matrix(w_next), s.matrix(z), out, sums, s.batch(7, 17, max_rows=17),
        activation=Activation("identity"), n_units=6, n_next=5, tile=SMALL,
    )  # fmt: skip
    delta = s.read(out, 17, 6, filled_rows=7)
    s.check_product(delta, d_next[:7], np.ascontiguousarray(w_next.T))
    got = s.read(sums, 3, 6)
    assert (got[1:] == 0).all(), "tiles past the end of the batch give zero sums"
    np.testing.assert_allclose(got[0], delta.sum(axis=0), rtol=1e-5, atol=1e-5)
