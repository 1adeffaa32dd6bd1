"""Which rows a network for a table trains on, and by which its best epoch is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Split", "splits"]

#: The rows to train on, and the rows for validation; there may be none.
Split = tuple[NDArray[np.intp], NDArray[np.intp]]


def splits(
    n_samples: int,
    classes: NDArray[Any] | None,
    random_state: np.random.RandomState,
    *,
    share: float,
    folds: int | None,
) -> Iterator[Split]:
    """Yield a random split of the rows, or one for each fold; all have the same number of rows to train on.

    Parameters
    ----------
    n_samples : int
    classes : ndarray of shape (n_samples,) or None
        The class of each row; each class is then divided by the same shares, as far as that is possible.
    random_state : RandomState
    share : float
        The share of the rows for validation, where there are no folds; at most this share, so that of a few rows none
        is left out. A class of one row is trained on.
    folds : int or None
        The number of folds, each of which is left out once. The rows that remain when the folds have equal sizes are
        always trained on.
    """
    order = random_state.permutation(n_samples)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    if folds is None:
        place = np.arange(n_samples)
        held_out = np.floor((place + 1) * share) > np.floor(place * share)
        if classes is not None:
            _, first = np.unique(classes[order], return_index=True)
            held_out[first] = False
        yield np.sort(order[~held_out]), np.sort(order[held_out])
        return
    among = n_samples // folds * folds
    for fold in range(folds):
        held_out = np.zeros(n_samples, bool)
        held_out[fold:among:folds] = True
        yield np.sort(order[~held_out]), np.sort(order[held_out])
