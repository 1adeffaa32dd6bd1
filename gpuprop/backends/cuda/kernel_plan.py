"""Training on a GPU: fused kernels make an epoch's updates, with no wait, copy or allocation between two updates.

::

    an epoch    | window: up to so many updates          | window ...        | last window |
    a window    | update 0      | update 1 | ... one CUDA graph, captured once, replayed every epoch
    an update   | part 0 | part 1 | ...      parts of at most batch_size rows whose gradients add up
    a part      H forward, head (last layer + loss + delta + last hidden delta), H - 1 hidden deltas, gradients + update
                = 2 H + 1 launches for H hidden layers, and one each for: more than 16 classes, clipping, a split batch

Whatever differs between two updates lies in device memory, in one slot for each part: its rows and the update's number
(`schedule`), the rate and the optimizer's other numbers (`scalars`). The slots are uploaded once an epoch, and copied
on the device to where a window's graph reads them. Losses go back the same way, and the host reads them once an epoch.
Kernels take views that are made once, so that a launch converts nothing. Data too large for the device are streamed,
one window's rows at a time: see `gpuprop.backends.cuda.streaming`. The launches of an update are in
`gpuprop.backends.cuda.launches`, and the memory that they share in `gpuprop.backends.cuda.memory`.

More than 16 classes, or no hidden layer, cost one more launch, for the last hidden delta alone. So does norm clipping,
which needs the norm of all gradients before the first update, and so does a large batch for few parameters: there,
parts of the batch form gradients (`gpuprop_kernels.shapes.choose_parts`) that the update adds up. Accumulation leaves
gradients in memory and updates after the last part. Max-norm adds a launch for each layer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import to_host
from gpuprop.backends.cuda.launches import Step
from gpuprop.backends.cuda.residence import HostRows
from gpuprop.backends.cuda.streaming import RowStream, open_stream
from gpuprop.backends.cuda.translation import slot_scalars
from gpuprop.backends.steps import put_back, taken_out
from gpuprop.backends.threads import limited_blas
from gpuprop_kernels.optimizers import SCALARS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda.array_ops import CudaArrays
    from gpuprop.core.array_ops import Array
    from gpuprop.core.data import TrainingData
    from gpuprop.core.plan import TrainingState
    from gpuprop.core.updates import EpochUpdates, Training

__all__ = ["CudaPlan"]

WINDOW_LAUNCHES = 2000
"""The most launches in one graph; to capture a launch costs the host some 50 microseconds, once."""

CHECKED_UPDATES = 4
"""How many updates are made both launch by launch and by replay, to check that both give the same bits."""


class CudaPlan:
    """`gpuprop.core.plan.Plan` that makes updates with fused kernels.

    Parameters
    ----------
    ops : CudaArrays
    training : Training
        The arrays of its ``rule.state`` move into one buffer, where kernels expect them.
    want : str
        "fused" launches each kernel by itself; any other name records graphs where that is possible.
    """

    def __init__(self, ops: CudaArrays, training: Training, want: str) -> None:
        self._ops, self._runtime, self._rule = ops, ops.runtime, training.rule
        self._training, self._spec, self._update_size = training, training.layers.spec, training.update_size
        part_size, data = training.part_size, training.data
        self._parts = _parts(training.rows_of_epoch, part_size, training.update_size)
        self._most_parts = max(len(parts) for parts in self._parts)
        with self._runtime.active():
            accumulates = part_size < training.update_size
            self._step = step = Step(ops, training.layers, training.rule, part_size, accumulates=accumulates)
            launches = step.launches_of_a_part * self._most_parts + step.launches_of_an_update
            self._window_size = min(len(self._parts), max(1, WINDOW_LAUNCHES // launches))
            self._bring(data)
            self._allocate()
        self._graphs: dict[tuple[int, ...], Callable[[], None]] = {}
        self._factors: dict[tuple[int, ...], bytes] = {}
        self._no_graphs = self._why_no_graphs(want)
        self._state_before = step.memory.optimizer_state.copy()
        self._position = 0

    def _why_no_graphs(self, want: str) -> str | None:
        """Return why updates are launched one by one, or None if windows of them are recorded as graphs."""
        if want == "fused":
            return "asked for"
        if not self._runtime.has_graphs:
            return "the simulator has no CUDA graphs"
        if self._training.watched:
            return "a callback wants to be told of each update"
        if self._window_size <= 2 * CHECKED_UPDATES:
            return f"a graph pays for more than {2 * CHECKED_UPDATES} updates, and here would have {self._window_size}"
        return None

    threads = None

    @property
    def updates_of_call(self) -> int:
        """The updates of a window, which a graph replays."""
        return self._window_size

    @property
    def name(self) -> str:
        """The name of the path."""
        if self._chunks is not None:
            return "streamed"
        return "graph" if self._no_graphs is None else "fused"

    @property
    def reason(self) -> str:
        """The path in one sentence."""
        if self._no_graphs is None:
            how = f"fused kernels, {self._window_size:,} updates in a CUDA graph"
        else:
            how = f"fused kernels, launched one by one because {self._no_graphs}".replace("because asked", "as asked")
        if self._chunks is None:
            return f"{self.name}: {how}"
        return f"streamed: {self._chunks.chunk_rows:,} rows at a time travel to the device while it works; {how}"

    def why_not(self, want: str) -> str:
        """Return why this training cannot take the path `want`, which differs from its own."""
        if want == "streamed":
            return "the data set lies on the device; GPUPROP_DATA_MEMORY says from which size on it is streamed"
        if self._chunks is not None:
            return "the data set does not fit the device, and its rows are streamed"
        return self._no_graphs or "graphs can be recorded"

    def active(self) -> AbstractContextManager[None]:
        return limited_blas(self._training.n_threads)

    def _bring(self, data: TrainingData) -> None:
        """Give the data set one place on the device, or two places that take turns to hold the rows of a window."""
        ops, weight = self._ops, data.sample_weight
        self._chunks: RowStream | None = None
        if isinstance(data.inputs, HostRows):
            hosts = (data.inputs, data.targets, weight)
            self._chunks = open_stream(ops, hosts, self._update_size, self._window_size)
            self._window_size = self._chunks.chunk_rows // self._update_size
            self._order = ops.asarray(np.arange(self._chunks.chunk_rows), np.int32)
            places = self._chunks.buffers
        else:
            self._order = ops.empty(self._training.rows_of_epoch, np.int32)
            # Weights may change from epoch to epoch, so they are copied: the user's array must not change.
            places = [[data.inputs, data.targets, None if weight is None else weight.copy()]]
        self._row_weights = places[0][2]
        self._places = [self._step.view_data(place, data) for place in places]

    def _allocate(self) -> None:
        """Allocate the slots of a window, which launches read and write, and those of the whole epoch."""
        step, dtype, empty = self._step, self._spec.dtype, self._ops.empty
        lengths: dict[str, tuple[int, Any]] = {
            "schedule": (4 * self._most_parts, np.int32),
            "scalars": (SCALARS * self._most_parts, dtype),
            "losses": (step.losses_of_a_slot * self._most_parts, dtype),
            "penalties": (2 * step.tallying_blocks * step.penalised, dtype),
        }  # for one update
        self._slots = {name: empty(self._window_size * n, kind) for name, (n, kind) in lengths.items()}
        self._epoch_slots = {name: empty((len(self._parts) * n,), kind) for name, (n, kind) in lengths.items()}
        self._slot_lengths = {name: n for name, (n, _) in lengths.items()}
        step.bind(**self._slots, order=self._order)

    # --- the plan ------------------------------------------------------------------------------------------------

    def begin_epoch(self, *updates: EpochUpdates) -> None:
        (epoch,) = updates
        self._epoch, self._position = epoch, 0
        self._window: tuple[int, int] | None = None
        most, optimizer = self._most_parts, self._rule.optimizer
        # The last update may have fewer parts than the others; the slots of its missing parts stay zero.
        schedule = np.zeros((len(self._parts), most, 4), np.int32)
        scalars = np.zeros((len(self._parts), most, SCALARS), self._spec.dtype)
        for index, parts in enumerate(self._parts):
            step = epoch.steps_done + index
            scalars[index] = slot_scalars(optimizer, float(epoch.rates[index]), step + 1, float(epoch.weights[index]))
            # Rows of a stream are counted from the beginning of their window.
            base = 0 if self._chunks is None else index // self._window_size * self._chunks.chunk_rows
            for place, (start, n_rows, first_row) in enumerate(parts):
                schedule[index, place] = start - base, n_rows, step, first_row
        with self._runtime.active():
            self._runtime.upload(schedule.reshape(-1), self._epoch_slots["schedule"])
            self._runtime.upload(scalars.reshape(-1), self._epoch_slots["scalars"])
            self._bring_rows(epoch.data, epoch.order)
            self._state_before[...] = self._step.memory.optimizer_state

    def _bring_rows(self, data: TrainingData, order: NDArray[np.int32]) -> None:
        """Upload the order of an epoch and its sample weights, or hand them to the stream of rows."""
        if self._chunks is not None:
            weight = data.wide_weight
            self._chunks.begin(order, None if weight is None else to_host(weight).astype(self._spec.dtype))
            return
        self._runtime.upload(order, self._order)
        if self._row_weights is not None:
            self._row_weights[...] = data.sample_weight

    def run(self, first: int, last: int) -> None:
        self._position = last
        with self._runtime.active():
            while first < last:
                begin = first - first % self._window_size
                end = min(begin + self._window_size, len(self._parts))
                self._enter(begin, end)
                stop = min(last, end)
                if (first, stop) == (begin, end) and end - begin > 2 * CHECKED_UPDATES:
                    self._replay(begin, end)
                else:
                    self._launch(first, stop)
                if stop == end and self._chunks is not None:
                    self._chunks.leave(begin // self._window_size)
                first = stop

    def totals(self) -> NDArray[np.float64]:
        with self._runtime.active():
            self._keep()
        # Summing within updates first makes the sum the same for windows of any size.
        loss, score = self._sums_of_updates("losses").sum(axis=0)
        if self._step.penalised:
            sums, spec = self._sums_of_updates("penalties"), self._spec
            penalties = 0.5 * spec.l2 * sums[:, 0] + spec.l1 * sums[:, 1]
            loss += float((self._epoch.weights * self._epoch.penalty_factors) @ penalties)
        return np.array([[loss, score]])

    def _sums_of_updates(self, name: str) -> NDArray[np.float64]:
        """Return for each update of the epoch the sum of the pairs that its launches have left, (updates, 2)."""
        left = self._runtime.to_numpy(self._epoch_slots[name]).astype(np.float64)
        return np.asarray(left.reshape(len(self._parts), -1, 2).sum(axis=1))

    def state(self) -> tuple[TrainingState, ...]:
        totals, names = self.totals()[0], ("losses", "penalties")
        parts = {name: self._runtime.to_numpy(self._epoch_slots[name]).copy() for name in names}
        return (taken_out(self._training, self._position, totals, parts),)

    def restore(self, *states: TrainingState) -> None:
        (state,) = states
        put_back(self._training, state)
        parts = self._parts_of(state)
        with self._runtime.active():
            self._window = None
            for name, values in parts.items():
                self._runtime.upload(values, self._epoch_slots[name])
            if state.position < len(self._parts):
                begin = state.position - state.position % self._window_size
                self._enter(begin, min(begin + self._window_size, len(self._parts)))
                for name in parts:  # the first updates of this window have been made
                    n = (state.position - begin) * self._slot_lengths[name]
                    self._slots[name][:n] = self._of_window(name, begin, state.position)
        self._position = state.position

    def _parts_of(self, state: TrainingState) -> dict[str, NDArray[Any]]:
        """Return a state's losses and penalties of each update, as this plan keeps them.

        If a plan of another kind made the state, its totals count as the losses of the first update.
        """
        shapes = {name: self._epoch_slots[name].shape for name in ("losses", "penalties")}
        if {name: part.shape for name, part in state.parts.items()} == shapes:
            return {name: np.asarray(part, self._spec.dtype) for name, part in state.parts.items()}
        parts = {name: np.zeros(shape, self._spec.dtype) for name, shape in shapes.items()}
        parts["losses"][:2] = state.totals
        return parts

    def rewind(self, *places: int) -> None:
        with self._runtime.active():
            self._step.memory.optimizer_state[...] = self._state_before

    def places(self) -> Iterator[tuple[str, Array]]:
        yield from self._step.memory.places()

    # --- windows -------------------------------------------------------------------------------------------------

    def _enter(self, begin: int, end: int) -> None:
        """Bring the rows and the slots of the updates `begin` to `end` - 1 to where the launches read them."""
        if self._window == (begin, end):
            return
        self._keep()
        index = begin // self._window_size
        if self._chunks is not None:
            self._chunks.fetch(index)
        self._step.use(self._places[index % len(self._places)])
        for name in ("schedule", "scalars"):
            self._slots[name][: (end - begin) * self._slot_lengths[name]] = self._of_window(name, begin, end)
        self._slots["losses"][...] = 0
        self._slots["penalties"][...] = 0
        self._window = (begin, end)

    def _keep(self) -> None:
        """Copy the losses and penalties of the window's updates so far to the slots of the epoch."""
        if self._window is None:
            return
        begin, end = self._window
        for name in ("losses", "penalties"):
            self._of_window(name, begin, end)[...] = self._slots[name][: (end - begin) * self._slot_lengths[name]]

    def _of_window(self, name: str, begin: int, end: int) -> Array:
        """Return the slots of these updates among those of the epoch."""
        return self._epoch_slots[name][begin * self._slot_lengths[name] : end * self._slot_lengths[name]]

    # --- launches and their replay -------------------------------------------------------------------------------

    def _launch(self, first: int, last: int) -> None:
        """Launch the updates one after the other."""
        for index in range(first, last):
            place = index % self._window_size
            factor = float(self._epoch.penalty_factors[index])
            self._step.launch(place, place * self._most_parts, len(self._parts[index]), factor)

    def _replay(self, begin: int, end: int) -> None:
        """Make a window's updates by one graph, which is captured when it is first needed."""
        # A graph keeps the arguments of its launches, and the factors of the penalties are among them. They change from
        # epoch to epoch only if sample weights and scikit-learn's conventions come together.
        factors = self._epoch.penalty_factors[begin:end].tobytes()
        key = (end - begin, len(self._parts[end - 1]), begin // self._window_size % len(self._places))
        if self._step.penalised and self._factors.setdefault(key, factors) != factors:
            self._launch(begin, end)
            return
        if self._no_graphs is None and key not in self._graphs:
            self._capture(key, begin, end)
        graph = self._graphs.get(key)
        if graph is None:
            self._launch(begin, end)
        else:
            graph()

    def _capture(self, key: tuple[int, ...], begin: int, end: int) -> None:
        """Record a window as a graph if a replay gives the same bits as launches one by one."""
        try:
            same = self._replay_gives_the_same_bits(begin)
            if same:
                self._graphs[key] = self._runtime.record(lambda: self._launch(begin, end))
                return
            fault = "a replay of them gives other numbers"
        except Exception as error:  # whatever keeps a driver from capturing, launches still work
            fault = str(error) or type(error).__name__
        self._no_graphs = " ".join(fault.split())
        warnings.warn(
            f"CUDA graphs are not used on {self._ops.device}: {self._no_graphs}; each kernel is launched by itself, "
            "which is slower for small networks",
            RuntimeWarning,
            stacklevel=2,
        )

    def _replay_gives_the_same_bits(self, begin: int) -> bool:
        """Make the first updates of a window by launches and by replay, undo both, and return whether they agree.

        The launches also compile every kernel, which is not possible during a capture.
        """
        end = begin + CHECKED_UPDATES
        arrays = (
            self._step.memory.parameters,
            self._step.memory.optimizer_state,
            self._slots["losses"],
            self._slots["penalties"],
        )
        before = [array.copy() for array in arrays]

        def result(make: Callable[[], None]) -> list[bytes]:
            make()
            bits = [self._runtime.to_numpy(array).tobytes() for array in arrays]
            for array, old in zip(arrays, before, strict=True):
                array[...] = old
            return bits

        eager = result(lambda: self._launch(begin, end))
        return result(self._runtime.record(lambda: self._launch(begin, end))) == eager


def _parts(n_samples: int, part_size: int, update_size: int) -> list[list[tuple[int, int, int]]]:
    """Return the parts of each update of an epoch: start in the order, rows, and rows of the update before the part."""
    updates = []
    for start in range(0, n_samples, update_size):
        stop = min(start + update_size, n_samples)
        updates.append([(at, min(part_size, stop - at), at - start) for at in range(start, stop, part_size)])
    return updates
