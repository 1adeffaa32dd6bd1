"""Which rows of a data set are drawn for testing: scikit-learn's own choice, without the second that it takes to load.

``sklearn.model_selection.train_test_split`` draws by NumPy's `RandomState`, whose numbers never change. The steps are
those of scikit-learn's ``ShuffleSplit`` and ``StratifiedShuffleSplit``; tests/test_datasets.py compares the two.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["train_and_test_rows"]

Indices = NDArray[np.int64]


def train_and_test_rows(
    n_rows: int, test_fraction: float, seed: int, classes: Indices | None = None
) -> tuple[Indices, Indices]:
    """Return the shuffled indices of the rows to train on, and of those to test with.

    Parameters
    ----------
    n_rows : int
    test_fraction : float
        Share of the rows to test with; their number is rounded up.
    seed : int
    classes : ndarray of shape (n_rows,) or None, default=None
        Class indices; each class is in both parts in the same proportion, and has at least two rows.
    """
    random = np.random.RandomState(seed)  # the numbers of scikit-learn
    n_test = math.ceil(test_fraction * n_rows)
    if classes is None:
        order = random.permutation(n_rows)
        return order[n_test:], order[:n_test]
    counts = np.unique(classes, return_counts=True)[1]
    rows_by_class = np.split(np.argsort(classes, kind="stable"), np.cumsum(counts)[:-1])
    n_train_of = _shares(counts, n_rows - n_test, random)
    n_test_of = _shares(counts - n_train_of, n_test, random)
    train, test = [], []
    for rows, n_first, n_second in zip(rows_by_class, n_train_of, n_test_of, strict=True):
        shuffled = rows[random.permutation(len(rows))]
        train.append(shuffled[:n_first])
        test.append(shuffled[n_first : n_first + n_second])
    return random.permutation(np.concatenate(train)), random.permutation(np.concatenate(test))


def _shares(counts: Indices, n_drawn: int, random: np.random.RandomState) -> Indices:
    """Return how many rows of each class are drawn: shares rounded down, and one more of those that lost most by it."""
    exact = counts / counts.sum() * n_drawn
    drawn = np.floor(exact)
    missing = int(n_drawn - drawn.sum())
    lost = exact - drawn
    for value in np.unique(lost)[::-1]:
        if missing <= 0:
            break
        (equal,) = np.nonzero(lost == value)
        chosen = random.choice(equal, size=min(len(equal), missing), replace=False)
        drawn[chosen] += 1
        missing -= len(chosen)
    shares: Indices = drawn.astype(np.int64)
    return shares
