"""The grouped gradient kernel: gW = a^T d and gb = sum d of all layers in one launch."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest

from gpuprop.maths.optimizers import get_optimizer
from gpuprop.measure.equivalence import oracle, tolerances
from gpuprop_kernels import launch
from gpuprop_kernels.gradient import GradientJob, gradient_kernel, job_table
from gpuprop_kernels.launch import padded
from gpuprop_kernels.optimizers import SCALARS, STATE_ARRAYS, update_scalars
from gpuprop_kernels.tile import SMALL, TILES
from tests.kernels import support as s


class Problem(NamedTuple):
    """Two layers: the first gathers its rows, the second reads activations of the workspace."""

    batch: Any
    rows: Any
    workspace: Any
    parameters: Any
    layers: list[GradientJob]
    operands: list[tuple[Any, Any]]
    """Inputs and delta of each layer on the host."""
    n_weights: int


def problem(dtype: Any, n: int = 17, sizes: tuple[int, int, int] = (13, 9, 7), max_rows: int | None = None) -> Problem:
    """Return a seeded problem with n rows; unused parts of the workspace are NaN."""
    rng = np.random.default_rng(4)
    grid = max_rows or n
    batch = s.batch(n, grid + 5, max_rows=grid)
    data = rng.integers(0, 256, (grid + 5, sizes[0])).astype(np.uint8)
    x = s.rows_of(batch, data).astype(dtype) * dtype(1 / 256)
    operands = [
        (x, s.normal(rng, (n, sizes[1]), dtype)),
        (s.normal(rng, (n, sizes[1]), dtype), s.normal(rng, (n, sizes[2]), dtype)),
    ]
    pieces: list[Any] = []

    def place(array: Any) -> int:
        at = sum(len(p) for p in pieces)
        full = np.full((max(grid, len(array)), padded(array.shape[1])), np.nan, dtype)
        full[: len(array)] = 0
        full[: len(array), : array.shape[1]] = array
        pieces.append(full.reshape(-1))
        return at

    layers, at = [], 0
    n_weights = sum(a * padded(b) for a, b in itertools.pairwise(sizes))
    biases_at = n_weights
    for index, (inputs, delta) in enumerate(operands):
        sums = np.stack([delta[:5].sum(axis=0), delta[5:].sum(axis=0)])
        n_in, n_out = sizes[index], sizes[index + 1]
        sums_at = place(sums)
        layers.append(
            GradientJob(n_in, n_out, place(inputs), place(delta), sums_at, 2, at, biases_at, gathered=index == 0)
        )
        at += n_in * padded(n_out)
        biases_at += padded(n_out)
    parameters = np.zeros(biases_at, dtype)
    for job in layers:
        block = parameters[job.weights_at :][: job.n_in * padded(job.n_out)].reshape(job.n_in, -1)
        block[:, : job.n_out] = s.normal(rng, (job.n_in, job.n_out), dtype)
        parameters[job.biases_at :][: job.n_out] = s.normal(rng, (job.n_out,), dtype)
    scale = np.array([1 / 256, 0, 0, 0], dtype)
    rows = s.data_rows(data, "bytes", scale, scale)
    return Problem(batch, rows, s.upload(np.concatenate(pieces)), s.upload(parameters), layers, operands, n_weights)


def slots(optimizer: str, dtype: Any, l1: float = 0.0, l2: float = 0.0) -> Any:
    """Return scalars with the third update in slot 1 and NaN in slot 0."""
    one = update_scalars(optimizer, 0.01, 3, get_optimizer(optimizer).hyperparameters, penalty=(l1, l2))
    return s.upload(np.concatenate([np.full(SCALARS, np.nan), one]).astype(dtype))


def run(
    p: Problem, out: Any, mode: str, tile: Any, parts: int = 1, l1: float = 0.0, l2: float = 0.0, measured: bool = False
) -> tuple[Any, Any]:
    """Launch the kernel; check and return what it leaves of the weights (squares, sizes) and of the gradient."""
    table, n_blocks = job_table(p.layers, tile)
    dtype = p.parameters.dtype
    weights = s.download(p.parameters)[: p.n_weights].astype(np.float64)
    sums, squares = s.poison(2 * n_blocks, dtype), s.poison(n_blocks, dtype)
    penalties = sums if l1 or l2 else None
    scalars = slots(mode if mode in STATE_ARRAYS else "sgd", dtype, l1, l2)
    launch.accumulate_gradients(
        p.rows, p.workspace, p.parameters, out, s.upload(table), scalars, p.batch, mode=mode, tile=tile,
        n_jobs=len(table) // 12, n_blocks=n_blocks, parts=parts, penalties=penalties,
        squares=squares if measured else None,
    )  # fmt: skip
    check_penalty(sums, n_blocks, weights, penalties is not None)
    return sums, squares


def check_penalty(sums: Any, n_blocks: int, weights: Any, penalised: bool) -> None:
    """Check the sums of the weights' squares and sizes; without a penalty nothing is written."""
    if not penalised:
        assert np.isnan(s.download(sums)).all()
        return
    got = finished(sums, 2 * n_blocks).reshape(-1, 2).astype(np.float64).sum(axis=0)
    expected = np.array([(weights**2).sum(), np.abs(weights).sum()])
    s.check(got, expected, tolerances.product_bound(expected, len(weights), sums.dtype), "penalties")


