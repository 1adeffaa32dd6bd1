"""Several networks in the launches of one: each gets the bits of its lone fit, in any company and order of blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends.cuda import together
from gpuprop.backends.cuda.kernel_plan import CudaPlan
from gpuprop.backends.cuda.together import TogetherPlan
from gpuprop.backends.devices import plan as choose_plan
from gpuprop.core.parameters import Parameters
from gpuprop.core.rule import UpdateRule
from gpuprop.core.updates import EpochUpdates, Training
from gpuprop.errors import NonFiniteLossError, PlanError
from gpuprop.maths import optimizers
from gpuprop.training.side_by_side import train_together
from tests.kernels import support as s

DEVICE = "cuda" if s.ON_DEVICE else "cuda-sim"
PIXELS = gpuprop.InputScaling.divide(255)
long_in_the_simulator = pytest.mark.skipif(
    not s.ON_DEVICE,
    reason="it takes the simulator up to a minute; the updates of two networks run there, this on a GPU",
)


@pytest.fixture(autouse=True)
def _no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)


def blobs(n: int, classes: int = 3, features: int = 5) -> tuple[Any, Any]:
    """Return bytes around one centre a class, and classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, n)
    centres = rng.integers(60, 190, (classes, features))
    return np.clip(centres[y] + 25 * rng.standard_normal((n, features)), 0, 255).astype(np.uint8), y


def trainer(seed: int, sizes: tuple[int, ...] = (5, 6, 3), network: dict[str, Any] | None = None, **how: Any) -> Any:
    options: dict[str, Any] = {"loss": "categorical_cross_entropy", "input_scaling": PIXELS} | (network or {})
    net = gpuprop.Network(sizes, device=DEVICE, seed=seed, **options)
    return gpuprop.Trainer(net, **({"batch_size": 8, "epochs": 2} | how))


Fits = list[tuple[Any, tuple[Any, ...]]]


def bits(one: Any) -> tuple[bytes, Any]:
    """Return the parameters of a trained network, and its history but for the time."""
    return one.network.host_parameters().tobytes(), {k: v for k, v in one.history.items() if k != "seconds"}


def same_as_alone(make: Callable[[], Fits], expected_reason: str = "joint: ") -> Fits:
    """Fit all of them alone and together, require equal bits, and return the ones that trained together."""
    alone, side_by_side = make(), make()
    for one, data in alone:
        one.fit(*data)
    outcomes = train_together([one.training(*data) for one, data in side_by_side])
    assert outcomes == [None] * len(outcomes)
    for (one, _), (other, _) in zip(alone, side_by_side, strict=True):
        assert bits(other) == bits(one)
        assert str(other.plan_reason).startswith(expected_reason)
    return side_by_side


def training(place: int, rule: dict[str, Any], sizes: tuple[int, ...], n_rows: int) -> Training:
    """Return a training of its own seed, rows, penalties and weights; updates of 3 rows."""
    rng = np.random.default_rng(place)
    X, y = rng.integers(0, 256, (n_rows, sizes[0])).astype(np.uint8), np.eye(sizes[-1])[np.arange(n_rows) % sizes[-1]]
    network = gpuprop.Network(
        sizes, loss="categorical_cross_entropy", seed=place, device=DEVICE, l1=0.01 * place, l2=0.1 + place,
        dropout=(0.2, 0.3 + 0.2 * place)[: len(sizes) - 1], input_scaling=PIXELS,
    )  # fmt: skip
    adam, ops = optimizers.Adam(), network.ops
    size = Parameters.count(network.layer_sizes, ops.row_padding)
    state = {slot: ops.asarray(np.zeros(size), network.dtype) for slot in adam.slots}
    data = network.prepare(X, y, rng.random(n_rows) + 0.5)
    return Training(network.layers, data, UpdateRule(adam, state, **rule), 3, 3, 10)


def epoch_of(one: Training, place: int) -> EpochUpdates:
    order = np.random.default_rng(place).permutation(one.rows_of_epoch).astype(np.int32)
    n = one.updates_of_epoch
    rates = np.linspace(0.01, 0.02, n) * (1 + place)
    return EpochUpdates(one, one.data, order, one.data.batch_weights(order, 3), np.ones(n), rates, 7 * place)


