"""The estimators train as scikit-learn's do: same data, same random_state, same numbers."""

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import neural_network
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression

import gpuprop

SOLVERS = {
    "adam": {"solver": "adam", "learning_rate_init": 0.01},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.02},
    "no momentum": {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.1},
    "plain momentum": {"solver": "sgd", "nesterovs_momentum": False, "learning_rate_init": 0.02},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.2, "learning_rate_init": 0.1},
    # So large a tol that the rate is divided again and again, until it is too small.
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1},
    # Without effect for adam, there as here.
    "adam, adaptive": {"solver": "adam", "learning_rate": "adaptive", "tol": 0.05},
}


def data_of(kind: Any) -> Any:
    if kind == "binary":
        return make_classification(150, 7, random_state=1)
    if kind == "multiclass":
        return make_classification(150, 7, n_informative=5, n_classes=3, random_state=2)
    if kind == "multilabel":
        return make_multilabel_classification(120, 9, n_classes=4, random_state=3)
    n_targets = 3 if kind == "several outputs" else 1
    X, y = make_regression(130, 6, n_targets=n_targets, noise=1.0, random_state=4)
    y = y / np.abs(y).max()
    return (X, np.exp(2 * y)) if kind == "counts" else (X, y)


def fit_both(kind: Any, sample_weight: Any = None, X: Any = None, **parameters: Any) -> Any:
    """Fit scikit-learn's and gpuprop's estimator with equal parameters; return both."""
    name = "MLPClassifier" if kind in ("binary", "multiclass", "multilabel") else "MLPRegressor"
    given, y = data_of(kind)
    X = given if X is None else X
    parameters = {"hidden_layer_sizes": (9, 5), "random_state": 5, "max_iter": 30} | parameters
    return [
        library(**parameters).fit(X, y, sample_weight=sample_weight)
        for library in (getattr(neural_network, name), getattr(gpuprop, name))
    ]


def assert_same_training(reference: Any, ours: Any, rtol: Any = 1e-9, scale: Any = 1) -> None:
    assert ours.n_iter_ == reference.n_iter_
    assert ours.t_ == reference.t_
    np.testing.assert_allclose(ours.loss_curve_, np.multiply(reference.loss_curve_, scale), rtol=rtol)
    for own, expected in zip(ours.coefs_ + ours.intercepts_, reference.coefs_ + reference.intercepts_, strict=True):
        assert own.shape == expected.shape
        assert own.dtype == expected.dtype
        np.testing.assert_allclose(own, expected, rtol=rtol, atol=rtol)
    for name in ("loss_", "best_loss_", "best_validation_score_"):
        got, expected = getattr(ours, name), getattr(reference, name)
        assert (got is None) == (expected is None)
        factor = scale if name != "best_validation_score_" else 1
        assert got is None or got == pytest.approx(expected * factor, rel=rtol)
    for name in ("out_activation_", "n_layers_", "n_outputs_", "n_features_in_"):
        assert getattr(ours, name) == getattr(reference, name)


pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("early_stopping", [False, True], ids=["", "early stopping"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "one output"])
def test_same_curve(kind: Any, solver: Any, early_stopping: Any) -> None:
    reference, ours = fit_both(kind, early_stopping=early_stopping, batch_size=32, **SOLVERS[solver])
    assert_same_training(reference, ours)
    if early_stopping:
        np.testing.assert_allclose(ours.validation_scores_, reference.validation_scores_, rtol=1e-9)
    else:
        assert ours.validation_scores_ is None


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "one output", "counts"])
def test_same_curve_with_sample_weights(kind: Any) -> None:
    weight = np.random.default_rng(0).uniform(0.0, 3.0, len(data_of(kind)[0]))
    loss = {"loss": "poisson"} if kind == "counts" else {}
    for early_stopping in (False, True):
        reference, ours = fit_both(
            kind, weight, alpha=0.3, batch_size=32, early_stopping=early_stopping, **SOLVERS["adam"], **loss
        )
        assert_same_training(reference, ours)


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize("hidden_layer_sizes", [(), (11,), 7, [4, 3, 2]])
def test_same_curve_for_activations_and_sizes(activation: Any, hidden_layer_sizes: Any) -> None:
    reference, ours = fit_both("multiclass", activation=activation, hidden_layer_sizes=hidden_layer_sizes, max_iter=10)
    assert_same_training(reference, ours)


