"""Masked arrays: their gaps are missing values for estimators of tables, and refused by everything that takes none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.estimators.columns import Columns

X = np.random.default_rng(0).normal(size=(20, 3))
Y = np.arange(20) % 2
GAPS = np.zeros(X.shape, bool)
GAPS[3, 1] = GAPS[7, 2] = True
MASKED: Any = np.ma.MaskedArray(X, GAPS)
FAST: dict[str, Any] = {"device": "numpy", "random_state": 0, "hidden_layer_sizes": (3,)}


def labels_with_a_gap() -> Any:
    return np.ma.MaskedArray(Y, Y * 0 + (np.arange(20) == 5))


def network() -> gpuprop.Network:
    return gpuprop.Network((3, 2, 1), seed=0, device="numpy", loss="binary_cross_entropy")


@pytest.mark.parametrize(
    "use",
    [
        lambda: network().forward(MASKED),
        lambda: network().predict(MASKED),
        lambda: gpuprop.Trainer(network(), epochs=1).fit(MASKED, Y),
        lambda: gpuprop.Trainer(network(), epochs=1).fit(X, labels_with_a_gap()),
        lambda: gpuprop.MLPClassifier(**FAST, max_iter=1).fit(MASKED, Y),
        lambda: gpuprop.MLPRegressor(**FAST, max_iter=1).fit(X, labels_with_a_gap()),
        lambda: gpuprop.MLPRegressor(**FAST, max_iter=1, tol=10).fit(X, Y, sample_weight=labels_with_a_gap()),
        lambda: gpuprop.MLPRegressor(**FAST, solver="lbfgs", max_iter=2, tol=10).fit(X, Y).predict(MASKED),
    ],
)
def test_gaps_are_refused(use: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"got a masked array with [12] masked entries, the first at index \([35]"):
        use()


def test_a_mask_that_masks_nothing_is_left_out() -> None:
    whole = np.ma.MaskedArray(X, np.zeros(X.shape, bool))
    np.testing.assert_array_equal(network().forward(whole), network().forward(X))


def test_gaps_are_missing_values_of_a_table() -> None:
    with_nan = np.where(GAPS, np.nan, X)
    columns = Columns().fit(with_nan)
    np.testing.assert_array_equal(columns.transform(MASKED), columns.transform(with_nan))
    assert Columns().fit(MASKED).table() == columns.table()
    options = {**FAST, "epochs": 2}
    masked, filled = (gpuprop.TabularClassifier(**options).fit(rows, Y) for rows in (MASKED, with_nan))
    np.testing.assert_array_equal(masked.predict_proba(MASKED), filled.predict_proba(with_nan))
    numbers = np.ma.MaskedArray(np.arange(60).reshape(20, 3), GAPS)  # whole numbers have no NaN of their own
    assert [row.missing for row in Columns().fit(numbers).table()] == [0, 0.05, 0.05]
    words = np.ma.MaskedArray(np.array([["a", "b"], ["a", "c"], ["b", "b"]] * 4), np.arange(24).reshape(12, 2) == 5)
    assert [row.missing for row in Columns().fit(words).table()] == [0, 1 / 12]


def test_a_row_of_a_table_without_a_label_is_refused() -> None:
    with pytest.raises(ValueError, match="Input y contains NaN"):
        gpuprop.TabularClassifier(**FAST, epochs=1).fit(X, labels_with_a_gap())
    with pytest.raises(ValueError, match="Input y contains NaN"):
        gpuprop.TabularRegressor(**FAST, epochs=1).fit(X, np.ma.MaskedArray(Y * 1.0, labels_with_a_gap().mask))
