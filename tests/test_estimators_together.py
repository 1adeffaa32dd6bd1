"""Networks trained together are the networks that they are alone: MLPEnsemble, search, and what leads them."""

import warnings
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.datasets import (
    load_breast_cancer,
    load_iris,
    load_wine,
    make_classification,
    make_multilabel_classification,
    make_regression,
)
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

import gpuprop
from gpuprop import MLPClassifier, MLPEnsemble, MLPRegressor
from gpuprop.backends.cpu.ops import compiled_loops
from gpuprop.estimators.members import Job, fit_together
from gpuprop.measure.equivalence.tolerances import CURVE

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
needs_loops = pytest.mark.skipif(
    compiled_loops() is None, reason="without Numba's loops networks are trained one after the other"
)


@pytest.fixture
def joint_runs(monkeypatch: Any) -> list[int]:
    """How many networks made their updates together; filled while trainings run, however short they are."""
    from gpuprop.backends.cpu import joint, joint_plan

    runs: list[int] = []
    run = joint.JointUpdates.run

    def counted(self: Any, first: int, last: int) -> None:
        runs.append(len(self._epochs))
        run(self, first, last)

    monkeypatch.setattr(joint.JointUpdates, "run", counted)
    monkeypatch.setattr(joint_plan, "not_worth_joining", lambda trainings: None)
    return runs


def data_of(kind: Any) -> Any:
    if kind == "binary":
        return make_classification(101, 7, random_state=1)
    if kind == "multiclass":
        return make_classification(101, 7, n_informative=5, n_classes=3, random_state=2)
    if kind == "multilabel":
        return make_multilabel_classification(101, 7, n_classes=4, random_state=3)
    X, y = make_regression(101, 7, n_targets=3, noise=1.0, random_state=4)
    return X, np.exp(y / np.abs(y).max())


def model_of(kind: Any, **parameters: Any) -> Any:
    given: dict[str, Any] = {
        "hidden_layer_sizes": (17, 7),
        "batch_size": 33,
        "max_iter": 20,
        "learning_rate_init": 0.02,
    } | parameters
    return (MLPRegressor if kind == "regression" else MLPClassifier)(device="cpu", **given)


def assert_same(together: Any, alone: Any, rtol: float = CURVE[np.dtype(np.float64)]) -> None:
    assert together.n_iter_ == alone.n_iter_
    assert together.t_ == alone.t_
    np.testing.assert_allclose(together.loss_curve_, alone.loss_curve_, rtol=rtol)
    for own, expected in zip(together.coefs_ + together.intercepts_, alone.coefs_ + alone.intercepts_, strict=True):
        np.testing.assert_allclose(own, expected, rtol=rtol, atol=rtol)
    for column, values in alone.history_.items():
        if column != "seconds" and None not in values:
            np.testing.assert_allclose(together.history_[column], values, rtol=rtol, atol=rtol)
    assert together.history_.keys() == alone.history_.keys()
    state, expected_state = together._progress.optimizer_state, alone._progress.optimizer_state
    assert state.keys() == expected_state.keys()
    for name, values in expected_state.items():
        np.testing.assert_allclose(state[name], values, rtol=rtol, atol=rtol)


def fit_all(models: Any, X: Any, y: Any, **options: Any) -> None:
    """Fit the models together, and compare each with its copy fitted alone."""
    alone = [clone(model).fit(X, y, **options) for model in models]
    outcomes = list(fit_together(Job(model, X, y, options) for model in models))
    assert [outcome.error for outcome in outcomes] == [None] * len(models)
    for model, expected in zip(models, alone, strict=True):
        assert_same(model, expected)


# --- the updates -----------------------------------------------------------------------------------------------------


@needs_loops
@pytest.mark.parametrize("shared", [True, False], ids=["shared order", "own orders"])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_each_is_the_network_trained_alone(kind: Any, shared: Any, joint_runs: Any) -> None:
    order = {"order_random_state": 5} if shared else {}
    loss = {"loss": "poisson"} if kind == "regression" else {}
    fit_all([model_of(kind, random_state=seed, max_iter=4, **order, **loss) for seed in range(3)], *data_of(kind))
    assert set(joint_runs) == {3}


