"""What the estimators offer beyond scikit-learn's."""

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import neural_network
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.class_weight import compute_sample_weight

import gpuprop
from gpuprop import MLPClassifier, MLPRegressor
from gpuprop.maths import optimizers, schedules
from gpuprop.maths.activations import ACTIVATIONS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FAST: dict[str, Any] = {"hidden_layer_sizes": (8,), "learning_rate_init": 0.02, "max_iter": 12, "random_state": 0}


@pytest.fixture(scope="module")
def classes() -> Any:
    return make_classification(90, 6, n_informative=4, n_classes=3, weights=[0.7, 0.2], random_state=1)


@pytest.fixture(scope="module")
def numbers() -> Any:
    X, y = make_regression(90, 5, noise=5.0, random_state=1)
    return X, y / np.abs(y).max()


# --- epochs, history, callbacks ------------------------------------------------------------------------------------


def test_max_epochs_is_max_iter(classes: Any) -> None:
    parameters = FAST | {"max_iter": 200}
    model = MLPClassifier(max_epochs=4, **parameters).fit(*classes)
    expected = MLPClassifier(**FAST | {"max_iter": 4}).fit(*classes)
    assert model.n_iter_ == 4
    assert model.loss_curve_ == expected.loss_curve_
    with pytest.raises(ValueError, match="set only one"):
        MLPClassifier(max_epochs=4, max_iter=5).fit(*classes)
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(4\)"):
        MLPClassifier(max_epochs=4, **parameters).fit(*classes)


def test_history_has_training_and_validation_curves(classes: Any) -> None:
    X, y = classes
    model = MLPClassifier(**FAST).fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    assert list(model.history_) == [
        "epoch",
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "learning_rate",
        "seconds",
    ]
    assert {len(column) for column in model.history_.values()} == {12}
    assert model.history_["validation_accuracy"][-1] == pytest.approx(model.score(X[60:], y[60:]))
    without = MLPClassifier(**FAST).fit(X[:60], y[:60])
    assert without.loss_curve_ == model.loss_curve_  # looking on changes nothing
    assert without.history_["validation_loss"] == [None] * 12


def test_validation_loss_contains_the_penalty_that_the_training_loss_contains(numbers: Any) -> None:
    """Validated on the training data and hardly moving, both losses are one number."""
    X, y = numbers
    settings = FAST | {"alpha": 3.0, "l1": 0.5, "solver": "sgd", "learning_rate_init": 1e-9, "max_iter": 1}
    model = MLPRegressor(batch_size=30, **settings).fit(X, y, X_val=X, y_val=y)
    assert model.history_["validation_loss"] == pytest.approx(model.history_["train_loss"], rel=1e-6)


def test_early_stopping_watches_the_validation_set_that_is_given(classes: Any) -> None:
    X, y = classes
    model = MLPClassifier(early_stopping=True, n_iter_no_change=2, **FAST | {"max_iter": 100})
    model.fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    assert model.t_ == 60 * model.n_iter_  # nothing was held out
    assert model.score(X[60:], y[60:]) == model.best_validation_score_ == max(model.validation_scores_ or [])


def test_validation_data_are_checked(classes: Any) -> None:
    X, y = classes
    with pytest.raises(ValueError, match="only one of X_val and y_val"):
        MLPClassifier(**FAST).fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="features"):
        MLPClassifier(**FAST).fit(X, y, X_val=X[:, :2], y_val=y)
    with pytest.raises(ValueError, match="classes not in"):
        MLPClassifier(**FAST).fit(X, y, X_val=X, y_val=y + 1)


def test_validation_data_need_not_have_every_class(classes: Any) -> None:
    X, y = classes
    model = MLPClassifier(warm_start=True, **FAST).fit(X, y, X_val=X[y == 0], y_val=y[y == 0])
    model.fit(X, y, X_val=X[y == 0], y_val=y[y == 0])
    assert len(model.history_["validation_loss"]) == 24


