"""A call that fails or is interrupted leaves estimators as sound as if it had never been made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import NotFittedError

import gpuprop
from gpuprop import MLPClassifier, MLPEnsemble, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

DIVERGES = "Solver produced non-finite parameter weights"


def batches(kind: str, n: int = 4) -> list[tuple[Any, Any]]:
    if kind == "classifier":
        X, y = make_classification(33 * n, 7, n_informative=5, n_classes=3, random_state=0)
    else:
        X, y = make_regression(33 * n, 7, n_targets=2, noise=1.0, random_state=0)
        y = y / np.abs(y).max()
    return [(X[i::n], y[i::n]) for i in range(n)]


def model_of(kind: str, **parameters: Any) -> Any:
    given: dict[str, Any] = {
        "hidden_layer_sizes": (9,),
        "batch_size": 10,
        "learning_rate_init": 0.02,
        "device": "cpu",
    } | parameters
    return (MLPClassifier if kind == "classifier" else MLPRegressor)(**given)


def train(model: Any, batch: tuple[Any, Any]) -> Any:
    options = {"classes": [0, 1, 2]} if isinstance(model, MLPClassifier) else {}
    return model.partial_fit(*batch, **options)


def poisoned(batch: tuple[Any, Any]) -> tuple[Any, Any]:
    """Rows on which the training diverges, but not in its first update."""
    X, y = batch
    return np.where(np.arange(len(X))[:, None] < 3, 1.7e308, X), y


def facts(model: Any) -> dict[str, Any]:
    """Return all that a later call depends on or shows, but times, as plain values."""
    found = {name: value for name, value in vars(model).items() if name not in ("network_", "callbacks", "_progress")}
    if "history_" in found:
        found["history_"] = {name: list(rows) for name, rows in found["history_"].items() if name != "seconds"}
    for name in ("random_state", "order_random_state"):
        if isinstance(found[name], np.random.RandomState):
            found[name] = found[name].get_state(legacy=False)
    if hasattr(model, "network_"):
        progress = model._progress
        found["parameters"] = model.network_.host_parameters()
        found["optimizer"] = progress.optimizer_state
        found["counters"] = progress.epochs_done, progress.steps_done
    found.pop("_label_binarizer", None)
    return found


def assert_equal(found: Any, expected: Any) -> None:
    np.testing.assert_equal(facts(found), facts(expected))


SGD = {"random_state": lambda: np.random.RandomState(3), "solver": "sgd", "learning_rate": "invscaling"}
DROPOUT = {"random_state": 1, "order_random_state": lambda: np.random.RandomState(4), "dropout": 0.2}


@pytest.mark.parametrize(
    ("kind", "plan", "parameters"),
    [
        ("classifier", "fused", {"random_state": 0}),
        ("regressor", "fused", {"random_state": 0}),
        ("classifier", "steps", SGD),
        ("regressor", "steps", DROPOUT),
    ],
    ids=["classifier", "regressor", "sgd", "dropout"],
)
def test_a_batch_that_diverges_leaves_no_trace(kind: str, plan: str, parameters: dict[str, Any]) -> None:
    def model() -> Any:
        given = {name: value() if callable(value) else value for name, value in parameters.items()}
        return model_of(kind, plan=plan, **given)

    poisoned_one, calm = model(), model()
    first, second, *later = batches(kind)
    for one in (poisoned_one, calm):
        train(train(one, first), second)
    for _ in range(2):
        with pytest.raises(ValueError, match=DIVERGES):
            train(poisoned_one, poisoned(first))
        assert_equal(poisoned_one, calm)
    for batch in (*later, first):
        assert_equal(train(poisoned_one, batch), train(calm, batch))


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_a_first_batch_that_diverges_leaves_nothing(kind: str) -> None:
    model = model_of(kind, random_state=np.random.RandomState(0))
    calm = model_of(kind, random_state=np.random.RandomState(0))
    first, second, *_ = batches(kind)
    with pytest.raises(ValueError, match=DIVERGES):
        train(model, poisoned(first))
    assert_equal(model, calm)
    with pytest.raises(NotFittedError):
        model.predict(first[0])
    if kind == "classifier":
        with pytest.raises(ValueError, match="classes must be passed on the first call"):
            model.partial_fit(*first)
    for batch in (first, second):
        assert_equal(train(model, batch), train(calm, batch))


def test_gradients_whose_squares_overflow_leave_no_trace() -> None:
    """The parameters stay finite, and would never move again: Adam divides by the root of infinity."""
    model, calm = model_of("classifier", random_state=0), model_of("classifier", random_state=0)
    first, second, *_ = batches("classifier")
    for one in (model, calm):
        train(one, first)
    with pytest.raises(ValueError, match="the optimizer's memory of the gradients became infinite"):
        train(model, (1e200 * second[0], second[1]))
    assert_equal(model, calm)
    assert_equal(train(model, second), train(calm, second))


def test_the_generator_of_numpy_itself_is_put_back() -> None:
    first, *_ = batches("regressor")
    model = train(model_of("regressor"), first)
    np.random.seed(5)  # noqa: NPY002  (scikit-learn's random_state=None)
    with pytest.raises(ValueError, match=DIVERGES):
        train(model, poisoned(first))
    expected = np.random.RandomState(5).get_state(legacy=False)
    np.testing.assert_equal(np.random.get_state(legacy=False), expected)  # noqa: NPY002


def test_any_other_error_leaves_no_trace_either() -> None:
    class Fail(gpuprop.Callback):
        def on_epoch_end(self, trainer: Any, epoch: Any, record: Any) -> None:
            raise OSError("boom")

    first, second, *_ = batches("classifier")
    model, calm = model_of("classifier", random_state=0), model_of("classifier", random_state=0)
    for one in (model, calm):
        train(one, first)
    with pytest.raises(ValueError, match="classes not in"):
        model.partial_fit(second[0], second[1] + 7)
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(second[0][:, :3], second[1])
    assert_equal(model, calm)
    model.set_params(callbacks=[Fail()])
    with pytest.raises(OSError, match="boom"):
        train(model, second)
    model.set_params(callbacks=None)
    assert_equal(model, calm)
    assert_equal(train(model, second), train(calm, second))


class Interrupt(gpuprop.Callback):
    """Ctrl-C at an update of an epoch, and only there."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = epoch, step

    def on_step_end(self, trainer: Any, epoch: int, step: int) -> None:
        if (epoch, step) == self.at:
            self.at = 0, 0
            raise KeyboardInterrupt


