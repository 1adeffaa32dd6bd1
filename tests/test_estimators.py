"""The estimators within scikit-learn: data of all kinds, tools around them, and what bad input is answered with."""

import copy
import os
import pickle
import subprocess
import sys
import threading
import warnings
from typing import Any

import matplotlib.pyplot
import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris, make_classification, make_multilabel_classification, make_regression
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import gpuprop
from gpuprop import MLPClassifier, MLPRegressor

FAST: dict[str, Any] = {"hidden_layer_sizes": (8,), "learning_rate_init": 0.02, "max_iter": 25, "random_state": 0}


@pytest.fixture
def binary() -> Any:
    return make_classification(80, 6, random_state=1)


@pytest.fixture
def regression() -> Any:
    X, y = make_regression(70, 5, random_state=1)
    return X, y / np.abs(y).max()


def skip_where_missing(what: bool) -> None:
    """Skip a comparison with what scikit-learn's own estimators have from 1.7 on."""
    if what and sklearn.__version__.startswith("1.6."):
        pytest.skip("scikit-learn 1.6 knows neither sample weights nor a choice of the loss here")


def quiet(model: Any, *arguments: Any, **keywords: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*arguments, **keywords)


# --- the constructor -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_constructor_takes_scikit_learns_parameters_in_scikit_learns_order(name: Any) -> None:
    import inspect

    skip_where_missing(name == "MLPRegressor")
    reference = inspect.signature(getattr(neural_network, name)).parameters
    ours = inspect.signature({"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}[name]).parameters
    assert list(ours)[: len(reference)] == list(reference)
    for parameter, expected in reference.items():
        assert ours[parameter].default == expected.default
        assert ours[parameter].kind == expected.kind
    for parameter in list(ours)[len(reference) :]:
        assert ours[parameter].kind == inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_fitted_estimator_has_scikit_learns_public_names(name: Any, binary: Any) -> None:
    reference = quiet(getattr(neural_network, name)(max_iter=2), *binary)
    ours = quiet({"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}[name](max_iter=2), *binary)
    missing = {public for public in dir(reference) if not public.startswith("_")} - set(dir(ours))
    assert not missing


def test_importing_gpuprop_does_not_import_scikit_learn() -> None:
    code = "import sys, gpuprop; gpuprop.Network; assert 'sklearn' not in sys.modules; gpuprop.MLPClassifier"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- targets and data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [["no", "yes"], [3, 7], [False, True], [-1.0, 1.0]])
def test_labels_of_any_type_come_back(labels: Any, binary: Any) -> None:
    X, y = binary
    named = np.array(labels)[y]
    model = quiet(MLPClassifier(**FAST), X, named)
    reference = quiet(neural_network.MLPClassifier(**FAST), X, named)
    np.testing.assert_array_equal(model.classes_, reference.classes_)
    np.testing.assert_array_equal(model.predict(X), reference.predict(X))
    assert model.predict(X).dtype == named.dtype
    np.testing.assert_allclose(model.predict_proba(X), reference.predict_proba(X), rtol=1e-8)
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(model.predict_proba(X)))
    assert model.score(X, named) == reference.score(X, named) > 0.8


def test_multilabel_predictions_are_an_indicator_matrix() -> None:
    X, y = make_multilabel_classification(80, 6, n_classes=3, random_state=0)
    model = quiet(MLPClassifier(**FAST), X, y)
    reference = quiet(neural_network.MLPClassifier(**FAST), X, y)
    np.testing.assert_array_equal(model.predict(X), reference.predict(X))
    assert model.predict_proba(X).shape == (80, 3)


def test_column_vector_target_warns_as_scikit_learn_does(binary: Any, regression: Any) -> None:
    from sklearn.exceptions import DataConversionWarning

    for model, (X, y) in ((MLPClassifier(**FAST), binary), (MLPRegressor(**FAST), regression)):
        with pytest.warns(DataConversionWarning):
            quiet(model, X, y[:, None])
        assert model.predict(X).shape == y.shape


def test_data_frames_give_feature_names_and_are_checked(binary: Any) -> None:
    X, y = binary
    frame = pd.DataFrame(X, columns=[f"column {index}" for index in range(6)])
    model = quiet(MLPClassifier(**FAST), frame, pd.Series(y))
    assert model.feature_names_in_.tolist() == list(frame.columns)
    assert model.n_features_in_ == 6
    np.testing.assert_array_equal(model.predict(frame), quiet(MLPClassifier(**FAST), X, y).predict(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"column 0": "another"}))
    with pytest.warns(UserWarning, match="feature names"):
        model.predict(X)


def test_early_stopping_on_held_out_rows_of_strings(binary: Any) -> None:
    X, y = binary
    model = quiet(MLPClassifier(early_stopping=True, **FAST), X, np.array(["a", "b"])[y])
    assert model.best_loss_ is None
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert model.history_["validation_accuracy"] == model.validation_scores_


@pytest.mark.parametrize("layout", ["read-only", "Fortran", "strided", "integers", "lists"])
def test_arrays_of_every_layout_train_alike_and_stay_as_they_are(layout: Any, binary: Any) -> None:
    X, y = binary
    X = np.round(X * 8)
    expected = quiet(MLPClassifier(**FAST), X, y).predict_proba(X)
    given = {
        "read-only": X.copy(),
        "Fortran": np.asfortranarray(X),
        "strided": np.repeat(X, 2, axis=0)[::2],
        "integers": X.astype(np.int32),
        "lists": X.tolist(),
    }[layout]
    if layout == "read-only":
        given.flags.writeable = False
    before = copy.deepcopy(given)
    np.testing.assert_allclose(quiet(MLPClassifier(**FAST), given, y).predict_proba(given), expected)
    np.testing.assert_array_equal(given, before)


# --- a fitted model ------------------------------------------------------------------------------------------------


def test_coefs_and_intercepts_can_be_written(regression: Any) -> None:
    X, y = regression
    model = quiet(MLPRegressor(**FAST), X, y)
    model.coefs_[1] = np.zeros((8, 1))
    model.intercepts_[1][:] = 3.0
    np.testing.assert_array_equal(model.predict(X), 3.0)
    model.coefs_ = [np.zeros((5, 8)), np.ones((8, 1))]
    model.intercepts_ = [np.full(8, 2.0), np.zeros(1)]
    np.testing.assert_array_equal(model.predict(X), 16.0)


def test_copies_and_pickles_predict_alike_and_are_independent(binary: Any) -> None:
    X, y = binary
    model = quiet(MLPClassifier(early_stopping=True, **FAST), X, y)
    expected = model.predict_proba(X)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.predict_proba(X), expected)
        twin.coefs_[0][...] = 0.0  # still views of the network that predicts
        assert not np.array_equal(twin.predict_proba(X), expected)
        np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_pickle_in_the_middle_of_a_training_goes_on_alike(binary: Any) -> None:
    X, y = binary
    model = MLPClassifier(**FAST).partial_fit(X, y, classes=[0, 1])
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(model.partial_fit(X, y).coefs_[0], twin.partial_fit(X, y).coefs_[0])


