"""The kernels of the output layer: the head (up to 16 classes), the wide layer and the row kernel (any number)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuprop.measure.equivalence import oracle, tolerances
from gpuprop_kernels import launch
from gpuprop_kernels.activations import Activation
from gpuprop_kernels.dropout import mask_constants
from gpuprop_kernels.head import HEAD, SMALL_HEAD, HeadShape
from gpuprop_kernels.launch import blocks, padded
from gpuprop_kernels.optimizers import SCALARS
from gpuprop_kernels.tile import SMALL
from tests.kernels import support as s

PAIRS = [
    ("identity", "squared_error"),
    ("tanh", "squared_error"),
    ("gelu", "squared_error"),
    ("softmax", "squared_error"),
    ("logistic", "binary_cross_entropy"),
    ("softmax", "binary_cross_entropy"),
    ("softmax", "categorical_cross_entropy"),
    ("logistic", "categorical_cross_entropy"),
    ("exponential", "poisson"),
    ("softplus", "poisson"),
    ("identity", "absolute_error"),
    ("tanh", "huber"),
    ("gelu", "huber(0.3)"),
    ("softmax", "pinball(0.9)"),
]
"""Every loss; with its canonical activation where it has one, and softmax and elementwise ones with others."""

REAL = ("squared_error", "poisson", "absolute_error", "huber", "huber(0.3)", "pinball", "pinball(0.9)")
"""Losses of regressions."""


def targets_for(loss: str, rng: np.random.Generator, n: int, k: int, dtype: Any) -> Any:
    """Return targets that the loss is defined on."""
    if loss == "poisson":
        return rng.poisson(1.5, (n, k)).astype(dtype)
    if loss in REAL:
        return s.normal(rng, (n, k), dtype)
    if k == 1:
        return rng.integers(0, 2, (n, 1)).astype(dtype)
    return np.eye(k, dtype=dtype)[rng.integers(0, k, n)]


class Case:
    """One output layer on host and device, its batch drawn from more samples by the permutation."""

    def __init__(
        self, loss: str, dtype: Any, n: int, k: int, n_in: int, *, weighted: bool, max_rows: int | None = None
    ):
        rng = np.random.default_rng(12)
        self.batch = s.batch(n, (max_rows or n) + 4, max_rows=max_rows, step=5)
        samples = (max_rows or n) + 4
        all_targets = targets_for(loss, rng, samples, k, dtype)
        all_weights = rng.uniform(0.5, 2, samples).astype(dtype)
        self.y = s.rows_of(self.batch, all_targets).astype(np.float64)
        self.weight = s.rows_of(self.batch, all_weights).astype(np.float64) if weighted else np.ones(n)
        self.targets = s.upload(all_targets)
        self.weights = s.upload(all_weights[s.download(self.batch.order)]) if weighted else None
        self.z = s.normal(rng, (n, n_in), dtype)
        self.w, self.b = s.normal(rng, (n_in, k), dtype) / dtype(n_in**0.5), s.normal(rng, (k,), dtype)
        inverse = np.zeros(2 * SCALARS, dtype)
        inverse[SCALARS] = 1 / self.weight.sum()
        self.scalars = s.upload(inverse)


def check_losses(losses: Any, count: int, case: Case, z: Any, output: str, loss: str, metric: str, dtype: Any) -> None:
    """Check loss and score in slot 1, and that slot 0 was left alone."""
    host = s.download(losses)
    assert np.isnan(host[: 2 * count]).all(), "another slot was written"
    assert np.isnan(host[4 * count :]).all(), "written past the end"
    got = host[2 * count : 4 * count].reshape(count, 2).astype(np.float64).sum(axis=0)
    a = oracle.activate(output, z)
    per_sample = oracle.sample_losses(loss, output, z, case.y)
    bound = tolerances.elementwise_bound("loss", (np.abs(per_sample) + 8).sum(), dtype, scale=1.0) * 4
    s.check(got[0], (case.weight * per_sample).sum(), bound, "loss")
    if metric == "class":
        score = (a.argmax(axis=1) == case.y.argmax(axis=1)) * 1.0
    elif metric == "threshold":
        score = ((a > 0.5) == (case.y > 0.5)).all(axis=1) * 1.0
    else:
        score = ((a - case.y) ** 2).sum(axis=1)
    bound = tolerances.elementwise_bound("loss", (case.weight * score).sum(), dtype, scale=1.0) * 4
    s.check(got[1], (case.weight * score).sum(), bound, f"score ({metric})")


def delta_bound(case: Case, output: str, loss: str, z: Any, dtype: Any) -> Any:
    """Return the bound on the output's delta: that of the net input through the slopes, relative to the row."""
    g = np.abs(oracle.loss_slope(loss, oracle.activate(output, z), case.y))
    scale = np.maximum(1.0, g.max(axis=1, keepdims=True) * np.abs(z).max())
    return 16 * tolerances.unit(dtype) * scale * (case.weight / case.weight.sum())[:, None] * (case.w.shape[0] + 4) / 4