def test_callbacks_are_called_and_may_stop(classes: Any) -> None:
    class StopAtThree(gpuprop.Callback):
        def on_epoch_end(self, trainer: Any, epoch: int, record: Any) -> None:
            if epoch == 3:
                trainer.stop_training()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert MLPClassifier(callbacks=[StopAtThree()], **FAST).fit(*classes).n_iter_ == 3


def test_scikit_learns_scoring_monitor_and_stop(classes: Any) -> None:
    callback = pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from 1.9 on")
    X, y = classes
    monitor = callback.ScoringMonitor(scoring="accuracy")
    model = MLPClassifier(**FAST).set_callbacks(monitor).fit(X, y)
    scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 12
    assert scores[-1] == model.score(X, y)
    assert model.loss_curve_ == MLPClassifier(**FAST).fit(X, y).loss_curve_

    class StopAtThree(Recorder):
        def on_fit_task_end(self, estimator: Any, context: Any) -> bool:
            super().on_fit_task_end(estimator, context)
            return bool(context.task_id == 2)

    stopper = StopAtThree()
    assert MLPClassifier(**FAST).set_callbacks(stopper).fit(X, y).n_iter_ == 3
    assert stopper.heard == ["setup", *["begin", "begin", "end", "begin", "end", "begin", "end", "end"], "teardown"]


class Recorder:
    """The least that makes a callback of scikit-learn 1.9."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def setup(self, estimator: Any, context: Any) -> None:
        self.heard.append("setup")

    def teardown(self, estimator: Any, context: Any) -> None:
        self.heard.append("teardown")

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        self.heard.append("begin")

    def on_fit_task_end(self, estimator: Any, context: Any) -> bool:
        self.heard.append("end")
        return False


# --- activations, optimizers, schedules ----------------------------------------------------------------------------


def test_an_activation_for_each_layer(numbers: Any) -> None:
    X, y = numbers
    settings = FAST | {"hidden_layer_sizes": (5, 4, 3)}
    model = MLPRegressor(activation=["tanh", "leaky_relu(0.2)", gpuprop.activations.get_activation("silu")], **settings)
    model.fit(X, y)
    assert [a.name for a in model.network_.hidden_activations] == ["tanh", "leaky_relu(0.2)", "silu"]
    same = MLPRegressor(activation=["tanh"] * 3, **settings).fit(X, y)
    assert same.loss_curve_ == MLPRegressor(activation="tanh", **settings).fit(X, y).loss_curve_
    with pytest.raises(ValueError, match="one for each of the 3 hidden layers"):
        MLPRegressor(activation=["tanh"], **settings).fit(X, y)


@pytest.mark.parametrize("activation", sorted({*ACTIVATIONS} - {"identity", "logistic", "tanh", "relu"}))
def test_further_activations_learn(activation: Any, classes: Any) -> None:
    assert MLPClassifier(activation=activation, **FAST | {"max_iter": 40}).fit(*classes).score(*classes) > 0.75


@pytest.mark.parametrize("solver", sorted({*optimizers.OPTIMIZERS} - {"sgd", "nesterov", "adam"}))
def test_further_solvers_learn(solver: Any, numbers: Any) -> None:
    model = MLPRegressor(solver=solver, **FAST | {"learning_rate_init": None, "max_iter": 40}).fit(*numbers)
    assert model.history_["learning_rate"][0] == optimizers.OPTIMIZERS[solver].default_learning_rate
    assert model.loss_curve_[-1] < 0.99 * model.loss_curve_[0]


def test_an_optimizer_object_and_its_name_are_one(numbers: Any) -> None:
    by_name = MLPRegressor(solver="nadam", beta_1=0.8, **FAST).fit(*numbers)
    by_object = MLPRegressor(solver=optimizers.NAdam(beta_1=0.8), **FAST).fit(*numbers)
    assert by_name.loss_curve_ == by_object.loss_curve_
    assert by_name.loss_curve_ != MLPRegressor(solver="nadam", **FAST).fit(*numbers).loss_curve_


def test_schedules_set_the_rate_of_each_epoch(numbers: Any) -> None:
    model = MLPRegressor(learning_rate=schedules.Exponential(gamma=0.5), **FAST).fit(*numbers)
    np.testing.assert_allclose(model.history_["learning_rate"], 0.02 * 0.5 ** np.arange(12))
    cosine = MLPRegressor(learning_rate="cosine", **FAST).fit(*numbers).history_["learning_rate"]
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[-1] < 0.001


def test_a_schedule_goes_on_over_partial_fits(numbers: Any) -> None:
    model = MLPRegressor(learning_rate=schedules.Exponential(gamma=0.5), **FAST)
    for _ in range(3):
        model.partial_fit(*numbers)
    np.testing.assert_allclose(model.history_["learning_rate"], [0.02, 0.01, 0.005])


# --- regularisation ------------------------------------------------------------------------------------------------


def test_l1_is_divided_as_alpha_is(numbers: Any) -> None:
    """One step of plain gradient descent from scikit-learn's: the difference is the rate times l1 sign(W) / n."""
    X, y = numbers
    settings = FAST | {"solver": "sgd", "momentum": 0.0, "max_iter": 1, "batch_size": 90, "alpha": 0.0}
    plain = neural_network.MLPRegressor(**settings).fit(X, y)
    model = MLPRegressor(l1=2.0, **settings).fit(X, y)
    bound = np.sqrt(6 / 13)
    initial = np.random.RandomState(0).uniform(-bound, bound, (5, 8))
    np.testing.assert_allclose(model.coefs_[0] - plain.coefs_[0], -0.02 * 2.0 / 90 * np.sign(initial), atol=1e-14)


