"""The examples of scikit-learn's user guide on neural networks (section 1.17), with the import changed."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier as SklearnClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from gpuprop import MLPClassifier, MLPRegressor
from gpuprop.datasets import load_mnist

X = [[0.0, 0.0], [1.0, 1.0]]


def test_classification() -> None:
    y = [0, 1]
    clf = MLPClassifier(solver="lbfgs", alpha=1e-5, hidden_layer_sizes=(5, 2), random_state=1)
    clf.fit(X, y)
    assert clf.predict([[2.0, 2.0], [-1.0, -2.0]]).tolist() == [1, 0]
    assert [coef.shape for coef in clf.coefs_] == [(2, 5), (5, 2), (2, 1)]
    # The guide prints 1.967e-04 and 9.998e-01 for both rows; how far L-BFGS goes depends on the last bits.
    np.testing.assert_allclose(clf.predict_proba([[2.0, 2.0], [1.0, 2.0]]), [[0.0, 1.0]] * 2, atol=1e-3)


def test_multilabel_classification() -> None:
    y = [[0, 1], [1, 1]]
    clf = MLPClassifier(solver="lbfgs", alpha=1e-5, hidden_layer_sizes=(15,), random_state=1)
    clf.fit(X, y)
    assert clf.predict([[1.0, 2.0]]).tolist() == [[1, 1]]
    assert clf.predict([[0.0, 0.0]]).tolist() == [[0, 1]]


def test_regression() -> None:
    reg = MLPRegressor(solver="lbfgs", alpha=1e-5, hidden_layer_sizes=(5, 2), random_state=1)
    np.testing.assert_allclose(reg.fit(X, [0.0, 1.0]).predict(X), [0.0, 1.0], atol=0.02)


def test_scaling_first() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(60, 3)) * [1.0, 100.0, 0.01] + [0.0, 50.0, 1.0]
    y = data[:, 1] > 50
    scaler = StandardScaler()
    scaler.fit(data[:40])
    clf = MLPClassifier(solver="lbfgs", max_iter=500, random_state=0).fit(scaler.transform(data[:40]), y[:40])
    assert clf.score(scaler.transform(data[40:]), y[40:]) > 0.8
    model = make_pipeline(StandardScaler(), MLPClassifier(solver="lbfgs", max_iter=500, random_state=0))
    assert model.fit(data, y).score(data, y) == 1.0


def test_more_control_with_warm_start() -> None:
    clf = MLPClassifier(hidden_layer_sizes=(15,), random_state=1, max_iter=1, warm_start=True)
    for _ in range(10):
        with pytest.warns(ConvergenceWarning):
            clf.fit(X, [0, 1])
        # additional monitoring / inspection
    assert len(clf.loss_curve_) == 10
    assert clf.loss_curve_[-1] < clf.loss_curve_[0]


# --- the gallery's examples that the page lists ----------------------------------------------------------------------

STRATEGIES = [
    {"solver": "sgd", "learning_rate": "constant", "momentum": 0.0, "learning_rate_init": 0.2},
    {"solver": "sgd", "learning_rate": "constant", "momentum": 0.9, "nesterovs_momentum": False},
    {"solver": "sgd", "learning_rate": "constant", "momentum": 0.9, "nesterovs_momentum": True},
    {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0.0, "learning_rate_init": 0.2},
    {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0.9, "nesterovs_momentum": True},
    {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0.9, "nesterovs_momentum": False},
    {"solver": "adam", "learning_rate_init": 0.01},
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_stochastic_learning_strategies(strategy: dict[str, Any]) -> None:
    """The curve that each strategy gives scikit-learn's classifier, on two of the example's data sets."""
    for data in (load_iris(return_X_y=True), make_moons(100, noise=0.3, random_state=0)):
        scaled = MinMaxScaler().fit_transform(data[0])
        curves = []
        for kind in (MLPClassifier, SklearnClassifier):
            classifier = kind(random_state=0, max_iter=30, **({"learning_rate_init": 0.2} | strategy))
            with pytest.warns(ConvergenceWarning):
                curves.append(classifier.fit(scaled, data[1]).loss_curve_)
        np.testing.assert_allclose(curves[0], curves[1], rtol=1e-6)


def test_weights_on_mnist() -> None:
    (pixels, y), _ = load_mnist()
    images = pixels[:3000] / 255.0
    fitted = []
    for kind in (MLPClassifier, SklearnClassifier):
        classifier = kind((40,), max_iter=8, alpha=1e-4, solver="sgd", random_state=1, learning_rate_init=0.2)
        with pytest.warns(ConvergenceWarning):
            fitted.append(classifier.fit(images[:2000], y[:2000]))
    own, reference = fitted
    assert own.score(images[2000:], y[2000:3000]) == reference.score(images[2000:], y[2000:3000]) > 0.85
    for weights, expected in zip(own.coefs_[0].T, reference.coefs_[0].T, strict=True):
        np.testing.assert_allclose(weights.reshape(28, 28), expected.reshape(28, 28), atol=1e-6)


def test_varying_regularization() -> None:
    """The larger alpha is, the flatter the surface of probabilities, for both classifiers."""
    inputs, y = make_moons(100, noise=0.3, random_state=0)
    grid = np.stack(np.meshgrid(np.arange(-2, 3, 0.5), np.arange(-2, 3, 0.5)), axis=-1).reshape(-1, 2)
    spreads: dict[type, list[float]] = {}
    for kind in (MLPClassifier, SklearnClassifier):
        for alpha in np.logspace(-1, 1, 5):
            classifier = kind(
                solver="lbfgs", alpha=alpha, random_state=1, max_iter=2000, early_stopping=True,
                hidden_layer_sizes=[10, 10],
            )  # fmt: skip
            model = make_pipeline(StandardScaler(), classifier).fit(inputs, y)
            spreads.setdefault(kind, []).append(float(model.predict_proba(grid)[:, 1].std()))
    own = spreads[MLPClassifier]
    assert own == sorted(own, reverse=True)
    np.testing.assert_allclose(own, spreads[SklearnClassifier], atol=0.02)
