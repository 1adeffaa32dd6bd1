"""Plans: every path by its name, what it says of itself, and a training that goes on from the middle of an epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends.choosing import PATHS
from gpuprop.backends.devices import plan as choose_plan
from gpuprop.backends.installed import loops_fault
from gpuprop.core.plan import Plan
from gpuprop.core.rule import UpdateRule
from gpuprop.core.updates import EpochUpdates, Training
from gpuprop.maths.optimizers import get_optimizer

needs_loops = pytest.mark.skipif(loops_fault() is not None, reason="without Numba every training is made by steps")

ONE = [("numpy", "steps"), *(pytest.param("cpu", want, marks=needs_loops) for want in ("steps", "fused", "dense"))]
N, SIZE = 37, 5


def training(device: str, seed: int = 0, optimizer: str = "adam", **options: Any) -> Training:
    """A training of 37 rows in batches of 5, the last one ragged."""
    rng = np.random.default_rng(7)
    X, y = rng.normal(size=(N, 6)), np.eye(3)[rng.integers(0, 3, N)]
    network = gpuprop.Network((6, 9, 3), loss="categorical_cross_entropy", dtype="float64", seed=seed, device=device,
                              l2=0.01)  # fmt: skip
    found = get_optimizer(optimizer)
    state = {slot: np.zeros(network.n_parameters) for slot in found.slots}
    data = network.prepare(X, y, rng.random(N) + 0.5)
    return Training(network.layers, data, UpdateRule(found, state), SIZE, SIZE, 16, **options)


def epoch_of(one: Training, epoch: int = 0) -> EpochUpdates:
    order = np.random.default_rng([epoch, 3]).permutation(N).astype(np.int32)
    n = one.updates_of_epoch
    weights = one.data.batch_weights(order, SIZE)
    return EpochUpdates(one, one.data, order, weights, np.ones(n), np.linspace(0.01, 0.02, n), epoch * n)


def whole(trainings: list[Training], plan: Plan, epochs: int = 2) -> list[Any]:
    """Make whole epochs; return parameters, the optimizer's memory and the totals of the last epoch."""
    for epoch in range(epochs):
        plan.begin_epoch(*(epoch_of(one, epoch) for one in trainings))
        plan.run(0, trainings[0].updates_of_epoch)
    totals = plan.totals()  # from now on the arrays of the networks are up to date
    return [*(_numbers(one) for one in trainings), totals]


def _numbers(one: Training) -> Any:
    return np.concatenate([one.layers.parameters.flat, *one.rule.state.values()])


# One optimizer for the fused loops: each takes ten seconds to compile.
@pytest.mark.parametrize(
    ("device", "want", "optimizer"),
    [
        ("numpy", "steps", "sgd"),
        ("numpy", "steps", "adam"),
        *(pytest.param("cpu", want, "adam", marks=needs_loops) for want in ("steps", "fused", "dense")),
    ],
)
def test_a_training_goes_on_from_any_update_with_the_same_bits(device: str, want: str, optimizer: str) -> None:
    undisturbed = training(device, optimizer=optimizer)
    expected = whole([undisturbed], choose_plan([undisturbed], want=want))
    n = undisturbed.updates_of_epoch
    for stop in (0, 1, 4, n):
        first = training(device, optimizer=optimizer)
        plan = choose_plan([first], want=want)
        whole([first], plan, epochs=1)
        plan.begin_epoch(epoch_of(first, 1))
        plan.run(0, stop)
        (state,) = plan.state()
        assert state.position == stop
        plan.run(stop, n)  # what goes on here does not change the state that was taken
        second = training(device, seed=1, optimizer=optimizer)
        later = choose_plan([second], want=want)
        later.begin_epoch(epoch_of(second, 1))
        later.restore(state)
        later.run(stop, n)
        np.testing.assert_array_equal(later.totals(), expected[1])
        np.testing.assert_array_equal(_numbers(second), expected[0])