def test_pickle_of_a_gpu_comes_back_where_there_is_none(binary: Any) -> None:
    X, y = binary
    model = quiet(MLPClassifier(device="cpu", **FAST), X, y)
    state = model.network_.__getstate__()
    state["device"] = "cuda:0"
    network = copy.copy(model.network_)
    network.__setstate__(state)
    np.testing.assert_array_equal(network.forward(X), model.network_.forward(X))


def test_threads_predict_from_one_model_at_once(binary: Any) -> None:
    X, y = binary
    model = quiet(MLPClassifier(**FAST), X, y)
    expected = model.predict_proba(X)
    wrong: list[int] = []

    def predict() -> None:
        wrong.extend(run for run in range(50) if not np.array_equal(model.predict_proba(X), expected))

    threads = [threading.Thread(target=predict) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_not_fitted_is_said(binary: Any) -> None:
    for model in (MLPClassifier(), MLPRegressor()):
        with pytest.raises(NotFittedError):
            model.predict(binary[0])
        assert not hasattr(model, "coefs_")
        assert not hasattr(model, "device_")


# --- the tools around it -------------------------------------------------------------------------------------------


def test_pipeline_column_transformer_and_grid_search_in_two_processes() -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    X["kind"] = np.where(X.iloc[:, 0] > 5.5, "long", "short")
    columns = ColumnTransformer([("numbers", StandardScaler(), X.columns[:4]), ("kind", OneHotEncoder(), ["kind"])])
    search = GridSearchCV(
        make_pipeline(columns, MLPClassifier(max_iter=60, learning_rate_init=0.02, tol=0.01, random_state=0)),
        {"mlpclassifier__alpha": [1e-4, 0.1]},
        cv=3,
        n_jobs=2,
    )
    search.fit(X, y)
    assert search.best_score_ > 0.9
    assert "MLPClassifier" in search.best_estimator_._repr_html_()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_meta_estimators_and_inspection(binary: Any) -> None:
    X, y = binary
    assert cross_val_score(MLPClassifier(**FAST), X, y, cv=3).mean() > 0.7
    assert CalibratedClassifierCV(MLPClassifier(**FAST), cv=2).fit(X, y).predict_proba(X).shape == (80, 2)
    voting = VotingClassifier(
        [("one", MLPClassifier(**FAST)), ("two", MLPClassifier(alpha=1.0, **FAST))], voting="soft"
    )
    assert voting.fit(X, y).score(X, y) > 0.7
    importance = permutation_importance(MLPClassifier(**FAST).fit(X, y), X, y, n_repeats=2, random_state=0)
    assert importance.importances_mean.max() > 0.05


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_halving_search_in_two_processes_learning_curve_and_diagram(binary: Any) -> None:
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingGridSearchCV, LearningCurveDisplay, learning_curve

    X, y = binary
    halving = HalvingGridSearchCV(MLPClassifier(**FAST), {"alpha": [1e-4, 1.0]}, cv=2, n_jobs=2, random_state=0)
    assert halving.fit(X, y).best_score_ > 0.6
    sizes, train_scores, test_scores = learning_curve(MLPClassifier(**FAST), X, y, cv=2, train_sizes=[0.5, 1.0])
    assert sizes.tolist() == [20, 40]
    assert train_scores.shape == test_scores.shape == (2, 2)
    matplotlib.use("Agg")
    display = LearningCurveDisplay.from_estimator(MLPClassifier(**FAST), X, y, cv=2, train_sizes=[0.5, 1.0])
    np.testing.assert_array_equal(
        [line.get_ydata() for line in display.lines_], [s.mean(1) for s in (train_scores, test_scores)]
    )
    matplotlib.pyplot.close(display.figure_)
    with sklearn.config_context(display="diagram"):
        assert "MLPClassifier" in MLPClassifier()._repr_html_()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sample_weights_are_routed(binary: Any) -> None:
    X, y = binary
    weight = np.where(y == 1, 1.0, 1e-6)
    with sklearn.config_context(enable_metadata_routing=True):
        model = MLPClassifier(**FAST).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(model, {"alpha": [1e-4]}, cv=2).fit(X, y, sample_weight=weight)
    assert (search.predict(X) == 1).mean() > 0.9


def test_clone_and_set_params_round_trip() -> None:
    model = MLPRegressor("poisson", (3, 2), "tanh", alpha=0.5, device="numpy")
    assert clone(model).get_params() == model.get_params()
    assert model.set_params(hidden_layer_sizes=[4]).hidden_layer_sizes == [4]


# --- warnings ------------------------------------------------------------------------------------------------------


def test_convergence_warning_and_its_absence(binary: Any) -> None:
    X, y = binary
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(3\) reached"):
        MLPClassifier(max_iter=3).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge"):
        MLPClassifier(solver="lbfgs", max_iter=3).fit(X, y)
    MLPClassifier(tol=1.0, n_iter_no_change=1).fit(X, y)


def test_batch_larger_than_the_data_is_clipped_with_a_warning(binary: Any) -> None:
    with pytest.warns(UserWarning, match="going to be clipped"):
        MLPClassifier(batch_size=1000, tol=1.0).fit(*binary)


def test_interruption_keeps_the_epochs_so_far(binary: Any, capsys: Any) -> None:
    from gpuprop import Callback

    class Interrupt(Callback):
        def on_epoch_end(self, trainer: Any, epoch: Any, record: Any) -> None:
            if epoch == 3:
                raise KeyboardInterrupt

    model = MLPClassifier(callbacks=[Interrupt()], **FAST)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(*binary)
    assert model.n_iter_ == 3
    np.testing.assert_array_equal(
        model.predict_proba(binary[0]),
        quiet(MLPClassifier(**FAST | {"max_iter": 3}), *binary).predict_proba(binary[0]),
    )


# --- bad input -----------------------------------------------------------------------------------------------------

NAN = np.full((4, 2), np.nan)
GOOD = np.arange(8.0).reshape(4, 2)


@pytest.mark.parametrize(
    ("estimator", "arguments", "message"),
    [
        ("classifier", (NAN, [0, 1, 0, 1]), "NaN"),
        ("classifier", (np.full((4, 2), np.inf), [0, 1, 0, 1]), "contains"),
        ("classifier", (GOOD, [0, 1, 0]), "inconsistent"),
        ("classifier", (GOOD[0], [0]), "2D array"),
        ("classifier", (GOOD[:0], []), "0 sample"),
        ("classifier", (GOOD, [0.5, 1.2, 0.7, 3.1]), "continuous"),
        ("classifier", (GOOD, None), "requires y"),
        ("classifier", (GOOD, np.array([0, 1, 0, 1]), np.ones(3)), "sample_weight"),
        ("classifier", (GOOD, [0, 1, 0, 1], [np.nan, 1, 1, 1]), "NaN"),
        ("classifier", (np.array([["a", "b"]] * 4), [0, 1, 0, 1]), "convert"),
        ("regressor", (GOOD, [0.0, np.nan, 1.0, 1.0]), "NaN"),
        ("regressor", (GOOD, np.ones((4, 2, 2))), "dim"),
    ],
)
def test_bad_data_gets_the_error_that_scikit_learn_gives(estimator: Any, arguments: Any, message: Any) -> None:
    skip_where_missing(len(arguments) > 2)
    name = {"classifier": "MLPClassifier", "regressor": "MLPRegressor"}[estimator]
    with pytest.raises(Exception) as expected:  # noqa: PT011  (whatever scikit-learn raises)
        getattr(neural_network, name)().fit(*arguments)
    with pytest.raises(type(expected.value), match=message):
        {"classifier": MLPClassifier, "regressor": MLPRegressor}[estimator]().fit(*arguments)


def objects(values: Any) -> Any:
    return np.array(values, dtype=object)


#: For each what is done with an estimator, and a word of the error; with None, nothing is wrong.
CALLS: dict[str, tuple[str, Any, str | None]] = {
    "infinite X": ("regressor", lambda m: m.fit(GOOD / 0.0, [0, 1, 2, 3]), "NaN"),
    "NaN in predict": ("classifier", lambda m: m.fit(GOOD, [0, 1, 0, 1]).predict(NAN), "NaN"),
    "NaN in sparse X": ("classifier", lambda m: m.fit(sparse.csr_array(NAN), [0, 1, 0, 1]), "NaN"),
    "infinite y": ("regressor", lambda m: m.fit(GOOD, [0, np.inf, 1, 1]), "infinity"),
    "None among labels": ("classifier", lambda m: m.fit(GOOD, objects([None, "a", "a", "b"])), "NoneType, str"),
    "numbers among labels of text": ("classifier", lambda m: m.fit(GOOD, objects([0, "a", 0, "a"])), "int, str"),
    "numbers as objects": ("classifier", lambda m: m.fit(GOOD, objects([0, 1, 0, 1])), r"y\.astype\(int\)"),
    "text as objects": ("classifier", lambda m: m.fit(GOOD, objects(["a", "b", "a", "b"])), None),
    "objects in X": ("classifier", lambda m: m.fit(objects([[{}, 1]] * 4), [0, 1, 0, 1]), "dict"),
    "numbers as objects in X": ("classifier", lambda m: m.fit(objects(GOOD), [0, 1, 0, 1]).predict(GOOD), None),
    "numbers as objects in y": ("regressor", lambda m: m.fit(GOOD, objects([0, 1, 2, 3])).predict(GOOD), None),
    "one class": ("classifier", lambda m: m.fit(GOOD, [1, 1, 1, 1]).predict(GOOD), None),
    "one class of text": ("classifier", lambda m: m.fit(GOOD, ["a"] * 4).predict_proba(GOOD).shape, None),
    "X of three axes": ("classifier", lambda m: m.fit(GOOD[:, :, None], [0, 1, 0, 1]), "dim"),
    "X is a number": ("classifier", lambda m: m.fit(3.0, [0]), "2D array"),
    "X is None": ("classifier", lambda m: m.fit(None, [0]), "2D array"),
    "ragged X": ("classifier", lambda m: m.fit([[1, 2], [3]], [0, 1]), "inhomogeneous"),
    "y is a number": ("classifier", lambda m: m.fit(GOOD, 1), "scalar"),
    "labels in columns": ("classifier", lambda m: m.fit(GOOD, [[0, 2], [1, 3], [2, 1], [0, 0]]), "Multioutput"),
    "labels of lists": ("classifier", lambda m: m.fit(GOOD, [[0], [0, 1], [1], [0]]), "inhomogeneous"),
    "numbers in columns as labels": ("classifier", lambda m: m.fit(GOOD, GOOD / 3), "continuous"),
    "no features": ("classifier", lambda m: m.fit(GOOD[:, :0], [0, 1, 0, 1]), "0 feature"),
    "other features in predict": ("regressor", lambda m: m.fit(GOOD, GOOD[:, 0]).predict(GOOD[:, :1]), "1 features"),
    "no rows in predict": ("regressor", lambda m: m.fit(GOOD, GOOD[:, 0]).predict(GOOD[:0]), "0 sample"),
    "a row in predict": ("regressor", lambda m: m.fit(GOOD, GOOD[:, 0]).predict(GOOD[0]), "reshape"),
    "images": (
        "classifier",
        lambda m: m.fit(np.zeros((4, 28, 28)), [0, 1, 0, 1]),
        r"use X.reshape\(len\(X\), -1\), shape \(4, 784\)",
    ),
    "an image in predict": (
        "regressor",
        lambda m: m.fit(GOOD, GOOD[:, 0]).predict(np.zeros((2, 2, 1))),
        r"shape \(2, 2\)",
    ),
    "complex X": ("regressor", lambda m: m.fit(GOOD + 1j, GOOD[:, 0]), "omplex"),
    "complex y": ("regressor", lambda m: m.fit(GOOD, GOOD[:, 0] + 1j), "omplex"),
    "sparse y": ("regressor", lambda m: m.fit(GOOD, sparse.csr_array(GOOD[:, :1])), "parse"),
    "unseen classes at first": (
        "classifier",
        lambda m: m.partial_fit(GOOD, [5, 6, 5, 6], classes=[0, 1]),
        "classes not",
    ),
    "float y in partial_fit": (
        "classifier",
        lambda m: m.partial_fit(GOOD, GOOD[:, 0] / 3, classes=[0, 1]),
        "continuous",
    ),
    "no weights": ("classifier", lambda m: m.fit(GOOD, [0, 1, 0, 1], []), "0 sample"),
    "weights of two axes": ("classifier", lambda m: m.fit(GOOD, [0, 1, 0, 1], GOOD), "1D"),
    "infinite weights": ("classifier", lambda m: m.fit(GOOD, [0, 1, 0, 1], [np.inf, 1, 1, 1]), "infinity"),
    "weights of text": ("classifier", lambda m: m.fit(GOOD, [0, 1, 0, 1], list("abcd")), "convert"),
    "COO": ("regressor", lambda m: m.fit(sparse.coo_array(GOOD), GOOD[:, 0]).predict(sparse.coo_array(GOOD)), None),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", CALLS)
def test_bad_calls_get_the_error_that_scikit_learn_gives(name: Any) -> None:
    skip_where_missing("weights" in name)
    estimator, call, message = CALLS[name]
    kind = {"classifier": "MLPClassifier", "regressor": "MLPRegressor"}[estimator]
    models = [getattr(of, kind)(hidden_layer_sizes=(3,), tol=1e9, random_state=0) for of in (neural_network, gpuprop)]
    if message is None:
        expected, got = (call(model) for model in models)
        if not hasattr(expected, "fit"):
            np.testing.assert_array_equal(np.round(got, 9), np.round(expected, 9))
        return
    with pytest.raises(Exception) as given:  # noqa: PT011  (whatever scikit-learn raises)
        call(models[0])
    with pytest.raises(type(given.value), match=message):
        call(models[1])


@pytest.mark.parametrize(
    "parameters",
    [
        {"hidden_layer_sizes": (0,)},
        {"hidden_layer_sizes": (3, -1)},
        {"hidden_layer_sizes": -1},
        {"activation": "ghost"},
        {"solver": "ghost"},
        {"learning_rate": "ghost"},
        {"alpha": -1},
        {"batch_size": 0},
        {"learning_rate_init": -1.0},
        {"max_iter": 0},
        {"max_iter": 1.5},
        {"shuffle": "true"},
        {"tol": -1.0},
        {"momentum": 2},
        {"beta_1": 1.0},
        {"beta_2": -0.5},
        {"epsilon": 0},
        {"validation_fraction": 1, "early_stopping": True},
        {"n_iter_no_change": -1},
        {"max_fun": 0},
        {"warm_start": 3},
        {"early_stopping": "no"},
        {"random_state": "seed"},
    ],
    ids=str,
)
def test_wrong_parameters_get_the_error_that_scikit_learn_gives(parameters: Any, binary: Any) -> None:
    with pytest.raises(ValueError) as expected:  # noqa: PT011
        neural_network.MLPClassifier(**parameters).fit(*binary)
    with pytest.raises(type(expected.value), match=next(iter(parameters))):
        MLPClassifier(**parameters).fit(*binary)


def test_unknown_names_suggest_the_nearest(binary: Any) -> None:
    with pytest.raises(ValueError, match="did you mean 'relu'"):
        MLPClassifier(activation="rellu").fit(*binary)
    with pytest.raises(ValueError, match="did you mean 'adam'"):
        MLPClassifier(solver="adm").fit(*binary)
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        MLPClassifier(learning_rate="cosin").fit(*binary)


def test_text_targets_of_a_regression_are_refused() -> None:
    """scikit-learn leaves them to NumPy, whose TypeError speaks of a ufunc."""
    with pytest.raises(ValueError, match="y: got dtype <U1, expected numbers"):
        MLPRegressor().fit(GOOD, ["a", "b", "c", "d"])


def test_negative_targets_for_poisson_are_refused(regression: Any) -> None:
    with pytest.raises(ValueError, match="negative value"):
        MLPRegressor("poisson").fit(*regression)


def test_bad_weights_are_refused(binary: Any) -> None:
    X, y = binary
    with pytest.raises(ValueError, match="negative weight"):
        MLPClassifier().fit(X, y, -np.ones(80))
    with pytest.raises(ValueError, match="zero"):
        MLPClassifier().fit(X, y, np.zeros(80))


def test_partial_fit_refusals(binary: Any) -> None:
    X, y = binary
    with pytest.raises(ValueError, match="classes must be passed"):
        MLPClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match="does not support early_stopping"):
        MLPClassifier(early_stopping=True).partial_fit(X, y, classes=[0, 1])
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")
    with pytest.raises(AttributeError, match="partial_fit"):
        MLPClassifier(solver="lbfgs").partial_fit(X, y, classes=[0, 1])
    model = MLPClassifier().partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="classes not in"):
        model.partial_fit(X, y + 1)
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(X[:, :3], y)


