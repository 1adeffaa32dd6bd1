"""``gpuprop warm``: what it compiles is what the trainings that it names will need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="without Numba there are no compiled loops")

import gpuprop
from gpuprop.backends.cpu import fused
from gpuprop.datasets import Dataset
from gpuprop.training import warming
from gpuprop.training.from_recipe import network_for, trainer_for
from gpuprop.training.recipes import BUILT_IN, recipe_for
from tests.cli_tools import Cli


class Seen(Exception):  # noqa: N818  (it ends a training before anything is compiled)
    """What a fused training would compile."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def epoch(kind: Any) -> Any:
        raise Seen(kind)

    monkeypatch.setattr(fused, "epoch", epoch)


def kinds_of(name: str, dtype: str, **options: Any) -> set[Any]:
    """Return what `warm` compiles for a kind, and the types of its data."""
    found = set()
    for n_classes in warming.KINDS[name].classes:
        with pytest.raises(Seen) as seen:
            list(warming._warm_one(name, n_classes, dtype, options))
        found.add(seen.value.kind)
    return found


def kind_of(train: Any) -> Any:
    with pytest.raises(Seen) as seen:
        train()
    return seen.value.kind


def arrays(n_classes: int | None, dtype: str = "float64", n_rows: int = 60) -> tuple[Any, Any]:
    random = np.random.default_rng(5)
    y = random.normal(size=n_rows) if n_classes is None else random.permutation(n_rows) % n_classes
    return random.normal(size=(n_rows, 33)).astype(dtype), y


@pytest.fixture
def only_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "_PLANS", ("fused",))


@pytest.mark.usefixtures("uncompiled", "only_fused")
def test_mnist_is_warmed_as_it_is_trained() -> None:
    (X, y), _ = gpuprop.datasets.load_mnist()
    dataset = Dataset("mnist", X[:500], y[:500], "classification", list(range(10)))
    network = network_for(dataset, (dataset.X, dataset.y), BUILT_IN["mnist"], device="cpu")
    trainer = trainer_for(network, BUILT_IN["mnist"], 500, plan="fused")
    assert kinds_of("mnist", "float32") == {kind_of(lambda: trainer.fit(dataset.X, dataset.y))}


@pytest.mark.usefixtures("uncompiled", "only_fused")
def test_files_of_numbers_are_warmed_as_they_are_trained() -> None:
    expected = set()
    for n_classes in (4, 2, None):
        X, y = arrays(n_classes)
        task: Any = "regression" if n_classes is None else "classification"
        dataset = Dataset("file", X, y, task, None if n_classes is None else list(range(n_classes)))
        recipe = recipe_for("file.npy", X)
        trainer = trainer_for(network_for(dataset, (X, y), recipe, device="cpu"), recipe, len(X), plan="fused")
        expected.add(kind_of(lambda trainer=trainer, X=X, y=y: trainer.fit(X, y)))
    assert kinds_of("numbers", "float32") == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("uncompiled", "only_fused")
def test_estimators_are_warmed_as_they_are_fitted(dtype: str) -> None:
    classifier = gpuprop.MLPClassifier(plan="fused", device="cpu", max_iter=2)
    expected = {kind_of(lambda c=c: classifier.fit(*arrays(c, dtype))) for c in (4, 2)}
    assert kinds_of("classifier", dtype) == expected
    regressor = gpuprop.MLPRegressor(plan="fused", device="cpu", max_iter=2)
    assert kinds_of("regressor", dtype) == {kind_of(lambda: regressor.fit(*arrays(None, dtype)))}


@pytest.mark.usefixtures("uncompiled", "only_fused")
def test_tables_are_warmed_as_they_are_fitted() -> None:
    models: list[Any] = [gpuprop.TabularClassifier, gpuprop.TabularRegressor]
    expected = {
        kind_of(lambda m=model, c=c: m(plan="fused", device="cpu").fit(*arrays(c, n_rows=400)))
        for model, c in zip(models, (4, None), strict=True)
    }
    assert kinds_of("tables", "float32") == expected


@pytest.mark.usefixtures("uncompiled", "only_fused")
def test_options_change_a_kind() -> None:
    (kind,) = kinds_of("mnist", "float64", activation=("tanh",), optimizer="sgd", l1=0.1, dropout=(0.0, 0.5))
    assert (kind.hidden, kind.optimizer) == ((("tanh", False),), "sgd")
    assert (kind.dtype, kind.penalised, kind.dropped) == (np.float64, True, True)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("zeros", [False, True])
def test_ensembles_compile_nothing_more(monkeypatch: pytest.MonkeyPatch, zeros: bool) -> None:
    from gpuprop.backends.cpu.compiling import counted

    monkeypatch.setattr(warming, "_PLANS", ("steps",))
    made = list(warming._warm_one("classifier", 3, "float32", {}))
    assert [(one.plan, one.fault) for one in made] == [("steps", None), ("joint", None)]
    X, y = arrays(3, "float32")
    X[:, 5:] *= not zeros
    model = gpuprop.MLPEnsemble(gpuprop.MLPClassifier(device="cpu", max_iter=2, batch_size=20), 3, random_state=0)
    monkeypatch.setattr("gpuprop.backends.cpu.joint_plan.not_worth_joining", lambda trainings: None)
    with counted() as names:
        model.fit(X, y)
    assert model.estimators_[0].plan_.startswith("joint")
    assert not names


def test_what_cannot_be_trained_together_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "_PLANS", ())
    (made,) = warming._warm_one("regressor", None, "float32", {"hidden": (2049, 2049), "dropout": (0.0, 0.0, 0.0)})
    fault = "plan 'joint': two neighbouring layers have more than 2,048 units each, which BLAS multiplies faster"
    assert (made.compiled, made.fault) == (0, fault)


def test_the_command_says_what_it_compiled_and_where_it_lies(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warming, "_PLANS", ("steps",))
    cli = Cli(capsys)
    first, second = (cli.run("warm", "mnist").out.splitlines() for _ in range(2))
    said = r"mnist, 10 classes, float32, steps: (was there already|\d+ functions? compiled in \d+\.\d s)"
    assert re.fullmatch(said, first[0])
    assert second[0].endswith("was there already")
    assert second[1].startswith("0 functions compiled")
    assert all(Path(line.removeprefix("kept in ")).is_dir() for line in second[2:])
    assert len(second) > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnits"], "unknown kind 'mnits'; did you mean 'mnist'"),
        (["mnist", "--dtype", "float16"], "--dtype: got 'float16'"),
        (["mnist", "--optimizer", "adams"], "unknown optimizer 'adams'"),
        (["tables", "--loss", "hinge"], "unknown loss 'hinge'"),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    result = Cli(capsys).fail("warm", *arguments)
    assert result.status == 2
    assert message in result.err


def test_without_compiled_loops_there_is_nothing_to_warm(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warming, "loops_fault", lambda: "Numba is not installed")
    assert "there is nothing to compile" in Cli(capsys).fail("warm").err