def check_squares(squares: Any, n_blocks: int, gradient: Any) -> None:
    """Check the sum of the gradient's squares."""
    total = float(finished(squares, n_blocks).astype(np.float64).sum())
    expected = float((gradient.astype(np.float64) ** 2).sum())
    s.check(total, expected, tolerances.product_bound(expected, len(gradient), squares.dtype), "squares")


def parts_of(p: Problem, flat: Any) -> list[tuple[Any, Any]]:
    """Return weights and biases of each layer from a flat host buffer; padding must be zero."""
    found = []
    for job in p.layers:
        ld = padded(job.n_out)
        w = flat[job.weights_at :][: job.n_in * ld].reshape(job.n_in, ld)
        b = flat[job.biases_at :][:ld]
        assert (w[:, job.n_out :] == 0).all()
        assert (b[job.n_out :] == 0).all()
        found.append((w[:, : job.n_out], b[: job.n_out]))
    return found


def expected(p: Problem, l1: float = 0.0, l2: float = 0.0) -> tuple[Any, Any]:
    """Return the flat gradient in float64 and the bound on its error."""
    parameters = s.download(p.parameters)
    flat, bound = np.zeros(len(parameters)), np.zeros(len(parameters))
    dtype = parameters.dtype
    for job, (inputs, delta), (w, _) in zip(p.layers, p.operands, parts_of(p, parameters), strict=True):
        ld, n = padded(job.n_out), len(delta)
        a, d = inputs.astype(np.float64), delta.astype(np.float64)
        penalty = l2 * w.astype(np.float64) + l1 * np.sign(w)
        size = job.n_in * ld
        flat[job.weights_at :][:size].reshape(-1, ld)[:, : job.n_out] = a.T @ d + penalty
        magnitude = np.abs(a).T @ np.abs(d) + np.abs(penalty)
        bound[job.weights_at :][:size].reshape(-1, ld)[:, : job.n_out] = tolerances.product_bound(magnitude, n, dtype)
        flat[job.biases_at :][: job.n_out] = d.sum(axis=0)
        bound[job.biases_at :][: job.n_out] = tolerances.product_bound(np.abs(d).sum(axis=0), n, dtype)
    return flat, bound


def finished(buffer: Any, n: int) -> Any:
    """Return the first n elements of a poisoned buffer, after looking at the guard."""
    host = s.download(buffer)
    assert np.isnan(host[n:]).all(), "written past the end"
    return host[:n]


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
@pytest.mark.parametrize("tile", [SMALL, s.SLICED], ids=s.case_name)
@pytest.mark.parametrize("n", [1, 7, 17, 33])
def test_overwrite(n: int, tile: Any, dtype: Any) -> None:
    p = problem(dtype, n)
    out = s.poison(p.parameters.size, dtype)
    run(p, out, "store", tile)
    flat, bound = expected(p)
    s.check(finished(out, len(flat)), flat, bound, "gradient")


@pytest.mark.parametrize(("tile", "dtype"), s.production_cases(), ids=s.case_name)
def test_production_tiles(tile: Any, dtype: Any) -> None:
    p = problem(dtype, 33, (35, 9, 7))
    out = s.poison(p.parameters.size, dtype)
    run(p, out, "store", tile)
    flat, bound = expected(p)
    s.check(finished(out, len(flat)), flat, bound, "gradient")


@pytest.mark.parametrize(
    ("mode", "penalised", "measured", "what"),
    [
        ("adamw", False, False, "the optimizer adamw"),
        ("store", True, False, "sums of penalties or squares"),
        ("accumulate", False, True, "sums of penalties or squares"),
    ],
)
def test_a_tile_without_registers_for_more_is_refused(mode: str, penalised: bool, measured: bool, what: str) -> None:
    dt = launch.numba_type(np.dtype(np.float32))
    with pytest.raises(ValueError, match=f"got tile 128x128_8x8 with {what}, expected a smaller tile: beside 64"):
        gradient_kernel(TILES["128x128_8x8"], dt, mode, "dense", penalised, measured)


def test_accumulate_and_penalties() -> None:
    p = problem(np.float32)
    n = p.parameters.size
    before = np.where(expected(p)[0] == 0, 0, np.random.default_rng(0).standard_normal(n)).astype(np.float32)
    out = s.upload(before)
    _, squares = run(p, out, "accumulate", SMALL, l1=0.25, l2=0.5, measured=True)
    flat, bound = expected(p, 0.25, 0.5)
    bound = bound + 2 * tolerances.unit(np.float32) * np.abs(before)
    s.check(s.download(out), flat + before, bound, "accumulated")
    check_squares(squares, job_table(p.layers, SMALL)[1], s.download(out))