def test_l1_makes_weights_small(numbers: Any) -> None:
    settings = FAST | {"max_iter": 150}
    free, sparse = (MLPRegressor(l1=l1, **settings).fit(*numbers) for l1 in (0.0, 5.0))
    assert np.abs(sparse.coefs_[0]).sum() < 0.7 * np.abs(free.coefs_[0]).sum()


def test_weight_decay_is_adamw(numbers: Any) -> None:
    model = MLPRegressor(weight_decay=0.3, **FAST).fit(*numbers)
    expected = MLPRegressor(solver=optimizers.AdamW(weight_decay=0.3), **FAST).fit(*numbers)
    assert model.loss_curve_ == expected.loss_curve_ != MLPRegressor(**FAST).fit(*numbers).loss_curve_
    with pytest.raises(ValueError, match="weight_decay"):
        MLPRegressor(weight_decay=0.3, solver="sgd").fit(*numbers)


def test_dropout_is_seeded_and_only_in_training(numbers: Any) -> None:
    X, y = numbers
    models = [MLPRegressor(dropout=(0.1, 0.5), **FAST | {"random_state": seed}).fit(X, y) for seed in (0, 0, 1)]
    assert models[0].network_.dropout == (0.1, 0.5)
    assert models[0].loss_curve_ == models[1].loss_curve_
    assert models[0].network_.seed != models[2].network_.seed
    assert models[0].loss_curve_ != MLPRegressor(**FAST).fit(X, y).loss_curve_
    np.testing.assert_array_equal(models[0].predict(X), models[0].predict(X))


def test_clip_norm_bounds_the_step(numbers: Any) -> None:
    X, y = numbers
    settings = FAST | {"solver": "sgd", "momentum": 0.0, "max_iter": 1, "batch_size": 90, "learning_rate_init": 1.0}
    model = MLPRegressor(clip_norm=0.01, **settings).fit(X, y)
    before = MLPRegressor(**settings | {"learning_rate_init": 1e-300}).fit(X, y)
    step = model.network_.parameters - before.network_.parameters
    assert np.linalg.norm(step) == pytest.approx(0.01, rel=1e-9)


