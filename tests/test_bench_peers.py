"""``gpuprop bench peers``: one training by all who are installed, and the refusal to compare different ones."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from gpuprop.errors import GpupropError
from gpuprop.measure.bench.documents import document
from gpuprop.measure.bench.peers import comparison, inference, worker
from gpuprop.measure.bench.peers import tables as report
from gpuprop.measure.bench.peers.calls import WAYS, ways_of
from gpuprop.measure.bench.peers.configs import Config, cross_entropy, probabilities
from gpuprop.measure.bench.peers.libraries import CONTENDERS
from tests.cli_tools import Cli


@pytest.mark.parametrize("optimizer", ["adam", "momentum", "sgd"])
def test_contenders_train_the_same_network(optimizer: str) -> None:
    """Two epochs by gpuprop's primitives, scikit-learn and the plain script end at the same loss to 1e-4."""
    config = Config((5, 7, 3), "relu", optimizer, 0.01, 8, 32)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(32, 5)).astype(np.float32)
    y = X[:, :3].argmax(axis=1)
    losses = []
    for name in ("numpy", "gpuprop-numpy", "sklearn"):
        contender = CONTENDERS[name](config, X, y)
        contender.epochs(2)
        losses.append(cross_entropy(config, contender.layers(), X, y))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)


def test_different_losses_are_refused() -> None:
    def workers(loss: float) -> Any:
        losses = {"numpy": 0.5, "floor": None, "other": loss}
        return [SimpleNamespace(name=name, info={"loss": value}) for name, value in losses.items()]

    comparison.refuse_different_losses(workers(0.501), "numpy", 0.003)
    with pytest.raises(GpupropError, match=r"other has loss 0\.50400 after one epoch where numpy has 0\.50000"):
        comparison.refuse_different_losses(workers(0.504), "numpy", 0.003)


# --- what is measured beside trainings -------------------------------------------------------------------------------


def test_the_judge_notes_when_a_target_is_first_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, 0.976, 0.97, 0.981])
    judge = worker.Judge(lambda: np.arange(1000) < 1000 * next(shares))
    assert [judge(0.5) for _ in range(4)] == [False, False, False, True]
    assert judge.reached == {0.975: (1.0, 2), 0.98: (2.0, 4)}


@pytest.mark.parametrize("name", ["numpy", "gpuprop-numpy", "gpuprop-estimator", "sklearn"])
def test_predictors_give_the_probabilities_of_the_parameters(name: str) -> None:
    config = Config((5, 7, 3), "relu", "adam", 0.01, 8, 32)
    X = np.random.default_rng(1).normal(size=(32, 5)).astype(np.float32)
    contender = CONTENDERS[name](config, X, X[:, :3].argmax(axis=1))
    expected = probabilities(config, contender.layers(), X)
    np.testing.assert_allclose(contender.predictor()(X), expected, atol=2e-6)


@pytest.mark.parametrize("name", ["numpy", "gpuprop", "gpuprop-estimator"])
def test_predictions_of_every_kind_are_timed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config((5, 7, 3), "relu", "adam", 0.01, 8, 32)
    X = np.random.default_rng(1).integers(0, 256, (32, 5)).astype(np.float32) / np.float32(255)
    served: dict[str, Any] = {}
    monkeypatch.setattr(inference, "CONFIGS", {"tiny": config})
    monkeypatch.setattr(inference, "load", lambda config: (X, X[:, :3].argmax(axis=1)))
    monkeypatch.setattr(inference, "ROWS", (1, 4, 32))
    monkeypatch.setattr(inference, "_SETTLE", 0.0)
    monkeypatch.setattr(inference, "serve", lambda info, answers: served.update(answers))
    inference.work(name, "tiny")
    seen = set()
    for dtype, inputs, n_rows in inference.cases():
        if inference.able([name], dtype, inputs):
            assert served["error"](dtype, inputs, n_rows) < 1e-6
            assert served["run"](1, dtype, inputs, n_rows) > 0
            seen.add((dtype, inputs))
    assert len(seen) == 10 - 2 * (name == "gpuprop-estimator")
    assert inference.able(["gpuprop", "jax"], "float64", "contiguous") == ["gpuprop"]


