"""Fits, predictions and searches leave nothing behind: no memory, objects, threads or open files.

The short form counts what Python and NumPy hold. ``GPUPROP_TEST_FULL=1`` makes 2,000 fits, 10,000 predictions and 200
searches (some minutes), and looks at the memory of the process, which has what Python does not know of, too.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.datasets import make_classification, make_regression

import gpuprop
from gpuprop import MLPClassifier, MLPEnsemble, MLPRegressor

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.skipif(sys.platform != "linux", reason="the process is looked at in /proc"),
]
FULL = os.environ.get("GPUPROP_TEST_FULL") == "1"
#: What the whole process may grow by in the long form. A leak of 10 KiB a fit would be 20 MiB.
MOST_MEMORY = 10 * 2**20
#: What Python may grow by in the short form. NumPy keeps some small blocks; 15 copies of X would be 240,000 bytes.
MOST_TRACED, MOST_OBJECTS = 40_000, 12

X, y = make_classification(400, 5, random_state=0)
_, target = make_regression(400, 5, random_state=0)


class Held(NamedTuple):
    """What this process holds."""

    memory: int
    objects: int
    threads: int
    files: int


def held() -> Held:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else pages * os.sysconf("SC_PAGE_SIZE")
    return Held(memory, len(gc.get_objects()), threading.active_count(), len(list(Path("/proc/self/fd").iterdir())))


def growth(work: Callable[[], object], times: int) -> Held:
    """Return by how much this process grows while it works so many times."""
    for _ in range(3 + times // 10):  # caches fill, threads start, loops compile
        work()
    if not FULL:
        tracemalloc.start()
    try:
        work()
        before = held()
        for _ in range(times):
            work()
        after = held()
    finally:
        tracemalloc.stop()
    return Held(*(now - then for now, then in zip(after, before, strict=True)))


def assert_no_growth(work: Callable[[], object], times: int) -> None:
    grown = growth(work, times)
    assert grown.memory < (MOST_MEMORY if FULL else MOST_TRACED), grown
    assert grown.objects < MOST_OBJECTS, grown
    assert grown.threads <= 0, grown
    assert grown.files <= 0, grown


def test_fits() -> None:
    def work() -> None:
        MLPClassifier((7,), max_iter=2, device="cpu", random_state=0).fit(X, y)
        model = MLPRegressor(hidden_layer_sizes=(7,), max_iter=2, device="numpy", early_stopping=True).fit(X, target)
        model.set_params(early_stopping=False).partial_fit(X, target)

    assert_no_growth(work, 1000 if FULL else 15)


def test_fits_that_fail() -> None:
    model = MLPRegressor(hidden_layer_sizes=(7,), device="cpu", random_state=0).partial_fit(X, target)
    bad = np.full_like(X, 1.7e308)

    def work() -> None:
        with pytest.raises(ValueError, match="non-finite"):
            model.partial_fit(bad, target)

    assert_no_growth(work, 2000 if FULL else 15)


def test_predictions() -> None:
    classifier = MLPClassifier((7,), max_iter=2, device="cpu").fit(X, y)
    ensemble = MLPEnsemble(MLPRegressor(hidden_layer_sizes=(7,), max_iter=2, device="cpu"), n_networks=2).fit(X, target)

    def work() -> None:
        classifier.predict(X)
        classifier.predict_proba(X[:1])
        ensemble.predict(X)

    assert_no_growth(work, 10_000 if FULL else 50)


def test_searches() -> None:
    model = MLPClassifier((5,), max_iter=2, device="cpu", random_state=0)
    assert_no_growth(lambda: gpuprop.search(model, {"alpha": [0.1, 0.2]}, X, y, cv=2), 200 if FULL else 2)


def test_a_leak_is_found() -> None:
    """The proof itself: an object for each fit, and rows."""
    kept: list[Any] = []
    grown = growth(lambda: kept.append([X.copy()]), 2000 if FULL else 15)
    assert grown.memory > (MOST_MEMORY if FULL else MOST_TRACED)
    assert grown.objects > MOST_OBJECTS