@pytest.mark.parametrize(("kind", "plan"), [("classifier", "steps"), ("regressor", "fused")])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_after_an_interrupted_fit_parameters_and_optimizer_belong_together(
    kind: str, plan: str, early_stopping: bool
) -> None:
    (X, y), *later = batches(kind)
    given = {"plan": plan, "early_stopping": early_stopping, "n_iter_no_change": 50}

    def generator() -> np.random.RandomState:
        return np.random.RandomState(0)

    model = model_of(kind, random_state=generator(), callbacks=[Interrupt(4, 2)], max_iter=9, **given)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, y)
    watched = [Interrupt(0, 0)]  # the same path
    short = model_of(kind, random_state=generator(), max_iter=3, callbacks=watched, **given).fit(X, y)
    short.set_params(max_iter=9)
    assert_equal(model, short)
    for one in (model, short):
        one.set_params(early_stopping=False)
    for batch in later:
        assert_equal(train(model, batch), train(short, batch))


@pytest.mark.parametrize("plan", ["steps", "fused"])
def test_an_interrupted_partial_fit_has_trained_nothing(plan: str) -> None:
    def model(*callbacks: Any) -> Any:
        return model_of("regressor", plan=plan, random_state=np.random.RandomState(0), callbacks=list(callbacks))

    first, second, *later = batches("regressor")
    stopped, calm = model(Interrupt(2, 2)), model(Interrupt(0, 0))
    for one in (stopped, calm):
        train(one, first)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        train(stopped, second)
    assert stopped.n_iter_ == 0
    for batch in later:
        assert_equal(train(stopped, batch), train(calm, batch))


def test_an_ensemble_that_fails_keeps_its_earlier_members() -> None:
    (X, y), *_ = batches("regressor")
    ensemble = MLPEnsemble(model_of("regressor", max_iter=3), n_networks=3, random_state=0).fit(X, y)
    before = ensemble.predict(X)
    members = ensemble.estimators_
    with pytest.raises(ValueError, match=DIVERGES):
        ensemble.fit(poisoned((X, y))[0][:, :5], y)
    assert ensemble.estimators_ is members
    np.testing.assert_array_equal(ensemble.predict(X), before)
    with pytest.raises(ValueError, match=DIVERGES):
        clone(ensemble).fit(*poisoned((X, y)))