@needs_loops
@pytest.mark.parametrize("sizes", [(), (1,), (7, 1, 33)], ids=str)
def test_each_size_of_layers(sizes: Any, joint_runs: Any) -> None:
    X, y = data_of("multiclass")
    for order in (5, None):
        models = [
            model_of(
                "multiclass", hidden_layer_sizes=sizes, random_state=seed, order_random_state=order, batch_size=size
            )
            for size in (1, 17, 101)
            for seed in range(2)
        ]
        fit_all([model.set_params(max_iter=2) for model in models], X, y)
    assert set(joint_runs) == {2}


@needs_loops
def test_large_batches_are_shared_or_trained_alone(joint_runs: Any) -> None:
    X, y = make_classification(300, 5, random_state=1)
    for order in (5, None):
        fit_all(
            [
                model_of("binary", random_state=s, order_random_state=order, batch_size=257, max_iter=2)
                for s in range(2)
            ],
            X,
            y,
        )
    assert set(joint_runs) == {2}


@needs_loops
def test_penalties_rates_and_hyperparameters_are_each_networks_own(joint_runs: Any) -> None:
    X, y = data_of("multiclass")
    own: list[dict[str, Any]] = [
        {"alpha": 0.0},
        {"alpha": 1.0, "learning_rate_init": 0.05},
        {"l1": 0.1, "beta_1": 0.5},
        {"class_weight": "balanced"},
        {"learning_rate": "cosine"},
    ]
    fit_all([model_of("multiclass", random_state=0, activation="tanh", **parameters) for parameters in own], X, y)
    assert set(joint_runs) == {5}


@needs_loops
@pytest.mark.parametrize("solver", ["sgd", "adamw", "adadelta"])
def test_optimizers_with_no_one_and_two_memories(solver: Any, joint_runs: Any) -> None:
    """More than 32 updates, so that subnormal numbers are flushed; adamw decays the weights and not the biases."""
    X, y = data_of("regression")
    weight_decay = {"weight_decay": 0.1} if solver == "adamw" else {}
    models = [model_of("regression", solver=solver, random_state=seed, **weight_decay) for seed in range(2)]
    if solver == "sgd":
        models += [model_of("regression", solver=gpuprop.optimizers.SGD(), random_state=seed) for seed in range(2)]
    fit_all(models, X, y)
    assert set(joint_runs) == {2}


@needs_loops
def test_sample_weights_activations_that_need_z_and_float32(joint_runs: Any) -> None:
    X, y = data_of("multiclass")
    weight = np.random.default_rng(0).uniform(0, 2, len(y))
    weight[:40] = 0.0
    models = [model_of("multiclass", random_state=s, activation=["gelu", "elu"], max_iter=5) for s in (1, 1, 2)]
    models[1].alpha = 1.0
    fit_all(models, X, y, sample_weight=weight)
    assert set(joint_runs) == {3}

    del joint_runs[:]
    single = [model_of("multiclass", random_state=s, max_iter=5) for s in (1, 2)]
    alone = [clone(model).fit(X.astype(np.float32), y) for model in single]
    list(fit_together(Job(model, X.astype(np.float32), y) for model in single))
    for model, expected in zip(single, alone, strict=True):
        assert model.coefs_[0].dtype == np.float32
        assert_same(model, expected, rtol=CURVE[np.dtype(np.float32)])
    assert set(joint_runs) == {2}


@needs_loops
def test_sparse_rows_and_rows_of_their_own(joint_runs: Any) -> None:
    X, y = data_of("multiclass")
    X = sparse.csr_array(np.where(np.abs(X) > 1, X, 0.0))
    fit_all([model_of("multiclass", random_state=0, alpha=alpha) for alpha in (0.1, 1.0)], X, y)
    assert not joint_runs  # one after the other: the loops read dense rows
    X = X.toarray()
    folds = [rows for rows, _ in KFold(3).split(y[:99])]
    models = [model_of("multiclass", random_state=0) for _ in folds]
    list(fit_together(Job(model, X[rows], y[rows]) for model, rows in zip(models, folds, strict=True)))
    for model, rows in zip(models, folds, strict=True):
        assert_same(model, clone(model).fit(X[rows], y[rows]))
    assert set(joint_runs) == {3}


# --- what each training keeps to itself ------------------------------------------------------------------------------


