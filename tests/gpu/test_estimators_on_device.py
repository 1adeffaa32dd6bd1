"""The estimators on a GPU: arrays that lie there are used and answered there, and trainings are those of the CPU."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import make_classification, make_regression

from gpuprop import MLPClassifier, MLPEnsemble, MLPRegressor

cp = pytest.importorskip("cupy", reason="CuPy is not installed")
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]

FAST: dict[str, Any] = {"hidden_layer_sizes": (9,), "batch_size": 33, "max_iter": 3, "random_state": 0}


def classes(n_classes: int = 3) -> Any:
    return make_classification(101, 7, n_informative=5, n_classes=n_classes, random_state=1)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_arrays_on_a_gpu_are_used_there_and_answered_there(n_classes: Any, counts: Any) -> None:
    X, y = classes(n_classes)
    y = y * 10
    model = MLPClassifier(device="cuda", **FAST).fit(X, y)
    X_there = cp.asarray(X)
    model.predict_proba(X_there)  # compiles what it needs
    with counts.measure() as measured:
        probabilities, labels = model.predict_proba(X_there), model.predict(X_there)
    # What may come to the host is whether the numbers are finite: truth values.
    assert measured["totals"]["d2h_bytes"] <= 128
    assert isinstance(probabilities, cp.ndarray)
    assert isinstance(labels, cp.ndarray)
    np.testing.assert_array_equal(cp.asnumpy(probabilities), model.predict_proba(X))
    np.testing.assert_array_equal(cp.asnumpy(labels), model.predict(X))
    assert set(cp.asnumpy(labels)) <= set(y)
    with pytest.raises(ValueError, match="X has 6 features"):
        model.predict(X_there[:, :6])


def test_labels_of_text_come_to_the_host() -> None:
    X, y = classes()
    named = np.array(["a", "b", "c"])[y]
    model = MLPClassifier(device="cuda", **FAST).fit(cp.asarray(X), named)
    np.testing.assert_array_equal(model.predict(cp.asarray(X)), model.predict(X))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_fitting_on_arrays_of_a_gpu_is_fitting_on_those_of_the_host(early_stopping: Any) -> None:
    X, y = make_regression(101, 7, random_state=1)
    y = y / np.abs(y).max()
    here = MLPRegressor(device="cuda", early_stopping=early_stopping, **FAST).fit(X, y, sample_weight=np.ones(101))
    there = MLPRegressor(device="cuda", early_stopping=early_stopping, **FAST)
    there.fit(cp.asarray(X), cp.asarray(y), sample_weight=cp.ones(101))
    np.testing.assert_array_equal(there.loss_curve_, here.loss_curve_)
    np.testing.assert_array_equal(cp.asnumpy(there.predict(cp.asarray(X))), here.predict(X))


@pytest.mark.parametrize(
    "parameters",
    [
        {"solver": "sgd"},
        {"early_stopping": True},
        {"activation": ["gelu"], "alpha": 0.1, "l1": 0.01},
        {"dropout": 0.3, "clip_norm": 1.0},
        {"class_weight": "balanced", "label_smoothing": 0.1, "learning_rate": "cosine"},
    ],
    ids=str,
)
def test_the_curve_is_that_of_the_cpu(parameters: Any) -> None:
    X, y = classes()
    there, here = (MLPClassifier(device=d, **FAST | parameters).fit(X, y) for d in ("cuda", "numpy"))
    np.testing.assert_allclose(there.loss_curve_, here.loss_curve_, rtol=1e-9)
    assert there.validation_scores_ == here.validation_scores_


def test_an_ensemble_trains_one_after_the_other() -> None:
    X, y = classes()
    there, here = (MLPEnsemble(MLPClassifier(device=d, **FAST), 2, random_state=0).fit(X, y) for d in ("cuda", "numpy"))
    np.testing.assert_allclose(there.predict_proba(X), here.predict_proba(X), rtol=1e-9)


def test_a_pickle_goes_on_where_it_was() -> None:
    X, y = classes()
    model = MLPClassifier(device="cuda", **FAST).partial_fit(X, y, classes=[0, 1, 2])
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(model.partial_fit(X, y).predict_proba(X), twin.partial_fit(X, y).predict_proba(X))


def test_sparse_rows_stay_on_the_host_and_train_as_dense_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    # Dense rows of so small a network would train in a block of their own, which adds up in another order.
    monkeypatch.setattr("gpuprop_kernels.block_layout.PRODUCTS_OF_A_LAUNCH", 0)
    X, y = classes()
    X = np.where(np.abs(X) > 1, X, 0.0)
    dense = MLPClassifier(device="cuda", early_stopping=True, **FAST).fit(X, y, sample_weight=np.arange(101.0))
    thin = MLPClassifier(device="cuda", early_stopping=True, **FAST)
    thin.fit(sparse.csc_array(X), y, sample_weight=np.arange(101.0))
    np.testing.assert_array_equal(thin.loss_curve_, dense.loss_curve_)
    np.testing.assert_array_equal(thin.predict_proba(sparse.coo_array(X)), dense.predict_proba(X))