@pytest.mark.parametrize(
    "parameters",
    [{"shuffle": False}, {"batch_size": 1, "max_iter": 3}, {"batch_size": 150}, {"alpha": 5.0}, {"tol": 0.5}],
    ids=str,
)
def test_same_curve_for_further_parameters(parameters: Any) -> None:
    assert_same_training(*fit_both("binary", **parameters))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_several_outputs_report_the_sum_over_outputs(early_stopping: Any) -> None:
    """scikit-learn reports the mean over outputs, whose gradient it does not take: same weights, K times the loss."""
    parameters = {"alpha": 0.0, "tol": 0.004, "n_iter_no_change": 2, "early_stopping": early_stopping}
    reference, ours = fit_both("several outputs", max_iter=150, learning_rate_init=0.01, **parameters)
    assert reference.n_iter_ < 150
    assert_same_training(reference, ours, scale=3)


def test_several_outputs_of_poisson_are_summed_there_too() -> None:
    X, y = data_of("several outputs")
    parameters: dict[str, Any] = {"loss": "poisson", "max_iter": 15, "random_state": 0}
    reference = neural_network.MLPRegressor(**parameters).fit(X, np.exp(y))
    assert_same_training(reference, gpuprop.MLPRegressor(**parameters).fit(X, np.exp(y)))


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "one output"])
def test_lbfgs_finds_the_same_minimum(kind: Any) -> None:
    reference, ours = fit_both(kind, solver="lbfgs", alpha=0.1, max_iter=15)
    assert ours.n_iter_ == reference.n_iter_
    assert ours.loss_ == pytest.approx(reference.loss_, rel=1e-6)
    assert not hasattr(ours, "loss_curve_")


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix])
@pytest.mark.parametrize("parameters", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=str)
def test_sparse_data_trains_as_dense_data_does(container: Any, parameters: Any) -> None:
    X, y = data_of("multiclass")
    X = np.where(np.abs(X) < 1, 0.0, X)
    parameters = {"random_state": 0, "max_iter": 8, "batch_size": 32} | parameters
    dense = gpuprop.MLPClassifier(**parameters).fit(X, y)
    ours = gpuprop.MLPClassifier(**parameters).fit(container(X), y)
    np.testing.assert_allclose(ours.predict_proba(container(X)), dense.predict_proba(X), rtol=1e-10)
    reference = neural_network.MLPClassifier(**parameters).fit(container(X), y)
    np.testing.assert_allclose(ours.predict_proba(container(X)), reference.predict_proba(container(X)), rtol=1e-6)


@pytest.mark.parametrize("kind", ["binary", "several outputs"])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_float32_stays_float32(kind: Any, solver: Any) -> None:
    X = data_of(kind)[0].astype(np.float32)
    reference, ours = fit_both(kind, X=X, solver=solver, max_iter=10, alpha=0.0)
    assert {array.dtype for array in ours.coefs_ + ours.intercepts_} == {np.dtype(np.float32)}
    assert ours.network_.forward(X).dtype == np.float32
    if solver != "lbfgs":
        scale = 3 if kind == "several outputs" else 1
        np.testing.assert_allclose(ours.loss_curve_, np.multiply(reference.loss_curve_, scale), rtol=1e-4)


