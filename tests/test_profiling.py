"""A profile takes an epoch apart, and leaves network and trainer alone. No test asserts a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
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
