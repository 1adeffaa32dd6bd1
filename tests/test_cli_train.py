"""``gpuprop train``: what a run writes and prints, what it refuses, and what it leaves behind when it fails."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split

import gpuprop
from gpuprop.cli.progress import EpochTable
from gpuprop.learn import plots
from tests.cli_tools import (
    Cli,
    contents,
    files_of_run,
    plants,
    prices,
    read_csv,
    save_plants,
    save_prices,
    write_csv,
    write_plants,
    write_prices,
)

QUICK = ("--epochs", "3", "--hidden", "5")


@pytest.fixture
def cli_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)
    return Cli(capsys)


@pytest.fixture
def cli(cli_as_it_is: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """On the device that has nothing to compile: what the command line does beside training is the same on all."""
    monkeypatch.setenv("GPUPROP_DEVICE", "numpy")
    return cli_as_it_is


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the pictures out: most of the time of a short run goes into them."""

    class Picture:
        def savefig(self, path: Path) -> None:
            path.write_bytes(b"picture")

    for name in ("loss_curves", "confusion_matrix", "predictions"):
        monkeypatch.setattr(plots, name, lambda *arguments, **options: Picture())


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make training itself a failure: the complaint must come before it."""

    def fit(*arguments: object, **options: object) -> None:
        raise AssertionError("training began")

    monkeypatch.setattr(gpuprop.Trainer, "fit", fit)


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Press Ctrl-C during the epoch after ``interrupt_at["epoch"]`` completed ones."""
    when: dict[str, int] = {}

    def begin(self: EpochTable, trainer: object, epoch: int) -> None:
        if epoch == when.get("epoch", -1) + 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(EpochTable, "on_epoch_begin", begin)
    return when


# --- a run that succeeds ---------------------------------------------------------------------------------------


def test_classification_of_arrays(cli: Cli, tmp_path: Path) -> None:
    result = cli.run("train", save_plants(tmp_path / "plants.npz"), "--seed", 7, "--epochs", 30)
    folder = tmp_path / "gpuprop-plants"
    assert files_of_run(folder) == ["confusion.png", "history.csv", "loss.png", "model.safetensors"]
    assert all(contents(folder)[name].startswith(b"\x89PNG") for name in ("confusion.png", "loss.png"))

    header = (folder / "history.csv").read_text().splitlines()[0]
    assert header == "epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,learning_rate,seconds"
    rows = read_csv(folder / "history.csv")
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, 31)]
    assert all(np.isfinite([float(value) for value in row.values()]).all() for row in rows)

    # The last line against an evaluation that shares nothing with the command but the model file.
    X, labels = plants()
    X_train, X_test, _, labels_test = train_test_split(X, labels, test_size=0.25, random_state=7, stratify=labels)
    network = gpuprop.load(folder)
    assert network.classes == ("grass", "rush", "sedge")
    predicted = [network.classes[index] for index in network.predict(X_test)]
    assert result.last_line == f"test accuracy: {accuracy_score(labels_test, predicted):.4f}"
    assert float(result.last_line.split()[-1]) == 1.0

    # Standardised by the training part alone.
    assert network.input_scaling is not None
    np.testing.assert_allclose(network.input_scaling.shift, X_train.mean(axis=0))
    np.testing.assert_allclose(network.input_scaling.scale, 1 / X_train.std(axis=0))


def test_output_is_plain_and_complete(cli_as_it_is: Cli, tmp_path: Path) -> None:
    result = cli_as_it_is.run("train", write_plants(tmp_path / "plants.csv"), *QUICK)
    assert "\x1b" not in result.out
    assert not re.search(r"[─-╿]", result.out)  # box drawing
    epochs = [line for line in result.out.splitlines() if re.match(r" +\d+/3 ", line)]
    assert len(epochs) == 3
    assert "device 'auto' chose" in result.out
    assert "precision    recall  f1-score   support" in result.out
    assert re.fullmatch(r"test accuracy: [01]\.\d{4}", result.last_line)