@needs_loops
def test_one_that_stops_early_leaves_the_others(joint_runs: Any) -> None:
    X, y = data_of("binary")
    models = [model_of("binary", random_state=0, early_stopping=True, alpha=a, max_iter=60) for a in (0.0, 1.0, 9.0)]
    fit_all(models, X, y)
    lengths = [model.n_iter_ for model in models]
    assert min(lengths) < max(lengths) < 60
    left = [sum(length > epoch for length in lengths) for epoch in range(max(lengths))]
    assert joint_runs == left  # the last one stays on the path, with the same bits


@needs_loops
def test_callbacks_and_validation_rows_of_each(joint_runs: Any) -> None:
    X, y = data_of("multiclass")

    class Note(gpuprop.Callback):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def on_epoch_end(self, trainer: Any, epoch: Any, record: Any) -> None:
            self.seen.append((epoch, record["train_loss"], float(trainer.network.weights[0].sum())))
            if epoch == 3 and trainer.network.l2 == 1.0:
                trainer.stop_training()

    class EachStep(gpuprop.Callback):
        steps = 0

        def on_step_end(self, trainer: Any, epoch: Any, step: Any) -> None:
            EachStep.steps += 1

    models = [
        model_of("multiclass", random_state=0, alpha=alpha, callbacks=[Note()], max_iter=6) for alpha in (0.1, 1.0, 2.0)
    ]
    watched = model_of("multiclass", random_state=0, callbacks=[EachStep()], max_iter=6)
    fit_all([*models, watched], X, y, X_val=X[:20], y_val=y[:20])
    assert [len(model.callbacks[0].seen) for model in models] == [6, 3, 6]
    assert models[0].callbacks[0].seen[-1][1] == models[0].loss_
    assert EachStep.steps == 2 * 6 * 4  # alone in both cases: no update of it is made out of its sight
    assert joint_runs == [3] * 3 + [2] * 3


@needs_loops
def test_one_that_diverges_says_where_and_the_others_go_on(joint_runs: Any) -> None:
    X, y = data_of("regression")
    rates = (0.01, 1e150, 0.02)
    models = [model_of("regression", random_state=0, solver="sgd", learning_rate_init=rate) for rate in rates]
    with pytest.raises(ValueError, match=r"epoch 1, step 2 of 4: .* became infinite or NaN") as alone:
        clone(models[1]).fit(X, y)
    outcomes = list(fit_together(Job(model, X, y) for model in models))
    assert str(outcomes[1].error) == str(alone.value)
    for i in (0, 2):
        assert_same(models[i], clone(models[i]).fit(X, y))
    assert joint_runs[:2] == [3, 2]


@needs_loops
def test_an_interruption_ends_all_with_the_epochs_so_far(monkeypatch: Any, joint_runs: Any) -> None:
    from gpuprop.backends.cpu import joint

    X, y = data_of("binary")
    run = joint.JointUpdates.run

    def interrupted(self: Any, first: int, last: int) -> None:
        run(self, first, last)
        if len(joint_runs) == 3:  # in the third epoch, when its updates have been made
            raise KeyboardInterrupt

    monkeypatch.setattr(joint.JointUpdates, "run", interrupted)
    models = [model_of("binary", random_state=seed) for seed in range(2)]
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        list(fit_together(Job(model, X, y) for model in models))
    for model in models:
        assert model.n_iter_ == 2
        assert_same(model, clone(model).set_params(max_iter=2).fit(X, y))


@needs_loops
def test_what_cannot_be_done_together_is_done_alone(joint_runs: Any) -> None:
    X, y = data_of("binary")
    unlike: list[dict[str, Any]] = [
        {"hidden_layer_sizes": (5,)},
        {"dropout": 0.5},
        {"dropout": 0.5},
        {"clip_norm": 0.1},
        {"clip_norm": 0.1},
        {"solver": "rmsprop"},
        {"batch_size": 20},
        {"activation": "logistic"},
        {"device": "numpy"},
        {"device": "numpy"},
        {"solver": gpuprop.optimizers.Adam(), "dtype": "float32"},
    ]
    models = [model_of("binary").set_params(random_state=0, max_iter=3, **own) for own in unlike]
    fit_all(models, X, y)
    lbfgs = [model_of("binary", solver="lbfgs", random_state=seed) for seed in range(2)]
    expected = [clone(model).fit(X, y) for model in lbfgs]
    list(fit_together(Job(model, X, y) for model in lbfgs))
    for model, alone in zip(lbfgs, expected, strict=True):
        np.testing.assert_array_equal(model.coefs_[0], alone.coefs_[0])
    assert set(joint_runs) == {2}  # those with dropout, and those whose gradients are clipped


