"""The command line takes tables with text, dates, gaps and identifiers from somebody who knows only its help."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split

import gpuprop
from gpuprop.__main__ import main
from gpuprop.learn import plots
from gpuprop.learn.live.reader import RunReader
from tests.cli_tools import Cli, contents, read_csv

QUICK = ("--epochs", "2", "--hidden", "4", "--device", "numpy")
CITIES = {"Porto": 0.0, "Lima": 25.0, "Oslo": 50.0, "Accra": 75.0}


def purchases(n_rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return a table whose last column follows from its others but for a little noise."""
    rng = np.random.default_rng(seed)
    city = rng.choice(list(CITIES), n_rows)
    income = rng.normal(3000, 500, n_rows).round(2)
    member = rng.random(n_rows) > 0.5
    spent = 100 + 0.08 * income + [CITIES[one] for one in city] + 10 * member + rng.normal(size=n_rows)
    return pd.DataFrame(
        {
            "id": [f"K-{1000 + i}" for i in range(n_rows)],
            "city": city,
            "joined": pd.date_range("2021-02-03", periods=n_rows, freq="3D").strftime("%Y-%m-%d"),
            "member": np.where(member, "yes", "no"),
            "income": np.where(np.arange(n_rows) % 20 == 0, np.nan, income),
            "spent": np.round(spent, 2),
        }
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with purchases.csv and a run of it, which learns to predict what is spent."""
    folder = tmp_path_factory.mktemp("shop")
    purchases().to_csv(folder / "purchases.csv", index=False)
    options = ("--hidden", "32,32", "--epochs", "100", "--device", "numpy", "--seed", "3")
    arguments = ["train", str(folder / "purchases.csv"), "--target", "spent", *options, "--out", str(folder / "run")]
    assert main(arguments) == 0
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GPUPROP_DEVICE", raising=False)

    class Picture:
        def savefig(self, path: Path) -> None:
            path.write_bytes(b"picture")

    for name in ("loss_curves", "confusion_matrix", "predictions"):
        monkeypatch.setattr(plots, name, lambda *arguments, **options: Picture())
    return Cli(capsys)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def numbers(n_rows: int = 24, n_columns: int = 3) -> list[list[float]]:
    values: list[list[float]] = np.random.default_rng(1).normal(size=(n_rows, n_columns)).round(3).tolist()
    return values


def lines(rows: list[list[float]], labels: list[Any], header: str = "") -> str:
    body = [",".join(map(str, [*row, label])) for row, label in zip(rows, labels, strict=True)]
    return "\n".join([*([header] if header else []), *body, ""])


# --- one command each ------------------------------------------------------------------------------------------


def test_a_table_is_explained_and_learned(cli: Cli, shop: Path) -> None:
    result = cli.run("evaluate", shop / "run", shop / "purchases.csv", "--test-fraction", 0.25)
    frame = purchases()
    _, test = train_test_split(frame, test_size=0.25, random_state=3)
    score = r2_score(test["spent"], gpuprop.load(shop / "run", device="numpy").predict(test))
    assert result.last_line == f"test R2: {score:.4f}"
    assert score > 0.9

    out = cli.run("train", shop / "purchases.csv", "--target", "spent", *QUICK).out
    assert "purchases: 400 rows, 5 columns; target 'spent': a regression" in out
    table = {row.split()[0]: row for row in out.partition("what is done\n")[2].partition("\n\n")[0].splitlines()}
    assert list(table) == ["id", "city", "joined", "member", "income"]
    for name, kind in {"id": "identifier", "city": "category", "member": "boolean", "income": "number"}.items():
        assert table[name].split()[1] == kind
    assert table["joined"].split()[1] == "date"
    assert re.search(r"\d\.\d%", table["income"])
    assert re.search(r"^purchases: 240 rows for training, 60 for validation, 100 for testing$", out, re.MULTILINE)


def test_new_rows_in_another_order_with_gaps_and_unseen_values(cli: Cli, shop: Path, tmp_path: Path) -> None:
    frame = purchases(4, seed=8)
    frame["city"] = ["Quito", "", "Oslo", "Lima"]
    frame["extra"] = "x"
    frame[["extra", "city", "member", "id", "income", "joined"]].to_csv(tmp_path / "new.csv", index=False)
    cli.run("predict", shop / "run", "new.csv", "--out", "p.csv")
    written = [float(row["prediction"]) for row in read_csv(tmp_path / "p.csv")]
    frame.loc[1, "city"] = np.nan
    model = gpuprop.load(shop / "run", device="numpy")
    np.testing.assert_allclose(written, model.predict(frame), rtol=1e-5)


def test_columns_that_are_missing_are_all_named(cli: Cli, shop: Path, tmp_path: Path) -> None:
    purchases(5).drop(columns=["city", "income", "id"]).to_csv(tmp_path / "new.csv", index=False)
    for command in (("predict", "--out", "p.csv"), ("evaluate",)):
        result = cli.fail(command[0], shop / "run", "new.csv", *command[1:])
        assert (result.status, "lacks the columns 'city', 'income'; it has 'joined'," in result.err) == (1, True)
    cli.run("predict", shop / "run", _without(shop, tmp_path, "id"), "--out", "p.csv")  # an identifier is not missed


def _without(shop: Path, folder: Path, column: str) -> Path:
    path = folder / f"without-{column}.csv"
    pd.read_csv(shop / "purchases.csv").drop(columns=column).to_csv(path, index=False)
    return path


def test_the_order_of_columns_does_not_matter_to_evaluate(cli: Cli, shop: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(shop / "purchases.csv")
    frame[frame.columns[::-1]].to_csv(tmp_path / "reversed.csv", index=False)
    expected = cli.run("evaluate", shop / "run", shop / "purchases.csv", "--test-fraction", 0.25).last_line
    assert cli.run("evaluate", shop / "run", "reversed.csv", "--test-fraction", 0.25).last_line == expected
    figures = json.loads(cli.run("evaluate", shop / "run", "reversed.csv", "--test-fraction", 0.25, "--json").out)
    assert f"test R2: {figures['r2']:.4f}" == expected


def test_a_share_needs_the_rows_and_the_seed_of_the_training(cli: Cli, shop: Path, tmp_path: Path) -> None:
    frame = purchases(60)
    frame.to_csv(tmp_path / "p.csv", index=False)
    X, y = frame.drop(columns="city"), frame["city"]
    gpuprop.TabularClassifier(hidden_layer_sizes=3, epochs=2, random_state=None, device="numpy").fit(X, y).save("m")
    evaluate = ("evaluate", "m", "p.csv", "--target", "city")
    assert "60 rows" in cli.run(*evaluate).out
    assert "no seed" in cli.fail(*evaluate, "--test-fraction", 0.25).err
    frame[frame["city"] != "Oslo"].to_csv(tmp_path / "p.csv", index=False)
    assert "has no row of class 'Oslo'" in cli.fail(*evaluate, "--test-fraction", 0.25).err


def test_an_odd_cell_is_named_with_its_line(cli: Cli, shop: Path, tmp_path: Path) -> None:
    text = (shop / "purchases.csv").read_text().splitlines()
    cells = text[6].split(",")
    cells[4] = "unknown"
    write(tmp_path / "odd.csv", "\n".join([*text[:6], ",".join(cells), *text[7:], ""]))
    for command in (("train", "--target", "spent", *QUICK), ("evaluate",), ("predict", "--out", "p.csv")):
        model = () if command[0] == "train" else (shop / "run",)
        result = cli.fail(command[0], *model, "odd.csv", *command[1:])
        assert "odd.csv: line 7, column 'income': got 'unknown'" in result.err
        cli.run(command[0], *model, "odd.csv", *command[1:], "--na", "?,unknown")


def test_options_say_what_columns_are(cli: Cli, shop: Path) -> None:
    options = ("--drop", "id, member", "--categorical", "income", "--numeric", "zip", "--na", "-")
    frame = pd.read_csv(shop / "purchases.csv").assign(zip=["-", "04103"] * 200, income=[1, 2] * 200)
    frame.to_csv("zips.csv", index=False)
    out = cli.run("train", "zips.csv", "--target", "spent", *QUICK, *options).out
    table = {row.split()[0]: row for row in out.partition("what is done\n")[2].partition("\n\n")[0].splitlines()}
    assert "left out" in table["id"]
    assert "left out" in table["member"]
    assert table["income"].split()[1] in ("category", "boolean")
    assert table["zip"].split()[1:2] == ["number"]


def test_rows_without_a_target_are_left_out_and_counted(cli: Cli, shop: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(shop / "purchases.csv")
    frame.loc[[2, 9], "spent"] = np.nan
    frame.loc[12, "income"] = np.nan
    frame.to_csv(tmp_path / "gaps.csv", index=False)
    note = "note: 2 rows have no target and were left out (line 4 is the first)."
    out = cli.run("train", "gaps.csv", "--target", "spent", *QUICK).out
    assert note in out.splitlines()
    assert "gaps: 398 rows" in out
    out = cli.run("evaluate", shop / "run", "gaps.csv").out
    assert note in out.splitlines()
    assert "gaps.csv: 398 rows" in out
    cli.run("predict", shop / "run", "gaps.csv", "--out", "p.csv")
    assert len(read_csv(tmp_path / "p.csv")) == 400
    frame.assign(spent=np.nan).to_csv(tmp_path / "none.csv", index=False)
    assert "no row with a target in column 'spent'" in cli.fail("evaluate", shop / "run", "none.csv").err


# --- names, targets, labels ------------------------------------------------------------------------------------


def test_what_is_asked_for_by_name_decides_about_line_1(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "waves.csv", lines(numbers(), ["oak", "pine"] * 12, "400,405,410,species"))
    out = cli.run("train", "waves.csv", "--target", "species", *QUICK).out
    assert "waves: 24 rows, 3 columns; target 'species': 2 classes ('oak', 'pine')" in out
    write(tmp_path / "years.csv", lines(numbers(), [row[0] for row in numbers()], "2019,2020,2021,2022"))
    assert (
        "years: 24 rows, 3 columns; target '2022': a regression"
        in cli.run("train", "years.csv", "--target", "2022", *QUICK).out
    )


def test_the_target_is_not_guessed_where_columns_have_names(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "t.csv", lines(numbers(), ["oak", "pine"] * 12, "a,b,c,kind"))
    result = cli.fail("train", "t.csv", *QUICK)
    assert "give --target NAME, one of 'a', 'b', 'c', 'kind'" in result.err
    for name in ("Target", "CLASS", "y", "label"):
        write(tmp_path / "t.csv", lines(numbers(), ["oak", "pine"] * 12, f"a,b,c,{name}"))
        assert f"target {name!r}: 2 classes" in cli.run("train", "t.csv", *QUICK, "--out", name).out


def test_a_guessed_target_replaces_no_run(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "bare.csv", lines(numbers(), ["oak", "pine"] * 12))
    out = cli.run("train", "bare.csv", *QUICK).out
    assert "target 'column 4': 2 classes ('oak', 'pine')" in out
    assert re.search(r"^note: .*last column", out, re.MULTILINE)
    np.save(tmp_path / "bare.npy", np.c_[numbers(), np.arange(24) % 2])
    before = contents(tmp_path / "gpuprop-bare")
    for file in ("bare.csv", "bare.npy"):
        for options in ((), ("--overwrite",)):
            result = cli.fail("train", file, *QUICK, *options)
            assert "holds a run already" in result.err
        assert "--target" in result.err
        assert contents(tmp_path / "gpuprop-bare") == before
    cli.run("train", "bare.csv", *QUICK, "--overwrite", "--target", "3")


@pytest.mark.parametrize("target", [None, "0", "2"])
def test_columns_without_names_are_found_by_their_places(cli: Cli, tmp_path: Path, target: str | None) -> None:
    rows, labels = numbers(), ["oak", "pine"] * 12
    place = 3 if target is None else int(target)
    full = [[*row[:place], label, *row[place:]] for row, label in zip(rows, labels, strict=True)]
    write(tmp_path / "full.csv", "\n".join(",".join(map(str, row)) for row in full))
    write(tmp_path / "bare.csv", "\n".join(",".join(map(str, row)) for row in rows))
    cli.run("train", "full.csv", *QUICK, *(() if target is None else ("--target", target)))
    cli.run("predict", "gpuprop-full", "full.csv", "--out", "a.csv")
    cli.run("predict", "gpuprop-full", "bare.csv", "--out", "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert len(read_csv(tmp_path / "a.csv")) == 24
    assert "24 rows" in cli.run("evaluate", "gpuprop-full", "full.csv").out


def test_other_names_than_the_models_are_refused_and_both_listed(cli: Cli, tmp_path: Path) -> None:
    body = "".join(f"{i % 2},{a},{b},{c}\n" for i, (a, b, c) in enumerate(numbers()))
    write(tmp_path / "pixels.csv", "label,0,1,2\n" + body)
    cli.run("train", "pixels.csv", *QUICK)
    write(tmp_path / "other.csv", "1,2,3\n" + "".join(f"{a},{b},{c}\n" for a, b, c in numbers(5)))
    result = cli.fail("predict", "gpuprop-pixels", "other.csv", "--out", "p.csv")
    assert "lacks the column '0'; it has '1', '2', '3', and the model was trained with '0', '1', '2'" in result.err


def test_labels_keep_their_spelling(cli: Cli, tmp_path: Path) -> None:
    spelled = ["007", "042", "1A"]
    labels = [spelled[i % 3] for i in range(24)]
    write(tmp_path / "plants.csv", lines(numbers(), labels, "a,b,c,plant"))
    known = [label for label in labels if label != "1A"]  # by themselves, these would be numbers
    rows = [row for row, label in zip(numbers(), labels, strict=True) if label != "1A"]
    write(tmp_path / "test.csv", lines(rows, known, "a,b,c,plant"))
    out = cli.run("train", "plants.csv", "--target", "plant", "--test", "test.csv", *QUICK).out
    assert "3 classes ('007', '042', '1A')" in out
    cli.run("predict", "gpuprop-plants", "test.csv", "--out", "p.csv")
    rows_written = read_csv(tmp_path / "p.csv")
    assert list(rows_written[0]) == ["prediction", "p_007", "p_042", "p_1A"]
    assert {row["prediction"] for row in rows_written} <= set(spelled)
    assert "16 rows" in cli.run("evaluate", "gpuprop-plants", "test.csv").out


def test_a_test_file_must_have_the_columns(cli: Cli, shop: Path, tmp_path: Path) -> None:
    arguments = ("train", shop / "purchases.csv", "--target", "spent", *QUICK)
    path = _without(shop, tmp_path, "city")
    result = cli.fail(*arguments, "--test", path)
    assert f"{path.name}: lacks the column 'city'" in result.err
    assert not (tmp_path / "gpuprop-purchases").exists()
    assert "40 for testing" not in cli.run(*arguments, "--test", _without(shop, tmp_path, "id")).out


# --- everything else that a run offers -------------------------------------------------------------------------


def test_options_of_the_training_reach_the_estimator(cli: Cli, shop: Path, tmp_path: Path) -> None:
    options = "--hidden 6,4 --activation relu,tanh --dropout 0.1,0.3 --l2 0.002 --optimizer sgd --lr 0.05"
    more = "--schedule exponential --epochs 3 --batch-size 9 --validation-fraction 0.1 --loss huber(0.5) --device numpy"
    out = cli.run("train", shop / "purchases.csv", "--target", "spent", *options.split(), *more.split()).out
    model = gpuprop.load(tmp_path / "gpuprop-purchases")
    assert isinstance(model, gpuprop.TabularRegressor)
    network = model.networks_[0]
    assert network.layer_sizes[1:] == (6, 4, 1)
    assert [activation.name for activation in network.hidden_activations] == ["relu", "tanh"]
    assert network.dropout == (0.1, 0.3, 0.3)
    assert (network.l2, network.loss_function.name) == (0.002, "huber(0.5)")
    assert "sgd, rate 0.05 (exponential), 3 epochs in batches of 9, seed 0" in out
    assert "270 rows for training, 30 for validation, 100 for testing" in out
    rates = [float(row["learning_rate"]) for row in read_csv(tmp_path / "gpuprop-purchases" / "history.csv")]
    np.testing.assert_allclose(rates, 0.05 * 0.95 ** np.arange(3))


def test_the_larger_preset(cli: Cli, shop: Path, tmp_path: Path) -> None:
    out = cli.run("train", shop / "purchases.csv", "--target", "spent", *QUICK, "--preset", "tabular-large").out
    score = out.splitlines()[-1]
    held_out = ("--test-fraction", 0.25)
    assert cli.run("evaluate", "gpuprop-purchases", shop / "purchases.csv", *held_out).last_line == score


def test_a_model_that_no_file_could_hold_is_refused_before_the_training(
    cli: Cli, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpuprop.model.container.MAX_HEADER_BYTES", 1000)
    result = cli.fail("train", shop / "purchases.csv", "--target", "spent", *QUICK)
    assert (result.status, "--drop" in result.err) == (1, True)
    assert not (tmp_path / "gpuprop-purchases").exists()


def test_another_optimizer_has_its_own_rate(cli: Cli, shop: Path) -> None:
    out = cli.run("train", shop / "purchases.csv", "--target", "spent", *QUICK, "--optimizer", "adamw").out
    assert "training: adamw, rate 0.001 (coslog)" in out


def test_early_stopping_of_a_table(cli: Cli, shop: Path, tmp_path: Path) -> None:
    options = ("--hidden", "16", "--epochs", "150", "--device", "numpy", "--early-stopping", "--patience", "3")
    out = cli.run("train", shop / "purchases.csv", "--target", "spent", *options).out
    history = read_csv(tmp_path / "gpuprop-purchases" / "history.csv")
    losses = [float(row["validation_loss"]) for row in history]
    assert len(losses) < 150
    assert int(np.argmin(losses)) == len(losses) - 4
    assert f"kept: epoch {len(losses) - 3} of {len(losses)}, the last one of the lowest validation loss" in out


def test_equal_seeds_give_equal_bytes(cli: Cli, shop: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        cli.run("train", shop / "purchases.csv", "--target", "spent", *QUICK, "--seed", seed, "--out", name)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_an_animation_of_a_small_table(cli: Cli, shop: Path, tmp_path: Path) -> None:
    arguments = ("train", shop / "purchases.csv", "--target", "spent", "--epochs", "2", "--device", "numpy")
    result = cli.fail(*arguments, "--animate", "film.html")  # the preset's network has too many weights to be drawn
    assert (result.status, "use fewer hidden units" in result.err) == (2, True)
    cli.run(*arguments, "--hidden", "4", "--animate", "film.html")
    assert "purchases" in (tmp_path / "film.html").read_text()


def test_a_finished_run_of_a_table_can_be_watched(shop: Path) -> None:
    state = RunReader(shop / "run").state()
    assert (state["status"], state["epochs"]) == ("finished", 100)
    assert state["network"].endswith("-32-32-1")
    assert state["weights"]["shape"][0] == 1  # rows of a table are no pictures, whatever their number of inputs


def test_the_networks_of_tables_can_be_looked_into(cli: Cli, shop: Path) -> None:
    data = ("--data", shop / "purchases.csv")
    assert "gradient check: passed" in cli.run("gradcheck", shop / "run", *data, "--rows", 5).last_line
    assert "sample 2 of" in cli.run("trace", shop / "run", *data, "--sample", 2).out
    assert "net.svg" in cli.run("diagram", shop / "run", *data, "--out", "net.svg").out


def test_arrays_of_an_npz_file_by_their_names(cli: Cli, tmp_path: Path) -> None:
    X, y = np.array(numbers()), np.arange(24) % 2
    np.savez(tmp_path / "keras.npz", x_train=X[:16], y_train=y[:16], x_test=X[16:], y_test=y[16:])
    out = cli.run("train", "keras.npz", *QUICK).out
    assert "14 rows for training, 2 for validation, 8 for testing" in out
    assert re.search(r"^note: .*'x_train'", out, re.MULTILINE)
    np.savez(tmp_path / "odd.npz", pictures=X, kinds=y)
    arrays = ("--arrays", "X=pictures,y=kinds")
    cli.run("train", "odd.npz", *QUICK, *arrays)
    assert "24 rows" in cli.run("evaluate", "gpuprop-odd", "odd.npz", *arrays).out
    cli.run("predict", "gpuprop-odd", "odd.npz", *arrays, "--out", "p.csv")
    assert cli.fail("train", "odd.npz", *QUICK, "--arrays", "pictures").status == 2
    result = cli.fail("train", "odd.npz", *QUICK, *arrays, "--drop", "a")
    assert (result.status, "no table" in result.err) == (2, True)


@pytest.mark.parametrize("target", [None, "1", "-4"])
def test_a_matrix_in_an_npy_file_may_keep_its_target(cli: Cli, tmp_path: Path, target: str | None) -> None:
    place = 3 if target is None else int(target) % 4
    X, y = np.array(numbers()), np.arange(24) % 2
    np.save(tmp_path / "all.npy", np.insert(X, place, y, axis=1))
    np.save(tmp_path / "X.npy", X)
    out = cli.run("train", "all.npy", *QUICK, *(() if target is None else ("--target", target))).out
    assert f"target 'column {place + 1}': 2 classes" in out
    assert ("note: The last column was taken for the target" in out) == (target is None)
    for name in ("all", "X"):
        cli.run("predict", "gpuprop-all", f"{name}.npy", "--out", f"{name}.csv")
    assert (tmp_path / "all.csv").read_bytes() == (tmp_path / "X.csv").read_bytes()
    held_out = cli.run("evaluate", "gpuprop-all", "all.npy", "--test-fraction", 0.25).last_line
    assert held_out == out.splitlines()[-1]


def test_numbers_with_fractions_may_be_classes(cli: Cli, tmp_path: Path) -> None:
    body = "".join(f"{a};{b};{c};{r}\n" for (a, b, c), r in zip(numbers(), ["1.5", "2.0", "2.5"] * 8, strict=True))
    write(tmp_path / "ratings.csv", "a;b;c;rating\n" + body)
    out = cli.run("train", "ratings.csv", "--target", "rating", "--task", "classification", *QUICK).out
    assert "3 classes ('1.5', '2.0', '2.5')" in out
    assert cli.run("evaluate", "gpuprop-ratings", "ratings.csv", "--test-fraction", 0.25).last_line in out


def test_a_model_of_a_table_needs_a_table(cli: Cli, shop: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", np.ones((3, 5)))
    result = cli.fail("predict", shop / "run", "X.npy", "--out", "p.csv")
    assert "is no table" in result.err


# --- files as others write them: what the command line says of each --------------------------------------------

TREES = ["oak", "pine"] * 12
AMOUNTS = [1200, 2450, 3100, 990] * 6


def _text(header: str, values: list[Any], separator: str = ",") -> bytes:
    rows = [separator.join(map(str, [*row, value])) for row, value in zip(numbers(), values, strict=True)]
    return "\n".join([*([header] if header else []), *rows, ""]).encode()


AS_OTHERS_WRITE: dict[str, tuple[str, bytes, str]] = {
    "labels.csv": (
        "",
        _text("", ["A7B3"[i % 4] for i in range(24)]),
        "24 rows, 3 columns; target 'column 4': 4 classes",
    ),
    "floats.csv": ("", _text("a,b,c,label", [1.0, 2.0] * 12), "target 'label': 2 classes (1.0, 2.0)"),
    "salaries.csv": ("salary", _text("a,b,c,salary", [30000 + 2711 * i for i in range(24)]), "'salary': a regression"),
    "commas.csv": ("r", _text("a;b;c;r", ["1,5", "2,5", "3,25"] * 8, ";"), "'r': a regression"),
    "thousands.csv": ("r", _text("a,b,c,r", [f'"{n:,}"' for n in AMOUNTS]), "'r': a regression"),
    "currency.csv": ("r", _text("a,b,c,r", [f'"${n:,}"' for n in AMOUNTS]), "'r': a regression"),
    "table.csv.gz": ("kind", gzip.compress(_text("a,b,c,kind", TREES)), "24 rows, 3 columns; target 'kind': 2 classes"),
    "pipes.csv": ("kind", _text("a|b|c|kind", TREES, "|"), "24 rows, 3 columns; target 'kind': 2 classes"),
    "blanks.data": (
        "",
        _text("", [row[0] for row in numbers()], "  "),
        "24 rows, 3 columns; target 'column 4': a regr",
    ),
    "quoted.csv": ("kind", _text('"length, mm";b;c;kind', TREES, ";"), "24 rows, 3 columns; target 'kind': 2 classes"),
    "excel.csv": ("kind", b"sep=;\n" + _text("a;b;c;kind", TREES, ";"), "24 rows, 3 columns; target 'kind': 2 classes"),
    "trailing.csv": ("kind", _text("a,b,c,kind,", [f"{one}," for one in TREES]), "3 columns; target 'kind': 2 classes"),
}


@pytest.mark.parametrize("name", AS_OTHERS_WRITE)
def test_tables_as_others_write_them(cli: Cli, tmp_path: Path, name: str) -> None:
    target, content, expected = AS_OTHERS_WRITE[name]
    (tmp_path / name).write_bytes(content)
    out = cli.run("train", name, *QUICK, *(("--target", target) if target else ()), "--out", "run").out
    assert expected in out
    assert cli.run("evaluate", "run", name, "--test-fraction", 0.25).last_line == out.splitlines()[-1]
    cli.run("predict", "run", name, "--out", "p.csv")
    assert len(read_csv(tmp_path / "p.csv")) == 24


def test_a_line_that_may_be_names_or_a_row_is_shown_and_not_guessed(cli: Cli, tmp_path: Path) -> None:
    write(tmp_path / "t.csv", lines(numbers(), ["unknown", *([0, 1, 2] * 8)[:23]]))
    err = cli.fail("train", "t.csv", *QUICK).err
    assert all(word in err for word in ("line 1 holds", "'unknown'", "--header", "--no-header"))
    err = cli.fail("train", "t.csv", *QUICK, "--no-header").err
    assert all(word in err for word in ("line 1: got 'unknown' as target", "classification"))
    classes = ("--no-header", "--task", "classification")
    assert (
        "4 classes ('0', '1', '2', 'unknown')" not in cli.fail("train", "t.csv", *QUICK, *classes).out
    )  # a single row


def _idx(array: Any, code: int) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + bytes(array.astype(array.dtype.newbyteorder(">")).tobytes())


def test_images_and_labels_as_others_store_them(cli: Cli, tmp_path: Path) -> None:
    images = np.random.default_rng(2).integers(0, 256, (240, 3, 3)).astype(np.uint8)
    labels = (np.arange(240) % 120).astype(np.uint8)
    (tmp_path / "many-images-idx3-ubyte").write_bytes(_idx(images, 8))
    (tmp_path / "many-labels-idx1-ubyte").write_bytes(_idx(labels, 8))
    test = ("--test", "many-images-idx3-ubyte")
    assert "120 classes" in cli.run("train", "many-images-idx3-ubyte", *test, *QUICK).out
    (tmp_path / "q-images-idx3-ubyte.gz").write_bytes(_idx(images, 8))  # not compressed, whatever its name says
    (tmp_path / "q-labels-idx2-int").write_bytes(_idx(np.c_[labels % 3, np.zeros((240, 7))].astype("i4"), 0x0C))
    out = cli.run("train", "q-images-idx3-ubyte.gz", "--labels", "q-labels-idx2-int", *QUICK).out
    assert "3 classes" in out
    assert "first of its 8 columns" in out
    np.savez(tmp_path / "places.npz", images, labels % 3)
    assert "3 classes" in cli.run("train", "places.npz", *QUICK).out
    np.savez(tmp_path / "bytes.npz", X=images, y=np.array(["oak", "pine"], dtype="S")[labels % 2])
    cli.run("train", "bytes.npz", *QUICK)
    cli.run("predict", "gpuprop-bytes", "bytes.npz", "--out", "p.csv")
    assert list(read_csv(tmp_path / "p.csv")[0]) == ["prediction", "p_oak", "p_pine"]
