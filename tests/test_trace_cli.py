"""``gpuprop trace``: text, JSON, page; the worked example and a saved model; wrong options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.__main__ import main
from tests.references.worked_example import PRINTED, same_digits


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small classifier with its data beside it."""
    network = gpuprop.Network((2, 3, 2), loss="categorical_cross_entropy", seed=0, classes=["no", "yes"])
    network.save(tmp_path / "model.safetensors")
    rows = ["a,b,answer", "0.5,1.5,no", "-1.0,0.25,yes", "2.0,2.0,yes"]
    (tmp_path / "data.csv").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace"]) == 0
    text = capsys.readouterr().out
    assert "0.298371109\n" in text
    assert "E = 0.291027773694" in text


def test_rounds_and_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--rounds", "1", "--weights", "updated"]) == 0
    text = capsys.readouterr().out
    assert "E = 0.291027923905" in text
    assert "already updated weights" in text


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert same_digits(found["loss"], PRINTED["E"])
    values = {term["symbol"]: term["value"] for term in found["terms"]}
    assert all(same_digits(values[symbol], printed) for symbol, printed in PRINTED.items())
    assert [len(layer["new_weights"]) for layer in found["layers"]] == [2, 2]


def test_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "trace.html"
    page.write_text("old", encoding="utf-8")
    assert main(["trace", "--html", str(page)]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert str(page) in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [page]


def test_saved_model(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["trace", str(model), "--data", str(model / "data.csv"), "--sample", "2", "--lr", "0.1", "--json"]
    assert main(arguments) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    network = gpuprop.load(model)
    assert found["inputs"] == [2.0, 2.0]
    assert found["targets"] == [0.0, 1.0]
    assert found["loss"] == network.loss([[2.0, 2.0]], [1])
    _, weight_grads, _ = network.loss_and_gradients([[2.0, 2.0]], [1])
    np.testing.assert_allclose(found["layers"][0]["weight_grads"], weight_grads[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--rounds", "0"], 2, "--rounds"),
        (["--weights", "old"], 2, "unknown weights 'old'"),
        (["--lr", "-1"], 2, "learning_rate: got -1.0"),
        (["--data", "mnist"], 2, "without MODEL"),
        (["--sample", "1"], 2, "without MODEL"),
        (["MODEL"], 2, "MODEL needs --data"),
        (["MODEL", "--data", "DATA", "--sample", "3"], 2, "--sample: got 3, expected 0 to 2"),
        (["MODEL", "--data", "nowhere.csv"], 1, "nowhere.csv"),
        (["nowhere", "--data", "DATA"], 1, "nowhere"),
        (["--html", "nowhere/trace.html"], 1, "nowhere"),
    ],
)
def test_wrong_options(
    model: Path, arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"MODEL": str(model), "DATA": str(model / "data.csv")}
    assert main(["trace", *(names.get(argument, argument) for argument in arguments)]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gpuprop: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
