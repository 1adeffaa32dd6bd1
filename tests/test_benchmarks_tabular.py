"""benchmarks/tabular.py loads its tables, goes on where it stopped, and shows what it measured."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import gpuprop

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("tabular")


def entry(
    contender: str, table: str, seed: int, error: float, seconds: float, subject: str = "error"
) -> dict[str, Any]:
    return {
        "subject": subject, "contender": contender, "table": table, "seed": seed, "error": error, "seconds": seconds,
    }  # fmt: skip


def test_a_training_is_kept_and_not_made_again(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    arguments = ["--report", str(report), "--contenders", "sklearn-trees", "--tables", "wine", "--seeds", "1"]
    arguments += ["--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["tabular.py", *arguments])
    assert script.main() == 0
    found = json.loads(report.read_text())["results"]
    assert [(one["contender"], one["table"], one["seed"]) for one in found] == [("sklearn-trees", "wine", 0)]
    assert found[0]["error"] <= 0.1  # wine is easy: trees have two or three of 45 rows wrong

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a process was started again")

    monkeypatch.setattr(script.subprocess, "Popen", refuse)
    assert script.main() == 0
    assert json.loads(report.read_text())["results"] == found
    assert "boosted trees" in capsys.readouterr().out


@pytest.mark.parametrize(("table", "most"), [("wine", 0.1), ("diabetes", 0.95)])
def test_gpuprop_is_a_contender(script: ModuleType, table: str, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TabularClassifier", "TabularRegressor"):
        monkeypatch.setattr(gpuprop, name, partial(getattr(gpuprop, name), epochs=30))
    with warnings.catch_warnings():  # a process of its own may silence what it likes
        (result,) = script.work(script.CONTENDERS["gpuprop"], script.TABLES[table], [0], 1)
    assert result["error"] <= most


def test_a_process_that_fails_is_reported_and_the_others_go_on(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def results(call: Any, seeds: list[int]) -> Any:
        if call.contender == "sklearn-mlp":
            raise script.GpupropError("it broke")
        yield from ({"seed": seed, "error": 0.25, "seconds": 1.0} for seed in seeds)

    monkeypatch.setattr(script.Call, "results", results)
    monkeypatch.setattr(sys, "argv", ["tabular.py", "--contenders", "sklearn-mlp,sklearn-trees", "--tables", "wine"])
    assert script.main() == 1
    printed = capsys.readouterr()
    assert "it broke" in printed.err
    assert "0.250" in printed.out


def test_the_summary_is_that_of_hand_made_results(script: ModuleType) -> None:
    entries = [
        entry("realmlp-td-s", "wine", 0, 0.09, 8.0),
        entry("realmlp-td-s", "wine", 1, 0.29, 8.0),  # the other contender has not done this seed
        entry("realmlp-td-s", "iris", 0, 0.19, 2.0),
        entry("realmlp-td-s", "hr", 0, 0.5, 2.0),  # nor this table
        entry("sklearn-mlp", "wine", 0, 0.19, 2.0),
        entry("sklearn-mlp", "iris", 0, 0.09, 9.0),
        entry("sklearn-mlp", "iris", 0, 0.09, 2.0, subject="seconds"),  # measured again
    ]
    results = script.Results(entries, ["realmlp-td-s", "sklearn-mlp"], ["wine", "iris", "hr"])
    assert results.seeds == {"wine": [0], "iris": [0], "hr": []}
    np.testing.assert_allclose(results.errors, [[0.09, 0.19], [0.19, 0.09]])
    np.testing.assert_allclose(results.seconds, [[8, 2], [2, 2]])
    _, rows, _ = script.summary_table(results)
    # Twice the error once and half of it once is the same error; a quarter of the time once and the same once is half.
    assert [row[1] for row in rows] == ["1.50", "1.50"]
    assert rows[1][2].startswith(("+0.0%", "-0.0%"))
    assert rows[1][3] == "0.500"
    assert rows[0][4] == "1 of 2"


@pytest.mark.parametrize("name", ["adult", "diabetes", "iris"])
def test_compared_frames_hold_numbers_and_categories(script: ModuleType, name: str) -> None:
    table = script.TABLES[name]
    X, y = script.compared_frame(table)
    kinds = {str(kind) for kind in X.dtypes}
    assert kinds <= {"float64", "category"}
    assert table.target not in X
    assert len(X) == len(y) <= 4000
    if name == "adult":
        assert X["workclass"].isna().any()
        assert not X.isin(["?"]).any(axis=None)
        assert set(y) == {"<=50K", ">50K"}


def test_tables_are_written_as_they_are(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "TABLES", {name: script.TABLES[name] for name in ("adult", "iris")})
    monkeypatch.setattr(sys, "argv", ["tabular.py", "--export", str(tmp_path)])
    assert script.main() == 0
    assert (tmp_path / "iris.csv").read_text().startswith("sepal length (cm),sepal width (cm)")
    assert ",?," in (tmp_path / "adult.csv").read_text()
    assert f"gpuprop train {tmp_path / 'adult.csv'} --target class" in capsys.readouterr().out
