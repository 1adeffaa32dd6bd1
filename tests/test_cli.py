"""The commands beside ``train``: evaluate, predict, info, gradcheck, and what holds for all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split

import gpuprop
from gpuprop.__main__ import main
from tests.cli_tools import SPECIES, Cli, contents, plants, read_csv, write_csv, write_plants, write_prices

COMMANDS = (
    "train",
    "watch",
    "evaluate",
    "predict",
    "trace",
    "diagram",
    "play",
    "gradcheck",
    "exercise",
    "selfcheck",
    "info",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with plants.csv, prices.csv, and a run of each."""
    folder = tmp_path_factory.mktemp("runs")
    plants_csv, prices_csv = write_plants(folder / "plants.csv"), write_prices(folder / "prices.csv")
    quick = ["--hidden", "16", "--epochs", "40"]
    for data, options in ((plants_csv, ["--seed", "5", "--epochs", "9", "--hidden", "9,5"]), (prices_csv, quick)):
        out = str(folder / data.stem)
        assert main(["train", str(data), *options, "--device", "numpy", "--out", out]) == 0  # nothing to compile
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)
    return Cli(capsys)


# --- the command line as a whole -------------------------------------------------------------------------------


def test_version(cli: Cli) -> None:
    assert cli.run("--version").out == f"gpuprop {gpuprop.__version__}\n"


def test_no_command_shows_the_help(cli: Cli) -> None:
    result = cli.run()
    assert result.out == cli.run("--help").out
    assert all(command in result.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_examples_and_no_boxes(cli: Cli, command: str) -> None:
    text = cli.run(command, "--help").out
    assert "Usage: gpuprop " + command in text
    assert f"gpuprop {command}" in text.partition("Examples:")[2] or command == "info"
    assert not re.search(r"[─-╿]", text)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("trian mnist", "train"),
        ("--nope", "--nope"),
        ("train", "DATA"),
        ("evaluate plants", "DATA"),
        ("predict plants plants.csv", "--out"),
        ("evaluate plants plants.csv --test-fraction 2", "--test-fraction"),
        ("evaluate plants plants.csv --device cqu", "did you mean 'cpu'"),
        ("gradcheck --loss poison", "did you mean 'poisson'"),
        ("gradcheck --activation rleu", "did you mean 'relu'"),
        ("gradcheck --rows 0", "--rows"),
        ("gradcheck --data plants.csv", "MODEL"),
        ("gradcheck plants", "--data"),
        ("gradcheck plants --data plants.csv --loss poisson", "leave them out"),
    ],
)
def test_wrong_options(cli: Cli, arguments: str, expected: str) -> None:
    result = cli.fail(*arguments.split())
    assert (result.status, expected in result.err) == (2, True)


