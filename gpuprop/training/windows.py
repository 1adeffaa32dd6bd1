"""Training on rows that stay on disk: the rows of the next updates lie in a ring in memory, and a thread fills it.

An epoch visits the pieces of a data set (`gpuprop.datasets.StoredRows`) in a random order. Some pieces at a time are a
window, whose rows are shuffled together; the next window is read while the updates of one are made:

    the order of an epoch   | rows of pieces 7, 2, 5, shuffled | rows of pieces 0, 9, 3, shuffled | ...
    the ring                  the window in use                  the one that is being read

The row at place i of the order lies at place ``i % n`` of a ring of n rows. So a plan sees an ordinary data set of n
rows and an order that goes round and round in it, and makes the updates that it would make of the whole data set.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.data import TrainingData
from gpuprop.core.updates import EpochUpdates
from gpuprop.errors import PlanError
from gpuprop.maths.losses import smoothed_labels
from gpuprop.training.orders import counter_based_orders, in_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.plan import Plan, TrainingState
    from gpuprop.datasets.stored import StoredRows
    from gpuprop.model.network import Network

__all__ = ["BlockwiseOrders", "WindowedPlan", "Windows", "windows_of"]


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


class Windows:
    """The ring of rows of a training on stored rows, and the thread that fills it.

    Parameters
    ----------
    rows : StoredRows
    network : Network
    update_size : int
    orders : BlockwiseOrders
    smoothing : float
        See ``Trainer(label_smoothing=...)``.
    """

    def __init__(
        self, rows: StoredRows, network: Network, update_size: int, orders: BlockwiseOrders, smoothing: float
    ) -> None:
        self.stored, self.orders = rows, orders
        self._network, self._smoothing, self._update_size = network, smoothing, update_size
        n_ring = min(2 * orders.window_rows + update_size, rows.n_samples)
        some = network.prepare(*rows.read(0))  # checks that the data fit the network
        self._inputs = np.empty((n_ring, rows.n_features), some.inputs.dtype)
        self._targets = np.empty((n_ring, network.layer_sizes[-1]), network.dtype)
        for first in range(0, n_ring, some.n_samples):  # a plan looks at some rows before the first epoch
            self._inputs[first : first + some.n_samples] = some.inputs[: n_ring - first]
            self._targets[first : first + some.n_samples] = some.targets[: n_ring - first]
        self._epoch = 0
        self._ends: list[int] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._ended = False
        self._error: BaseException | None = None
        self._first, self._filled, self._done = 0, 0, 0
        deviation = rows.statistics.target_deviation if rows.classes is None else np.zeros(0)
        self.data = TrainingData(
            inputs=self._inputs,
            scaling=some.scaling,
            targets=self._targets,
            sample_weight=None,
            wide_weight=None,
            total_weight=float(rows.n_samples),
            metric=some.metric,
            total_variation=float((deviation**2).sum()) * rows.n_samples if some.metric == "residual" else 0.0,
        )

    @property
    def fingerprints(self) -> dict[str, str]:
        """What a resume must find unchanged: the files, and how their rows are shuffled."""
        orders = repr((self.orders.starts, self.orders.window_rows, self.orders.shuffled))
        return {"stored rows": self.stored.fingerprint, "window": hashlib.sha256(orders.encode()).hexdigest()}

    def slots(self, epoch: int, n_rows: int) -> NDArray[np.int32]:
        """Return where the rows of an epoch lie in the ring, in the order in which they are visited."""
        self._epoch = epoch
        order = np.arange(n_rows, dtype=np.int32)
        order %= len(self._inputs)
        return order

    def begin_epoch(self) -> None:
        """Forget what was read: the next rows are those of an epoch that begins."""
        self.close()
        windows = self.orders.windows(self._epoch)
        starts = self.orders.starts
        self._ends = np.cumsum([sum(starts[one + 1] - starts[one] for one in pieces) for pieces in windows]).tolist()

    def ready(self, first: int, last: int) -> int:
        """Wait for the rows of an update, and return up to which update rows are then there; at most `last`.

        Which updates that are follows from the windows alone, and not from how fast they are read.
        """
        begin, size = first * self._update_size, self._update_size
        if self._thread is None:
            self._start(begin)
        n_rows = self._ends[-1]
        end = next(end for end in self._ends if end >= min(begin + size, n_rows))
        stop = last if end >= n_rows else min(last, max(first + 1, end // size))
        needed = min(stop * size, n_rows)
        with self._changed:
            self._done = begin
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._filled >= needed or self._error is not None)
            if self._error is not None:
                raise self._error
        return stop

    def close(self) -> None:
        """End the thread."""
        thread, self._thread = self._thread, None
        if thread is not None:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
            thread.join()

    def _start(self, begin: int) -> None:
        self._ended, self._error, self._done = False, None, begin
        self._first = next(place for place, end in enumerate(self._ends) if end > begin)
        self._filled = 0 if self._first == 0 else self._ends[self._first - 1]
        self._thread = threading.Thread(target=self._fill, name="gpuprop-reader", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        """Read one window after the other, as soon as there is room for it."""
        try:
            for window, pieces in enumerate(self.orders.windows(self._epoch)):
                if window < self._first:
                    continue
                begin, end = self._filled, self._ends[window]
                self._wait_for_room(end)
                for X, y, slots in self._shuffled(window, pieces, begin, end - begin):
                    if self._ended:
                        return
                    self._inputs[slots] = X
                    self._targets[slots] = y
                with self._changed:
                    self._filled = end
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _wait_for_room(self, end: int) -> None:
        """Wait until the rows up to place `end` of the order fit into the ring."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or end - self._done <= len(self._inputs))

    def _shuffled(
        self, window: int, pieces: list[int], begin: int, n_rows: int
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]]:
        """Yield inputs, targets and places in the ring of each piece of a window."""
        visited = np.empty(n_rows, np.int64)
        visited[self.orders.places(self._epoch, window, n_rows)] = np.arange(begin, begin + n_rows)
        visited %= len(self._inputs)
        network, first = self._network, 0
        for place in pieces:
            data = network.prepare(*self.stored.read_in_epoch(place, self._epoch))
            targets = data.targets
            if self._smoothing:
                targets = smoothed_labels(targets, self._smoothing, network.loss_function)
            yield data.inputs, targets, visited[first : first + data.n_samples]
            first += data.n_samples


