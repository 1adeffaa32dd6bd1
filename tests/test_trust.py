"""Calibration and conformal prediction: the temperature is the best one, and the promise of coverage is kept."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LinearRegression
from sklearn.metrics import log_loss

import gpuprop

RNG = np.random.default_rng(8)
X = RNG.normal(size=(600, 4))
Y = np.digitize(X[:, 0] + 0.7 * RNG.normal(size=600), [-0.6, 0.6])


def sure_network(n_outputs: int = 3, dtype: str = "float64") -> gpuprop.Network:
    """Return a network that is right in the main and far too sure."""
    loss = "categorical_cross_entropy" if n_outputs > 1 else "binary_cross_entropy"
    net = gpuprop.Network((4, n_outputs), loss=loss, seed=0, dtype=dtype, device="numpy")
    net.weights[0][:] = RNG.normal(scale=0.3, size=(4, n_outputs))
    net.weights[0][0] = [-20.0, 0.0, 20.0] if n_outputs == 3 else 20.0
    net.biases[0][:] = [0.0, 9.0, 0.0] if n_outputs == 3 else 0.5
    return net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n_outputs", [3, 1])
def test_the_temperature_is_the_best_one_and_changes_no_prediction(n_outputs: int, dtype: str) -> None:
    net = sure_network(n_outputs, dtype)
    y = Y if n_outputs == 3 else (Y > 0).astype(int)
    z = net.net_inputs(X)[-1].astype(np.float64)
    z = z if n_outputs == 3 else np.hstack([0 * z, z])

    def loss(log_temperature: float) -> float:
        scaled = z / math.exp(log_temperature)
        return float((np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(600), y]).mean())

    best = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9})
    predicted = net.predict(X)
    found = gpuprop.calibrate(net, X, y)
    assert found.temperature == pytest.approx(math.exp(best.x), rel=1e-4)
    assert found.loss == pytest.approx((loss(0.0), best.fun), rel=1e-5)
    np.testing.assert_array_equal(net.predict(X), predicted)
    shares = net.forward(X).astype(np.float64)
    shares = shares / shares.sum(axis=1, keepdims=True) if n_outputs == 3 else np.hstack([1 - shares, shares])
    assert log_loss(y, shares) == pytest.approx(best.fun, rel=1e-4)
    assert found.expected_error[1] < found.expected_error[0]
    assert found.brier[1] < found.brier[0]


def test_estimators_are_calibrated_by_their_labels() -> None:
    names = np.array(["elm", "oak", "ash"])[Y]
    model = gpuprop.MLPClassifier((30,), max_iter=60, tol=0.0, learning_rate_init=0.05, random_state=0, device="numpy")
    with pytest.warns(UserWarning, match="Maximum iterations"):
        model.fit(X[:150], names[:150])
    found = gpuprop.calibrate(model, X[150:], names[150:])
    assert found.temperature > 1.2
    assert found.loss[1] < found.loss[0]
    options: dict[str, Any] = {"epochs": 20, "hidden_layer_sizes": (8,), "random_state": 0, "device": "numpy"}
    table = gpuprop.TabularClassifier(**options).fit(X[:150], names[:150])
    found = gpuprop.calibrate(table, X[150:], names[150:])
    shares = table.predict_proba(X[150:])
    shares /= shares.sum(axis=1, keepdims=True)
    assert log_loss(names[150:], shares) == pytest.approx(found.loss[1], rel=1e-4)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_scikit_learns_calibration_keeps_working() -> None:
    model = gpuprop.MLPClassifier((5,), max_iter=20, random_state=0, device="numpy")
    calibrated = CalibratedClassifierCV(model, method="sigmoid", cv=2).fit(X, Y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1.0)


@pytest.mark.parametrize(
    ("model", "y", "message"),
    [
        (gpuprop.Network((4, 2), seed=0, device="numpy"), Y, "needs one class for each row"),
        (gpuprop.Network((4, 2), loss="binary_cross_entropy", seed=0, device="numpy"), Y, "needs one class"),
        (LinearRegression(), Y, "got LinearRegression, expected a fitted classifier"),
    ],
)
def test_what_has_no_probabilities_is_refused(model: Any, y: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        gpuprop.calibrate(model, X, y)


# --- conformal ------------------------------------------------------------------------------------------------------


def coverages(model: Any, X: Any, y: Any, inside: Any, *, n_calibration: int, alpha: float) -> np.ndarray[Any, Any]:
    """Return the coverage on the rest of the rows for 200 random calibration parts."""
    found = []
    for seed in range(200):
        order = np.random.default_rng(seed).permutation(len(X))
        kept, rest = order[:n_calibration], order[n_calibration:]
        found.append(inside(gpuprop.conformal(model, X[kept], y[kept], alpha), rest).mean())
    return np.array(found)


def check_coverage(found: np.ndarray[Any, Any], *, n_calibration: int, n_test: int, alpha: float) -> None:
    """The coverage of a split is a beta-binomial share: its mean and its spread over 200 splits are known."""
    rank = math.ceil((n_calibration + 1) * (1 - alpha))
    a, b = rank, n_calibration + 1 - rank
    mean = a / (a + b)
    variance = a * b * (a + b + n_test) / ((a + b) ** 2 * (a + b + 1) * n_test)
    assert abs(found.mean() - mean) < 4 * math.sqrt(variance / 200)
    assert found.std() == pytest.approx(math.sqrt(variance), rel=0.25)


def test_sets_hold_the_class_as_often_as_promised() -> None:
    net = sure_network()
    gpuprop.calibrate(net, X, Y)

    def inside(sure: Any, rest: Any) -> Any:
        return sure.predict_set(X[rest])[np.arange(len(rest)), Y[rest]]

    found = coverages(net, X, Y, inside, n_calibration=200, alpha=0.1)
    check_coverage(found, n_calibration=200, n_test=400, alpha=0.1)


def test_intervals_hold_the_value_as_often_as_promised() -> None:
    noise = RNG.normal(size=600) * (0.2 + X[:, 1] ** 2)
    y = X[:, 0] + noise
    net = gpuprop.Network((4, 1), seed=0, init="zeros", dtype="float64", device="numpy")
    net.weights[0][0] = 1.0

    class Quantile:
        """The true quantile of the noise, up to a factor."""

        def __init__(self, sign: float) -> None:
            self.sign = sign

        def predict(self, rows: Any) -> Any:
            return rows[:, 0] + self.sign * (0.2 + rows[:, 1] ** 2)

    widths = []
    for model in (net, (Quantile(-1.0), Quantile(1.0))):

        def inside(sure: Any, rest: Any) -> Any:
            low, high = sure.predict_interval(X[rest]).T
            return (low <= y[rest]) & (y[rest] <= high)

        found = coverages(model, X, y, inside, n_calibration=150, alpha=0.2)
        check_coverage(found, n_calibration=150, n_test=450, alpha=0.2)
        ends = gpuprop.conformal(model, X, y, 0.2).predict_interval(X)
        widths.append(float(np.ptp(ends, axis=1).mean()))
    assert widths[1] < widths[0]  # intervals that are wide where the data are, are narrower on the average


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_quantiles_by_the_pinball_loss_and_several_outputs() -> None:
    pair = [
        gpuprop.MLPRegressor(f"pinball({q})", (8,), max_iter=30, random_state=0, device="numpy").fit(
            X[:300], X[:300, 0]
        )
        for q in (0.1, 0.9)
    ]
    sure = gpuprop.conformal(tuple(pair), X[300:], X[300:, 0], 0.2)
    low, high = sure.predict_interval(X[300:]).T
    assert ((low <= X[300:, 0]) & (X[300:, 0] <= high)).mean() >= 0.8
    both = gpuprop.Network((4, 2), seed=0, device="numpy")
    assert gpuprop.conformal(both, X, X[:, :2]).predict_interval(X).shape == (600, 2, 2)
    labels = np.array(["elm", "oak", "ash"])[Y]
    model = gpuprop.MLPClassifier((5,), max_iter=5, random_state=0, device="numpy").fit(X[:300], labels[:300])
    sets = gpuprop.conformal(model, X[300:], labels[300:], 0.05).predict_set(X[300:])
    assert sets[np.arange(300), np.searchsorted(model.classes_, labels[300:])].mean() >= 0.95


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got 8 rows, expected at least 9 for alpha=0\.1"):
        gpuprop.conformal(sure_network(), X[:8], Y[:8], 0.1)
    gpuprop.conformal(sure_network(), X[:9], Y[:9], 0.1)
    with pytest.raises(ValueError, match="got 3 models"):
        gpuprop.conformal([1, 2, 3], X, Y)


def test_sets_and_intervals_are_those_of_mapie() -> None:
    """MAPIE's split-conformal methods, an alternative that has more of them, on the same model and rows."""
    mapie = pytest.importorskip("mapie", reason="MAPIE is not installed")
    classification = pytest.importorskip("mapie.classification", reason="MAPIE 1 or newer is not installed")
    regression = pytest.importorskip("mapie.regression", reason="MAPIE 1 or newer is not installed")
    assert mapie
    train, held, new = slice(0, 200), slice(200, 400), slice(400, 600)
    options: dict[str, Any] = {"random_state": 0, "learning_rate_init": 0.02, "device": "numpy", "tol": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier = gpuprop.MLPClassifier(hidden_layer_sizes=(8,), max_iter=30, **options).fit(X[train], Y[train])
        regressor = gpuprop.MLPRegressor(hidden_layer_sizes=(8,), max_iter=30, **options).fit(
            X[train], X[train, 0] ** 2
        )
        other = classification.SplitConformalClassifier(
            classifier, confidence_level=0.9, prefit=True, conformity_score="lac"
        ).conformalize(X[held], Y[held])
        theirs = other.predict_set(X[new])[1][:, :, 0]
        interval = regression.SplitConformalRegressor(regressor, confidence_level=0.9, prefit=True)
        bounds = interval.conformalize(X[held], X[held, 0] ** 2).predict_interval(X[new])[1][:, :, 0]
    ours = gpuprop.conformal(classifier, X[held], Y[held], alpha=0.1).predict_set(X[new])
    np.testing.assert_array_equal(ours, theirs)
    mine = gpuprop.conformal(regressor, X[held], X[held, 0] ** 2, alpha=0.1).predict_interval(X[new])
    np.testing.assert_allclose(mine, bounds, rtol=1e-6, atol=1e-6)