def test_a_device_that_is_missing(cli: Cli, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(device: str) -> None:
        raise gpuprop.BackendUnavailableError(f"device {device!r} cannot be used: no GPU")

    monkeypatch.setattr("gpuprop.backends.choose", missing)
    assert cli.fail("evaluate", runs / "plants", runs / "plants.csv", "--device", "cuda").status == 1


def test_whatever_goes_wrong_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("a\nb")

    monkeypatch.setattr("gpuprop.backends.availability", broken)
    assert main(["info"]) == 1
    assert re.fullmatch(r"gpuprop: error: unexpected KeyError: .*\n", capsys.readouterr().err)


# --- evaluate --------------------------------------------------------------------------------------------------


def test_evaluate_a_classifier(cli: Cli, runs: Path) -> None:
    frame = pd.read_csv(runs / "plants.csv")
    score = accuracy_score(frame["label"], gpuprop.load(runs / "plants", device="numpy").predict(frame))
    result = cli.run("evaluate", runs / "plants", runs / "plants.csv")
    assert result.last_line == f"test accuracy: {score:.4f}"
    assert all(name in result.out for name in SPECIES)
    assert "device 'auto' chose" in result.out
    assert cli.run("evaluate", runs / "plants" / "model.safetensors", runs / "plants.csv").last_line == result.last_line


def test_evaluate_the_rows_that_train_held_out(cli: Cli, runs: Path) -> None:
    result = cli.run("evaluate", runs / "plants", runs / "plants.csv", "--test-fraction", 0.25, "--json")
    figures = json.loads(result.out)
    assert figures["n_samples"] == 15
    frame = pd.read_csv(runs / "plants.csv")
    _, test = train_test_split(frame, test_size=0.25, random_state=5, stratify=frame["label"])
    assert figures["accuracy"] == accuracy_score(test["label"], gpuprop.load(runs / "plants").predict(test))


def test_evaluate_a_regression(cli: Cli, runs: Path) -> None:
    frame = pd.read_csv(runs / "prices.csv")
    score = r2_score(frame["y"], gpuprop.load(runs / "prices").predict(frame))
    assert cli.run("evaluate", runs / "prices", runs / "prices.csv").last_line == f"test R2: {score:.4f}"
    figures = json.loads(cli.run("evaluate", runs / "prices", runs / "prices.csv", "--json").out)
    assert figures["r2"] == pytest.approx(score)
    assert figures["n_samples"] == 80


def test_evaluate_digits_takes_the_rows_that_train_holds_out(cli: Cli) -> None:
    trained = cli.run("train", "digits", "--epochs", 1)
    assert cli.run("evaluate", "gpuprop-digits", "digits").last_line == trained.last_line


def test_columns_are_found_by_their_names(cli: Cli, runs: Path, tmp_path: Path) -> None:
    X, labels = plants()
    path = write_csv(tmp_path / "p.csv", ["width", "label", "height"], [X[:, 1].tolist(), labels, X[:, 0].tolist()])
    expected = cli.run("evaluate", runs / "plants", runs / "plants.csv").last_line
    assert cli.run("evaluate", runs / "plants", path).last_line == expected


def test_a_model_made_by_the_library_without_classes(cli: Cli, tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(30, 4))
    np.savez(tmp_path / "rows.npz", X=X, y=np.arange(30) % 3)
    network = gpuprop.Network((4, 5, 3), loss="categorical_cross_entropy", seed=0)
    network.save(tmp_path / "model.safetensors")
    score = accuracy_score(np.arange(30) % 3, network.predict(X))
    assert cli.run("evaluate", tmp_path, "rows.npz").last_line == f"test accuracy: {score:.4f}"
    cli.run("predict", tmp_path, "rows.npz", "--out", "p.csv")
    assert list(read_csv(tmp_path / "p.csv")[0]) == ["prediction", "p_0", "p_1", "p_2"]


@pytest.mark.parametrize("flaw", ["no model", "no data", "damaged", "not a model", "width", "class", "columns"])
def test_evaluate_and_predict_refuse(cli: Cli, runs: Path, tmp_path: Path, flaw: str) -> None:
    model, data = runs / "plants", runs / "plants.csv"
    X, _ = plants(9)
    if flaw == "no model":
        model = tmp_path / "nowhere"
    elif flaw == "no data":
        data = tmp_path / "nowhere.csv"
    elif flaw == "damaged":
        model = tmp_path / "m.safetensors"
        model.write_bytes((runs / "plants" / "model.safetensors").read_bytes()[:-3])
    elif flaw == "not a model":
        model = data
    elif flaw == "width":
        data = tmp_path / "one.npz"
        np.savez(data, X=X[:, :1], y=np.zeros(9, int))
    elif flaw == "class":
        data = write_csv(tmp_path / "c.csv", ["height", "width", "label"], [X[:, 0], X[:, 1], ["moss"] * 9])
    else:
        data = runs / "prices.csv"
    (tmp_path / "out.csv").write_text("mine")
    before = contents(tmp_path)
    assert cli.fail("evaluate", model, data).status == 1
    if flaw != "class":
        assert cli.fail("predict", model, data, "--out", "out.csv").status == 1
    assert contents(tmp_path) == before


# --- predict ---------------------------------------------------------------------------------------------------


def test_predict_labels_and_probabilities(cli: Cli, runs: Path, tmp_path: Path) -> None:
    X, _ = plants(7, seed=3)
    path = write_csv(tmp_path / "new.csv", ["width", "height"], [X[:, 1].tolist(), X[:, 0].tolist()])
    cli.run("predict", runs / "plants", path, "--out", "p.csv")
    classifier = gpuprop.load(runs / "plants")
    assert isinstance(classifier, gpuprop.TabularClassifier)
    rows = read_csv(tmp_path / "p.csv")
    assert list(rows[0]) == ["prediction", "p_grass", "p_rush", "p_sedge"]
    frame = pd.DataFrame(X, columns=["height", "width"])
    assert [row["prediction"] for row in rows] == classifier.predict(frame).tolist()
    written = np.array([[row[f"p_{label}"] for label in classifier.classes_] for row in rows], dtype=np.float64)
    np.testing.assert_array_equal(written, classifier.predict_proba(frame))  # no digit is lost


def test_predict_of_two_classes_has_both_probabilities(cli: Cli, tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(11, 3))
    np.save(tmp_path / "X.npy", X)
    network = gpuprop.Network((3, 4, 1), loss="binary_cross_entropy", seed=1, classes=["no", "yes, please"])
    network.save(tmp_path)
    cli.run("predict", tmp_path, "X.npy", "--out", "p.csv")
    rows = read_csv(tmp_path / "p.csv")
    yes = network.forward(X)[:, 0]
    assert [row["prediction"] for row in rows] == ["yes, please" if p > 0.5 else "no" for p in yes]
    np.testing.assert_allclose([float(row["p_no"]) for row in rows], 1 - yes, rtol=1e-6)
    assert len({row["prediction"] for row in rows}) == 2


def test_predict_writes_no_formulas_with_safe_csv(cli: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", np.eye(6))
    labels = ['=HYPERLINK("http://evil")', "+1;=2", "-3", "@sum", "\ttab", "oak, not =1"]
    network = gpuprop.Network((6, 6), loss="categorical_cross_entropy", init="zeros", classes=labels)
    network.weights[0][...] = 9 * np.eye(6)
    network.save(tmp_path)
    cli.run("predict", tmp_path, "X.npy", "--out", "p.csv")
    assert [row["prediction"] for row in read_csv(tmp_path / "p.csv")] == labels
    cli.run("predict", tmp_path, "X.npy", "--out", "safe.csv", "--safe-csv")
    rows = read_csv(tmp_path / "safe.csv")
    assert [row["prediction"] for row in rows] == [*(f"'{label}" for label in labels[:5]), labels[5]]
    assert list(rows[0]) == ["prediction", *(f"p_{label}" for label in labels)]
    lines = (tmp_path / "safe.csv").read_text().splitlines()
    assert lines[2].startswith('"\'+1;=2",0.')  # text in quotation marks, numbers as they are
    np.save(tmp_path / "X.npy", -np.ones((1, 1)))
    one = gpuprop.Network((1, 1), init="zeros")
    one.weights[0][...] = 1.5
    one.save(tmp_path)
    cli.run("predict", tmp_path, "X.npy", "--out", "safe.csv", "--safe-csv")
    assert (tmp_path / "safe.csv").read_text() == '"prediction"\n-1.5\n'


def test_what_files_hold_gives_a_terminal_no_orders(cli: Cli, tmp_path: Path) -> None:
    """Labels, names of columns and names of files."""
    order, shown = "\x1b[31m", r"\x1b[31m"
    network = gpuprop.Network(
        (1, 2), loss="categorical_cross_entropy", classes=[f"{order}a", "b"], feature_names=[f"{order}x"], seed=0
    )
    network.save(tmp_path / f"{order}.safetensors")
    write_csv(tmp_path / "a.csv", [f"{order}x", "y"], [[1.0, 2.0, 3.0], [f"{order}a", "b", f"{order}a"]])
    said = cli.run("evaluate", tmp_path / f"{order}.safetensors", "a.csv", "--target", "y").out
    assert said.count(shown) >= 2
    assert order not in said
    write_csv(tmp_path / "b.csv", [f"{order}y", f"{order}y"], [[1.0], [2.0]])
    pd.DataFrame({f"{order}x": [1], f"{order}z": [2]}).to_parquet(tmp_path / "c.parquet")
    for data in ("a.csv", "b.csv", "c.parquet", f"no{order}.csv"):
        complaint = cli.fail("evaluate", tmp_path / f"{order}.safetensors", data, "--target", f"{order}y").err
        assert order not in complaint
        assert shown in complaint


def test_predict_numbers(cli: Cli, runs: Path, tmp_path: Path) -> None:
    # The file still holds the column that the model was trained to predict; the model knows its name.
    cli.run("predict", runs / "prices", runs / "prices.csv", "--out", "p.csv")
    frame = pd.read_csv(runs / "prices.csv")
    rows = read_csv(tmp_path / "p.csv")
    assert list(rows[0]) == ["prediction"]
    written = np.array([row["prediction"] for row in rows], dtype=np.float64)
    np.testing.assert_array_equal(written, gpuprop.load(runs / "prices").predict(frame))


def test_predict_several_outputs(cli: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", np.ones((2, 3)))
    network = gpuprop.Network((3, 2), seed=0)
    network.save(tmp_path)
    cli.run("predict", tmp_path, "X.npy", "--out", "p.csv")
    assert list(read_csv(tmp_path / "p.csv")[1]) == ["prediction_1", "prediction_2"]


def test_outputs_that_are_no_probabilities_are_not_called_so(cli: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", np.ones((2, 3)))
    gpuprop.Network((3, 2), seed=0, classes=["a", "b"]).save(tmp_path)
    cli.run("predict", tmp_path, "X.npy", "--out", "p.csv")
    assert list(read_csv(tmp_path / "p.csv")[0]) == ["prediction"]


def test_a_model_of_a_table_leaves_other_columns_alone_and_a_plain_network_refuses_them(
    cli: Cli, runs: Path, tmp_path: Path
) -> None:
    header, *lines = (runs / "plants.csv").read_text().splitlines()
    wider = "\n".join([f"garden,{header}", *(f"1,{line}" for line in lines)])
    (tmp_path / "wider.csv").write_text(wider)
    cli.run("predict", runs / "plants", "wider.csv", "--out", "wider-p.csv")
    cli.run("predict", runs / "plants", runs / "plants.csv", "--out", "p.csv")
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "wider-p.csv").read_bytes()
    gpuprop.Network((2, 3), feature_names=["height", "width"], target_name="label", seed=0).save(tmp_path / "m")
    result = cli.fail("predict", "m", "wider.csv", "--out", "p2.csv")
    assert (result.status, "'garden'" in result.err) == (1, True)
    assert "label" not in result.err  # the model's own target
    assert not (tmp_path / "p2.csv").exists()


@pytest.mark.parametrize("place", ["a folder", "no folder", "below a file"])
def test_predict_to_an_impossible_place(cli: Cli, runs: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    out = {"a folder": "folder", "no folder": "nowhere/p.csv", "below a file": "file/p.csv"}[place]
    result = cli.fail("predict", runs / "prices", runs / "prices.csv", "--target", "y", "--out", out)
    assert result.status == 1
    assert result.err.startswith(f"gpuprop: error: {out}: cannot be written: ")
    assert contents(tmp_path) == {"file": b"mine"}


def test_predict_replaces_its_file_whole_or_not_at_all(
    cli: Cli, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("predict", runs / "prices", runs / "prices.csv", "--target", "y", "--out", "p.csv")
    (tmp_path / "p.csv").write_text("old")

    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("csv.writer", interrupted)
        assert cli.fail(*arguments).status == 130
    assert contents(tmp_path) == {"p.csv": b"old"}
    cli.run(*arguments)
    assert len(read_csv(tmp_path / "p.csv")) == 80


# --- info, gradcheck, trace ------------------------------------------------------------------------------------


def test_info(cli: Cli) -> None:
    text = cli.run("info").out
    found = json.loads(cli.run("info", "--json").out)
    assert found["versions"]["gpuprop"] == gpuprop.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert [device["device"] for device in found["devices"]] == ["cpu", "numpy", "cuda", "cuda-sim"]
    assert found["auto"] == vars(gpuprop.backends.choose("auto"))
    assert text.splitlines()[-1] == found["auto"]["reason"]
    assert np.__version__ in text
    assert "\x1b" not in text


def test_info_helps_where_the_environment_asks_for_the_impossible(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUPROP_DEVICE", "cuda:4711")
    found = json.loads(cli.run("info", "--json").out)
    assert found["auto"]["device"] is None
    assert "GPUPROP_DEVICE 'cuda:4711'" in found["auto"]["reason"]
    assert found["auto"]["reason"] in cli.run("info").out


@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy", "categorical_cross_entropy", "poisson"])
def test_gradcheck_of_a_small_network(cli: Cli, loss: str) -> None:
    result = cli.run("gradcheck", "--loss", loss, "--activation", "silu,softplus", "--hidden", "3,2", "--seed", 2)
    verdicts = re.findall(r"^layer (\d) (weights|biases) .* passed$", result.out, re.MULTILINE)
    assert verdicts == [(str(layer), part) for layer in (1, 2, 3) for part in ("weights", "biases")]
    assert result.last_line.startswith("gradient check: passed")
    report = json.loads(cli.run("gradcheck", "--loss", loss, "--json").out)
    assert report["passed"] is True
    assert len(report["layers"]) == 6


def test_gradcheck_of_a_model(cli: Cli, runs: Path) -> None:
    result = cli.run("gradcheck", runs / "plants", "--data", runs / "plants.csv", "--target", "label")
    assert "20 rows" in result.out
    assert "gradient check: passed" in result.last_line
    assert cli.run("gradcheck", runs / "prices", "--data", runs / "prices.csv", "--rows", 5).status == 0


def test_gradcheck_catches_a_wrong_gradient(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpuprop.Network.loss_and_gradients

    def wrong(self: gpuprop.Network, *arguments: Any, **options: Any) -> Any:
        loss, weight_grads, bias_grads = right(self, *arguments, **options)
        weight_grads[1] *= 1.001
        return loss, weight_grads, bias_grads

    monkeypatch.setattr(gpuprop.Network, "loss_and_gradients", wrong)
    result = cli("gradcheck")
    assert (result.status, result.err) == (1, "")
    assert re.findall(r"^(layer .*?)  .* FAILED$", result.out, re.MULTILINE) == ["layer 2 weights"]
    assert result.last_line.startswith("gradient check: FAILED")
    result = cli("gradcheck", "--json")
    assert (result.status, json.loads(result.out)["passed"]) == (1, False)


def test_trace_is_registered(cli: Cli) -> None:
    assert json.loads(cli.run("trace", "--json").out)["loss"] == pytest.approx(0.298371109)
