"""How a data set becomes a network and a trainer: parts, recipe, output layer, targets, device, folder, scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LinearRegression
from sklearn.metrics import (
    accuracy_score,
    classification_report,
    confusion_matrix,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)
from sklearn.model_selection import train_test_split

import gpuprop
from gpuprop.datasets import Dataset
from gpuprop.errors import DataError
from gpuprop.model.output_choice import choose_outputs, default_loss
from gpuprop.model.predictions import prediction_columns
from gpuprop.training.class_report import confusion_counts
from gpuprop.training.from_recipe import network_for, plain_seconds_of, scaling_for, trainer_for
from gpuprop.training.parts import Source, rows_for_model, train_and_test_parts
from gpuprop.training.placement import device_for_training, plain_seconds
from gpuprop.training.recipes import BUILT_IN, Recipe, recipe_for
from gpuprop.training.run_folder import write_history
from gpuprop.training.scores import report_of, report_on
from gpuprop.training.targets import StandardisedTargets
from tests.cli_tools import plants, read_csv, write_csv, write_plants, write_prices

SMALL = Recipe(hidden=(3,), epochs=2, batch_size=7, lr=0.01, scale="standard", dropout=(0.1, 0.2))


def regression(n_rows: int = 40, n_outputs: int | None = None) -> Dataset:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, 3))
    shape = (n_rows,) if n_outputs is None else (n_rows, n_outputs)
    return Dataset("numbers", X, 250.0 + 30.0 * rng.normal(size=shape), "regression")


def classification(n_classes: int, n_rows: int = 40) -> Dataset:
    X, labels = plants(n_rows, n_classes)
    names: list[Any] = sorted(set(labels))
    return Dataset("plants", X, np.array([names.index(label) for label in labels]), "classification", names)


# --- the output layer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_classes", "loss", "name", "n_outputs", "activation"),
    [
        (2, None, "binary_cross_entropy", 1, None),
        (3, None, "categorical_cross_entropy", 3, None),
        (2, "squared_error", "squared_error", 1, "logistic"),
        (3, "squared_error", "squared_error", 3, "softmax"),
        (3, "binary_cross_entropy", "binary_cross_entropy", 3, None),
        (2, "categorical_cross_entropy", "categorical_cross_entropy", 2, None),
        (3, "poisson", "poisson", 3, None),
    ],
)
def test_output_layer_of_classes(
    n_classes: int, loss: str | None, name: str, n_outputs: int, activation: str | None
) -> None:
    classes = ["a", "b", "c"][:n_classes]
    found = choose_outputs(classes, np.arange(n_classes), loss)
    assert (found.loss.name, found.n_outputs, found.activation) == (name, n_outputs, activation)


@pytest.mark.parametrize(("shape", "n_outputs"), [((5,), 1), ((5, 1), 1), ((5, 3), 3)])
def test_output_layer_of_numbers(shape: tuple[int, ...], n_outputs: int) -> None:
    found = choose_outputs(None, np.zeros(shape))
    assert (found.loss.name, found.n_outputs, found.activation) == (default_loss(None), n_outputs, None)


def test_a_loss_for_classes_is_refused_on_numbers() -> None:
    with pytest.raises(ValueError, match="the targets are numbers; use squared_error"):
        choose_outputs(None, np.zeros(3), "binary_cross_entropy")


# --- targets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_outputs", [None, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_folded_targets_are_in_the_units_of_the_data(n_outputs: int | None, dtype: str) -> None:
    dataset = regression(n_outputs=n_outputs)
    network = gpuprop.Network((3, 5, n_outputs or 1), seed=1, dtype=dtype, device="numpy")
    targets = StandardisedTargets.of(network, dataset.y)
    assert_allclose(targets.values.mean(axis=0), 0, atol=1e-12)
    assert_allclose(targets.values.std(axis=0), 1)
    before, parameters = network.predict(dataset.X), network.host_parameters()
    targets.fold(network)
    # An independent way to the same numbers: the line through what is known of two of them.
    line = LinearRegression().fit(targets.values.reshape(-1, 1), np.asarray(dataset.y).reshape(-1, 1))
    if n_outputs in (None, 1):
        assert_allclose(network.predict(dataset.X), line.predict(before), rtol=1e-5)
    assert_allclose(network.predict(dataset.X), before * dataset.y.std(axis=0) + dataset.y.mean(axis=0), rtol=1e-5)
    targets.unfold(network)
    assert_allclose(network.host_parameters(), parameters, rtol=1e-5, atol=1e-5)


def test_a_constant_target_is_moved_and_not_scaled() -> None:
    y = np.stack([np.arange(6.0), np.full(6, 0.1)], axis=1)
    targets = StandardisedTargets.of(gpuprop.Network((3, 2), device="numpy"), y)
    assert targets.deviation is not None
    assert targets.deviation[1] == 1.0
    assert_allclose(targets.values[:, 1], 0, atol=1e-15)


@pytest.mark.parametrize("options", [{"loss": "poisson"}, {"classes": ["a", "b"]}, {"loss": "binary_cross_entropy"}])
def test_other_targets_stay_as_they_are(options: dict[str, Any]) -> None:
    network = gpuprop.Network((3, 1), seed=0, device="numpy", **options)
    y = np.array([0, 1, 1, 0])
    targets, parameters = StandardisedTargets.of(network, y), network.host_parameters()
    assert targets.values is y
    targets.fold(network)
    targets.unfold(network)
    assert_array_equal(network.host_parameters(), parameters)


# --- recipes ---------------------------------------------------------------------------------------------------


def test_a_recipe_takes_the_options_that_are_given() -> None:
    recipe = BUILT_IN["mnist"].with_options({"epochs": 3, "hidden": (), "l2": None, "device": "cpu"})
    assert (recipe.epochs, recipe.hidden, recipe.l2, recipe.batch_size) == (3, (), 0.0, 256)


def test_another_optimizer_has_its_own_rate() -> None:
    assert BUILT_IN["digits"].with_options({"optimizer": "sgd"}).lr is None
    assert BUILT_IN["digits"].with_options({"optimizer": "sgd", "lr": 0.5}).lr == 0.5
    assert BUILT_IN["digits"].with_options({"epochs": 1}).lr == 0.01


@pytest.mark.parametrize(
    ("n_rows", "asked", "batch_size", "epochs"),
    [(100, None, 32, 200), (3200, None, 32, 40), (20_000, None, 128, 26), (3200, 64, 64, 80), (10**6, None, 128, 10)],
)
def test_recipes_follow_from_the_number_of_rows(n_rows: int, asked: int | None, batch_size: int, epochs: int) -> None:
    recipe = recipe_for("file.csv", np.zeros((n_rows, 1), np.float32), asked)
    assert (recipe.batch_size, recipe.epochs) == (batch_size, epochs)


@pytest.mark.parametrize(
    ("dtype", "largest", "scale"), [(np.uint8, 255, "divide:255"), (np.uint8, 1, "standard"), (float, 255, "standard")]
)
def test_pictures_are_divided_and_numbers_standardised(dtype: Any, largest: int, scale: str) -> None:
    assert recipe_for("file.npz", np.array([[0], [largest]], dtype)).scale == scale


def test_scaling_for() -> None:
    X = np.array([[1.0, 10.0], [3.0, 30.0]])
    assert scaling_for("none", X) is None
    standard, divided = scaling_for("standard", X), scaling_for("divide:4", X)
    assert standard is not None
    assert divided is not None
    assert_array_equal(standard.shift, [2, 20])
    assert_array_equal(standard.scale, [1, 0.1])
    assert divided.scale == 0.25


def test_network_and_trainer_of_a_recipe() -> None:
    dataset = classification(3)
    network = network_for(dataset, (dataset.X, dataset.y), SMALL, seed=5, device="numpy")
    assert network.layer_sizes == (2, 3, 3)
    assert network.dropout == (0.1, 0.2)
    assert network.classes == ("grass", "rush", "sedge")
    assert network.seed == 5
    assert network.input_scaling is not None
    assert_allclose(network.input_scaling.shift, dataset.X.mean(axis=0))
    trainer = trainer_for(network, SMALL.with_options({"early_stopping": True, "patience": 4}), 40)
    assert (trainer.epochs, trainer.batch_size, trainer.learning_rate) == (2, 7, 0.01)
    assert (trainer.early_stopping, trainer.validation) == (4, 0.1)
    assert trainer_for(network, SMALL, 1).validation is None
    assert trainer_for(network, SMALL.with_options({"validation_fraction": 0.0}), 40).validation is None


def test_without_hidden_layers_only_the_input_has_dropout() -> None:
    dataset = classification(2)
    recipe = SMALL.with_options({"hidden": ()})
    network = network_for(dataset, (dataset.X, dataset.y), recipe, device="numpy")
    assert (network.layer_sizes, network.dropout) == ((2, 1), (0.1,))


@pytest.mark.parametrize(("setting", "value"), [("patience", 0), ("validation_fraction", 1.0)])
def test_a_wrong_number_in_a_recipe_is_named(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=setting):
        trainer_for(gpuprop.Network((2, 1), device="numpy"), SMALL.with_options({setting: value}), 9)


# --- where it runs ---------------------------------------------------------------------------------------------


def test_a_gpu_is_taken_for_a_short_training_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)
    monkeypatch.setattr("gpuprop.backends.devices._cuda_usable", lambda index: (True, "a GPU"))
    assert device_for_training("auto", 0.0).device == "cuda:0"


@pytest.mark.parametrize(
    ("name", "variable", "seconds", "plan", "device"),
    [
        ("auto", "", 1.9, "auto", "numpy"),
        ("auto", "", 2.1, "auto", "cpu"),
        ("auto", "", 1.9, "fused", "cpu"),
        ("cpu", "", 0.0, "auto", "cpu"),
        ("auto", "cpu", 0.0, "auto", "cpu"),
    ],
)
def test_auto_takes_numpy_for_a_short_training(
    monkeypatch: pytest.MonkeyPatch, name: str, variable: str, seconds: float, plan: str, device: str
) -> None:
    monkeypatch.setenv("GPUPROP_DEVICE", variable)
    monkeypatch.setattr("gpuprop.backends.devices._cuda_usable", lambda index: (False, "no GPU here"))
    assert device_for_training(name, seconds, plan).device == device


def test_plain_seconds_grow_with_the_work() -> None:
    # A second on MNIST was 220 updates of 256 rows (4.3 ms each), 290 of 32 rows took half a second.
    assert 0.5 < plain_seconds((784, 128, 10), 256, 220) < 2.0
    assert 0.2 < plain_seconds((784, 128, 10), 32, 290) < 1.0
    assert 0.25 < plain_seconds((64, 256, 10), 32, 1140) < 1.0


def test_plain_seconds_of_a_recipe() -> None:
    dataset = classification(3)
    expected = plain_seconds((2, 3, 3), 7, 2 * 6)  # 40 rows are 6 batches of at most 7
    assert plain_seconds_of(dataset, (dataset.X, dataset.y), SMALL) == expected


# --- parts -----------------------------------------------------------------------------------------------------


def test_rows_for_a_model_are_those_that_were_held_out(tmp_path: Path) -> None:
    source = Source(str(write_plants(tmp_path / "plants.csv")))
    dataset = source.load()
    train, test = train_and_test_parts(dataset, fraction=0.3, seed=9)
    X, labels = plants()
    expected = train_test_split(X, labels, test_size=0.3, random_state=9, stratify=labels)
    assert_allclose(train[0], expected[0])
    assert_allclose(test[0], expected[1])
    network = network_for(dataset, train, SMALL, seed=9, device="numpy")
    held_out = rows_for_model(network, source, 0.3)
    assert_array_equal(held_out[0], test[0])
    assert_array_equal(held_out[1], test[1])
    assert len(rows_for_model(network, source)[0]) == 60


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_models_columns_and_target_decide_wherever_they_stand(tmp_path: Path, task: str) -> None:
    write, names = (
        (write_plants, ["height", "width", "label"])
        if task == "classification"
        else (write_prices, ["area", "age", "y"])
    )
    source = Source(str(write(tmp_path / "train.csv")))
    dataset = source.load()
    train, test = train_and_test_parts(dataset, fraction=0.25, seed=4)
    network = network_for(dataset, train, SMALL, seed=4, device="numpy")
    columns = list(zip(*(row.values() for row in read_csv(tmp_path / "train.csv")), strict=True))
    # A number stands last, so that the last column would pass for the target of a regression.
    other = write_csv(tmp_path / "other.csv", [names[i] for i in (2, 1, 0)], [columns[i] for i in (2, 1, 0)])
    held_out = rows_for_model(network, Source(str(other)), 0.25)
    assert_array_equal(held_out[0], test[0])
    assert_array_equal(held_out[1], test[1])


def test_a_test_file_leaves_all_rows_for_training(tmp_path: Path) -> None:
    dataset = Source(str(write_plants(tmp_path / "plants.csv"))).load()
    other = Source(str(write_plants(tmp_path / "other.csv", n_rows=9, seed=3)))
    train, test = train_and_test_parts(dataset, other)
    assert (len(train[0]), len(test[0])) == (60, 9)
    assert_allclose(test[0], plants(9, seed=3)[0])


def test_the_part_that_a_data_set_comes_with() -> None:
    dataset = Dataset(
        "own", np.zeros((8, 1)), np.arange(8) % 2, "classification", [0, 1], test=(np.ones((2, 1)), np.arange(2))
    )
    assert len(train_and_test_parts(dataset)[1][0]) == 2
    assert len(train_and_test_parts(dataset, fraction=0.5)[1][0]) == 4


def test_rows_of_another_data_set_are_refused(tmp_path: Path) -> None:
    dataset = classification(3)
    network = network_for(dataset, (dataset.X, dataset.y), SMALL, device="numpy")
    with pytest.raises(DataError, match=r"no row of class 'grass'.*leave out --test-fraction"):
        rows_for_model(network, Source(str(write_plants(tmp_path / "two.csv", n_classes=2))), 0.25)
    one_row = Source(str(write_prices(tmp_path / "few.csv", n_rows=4))).load("regression")
    with pytest.raises(DataError, match="expected at least 2"):
        train_and_test_parts(one_row)


# --- what is written and reported ------------------------------------------------------------------------------


def test_history_file(tmp_path: Path) -> None:
    write_history(tmp_path / "h.csv", {"epoch": [1, 2], "validation_loss": [None, 0.1 + 0.2]})
    rows = read_csv(tmp_path / "h.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["validation_loss"] for row in rows] == ["", repr(0.1 + 0.2)]


def test_scores_are_scikit_learns() -> None:
    dataset = classification(3)
    network = network_for(dataset, (dataset.X, dataset.y), SMALL, device="numpy")
    report = report_on(network, dataset.X, dataset.y, dataset.classes)
    assert (report.metric, report.score) == ("accuracy", accuracy_score(dataset.y, network.predict(dataset.X)))
    assert "grass" in report.text
    numbers = regression()
    network = network_for(numbers, (numbers.X, numbers.y), SMALL, device="numpy")
    report = report_on(network, numbers.X, numbers.y)
    assert report.metric == "R2"
    assert_allclose(report.score, r2_score(numbers.y, network.predict(numbers.X)[:, 0]), rtol=1e-12)
    with pytest.raises(DataError, match="at least 2"):
        report_on(network, numbers.X[:1], numbers.y[:1])


@pytest.mark.parametrize(("n_rows", "n_classes"), [(5, 2), (17, 7), (400, 3), (3, 30)])
def test_the_report_by_class_is_scikit_learns(n_rows: int, n_classes: int) -> None:
    """Among the classes are some that no row has, and some that are never predicted."""
    rng = np.random.default_rng(n_rows)
    y, guesses = rng.integers(0, n_classes, (2, n_rows))
    predicted = np.where(rng.random(n_rows) < 0.6, y, guesses)
    names = [f"a class with a long name, {i}" if i % 3 == 1 else i for i in range(n_classes)]
    report = report_of(y, predicted, names)
    options: dict[str, Any] = {
        "labels": list(range(n_classes)),
        "target_names": [str(name) for name in names],
        "zero_division": 0,
    }
    assert report.text == classification_report(y, predicted, digits=4, **options).rstrip()
    assert report.figures["report"] == classification_report(y, predicted, output_dict=True, **options)
    assert report.score == accuracy_score(y, predicted)
    assert_array_equal(
        confusion_counts(y, predicted, n_classes), confusion_matrix(y, predicted, labels=range(n_classes))
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_errors_of_a_regression_are_scikit_learns(dtype: str) -> None:
    """Three outputs, of which one never varies and is met, and one never varies and is missed."""
    rng = np.random.default_rng(1)
    y = np.column_stack([rng.normal(7.0, 3.0, 23), np.full(23, 2.0), np.full(23, 3.0)]).astype(dtype)
    predicted = y + np.column_stack([rng.normal(size=23), np.zeros(23), rng.normal(size=23)]).astype(dtype)
    figures = report_of(y, predicted, None).figures
    wide, guessed = y.astype(np.float64), predicted.astype(np.float64)
    assert_allclose(figures["r2"], r2_score(wide, guessed), rtol=1e-12)
    assert_allclose(figures["mean_absolute_error"], mean_absolute_error(wide, guessed), rtol=1e-12)
    assert_allclose(figures["root_mean_squared_error"], root_mean_squared_error(wide, guessed), rtol=1e-12)


def test_prediction_columns() -> None:
    for n_classes in (2, 3):
        dataset = classification(n_classes)
        network = network_for(dataset, (dataset.X, dataset.y), SMALL, device="numpy")
        columns = prediction_columns(network, dataset.X)
        assert list(columns) == ["prediction", *(f"p_{label}" for label in dataset.classes or [])]
        shares = np.array([columns[f"p_{label}"] for label in dataset.classes or []])
        assert_allclose(shares.sum(axis=0), 1, rtol=1e-6)
        assert columns["prediction"] == [(dataset.classes or [])[i] for i in shares.argmax(axis=0)]
    numbers = regression(n_outputs=2)
    network = network_for(numbers, (numbers.X, numbers.y), SMALL, device="numpy")
    columns = prediction_columns(network, numbers.X)
    assert list(columns) == ["prediction_1", "prediction_2"]
    assert_array_equal(np.array(list(columns.values())).T, network.predict(numbers.X))
