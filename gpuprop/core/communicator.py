r"""`Communicator`: what the processes of one training tell each other. Contracts, and the lone process.

An update's rows are cut into a fixed number of shards, whatever the number of processes. Each shard's gradient is
formed by itself, and the shards' gradients are added in one fixed tree:

    shards     0   1   2   3   4   5   6   7
                \ /     \ /     \ /     \ /
                 +       +       +       +
                   \   /           \   /
                     +               +
                         \       /
                             +

Each process has neighbouring shards, as many as the others, and adds up its own branch of the tree; processes add up
the rest. So 1, 2, 4 or 8 processes add the same numbers in the same order and get the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Communicator", "LoneProcess", "Sharding", "add_in_a_tree"]

_Value = TypeVar("_Value")


class Communicator(Protocol):
    """The processes of one training. Each of them calls the same methods in the same order."""

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """How many processes there are."""
        ...

    def sum_gradients(self, flat: NDArray[Any]) -> None:
        """Replace a contiguous array by the sum of those of all processes, added as `add_in_a_tree` adds them."""
        ...

    def gather(self, value: _Value) -> list[_Value]:
        """Return the values of all processes in the order of their ranks; any that can be pickled."""
        ...

    def broadcast(self, value: _Value) -> _Value:
        """Return the value of the process of rank 0."""
        ...

    def fail(self, error: BaseException) -> None:
        """Tell the other processes that this one leaves the training, so that none waits for it."""
        ...


class LoneProcess:
    """`Communicator` of a process that trains alone."""

    rank, size = 0, 1

    def sum_gradients(self, flat: NDArray[Any]) -> None:
        """Leave the array as it is."""

    def gather(self, value: _Value) -> list[_Value]:
        """Return the only value."""
        return [value]

    def broadcast(self, value: _Value) -> _Value:
        """Return the value."""
        return value

    def fail(self, error: BaseException) -> None:
        """Do nothing: nobody waits."""


class Sharding(NamedTuple):
    """How updates are divided among processes.

    Attributes
    ----------
    n_shards : int
        A power of two, and at least the number of processes.
    communicator : Communicator
    """

    n_shards: int
    communicator: Communicator

    @property
    def own(self) -> range:
        """The shards of this process."""
        each = self.n_shards // self.communicator.size
        return range(self.communicator.rank * each, (self.communicator.rank + 1) * each)

    def rows(self, n_rows: int, shard: int) -> tuple[int, int]:
        """Return where a shard of `n_rows` rows begins and ends; shards of few rows may be empty."""
        return n_rows * shard // self.n_shards, n_rows * (shard + 1) // self.n_shards


def add_in_a_tree(rows: Sequence[Any] | NDArray[Any]) -> Any:
    """Return the sum of a power of two of arrays or numbers: of neighbours first, then of neighbouring sums.

    Examples
    --------
    >>> from gpuprop.core.communicator import add_in_a_tree
    >>> add_in_a_tree([1e16, 1.0, 1.0, -1e16])  # (1e16 + 1) + (1 - 1e16)
    0.0
    """
    level = list(rows)
    while len(level) > 1:
        level = [left + right for left, right in zip(level[::2], level[1::2], strict=True)]
    return np.asarray(level[0]) if isinstance(level[0], np.ndarray) else level[0]
