"""The examples of scikit-learn's user guide on neural networks (section 1.17), with the import changed."""

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpuprop import MLPClassifier, MLPRegressor

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