def states(plan: Any) -> list[list[bytes]]:
    return [
        [array.tobytes() for array in (one.parameters, *one.optimizer.values(), one.totals)] for one in plan.state()
    ]


@pytest.mark.parametrize(
    ("sizes", "rule"),
    [((5, 4, 3), {}), ((5, 4, 3), {"clip_norm": 0.1, "max_norm": 0.5}), ((5, 18), {})],
    ids=["fused", "clipped", "wide"],
)
def test_the_updates_of_two_networks(sizes: tuple[int, ...], rule: dict[str, Any], shuffled_blocks: None) -> None:
    """The second one has fewer rows, so that it must stay as it is in the last update, which has 1 row."""
    rows = (7, 6)
    expected = []
    for place, n_rows in enumerate(rows):
        lone = choose_plan([training(place, rule, sizes, n_rows)])
        assert isinstance(lone, CudaPlan)
        lone.begin_epoch(epoch_of(lone._trainings[0], place))
        lone.run(0, lone.n_updates)
        expected += states(lone)
    both = [training(place, rule, sizes, n_rows) for place, n_rows in enumerate(rows)]
    plan = choose_plan(both, want="joint")
    assert isinstance(plan, TogetherPlan)
    plan.begin_epoch(*(epoch_of(one, place) for place, one in enumerate(both)))
    plan.run(0, 1)
    middle = plan.state()
    plan.run(1, 3)
    assert states(plan) == expected
    plan.restore(*middle)  # and on from the middle of an epoch
    plan.run(1, 3)
    assert states(plan) == expected


def varied() -> Fits:
    """Return networks of their own seeds, rates, schedules, penalties, dropout, rows and weights."""
    X, y = blobs(37)
    fits: Fits = []
    for seed, (rate, l2, share, n) in enumerate([(0.1, 0.1, 0.3, 37), (0.02, 0.3, 0.2, 29), (0.05, 1.0, 0.5, 17)]):
        rng = np.random.default_rng(seed)
        rows = rng.permutation(37)[:n]
        network: dict[str, Any] = {"l1": 0.01 * seed, "l2": l2, "dropout": (share, 0.4), "hidden_activation": "gelu"}
        one = trainer(seed, network=network, learning_rate=rate, schedule="cosine", epochs=2 + (seed == 1))
        fits.append((one, (X[rows], y[rows], rng.uniform(0.5, 2, n))))
    return fits


def test_seeds_rates_folds_penalties_weights_and_dropout(shuffled_blocks: None) -> None:
    same_as_alone(varied, "joint: 3 networks of one shape in the same launches; fused kernels")


@long_in_the_simulator
def test_what_does_not_fit_runs_in_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_most_in_a_wave", lambda *_: 2)
    reason = "joint: 3 networks of one shape in the same launches, in waves of at most 2 because the device has no room"
    same_as_alone(varied, reason)


def test_the_plan_says_what_goes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(16)
    options: list[dict[str, Any]] = [{}, {}, {"l2": 0.1}, {"l2": 0.2}, {"dropout": (0.0, 0.5)}]
    trainers = [trainer(i, network=network) for i, network in enumerate(options)]
    plan = choose_plan([next(one.training(X, y)).training for one in trainers])
    assert plan.name == "joint"
    assert plan.reason.startswith(
        "joint: 4 networks of one shape in the same launches, in 2 groups of one kind of update each; fused kernels, "
    )
    assert plan.reason.endswith("; 1 trains alone because no other network here has its kind of update")
    with pytest.raises(PlanError, match="plan 'joint': there is only one network"):
        choose_plan([next(trainer(0).training(X, y)).training], want="joint")
    with pytest.raises(PlanError, match="plan 'graph' makes the updates of one network, got 2"):
        choose_plan([next(trainer(i).training(X, y)).training for i in range(2)], want="graph")
    two = [next(trainer(i).training(X, y)).training for i in range(2)]
    monkeypatch.setattr(type(two[0].layers.ops.runtime), "free_memory", lambda _: 1000.0)
    with pytest.raises(PlanError, match=r"plan 'joint': 2 networks need .* MiB together, and may take 0 MiB"):
        choose_plan(two)


