"""A profile takes an epoch apart, and leaves network and trainer alone. No test asserts a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.training import profiling
from tests.cli_tools import Cli, save_plants, write_plants

X = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)


def trainer(device: str = "numpy", **options: Any) -> gpuprop.Trainer:
    net = gpuprop.Network((6, 8, 2), loss="categorical_cross_entropy", seed=0, device=device, l2=0.1, dropout=0.2)
    return gpuprop.Trainer(net, batch_size=16, **{"epochs": 3, **options})


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_the_parts_are_the_algorithms_and_add_up(device: str) -> None:
    made = trainer(device, validation=0.25, metrics=["f1_macro"], plan="steps")
    before = made.network.host_parameters()
    found = made.profile(X, Y)
    np.testing.assert_array_equal(made.network.host_parameters(), before)
    assert (made.history, made.epochs_done, made.plan_reason) == ({}, 0, None)
    assert sum(found.parts.values()) == pytest.approx(found.seconds)
    assert list(found.parts) == [
        "row order and rates", "begin the epoch", "take the rows of batches", "drop units", "forward: x W + b, and f",
        "loss, and the output's delta", "deltas of hidden layers", "gradients of weights and biases", "penalties",
        "optimizer", "between these, in Python", "sums, and parameters to the host", "validation", "the rest",
    ]  # fmt: skip
    assert all(value >= 0 for value in found.parts.values())
    (axes,) = gpuprop.plots.profile(found).axes
    assert [text.get_text() for text in axes.get_yticklabels()][::-1] == list(found.parts)
    text = str(found)
    assert "plan: steps" in text
    assert text.splitlines()[-1].startswith("advice: ")


def test_a_training_after_a_profile_has_its_bits() -> None:
    one, other = trainer(), trainer()
    other.profile(X, Y)
    np.testing.assert_array_equal(one.fit(X, Y).network.host_parameters(), other.fit(X, Y).network.host_parameters())


def test_the_command_profiles_arrays_and_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli = Cli(capsys)
    for data in (save_plants(tmp_path / "plants.npz"), write_plants(tmp_path / "table.csv")):
        options = ("--out", tmp_path / data.stem, "--epochs", 1, "--hidden", 4, "--device", "numpy", "--profile")
        result = cli.run("train", data, *options)
        assert "an epoch" in result.out
        assert "\nadvice: " in result.out
        assert "advice" not in cli.run("train", "--resume", tmp_path / data.stem, "--epochs", 2).out


class FakeClock:
    """A clock that stands still but for what is said to take time."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def slowed(self, seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.now += seconds
            return function(*arguments, **options)

        return call


class Slow(gpuprop.Callback):
    """Takes 1 second before an epoch, 2 after each update, 4 after an epoch."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.records: list[Any] = []
        self.told: list[str] = []

    def on_fit_begin(self, trainer: gpuprop.Trainer) -> None:
        self.told.append("begin")

    def on_epoch_begin(self, trainer: gpuprop.Trainer, epoch: int) -> None:
        self.clock.now += 1

    def on_step_end(self, trainer: gpuprop.Trainer, epoch: int, step: int) -> None:
        self.clock.now += 2
        self.told.append(f"{epoch}.{step}")

    def on_epoch_end(self, trainer: gpuprop.Trainer, epoch: int, record: Any) -> None:
        self.clock.now += 4
        self.records.append(record)

    def on_fit_end(self, trainer: gpuprop.Trainer) -> None:
        self.told.append("end")


def test_each_part_is_what_a_clock_counts_and_nothing_is_left_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(profiling, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    measured = clock.slowed(7, len)
    made = trainer(validation=(X[:10], Y[:10]), plan="steps", metrics={"slow": lambda y, predicted: measured(y)})
    ops = made.network.ops
    for seconds, name in ((1, "take_batch"), (10, "forward"), (100, "accumulate_gradient"), (1000, "update")):
        monkeypatch.setattr(ops, name, clock.slowed(seconds, getattr(ops, name)))
    slow = Slow(clock)
    made.callbacks.append(slow)
    assert "callbacks" not in made.profile(X, Y).parts
    assert slow.told == []
    found = made.profile(X, Y, callbacks=[slow])
    updates, layers = 4, 2
    expected = {
        "take the rows of batches": 2 * updates,  # of inputs, and of targets
        "forward: x W + b, and f": 10 * updates * layers,
        "gradients of weights and biases": 100 * updates * layers,
        "optimizer": 1000 * updates,
        "validation": 7,
        "callbacks": 1 + 2 * updates + 4,
    }
    assert {name: seconds for name, seconds in found.parts.items() if seconds} == expected
    assert sum(expected.values()) == found.seconds
    assert found.parts["the rest"] == 0
    steps = [f"{epoch}.{step}" for epoch in (1, 2) for step in range(1, 5)]
    assert slow.told == ["begin", *steps, "end"]
    assert slow.records[-1]["epoch"] == 2
    assert list(slow.records[-1]) == list(
        trainer(validation=0.25, metrics={"slow": lambda y, predicted: len(y)}).fit(X, Y).history
    )
    assert made.history == {}
