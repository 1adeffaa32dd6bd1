"""Which rows an epoch visits in which order, and which rows are held out for validation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpuprop.arrays import is_sparse, on_gpu, take_rows
from gpuprop.errors import check_real

__all__ = [
    "RowOrders",
    "check_validation",
    "checked_order",
    "counter_based_orders",
    "held_out_places",
    "hold_out",
    "in_order",
    "rows_held_out",
]

#: ``row_orders(epoch, n_samples)`` returns the order in which an epoch (counted from 0) visits the rows.
RowOrders = Callable[[int, int], NDArray[Any]]


@dataclass(frozen=True)
class _CounterBased:
    """Row orders keyed by (seed, epoch); an object, because functions within functions cannot be pickled."""

    seed: int

    def __call__(self, epoch: int, n_samples: int) -> NDArray[Any]:
        key = np.array([self.seed & 0xFFFFFFFFFFFFFFFF, epoch], np.uint64)
        return _philox.of_key(key).permutation(n_samples)


class _Philox(threading.local):
    """A generator of each thread, which is given a key: to make one takes several times as long as a short order."""

    def __init__(self) -> None:
        self._generator = np.random.Generator(np.random.Philox(key=0))
        self._state: Any = self._generator.bit_generator.state

    def of_key(self, key: NDArray[np.uint64]) -> np.random.Generator:
        """Return a generator in the state of ``Philox(key=key)``."""
        self._state["state"]["key"] = key
        self._generator.bit_generator.state = self._state
        return self._generator


_philox = _Philox()


def counter_based_orders(seed: int) -> RowOrders:
    """Return row orders keyed by (seed, epoch): an epoch's order does not depend on the epochs before it."""
    return _CounterBased(seed)


def in_order(epoch: int, n_samples: int) -> NDArray[Any]:
    """Return the rows as they stand: ``shuffle=False``."""
    return np.arange(n_samples)


def checked_order(row_orders: RowOrders, epoch: int, n_samples: int) -> NDArray[np.int32]:
    """Return the order of an epoch; refuse a wrong one, because it would read rows that do not exist.

    Raises
    ------
    ValueError
        If `row_orders` does not return `n_samples` numbers of rows.
    """
    if isinstance(row_orders, _CounterBased):
        return row_orders(epoch, n_samples).astype(np.int32)
    order = np.asarray(row_orders(epoch, n_samples))
    if order.shape != (n_samples,) or order.dtype.kind not in "iu":
        raise ValueError(f"row_orders: got {order.dtype} of shape {order.shape}, expected {n_samples} row numbers")
    if order.min() < 0 or order.max() >= n_samples:
        raise ValueError(f"row_orders: got rows {order.min()} to {order.max()}, expected 0 to {n_samples - 1}")
    return np.ascontiguousarray(order, dtype=np.int32)


def check_validation(validation: Any) -> float | tuple[Any, ...] | None:
    """Return a share of the rows, or arrays (X, y) or (X, y, sample_weight), or None."""
    if validation is None:
        return None
    if isinstance(validation, (tuple, list)):
        if len(validation) not in (2, 3):
            raise ValueError(f"validation: got {len(validation)} arrays, expected (X, y) or (X, y, sample_weight)")
        return tuple(validation)
    return check_real("validation", validation, 0.0, 1.0, open_minimum=True, open_maximum=True)


def rows_held_out(share: float, n_samples: int) -> int:
    """Return how many rows a share is: at least one, and not all."""
    return min(max(1, round(share * n_samples)), n_samples - 1)


def held_out_places(n_samples: int, share: float, seed: int) -> NDArray[np.int64]:
    """Return which rows a seeded random share is, in ascending order."""
    shuffled = np.random.default_rng(np.random.SeedSequence([seed, 1])).permutation(n_samples)
    return np.sort(shuffled[: rows_held_out(share, n_samples)])


def hold_out(
    X: Any, y: Any, sample_weight: ArrayLike | None, share: float, seed: int
) -> tuple[Any, Any, Any, tuple[Any, Any, Any]]:
    """Split off a seeded random share of the rows, at least one; return the rest, and the share."""
    X, y = X.tocsr() if is_sparse(X) else _array(X), _array(y)
    n_samples = X.shape[0] if X.ndim else 0
    if n_samples < 2 or y.shape[:1] != X.shape[:1]:
        raise ValueError(f"validation={share:g}: got X of shape {X.shape} and y of shape {y.shape}, cannot be split")
    weight = None if sample_weight is None else _array(sample_weight)
    if weight is not None and weight.shape != X.shape[:1]:
        raise ValueError(f"sample_weight: got shape {weight.shape}, expected ({n_samples},)")
    held = held_out_places(n_samples, share, seed)
    kept = np.setdiff1d(np.arange(n_samples), held, assume_unique=True)

    def part(which: NDArray[np.int64]) -> tuple[Any, Any, Any]:
        return take_rows(X, which), take_rows(y, which), None if weight is None else take_rows(weight, which)

    return (*part(kept), part(held))


def _array(values: Any) -> Any:
    """Return an array that lies on a GPU unchanged, and anything else as a NumPy array."""
    return values if on_gpu(values) else np.asarray(values)