def test_regression_answers_in_the_units_of_the_data(cli: Cli, tmp_path: Path) -> None:
    X, y = prices()
    result = cli.run("train", save_prices(tmp_path / "prices.npz"), "--out", "run", "--seed", 3)
    assert files_of_run(tmp_path / "run") == ["history.csv", "loss.png", "model.safetensors", "predictions.png"]
    header = (tmp_path / "run" / "history.csv").read_text().splitlines()[0]
    assert header == "epoch,train_loss,train_r2,validation_loss,validation_r2,learning_rate,seconds"
    _, X_test, _, y_test = train_test_split(X, y, test_size=0.25, random_state=3)
    score = r2_score(y_test, gpuprop.load(tmp_path / "run").predict(X_test)[:, 0])
    assert result.last_line == f"test R2: {score:.4f}"
    assert score > 0.95


def test_regression_with_several_outputs_and_a_constant_one(cli: Cli, tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(60, 3))
    y = np.stack([100 + X[:, 0], np.full(60, 7.0)], axis=1)
    np.savez(tmp_path / "two.npz", X=X, y=y)
    cli.run("train", "two.npz", "--epochs", 40)
    predicted = gpuprop.load(tmp_path / "gpuprop-two").predict(X)
    assert predicted.shape == (60, 2)
    np.testing.assert_allclose(predicted[:, 1], 7.0, atol=0.5)
    assert r2_score(y[:, 0], predicted[:, 0]) > 0.8


@pytest.mark.usefixtures("no_pictures")
def test_two_classes_are_one_logistic_output(cli: Cli, tmp_path: Path) -> None:
    cli.run("train", save_plants(tmp_path / "plants.npz", n_classes=2), *QUICK)
    network = gpuprop.load(tmp_path / "gpuprop-plants")
    assert network.layer_sizes == (2, 5, 1)
    assert network.output_activation.name == "logistic"
    assert network.loss_function.name == "binary_cross_entropy"
    assert network.classes == ("rush", "sedge")


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("loss", "n_classes", "output", "n_outputs"),
    [
        ("squared_error", 2, "logistic", 1),
        ("squared_error", 3, "softmax", 3),
        ("binary_cross_entropy", 3, "logistic", 3),
        ("categorical_cross_entropy", 2, "softmax", 2),
        ("poisson", 3, "exponential", 3),
    ],
)
def test_classes_under_any_loss(
    cli: Cli, tmp_path: Path, loss: str, n_classes: int, output: str, n_outputs: int
) -> None:
    path = save_plants(tmp_path / "plants.npz", n_classes=n_classes)
    result = cli.run("train", path, "--loss", loss, "--epochs", 60)
    network = gpuprop.load(tmp_path / "gpuprop-plants")
    assert (network.output_activation.name, network.layer_sizes[-1]) == (output, n_outputs)
    assert network.is_classifier
    assert float(result.last_line.removeprefix("test accuracy: ")) >= 0.8


@pytest.mark.usefixtures("no_pictures")
def test_options_reach_the_network_and_the_training(cli: Cli, tmp_path: Path) -> None:
    path = save_plants(tmp_path / "plants.npz")
    arguments = "--hidden 6,4 --activation relu,tanh --dropout 0.1,0.3 --l1 0.001 --l2 0.002 --optimizer sgd --lr 0.05"
    result = cli.run("train", path, *arguments.split(), "--schedule", "exponential", "--epochs", 3, "--batch-size", 9)
    network = gpuprop.load(tmp_path / "gpuprop-plants")
    assert network.layer_sizes == (2, 6, 4, 3)
    assert [activation.name for activation in network.hidden_activations] == ["relu", "tanh"]
    assert network.dropout == (0.1, 0.3, 0.3)
    assert (network.l1, network.l2) == (0.001, 0.002)
    rates = [float(row["learning_rate"]) for row in read_csv(tmp_path / "gpuprop-plants" / "history.csv")]
    np.testing.assert_allclose(rates, 0.05 * 0.95 ** np.arange(3))
    assert "sgd, rate 0.05 (exponential), 3 epochs in batches of 9" in result.out


@pytest.mark.usefixtures("no_pictures")
def test_one_rate_of_dropout_is_for_the_hidden_layers(cli: Cli, tmp_path: Path) -> None:
    cli.run("train", save_plants(tmp_path / "plants.npz"), *QUICK, "--dropout", "0.25")
    assert gpuprop.load(tmp_path / "gpuprop-plants").dropout == (0.0, 0.25)


