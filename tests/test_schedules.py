"""Learning-rate schedules against their formulas, scikit-learn and PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.neural_network import MLPClassifier

from gpuprop.maths.schedules import (
    SCHEDULES,
    Adaptive,
    Constant,
    Cosine,
    CosLog,
    Exponential,
    FlatCosine,
    InvScaling,
    OneCycle,
    Position,
    Schedule,
    Warmup,
    get_schedule,
)

Rates = npt.NDArray[np.float64]


def position(epoch: int, epochs: int = 6, steps_per_epoch: int = 7, train_losses: Sequence[float] = ()) -> Position:
    return Position(
        epoch=epoch,
        step=epoch * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        epochs=epochs,
        batch_size=8,
        n_samples=8 * steps_per_epoch - 3,
        train_losses=train_losses,
    )


def all_rates(schedule: Schedule, lr: float, epochs: int, steps_per_epoch: int) -> Rates:
    """The rates of a whole training, with a loss that falls."""
    losses = [1.0 / (epoch + 1) for epoch in range(epochs)]
    return np.concatenate([schedule.rates(lr, position(e, epochs, steps_per_epoch, losses[:e])) for e in range(epochs)])


@pytest.mark.parametrize("name", SCHEDULES)
def test_one_float64_rate_per_update(name: str) -> None:
    schedule = get_schedule(name)
    for steps_per_epoch in (1, 7, 33):
        for epoch in (0, 3, 5, 9):  # 9 is beyond the six planned
            rates = schedule.rates(0.1, position(epoch, 6, steps_per_epoch, [0.5] * epoch))
            assert rates.shape == (steps_per_epoch,)
            assert rates.dtype == np.float64
            assert (rates >= 0).all()
            assert (rates <= 0.1).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_rate_depends_on_the_position_alone(name: str) -> None:
    schedule = get_schedule(name)
    losses = [1.0, 0.9, 0.95, 0.97, 0.96]
    once = [schedule.rates(0.1, position(e, train_losses=losses[:e])) for e in range(6)]
    again = [get_schedule(name).rates(0.1, position(e, train_losses=losses[:e])) for e in reversed(range(6))]
    np.testing.assert_array_equal(once, again[::-1])


def test_constant() -> None:
    np.testing.assert_array_equal(all_rates(Constant(), 0.3, 4, 3), [0.3] * 12)


def test_exponential() -> None:
    rates = all_rates(Exponential(0.5), 0.8, 4, 2)
    np.testing.assert_allclose(rates, [0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1], rtol=1e-15)


@pytest.mark.parametrize("min_fraction", [0.0, 0.25])
def test_cosine(min_fraction: float) -> None:
    rates = all_rates(Cosine(min_fraction), 0.4, 6, 4)
    low = 0.4 * min_fraction
    assert rates[0] == 0.4
    assert rates[12] == pytest.approx((0.4 + low) / 2)  # half-way
    assert rates[8] == pytest.approx(low + (0.4 - low) * 0.75)  # a third: cos(pi / 3) = 1 / 2
    assert (np.diff(rates) < 0).all()
    np.testing.assert_allclose(rates[1:] + rates[:0:-1], 0.4 + low)  # point-symmetric about half-way
    beyond = Cosine(min_fraction).rates(0.4, position(6, 6, 4))
    np.testing.assert_allclose(beyond, low, atol=1e-15)


def test_coslog_has_cycles_that_double_in_length() -> None:
    """Four cycles end at 1/15, 3/15, 7/15 and 15/15 of the training (Holzmueller et al., 2024)."""
    rates = all_rates(CosLog(), 0.3, 6, 250)  # 1500 updates
    np.testing.assert_allclose(rates[[0, 100, 300, 700]], 0, atol=1e-12)
    tops = [0, *(int(begin + np.argmax(rates[begin:end])) for begin, end in [(0, 100), (100, 300), (300, 700)])]
    np.testing.assert_allclose(rates[tops[1:]], 0.3, rtol=1e-3)
    assert tops[1:] == [round(100 * (2**n - 1)) for n in (0.5, 1.5, 2.5)]
    assert (np.diff(rates[tops[3] : 700]) < 0).all()
    assert (np.diff(rates[700 : round(100 * (2**3.5 - 1))]) > 0).all()
    np.testing.assert_allclose(all_rates(CosLog(cycles=1), 0.3, 1, 9)[0], 0)


def test_flat_cosine() -> None:
    rates = all_rates(FlatCosine(), 0.3, 4, 30)
    np.testing.assert_allclose(rates[:61], 0.3)
    np.testing.assert_allclose(rates[[80, 90, 100]], [0.225, 0.15, 0.075])  # a third: cos(pi / 3) = 1 / 2
    assert (np.diff(rates[60:]) < 0).all()


def one_cycle_rate(step: int, total: int, lr: float, rising: float, initial: float, final: float) -> float:
    """The definition, one update at a time."""
    top, last = rising * total - 1, total - 1
    if step <= top:
        angle, start, end = math.pi * step / top, lr / initial, lr
    else:
        angle, start, end = math.pi * (step - top) / (last - top), lr, lr / initial / final
    return end + (start - end) * math.cos(angle / 2) ** 2


@pytest.mark.parametrize("schedule", [OneCycle(), OneCycle(0.45, 10.0, 100.0)], ids=str)
def test_one_cycle(schedule: OneCycle) -> None:
    settings = schedule.rising_fraction, schedule.initial_divisor, schedule.final_divisor
    for epochs, steps_per_epoch in [(4, 1), (10, 1), (5, 8), (7, 33)]:
        total = epochs * steps_per_epoch
        expected = [one_cycle_rate(step, total, 0.2, *settings) for step in range(total)]
        np.testing.assert_allclose(all_rates(schedule, 0.2, epochs, steps_per_epoch), expected, rtol=1e-9)
    rates = all_rates(OneCycle(), 0.2, 10, 10)
    assert rates[29] == rates.max() == 0.2
    assert rates[[0, -1]] == pytest.approx([0.2 / 25, 0.2 / 25e4])


def test_one_cycle_keeps_its_last_rate_beyond_the_planned_end() -> None:
    np.testing.assert_allclose(OneCycle().rates(0.2, position(7, 6, 4)), [0.2 / 25e4] * 4)


def test_one_cycle_of_a_few_updates_begins_at_the_top() -> None:
    np.testing.assert_allclose(all_rates(OneCycle(), 0.2, 1, 1), [0.2])
    np.testing.assert_allclose(all_rates(OneCycle(), 0.2, 1, 2), [0.2, 0.2 / 25e4])
    np.testing.assert_allclose(all_rates(OneCycle(0.5), 0.2, 1, 2), [0.2, 0.2 / 25e4])


def test_warmup() -> None:
    rates = all_rates(Warmup(2), 0.8, 4, 4)
    np.testing.assert_allclose(rates, [*(0.1 * i for i in range(1, 9)), *[0.8] * 8], rtol=1e-15)


@pytest.mark.parametrize("then", [Exponential(0.5), Cosine(0.1), InvScaling(), OneCycle()], ids=str)
def test_after_the_warmup_the_other_schedule_begins_anew(then: Schedule) -> None:
    rates = all_rates(Warmup(2, then), 0.8, 7, 5)
    np.testing.assert_array_equal(rates[10:], all_rates(then, 0.8, 5, 5))


def test_after_the_warmup_only_later_losses_count() -> None:
    schedule = Warmup(2, Adaptive(patience=2))
    losses = [0.1, 0.1, 0.5, 0.5]  # those of the warm-up were lower
    assert schedule.rates(1.0, position(4, train_losses=losses))[0] == 1.0
    assert schedule.rates(1.0, position(5, train_losses=[*losses, 0.5]))[0] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("losses", "divisions"),
    [
        ([], 0),
        ([1.0], 0),
        ([1.0, 1.0], 0),
        ([1.0, 1.0, 1.0], 1),
        ([1.0, 1.0, 0.5, 0.5], 0),
        ([1.0, 1.0, 1.0, 1.0], 1),  # the count starts anew
        ([1.0, 1.0, 1.0, 1.0, 1.0], 2),
        ([1.0, 0.95, 0.93], 1),  # lower, but not by tol
        ([1.0, 0.95, 0.85], 0),  # by tol below the lowest, 0.95
        ([1.0, 1.5, 1.3], 1),  # lower than the last, not than the lowest
        ([1.0, math.nan, math.nan], 1),
    ],
)
def test_adaptive(losses: list[float], divisions: int) -> None:
    rates = Adaptive(tol=0.1).rates(0.5, position(len(losses), 20, train_losses=losses))
    np.testing.assert_allclose(rates, 0.5 / 5**divisions)


def test_adaptive_stops_dividing_at_the_smallest_rate() -> None:
    rates = Adaptive(patience=1, factor=10.0, smallest_rate=1e-3).rates(1.0, position(9, 20, train_losses=[1.0] * 9))
    np.testing.assert_allclose(rates, 1e-3)


# --- other people's code ---------------------------------------------------------------------------------------


def scikit_learn_rates(**settings: Any) -> tuple[list[float], list[float]]:
    """Losses and rates, the latter also before the first epoch, of a real scikit-learn training."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((53, 4)), rng.integers(0, 2, 53)
    network = MLPClassifier((3,), solver="sgd", batch_size=8, random_state=0, **settings)
    rates = [network.learning_rate_init]
    for _ in range(25):
        network.partial_fit(X, y, classes=[0, 1])
        rates.append(network._optimizer.learning_rate)
    return list(network.loss_curve_), rates


