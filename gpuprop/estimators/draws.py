"""What the estimators draw from a ``RandomState``, in scikit-learn's order: weights, held-out rows, row orders.

The same `random_state` then gives the same training as with scikit-learn's estimators.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
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

__all__ = ["CumulativeShuffles", "generator", "hold_out", "initial_parameters", "shuffles"]

#: The generator of the last call that trained a network: seeding one takes 2 us, and making one some 100 us.
_seeded: WeakKeyDictionary[Network, np.random.RandomState] = WeakKeyDictionary()
#: The seed of the last call that drew nothing but row orders, its number of rows, and its first order.
_first: WeakKeyDictionary[Network, tuple[int, int, NDArray[Any]]] = WeakKeyDictionary()


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


def shuffles(
    seed: Any, random_state: np.random.RandomState, n_samples: int, network: Network | None
) -> CumulativeShuffles:
    """Return the row orders of a fit.

    Parameters
    ----------
    seed : int, RandomState or None
        What `random_state` was made of.
    random_state : RandomState
    n_samples : int
    network : Network or None
        The network, if nothing has been drawn from `random_state` since it was made: the first order is then the one
        of the network's last call with the same seed and as many rows.
    """
    if type(seed) is not int:  # others may draw from it, too
        return CumulativeShuffles(random_state, n_samples)
    if network is None:
        place = functools.partial(_generator_at, random_state.get_state(legacy=False))
        return CumulativeShuffles(random_state, n_samples, place)
    known = _first.get(network)
    if known is None or known[:2] != (seed, n_samples):
        known = _first[network] = seed, n_samples, _shuffled(np.random.RandomState(seed), n_samples)
    return CumulativeShuffles(random_state, n_samples, functools.partial(np.random.RandomState, seed), known[2])


def _generator_at(state: dict[str, Any]) -> np.random.RandomState:
    made = np.random.RandomState(0)
    made.set_state(state)
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
    begin : callable or None, default=None
        Where nobody else draws from `random_state`: returns a generator that stands where it stands now. NumPy takes
        as long as three updates of a small network to say where a generator stands; so nobody asks in each epoch,
        and where it is needed the epochs since are drawn once more.
    first : ndarray of shape (n_samples,) or None, default=None
        The first order, where it is known; `begin` is needed then.
    """

    def __init__(
        self,
        random_state: np.random.RandomState,
        n_samples: int,
        begin: Callable[[], np.random.RandomState] | None = None,
        first: NDArray[Any] | None = None,
    ) -> None:
        self._random_state, self._order = random_state, np.arange(n_samples)
        self._begin, self._first, self._epochs = begin, first, 0
        #: A generator that follows, and the epochs that it has drawn.
        self._follower: tuple[np.random.RandomState, int] | None = None

    def __call__(self, epoch: int, n_samples: int) -> NDArray[Any]:
        """Return the order of the next epoch."""
        if self._first is not None and self._epochs == 0:
            self._order = self._first
        else:
            self._catch_up()
            self._order = self._order[_shuffled(self._random_state, n_samples)]
        self._epochs += 1
        return self._order

    def _catch_up(self) -> None:
        """Draw a first order that was known, so that the generator stands behind it."""
        if self._first is not None and self._epochs:
            _shuffled(self._random_state, len(self._first))
            self._first = None

    def state(self) -> dict[str, Any]:
        """Return the last order, and where the random numbers stand, for a training that goes on from here."""
        self._catch_up()
        return {"order": self._order, "random_state": self._random_state.get_state(legacy=False)}

    def later(self) -> Callable[[], dict[str, Any]]:
        """Return a function that returns what `state` would return now."""
        if self._begin is None:
            state = self.state()
            return lambda: state
        return functools.partial(self._state_of, self._begin, self._order, self._epochs)

    def _state_of(self, begin: Callable[[], np.random.RandomState], order: NDArray[Any], epochs: int) -> dict[str, Any]:
        """Return what `state` returned after so many epochs."""
        follower, drawn = self._follower or (begin(), 0)
        if drawn > epochs:
            follower, drawn = begin(), 0
        for _ in range(drawn, epochs):
            _shuffled(follower, len(order))
        self._follower = follower, epochs
        return {"order": order, "random_state": follower.get_state(legacy=False)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        order = np.asarray(state["order"])
        if not np.array_equal(np.sort(order), np.arange(len(self._order))):
            raise ResumeError(f"resume_from: got no order of {len(self._order)} rows; resume with the same rows")
        self._order = order
        self._random_state.set_state(dict(state["random_state"]))
        self._begin = self._first = self._follower = None


def _shuffled(random_state: np.random.RandomState, n_samples: int) -> NDArray[Any]:
    order = np.arange(n_samples)
    random_state.shuffle(order)
    return order
