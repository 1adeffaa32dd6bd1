"""Row orders of training on rows that stay on disk: which rows each window of an epoch has, and how they are visited.

`BlockwiseOrders` reads pieces one after the other, as every format allows. `FullOrders` follows any order of rows, such
as that of a training in memory; its rows lie anywhere in the files, so that they must be cheap to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gpuprop.training.orders import RowOrders, checked_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.datasets.stored import Part, StoredRows

__all__ = ["BlockwiseOrders", "FullOrders", "WindowedOrders"]


class WindowedOrders(Protocol):
    """How an epoch visits rows that are read a window at a time."""

    @property
    def window_rows(self) -> int:
        """The most rows of a window."""
        ...

    @property
    def description(self) -> str:
        """What a resume must find unchanged."""
        ...

    def windows(self, epoch: int) -> Sequence[Sequence[Any]]:
        """Return the parts of each window of an epoch: what is read at once, in the order in which it is read."""
        ...

    def length(self, part: Any) -> int:
        """Return the number of rows of a part."""
        ...

    def index(self, part: Any) -> slice | NDArray[Any]:
        """Return which rows of the data set a part is."""
        ...

    def read(self, stored: StoredRows, part: Any, epoch: int) -> Part:
        """Return inputs and targets of a part, as the epoch has them."""
        ...

    def places(self, epoch: int, window: int, n_rows: int) -> NDArray[Any]:
        """Return the order in which the rows of a window are visited, as places among them as they were read."""
        ...


@dataclass(frozen=True)
class BlockwiseOrders:
    """Row orders of an epoch, as training on stored rows makes them; also for ``Trainer(row_orders=...)``.

    Attributes
    ----------
    starts : tuple of int
        The first row of each piece, and the number of all rows.
    window_rows : int
        The most rows of a window; at least those of the largest piece.
    seed : int
    shuffled : bool
        Whether pieces, and the rows of a window, are visited in a random order.
    """

    starts: tuple[int, ...]
    window_rows: int
    seed: int
    shuffled: bool = True

    def __call__(self, epoch: int, n_samples: int) -> NDArray[np.int64]:
        """Return the whole order of an epoch."""
        return np.concatenate([self.rows(epoch, window, pieces) for window, pieces in enumerate(self.windows(epoch))])

    @property
    def description(self) -> str:
        """What a resume must find unchanged."""
        return repr((self.starts, self.window_rows, self.shuffled))

    def read(self, stored: StoredRows, part: int, epoch: int) -> Part:
        """Return inputs and targets of a piece, as the epoch has them."""
        return stored.read_in_epoch(part, epoch)

    def length(self, part: int) -> int:
        """Return the number of rows of a piece."""
        return self.starts[part + 1] - self.starts[part]

    def index(self, part: int) -> slice:
        """Return which rows of the data set a piece is."""
        return slice(self.starts[part], self.starts[part + 1])

    def windows(self, epoch: int) -> list[list[int]]:
        """Return the pieces of each window of an epoch."""
        n_pieces = len(self.starts) - 1
        order = self._generator(epoch, 0).permutation(n_pieces).tolist() if self.shuffled else range(n_pieces)
        found: list[list[int]] = []
        room = 0
        for piece in order:
            n_rows = self.starts[piece + 1] - self.starts[piece]
            if n_rows > room:
                found.append([])
                room = self.window_rows
            found[-1].append(piece)
            room -= n_rows
        return found

    def rows(self, epoch: int, window: int, pieces: list[int]) -> NDArray[np.int64]:
        """Return the rows of a window in the order of the epoch."""
        rows = np.concatenate([np.arange(self.starts[piece], self.starts[piece + 1]) for piece in pieces])
        return rows[self.places(epoch, window, len(rows))]

    def places(self, epoch: int, window: int, n_rows: int) -> NDArray[np.int64]:
        """Return the order in which the rows of a window are visited, as places among them."""
        return self._generator(epoch, window + 1).permutation(n_rows) if self.shuffled else np.arange(n_rows)

    def _generator(self, epoch: int, window: int) -> np.random.Generator:
        key = np.array([self.seed & 0xFFFFFFFFFFFFFFFF, (epoch << 32) + window], np.uint64)
        return np.random.Generator(np.random.Philox(key=key))


class _Epoch:
    """The windows of an epoch in full: the rows of each in ascending order, and the order in which they are visited."""

    def __init__(self, order: NDArray[np.int32], window_rows: int) -> None:
        self.rows: list[NDArray[np.int32]] = []
        self.places: list[NDArray[np.int32]] = []
        for begin in range(0, len(order), window_rows):
            visited = order[begin : begin + window_rows]
            ascending = np.argsort(visited, kind="stable")
            places = np.empty(len(visited), np.int32)
            places[ascending] = np.arange(len(visited), dtype=np.int32)
            self.rows.append(visited[ascending])
            self.places.append(places)


@dataclass(frozen=True)
class FullOrders:
    """Any row orders; a window is read from the lowest of its rows to the highest.

    The order of an epoch takes eight bytes of memory for each row.

    Attributes
    ----------
    row_orders : callable
        See ``Trainer(row_orders=...)``.
    n_samples, window_rows : int
    part_rows : int
        The rows that are read at once.
    """

    row_orders: RowOrders
    n_samples: int
    window_rows: int
    part_rows: int
    _epochs: dict[int, _Epoch] = field(default_factory=dict, repr=False, compare=False)

    @property
    def description(self) -> str:
        """What a resume must find unchanged; the orders are a setting of the trainer."""
        return "full"

    def windows(self, epoch: int) -> list[list[NDArray[np.int32]]]:
        """Return the rows of each window of an epoch, in parts."""
        cuts = range(self.part_rows, self.window_rows, self.part_rows)
        return [np.split(rows, [cut for cut in cuts if cut < len(rows)]) for rows in self._of(epoch).rows]

    def length(self, part: NDArray[np.int32]) -> int:
        """Return the number of rows of a part."""
        return len(part)

    def index(self, part: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return which rows of the data set a part is."""
        return part

    def read(self, stored: StoredRows, part: NDArray[np.int32], epoch: int) -> Part:
        """Return inputs and targets of some rows, which are the same in every epoch."""
        return stored.rows_at(part)

    def places(self, epoch: int, window: int, n_rows: int) -> NDArray[np.int32]:
        """Return the order in which the rows of a window are visited, as places among them."""
        return self._of(epoch).places[window]

    def _of(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            self._epochs.clear()
            order = checked_order(self.row_orders, epoch, self.n_samples)
            self._epochs[epoch] = _Epoch(order, self.window_rows)
        return self._epochs[epoch]