@pytest.mark.usefixtures("no_pictures")
def test_no_hidden_layer(cli: Cli, tmp_path: Path) -> None:
    result = cli.run("train", save_plants(tmp_path / "plants.npz"), "--hidden", "none", "--epochs", 50, "--lr", 0.1)
    assert gpuprop.load(tmp_path / "gpuprop-plants").layer_sizes == (2, 3)
    assert result.last_line == "test accuracy: 1.0000"


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("largest", "option", "shift_is_zero", "first_scale"),
    [(255, None, True, 1 / 255), (1, None, False, None), (255, "none", None, None), (255, "divide:100", True, 0.01)],
)
def test_scaling_of_8_bit_data(
    cli: Cli, tmp_path: Path, largest: int, option: str | None, shift_is_zero: bool | None, first_scale: float | None
) -> None:
    X = np.random.default_rng(0).integers(0, largest + 1, size=(40, 3)).astype(np.uint8)
    X[0] = largest
    np.savez(tmp_path / "bits.npz", X=X, y=np.arange(40) % 2)
    cli.run("train", "bits.npz", *QUICK, *([] if option is None else ["--scale", option]))
    scaling = gpuprop.load(tmp_path / "gpuprop-bits").input_scaling
    if shift_is_zero is None:
        assert scaling is None
    else:
        assert scaling is not None
        assert bool((scaling.shift == 0).all()) == shift_is_zero
        if first_scale is not None:
            assert scaling.scale.flat[0] == pytest.approx(first_scale)


@pytest.mark.usefixtures("no_pictures")
def test_test_file(cli: Cli, tmp_path: Path) -> None:
    train = write_plants(tmp_path / "plants.csv")
    X, labels = plants(30, seed=5)
    # Columns in another order: they are found by their names.
    test = write_csv(tmp_path / "t.csv", ["label", "width", "height"], [labels, X[:, 1].tolist(), X[:, 0].tolist()])
    result = cli.run("train", train, "--test", test, "--epochs", 30)
    assert "48 rows for training, 12 for validation, 30 for testing" in result.out
    assert result.last_line == "test accuracy: 1.0000"


@pytest.mark.usefixtures("no_pictures")
def test_the_test_part_has_no_say_in_early_stopping(cli: Cli, tmp_path: Path) -> None:
    train = save_plants(tmp_path / "plants.npz")
    models = []
    for seed in (1, 2):
        test = save_plants(tmp_path / f"test{seed}.npz", n_rows=9, seed=seed)
        result = cli.run("train", train, "--test", test, "--early-stopping", "--patience", 2, "--out", f"run{seed}")
        models.append((tmp_path / f"run{seed}" / "model.safetensors").read_bytes())
    assert models[0] == models[1]
    # The epoch kept is the one with the lowest validation loss.
    losses = [float(row["validation_loss"]) for row in read_csv(tmp_path / "run2" / "history.csv")]
    best = int(np.argmin(losses)) + 1
    assert f"kept: epoch {best} of {len(losses)}, the one of the lowest validation loss" in result.out


@pytest.mark.usefixtures("no_pictures")
def test_without_validation_its_columns_are_empty(cli: Cli, tmp_path: Path) -> None:
    cli.run("train", write_plants(tmp_path / "plants.csv"), *QUICK, "--validation-fraction", 0)
    rows = read_csv(tmp_path / "gpuprop-plants" / "history.csv")
    assert {row["validation_loss"] + row["validation_accuracy"] for row in rows} == {""}


@pytest.mark.usefixtures("no_pictures")
def test_seed_makes_the_model(cli: Cli, tmp_path: Path) -> None:
    path = write_plants(tmp_path / "plants.csv")
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        cli.run("train", path, *QUICK, "--dropout", "0.2,0.5", "--seed", seed, "--out", name)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


# --- the built-in data sets, with their own settings -----------------------------------------------------------


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("seed", range(20))
def test_xor_is_solved_from_every_seed(cli_as_it_is: Cli, seed: int) -> None:
    assert cli_as_it_is.run("train", "xor", "--seed", seed).last_line == "test accuracy: 1.0000"


