"""Training on rows that stay on disk: the rows of the next updates lie in a ring in memory, and a thread fills it.

An epoch visits the pieces of a data set (`gpuprop.datasets.StoredRows`) in a random order. Some pieces at a time are a
window, whose rows are shuffled together; the next window is read while the updates of one are made:

    the order of an epoch   | rows of pieces 7, 2, 5, shuffled | rows of pieces 0, 9, 3, shuffled | ...
    the ring                  the window in use                  the one that is being read

Rows are copied into the ring as they were read, one piece after the other, and the order says where those of an update
lie: nothing is moved in memory to shuffle it. So a plan sees an ordinary data set of as many rows as the ring has and
an order that goes round and round in it, and makes the updates that it would make of the whole data set.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.data import TrainingData
from gpuprop.core.updates import EpochUpdates
from gpuprop.errors import PlanError
from gpuprop.maths.losses import smoothed_labels
from gpuprop.training.orders import counter_based_orders, in_order
from gpuprop.training.windowed_orders import BlockwiseOrders, FullOrders, WindowedOrders

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.plan import Plan, TrainingState
    from gpuprop.datasets.stored import StoredRows
    from gpuprop.model.network import Network

__all__ = ["WindowedPlan", "Windows", "windows_of"]


class Windows:
    """The ring of rows of a training on stored rows, and the thread that fills it.

    Parameters
    ----------
    rows : StoredRows
    network : Network
    update_size : int
    orders : WindowedOrders
    smoothing : float
        See ``Trainer(label_smoothing=...)``.
    """

    def __init__(
        self, rows: StoredRows, network: Network, update_size: int, orders: WindowedOrders, smoothing: float
    ) -> None:
        self.stored, self.orders = rows, orders
        self._network, self._smoothing, self._update_size = network, smoothing, update_size
        n_ring = min(2 * orders.window_rows + update_size, rows.n_samples)
        some = network.prepare(*rows.read(0))  # checks that the data fit the network
        # Weights are rounded to the network's dtype before they are added up, as those of rows in memory are.
        self._wide = None if rows.weights is None else rows.weights.astype(network.dtype).astype(np.float64)
        self._weights = None if self._wide is None else np.ones(n_ring, network.dtype)
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
        self.data = TrainingData(
            inputs=self._inputs,
            scaling=some.scaling,
            targets=self._targets,
            sample_weight=self._weights,
            wide_weight=None,
            total_weight=float(rows.n_samples if self._wide is None else self._wide.sum()),
            metric=some.metric,
            total_variation=rows.target_variation if some.metric == "residual" else 0.0,
        )

    @property
    def fingerprints(self) -> dict[str, str]:
        """What a resume must find unchanged: the files, and how their rows are shuffled."""
        orders = self.orders.description
        found = {"stored rows": self.stored.fingerprint, "window": hashlib.sha256(orders.encode()).hexdigest()}
        if self.stored.weights is not None:
            found["sample_weight"] = hashlib.sha256(self.stored.weights.data).hexdigest()
        return found

    def slots(self, epoch: int, n_rows: int) -> NDArray[np.int32]:
        """Return where the rows of an epoch lie in the ring, in the order in which they are visited."""
        self._epoch = epoch
        order, begin = np.empty(self.stored.n_samples, np.int32), 0
        for window, end in enumerate(self._ends_of(epoch)):
            order[begin:end] = (begin + self.orders.places(epoch, window, end - begin)) % len(self._inputs)
            begin = end
        return order[:n_rows]

    def batch_weights(self, epoch: int, n_rows: int) -> NDArray[np.float64]:
        """Return the sum of sample weights of each update of an epoch."""
        starts, weights = np.arange(0, n_rows, self._update_size), self._wide
        if weights is None:
            return np.minimum(n_rows - starts, self._update_size).astype(np.float64)
        visited = []
        for window, parts in enumerate(self.orders.windows(epoch)):
            of_window = np.concatenate([weights[self.orders.index(part)] for part in parts])
            visited.append(of_window[self.orders.places(epoch, window, len(of_window))])
        return np.asarray(np.add.reduceat(np.concatenate(visited)[:n_rows], starts))

    def _ends_of(self, epoch: int) -> list[int]:
        """Return up to which place of an epoch's order each of its windows goes."""
        lengths = (sum(map(self.orders.length, parts)) for parts in self.orders.windows(epoch))
        return list(itertools.accumulate(lengths))

    def begin_epoch(self) -> None:
        """Forget what was read: the next rows are those of an epoch that begins."""
        self.close()
        self._ends = self._ends_of(self._epoch)

    def ready(self, first: int, last: int) -> int:
        """Wait for the rows of an update, and return up to which update rows are then there; at most `last`.

        Which updates that are follows from the windows alone, and not from how fast they are read.
        """
        begin, size = first * self._update_size, self._update_size
        if self._thread is None:
            self._start(begin)
        n_rows = self._ends[-1]
        end = self._ends[bisect.bisect_left(self._ends, min(begin + size, n_rows))]
        stop = last if end >= n_rows else min(last, max(first + 1, end // size))
        needed = min(stop * size, n_rows)
        with self._changed:
            self._done = self._begin_of_window(begin)
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

    def _begin_of_window(self, place: int) -> int:
        """Return where the window of a place of the order begins: any of its rows may still be visited."""
        window = bisect.bisect_right(self._ends, place)
        return 0 if window == 0 else self._ends[window - 1]

    def _start(self, begin: int) -> None:
        self._ended, self._error = False, None
        self._first = bisect.bisect_right(self._ends, begin)
        self._filled = self._done = self._begin_of_window(begin)
        self._thread = threading.Thread(target=self._fill, name="gpuprop-reader", daemon=True)
        self._thread.start()

    def _fill(self) -> None:
        """Read one window after the other, as soon as there is room for it."""
        try:
            for window, parts in enumerate(self.orders.windows(self._epoch)):
                if window < self._first:
                    continue
                at, end = self._filled, self._ends[window]
                self._wait_for_room(end)
                for part in parts:
                    if self._ended:
                        return
                    at = self._put(at, part)
                with self._changed:
                    self._filled = end
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _wait_for_room(self, end: int) -> None:
        """Wait until the rows up to place `end` of the order fit into the ring, beside the window in use."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or end - self._done <= len(self._inputs))

    def _put(self, at: int, part: Any) -> int:
        """Read a part into the ring, from the place `at` of the order on, and return where the next one begins."""
        network = self._network
        data = network.prepare(*self.orders.read(self.stored, part, self._epoch))
        targets = data.targets
        if self._smoothing:
            targets = smoothed_labels(targets, self._smoothing, network.loss_function)
        begin, n_rows = at % len(self._inputs), data.n_samples
        before_end = min(n_rows, len(self._inputs) - begin)
        columns = [(self._inputs, data.inputs), (self._targets, targets)]
        if self._weights is not None and self._wide is not None:
            columns.append((self._weights, self._wide[self.orders.index(part)]))
        for ring, rows in columns:
            ring[begin : begin + before_end] = rows[:before_end]
            ring[: n_rows - before_end] = rows[before_end:]
        return at + n_rows


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
        If the trainer has orders of rows that the format cannot follow, or scikit-learn's conventions and weights.
    """
    network = trainer.network
    own_orders = trainer.row_orders != (counter_based_orders(trainer.seed) if trainer.shuffle else in_order)
    full = own_orders or trainer.shuffle == "full"
    if full and rows.row_reader is None:
        raise ValueError(
            f"{'row_orders' if own_orders else 'shuffle'}: {rows.name} is read a block at a time, so that its rows are "
            "visited in blocks; shuffle=True does so, and single rows are found in NPY and IDX files only"
        )
    if rows.weight_reader is not None and trainer.conventions != "gpuprop":
        raise ValueError("conventions: sample weights that stay on disk need conventions='gpuprop'")
    if not network.ops.on_host:
        raise PlanError(f"{rows.kind}: the device {network.device_!r} reads none yet; use device='cpu'")
    # Two windows lie in the ring, beside one piece that is read.
    largest = max(piece.n_rows for piece in rows.pieces)
    row_bytes = rows.n_features * (1 if rows.dtype == np.uint8 else network.dtype.itemsize)
    row_bytes += network.layer_sizes[-1] * network.dtype.itemsize
    window_rows = max(largest, (rows.memory // row_bytes - 2 * largest - update_size) // 2)
    window_rows = min(window_rows, rows.n_samples)
    orders: WindowedOrders
    if full:
        orders = FullOrders(trainer.row_orders, rows.n_samples, window_rows, largest)
    else:
        orders = BlockwiseOrders(rows.starts, window_rows, trainer.seed, trainer.shuffle)
    return Windows(rows, network, update_size, orders, trainer.label_smoothing)