def test_a_network_that_has_ended_keeps_no_buffer_of_others() -> None:
    X, y = blobs(16)
    trainers = [trainer(i, epochs=1 + 2 * (i == 0)) for i in range(4)]
    assert train_together([one.training(X, y) for one in trainers]) == [None] * 4
    for one in trainers:
        assert one.network.parameters.base is None or one.network.parameters.base.size < 2 * one.network.parameters.size


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw", "nadam"])
def test_hyperparameters_of_one_optimizer(optimizer: str) -> None:
    X, y = blobs(19)
    makes: dict[str, Callable[[float], Any]] = {
        "sgd": lambda _: "sgd",
        "momentum": lambda x: optimizers.Momentum(momentum=x),
        "adamw": lambda x: optimizers.AdamW(beta_1=x, weight_decay=x / 10),
        "nadam": lambda x: optimizers.NAdam(beta_1=x),
    }
    same_as_alone(
        lambda: [(trainer(i, optimizer=makes[optimizer](x), epochs=1), (X, y)) for i, x in enumerate((0.5, 0.9))]
    )


@long_in_the_simulator
@pytest.mark.parametrize(
    ("sizes", "how"),
    [
        ((5, 9, 7, 3), {"clip_norm": 0.3, "max_norm": 0.9, "accumulation_steps": 2, "batch_size": 6}),
        ((5, 6, 18), {"clip_norm": 0.3}),
        ((5, 18), {}),
    ],
    ids=["clipped, in parts, max-norm", "more than 16 classes", "without a hidden layer"],
)
def test_every_launch(sizes: tuple[int, ...], how: dict[str, Any], shuffled_blocks: None) -> None:
    X, y = blobs(23, classes=sizes[-1])
    network = {"l2": 0.1, "dtype": "float64", "hidden_activation": "silu"}
    same_as_alone(lambda: [(trainer(i, sizes, network, **how), (X[: 23 - 4 * i], y[: 23 - 4 * i])) for i in range(3)])


@pytest.mark.parametrize("how", [{}, {"clip_norm": 0.2}], ids=["", "clipped"])
def test_a_split_batch(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(24)
    monkeypatch.setattr("gpuprop_kernels.launch.choose_parts", lambda *_: 2)
    options: dict[str, Any] = {"network": {"l2": 0.1}, "batch_size": 12, "epochs": 1} | how
    same_as_alone(lambda: [(trainer(i, **options), (X, y)) for i in range(2)])


@long_in_the_simulator
def test_early_stopping_keeps_the_best_of_each() -> None:
    X, y = blobs(40)

    def make() -> Fits:
        how: dict[str, Any] = {"validation": 0.2, "early_stopping": 1, "epochs": 5}
        return [(trainer(i, learning_rate=rate, **how), (X, y)) for i, rate in enumerate((2.0, 0.01, 1.0, 0.1, 0.3))]

    trained = same_as_alone(make)
    assert len({one.epochs_done for one, _ in trained}) > 1, "they must not all end in one epoch"


def test_one_diverges_and_the_others_go_on() -> None:
    X, y = blobs(24)

    def make() -> list[Any]:
        return [trainer(i, optimizer="sgd", learning_rate=rate) for i, rate in enumerate((0.1, 1e38, 0.2))]

    alone, side_by_side = make(), make()
    for one in (alone[0], alone[2]):
        one.fit(X, y)
    with pytest.raises(NonFiniteLossError) as lone:
        alone[1].fit(X, y)
    before = side_by_side[1].network.host_parameters()
    outcomes = train_together([one.training(X, y) for one in side_by_side])
    assert [outcomes[0], outcomes[2]] == [None, None]
    assert str(outcomes[1]) == str(lone.value)
    assert side_by_side[1].network.host_parameters().tobytes() == before.tobytes()
    for place in (0, 2):
        assert bits(side_by_side[place]) == bits(alone[place])