@pytest.mark.usefixtures("no_pictures")
def test_digits_reach_the_promised_accuracy(cli_as_it_is: Cli) -> None:
    results = [cli_as_it_is.run("train", "digits", "--seed", seed, "--out", f"run{seed}") for seed in range(5)]
    assert np.mean([float(result.last_line.removeprefix("test accuracy: ")) for result in results]) >= 0.975


@pytest.mark.usefixtures("no_pictures")
def test_mnist(cli_as_it_is: Cli, tmp_path: Path) -> None:
    result = cli_as_it_is.run("train", "mnist", "--epochs", 1, "--hidden", 16, "--batch-size", 500)
    assert "54,000 rows for training, 6,000 for validation, 10,000 for testing; 784 features, 10 classes" in result.out
    assert float(result.last_line.removeprefix("test accuracy: ")) > 0.75
    scaling = gpuprop.load(tmp_path / "gpuprop-mnist").input_scaling
    assert scaling is not None
    assert scaling.scale == pytest.approx(1 / 255)


# --- how updates are made --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("options", "path"), [(("--device", "cpu", "--plan", "steps"), "steps"), (("--device", "numpy"), "steps")]
)
def test_the_plan_is_said_after_the_table(
    cli_as_it_is: Cli, tmp_path: Path, options: tuple[str, ...], path: str
) -> None:
    lines = cli_as_it_is.run("train", write_plants(tmp_path / "plants.csv"), *QUICK, *options).out.splitlines()
    said = [index for index, line in enumerate(lines) if line.startswith("plan: ")]
    last_epoch = next(index for index, line in enumerate(lines) if re.match(r" +3/3 ", line))
    assert said == [last_epoch + 1]
    assert lines[said[0]].startswith(f"plan: {path}")


@pytest.mark.parametrize("plan", ["fused", "graph", "magic"])
def test_a_plan_that_cannot_serve_is_an_error_that_says_why(cli: Cli, tmp_path: Path, plan: str) -> None:
    result = cli.fail("train", write_plants(tmp_path / "plants.csv"), *QUICK, "--plan", plan)
    assert plan in result.err
    assert "auto" in result.err or "steps" in result.err
    assert sorted(contents(tmp_path)) == ["plants.csv"]


# --- existing runs, and failures -------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_training")
def test_an_existing_run_is_refused_before_training(cli: Cli, tmp_path: Path) -> None:
    path = write_plants(tmp_path / "plants.csv")
    folder = tmp_path / "gpuprop-plants"
    folder.mkdir()
    (folder / "history.csv").write_text("mine")
    before = contents(tmp_path)
    result = cli.fail("train", path)
    assert result.status == 1
    assert "--overwrite" in result.err
    assert contents(tmp_path) == before


