"""What the estimators draw from a ``RandomState``, in scikit-learn's order: weights, held-out rows, row orders.

The same `random_state` then gives the same training as with scikit-learn's estimators.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from gpuprop.arrays import beside, on_gpu
from gpuprop.errors import ResumeError
from gpuprop.estimators.samples import Samples

if TYPE_CHECKING:
    from gpuprop.model.network import Network

__all__ = ["CumulativeShuffles", "generator", "hold_out", "initial_parameters"]

#: The generator of the last call that trained a network: seeding one takes 2 us, and making one some 100 us.
_seeded: WeakKeyDictionary[Network, np.random.RandomState] = WeakKeyDictionary()


def generator(seed: Any, network: Network | None) -> np.random.RandomState:
    """Return scikit-learn's ``check_random_state(seed)`` for a call that trains this network, which may be a new one.

    Parameters
    ----------
    seed : int, RandomState or None
    network : Network or None
        None stands for one that is still to be made.
    """
    known = None if network is None or type(seed) is not int else _seeded.get(network)
    if known is not None:
        known.seed(seed)
        return known
    made: np.random.RandomState = check_random_state(seed)
    if network is not None and type(seed) is int:
        _seeded[network] = made
    return made


def initial_parameters(
    sizes: tuple[int, ...], logistic: list[bool], random_state: np.random.RandomState
) -> NDArray[np.float64]:
    """Draw weights and biases as scikit-learn does: uniform, bounded by Glorot's rule, layer by layer.

    Source: Glorot and Bengio (2010); scikit-learn takes a third of the variance for layers of logistic units.

    Parameters
    ----------
    sizes : tuple of int
        The sizes of the layers, the inputs' first.
    logistic : list of bool
        For each layer but the inputs', whether it is drawn as for logistic units.
    random_state : RandomState

    Returns
    -------
    ndarray of shape (n_parameters,)
        In the order of ``Network.host_parameters``.
    """
    weights, biases = [], []
    for (fan_in, fan_out), is_logistic in zip(pairwise(sizes), logistic, strict=True):
        bound = np.sqrt((2.0 if is_logistic else 6.0) / (fan_in + fan_out))
        weights.append(random_state.uniform(-bound, bound, (fan_in, fan_out)).ravel())
        biases.append(random_state.uniform(-bound, bound, fan_out))
    return np.concatenate([*weights, *biases])


def hold_out(
    samples: Samples, share: float, random_state: np.random.RandomState, *, stratified: bool
) -> tuple[Samples, Samples]:
    """Split a share of the rows off; return the samples that remain, and those that are held out.

    Raises
    ------
    ValueError
        If fewer than two rows would be held out.
    """
    X = samples.X
    parts = train_test_split(
        np.arange(X.shape[0]),
        *samples.arrays()[1:],
        random_state=random_state,
        test_size=share,
        stratify=samples.targets if stratified else None,
    )
    weights = (None, None) if samples.weight is None else parts[4:]
    if len(parts[1]) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    kept, held_out = (beside(rows, X) if on_gpu(X) else rows for rows in parts[:2])
    return Samples(X[kept], parts[2], weights[0]), Samples(X[held_out], parts[3], weights[1])


class CumulativeShuffles:
    """scikit-learn's row orders: each epoch shuffles the order of the one before it.

    Parameters
    ----------
    random_state : RandomState
    n_samples : int
    """

    def __init__(self, random_state: np.random.RandomState, n_samples: int) -> None:
        self._random_state, self._order = random_state, np.arange(n_samples)

    def __call__(self, epoch: int, n_samples: int) -> NDArray[Any]:
        """Return the order of the next epoch."""
        shuffled = np.arange(n_samples)
        self._random_state.shuffle(shuffled)
        self._order = self._order[shuffled]
        return self._order

    def state(self) -> dict[str, Any]:
        """Return the last order, and where the random numbers stand, for a training that goes on from here."""
        return {"order": self._order, "random_state": self._random_state.get_state(legacy=False)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        order = np.asarray(state["order"])
        if not np.array_equal(np.sort(order), np.arange(len(self._order))):
            raise ResumeError(f"resume_from: got no order of {len(self._order)} rows; resume with the same rows")
        self._order = order
        self._random_state.set_state(dict(state["random_state"]))