@needs_loops
@pytest.mark.parametrize(("one", "other"), [("steps", "fused"), ("fused", "steps"), ("dense", "fused")])
def test_a_state_serves_a_plan_of_another_kind(one: str, other: str) -> None:
    undisturbed = training("cpu")
    expected = whole([undisturbed], choose_plan([undisturbed], want=one), epochs=1)
    first, second = training("cpu"), training("cpu", seed=1)
    plan, later = choose_plan([first], want=one), choose_plan([second], want=other)
    plan.begin_epoch(epoch_of(first))
    plan.run(0, 3)
    later.begin_epoch(epoch_of(second))
    later.restore(*plan.state())
    later.run(3, second.updates_of_epoch)
    np.testing.assert_allclose(later.totals(), expected[1], rtol=1e-9)
    np.testing.assert_allclose(_numbers(second), expected[0], rtol=1e-9, atol=1e-12)


@needs_loops
@pytest.mark.parametrize("shared", [True, False])
def test_joint_trainings_go_on_from_any_update_with_the_same_bits(shared: bool) -> None:
    def some() -> list[Training]:
        return [training("cpu", seed=seed) for seed in range(3)]

    def epochs_of(trainings: list[Training], epoch: int) -> list[EpochUpdates]:
        found = [epoch_of(one, epoch) for one in trainings]
        if not shared:  # each has an order of its own
            for i, one in enumerate(found):
                found[i] = EpochUpdates(
                    one.training, one.data, np.roll(one.order, i), one.data.batch_weights(np.roll(one.order, i), SIZE),
                    one.penalty_factors, one.rates, one.steps_done,
                )  # fmt: skip
        return found

    undisturbed, n = some(), 8
    plan = choose_plan(undisturbed, want="joint")
    plan.begin_epoch(*epochs_of(undisturbed, 0))
    plan.run(0, n)
    first, second = some(), [training("cpu", seed=seed) for seed in range(5, 8)]
    before = choose_plan(first, want="joint")
    before.begin_epoch(*epochs_of(first, 0))
    before.run(0, 3)
    later = choose_plan(second, want="joint")
    later.begin_epoch(*epochs_of(second, 0))
    later.restore(*before.state())
    later.run(3, n)
    np.testing.assert_array_equal(later.totals(), plan.totals())
    for one, expected in zip(second, undisturbed, strict=True):
        np.testing.assert_array_equal(_numbers(one), _numbers(expected))
    assert plan.name == "joint"
    assert plan.reason == "joint: 3 networks of one shape in the same compiled calls"


@pytest.mark.parametrize(("device", "want"), [*ONE, pytest.param("cpu", "joint", marks=needs_loops)])
def test_rewinding_brings_the_optimizer_back_to_the_beginning_of_the_epoch(device: str, want: str) -> None:
    trainings = [training(device, seed=seed) for seed in range(2 if want == "joint" else 1)]
    plan = choose_plan(trainings, want=want)
    whole(trainings, plan, epochs=1)
    before = [np.concatenate([*one.rule.state.values()]) for one in trainings]
    plan.begin_epoch(*(epoch_of(one, 1) for one in trainings))
    plan.run(0, 4)
    plan.totals()
    assert all(
        (np.concatenate([*one.rule.state.values()]) != old).any() for one, old in zip(trainings, before, strict=True)
    )
    plan.rewind()
    for one, old in zip(trainings, before, strict=True):
        np.testing.assert_array_equal(np.concatenate([*one.rule.state.values()]), old)


@pytest.mark.parametrize(("device", "want"), [*ONE, pytest.param("cpu", "joint", marks=needs_loops)])
def test_the_places_of_an_update_end_with_the_new_parameters(device: str, want: str) -> None:
    trainings = [training(device, seed=seed) for seed in range(2 if want == "joint" else 1)]
    plan = choose_plan(trainings, want=want)
    whole(trainings, plan, epochs=1)
    places = list(plan.places())
    assert all(np.isfinite(array).all() for _, array in places)
    names = [name for name, _ in places]
    ending = " of network 2" if want == "joint" else ""
    assert names[-4:] == [
        f"the updated {what} of layer {layer}{ending}" for what in ("weights", "biases") for layer in (1, 2)
    ]


