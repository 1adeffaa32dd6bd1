"""Metrics by name: the figures are scikit-learn's, the best epoch and early stopping follow them, files keep them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss, make_scorer, mean_absolute_error, roc_auc_score

import gpuprop
from gpuprop.model import evaluation
from gpuprop.training.records import Patience
from tests.cli_tools import Cli, read_csv, save_plants, save_prices, write_plants, write_prices

Array = NDArray[Any]
RNG = np.random.default_rng(3)
X = RNG.normal(size=(83, 5))
Y3 = (X[:, 0] + 0.5 * RNG.normal(size=83) > 0).astype(int) + (X[:, 1] > 0.6)
Y2 = (X[:, 0] - X[:, 2] + RNG.normal(size=83) > 0).astype(int)
LABELS = np.stack([Y2, (X[:, 3] > 0).astype(int)], axis=1)
VALUES = 1000.0 + 30.0 * X[:, :2] + RNG.normal(size=(83, 2))


def trained(sizes: tuple[int, ...], y: Array, loss: str, dtype: str = "float32", **options: Any) -> gpuprop.Trainer:
    network = gpuprop.Network(sizes, loss=loss, seed=1, device="numpy", dtype=dtype)
    options = {"epochs": 6, "batch_size": 16, "learning_rate": 0.02, **options}
    return gpuprop.Trainer(network, validation=(X[60:], y[60:]), **options).fit(X[:60], y[:60])


def auc_of_last(y: Array, predicted: Array) -> float:
    return float((y == predicted)[-5:].mean())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_metrics_are_scikit_learns_on_the_validation_rows(dtype: str) -> None:
    names = ["f1_macro", "roc_auc_ovr", "neg_log_loss", "accuracy", auc_of_last]
    trainer = trained((5, 7, 3), Y3, "categorical_cross_entropy", dtype, metrics=names)
    outputs = trainer.network.forward(X[60:]).astype(np.float64)
    outputs /= outputs.sum(axis=1, keepdims=True)
    expected = {
        "f1_macro": f1_score(Y3[60:], outputs.argmax(axis=1), average="macro"),
        "roc_auc_ovr": roc_auc_score(Y3[60:], outputs, multi_class="ovr"),
        "neg_log_loss": -log_loss(Y3[60:], outputs),
        "auc_of_last": auc_of_last(Y3[60:], outputs.argmax(axis=1)),
    }
    assert list(trainer.metrics) == list(expected)  # accuracy has its column anyway
    for name, value in expected.items():
        column = trainer.history[f"validation_{name}"]
        assert len(column) == 6
        assert column[-1] == pytest.approx(value, rel=1e-6)
    plain = trained((5, 7, 3), Y3, "categorical_cross_entropy", dtype)
    for figure, values in plain.history.items():  # metrics change nothing about the training, nor its other figures
        assert figure == "seconds" or trainer.history[figure] == values


def test_metrics_of_two_classes_labels_and_values() -> None:
    trainer = trained((5, 4, 1), Y2, "binary_cross_entropy", metrics=["roc_auc", "f1", "average_precision"])
    shares = trainer.network.forward(X[60:])[:, 0]
    assert trainer.history["validation_roc_auc"][-1] == pytest.approx(roc_auc_score(Y2[60:], shares))
    assert trainer.history["validation_f1"][-1] == pytest.approx(f1_score(Y2[60:], shares > 0.5))
    trainer = trained((5, 4, 2), LABELS, "binary_cross_entropy", metrics=["f1_micro", "roc_auc"])
    shares = trainer.network.forward(X[60:])
    micro = f1_score(LABELS[60:], shares > 0.5, average="micro")
    assert trainer.history["validation_f1_micro"][-1] == pytest.approx(micro)
    assert trainer.history["validation_roc_auc"][-1] == pytest.approx(roc_auc_score(LABELS[60:], shares))
    trainer = trained((5, 4, 2), VALUES, "squared_error", metrics={"mae": mean_absolute_error})
    error = np.abs(trainer.network.forward(X[60:]) - VALUES[60:]).mean()
    assert trainer.history["validation_mae"][-1] == pytest.approx(error, rel=1e-5)


def test_sample_weights_of_the_validation_rows_count_where_a_metric_takes_them() -> None:
    weight = np.linspace(0.1, 2.0, 23)

    def largest(y: Array, predicted: Array) -> float:
        return float(np.abs(y - predicted).max())

    network = gpuprop.Network((5, 1), seed=0, device="numpy", dtype="float64")
    y = VALUES[:, :1]
    trainer = gpuprop.Trainer(
        network, epochs=1, validation=(X[60:], y[60:], weight), metrics=["neg_mean_absolute_error", largest]
    ).fit(X[:60], y[:60])
    errors = np.abs(network.forward(X[60:]) - y[60:])[:, 0]
    found = {name: trainer.history[f"validation_{name}"][0] for name in trainer.metrics}
    assert found["neg_mean_absolute_error"] == pytest.approx(-np.average(errors, weights=weight))
    assert found["largest"] == pytest.approx(errors.max())


# --- monitor ---------------------------------------------------------------------------------------------------


def first_best(column: list[float], *, falls: bool) -> int:
    return int((np.argmin if falls else np.argmax)(column)) + 1


@pytest.mark.parametrize(
    ("monitor", "falls"),
    [
        ("f1_macro", False),
        ("validation_roc_auc_ovr", False),
        ("loss", True),
        ("train_loss", True),
        ("neg_log_loss", False),
    ],
)
def test_the_best_epoch_by_what_is_monitored_is_restored(monitor: str, falls: bool) -> None:
    options: dict[str, Any] = {"epochs": 15, "learning_rate": 0.2, "optimizer": "sgd", "batch_size": 7}
    trainer = trained((5, 7, 3), Y3, "categorical_cross_entropy", monitor=monitor, **options)
    assert trainer.monitor is not None
    best = first_best(trainer.history[trainer.monitor], falls=falls)
    assert trainer.best_epoch == best
    assert trainer.epochs_done == 15
    until = trained((5, 7, 3), Y3, "categorical_cross_entropy", **{**options, "epochs": best})
    np.testing.assert_array_equal(trainer.network.host_parameters(), until.network.host_parameters())


def test_early_stopping_by_a_metric() -> None:
    options: dict[str, Any] = {"epochs": 60, "learning_rate": 0.1, "monitor": "f1_macro", "early_stopping": 4}
    trainer = trained((5, 7, 3), Y3, "categorical_cross_entropy", **options)
    column = trainer.history["validation_f1_macro"]
    best = first_best(column, falls=False)
    assert (trainer.best_epoch, trainer.epochs_done) == (best, best + 4)
    assert trainer.epochs_done < 60


def test_of_equal_epochs_keep_best_takes_the_last_and_monitor_the_first() -> None:
    def constant(y: Array, predicted: Array) -> float:
        return 0.5

    options: dict[str, Any] = {"metrics": constant, "epochs": 4}
    first = trained((5, 3), Y3, "categorical_cross_entropy", monitor="constant", **options)
    last = trained((5, 3), Y3, "categorical_cross_entropy", keep_best="validation_constant", **options)
    assert (first.best_epoch, last.best_epoch) == (1, 4)


def test_functions_that_end_in_error_are_minimised() -> None:
    options: dict[str, Any] = {"metrics": mean_absolute_error, "epochs": 5, "learning_rate": 3.0}
    trainer = trained((5, 2), VALUES, "squared_error", monitor="mean_absolute_error", **options)
    column = trainer.history["validation_mean_absolute_error"]
    assert trainer.best_epoch == first_best(column, falls=True)


def test_an_epoch_without_a_figure_is_never_the_best() -> None:
    patience = Patience(2, None, np.zeros(1), monitor="validation_f1")
    for epoch, figure in enumerate([None, 0.5, None, 0.4], start=1):
        patience.watch({"epoch": epoch, "validation_f1": figure}, 1.0, np.full(1, float(epoch)))
    assert (patience.best_epoch, patience.exhausted(4)) == (2, True)


def test_an_undefined_metric_is_none_and_is_warned_of_once() -> None:
    one_class = np.zeros(23, int)
    network = gpuprop.Network((5, 1), loss="binary_cross_entropy", seed=0, device="numpy")
    trainer = gpuprop.Trainer(network, epochs=3, validation=(X[60:], one_class), metrics="roc_auc")
    with pytest.warns(RuntimeWarning, match="validation_roc_auc is left empty") as heard:
        trainer.fit(X[:60], Y2[:60])
    assert len(heard) == 1
    assert trainer.history["validation_roc_auc"] == [None] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": "f1"}, r"'f1' does not fit a network for 3 classes: .*'f1_macro' or 'f1_micro' or"),
        ({"metrics": ["roc_auc"]}, r"'roc_auc_ovr'"),
        ({"metrics": ["f1_makro"]}, r"unknown metric 'f1_makro'; did you mean 'f1_macro'"),
        ({"metrics": ["f1_macro"], "validation": None}, r"f1_macro need validation data"),
        ({"monitor": "f1_makro"}, r"unknown monitor 'f1_makro'"),
        ({"monitor": "accuracy", "validation": None}, r"monitor='accuracy' needs validation data"),
        ({"metrics": [lambda y, predicted: 0.0]}, r"has no name; give it one"),
        ({"metrics": [lambda y: 0.0]}, r"has no name"),
        ({"metrics": {"mine": lambda y: 0.0}}, r"mine takes 1 arguments, expected a function of \(y, predicted\)"),
        ({"metrics": 3}, r"metrics: got 3, expected names"),
        ({"metrics": [3]}, r"metrics: got 3, expected a name"),
    ],
)  # fmt: skip
def test_wrong_metrics_are_explained_before_the_training(options: dict[str, Any], message: str) -> None:
    network = gpuprop.Network((5, 3), loss="categorical_cross_entropy", seed=0, device="numpy")
    with pytest.raises((TypeError, ValueError), match=message):
        gpuprop.Trainer(network, **{"validation": 0.2, **options})


def test_a_training_with_metrics_is_pickled_and_resumed_to_the_bit(tmp_path: Path) -> None:
    def trainer(epochs: int) -> gpuprop.Trainer:
        network = gpuprop.Network((5, 7, 3), loss="categorical_cross_entropy", seed=1, device="numpy")
        kept = gpuprop.Checkpoint(tmp_path / "kept", "1 epoch")
        options: dict[str, Any] = {"metrics": ["f1_macro"], "monitor": "f1_macro", "checkpoint": kept}
        return gpuprop.Trainer(network, epochs=epochs, learning_rate=0.1, validation=0.3, **options)

    trainer(4).fit(X, Y3)
    resumed = pickle.loads(pickle.dumps(trainer(9))).fit(X, Y3, resume_from="auto")
    whole = trainer(9).fit(X, Y3)
    assert resumed.history["validation_f1_macro"] == whole.history["validation_f1_macro"]
    assert resumed.best_epoch == whole.best_epoch
    np.testing.assert_array_equal(resumed.network.host_parameters(), whole.network.host_parameters())
    other = trainer(12)
    other.monitor = None
    with pytest.raises(gpuprop.ResumeError, match="monitor was 'validation_f1_macro' and is None"):
        other.fit(X, Y3, resume_from="auto")


# --- estimators ------------------------------------------------------------------------------------------------


def test_estimators_watch_a_metric(tmp_path: Path) -> None:
    names = np.array(["oak", "elm", "ash"])[Y3]
    model = gpuprop.MLPClassifier(
        (7,), early_stopping=True, metrics=["f1_macro"], monitor="f1_macro", max_iter=40, random_state=0,
        learning_rate_init=0.05, n_iter_no_change=5, device="numpy",
    ).fit(X, names)  # fmt: skip
    assert model.validation_scores_ == model.history_["validation_f1_macro"]
    assert model.best_validation_score_ == max(model.validation_scores_)
    model.save(tmp_path)
    loaded: Any = gpuprop.load(tmp_path)
    assert loaded.get_params()["metrics"] == ("f1_macro",)
    regressor = gpuprop.MLPRegressor(
        hidden_layer_sizes=(4,), metrics=mean_absolute_error, max_iter=99, random_state=0, tol=1e9, device="numpy"
    )
    regressor.fit(X[:60], VALUES[:60, 0], X_val=X[60:], y_val=VALUES[60:, 0])
    error = np.abs(regressor.predict(X[60:]) - VALUES[60:, 0]).mean()
    assert regressor.history_["validation_mean_absolute_error"][-1] == pytest.approx(error)
    regressor.save(tmp_path / "r.safetensors")  # a function stays behind, and prevents nothing
    loaded = gpuprop.load(tmp_path / "r.safetensors")
    assert loaded.metrics is None
    lowest = gpuprop.MLPClassifier((4,), early_stopping=True, monitor="loss", max_iter=12, random_state=0,
                                   learning_rate_init=0.3, device="numpy", tol=0.0)  # fmt: skip
    with pytest.warns(UserWarning, match="Maximum iterations|converged"):
        lowest.fit(X, names)
    assert lowest.best_validation_score_ == pytest.approx(-min(lowest.history_["validation_loss"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["f1_macro"]}, "metrics need validation rows: set early_stopping=True"),
        ({"monitor": "f1_macro"}, "set early_stopping=True"),
        ({"metrics": ["f1_macro"], "solver": "lbfgs", "early_stopping": True}, "'metrics' parameter has no meaning"),
    ],
)
def test_estimators_say_what_metrics_need(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpuprop.MLPClassifier((3,), device="numpy", **options).fit(X, Y3)


def test_estimators_for_tables_choose_the_epoch_by_a_metric(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 8, "hidden_layer_sizes": (6,), "random_state": 0, "device": "numpy"}
    classifier = gpuprop.TabularClassifier(metrics=["f1_macro"], monitor="f1_macro", **options).fit(X, Y3)
    column = classifier.history_["validation_f1_macro"]
    assert classifier.best_epochs_ == [8 - int(np.argmax(column[::-1]))]  # of equal ones the last
    regressor = gpuprop.TabularRegressor(metrics="neg_mean_absolute_error", validation_fraction=0.5, **options)
    regressor.fit(X, VALUES[:, 0])
    assert 10 < -regressor.history_["validation_neg_mean_absolute_error"][0] < 60  # in the units of the data
    classifier.save(tmp_path)
    loaded: Any = gpuprop.load(tmp_path)
    assert loaded.monitor == "f1_macro"


# --- the command line ------------------------------------------------------------------------------------------


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


def test_train_shows_and_keeps_metrics_of_arrays(cli: Cli, tmp_path: Path) -> None:
    data, out = save_plants(tmp_path / "plants.npz"), tmp_path / "run"
    options: tuple[object, ...] = ("--device", "numpy", "--epochs", 4, "--validation-fraction", 0.4)
    options += ("--metric", "f1_macro,roc_auc_ovr", "--monitor", "f1_macro")
    result = cli.run("train", data, "--out", out, *options)
    assert "f1_macro roc_auc_ovr" in result.out
    assert "the one of the highest validation f1_macro" in result.out
    assert "\ntest f1_macro: " in result.out
    assert result.last_line.startswith("test accuracy")
    assert [row["validation_f1_macro"] != "" for row in read_csv(out / "history.csv")] == [True] * 4
    assert "unknown metric" in cli.fail("train", data, "--metric", "f1_makro").err


def test_train_gives_errors_of_prices_in_their_units(cli: Cli, tmp_path: Path) -> None:
    options = ("--device", "numpy", "--epochs", 3, "--metric", "neg_mean_absolute_error")
    for name, data in (("arrays", save_prices(tmp_path / "p.npz")), ("table", write_prices(tmp_path / "p.csv"))):
        out = tmp_path / name
        result = cli.run("train", data, "--out", out, *options)
        figures = [float(row["validation_neg_mean_absolute_error"]) for row in read_csv(out / "history.csv")]
        assert all(-60_000 < figure < -100 for figure in figures)
        (line,) = (line for line in result.out.splitlines() if line.startswith("test neg_mean"))
        (said,) = (line for line in result.out.splitlines() if "mean absolute error" in line)
        assert float(line.split()[-1]) == pytest.approx(-float(said.split()[-1]), rel=1e-3)


def test_train_chooses_the_epoch_of_a_table_by_a_metric(cli: Cli, tmp_path: Path) -> None:
    data, out = write_plants(tmp_path / "plants.csv"), tmp_path / "run"
    options = ("--target", "label", "--device", "numpy", "--epochs", 4, "--monitor", "f1_macro", "--hidden", 5)
    result = cli.run("train", data, "--out", out, *options)
    assert "the last one of the highest validation f1_macro" in result.out
    resumed = cli.run("train", "--resume", out, "--epochs", 6)
    assert "6/6" in resumed.out


def test_evaluate_computes_metrics_of_networks_and_tables(cli: Cli, tmp_path: Path) -> None:
    data, out = save_plants(tmp_path / "plants.npz"), tmp_path / "net"
    options = ("--device", "numpy", "--epochs", 4, "--hidden", 5)
    cli.run("train", data, "--out", out, *options)
    result = cli.run("evaluate", out, data, "--metric", "f1_macro,roc_auc_ovr")
    figures = dict(line.split(": ") for line in result.out.splitlines() if line.startswith("test "))
    with np.load(data) as arrays:
        rows, y = arrays["X"], arrays["y"]
    network = gpuprop.load(out)
    assert isinstance(network, gpuprop.Network)
    assert network.classes is not None
    truth = np.searchsorted(network.classes, y)
    assert float(figures["test f1_macro"]) == pytest.approx(
        f1_score(truth, network.predict(rows), average="macro"), abs=6e-5
    )
    assert "test roc_auc_ovr" in figures
    refused = cli.fail("evaluate", out, data, "--metric", "f1")
    assert (refused.status, "'f1_macro'" in refused.err) == (2, True)
    table, of_table = write_plants(tmp_path / "plants.csv"), tmp_path / "table"
    cli.run("train", table, "--target", "label", "--out", of_table, *options)
    found = json.loads(cli.run("evaluate", of_table, table, "--metric", "f1_macro,accuracy", "--json").out)
    assert found["metrics"]["accuracy"] == pytest.approx(found["accuracy"])
    two, of_two = tmp_path / "two.csv", tmp_path / "two"
    two.write_text("a,b,y\n" + "".join(f"{i % 7},{i % 5},{'yes' if i % 7 > 3 else 'no'}\n" for i in range(120)))
    cli.run("train", two, "--target", "y", "--out", of_two, *options)
    found = json.loads(cli.run("evaluate", of_two, two, "--metric", "f1,roc_auc", "--json").out)["metrics"]
    model = gpuprop.load(of_two / "model.safetensors")
    frame = pd.read_csv(two)
    truth = frame["y"] == "yes"
    assert found["f1"] == pytest.approx(f1_score(truth, model.predict(frame) == "yes"))
    assert found["roc_auc"] == pytest.approx(roc_auc_score(truth, model.predict_proba(frame)[:, 1]))
    prices, of_prices = write_prices(tmp_path / "prices.csv"), tmp_path / "prices"
    cli.run("train", prices, "--target", "y", "--out", of_prices, *options)
    found = json.loads(cli.run("evaluate", of_prices, prices, "--metric", "r2,neg_max_error", "--json").out)
    assert found["metrics"]["r2"] == pytest.approx(found["r2"])
    assert found["metrics"]["neg_max_error"] < 0


def test_scorers_of_ones_own() -> None:
    scorer = make_scorer(f1_score, average="weighted")
    trainer = trained((5, 3), Y3, "categorical_cross_entropy", metrics={"mine": scorer})
    predicted = trainer.network.predict(X[60:])
    assert trainer.history["validation_mine"][-1] == pytest.approx(f1_score(Y3[60:], predicted, average="weighted"))


def test_metrics_are_called_once_an_epoch_with_validation_rows_and_cost_no_forward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    passes: list[int] = []
    real = evaluation.loss_and_score

    def counted(layers: Any, data: Any, *arguments: Any, **options: Any) -> Any:
        passes.append(data.n_samples)
        return real(layers, data, *arguments, **options)

    monkeypatch.setattr(evaluation, "loss_and_score", counted)
    for metrics in ((), ("f1_macro", "roc_auc")):
        passes.clear()
        net = gpuprop.Network((4, 3, 2), loss="categorical_cross_entropy", seed=0, device="numpy")
        gpuprop.Trainer(net, epochs=3, batch_size=20, validation=0.25, metrics=metrics).fit(X, y)
        assert passes == [15, 15, 15]

    rows: list[int] = []

    def seen(y: Any, predicted: Any) -> float:
        rows.append(len(y))
        return 1.0

    net = gpuprop.Network((4, 3, 2), loss="categorical_cross_entropy", seed=0, device="numpy")
    trainer = gpuprop.Trainer(net, epochs=3, validation=0.25, metrics={"seen": seen})
    rows.clear()  # what fits the task is tried when the trainer is made
    trainer.fit(X, y)
    assert rows == [15, 15, 15]
