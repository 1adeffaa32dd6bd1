"""``gpuprop train --networks``: the same training from other seeds, and how far the scores lie apart."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

import gpuprop
from gpuprop.training.from_recipe import network_for, trainer_for
from gpuprop.training.parts import Source, train_and_test_parts
from gpuprop.training.recipes import recipe_for
from tests.cli_tools import Cli


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUPROP_DEVICE", "numpy")
    return Cli(capsys)


def scores_in(folder: str) -> list[float]:
    with (Path(folder) / "seeds.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["network", *map(str, range(len(rows) - 1))]
    return [float(row[1]) for row in rows[1:]]


def test_each_network_is_that_of_its_own_training(cli: Cli) -> None:
    said = cli.run("train", "digits", "--epochs", 2, "--seed", 5, "--networks", 3).out
    scores = scores_in("gpuprop-digits")
    dataset = Source("digits").load("auto")
    train_part, (X, y) = train_and_test_parts(dataset, None, None, 5)
    for seed, score in zip((5, 6, 7), scores, strict=True):
        recipe = recipe_for("digits", train_part[0], None).with_options({"epochs": 2})
        network = network_for(dataset, train_part, recipe, seed=seed, device="numpy")
        trainer_for(network, recipe, len(train_part[0])).fit(*train_part)
        assert np.mean(network.predict(X) == y) == score
    mean, deviation = statistics.mean(scores), statistics.stdev(scores)
    assert f"from 3 seeds: test accuracy {mean:.4f} ± {deviation:.4f}" in said
    assert gpuprop.load("gpuprop-digits/model.safetensors").seed == 5


def test_a_table(cli: Cli) -> None:
    X, y = load_breast_cancer(return_X_y=True)
    rows = [f"{a},{b},{'good' if label else 'bad'}" for (a, b), label in zip(X[:200, 1:3], y[:200], strict=True)]
    Path("table.csv").write_text("\n".join(["a,b,tumour", *rows]) + "\n", encoding="utf-8")
    cli.run("train", "table.csv", "--target", "tumour", "--epochs", 3, "--networks", 4)
    scores = scores_in("gpuprop-table")
    assert len(scores) == 4
    assert len(set(scores)) > 1


def test_without_the_option_there_is_no_file(cli: Cli) -> None:
    cli.run("train", "xor", "--epochs", 2)
    assert not Path("gpuprop-xor/seeds.csv").exists()


def test_what_it_refuses(cli: Cli, tmp_path: Path) -> None:
    cli.fail("train", "xor", "--networks", 0)
    assert "in shards" in cli.fail("train", "digits", "--networks", 2, "--shards", 2).err
    stored = tmp_path / "rows"
    stored.mkdir()
    rng = np.random.default_rng(0)
    for name in "abcd":
        np.savez(stored / f"{name}.npz", X=rng.standard_normal((40, 3)), y=rng.integers(0, 2, 40))
    assert "stay on disk" in cli.fail("train", stored, "--networks", 2).err