# --- MLPEnsemble -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared_order", [True, False])
def test_members_of_an_ensemble_are_their_own_fits(shared_order: Any) -> None:
    X, y = data_of("multiclass")
    ensemble = MLPEnsemble(model_of("multiclass"), 3, random_state=0, shared_order=shared_order).fit(X, y)
    assert len({member.random_state for member in ensemble.estimators_}) == 3
    assert len({member.order_random_state for member in ensemble.estimators_}) == 1
    for member in ensemble.estimators_:
        assert_same(member, clone(member).fit(X, y))
    again = MLPEnsemble(model_of("multiclass"), 3, random_state=0, shared_order=shared_order).fit(X, y)
    np.testing.assert_array_equal(again.predict_proba(X), ensemble.predict_proba(X))


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_an_ensemble_averages_its_members(kind: Any) -> None:
    X, y = data_of(kind)
    y = np.array(["no", "yes", "maybe"])[y] if kind in ("binary", "multiclass") else y
    ensemble = MLPEnsemble(model_of(kind), 3, random_state=0).fit(X, y)
    predicted, std = ensemble.predict(X, return_std=True)
    np.testing.assert_array_equal(predicted, ensemble.predict(X))
    if kind == "regression":
        members = np.stack([member.predict(X) for member in ensemble.estimators_])
        np.testing.assert_allclose(predicted, members.mean(axis=0))
        np.testing.assert_allclose(std, members.std(axis=0))
        assert not hasattr(ensemble, "predict_proba")
    else:
        members = np.stack([member.predict_proba(X) for member in ensemble.estimators_])
        mean, spread = members.mean(axis=0), members.std(axis=0)
        np.testing.assert_allclose(ensemble.predict_proba(X), mean, atol=1e-15)
        if kind == "multilabel":
            np.testing.assert_array_equal(predicted, mean > 0.5)
            np.testing.assert_allclose(std, spread)
        else:
            np.testing.assert_array_equal(predicted, ensemble.classes_[mean.argmax(axis=1)])
            np.testing.assert_allclose(std, spread[np.arange(len(X)), mean.argmax(axis=1)])
    measured = ensemble.score(X, y)
    assert 0.3 < measured <= 1.0


def test_an_ensemble_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="'estimator' parameter of MLPEnsemble must be an instance of"):
        MLPEnsemble(StandardScaler()).fit([[0.0], [1.0]], [0, 1])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [
        MLPEnsemble(MLPClassifier(learning_rate_init=0.01, max_iter=40, device="cpu"), 2),
        MLPEnsemble(MLPRegressor(learning_rate_init=0.01, max_iter=40, device="cpu"), 2),
    ],
)
def test_scikit_learns_checks_of_an_ensemble(estimator: Any, check: Any) -> None:
    check(estimator)


# --- search ----------------------------------------------------------------------------------------------------------


def assert_same_search(found: Any, expected: Any) -> None:
    assert list(found.cv_results_) == list(expected.cv_results_)
    for name, column in expected.cv_results_.items():
        if "time" in name:
            assert np.all(found.cv_results_[name] >= 0)
        elif name == "params":
            assert found.cv_results_[name] == column
        else:
            assert found.cv_results_[name].dtype == column.dtype
            if column.dtype == np.float64 and not name.startswith("param_"):
                np.testing.assert_allclose(found.cv_results_[name], column, rtol=1e-9, atol=1e-12, err_msg=name)
            else:
                np.testing.assert_array_equal(found.cv_results_[name], column, err_msg=name)
    assert found.best_score_ == pytest.approx(expected.best_score_, rel=1e-9)
    for name in ("best_index_", "best_params_", "n_splits_", "multimetric_"):
        assert getattr(found, name) == getattr(expected, name)


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_search_finds_what_grid_search_finds(kind: Any, joint_runs: Any) -> None:
    X, y = data_of(kind)
    grid = [{"alpha": [1e-4, 1.0], "learning_rate_init": [0.01, 0.03]}, {"hidden_layer_sizes": [(5,)]}]
    model = model_of(kind, random_state=0)
    found, expected = gpuprop.search(model, grid, X, y, cv=3), GridSearchCV(model, grid, cv=3).fit(X, y)
    assert_same_search(found, expected)
    np.testing.assert_array_equal(found.predict(X), expected.predict(X))  # both refitted alone
    assert found.score(X, y) == expected.score(X, y)
    if compiled_loops() is not None:
        assert 12 in joint_runs  # four candidates in three folds, which have 67 and 68 rows


