"""A search on a GPU: 5 folds, 20 candidates and 3 seeds are 300 networks, and their scores are scikit-learn's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier

import gpuprop

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")]

GRID = {"alpha": [1e-4, 0.01, 0.1, 1.0], "learning_rate_init": [0.001, 0.003, 0.01, 0.03, 0.1]}
SEEDS = (0, 1, 2)


def test_a_search_finds_what_scikit_learns_grid_search_finds() -> None:
    X, y = load_iris(return_X_y=True)
    X, y = X[::2], y[::2]
    settings: dict[str, Any] = {"hidden_layer_sizes": (8,), "batch_size": 20, "max_iter": 2}
    ours = gpuprop.MLPClassifier(device="cuda", **settings)
    scored: dict[str, Any] = {"cv": 5, "scoring": "neg_log_loss", "refit": False}
    found = gpuprop.search(ours, GRID, X, y, seeds=SEEDS, **scored).cv_results_
    expected = [
        GridSearchCV(MLPClassifier(random_state=seed, **settings), GRID, **scored).fit(X, y).cv_results_
        for seed in SEEDS
    ]
    assert found["params"] == expected[0]["params"]
    assert len(found["params"]) == 20
    scores = np.array([one[f"split{fold}_test_score"] for one in expected for fold in range(5)])
    np.testing.assert_allclose([found[f"split{split}_test_score"] for split in range(15)], scores, rtol=1e-9)
    np.testing.assert_allclose(found["mean_test_score"], scores.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found["std_test_score"], scores.std(axis=0), rtol=1e-7)
    np.testing.assert_array_equal(found["rank_test_score"], (-scores.mean(axis=0)).argsort().argsort() + 1)
