"""The rate finder: it leaves everything as it was, its curve is a training's, and its suggestions are the peers'."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.training.rate_finder import RateSearch, steepest_descent, valley
from tests.cli_tools import Cli, files_of_run, save_prices, write_plants

RNG = np.random.default_rng(4)
X = RNG.normal(size=(97, 6)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(int)


class Orders:
    """Row orders that remember something."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)

    def __call__(self, epoch: int, n_samples: int) -> Any:
        return self.rng.permutation(n_samples).astype(np.int32)

    def state(self) -> Any:
        return {"rng": repr(self.rng.bit_generator.state)}

    def restore(self, state: Any) -> None:
        self.rng.bit_generator.state = eval(state["rng"])


def trainer(dtype: str = "float32", **options: Any) -> gpuprop.Trainer:
    network = gpuprop.Network(
        (6, 9, 2), loss="categorical_cross_entropy", seed=2, device="numpy", dtype=dtype, dropout=0.1, l2=0.01
    )
    return gpuprop.Trainer(network, **{"batch_size": 10, **options})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_network_and_trainer_stay_as_they_were(dtype: str) -> None:
    options: dict[str, Any] = {"row_orders": Orders(), "epochs": 3, "validation": 0.2, "weight_decay": 0.1}
    before, searched = trainer(dtype, **copy.deepcopy(options)), trainer(dtype, **copy.deepcopy(options))
    found = gpuprop.find_learning_rate(searched, X, Y, n_updates=60)
    assert (searched.history, searched.epochs_done, searched.steps_done) == ({}, 0, 0)
    np.testing.assert_array_equal(before.network.host_parameters(), searched.network.host_parameters())
    before.fit(X, Y)
    searched.fit(X, Y)
    np.testing.assert_array_equal(before.network.host_parameters(), searched.network.host_parameters())
    assert repr(found).startswith("RateSearch(valley=")


def test_the_curve_is_that_of_a_training_at_growing_rates() -> None:
    found = gpuprop.find_learning_rate(trainer(optimizer="sgd"), X, Y, start=1e-3, end=1.0, n_updates=25)
    network = gpuprop.Network((6, 9, 2), loss="categorical_cross_entropy", seed=2, device="numpy", dropout=0.1, l2=0.01)
    made = gpuprop.Trainer(network, batch_size=10)
    losses = []
    for update, rate in enumerate(np.geomspace(1e-3, 1.0, 25)):
        order = made.row_orders(update // 10, 97)[update % 10 * 10 : update % 10 * 10 + 10]
        loss, weights, biases = network.loss_and_gradients(X[order], Y[order], dropout_step=update)
        losses.append(loss)
        for parameters, gradients in ((network.weights, weights), (network.biases, biases)):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= rate * gradient
    np.testing.assert_allclose(found.losses, losses, rtol=2e-5)
    expected = [
        sum(0.02 * 0.98 ** (n - i) * losses[i] for i in range(n + 1)) / (1 - 0.98 ** (n + 1)) for n in range(25)
    ]
    np.testing.assert_allclose(found.smoothed, expected, rtol=2e-5)


def test_a_search_ends_where_the_training_diverges() -> None:
    network = gpuprop.Network((6, 9, 1), seed=2, device="numpy")
    diverging = gpuprop.Trainer(network, optimizer="sgd", batch_size=10)
    found = gpuprop.find_learning_rate(diverging, X, 50.0 * X[:, 0], end=1e6)
    assert len(found.rates) < 100
    assert np.isfinite(found.smoothed).all()
    assert found.valley < found.rates[-1]


def fastais_valley(rates: list[float], losses: list[float]) -> float:
    """fastai's rule, written as its documentation tells it: the longest valley, and the middle of its steep part."""
    n, best_end, best_start = len(losses), 0, 0
    lengths = [1] * n
    for i in range(1, n):
        for j in range(i):
            if losses[i] < losses[j] and lengths[i] < lengths[j] + 1:
                lengths[i] = lengths[j] + 1
            if lengths[best_end] < lengths[i]:
                best_end = i
                best_start = best_end - lengths[best_end]
    section = (best_end - best_start) / 3
    return rates[best_start + int(section) + int(section / 2)]


def test_suggestions_are_those_of_fastai_and_lightning() -> None:
    rates = np.geomspace(1e-7, 10, 100)
    for seed in range(5):
        losses = 2 - np.tanh(np.log10(rates) + 3) + 0.05 * np.random.default_rng(seed).normal(size=100)
        losses[85:] += np.linspace(0, 4, 15)
        assert valley(rates, losses) == fastais_valley(rates[10:-5].tolist(), losses[10:-5].tolist())
        slopes = [(losses[i + 1] - losses[i - 1]) / 2 for i in range(11, 98)]
        inner = rates[11 + int(np.argmin(slopes))]
        assert steepest_descent(rates, losses) in (inner, rates[10], rates[98])
    assert steepest_descent(rates[:2], losses[:2]) == rates[0]
    assert valley(rates[:3], losses[:3]) in rates[:3]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"start": 0.0}, "start"), ({"start": 1.0, "end": 0.5}, "end"), ({"n_updates": 3}, "n_updates")],
)
def test_wrong_ranges_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpuprop.find_learning_rate(trainer(), X, Y, **options)


def test_the_picture_marks_both_suggestions() -> None:
    rates = np.geomspace(1e-7, 10, 100)
    found = RateSearch(rates, np.linspace(2, 1, 100), np.linspace(2, 1, 100))
    (axes,) = gpuprop.plots.learning_rates(found, title="digits").axes
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text().split(":")[0] for text in legend.get_texts()] == [
        "batch", "smoothed", "valley", "steepest",
    ]  # fmt: skip


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def test_train_finds_its_rate(cli: Cli, tmp_path: Path) -> None:
    options = ("--lr", "find", "--device", "numpy", "--epochs", 2)
    for data in (save_prices(tmp_path / "prices.npz"), write_plants(tmp_path / "plants.csv")):
        out = tmp_path / data.stem
        result = cli.run("train", data, "--out", out, *options)
        (said,) = (line for line in result.out.splitlines() if line.startswith("rate finder: valley"))
        rate = said.split()[-3]
        assert f", rate {rate} (" in result.out
        assert "learning-rates.png" in files_of_run(out)
        resumed = cli.run("train", "--resume", out, "--epochs", 3)
        assert f", rate {rate} (" in resumed.out
        assert "rate finder" not in resumed.out
    assert "expected a number such as 0.01, or find" in cli.fail("train", "xor", "--lr", "fast").err


def test_a_rate_that_is_far_too_large_is_noticed(cli: Cli, tmp_path: Path) -> None:
    options = ("--epochs", 4, "--device", "numpy", "--overwrite", "--out", tmp_path / "out")
    result = cli("train", "xor", "--lr", "1e9", *options)
    assert result.status == 0
    assert "the learning rate 1e+09 is too large; --lr find looks for one" in result.err
    diverged = cli("train", save_prices(tmp_path / "prices.npz"), "--lr", "1e9", *options)
    assert diverged.status == 1
    assert "lower the learning rate" in diverged.err
    assert cli("train", "xor", *options).err == ""
