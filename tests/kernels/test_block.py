"""One block, one network: whole epochs in one launch, with the bits of a lone fit in any company and order of blocks.

Against the float64 oracle it stands in `test_cases`, beside the other kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpuprop.backends.cuda import block_plan
from gpuprop.backends.cuda.block_plan import BlockPlan
from gpuprop.backends.devices import plan as choose_plan
from gpuprop.core.updates import Training
from gpuprop.errors import PlanError
from gpuprop_kernels.block_layout import LAYER_SIZE, block_layout, multiply_adds
from gpuprop_kernels.shapes import padded
from tests.kernels import support as s
from tests.kernels.test_together import (
    Fits,
    blobs,
    epoch_of,
    long_in_the_simulator,
    same_as_alone,
    states,
    trainer,
    training,
    varied,
)
from tests.kernels.test_training import same_run


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)


def one_of(**how: Any) -> Training:
    """Return a training of the shape that most tests here have."""
    network = how.pop("network", {})
    one: Training = next(trainer(0, how.pop("sizes", (5, 6, 3)), network, **how).training(*blobs(16))).training
    return one


def test_the_updates_of_two_networks(shuffled_blocks: None) -> None:
    """The second one has fewer rows, so that it must stay as it is in the last update, which has 1 row."""
    rows = (7, 6)
    expected = []
    for place, n_rows in enumerate(rows):
        one = training(place, {}, (5, 4, 3), n_rows)
        lone = choose_plan([one])
        assert isinstance(lone, BlockPlan)
        lone.begin_epoch(epoch_of(one, place))
        lone.run(0, lone.n_updates)
        expected += states(lone)
    both = [training(place, {}, (5, 4, 3), n_rows) for place, n_rows in enumerate(rows)]
    plan = choose_plan(both, want="joint")
    assert plan.reason.startswith("joint: 2 networks of one shape in the same launches; whole epochs in one launch, ")
    plan.begin_epoch(*(epoch_of(one, place) for place, one in enumerate(both)))
    plan.run(0, 1)
    middle = plan.state()
    plan.run(1, 3)
    assert states(plan) == expected
    plan.restore(*middle)  # and on from the middle of an epoch
    plan.run(1, 3)
    assert states(plan) == expected


@long_in_the_simulator
def test_seeds_rates_folds_penalties_weights_and_dropout(shuffled_blocks: None) -> None:
    same_as_alone(varied, "joint: 3 networks of one shape in the same launches; whole epochs in one launch")


@long_in_the_simulator
def test_an_epoch_of_several_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(37)
    whole = trainer(0).fit(X, y)
    monkeypatch.setattr(block_plan, "MOST_UPDATES", 2)
    parts = trainer(0).fit(X, y)
    assert str(parts.plan_reason).startswith("block: an epoch in 3 launches, ")
    assert parts.network.host_parameters().tobytes() == whole.network.host_parameters().tobytes()
    assert parts.history["train_loss"] == whole.history["train_loss"]


@long_in_the_simulator
def test_networks_stop_by_themselves() -> None:
    X, y = blobs(40)

    def make() -> Fits:
        how: dict[str, Any] = {"validation": 0.2, "early_stopping": 1, "epochs": 5}
        return [(trainer(i, learning_rate=rate, **how), (X, y)) for i, rate in enumerate((2.0, 0.01, 1.0, 0.1, 0.3))]

    trained = same_as_alone(make)
    assert len({one.epochs_done for one, _ in trained}) > 1, "they must not all end in one epoch"


@long_in_the_simulator
@pytest.mark.parametrize(
    ("sizes", "network", "how"),
    [
        ((5, 6, 3), {}, {"batch_size": 70, "optimizer": "nadam"}),
        ((5, 33, 18), {"hidden_activation": "mish"}, {"batch_size": 7, "optimizer": "rmsprop"}),
        ((5, 3), {"dtype": "float64", "l1": 0.01}, {"optimizer": "sgd"}),
        ((5, 9, 7, 9, 3), {"dropout": (0, 0.3, 0, 0.2), "dtype": "float64"}, {"optimizer": "lion", "batch_size": 12}),
    ],
    ids=["more rows than threads take", "more than 16 classes", "no hidden layer", "three hidden layers"],
)
def test_shapes(sizes: tuple[int, ...], network: dict[str, Any], how: dict[str, Any]) -> None:
    X, y, weight = (*blobs(91, classes=sizes[-1]), np.random.default_rng(2).uniform(0.5, 2, 91))
    options: dict[str, Any] = {"batch_size": 8, "epochs": 2, "learning_rate": 0.01}
    ours = same_run(sizes, (X, y, weight), network, **options | how)
    assert ours.plan_reason.startswith("block: whole epochs in one launch")


def test_what_a_block_trains_and_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = choose_plan([one_of()]).reason
    most = 163 if s.ON_DEVICE else 48
    fits = "because a network, its optimizer's state and a batch fit its shared memory"
    assert reason.startswith(f"block: whole epochs in one launch, one block a network, {fits} (")
    assert s.ON_DEVICE or reason.endswith(f" of {most} KiB)")
    others: list[tuple[dict[str, Any], str]] = [
        ({"clip_norm": 1.0}, "a norm is clipped, which takes launches of its own"),
        ({"max_norm": 1.0}, "a norm is clipped, which takes launches of its own"),
        ({"accumulation_steps": 2}, "the gradients of several batches add up to one update"),
        (
            {"sizes": (5, 4, 4, 3), "network": {"hidden_activation": ["tanh", "relu"]}},
            "its hidden layers have different activations",
        ),
        ({"sizes": (5, 5000, 3)}, "it needs .* KiB of shared memory, and a block may have"),
    ]
    for how, fault in others:
        with pytest.raises(PlanError, match=f"plan 'block': {fault}"):
            choose_plan([one_of(**how)], want="block")
    monkeypatch.setattr("gpuprop_kernels.block_layout.PRODUCTS_OF_A_LAUNCH", 200)
    # 912 multiply-adds, against three launches: they are faster, but a block can do it.
    assert choose_plan([one_of()]).name in ("fused", "graph")
    assert choose_plan([one_of()], want="block").name == "block"


@pytest.mark.parametrize("keeps_z", [False, True])
def test_nothing_overlaps_in_shared_memory(keeps_z: bool) -> None:
    sizes, rows, arrays = (5, 17, 8, 3), 7, 2
    layout = block_layout(sizes, rows, state_arrays=arrays, keeps_z=keeps_z)
    table = layout.table.reshape(-1, LAYER_SIZE)
    assert table[:, :2].tolist() == [[5, 17], [17, 8], [8, 3]]
    n = layout.n_parameters
    areas = [("reductions", 0, layout.threads), ("states", layout.threads + n, 2 * n)]
    for n_in, n_out, inputs_at, outputs_at, source_at, delta_at, weights_at, biases_at in table.tolist():
        areas += [("W", weights_at, n_in * padded(n_out)), ("b", biases_at, padded(n_out))]
        areas += [(f"rows at {at}", at, rows * padded(n)) for at, n in ((inputs_at, n_in), (delta_at, n_out))]
        if source_at != outputs_at and n_out != 3:
            areas.append(("z", source_at, rows * padded(n_out)))
        assert (source_at != outputs_at) == (keeps_z and n_out != 3)
    taken = np.zeros(layout.size, int)
    for _, at, size in areas:
        assert at % 4 == 0
        taken[at : at + size] += 1
    assert (taken == 1).all()
    assert multiply_adds((8, 16, 4), 10) == 10 * (2 * 8 * 16 + 3 * 16 * 4)


def test_each_form_gives_the_numbers_of_the_other() -> None:
    X, y = blobs(17)
    ours, theirs = (trainer(0, epochs=1, plan=plan).fit(X, y) for plan in ("block", "fused"))
    np.testing.assert_allclose(ours.history["train_loss"], theirs.history["train_loss"], rtol=1e-6)
    np.testing.assert_allclose(ours.network.host_parameters(), theirs.network.host_parameters(), rtol=1e-5, atol=1e-7)
