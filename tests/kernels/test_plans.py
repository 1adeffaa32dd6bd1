"""Plans of the kernels: what they say of themselves, and a training that goes on from the middle of an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends.cuda.residence import ENVIRONMENT_VARIABLE
from gpuprop.backends.devices import plan as choose_plan
from gpuprop.core.parameters import Parameters
from gpuprop.core.rule import UpdateRule
from gpuprop.core.updates import EpochUpdates, Training
from gpuprop.maths.optimizers import get_optimizer
from tests.kernels import support as s

DEVICE = "cuda" if s.ON_DEVICE else "cuda-sim"
N, SIZE = 19, 3


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)


def training(device: str = DEVICE, seed: int = 0) -> Training:
    """Seven updates of 3 rows, the last one of 1 row, with penalties and sample weights."""
    rng = np.random.default_rng(7)
    X, y = rng.integers(0, 256, (N, 5)).astype(np.uint8), np.eye(3)[rng.integers(0, 3, N)]
    network = gpuprop.Network(
        (5, 4, 3), loss="categorical_cross_entropy", seed=seed, device=device, l2=0.1,
        input_scaling=gpuprop.InputScaling.divide(255),
    )  # fmt: skip
    adam, ops = get_optimizer("adam"), network.ops
    size = Parameters.count(network.layer_sizes, ops.row_padding)
    state = {slot: ops.asarray(np.zeros(size), network.dtype) for slot in adam.slots}
    data = network.prepare(X, y, rng.random(N) + 0.5)
    return Training(network.layers, data, UpdateRule(adam, state), SIZE, SIZE, 14)


def epoch_of(one: Training, epoch: int) -> EpochUpdates:
    order = np.random.default_rng([epoch, 3]).permutation(N).astype(np.int32)
    n = one.updates_of_epoch
    weights = one.data.batch_weights(order, SIZE)
    return EpochUpdates(one, one.data, order, weights, np.ones(n), np.linspace(0.01, 0.02, n), epoch * n)


def numbers(plan: Any) -> list[bytes]:
    (state,) = plan.state()
    return [array.tobytes() for array in (state.parameters, *state.optimizer.values(), state.totals)]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_training_goes_on_from_any_update_with_the_same_bits(streamed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from the middle of a window of updates, whose losses are not yet with those of the epoch."""
    monkeypatch.setattr("gpuprop.backends.cuda.kernel_plan.WINDOW_LAUNCHES", 9)  # three updates of three launches each
    if streamed:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, "900")
    whole = choose_plan([training()])
    assert whole.name == ("streamed" if streamed else "fused")
    n = whole._training.updates_of_epoch  # type: ignore[attr-defined]
    one = whole._training  # type: ignore[attr-defined]
    for epoch in (0, 1):
        whole.begin_epoch(epoch_of(one, epoch))
        whole.run(0, n)
    expected = numbers(whole)
    for stop in (0, 2, 3, n):
        first = training()
        before = choose_plan([first])
        before.begin_epoch(epoch_of(first, 0))
        before.run(0, n)
        before.begin_epoch(epoch_of(first, 1))
        before.run(0, stop)
        (state,) = before.state()
        before.run(stop, n)  # taking a state disturbs nothing
        assert numbers(before) == expected
        second = training(seed=1)
        later = choose_plan([second])
        later.begin_epoch(epoch_of(second, 1))
        later.restore(state)
        later.run(stop, n)
        assert numbers(later) == expected


def test_a_state_of_the_host_serves_the_kernels() -> None:
    one, other = training("numpy"), training(seed=1)
    plain, later = choose_plan([one]), choose_plan([other])
    plain.begin_epoch(epoch_of(one, 0))
    plain.run(0, 4)
    later.begin_epoch(epoch_of(other, 0))
    later.restore(*plain.state())
    plain.run(4, 7)
    later.run(4, 7)
    (expected,), (found,) = plain.state(), later.state()
    np.testing.assert_allclose(found.parameters, expected.parameters, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(found.totals, expected.totals, rtol=2e-5)


def fit(n_rows: int = N, **options: Any) -> gpuprop.Trainer:
    rng = np.random.default_rng(0)
    network = gpuprop.Network((5, 4, 3), loss="categorical_cross_entropy", device=DEVICE, seed=0)
    X, y = rng.normal(size=(n_rows, 5)).astype(np.float32), rng.integers(0, 3, n_rows)
    return gpuprop.Trainer(network, epochs=1, batch_size=SIZE, **options).fit(X, y)


def test_the_plan_says_which_path_it_is() -> None:
    reason = fit().plan_reason
    few = "a graph pays for more than 8 updates, and here would have 7"
    expected = few if s.ON_DEVICE else "the simulator has no CUDA graphs"
    assert reason == f"fused: fused kernels, launched one by one because {expected}"
    assert fit(plan="fused").plan_reason == "fused: fused kernels, launched one by one as asked for"
    assert fit(plan="steps").plan_reason == "steps: one kernel after the other, as asked for"


def test_a_path_that_cannot_serve_says_why() -> None:
    with pytest.raises(gpuprop.PlanError, match=r"plan 'streamed': the data set lies on the device; GPUPROP_DATA_MEM"):
        fit(plan="streamed")
    with pytest.raises(gpuprop.PlanError, match=r"plan 'graph': (the simulator has no|a graph pays for more than 8)"):
        fit(plan="graph")
    with pytest.raises(gpuprop.PlanError, match=r"plan 'dense'.*offers steps, fused, graph, streamed, block, joint"):
        fit(plan="dense")
    with pytest.raises(gpuprop.PlanError, match="plan 'joint': there is only one network"):
        fit(plan="joint")


@pytest.mark.skipif(not s.ON_DEVICE, reason="the simulator has no CUDA graphs")
def test_a_long_epoch_is_recorded() -> None:
    reason = fit(n_rows=61).plan_reason
    assert reason == "graph: fused kernels, 21 updates in a CUDA graph"
    assert fit(n_rows=61, plan="graph").plan_reason == reason