@pytest.mark.parametrize("name", ["numpy", "gpuprop-numpy", "sklearn"])
def test_learning_shuffles_and_ends_when_the_judge_is_content(name: str) -> None:
    config = Config((5, 7, 3), "relu", "adam", 0.01, 8, 32)
    X = np.random.default_rng(1).normal(size=(32, 5)).astype(np.float32)
    contender = CONTENDERS[name](config, X, X[:, :3].argmax(axis=1))
    contender.epochs(1)
    as_they_lie = [weights.copy() for weights, _ in contender.layers()]
    seconds: list[float] = []

    def judge(elapsed: float) -> bool:
        seconds.append(elapsed)
        return len(seconds) == 3

    contender.learn(0, 10, judge)
    assert len(seconds) == 3
    contender.learn(0, 1, lambda _: False)
    shuffled = [weights for weights, _ in contender.layers()]
    assert max(np.abs(one - other).max() for one, other in zip(as_they_lie, shuffled, strict=True)) > 1e-6
    np.testing.assert_allclose(shuffled[0], as_they_lie[0], atol=0.1)  # from the same initial weights


def test_every_way_to_ask_for_an_epoch_trains() -> None:
    config = Config((5, 7, 3), "relu", "momentum", 0.01, 8, 32)
    X = np.random.default_rng(1).normal(size=(32, 5)).astype(np.float32)
    ways = ways_of(config, X, X[:, :3].argmax(axis=1), 2, plan="steps")
    assert {way for _, way in ways} == set(WAYS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        assert all(run() > 0 for run in ways.values())


def test_installed_size_counts_every_requirement_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def package(name: str, size: int, requires: str = "") -> None:
        (tmp_path / f"{name}.py").write_text("#" * size)
        (tmp_path / f"{name}.pyc").write_text("compiled, not counted")
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{requires}")
        (info / "RECORD").write_text(f"{name}.py,,\n{name}.pyc,,\n")

    package("one_a", 100, "Requires-Dist: two-b>=3\nRequires-Dist: not-there; sys_platform == 'no'\n"
                          "Requires-Dist: extra-one; extra == 'x'\n")  # fmt: skip
    package("two_b", 30, "Requires-Dist: one-a\n")
    package("extra_one", 7)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert comparison._installed_size(["one.a"]) == 130
    with pytest.raises(GpupropError, match="nobody is not installed as a package"):
        comparison._installed_size(["nobody"])


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(GpupropError, match=r"nobody: the process ended with code 1: KeyError: 'nobody'"):
        comparison._output("memory", "nobody")


# --- tables, picture, command ----------------------------------------------------------------------------------------

# Made up: no such times.
ENTRIES: list[dict[str, Any]] = [
    *(
        {"subject": "training", "config": config, "threads": threads, "contender": contender, "loss": 0.5,
         "microseconds": us, "best": us}
        for config, threads, contender, us in [
            ("a", 1, "gpuprop", 500.0), ("a", 2, "gpuprop", 400.0), ("a", 1, "torch", 2000.0),
            ("a", 2, "torch", 1000.0), ("a", 1, "floor", 200.0),
            ("e1", 1, "gpuprop", 2.0), ("e1", 1, "torch", 300.0), ("e1", 1, "floor", 1.0),
        ]
    ),
    {"subject": "inference", "rows": 1, "contender": "gpuprop", "microseconds": 12.34},
    {"subject": "inference", "rows": 10_000, "contender": "gpuprop", "microseconds": 9999.0},
    *(
        {"subject": "inference", "config": "b", "threads": 1, "dtype": "float64", "inputs": "Fortran order",
         "rows": 10, "contender": contender, "microseconds": us}
        for contender, us in [("numpy", 30.0), ("gpuprop", 20.0)]
    ),
    *(
        {"subject": "calls", "config": "e32", "threads": 1, "contender": contender, "call": call, "microseconds": us,
         "best": us}
        for contender, call, us in [
            ("gpuprop", "fit", 20.0), ("gpuprop", "partial_fit", 22.0), ("gpuprop", "warm_start", 24.0),
            ("gpuprop", "Trainer", 16.0), ("gpuprop", "Trainer.training", 17.0), ("sklearn", "partial_fit", 300.0),
        ]
    ),
    {"subject": "accuracy", "contender": "jax", "target": 0.975, "seeds": 5, "reached": 5, "most_epochs": 20,
     "seconds": 4.5, "epochs": 7},
    {"subject": "accuracy", "contender": "jax", "target": 0.98, "seeds": 5, "reached": 0, "most_epochs": 20,
     "seconds": None, "epochs": None},
    {"subject": "start", "contender": "numpy", "import_seconds": 0.1, "first_epoch_seconds": 1.5},
    {"subject": "memory", "contender": "gpuprop", "bytes": 250_000_000, "loaded": []},
    {"subject": "install", "contender": "numpy", "bytes": 69_000_000},
]  # fmt: skip


def test_tables() -> None:
    found = dict(report.tables(ENTRIES))
    headers, rows, _ = found["An update of the parameters (threads: 1, 2; each contender's better)"]
    assert headers == ("training", "gpuprop, us an update", "PyTorch, times", "dense floor, times")
    assert rows == [
        ["a: 784-128-10 relu adam, batch 128", "400.0", "2.50", "0.50"],
        ["e1: 64-32-16-10 logistic sgd, batch 1", "2.0", "150.0", "0.50"],
    ]
    assert found["Probabilities (threads: 1)"][:2] == (
        ("network and inputs", "contender", "1 row", "10 rows", "10,000 rows"),
        [
            ["a, float32, contiguous", "gpuprop, us", "12.3", "-", "9,999.0"],
            ["b, float64, Fortran order", "gpuprop, us", "-", "20.0", "-"],
            ["", "plain NumPy, times", "-", "1.50", "-"],
        ],
    )
    assert found["An update by the way that its epoch is asked for, in times of one within a long fit"][1] == [
        ["e32, 1 thread", "20.0 us", "1.10", "1.20", "16.0 us", "1.06", "-", "300.0 us", "-"]
    ]
    assert found["Training time to a test accuracy (threads: 1; at most 20 epochs)"][1] == [
        ["JAX", "4.50", "7 epochs, 5 of 5 seeds", "-", "0 of 5 seeds"]
    ]
    assert found["Start and size"][:2] == (
        ("config a", "import, s", "first epoch done, s", "peak memory, MB", "installed, MB"),
        [["gpuprop", "-", "-", "250", "-"], ["plain NumPy", "0.10", "1.50", "-", "69"]],
    )


def test_a_report_is_read_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(capsys)
    path, drawn = tmp_path / "p.json", tmp_path / "p.svg"
    machine = {"device": "numpy", "name": "Imaginary", "processors": 2}
    path.write_text(json.dumps(document("peers", machine, ENTRIES)))
    text = cli.run("bench", "peers", "--read", path, "--markdown", "--picture", drawn).out
    assert text.startswith("Imaginary, 2 processors; Python 3.")
    assert "| a: 784-128-10 relu adam, batch 128 | 400.0 | 2.50 | 0.50 |\n" in text
    assert "| training | gpuprop, us an update | PyTorch, times | dense floor, times |\n| --- | ---: |" in text
    assert "microseconds an update" in drawn.read_text()
    assert "400.0" in cli.run("bench", "peers", "--read", path).out
    part = cli.run("bench", "peers", "e1", "--contenders", "gpuprop,torch", "--read", path, "--markdown").out
    assert "| training | gpuprop, us an update | PyTorch, times |\n" in part
    assert [line[:5] for line in part.splitlines() if line.startswith("| ")] == ["| tra", "| ---", "| e1:"]
    one_thread = cli.run("bench", "peers", "a", "--threads", 1, "--read", path, "--markdown").out
    assert "(threads: 1)" in one_thread
    assert "| a: 784-128-10 relu adam, batch 128 | 500.0 | 4.00 | 0.40 |\n" in one_thread
    halves = [tmp_path / "one.json", tmp_path / "two.json"]
    for half, entries in zip(halves, (ENTRIES[:3], ENTRIES[3:]), strict=True):
        half.write_text(json.dumps(document("peers", machine, entries)))
    both = ("bench", "peers", "--markdown", "--read", halves[0], "--read", halves[1])
    assert cli.run(*both).out == text
    halves[1].write_text(json.dumps(document("peers", machine | {"name": "Another"}, ENTRIES[3:])))
    assert "its device differ from those of" in cli.fail(*both).err
    path.write_text("{}")
    assert "not a report of gpuprop bench peers" in cli.fail("bench", "peers", "--read", path).err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["x"], "got CONFIG 'x', expected one or more of a, b, c, d, e1, e32"),
        (["--contenders", "gpuprop,nobody"], "got --contenders 'nobody', expected one or more of gpuprop, "),
        (["--threads", "1,none"], "got --threads '1,none', expected numbers such as 1 or 1,4"),
        (["--only", "speed"], "got --only 'speed', expected one or more of training, inference"),
    ],
)
def test_wrong_options(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint in Cli(capsys).fail("bench", "peers", *arguments).err


def test_the_command_goes_on_after_a_refusal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise GpupropError("these are not the same trainings")

    monkeypatch.setattr(comparison, "training", refuse)
    monkeypatch.setattr(comparison, "memory", lambda contenders: [e for e in ENTRIES if e["subject"] == "memory"])
    path = tmp_path / "r.json"
    result = Cli(capsys)("bench", "peers", "a", "--only", "training,memory", "--threads", 1, "--report", path)
    assert result.status == 1
    assert "1 of the comparisons were refused; the first: a: 784-128-10" in result.err
    assert "250" in result.out
    assert len(json.loads(path.read_text())["results"]) == 1