def test_invscaling_agrees_with_scikit_learn() -> None:
    losses, expected = scikit_learn_rates(learning_rate="invscaling", learning_rate_init=0.5, power_t=0.3)
    for epoch in range(len(losses)):
        where = Position(epoch, epoch * 7, 7, 25, batch_size=8, n_samples=53, train_losses=losses[:epoch])
        np.testing.assert_allclose(InvScaling(0.3).rates(0.5, where), expected[epoch], rtol=1e-14)


@pytest.mark.parametrize("n_iter_no_change", [1, 3])
def test_adaptive_agrees_with_scikit_learn(n_iter_no_change: int) -> None:
    tol = 0.01
    losses, expected = scikit_learn_rates(
        learning_rate="adaptive", learning_rate_init=2.0, tol=tol, n_iter_no_change=n_iter_no_change
    )
    schedule = Adaptive(tol=tol, patience=n_iter_no_change + 1)
    ours = [schedule.rates(2.0, position(e, 25, train_losses=losses[:e]))[0] for e in range(len(losses) + 1)]
    assert len(set(expected)) > 3
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    ("schedule", "theirs", "settings"),
    [
        (Cosine(0.25), "CosineAnnealingLR", {"T_max": 40, "eta_min": 0.05}),
        (OneCycle(), "OneCycleLR", {"max_lr": 0.2, "total_steps": 40, "cycle_momentum": False}),
        (
            OneCycle(0.45, 10.0, 100.0),
            "OneCycleLR",
            {
                "max_lr": 0.2,
                "total_steps": 40,
                "cycle_momentum": False,
                "pct_start": 0.45,
                "div_factor": 10.0,
                "final_div_factor": 100.0,
            },
        ),
    ],
    ids=str,
)
def test_agrees_with_pytorch(schedule: Schedule, theirs: str, settings: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; it is no dependency of the tests")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    scheduler = getattr(torch.optim.lr_scheduler, theirs)(optimizer, **settings)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < 40:
            scheduler.step()
    np.testing.assert_allclose(all_rates(schedule, 0.2, 5, 8), expected, rtol=1e-9)


# --- names and settings ----------------------------------------------------------------------------------------


def test_get_schedule() -> None:
    mine = Cosine(0.5)
    assert get_schedule(mine) is mine
    assert get_schedule(None) == get_schedule("constant") == Constant()
    assert get_schedule("one-cycle") == get_schedule("one_cycle") == OneCycle()
    assert get_schedule("warm-up") == get_schedule("warmup") == Warmup()
    assert all(kind.name == name for name, kind in SCHEDULES.items())
    with pytest.raises(ValueError, match=r"unknown schedule 'cosin'; did you mean 'cosine'\? \(known: adaptive"):
        get_schedule("cosin")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (InvScaling, {"power_t": -0.5}),
        (Adaptive, {"tol": -1e-4}),
        (Adaptive, {"patience": 0}),
        (Adaptive, {"patience": 1.5}),
        (Adaptive, {"factor": 1.0}),
        (Adaptive, {"smallest_rate": math.inf}),
        (Exponential, {"gamma": 0.0}),
        (Exponential, {"gamma": 1.01}),
        (Cosine, {"min_fraction": 1.5}),
        (OneCycle, {"rising_fraction": 1.0}),
        (OneCycle, {"initial_divisor": 0.5}),
        (OneCycle, {"final_divisor": math.nan}),
        (Warmup, {"warmup_epochs": 0}),
        (Warmup, {"warmup_epochs": True}),
        (Warmup, {"then": "cosine"}),
    ],
)
def test_wrong_settings_are_refused(kind: type[Schedule], settings: dict[str, Any]) -> None:
    ((name, _),) = settings.items()
    with pytest.raises(ValueError, match=rf"{kind.__name__} got {name}=.*, expected a.*; ") as info:
        kind(**settings)
    assert "\n" not in str(info.value)
