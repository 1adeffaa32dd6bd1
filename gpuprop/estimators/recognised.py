"""Plain arrays of a later call, checked in microseconds: what scikit-learn's validation would return, or nothing.

scikit-learn's checks of X and y take some milliseconds, whatever their size, and ``partial_fit`` makes them at every
call. They find nothing to convert in a C-contiguous array of numbers that fits the fitted estimator. `plain_rows` looks
only for what they would find in such an array, and leaves every other case, and every fault, to them.

Targets are recognised by their values: a copy of the last call's labels is compared with the new ones. Nothing is
recognised because it is the same object, because its values may have changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from sklearn import get_config

from gpuprop.model.evaluation import plain_data
from gpuprop.model.inputs import all_finite, check_targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.estimators.labels import Labels
    from gpuprop.estimators.samples import Samples
    from gpuprop.model.network import Network

__all__ = ["encoded", "plain_rows", "prepared", "targets_of"]


def plain_rows(estimator: Any, X: Any, y: Any, dtypes: tuple[Any, ...]) -> bool:
    """Return whether scikit-learn's checks of X and y, for a fitted estimator, would return both as they are."""
    return (
        type(X) is np.ndarray
        and type(y) is np.ndarray
        and X.ndim == 2
        and X.dtype in dtypes
        and X.flags.c_contiguous
        and y.dtype.kind in "biuf"
        and y.flags.c_contiguous
        and y.ndim in (1, 2)
        and 0 < len(X) == len(y)
        and y.size > 0
        and X.shape[1] == getattr(estimator, "n_features_in_", 0)
        and "feature_names_in_" not in vars(estimator)
        and not get_config()["array_api_dispatch"]
        and all(array.dtype.kind != "f" or all_finite(array) for array in (X, y))
    )


def encoded(y: NDArray[Any], classes: NDArray[Any], *, all_of_them: bool) -> NDArray[np.bool_] | None:
    """Return labels as a column for each class, or as one for the second of two classes.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)
    classes : ndarray of shape (n_classes,)
        Sorted numbers.
    all_of_them : bool
        Whether each class must be there.

    Returns
    -------
    ndarray of shape (n_samples, n_outputs), or None
        What scikit-learn's ``LabelBinarizer`` of these classes returns; None where it would have something to say.
    """
    if y.ndim != 1 or len(classes) < 2 or classes.dtype.kind not in "biuf":
        return None
    places = np.minimum(np.searchsorted(classes, y), len(classes) - 1)
    if not np.array_equal(classes[places], y):
        return None
    found = np.count_nonzero(np.bincount(places))
    if (all_of_them and found < len(classes)) or (len(y) > 20 and found > round(0.5 * len(y))):  # it warns of many
        return None
    return np.equal(places[:, None], 1 if len(classes) == 2 else np.arange(len(classes)))


#: The labels of the last call that trained a network, and their targets; they go with it, and are in no pickle.
_known: WeakKeyDictionary[Network, tuple[Labels, NDArray[Any]]] = WeakKeyDictionary()


def targets_of(network: Network, labels: Labels) -> NDArray[Any] | None:
    """Return the targets that the last call made of the same labels: checked, and in the network's dtype."""
    known = _known.get(network)
    return known[1] if known is not None and known[0].same(labels) else None


def prepared(network: Network, samples: Samples) -> tuple[Any, ...]:
    """Return what a trainer takes: arrays, which it checks, or data of which everything is checked."""
    X, targets = samples.X, samples.targets
    if not (samples.plain and network.ops.on_host and X.dtype == network.dtype and network.input_scaling is None):
        return samples.arrays()
    if not samples.recognised:
        targets, _ = check_targets(targets, len(X), network.layer_sizes[-1], network.dtype, network.loss_function)
    if samples.labels is not None and not samples.recognised:
        _known[network] = samples.labels.kept(), targets
    return (plain_data(X, targets, network.metric),)
