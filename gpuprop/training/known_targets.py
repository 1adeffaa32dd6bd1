"""One-hot targets of the last training of a network, for the next one on the same class indices.

A training of small networks on new data spends the time of some updates on checking them and writing class indices as
rows of zeros and ones. The indices of the last call are recognised by their values: a copy of them is compared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from gpuprop.model.inputs import all_finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.data import TrainingData
    from gpuprop.model.network import Network

__all__ = ["prepared"]

#: The class indices, what else the targets depend on, and the data with no rows of inputs.
_known: WeakKeyDictionary[Network, tuple[NDArray[Any], tuple[Any, ...], TrainingData]] = WeakKeyDictionary()


def prepared(network: Network, X: Any, y: Any, sample_weight: Any) -> TrainingData:
    """Return what `Network.prepare` returns."""
    if sample_weight is not None or not _plain(network, X, y):
        return network.prepare(X, y, sample_weight)
    settings = (network.dtype, network.metric, network.loss_function, network.layer_sizes[-1])
    known = _known.get(network)
    if known is not None and known[1] == settings and _same(y, known[0]) and (X.dtype == np.uint8 or all_finite(X)):
        data = replace(known[2], inputs=X, scaling=network.input_scaling)
    else:
        data = network.prepare(X, y)
        _known[network] = y.copy(), settings, replace(data, inputs=X[:0].copy(), scaling=None)
    return data


def _plain(network: Network, X: Any, y: Any) -> bool:
    """Return whether the network would train on X itself, and on one-hot rows that it makes of y."""
    return (
        type(X) is np.ndarray
        and type(y) is np.ndarray
        and network.ops.on_host
        and (X.dtype == np.uint8 or (X.dtype == network.dtype and network.input_scaling is None))
        and X.flags.c_contiguous
        and X.shape == (len(y), network.spec.n_inputs)
        and y.ndim == 1
        and y.dtype.kind in "iu"
        and len(y) > 0
        and network.layer_sizes[-1] > 1
    )


def _same(y: NDArray[Any], known: NDArray[Any]) -> bool:
    return y.dtype == known.dtype and y.shape == known.shape and bool((y == known).all())