def test_search_of_a_pipeline_with_two_scores(joint_runs: Any) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), model_of("multiclass", random_state=0))
    grid = {"mlpclassifier__alpha": [0.1, 3.0]}
    options: dict[str, Any] = {"cv": 3, "scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss"}
    found, expected = gpuprop.search(model, grid, X, y, **options), GridSearchCV(model, grid, **options).fit(X, y)
    for name in ("rank_test_accuracy", "rank_test_neg_log_loss"):
        np.testing.assert_array_equal(found.cv_results_[name], expected.cv_results_[name])
    np.testing.assert_allclose(
        found.cv_results_["mean_test_neg_log_loss"], expected.cv_results_["mean_test_neg_log_loss"], rtol=1e-9
    )
    assert found.best_params_ == expected.best_params_
    assert found.feature_names_in_.tolist() == list(X.columns)
    if compiled_loops() is not None:
        assert 6 in joint_runs
    with pytest.raises(ValueError, match="the score that decides, one of accuracy, neg_log_loss"):
        gpuprop.search(model, grid, X, y, cv=3, scoring=["accuracy", "neg_log_loss"])


def test_search_with_seeds_repeats_the_splits() -> None:
    X, y = data_of("binary")
    model = model_of("binary", max_iter=5)
    found = gpuprop.search(model, {"alpha": [0.1, 1.0]}, X, y, cv=2, seeds=(3, 4), refit=False)
    assert found.n_splits_ == 4
    for place, seed in ((0, 3), (2, 4)):
        expected = GridSearchCV(clone(model).set_params(random_state=seed), {"alpha": [0.1, 1.0]}, cv=2).fit(X, y)
        for fold in range(2):
            np.testing.assert_array_equal(
                found.cv_results_[f"split{place + fold}_test_score"], expected.cv_results_[f"split{fold}_test_score"]
            )
    assert not hasattr(found, "best_estimator_")


def test_search_goes_on_where_a_fit_fails() -> None:
    X, y = data_of("binary")
    model = model_of("binary", random_state=0, max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of scikit-learn, that a mean is NaN
        with pytest.warns(FitFailedWarning, match=r"3 of 6 fits failed.*InvalidParameterError"):
            found = gpuprop.search(model, {"alpha": [0.1, -1.0]}, X, y, cv=3)
    assert np.isnan(found.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert found.best_params_ == {"alpha": 0.1}
    with pytest.raises(ValueError, match="all 3 fits failed, the first with InvalidParameterError"):
        gpuprop.search(model, {"alpha": [-1.0]}, X, y, cv=3)
    with pytest.raises(ValueError, match="got 1 candidates, 3 splits and 0 seeds"):
        gpuprop.search(model, {"alpha": [0.1]}, X, y, cv=3, seeds=())


def test_convergence_warnings_come_from_each(recwarn: Any) -> None:
    X, y = data_of("binary")
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(2\) reached"):
        MLPEnsemble(model_of("binary", max_iter=2), 2).fit(X, y)


# --- random candidates, and halving ------------------------------------------------------------------------------


def standardised(load: Any) -> Any:
    X, y = load(return_X_y=True)
    return (X - X.mean(axis=0)) / (X.std(axis=0) + 1e-9), y


RATES = {"alpha": [1e-4, 1e-2, 1.0], "learning_rate_init": [1e-4, 1e-3, 1e-2]}


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer])
def test_the_winner_of_halving_is_that_of_the_grid(load: Any) -> None:
    X, y = standardised(load)
    model = MLPClassifier((16,), max_iter=40, random_state=0, device="cpu")
    found, grid = gpuprop.search(model, RATES, X, y, cv=3, halving=True), gpuprop.search(model, RATES, X, y, cv=3)
    assert found.best_params_ == grid.best_params_
    assert found.n_candidates_ == [9, 3]
    assert found.n_epochs_ == [14, 40]
    assert found.epochs_of_all_ == 9 * 3 * 40
    assert found.epochs_made_ <= 6 * 3 * 14 + 3 * 3 * 40
    last = found.cv_results_["rung"] == 1
    assert last.sum() == 3
    for fold in range(3):  # the trainings went on, and ended as their own fit
        name = f"split{fold}_test_score"
        np.testing.assert_array_equal(found.cv_results_[name][last], grid.cv_results_[name][last])
    assert found.cv_results_["rank_test_score"][last].max() < found.cv_results_["rank_test_score"][~last].min()
    for own, expected in zip(found.best_estimator_.coefs_, grid.best_estimator_.coefs_, strict=True):
        np.testing.assert_array_equal(own, expected)