def run_head(
    output: str, loss: str, metric: str, dtype: Any, *, n: int = 9, k: int = 5, n_in: int = 7, hidden: str = "relu",
    shape: HeadShape = SMALL_HEAD, weighted: bool = True, max_rows: int | None = None, dropout: float = 0.0,
) -> None:  # fmt: skip
    """Run the head and check everything it writes."""
    case = Case(loss, dtype, n, k, n_in, weighted=weighted, max_rows=max_rows)
    grid = max_rows or n
    factors, constants = np.ones((n, n_in)), None
    if dropout:
        factors = oracle.dropout_mask(n, n_in, 1 - dropout, 31, 1, 5)
        constants = launch.Dropout(*(s.upload(a) for a in mask_constants(dropout, 31, 1, dtype)))
    x = (oracle.activate(hidden, case.z.astype(np.float64)) * factors).astype(dtype)
    source = case.z if Activation(hidden).derivative_of == "z" else x
    count = blocks(grid, shape.rows)
    delta, hidden_out = s.poison(grid * padded(k), dtype), s.poison(grid * padded(n_in), dtype)
    sums, hidden_sums = s.poison(count * padded(k), dtype), s.poison(count * padded(n_in), dtype)
    losses = s.poison(4 * count, dtype)
    full = np.zeros((grid, n_in), dtype)
    full_source = full.copy()
    full[:n], full_source[:n] = x, source
    launch.output_head(
        s.matrix(full), s.matrix(case.w), s.vector(case.b), case.targets, case.weights, delta, sums, losses,
        s.matrix(full_source), hidden_out, hidden_sums, case.scalars, case.batch, output=Activation(output), loss=loss,
        metric=metric, hidden=Activation(hidden), n_in=n_in, n_out=k, targets_ld=k, shape=shape, dropout=constants,
    )  # fmt: skip
    z = x.astype(np.float64) @ case.w + case.b
    check_losses(losses, count, case, z, output, loss, metric, dtype)
    expected = oracle.output_delta(loss, output, z, case.y, case.weight)
    got = s.read(delta, grid, k, filled_rows=n)
    bound = delta_bound(case, output, loss, z, dtype)
    s.check(got, expected, bound, "delta")
    wide = got.astype(np.float64)
    unit = tolerances.unit(dtype)
    per_block = s.read(sums, count, k).astype(np.float64)
    s.check(per_block.sum(axis=0), wide.sum(axis=0), (n + 4) * unit * np.abs(wide).sum(axis=0), "sums")
    slope = oracle.ACTIVATIONS[hidden][1](case.z.astype(np.float64)) * factors
    error, magnitude = wide @ case.w.astype(np.float64).T, np.abs(wide) @ np.abs(case.w).T.astype(np.float64)
    got_hidden = s.read(hidden_out, grid, n_in, filled_rows=n).astype(np.float64)
    bound = (k + 20) * unit * magnitude * np.maximum(1, np.abs(slope))
    s.check(got_hidden, error * slope, bound, "hidden delta")
    per_block = s.read(hidden_sums, count, n_in).astype(np.float64)
    bound = (n + 4) * unit * np.abs(got_hidden).sum(axis=0)
    s.check(per_block.sum(axis=0), got_hidden.sum(axis=0), bound, "hidden sums")


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
@pytest.mark.parametrize(("output", "loss"), PAIRS)
def test_head(output: str, loss: str, dtype: Any) -> None:
    metric = "residual" if loss in REAL else "class"
    run_head(output, loss, metric, dtype, n=5, k=3)


@pytest.mark.parametrize(("n", "k", "n_in"), [(1, 1, 1), (7, 10, 17), (3, 16, 33), (17, 4, 7)])
def test_head_sizes(n: int, k: int, n_in: int) -> None:
    output, loss = ("logistic", "binary_cross_entropy") if k == 1 else ("softmax", "categorical_cross_entropy")
    run_head(output, loss, "threshold" if k == 1 else "class", np.float32, n=n, k=k, n_in=n_in, weighted=False)


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
def test_production_head(dtype: Any) -> None:
    run_head("softmax", "categorical_cross_entropy", "class", dtype, n=11, k=10, n_in=19, shape=HEAD)