class WindowedPlan:
    """`gpuprop.core.plan.Plan` that waits for the rows of an update before another plan makes it.

    Parameters
    ----------
    plan : Plan
    windows : Windows
    """

    def __init__(self, plan: Plan, windows: Windows) -> None:
        self._plan, self._windows = plan, windows
        self.name, self.updates_of_call, self.threads = plan.name, plan.updates_of_call, plan.threads
        n_bytes = windows.data.inputs.nbytes + windows.data.targets.nbytes
        n_rows = len(windows.data.inputs)
        self._where = f"; {windows.stored.said}, and {n_rows:,} of them ({n_bytes:,} bytes) are in memory"

    @property
    def reason(self) -> str:
        """The other plan's, and how large the ring is."""
        return self._plan.reason + self._where

    def active(self) -> AbstractContextManager[None]:
        """Return the other plan's context."""
        return self._plan.active()

    def begin_epoch(self, *updates: EpochUpdates) -> None:
        """Take what is new in an epoch."""
        self._windows.begin_epoch()
        self._plan.begin_epoch(*updates)

    def run(self, first: int, last: int) -> None:
        """Make the updates `first` to `last` - 1, as the rows arrive."""
        while first < last:
            stop = self._windows.ready(first, last)
            self._plan.run(first, stop)
            first = stop

    def totals(self) -> NDArray[np.float64]:
        """Return the other plan's totals."""
        return self._plan.totals()

    def state(self) -> tuple[TrainingState, ...]:
        """Return the other plan's state."""
        return self._plan.state()

    def restore(self, *states: TrainingState) -> None:
        """Go on from a state."""
        self._windows.begin_epoch()
        self._plan.restore(*states)

    def rewind(self, *places: int) -> None:
        """Restore the optimizer's memory to what it was at the beginning of the epoch."""
        self._plan.rewind(*places)

    def places(self) -> Iterator[tuple[str, Any]]:
        """Yield what the last update left."""
        return self._plan.places()


def windows_of(rows: StoredRows, trainer: Any, update_size: int) -> Windows:
    """Return the ring for a trainer.

    Raises
    ------
    PlanError
        If the network is on a GPU.
    ValueError
        If the trainer has row orders of its own.
    """
    network = trainer.network
    if trainer.row_orders != (counter_based_orders(trainer.seed) if trainer.shuffle else in_order):
        raise ValueError(f"row_orders: {rows.kind} are visited in blocks; leave it out, and use shuffle")
    if not network.ops.on_host:
        raise PlanError(f"{rows.kind}: the device {network.device_!r} reads none yet; use device='cpu'")
    # Two windows lie in the ring, beside one piece that is read.
    largest = max(piece.n_rows for piece in rows.pieces)
    row_bytes = rows.n_features * (1 if rows.dtype == np.uint8 else network.dtype.itemsize)
    row_bytes += network.layer_sizes[-1] * network.dtype.itemsize
    window_rows = max(largest, (rows.memory // row_bytes - 2 * largest - update_size) // 2)
    orders = BlockwiseOrders(rows.starts, min(window_rows, rows.n_samples), trainer.seed, trainer.shuffle)
    return Windows(rows, network, update_size, orders, trainer.label_smoothing)