def test_a_candidate_is_judged_by_the_network_that_it_has_at_the_rung() -> None:
    X, y = standardised(load_iris)
    model = MLPClassifier((16,), max_iter=30, random_state=0, device="numpy")
    found = gpuprop.search(make_pipeline(StandardScaler(), model), {"mlpclassifier__alpha": [0, 1, 9]}, X, y, cv=3,
                           seeds=(0, 1), halving=True, factor=2)  # fmt: skip
    assert found.n_candidates_ == [3, 2]
    assert found.n_epochs_ == [15, 30]
    (left,) = np.flatnonzero(found.cv_results_["rung"] == 0)
    short = model.set_params(max_iter=15, alpha=found.cv_results_["params"][left]["mlpclassifier__alpha"])
    short = make_pipeline(StandardScaler(), short)
    scores = [
        clone(short).set_params(mlpclassifier__random_state=seed).fit(X[train], y[train]).score(X[test], y[test])
        for seed in (0, 1)
        for train, test in StratifiedKFold(3).split(X, y)
    ]
    got = [found.cv_results_[f"split{fold}_test_score"][left] for fold in range(6)]
    np.testing.assert_array_equal(got, scores)


def test_random_candidates_are_those_of_scikit_learn() -> None:
    X, y = standardised(load_iris)
    model = MLPClassifier((7,), max_iter=10, random_state=0, device="numpy")
    given = {"alpha": loguniform(1e-4, 1), "learning_rate_init": [1e-3, 1e-2]}
    found = gpuprop.search(model, given, X, y, cv=3, n_iter=5, random_state=4)
    expected = RandomizedSearchCV(model, given, n_iter=5, random_state=4, cv=3).fit(X, y)
    assert found.cv_results_["params"] == expected.cv_results_["params"]
    np.testing.assert_allclose(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    assert isinstance(found, RandomizedSearchCV)


@pytest.mark.filterwarnings("ignore:.*fits failed:sklearn.exceptions.FitFailedWarning")
@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite:UserWarning")
def test_halving_drops_a_fit_that_failed() -> None:
    X, y = standardised(load_iris)
    model = MLPClassifier((7,), solver="sgd", max_iter=20, random_state=0, device="numpy")
    with np.errstate(all="ignore"):
        found = gpuprop.search(model, {"learning_rate_init": [1e300, 0.1, 0.01, 1e-5]}, X, y, cv=2, halving=True)
    assert np.isnan(found.cv_results_["mean_test_score"][0])
    assert found.best_params_ != {"learning_rate_init": 1e300}
    assert found.cv_results_["rung"].tolist()[0] == 0


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (MLPClassifier(solver="lbfgs"), {}, "stochastic solver"),
        (SVC(), {}, "got SVC"),
        (MLPClassifier(), {"scoring": ["accuracy", "f1_macro"], "refit": "accuracy"}, "several scores"),
        (MLPClassifier(), {"factor": 1}, "factor"),
        (MLPClassifier(), {"n_iter": 0}, "n_iter"),
    ],
)
def test_what_halving_cannot_do_is_said(model: Any, options: dict[str, Any], message: str) -> None:
    X, y = standardised(load_iris)
    with pytest.raises(ValueError, match=message):
        gpuprop.search(model, {"tol": [1e-4, 1e-3]}, X, y, cv=2, halving=True, **options)