def test_overwriting_replaces_all_files_of_the_run_and_no_other(cli: Cli, tmp_path: Path) -> None:
    cli.run("train", write_plants(tmp_path / "plants.csv"), *QUICK, "--out", "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    before = contents(tmp_path / "run")
    cli.run("train", write_prices(tmp_path / "prices.csv"), *QUICK, "--out", "run", "--overwrite")
    after = contents(tmp_path / "run")
    names = ["history.csv", "loss.png", "model.safetensors", "notes.txt", "predictions.png"]
    assert files_of_run(tmp_path / "run") == names
    assert all(after[name] != before[name] for name in ("history.csv", "loss.png", "model.safetensors"))
    assert after["notes.txt"] == b"mine"


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("failure", ["diverges", "disk is full", "interrupted at once"])
def test_the_old_run_survives_a_failure(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupt_at: dict[str, int], failure: str
) -> None:
    path = write_plants(tmp_path / "plants.csv")
    cli.run("train", path, *QUICK)
    before = contents(tmp_path)
    options: list[str] = []
    if failure == "diverges":
        options = ["--optimizer", "sgd", "--lr", "1e30"]
    elif failure == "interrupted at once":
        interrupt_at["epoch"] = 0
    else:

        def full(*arguments: object, **options: object) -> Any:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.safetensors")

        monkeypatch.setattr(os, "fsync", full)
    result = cli.fail("train", path, *QUICK, "--seed", 1, "--overwrite", *options)
    assert result.status == (130 if failure == "interrupted at once" else 1)
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("no_pictures")
def test_a_failure_leaves_no_folder(cli: Cli, tmp_path: Path) -> None:
    path = write_plants(tmp_path / "plants.csv")
    cli.fail("train", path, *QUICK, "--optimizer", "sgd", "--lr", "1e30", "--out", "new/folders/run")
    assert [file.name for file in tmp_path.iterdir()] == ["plants.csv"]
    cli.run("train", path, *QUICK, "--out", "new/folders/run")
    assert (tmp_path / "new/folders/run/model.safetensors").is_file()


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("place", ["file", "below a file", "no permission", "file name taken"])
def test_an_unwritable_folder_is_found_before_training(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    path = write_plants(tmp_path / "plants.csv")
    out = {"file": path, "below a file": path / "run"}.get(place, tmp_path / "run")
    options = []
    if place == "no permission":  # tests may run as root, whom no permission stops

        def refused(*arguments: object, **options: object) -> str:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr("tempfile.mkdtemp", refused)
    elif place == "file name taken":
        (out / "loss.png").mkdir(parents=True)
        options = ["--overwrite"]
    before = sorted(tmp_path.rglob("*"))
    result = cli.fail("train", path, "--out", out, *options)
    assert result.status == 1
    assert str(out) in result.err
    assert sorted(tmp_path.rglob("*")) == before


# --- Ctrl-C ----------------------------------------------------------------------------------------------------


def test_ctrl_c_saves_the_last_completed_epoch(cli: Cli, tmp_path: Path, interrupt_at: dict[str, int]) -> None:
    path = save_plants(tmp_path / "plants.npz")
    options = ("--hidden", "5", "--schedule", "constant")
    cli.run("train", path, *options, "--epochs", 3, "--out", "short")
    interrupt_at["epoch"] = 3
    result = cli.fail("train", path, *options, "--epochs", 50, "--out", "long")
    assert result.status == 130
    assert result.err == (
        "gpuprop: error: interrupted after 3 of 50 epochs; the model of epoch 3 is saved in long; "
        "`gpuprop train --resume long` goes on\n"
    )
    assert re.fullmatch(r"test accuracy: [01]\.\d{4}", result.last_line)
    short, long = contents(tmp_path / "short"), contents(tmp_path / "long")
    assert files_of_run(tmp_path / "long") == files_of_run(tmp_path / "short")
    assert long["model.safetensors"] == short["model.safetensors"]
    assert len(read_csv(tmp_path / "long" / "history.csv")) == 3


@pytest.mark.usefixtures("no_pictures")
def test_ctrl_c_in_a_regression_saves_raw_units(cli: Cli, tmp_path: Path, interrupt_at: dict[str, int]) -> None:
    interrupt_at["epoch"] = 2
    for path in (save_prices(tmp_path / "prices.npz"), write_prices(tmp_path / "prices.csv")):
        result = cli.fail("train", path, "--hidden", "5", "--out", path.suffix[1:])
        assert result.status == 130
        assert f"the model of epoch 2 is saved in {path.suffix[1:]}" in result.err
        model = gpuprop.load(tmp_path / path.suffix[1:])
        X = pd.DataFrame({"area": [0.0], "age": [0.0]})
        predicted = model.predict(X if path.suffix == ".csv" else X.to_numpy())
        assert predicted.item() == pytest.approx(250_000, rel=0.2)


def test_ctrl_c_before_the_first_epoch_writes_nothing(cli: Cli, tmp_path: Path, interrupt_at: dict[str, int]) -> None:
    interrupt_at["epoch"] = 0
    result = cli.fail("train", write_plants(tmp_path / "plants.csv"))
    assert result.status == 130
    assert "nothing was written" in result.err
    assert sorted(contents(tmp_path)) == ["plants.csv"]


# --- wrong options: exit status 2 ------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--epochs -1", "at least 1"),
        ("--epochs 0", "at least 1"),
        ("--epochs many", "--epochs"),
        ("--batch-size -8", "at least 1"),
        ("--batch-size 0", "at least 1"),
        ("--hidden 0,3", "--hidden"),
        ("--hidden -5", "--hidden"),
        ("--hidden 4.5", "--hidden"),
        ("--activation rleu", "did you mean 'relu'"),
        ("--activation relu,tanh", "one for each"),
        ("--scale standard", "leave it out"),
        ("--arrays X=a", "NPZ"),
        ("--labels plants.csv", "IDX"),
        ("--preset tabullar", "did you mean 'tabular'"),
        ("--loss poisson", "categorical_cross_entropy"),
        ("--drop heigth", "did you mean 'height'"),
        ("--categorical width --numeric width", "name it once"),
        ("--loss squared_eror", "did you mean 'squared_error'"),
        ("--optimizer adamm", "did you mean 'adam"),
        ("--schedule cosin", "did you mean 'cosine'"),
        ("--task clasification", "did you mean 'classification'"),
        ("--device cqu", "did you mean 'cpu'"),
        ("--lr 0", "learning_rate"),
        ("--lr nan", "learning_rate"),
        ("--seed -1", "--seed"),
        ("--dropout 1", "--dropout"),
        ("--dropout 0.1,0.2,0.3", "--dropout"),
        ("--l1 -1", "l1"),
        ("--l2 inf", "l2"),
        ("--scale standart", "--scale"),
        ("--scale divide:0", "--scale"),
        ("--patience 0", "patience"),
        ("--validation-fraction 1", "validation_fraction"),
        ("--test-fraction 0", "--test-fraction"),
        ("--test-fraction 1.5", "--test-fraction"),
        ("--test-fraction 0.5 --test plants.csv", "--test"),
        ("--hiden 5", "--hidden"),
        ("--hidden", "--hidden"),
        ("surplus", "surplus"),
    ],
)
def test_wrong_options(cli_as_it_is: Cli, tmp_path: Path, options: str, expected: str) -> None:
    write_plants(tmp_path / "plants.csv")
    before = contents(tmp_path)
    result = cli_as_it_is.fail("train", "plants.csv", *options.split())
    assert result.status == 2
    assert expected in result.err
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("no_training")
def test_a_loss_for_classes_on_numbers(cli: Cli, tmp_path: Path) -> None:
    result = cli.fail("train", write_prices(tmp_path / "prices.csv"), "--loss", "binary_cross_entropy")
    assert (result.status, "squared_error" in result.err) == (2, True)


