"""The teaching kernels: the gradient in six steps, and the delta, against float64 NumPy on ragged shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuprop.measure.equivalence import tolerances
from gpuprop_kernels.ladder.launch import LADDER, accumulate, descend, hidden_delta
from tests.kernels import support as s


def operands(n_rows: int, n_in: int, n_out: int, dtype: Any) -> tuple[Any, Any]:
    rng = np.random.default_rng(6)
    return s.normal(rng, (n_rows, n_in), dtype), s.normal(rng, (n_rows, n_out), dtype)


def upload(matrix: Any) -> Any:
    return s.upload(matrix).reshape(matrix.shape)


def judged(got: Any, a: Any, d: Any, what: str, start: Any = 0.0, scale: float = 1.0) -> None:
    exact = start + scale * (a.astype(np.float64).T @ d)
    magnitude = np.abs(start) + abs(scale) * np.abs(a.astype(np.float64)).T @ np.abs(d)
    s.check(got, exact, tolerances.product_bound(magnitude, len(a), got.dtype), what)


CASES = [(name, np.float32) for name in LADDER if name != "fused epilogue"] + [("double buffer", np.float64)]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=s.case_name)
def test_gradient(name: str, dtype: Any) -> None:
    # 17 rows are a slab and one more; the columns fill one block and begin another.
    wide = LADDER[name].multiple == 4 or name == "register tile"
    shapes = [(17, 12, 68)] if wide else [(17, 7, 19), (1, 1, 7)]
    for n_rows, n_in, n_out in shapes:
        a, d = operands(n_rows, n_in, n_out, dtype)
        gradient = s.poison(n_in * n_out, dtype)
        accumulate(name, upload(a), upload(d), gradient[: n_in * n_out].reshape(n_in, n_out))
        host = s.download(gradient)
        assert np.isnan(host[n_in * n_out :]).all()
        judged(host[: n_in * n_out].reshape(n_in, n_out), a, d, f"{name} {n_rows} x {n_in} x {n_out}")


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
def test_fused_update(dtype: Any) -> None:
    a, d = operands(33, 12, 8, dtype)
    weights = s.normal(np.random.default_rng(7), (12, 8), dtype)
    on_device = upload(weights)
    descend(upload(a), upload(d), on_device, 0.25)
    judged(s.download(on_device), a, d, "fused", weights.astype(np.float64), -0.25)


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
def test_hidden_delta(dtype: Any) -> None:
    rng = np.random.default_rng(8)
    delta, weights = s.normal(rng, (7, 5), dtype), s.normal(rng, (33, 5), dtype)
    a = rng.uniform(0.05, 0.95, (7, 33)).astype(dtype)
    out = s.poison(7 * 33, dtype)
    hidden_delta(upload(delta), upload(weights), upload(a), out[: 7 * 33].reshape(7, 33))
    host = s.download(out)
    assert np.isnan(host[7 * 33 :]).all()
    slope = a.astype(np.float64) * (1 - a.astype(np.float64))
    exact = (delta.astype(np.float64) @ weights.T.astype(np.float64)) * slope
    magnitude = (np.abs(delta.astype(np.float64)) @ np.abs(weights.T)) * slope
    s.check(host[: 7 * 33].reshape(7, 33), exact, tolerances.product_bound(magnitude, 5 + 4, dtype), "delta")