def test_warm_start_refusals(binary: Any) -> None:
    X, y = binary
    model = quiet(MLPClassifier(warm_start=True, **FAST), X, y)
    with pytest.raises(ValueError, match="same classes"):
        model.fit(X, y + 1)
    with pytest.raises(ValueError, match="warm_start=False"):
        model.set_params(hidden_layer_sizes=(3,)).fit(X, y)


def test_held_out_rows_must_suffice(binary: Any) -> None:
    X, y = binary
    with pytest.raises(ValueError, match="validation set is too small"):
        MLPRegressor(early_stopping=True, validation_fraction=0.01).fit(X, y)


def test_divergence_is_an_error_with_the_last_good_parameters_in_place(regression: Any) -> None:
    X, y = regression
    model = MLPRegressor(solver="sgd", learning_rate_init=1e6, activation="identity", random_state=0)
    with pytest.raises(ValueError, match=r"non-finite parameter weights.*epoch \d+, step"):
        model.fit(X * 100, y)
    assert all(np.isfinite(array).all() for array in model.coefs_)


def test_divergence_with_early_stopping_restores_the_best(regression: Any) -> None:
    X, y = regression
    model = MLPRegressor(
        solver="sgd", learning_rate_init=1e3, activation="identity", random_state=0, early_stopping=True
    )
    with pytest.warns(ConvergenceWarning, match="diverged"):
        model.fit(X * 100, y)
    assert model.validation_scores_ is not None
    assert np.isnan(model.validation_scores_[-1])
    assert np.isfinite(model.predict(X)).all()


FOREIGN_ARRAYS = """
import numpy as np, pytest, sklearn
from gpuprop import MLPClassifier

class Foreign:
    def __init__(self, array):
        self.array = array
    def __array__(self, dtype=None, copy=None):
        return np.array(self.array, dtype=dtype)
    def __dlpack__(self):
        raise AssertionError("never asked for")
    def __len__(self):
        return len(self.array)

X, y = np.eye(4), [0, 1, 0, 1]
model = MLPClassifier(tol=1.0).fit(Foreign(X), y)  # without dispatch it is converted, as scikit-learn does
with sklearn.config_context(array_api_dispatch=True):
    for call in (lambda: MLPClassifier().fit(Foreign(X), y), lambda: model.predict(Foreign(X))):
        with pytest.raises(TypeError, match="array_api_dispatch is not supported"):
            call()
    assert model.predict(X).shape == (4,)
"""


def test_arrays_of_other_libraries_are_refused_under_dispatch() -> None:
    """In a process of its own, because SciPy reads its variable when it is imported."""
    subprocess.run([sys.executable, "-c", FOREIGN_ARRAYS], check=True, env=os.environ | {"SCIPY_ARRAY_API": "1"})