def test_a_state_of_another_network_or_optimizer_is_refused() -> None:
    one, other = training("numpy"), training("numpy", optimizer="momentum")
    plan, later = choose_plan([one]), choose_plan([other])
    plan.begin_epoch(epoch_of(one))
    later.begin_epoch(epoch_of(other))
    with pytest.raises(
        ValueError, match=r"first_moment, second_moment, expected velocity for the optimizer 'momentum'"
    ):
        later.restore(*plan.state())
    (state,) = plan.state()
    for wrong in (state.parameters[:-1], state.parameters.astype(np.float32)):
        with pytest.raises(ValueError, match="go on with the network that it belongs to"):
            plan.restore(type(state)(wrong, state.optimizer, 0, state.totals))


# --- what is chosen, and what is said ---------------------------------------------------------------------------------


def fit(device: str = "cpu", **options: Any) -> gpuprop.Trainer:
    """Train what the trainings above are compiled for."""
    rng = np.random.default_rng(0)
    network = gpuprop.Network(
        (6, 9, 3), loss="categorical_cross_entropy", dtype="float64", device=device, seed=0, l2=0.01,
        hidden_activation=options.pop("activation", "relu"),
    )  # fmt: skip
    X, y = rng.normal(size=(N, 6)), rng.integers(0, 3, N)
    return gpuprop.Trainer(network, epochs=1, batch_size=SIZE, **options).fit(X, y, rng.random(N) + 0.5)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "numpy"}, "steps: one primitive after the other, in plain NumPy"),
        pytest.param({}, "steps: one primitive after the other, because the training is so short", marks=needs_loops),
        pytest.param({"plan": "fused"}, "fused: whole epochs in one compiled call, 1 thread", marks=needs_loops),
        pytest.param({"plan": "dense"}, "dense: whole epochs in one compiled call, 1 thread", marks=needs_loops),
        pytest.param({"plan": "steps"}, "steps: one primitive after the other, as asked for", marks=needs_loops),
        pytest.param({"accumulation_steps": 2}, "because the gradients of several batches add up", marks=needs_loops),
    ],
)
def test_a_trainer_says_how_updates_are_made(options: dict[str, Any], reason: str) -> None:
    trainer = fit(**options)
    assert trainer.plan_reason is not None
    assert reason in trainer.plan_reason


def test_before_a_fit_there_is_no_plan() -> None:
    assert gpuprop.Trainer(gpuprop.Network((2, 1), device="numpy")).plan_reason is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "numpy", "plan": "fused"}, "the device 'numpy' offers steps; use plan='auto'"),
        ({"device": "numpy", "plan": "graph"}, r"CUDA graphs.*the device 'numpy' offers steps"),
        pytest.param({"plan": "streamed"}, "the device 'cpu' offers steps, fused, dense, joint", marks=needs_loops),
        pytest.param({"plan": "joint"}, "plan 'joint': there is only one network", marks=needs_loops),
        pytest.param(
            {"plan": "fused", "accumulation_steps": 2},
            "plan 'fused': the gradients of several batches",
            marks=needs_loops,
        ),
        pytest.param(
            {"plan": "fused", "activation": gpuprop.Activation("cube", lambda z: z**3, lambda z: 3 * z**2, "z")},
            "plan 'fused': there are no compiled loops for cube with the loss categorical_cross_entropy",
            marks=needs_loops,
        ),
    ],
)
def test_a_path_that_cannot_serve_says_why(options: dict[str, Any], message: str) -> None:
    with pytest.raises(gpuprop.PlanError, match=message):
        fit(**options)


def test_an_unknown_path_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown plan 'fussed'; did you mean 'fused'\?") as caught:
        fit(plan="fussed")
    assert all(name in str(caught.value) for name in ("auto", *PATHS))
    with pytest.raises(TypeError, match="plan: got 3"):
        fit(plan=3)


@needs_loops
def test_trainings_that_cannot_be_joined_take_turns() -> None:
    watched = [training("cpu", seed=seed, watched=True) for seed in range(2)]
    with pytest.raises(gpuprop.PlanError, match="plan 'joint': a callback wants to be told of each update"):
        choose_plan(watched)
    with pytest.raises(gpuprop.PlanError, match="plan 'fused' makes the updates of one network, got 2"):
        choose_plan([training("cpu", seed=seed) for seed in range(2)], want="fused")
    with pytest.raises(gpuprop.PlanError, match="plain NumPy trains one network after the other"):
        choose_plan([training("numpy", seed=seed) for seed in range(2)])