@pytest.mark.parametrize("parameters", [{"dropout": 0.5}, {"clip_norm": 1.0}, {"callbacks": [gpuprop.Callback()]}])
def test_what_lbfgs_cannot_do_is_refused(parameters: Any, numbers: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(parameters))):
        MLPRegressor(solver="lbfgs", **parameters).fit(*numbers)
    with pytest.raises(ValueError, match="X_val"):
        MLPRegressor(solver="lbfgs").fit(*numbers, X_val=numbers[0], y_val=numbers[1])


# --- weights of classes, smoothed labels, losses -------------------------------------------------------------------


@pytest.mark.parametrize("class_weight", ["balanced", {0: 1.0, 1: 2.0, 2: 5.0}])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_class_weights_are_sample_weights(class_weight: Any, solver: Any, classes: Any) -> None:
    X, y = classes
    own = np.random.default_rng(0).uniform(0.5, 2, 90)
    model = MLPClassifier(class_weight=class_weight, solver=solver, **FAST).fit(X, y, own)
    expected = MLPClassifier(solver=solver, **FAST).fit(X, y, own * compute_sample_weight(class_weight, y))
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


def test_balanced_weights_need_all_classes(classes: Any) -> None:
    X, y = classes
    with pytest.raises(ValueError, match="balanced"):
        MLPClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1, 2])


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_label_smoothing_keeps_outputs_from_saturating(kind: Any, classes: Any) -> None:
    """Trained to the end, the probability of the right class is 1 - s + s / K."""
    if kind == "multilabel":
        X, y = make_multilabel_classification(40, 30, n_classes=3, random_state=0)
    else:
        X, y = make_classification(40, 30, n_informative=9, n_classes=3 if kind == "multiclass" else 2, random_state=0)
    settings: dict[str, Any] = {"solver": "lbfgs", "alpha": 0.0, "max_iter": 400, "random_state": 0}
    proba = MLPClassifier(label_smoothing=0.2, **settings).fit(X, y).predict_proba(X)
    high = 1 - 0.2 + 0.2 / (3 if kind == "multiclass" else 2)
    right = proba[y == 1] if kind == "multilabel" else proba[np.arange(len(y)), y]
    np.testing.assert_allclose(right, high, atol=0.02)


def test_label_smoothing_leaves_scores_alone(classes: Any) -> None:
    model = MLPClassifier(label_smoothing=0.1, early_stopping=True, **FAST).fit(*classes)
    assert max(model.validation_scores_ or []) > 0.5
    assert 0.5 < model.history_["train_accuracy"][-1] <= 1.0


@pytest.mark.parametrize(
    ("loss", "expected"), [("absolute_error", 0.5), ("huber(0.01)", 0.5), ("pinball(0.9)", 0.9), ("pinball(0.2)", 0.2)]
)
def test_robust_losses_predict_quantiles(loss: Any, expected: Any) -> None:
    """A constant that is fitted to numbers from 0 to 1: the median, or the quantile that was asked for."""
    y = np.append(np.linspace(0, 1, 101)[:-1], 1e3)  # the outlier counts as one number above all others
    model = MLPRegressor(
        loss, (), learning_rate_init=0.01, max_iter=600, random_state=0, tol=0.0, n_iter_no_change=600, alpha=0.0
    ).fit(np.zeros((101, 1)), y)
    assert model.out_activation_ == "identity"
    assert model.predict([[0.0]])[0] == pytest.approx(expected, abs=0.03)


def test_losses_of_classifications_are_refused(numbers: Any) -> None:
    with pytest.raises(ValueError, match="expected a loss for regression"):
        MLPRegressor("binary_cross_entropy").fit(*numbers)
    with pytest.raises(ValueError, match="did you mean 'huber'"):
        MLPRegressor("hubert").fit(*numbers)


# --- device and dtype ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", np.float64, np.dtype("float32")])
def test_dtype_can_be_chosen(dtype: Any, classes: Any) -> None:
    X, y = classes
    for data in (X, X.astype(np.float32)):
        model = MLPClassifier(dtype=dtype, **FAST).fit(data, y)
        assert model.predict_proba(data).dtype == np.dtype(dtype)
    with pytest.raises(ValueError, match="dtype"):
        MLPClassifier(dtype="float16").fit(X, y)


