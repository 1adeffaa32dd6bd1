"""The flat kernels: optimizers, clipping, sums of squares, max-norm; and the generator of dropout masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuprop.maths.optimizers import get_optimizer
from gpuprop.measure.equivalence import oracle, tolerances
from gpuprop_kernels import launch
from gpuprop_kernels.dropout import keep_word, mask_constants, philox, unit_is_kept
from gpuprop_kernels.optimizers import SCALARS, STATE_ARRAYS, update_scalars
from gpuprop_kernels.target import SIM
from tests.kernels import support as s

N, N_WEIGHTS = 44, 28


def settings_of(name: str) -> dict[str, float]:
    """Return the hyperparameters of an optimizer by their names."""
    return vars(get_optimizer(name))


def slots(name: str, rate: float, step: int, dtype: Any, l1: float = 0.0, l2: float = 0.0) -> Any:
    """Return scalars with the update in slot 1 and NaN in slot 0."""
    one = update_scalars(name, rate, step, list(settings_of(name).values()), penalty=(l1, l2))
    return s.upload(np.concatenate([np.full(SCALARS, np.nan), one]).astype(dtype))


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
@pytest.mark.parametrize("name", STATE_ARRAYS)
def test_optimizer(name: str, dtype: Any) -> None:
    # Three steps, so that the state and its bias corrections count.
    rng = np.random.default_rng(6)
    p = s.normal(rng, (N,), dtype)
    wide, state = p.astype(np.float64), oracle.optimizer_state(name, N)
    parameters, flat = s.upload(p), s.upload(np.zeros(max(1, STATE_ARRAYS[name]) * N, dtype))
    l1, l2, rate = 0.125, 0.25, 0.01
    for step in (1, 2, 3):
        g = s.normal(rng, (N,), dtype)
        sums = s.poison(2 * launch.update_blocks(N), dtype)
        launch.update_parameters(
            parameters, flat, s.upload(g), slots(name, rate, step, dtype, l1, l2), s.batch(1),
            optimizer=name, n_weights=N_WEIGHTS, penalties=sums,
        )  # fmt: skip
        is_weight = np.arange(N) < N_WEIGHTS
        reported = s.download(sums)[: -s.GUARD].reshape(-1, 2).sum(axis=0)
        weights = wide[:N_WEIGHTS]
        np.testing.assert_allclose(reported, [(weights**2).sum(), np.abs(weights).sum()], rtol=1e-5)
        gradient = g + is_weight * (l2 * wide + l1 * np.sign(wide))
        wide = oracle.optimize(name, wide, gradient, state, rate, step, N_WEIGHTS, **settings_of(name))
    bound = 3 * tolerances.elementwise_bound("optimizer", wide, dtype, scale=1.0)
    s.check(s.download(parameters), wide, bound, name)
    for index, array in enumerate(state.values()):
        got = s.download(flat)[index * N :][:N]
        bound = 3 * tolerances.elementwise_bound("optimizer", array, dtype, scale=1.0)
        s.check(got, array, bound, f"{name}: state {index}")


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping(limit: float, dtype: Any) -> None:
    # 37 partial squares, more than a block of the simulator has threads.
    rng = np.random.default_rng(7)
    p, slabs = s.normal(rng, (N,), dtype), s.normal(rng, (2, N), dtype)
    total = slabs.astype(np.float64).sum(axis=0)
    squares = rng.dirichlet(np.ones(37)) * (total @ total)
    parameters = s.upload(p)
    launch.update_parameters(
        parameters, s.upload(np.zeros(4, dtype)), s.upload(slabs), slots("sgd", 0.1, 1, dtype), s.batch(1),
        optimizer="sgd", n_weights=N_WEIGHTS, parts=2, squares=s.upload(squares.astype(dtype)), n_squares=37,
        clip_norm=limit,
    )  # fmt: skip
    expected = p - 0.1 * oracle.clip_by_norm(total, limit)
    bound = tolerances.elementwise_bound("optimizer", expected, dtype, scale=1.0)
    s.check(s.download(parameters), expected, bound, "clipped")


def run_flat(what: str) -> dict[str, Any]:
    """Launch a flat kernel on buffers with guards; return what it wrote, the guards still in place."""
    rng = np.random.default_rng(13)
    given = {"parameters": s.normal(rng, (N,), np.float32), "state": np.abs(s.normal(rng, (2 * N,), np.float32))}
    buffers = {name: s.poison(len(values), np.float32) for name, values in given.items()}
    inside = {name: buffers[name][: len(values)] for name, values in given.items()}
    for name, values in given.items():
        inside[name][...] = s.upload(values)
    slabs, squares = s.upload(s.normal(rng, (3 * N,), np.float32)), s.upload(np.ones(20, np.float32))
    count = launch.update_blocks(N)
    buffers["gradients"], buffers["sums"] = s.poison(N, np.float32), s.poison(2 * count, np.float32)
    buffers["squares"] = s.poison(count, np.float32)
    scalars, batch = slots("adamw", 0.1, 2, np.float32, 0.1, 0.2), s.batch(1)
    if what == "max-norm":
        launch.limit_incoming_norm(inside["parameters"], 0, 0.5, batch, n_in=2, n_out=11)
    elif what == "slabs":
        launch.sum_slabs(
            inside["parameters"], buffers["gradients"], slabs, scalars, batch, n_weights=N_WEIGHTS, parts=3,
            accumulate=False, penalties=buffers["sums"], squares=buffers["squares"],
        )  # fmt: skip
    else:
        clip: dict[str, Any] = {"squares": squares, "n_squares": 20, "clip_norm": 0.7} if what == "clipped" else {}
        launch.update_parameters(
            inside["parameters"], inside["state"], slabs, scalars, batch, optimizer="adamw", n_weights=N_WEIGHTS,
            parts=3, penalties=buffers["sums"], **clip,
        )  # fmt: skip
    return {name: s.download(buffer) for name, buffer in buffers.items()}


@pytest.mark.parametrize(
    ("what", "written"),
    [
        ("update", {"parameters", "state", "sums"}),
        ("clipped", {"parameters", "state", "sums"}),
        ("slabs", {"gradients", "sums", "squares"}),
        ("max-norm", {"parameters"}),
    ],
)
def test_flat_kernels_write_their_own_and_repeat(
    what: str, written: set[str], request: pytest.FixtureRequest
) -> None:  # fmt: skip
    first = run_flat(what)
    request.getfixturevalue("shuffled_blocks")
    again = run_flat(what)
    for name, host in first.items():
        assert again[name].tobytes() == host.tobytes(), f"{name} differs in another order of blocks"
        assert np.isnan(host[-s.GUARD :]).all(), f"written past the end of {name}"
        assert not np.isnan(host[: -s.GUARD]).any() or name not in written, f"{name} is not written whole"
        if name not in written and name not in ("parameters", "state"):
            assert np.isnan(host).all(), f"{name} is written"


@pytest.mark.parametrize("step", [1, 49, 51, 3000])
def test_nadam_far_into_a_run(step: int) -> None:
    state = {"m": np.full(1, 0.5), "v": np.full(1, 0.25)}
    p, g = np.array([1.0]), np.array([-0.3])
    expected = oracle.optimize("nadam", p, g, {name: array.copy() for name, array in state.items()}, 0.01, step, 1)
    _, of_moment, b1, rest1, b2, rest2, epsilon, minus_of_gradient, *_ = update_scalars(
        "nadam", 0.01, step, list(settings_of("nadam").values())
    )
    m, v = b1 * state["m"] + rest1 * g, b2 * state["v"] + rest2 * g * g
    np.testing.assert_allclose(
        p - (of_moment * m - minus_of_gradient * g) / (np.sqrt(v) + epsilon), expected, rtol=1e-14
    )


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
def test_limit_incoming_norm(dtype: Any) -> None:
    w = s.normal(np.random.default_rng(10), (19, 21), dtype) * np.linspace(0, 1, 21, dtype=dtype)
    lead = np.full(8, 7, dtype)
    parameters = s.upload(np.concatenate([lead, s.download(s.matrix(w)), lead]))
    launch.limit_incoming_norm(parameters, 8, 1.5, s.batch(1), n_in=19, n_out=21)
    host = s.download(parameters)
    np.testing.assert_array_equal(host[:8], lead)
    np.testing.assert_array_equal(host[-8:], lead)
    got = host[8:-8].reshape(19, 24)
    assert (got[:, 21:] == 0).all()
    expected = oracle.limit_incoming_norm(w.astype(np.float64), 1.5)
    s.check(got[:, :21], expected, 3 * tolerances.elementwise_bound("optimizer", expected, dtype), "max-norm")
    untouched = np.sqrt((w.astype(np.float64) ** 2).sum(axis=0)) < 1.49
    np.testing.assert_array_equal(got[:, :21][:, untouched], w[:, untouched])


# Known answers of Random123 (tests/kat_vectors, philox4x32 with 10 rounds).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.skipif(not SIM, reason="calls device functions from the host; the masks are compared on every target")
@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_known_answers(counter: Any, key: Any, words: Any) -> None:
    assert philox(*counter, *key) == words
    assert oracle.philox4x32(counter, key) == words
    assert [keep_word(words, column) for column in range(4)] == list(words)


@pytest.mark.skipif(not SIM, reason="calls device functions from the host; the masks are compared on every target")
def test_without_dropout_all_is_kept() -> None:
    mask, keep = mask_constants(0.5, 3, 1, np.float32)
    assert keep[0] * keep[1] == 1
    assert unit_is_kept(False)(mask, 0, 0, 0, 0)
    assert not all(unit_is_kept(True)(mask, 0, 0, column, 0) for column in range(64))