# --- wrong data: exit status 1 ---------------------------------------------------------------------------------


def _bad_data(kind: str, folder: Path) -> list[str]:
    """Make a data set with a flaw and return the arguments that name it."""
    path = folder / "bad.csv"
    X, labels = plants(12)
    array = folder / "bad.npy"
    np.save(array, np.column_stack([X, np.arange(12) % 2]))
    if kind == "missing":
        return ["nowhere.csv"]
    if kind == "unknown name":
        return ["digitz"]
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "header only":
        path.write_text("a,b,y\n")
    elif kind == "one class":
        path.write_text("a,b,y\n" + "1,2,x\n" * 8)
    elif kind == "nan":
        path.write_text("a,b,y\n1,2,x\n1,,y\n" + "1,2,x\n" * 8)
    elif kind == "infinity":
        path.write_text("a,b,y\n1,2,x\n1,inf,y\n" + "1,2,x\n" * 8)
    elif kind == "ragged":
        path.write_text("a,b,y\n1,2,x\n1,2,3,y\n")
    elif kind == "text in an array":
        np.savez(folder / "bad.npz", X=np.array([["red", "1"], ["blue", "2"]] * 4), y=np.arange(8) % 2)
        return [str(folder / "bad.npz")]
    elif kind == "date that is none":
        path.write_text("a,b,y\n1,2024-02-01,x\n2,2024-02-31,y\n" + "1,2024-03-01,x\n2,2024-03-01,y\n" * 4)
        return [str(path), "--date", "b"]
    elif kind == "target not said":
        path.write_text("a,b,c\n" + "1,2,x\n2,1,y\n" * 4)
    elif kind == "bytes":
        path.write_bytes(b"a,b,y\n1,\xff\xfe\x00,x\n")
    elif kind == "unknown target":
        write_plants(path)
        return [str(path), "--target", "lable"]
    elif kind == "truncated":
        array.write_bytes(array.read_bytes()[:-5])
        return [str(array)]
    elif kind == "test file of another width":
        write_plants(path)
        other = write_csv(folder / "other.csv", ["height", "label"], [X[:, 0].tolist(), labels])
        return [str(path), "--test", str(other)]
    elif kind == "test file with an unknown class":
        write_plants(path)
        labels[0] = "moss"
        other = write_csv(folder / "o.csv", ["height", "width", "label"], [X[:, 0], X[:, 1], labels])
        return [str(path), "--test", str(other)]
    elif kind == "regression with one row to test":
        write_prices(path, n_rows=4)
    return [str(path)]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "unknown name",
        "folder",
        "empty",
        "header only",
        "one class",
        "nan",
        "infinity",
        "ragged",
        "text in an array",
        "date that is none",
        "target not said",
        "bytes",
        "unknown target",
        "truncated",
        "test file of another width",
        "test file with an unknown class",
        "regression with one row to test",
    ],
)
def test_wrong_data(cli: Cli, tmp_path: Path, kind: str) -> None:
    arguments = _bad_data(kind, tmp_path)
    before = contents(tmp_path)
    result = cli.fail("train", *arguments)
    assert result.status == 1
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("no_training")
def test_a_network_larger_than_any_memory(cli: Cli, tmp_path: Path) -> None:
    result = cli.fail("train", write_plants(tmp_path / "plants.csv"), "--hidden", "100000000,100000000")
    assert (result.status, "use smaller layers" in result.err) == (1, True)


