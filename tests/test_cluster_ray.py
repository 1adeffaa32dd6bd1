"""A search on the workers of a Ray cluster; Ray is too large for the test extra, and CI skips this."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
import pytest

import gpuprop
from gpuprop.estimators.searching import workers
from tests.test_cluster import GRID, data, model, scores

ray = pytest.importorskip("ray", reason="needs Ray: pip install ray")


@pytest.fixture
def _cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two processors of this machine."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Workers import what this process does.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own
        from ray.util.joblib import register_ray

        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, logging_level="error")
        register_ray()  # type: ignore[no-untyped-call,unused-ignore]
    yield
    ray.shutdown()


@pytest.mark.usefixtures("_cluster")
@pytest.mark.filterwarnings("ignore")  # of fits that have not converged, and Ray's own
def test_a_search_on_rays_workers_equals_that_of_one_process() -> None:
    X, y = data()
    alone = gpuprop.search(model(), GRID, X, y, cv=3, seeds=(0, 1))
    with joblib.parallel_config("ray", n_jobs=2):
        assert workers() == 2
        shared = gpuprop.search(model(), GRID, X, y, cv=3, seeds=(0, 1))
    assert scores(shared) == scores(alone)
    weights = zip(shared.best_estimator_.coefs_, alone.best_estimator_.coefs_, strict=True)
    assert all(np.array_equal(one, other) for one, other in weights)