@pytest.mark.parametrize("hidden", ["tanh", "silu"])
def test_head_with_dropout(hidden: str) -> None:
    run_head("softmax", "categorical_cross_entropy", "class", np.float64, hidden=hidden, dropout=0.4)


def test_head_ragged_batch() -> None:
    run_head("softmax", "categorical_cross_entropy", "class", np.float32, n=3, max_rows=8)


def run_rows(
    output: str, loss: str, metric: str, dtype: Any, *, n: int = 5, k: int = 19, max_rows: int | None = None,
    in_place: bool = False,
) -> bytes:  # fmt: skip
    """Run the row kernel, check everything it writes, and return it."""
    case = Case(loss, dtype, n, k, 6, weighted=True, max_rows=max_rows)
    grid = max_rows or n
    z = (case.z @ case.w + case.b).astype(dtype)
    full = np.full((grid, k), np.nan, dtype)
    full[:n] = z
    inputs = s.matrix(full)
    count = launch.row_blocks(grid)
    delta, losses = s.poison(grid * padded(k), dtype), s.poison(4 * count, dtype)
    launch.loss_rows(
        inputs, case.targets, case.weights, inputs if in_place else delta, losses, case.scalars, case.batch,
        output=Activation(output), loss=loss, metric=metric, n_out=k, targets_ld=k,
    )  # fmt: skip
    wide = z.astype(np.float64)
    check_losses(losses, count, case, wide, output, loss, metric, dtype)
    got = s.download(inputs).reshape(grid, -1)[:n, :k] if in_place else s.read(delta, grid, k, filled_rows=n)
    expected = oracle.output_delta(loss, output, wide, case.y, case.weight)
    s.check(got, expected, delta_bound(case, output, loss, wide, dtype), "delta")
    return bytes(got.tobytes() + s.download(losses).tobytes())


@pytest.mark.parametrize(("output", "loss"), PAIRS)
def test_rows(output: str, loss: str) -> None:
    run_rows(output, loss, "residual" if loss in REAL else "class", np.float64)


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
@pytest.mark.parametrize(("k", "metric"), [(1, "threshold"), (33, "class"), (17, "threshold")])
def test_rows_sizes(k: int, metric: str, dtype: Any) -> None:
    run_rows("logistic", "binary_cross_entropy", metric, dtype, k=k)


def test_rows_ragged_and_in_place() -> None:
    run_rows("softmax", "categorical_cross_entropy", "class", np.float32, n=3, max_rows=7)
    run_rows("softmax", "categorical_cross_entropy", "class", np.float32, n=4, in_place=True)


def test_rows_repeat_in_any_order(request: pytest.FixtureRequest) -> None:
    in_order = run_rows("softmax", "squared_error", "residual", np.float32, n=9)
    request.getfixturevalue("shuffled_blocks")
    assert run_rows("softmax", "squared_error", "residual", np.float32, n=9) == in_order