@pytest.mark.parametrize("n", [17, 9])
@pytest.mark.parametrize("accumulate", [False, True])
def test_split_batch(accumulate: bool, n: int) -> None:
    # 3 parts of 6 rows; with 9 rows the last part is empty and the one before it ragged.
    p = problem(np.float32, n, max_rows=17)
    size = p.parameters.size
    slabs = s.poison(3 * size, np.float32)
    run(p, slabs, "slab", SMALL, parts=3)
    finished(slabs, 3 * size)
    flat, bound = expected(p, 0.1, 0.2)
    before = np.where(flat == 0, 0, 1.5).astype(np.float32)
    out = s.upload(before) if accumulate else s.poison(size, np.float32)
    count = launch.update_blocks(size)
    sums, squares = s.poison(2 * count, np.float32), s.poison(count, np.float32)
    launch.sum_slabs(
        p.parameters, out, slabs, slots("sgd", np.float32, 0.1, 0.2), p.batch, n_weights=p.n_weights, parts=3,
        accumulate=accumulate, penalties=sums, squares=squares,
    )  # fmt: skip
    got = s.download(out)[:size]
    s.check(got, flat + (before if accumulate else 0), bound + 4e-7, "split")
    check_penalty(sums, count, s.download(p.parameters)[: p.n_weights].astype(np.float64), True)
    check_squares(squares, count, got)


def test_slabs_are_added_in_order() -> None:
    # (1 + 1e8) - 1e8 is 0 in float32; from the end it would be 1.
    slabs = s.upload(np.repeat(np.array([1, 1e8, -1e8], np.float32), 8))
    out = s.poison(8, np.float32)
    zeros = s.upload(np.zeros(8, np.float32))
    launch.sum_slabs(zeros, out, slabs, slabs, s.batch(1), n_weights=8, parts=3, accumulate=False)
    assert (finished(out, 8) == 0).all()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_update_in_the_same_launch(optimizer: str) -> None:
    # The fused update must give the bits of the unfused one.
    p = problem(np.float32)
    n = p.parameters.size
    gradients = s.poison(n, np.float32)
    run(p, gradients, "store", SMALL, l1=0.1, l2=0.2)
    start = np.abs(np.random.default_rng(2).standard_normal(2 * n)).astype(np.float32) * 0.1
    start[:n][s.download(p.parameters) == 0] = 0
    fused, plain = s.upload(start), s.upload(start)
    alone = p._replace(parameters=s.upload(s.download(p.parameters)))
    scalars = slots(optimizer, np.float32)
    launch.update_parameters(
        alone.parameters, plain, gradients[:n], scalars, p.batch, optimizer=optimizer, n_weights=p.n_weights
    )
    run(p, fused, optimizer, SMALL, l1=0.1, l2=0.2)
    np.testing.assert_array_equal(s.download(p.parameters), s.download(alone.parameters))
    np.testing.assert_array_equal(s.download(fused), s.download(plain))


def test_repeats_bit_for_bit_in_any_order(shuffled_blocks: None) -> None:
    results = []
    for _ in range(2):
        p = problem(np.float32)
        out = s.poison(p.parameters.size, np.float32)
        run(p, out, "store", SMALL)
        results.append(finished(out, p.parameters.size))
    assert results[0].tobytes() == results[1].tobytes()


def test_oracle_agrees_with_finite_differences() -> None:
    # The judge itself: central differences of the reported loss, penalties and weights included.
    rng = np.random.default_rng(8)
    sizes = (4, 5, 3)
    w = [rng.standard_normal(shape) for shape in itertools.pairwise(sizes)]
    b = [rng.standard_normal(m) for m in sizes[1:]]
    x, y = rng.standard_normal((6, 4)), rng.dirichlet(np.ones(3), 6)
    options: dict[str, Any] = {"sample_weight": rng.uniform(0.5, 2, 6), "l1": 0.01, "l2": 0.1}
    for output, loss in [
        ("softmax", "categorical_cross_entropy"), ("softmax", "squared_error"), ("logistic", "binary_cross_entropy"),
        ("softplus", "poisson"), ("exponential", "poisson"), ("softmax", "binary_cross_entropy"),
    ]:  # fmt: skip
        result = oracle.forward_backward(x, y, w, b, ["tanh", output], loss, **options)
        for layer in range(2):
            for index in [(0, 0), (2, 1), (3, 2)]:
                step = 1e-6
                w[layer][index] += step
                high = oracle.forward_backward(x, y, w, b, ["tanh", output], loss, **options).loss
                w[layer][index] -= 2 * step
                low = oracle.forward_backward(x, y, w, b, ["tanh", output], loss, **options).loss
                w[layer][index] += step
                difference = (high - low) / (2 * step)
                assert abs(difference - result.weight_grads[layer][index]) < 1e-7 * max(1, abs(difference))