@pytest.mark.parametrize("solver", ["adam", "sgd", "invscaling", "adaptive"])
@pytest.mark.parametrize("kind", ["multiclass", "one output"])
def test_partial_fit_goes_on_as_in_scikit_learn(kind: Any, solver: Any) -> None:
    X, y = data_of(kind)
    name, arguments = ("MLPClassifier", {"classes": [0, 1, 2]}) if kind == "multiclass" else ("MLPRegressor", {})
    both = []
    for library in (neural_network, gpuprop):
        model = getattr(library, name)(random_state=3, hidden_layer_sizes=7, **SOLVERS[solver])
        for stop in (40, 90, 150, 30, 130):
            model.partial_fit(X[:stop], y[:stop], **arguments)
            assert model.n_iter_ == 1
        both.append(model)
    assert_same_training(*both)
    assert len(both[1].loss_curve_) == 5
    assert both[1].history_["epoch"] == [1, 2, 3, 4, 5]


def test_partial_fit_after_fit_goes_on_with_the_optimizer() -> None:
    X, y = data_of("binary")
    both = [library.MLPClassifier(random_state=3, max_iter=4).fit(X, y) for library in (neural_network, gpuprop)]
    for model in both:
        model.partial_fit(X, y).partial_fit(X[:50], y[:50])
    assert_same_training(*both)


@pytest.mark.parametrize("parameters", [{}, {"solver": "sgd", "learning_rate": "invscaling"}])
def test_warm_start_goes_on_as_in_scikit_learn(parameters: Any) -> None:
    X, y = data_of("multiclass")
    both = []
    for library in (neural_network, gpuprop):
        model = library.MLPClassifier(random_state=3, max_iter=6, warm_start=True, **parameters)
        both.append(model.fit(X, y).fit(X, y).set_params(max_iter=2).fit(X, y))
    assert_same_training(*both)
    assert len(both[1].loss_curve_) == 14
    assert both[1].history_["epoch"] == list(range(1, 15))
    assert both[1].history_["train_loss"] == both[1].loss_curve_


def test_warm_start_with_early_stopping_keeps_the_best_parameters() -> None:
    """scikit-learn trains on the very arrays that it keeps as the best ones: a second fit overwrites them."""
    X, y = data_of("multiclass")
    parameters: dict[str, Any] = {"random_state": 3, "max_iter": 8, "warm_start": True, "early_stopping": True}
    both = [library.MLPClassifier(**parameters).fit(X, y) for library in (neural_network, gpuprop)]
    assert_same_training(*both)
    best = gpuprop.MLPClassifier(**parameters).fit(X, y)
    for model in both:
        model.set_params(learning_rate_init=1e-9).fit(X, y)  # so small a step cannot improve the score
    np.testing.assert_allclose(both[1].loss_curve_, both[0].loss_curve_, rtol=1e-9)
    for own, expected in zip(both[1].coefs_, best.coefs_, strict=True):
        np.testing.assert_array_equal(own, expected)


def test_a_shared_random_state_is_advanced_by_the_same_draws() -> None:
    X, y = data_of("binary")
    states = [np.random.RandomState(0), np.random.RandomState(0)]
    for library, state in zip((neural_network, gpuprop), states, strict=True):
        library.MLPClassifier(random_state=state, max_iter=3, early_stopping=True).fit(X, y)
    assert states[0].randint(2**31) == states[1].randint(2**31)


@pytest.mark.parametrize("parameters", [{"solver": "sgd", "learning_rate": "adaptive"}, {"early_stopping": True}, {}])
def test_verbose_prints_what_scikit_learn_prints(parameters: Any, capsys: Any) -> None:
    printed = []
    for library in (neural_network, gpuprop):
        X, y = data_of("binary")
        model = library.MLPClassifier(verbose=True, random_state=1, max_iter=8, tol=0.2, n_iter_no_change=2)
        model.set_params(**parameters).fit(X, y)
        printed.append(capsys.readouterr().out)
    assert "Iteration 1, loss = " in printed[0]
    assert printed[0] == printed[1]