def run_wide(
    output: str, loss: str, metric: str, dtype: Any, *, n: int = 9, k: int = 18, n_in: int = 7, tile: Any = SMALL,
    max_rows: int | None = None, source: str = "dense",
) -> bytes:  # fmt: skip
    """Run the wide output layer twice, check everything it writes, and return it."""
    case = Case(loss, dtype, n, k, n_in, weighted=True, max_rows=max_rows)
    grid = max_rows or n
    tall = blocks(grid, tile.rows)
    z, delta = s.poison(grid * padded(k), dtype), s.poison(grid * padded(k), dtype)
    sums, losses = s.poison(tall * padded(k), dtype), s.poison(4 * tall, dtype)
    counts = s.upload(np.zeros(tall, np.uint32))
    full = np.full((grid, n_in), np.nan, dtype)
    full[:n] = case.z
    x: Any = s.matrix(full)
    if source == "floats":  # a network without a hidden layer reads the data set by the permutation
        samples = np.full((len(s.download(case.batch.order)), n_in), np.nan, dtype)
        start = int(s.download(case.batch.schedule)[4])
        samples[s.download(case.batch.order)[start : start + n]] = case.z
        x = s.data_rows(samples, source, np.zeros(1, dtype), np.ones(1, dtype))
    for _ in range(2):  # the second launch finds the counts that the first has left
        launch.wide_output(
            x, s.matrix(case.w), s.vector(case.b), z, case.targets, case.weights, delta, sums, losses, counts,
            case.scalars, case.batch, output=Activation(output), loss=loss, metric=metric, n_in=n_in, n_out=k,
            targets_ld=k, tile=tile,
        )  # fmt: skip
    assert not s.download(counts).any()
    found = s.read(z, grid, k, filled_rows=n)
    s.check_product(found, case.z, case.w, case.b)
    wide = case.z.astype(np.float64) @ case.w + case.b
    check_losses(losses, tall, case, wide, output, loss, metric, dtype)
    got = s.read(delta, grid, k, filled_rows=n)
    expected = oracle.output_delta(loss, output, wide, case.y, case.weight)
    s.check(got, expected, delta_bound(case, output, loss, wide, dtype), "delta")
    per_tile = s.read(sums, tall, k).astype(np.float64)
    total = got.astype(np.float64)
    bound = (n + 4) * tolerances.unit(dtype) * np.abs(total).sum(axis=0)
    s.check(per_tile.sum(axis=0), total.sum(axis=0), bound, "sums")
    return b"".join(s.download(array).tobytes() for array in (z, delta, sums, losses))


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
@pytest.mark.parametrize(
    ("output", "loss", "metric", "k"),
    [
        ("softmax", "categorical_cross_entropy", "class", 18),
        ("softmax", "pinball(0.9)", "residual", 17),
        ("logistic", "binary_cross_entropy", "threshold", 33),
        ("identity", "absolute_error", "residual", 1),
    ],
)
def test_wide(output: str, loss: str, metric: str, k: int, dtype: Any) -> None:
    run_wide(output, loss, metric, dtype, k=k)


@pytest.mark.parametrize(("tile", "dtype"), s.production_cases(), ids=s.case_name)
def test_production_wide(tile: Any, dtype: Any) -> None:
    run_wide("softmax", "categorical_cross_entropy", "class", dtype, n=33, k=35, n_in=19, tile=tile)


def test_wide_ragged_and_gathered() -> None:
    run_wide("softmax", "categorical_cross_entropy", "class", np.float32, n=3, max_rows=17)
    run_wide("softmax", "categorical_cross_entropy", "class", np.float32, n=9, source="floats")


def test_wide_repeats_whichever_block_is_last(request: pytest.FixtureRequest) -> None:
    how: dict[str, Any] = {"n": 9, "k": 35}
    in_order = run_wide("softmax", "categorical_cross_entropy", "class", np.float32, **how)
    request.getfixturevalue("shuffled_blocks")
    assert run_wide("softmax", "categorical_cross_entropy", "class", np.float32, **how) == in_order


def test_first_of_equal_outputs_wins() -> None:
    z = np.zeros((3, 18), np.float32)
    y = np.zeros((3, 18), np.float32)
    y[0, 0] = y[1, 17] = y[2, 0] = 1
    z[2, 5] = -1
    batch = launch.Batch(s.upload(np.array([0, 3, 0, 0], np.int32)), 0, 3, s.upload(np.arange(3, dtype=np.int32)))
    losses = s.upload(np.zeros(2 * launch.row_blocks(3), np.float32))
    launch.loss_rows(
        s.matrix(z), s.upload(y), None, s.poison(3 * 20, np.float32), losses, s.upload(np.ones(8, np.float32)), batch,
        output=Activation("softmax"), loss="categorical_cross_entropy", metric="class", n_out=18, targets_ld=18,
    )  # fmt: skip
    assert s.download(losses)[1::2].sum() == 2


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
def test_softmax_rows(dtype: Any, request: pytest.FixtureRequest) -> None:
    z = s.normal(np.random.default_rng(2), (4, 21), dtype) * 3
    z[0, 3], z[1] = 1e4, -1e4
    out, again = s.poison(4 * 24, dtype), s.poison(4 * 24, dtype)
    launch.softmax_rows(s.matrix(z), out, n_rows=4, n_out=21)
    request.getfixturevalue("shuffled_blocks")
    launch.softmax_rows(s.matrix(z), again, n_rows=4, n_out=21)
    assert s.download(again).tobytes() == s.download(out).tobytes()
    expected = oracle.activate("softmax", z.astype(np.float64))
    bound = (
        2
        * tolerances.elementwise_bound("activation", expected, dtype)
        * (1 + np.abs(z).max(axis=1, initial=1)[:, None])
    )
    s.check(s.read(out, 4, 21), expected, bound, "softmax")