def test_device_is_chosen_and_told(classes: Any) -> None:
    model = MLPClassifier(device="numpy", **FAST).fit(*classes)
    assert (model.device_, model.backend_) == ("numpy", "numpy")
    with pytest.raises(ValueError, match="did you mean"):
        MLPClassifier(device="gpu").fit(*classes)


def test_plan_is_chosen_and_told(classes: Any, tmp_path: Any) -> None:
    model = MLPClassifier(device="numpy", **FAST)
    with pytest.raises(AttributeError, match="plan_"):
        _ = model.plan_
    model.fit(*classes)
    assert model.plan_.startswith("steps")
    asked = MLPClassifier(device="numpy", plan="steps", **FAST).fit(*classes)
    assert asked.plan_.startswith("steps")
    assert asked.loss_curve_ == model.loss_curve_
    for name, one in (("a", model), ("b", asked)):
        one.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    asked.partial_fit(*classes)
    assert asked.plan_.startswith("steps")
    lbfgs = MLPClassifier(solver="lbfgs", **FAST).fit(*classes)
    assert lbfgs.plan_ == "lbfgs: SciPy's L-BFGS-B over the whole data set"


def test_fused_path_is_taken_where_it_is_asked_for(classes: Any) -> None:
    pytest.importorskip("numba", reason="without Numba the CPU has no fused path")
    fused = MLPClassifier(device="cpu", plan="fused", **FAST).fit(*classes)
    assert fused.plan_.startswith("fused")
    steps = MLPClassifier(device="cpu", plan="steps", **FAST).fit(*classes)
    assert steps.plan_.startswith("steps")
    np.testing.assert_allclose(fused.loss_curve_, steps.loss_curve_, rtol=1e-9)


def test_path_that_cannot_serve_is_refused(classes: Any) -> None:
    with pytest.raises(ValueError, match="steps"):
        MLPClassifier(plan="nonsense", **FAST).fit(*classes)
    with pytest.raises(ValueError, match="'plan' parameter"):
        MLPClassifier(plan=3, **FAST).fit(*classes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no meaning with solver 'lbfgs'"):
        MLPClassifier(solver="lbfgs", plan="fused", **FAST).fit(*classes)


@pytest.mark.usefixtures("all_threads")
def test_threads_are_limited_during_a_fit(classes: Any) -> None:
    from gpuprop.backends.threads import blas_threads

    class Watch(gpuprop.Callback):
        seen: list[int] = []  # noqa: RUF012  (of all copies)

        def on_step_end(self, trainer: Any, epoch: Any, step: Any) -> None:
            Watch.seen.append(blas_threads())

    before = blas_threads()
    one = MLPClassifier(n_threads=1, callbacks=[Watch()], device="cpu", **FAST).fit(*classes)
    assert set(Watch.seen) == {1}
    assert blas_threads() == before
    assert one.loss_curve_ == MLPClassifier(device="cpu", **FAST).fit(*classes).loss_curve_
    with pytest.raises(ValueError, match="n_threads"):
        MLPClassifier(n_threads=0).fit(*classes)


@pytest.mark.usefixtures("all_threads")
def test_threads_are_limited_while_lbfgs_searches(classes: Any, monkeypatch: Any) -> None:
    from gpuprop.backends.threads import blas_threads
    from gpuprop.estimators import lbfgs

    seen = []
    minimize = lbfgs.minimize

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(blas_threads())
        return minimize(*arguments, **options)

    monkeypatch.setattr(lbfgs, "minimize", watched)
    MLPClassifier(solver="lbfgs", n_threads=1, **FAST).fit(*classes)
    assert seen == [1]


def test_the_network_can_be_looked_into(classes: Any) -> None:
    X, y = classes
    model = MLPClassifier(hidden_layer_sizes=(4,), activation="tanh", max_iter=3, random_state=0).fit(X, y)
    assert gpuprop.check_gradients(model.network_, X, y).passed
