"""Searches on the workers of a Dask cluster, of which one is killed."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

import gpuprop
from gpuprop.estimators.searching import workers

distributed = pytest.importorskip("distributed", reason="needs Dask: pip install 'dask[distributed]'")

GRID = {"alpha": [1e-4, 1e-2, 1.0], "learning_rate_init": [0.01, 0.03]}


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two worker processes with a thread each."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask's own, of ports and clocks
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
            ) as cluster,
            distributed.Client(cluster) as found,
        ):
            yield found


def model(device: str = "numpy") -> gpuprop.MLPClassifier:
    return gpuprop.MLPClassifier((16,), max_iter=8, tol=0.0, n_iter_no_change=99, random_state=0, device=device)


def data() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    digits = gpuprop.datasets.load("digits")
    return digits.X[:600] / 16.0, digits.y[:600]


def scores(found: GridSearchCV) -> dict[str, list[float]]:
    return {name: found.cv_results_[name].tolist() for name in found.cv_results_ if name.startswith("split")}


@pytest.mark.filterwarnings("ignore")  # of fits that have not converged, and Dask's own
@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_a_search_on_two_workers_equals_that_of_one_process(client: Any, device: str) -> None:
    X, y = data()
    alone = gpuprop.search(model(device), GRID, X, y, cv=3, seeds=(0, 1))
    with joblib.parallel_config("dask"):
        assert workers() == 2
        shared = gpuprop.search(model(device), GRID, X, y, cv=3, seeds=(0, 1))
    assert scores(shared) == scores(alone)
    assert shared.best_params_ == alone.best_params_
    weights = zip(shared.best_estimator_.coefs_, alone.best_estimator_.coefs_, strict=True)
    assert all(np.array_equal(one, other) for one, other in weights)


@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_search_runs_on_the_workers(client: Any) -> None:
    X, y = data()
    alone = GridSearchCV(model(), GRID, cv=3).fit(X, y)
    with joblib.parallel_config("dask"):
        shared = GridSearchCV(model(), GRID, cv=3).fit(X, y)
    assert scores(shared) == scores(alone)


@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_changes_nothing(client: Any, tmp_path: Path) -> None:
    X, y = data()
    here, marks = os.getpid(), tmp_path

    def scoring(estimator: Any, X: Any, y: Any) -> float:
        """Return the accuracy; the first worker that is asked for one is killed."""
        mark = marks / "killed"
        if os.getpid() != here and not mark.exists():
            mark.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return float(estimator.score(X, y))

    alone = gpuprop.search(model(), GRID, X, y, cv=4)
    with joblib.parallel_config("dask"):
        shared = gpuprop.search(model(), GRID, X, y, cv=4, scoring=scoring)
    assert (tmp_path / "killed").exists()
    assert scores(shared) == scores(alone)