def test_targets_outside_the_range_of_the_loss(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "negative.npz"
    np.savez(path, X=np.arange(20.0)[:, None], y=-1.5 * np.arange(20))
    result = cli.fail("train", path, "--loss", "poisson")
    assert (result.status, "poisson" in result.err) == (1, True)
    assert sorted(contents(tmp_path)) == ["negative.npz"]


# --- devices ---------------------------------------------------------------------------------------------------


def test_the_simulator_is_switched_on_before_numba_is_imported(
    cli_as_it_is: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def resolve(device: str) -> None:
        seen.append((device, os.environ.get("NUMBA_ENABLE_CUDASIM")))
        raise gpuprop.BackendUnavailableError("stop here")

    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "0")
    monkeypatch.setattr("gpuprop.backends.resolve", resolve)
    assert cli_as_it_is.fail("train", "xor", "--device", "cpu").status == 1
    assert cli_as_it_is.fail("train", "xor", "--device", "cuda-sim").status == 1
    assert seen == [("cpu", "0"), ("cuda-sim", "1")]


def test_the_environment_overrides_the_device(cli_as_it_is: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUPROP_DEVICE", "numpy")
    assert "GPUPROP_DEVICE 'numpy'" in cli_as_it_is.run("train", "xor", "--epochs", 1, "--device", "cpu").out


@pytest.mark.parametrize(
    ("options", "device"),
    [
        ((), "numpy"),
        (("--epochs", 1_000_000), "cpu"),
        (("--device", "cpu"), "cpu"),
        (("--hidden", "4000,4000"), "cpu"),
    ],
    ids=["short", "many epochs", "asked for", "large"],
)
def test_auto_leaves_a_short_training_to_plain_numpy(
    cli_as_it_is: Cli, monkeypatch: pytest.MonkeyPatch, options: tuple[Any, ...], device: str
) -> None:
    # Where a GPU works it is a GPU that `auto` takes.
    monkeypatch.setattr("gpuprop.backends.devices._cuda_usable", lambda index: (False, "no GPU here"))
    devices = []

    def fit(trainer: gpuprop.Trainer, *arguments: object, **options: object) -> None:
        devices.append(trainer.network.device_)
        raise KeyboardInterrupt

    monkeypatch.setattr(gpuprop.Trainer, "fit", fit)
    result = cli_as_it_is.fail("train", "xor", *options)
    assert devices == [device]
    said = next(line for line in result.out.splitlines() if line.startswith("device"))
    if not options:
        why = "no GPU here; plain NumPy: so short a training needs no compiled loops"
        assert said == f"device 'auto' chose cpu: {why}"
    assert "cpu" in said
