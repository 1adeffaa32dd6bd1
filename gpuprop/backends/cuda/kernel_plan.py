"""Training on a GPU: fused kernels make an epoch's updates, with no wait, copy or allocation between two updates.

::

    an epoch    | window: up to so many updates          | window ...        | last window |
    a window    | update 0      | update 1 | ... one CUDA graph, captured once, replayed every epoch
    an update   | part 0 | part 1 | ...      parts of at most batch_size rows whose gradients add up
    a part      H forward, head (last layer + loss + delta + last hidden delta), H - 1 hidden deltas, gradients + update
                = 2 H + 1 launches for H hidden layers, and one each for: more than 16 classes, clipping, a split batch

Whatever differs between two updates lies in device memory, in one slot for each part: its rows and the update's number
(`schedule`), the rate, the penalties and the optimizer's other numbers (`scalars`). The slots are uploaded once an
epoch, and copied on the device to where a window's graph reads them. Losses go back the same way, and the host reads
them once an epoch. Kernels take views that are made once, so that a launch converts nothing. Data too large for the
device are streamed, one window's rows at a time: see `gpuprop.backends.cuda.streaming`. The launches of an update are
in `gpuprop.backends.cuda.launches`, and the memory that they share in `gpuprop.backends.cuda.memory`.

More than 16 classes, or no hidden layer, cost one more launch, for the last hidden delta alone. So does norm clipping,
which needs the norm of all gradients before the first update, and so does a large batch for few parameters: there,
parts of the batch form gradients (`gpuprop_kernels.shapes.choose_parts`) that the update adds up. Accumulation leaves
gradients in memory and updates after the last part. Max-norm adds a launch for each layer.

Networks that fit a block of the GPU train there, whole epochs in a launch: `gpuprop.backends.cuda.block_plan`.

Several networks of one kind (`gpuprop.backends.cuda.together` says which) make their updates in the launches, graphs
and copies of one: their slots of an update lie side by side, their orders one after the other. A network that has
fewer updates in an epoch than another, or whose training has ended, has no rows in the slots of the others' updates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import to_host
from gpuprop.backends.cuda.launches import Step
from gpuprop.backends.cuda.memory import Scratch
from gpuprop.backends.cuda.residence import HostRows
from gpuprop.backends.cuda.shared_rows import SharedRows
from gpuprop.backends.cuda.streaming import RowStream, open_stream
from gpuprop.backends.cuda.translation import epoch_scalars
from gpuprop.backends.steps import put_back, taken_out
from gpuprop.backends.threads import limited_blas
from gpuprop.core.plan import CountedLaunches
from gpuprop_kernels.optimizers import SCALARS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda.array_ops import CudaArrays
    from gpuprop.core.array_ops import Array
    from gpuprop.core.plan import TrainingState
    from gpuprop.core.updates import EpochUpdates, Training

__all__ = ["CudaPlan"]

WINDOW_LAUNCHES = 2000
"""The most launches in one graph; to capture a launch costs the host some 50 microseconds, once."""

CHECKED_UPDATES = 4
"""How many updates are made both launch by launch and by replay, to check that both give the same bits."""


class CudaPlan(CountedLaunches):
    """`gpuprop.core.plan.Plan` that makes updates with fused kernels.

    Parameters
    ----------
    ops : CudaArrays
    trainings : sequence of Training
        One training, or several whose `gpuprop.backends.cuda.together.kind` is equal. Their parameters and the arrays
        of their ``rule.state`` move into one buffer, where kernels expect them.
    want : str
        "fused" launches each kernel by itself; any other name records graphs where that is possible.
    scratch : Scratch or None, default=None
        Shared with plans that take turns with this one.
    """

    def __init__(
        self, ops: CudaArrays, trainings: Sequence[Training], want: str, scratch: Scratch | None = None
    ) -> None:
        self._ops, self._runtime, self._trainings, self._training = ops, ops.runtime, trainings, trainings[0]
        self._spec, self._update_size = self._training.layers.spec, self._training.update_size
        self._lay_out_updates()
        with self._runtime.active():
            self._scratch = scratch or Scratch(ops)
            self._step = step = self._make_step()
            self._window_size = min(self.n_updates, self._most_in_a_window())
            self._bring()
            self._allocate()
        self._graphs: dict[tuple[int, ...], Callable[[], None]] = {}
        self._no_graphs = self._why_no_graphs(want)
        # A lone training keeps its parameters itself; see `go_back`.
        self._kept = step.memory.optimizer_state if scratch is None else step.memory.buffer
        self._before = self._kept.copy()
        self._position = 0
        self._epochs: dict[int, EpochUpdates] = {}

    def _make_step(self) -> Any:
        """Return what launches the kernels; `gpuprop.backends.cuda.block_plan` has other ones."""
        return Step(self._ops, self._trainings, self._scratch)

    def _most_in_a_window(self) -> int:
        launches = self._step.launches_of_a_part * self._most_parts + self._step.launches_of_an_update
        return max(1, WINDOW_LAUNCHES // int(launches))

    def _lay_out_updates(self) -> None:
        """Find the updates of an epoch of each network, and their parts."""
        sizes = self._training.part_size, self._update_size
        parts = [_parts(training.rows_of_epoch, *sizes) for training in self._trainings]
        self.n_updates = max(len(updates) for updates in parts)
        self._updates_of = [len(updates) for updates in parts]
        self._most_parts = most = max(len(update) for updates in parts for update in updates)
        #: The parts of each update, of the network that has most.
        self._parts_of = [
            max(len(updates[index]) for updates in parts if index < len(updates)) for index in range(self.n_updates)
        ]
        ends = np.cumsum([0, *(training.rows_of_epoch for training in self._trainings)])
        self._order_at = ends.tolist()
        # The last update may have fewer parts than the others; the slots of its missing parts stay zero.
        self._rows_of_slots = np.zeros((self.n_updates, len(parts), most, 4), np.int32)
        for place, updates in enumerate(parts):
            for index, update in enumerate(updates):
                for part, (start, n_rows, first_row) in enumerate(update):
                    self._rows_of_slots[index, place, part] = ends[place] + start, n_rows, 0, first_row

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

    def launches(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for n_parts in self._parts_of:
            for name, n_bytes in self._step.work(n_parts):
                count, total = found.get(name, (0, 0))
                found[name] = count + 1, total + n_bytes
        return found

    @property
    def n_networks(self) -> int:
        """The networks whose arrays lie here, also of those whose training has ended."""
        return len(self._trainings)

    @classmethod
    def bytes_of_network(cls, ops: CudaArrays, training: Training) -> tuple[int, int]:
        """Return the bytes that a network takes for good, and those that plans which take turns can share."""
        lone = cls(ops, [training], "fused")
        for_good = 2 * lone._step.memory.buffer.nbytes + lone._order.nbytes
        for_good += sum(array.nbytes for slots in (lone._slots, lone._epoch_slots) for array in slots.values())
        return for_good, lone._scratch.n_bytes

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

    def _bring(self) -> None:
        """Give the data set one place on the device, or two places that take turns to hold the rows of a window."""
        ops, data = self._ops, self._training.data
        weighted = data.sample_weight is not None
        self._chunks: RowStream | None = None
        self._first_rows = [0]
        if isinstance(data.inputs, HostRows):
            hosts = (data.inputs, data.targets, data.sample_weight)
            self._chunks = open_stream(ops, hosts, self._update_size, self._window_size)
            self._window_size = self._chunks.chunk_rows // self._update_size
            self._order = ops.asarray(np.arange(self._chunks.chunk_rows), np.int32)
            places = self._chunks.buffers
            base = np.arange(self.n_updates) // self._window_size * self._chunks.chunk_rows
            self._rows_of_slots[..., 0] -= base[:, None, None]  # rows count from the beginning of their window
        else:
            rows = SharedRows(ops, [training.data for training in self._trainings])
            self._first_rows = rows.first_rows
            self._order = ops.empty(self._order_at[-1], np.int32)
            # Sample weights lie in the order of the epoch.
            places = [
                [rows.inputs, rows.targets, ops.empty(self._order_at[-1], self._spec.dtype) if weighted else None]
            ]
        self._row_weights = places[0][2]
        self._places = [self._step.view_data(place, data) for place in places]

    def _allocate(self) -> None:
        """Allocate the slots of a window, which launches read and write, and those of the whole epoch."""
        step, dtype, empty, k = self._step, self._spec.dtype, self._ops.empty, len(self._trainings)
        lengths: dict[str, tuple[int, Any]] = {
            "schedule": (k * 4 * self._most_parts, np.int32),
            "scalars": (k * SCALARS * self._most_parts, dtype),
            "losses": (k * step.losses_of_a_slot * self._most_parts, dtype),
            "penalties": (k * 2 * step.tallying_blocks * step.penalised, dtype),
        }  # for one update
        self._slots = {name: empty(self._window_size * n, kind) for name, (n, kind) in lengths.items()}
        self._epoch_slots = {name: empty((self.n_updates * n,), kind) for name, (n, kind) in lengths.items()}
        self._slot_lengths = {name: n for name, (n, _) in lengths.items()}
        step.bind(self._slots, self._order, self._most_parts)

    # --- the plan ------------------------------------------------------------------------------------------------

    def begin_epoch(self, *updates: EpochUpdates) -> None:
        # A training may have changed since (whether it is watched, say), but its layers are the same object.
        places = {id(training.layers): place for place, training in enumerate(self._trainings)}
        self._epochs = {places[id(epoch.training.layers)]: epoch for epoch in updates}
        self._position = 0
        self._window: tuple[int, int] | None = None
        schedule = np.zeros_like(self._rows_of_slots)
        scalars = np.zeros((*schedule.shape[:3], SCALARS), self._spec.dtype)
        for place, epoch in self._epochs.items():
            n = self._updates_of[place]
            schedule[:, place] = self._rows_of_slots[:, place]
            schedule[:n, place, :, 2] = epoch.steps_done + np.arange(n)[:, None]
            scalars[:n, place] = epoch_scalars(epoch)[:, None]
        with self._runtime.active():
            self._runtime.upload(schedule.reshape(-1), self._epoch_slots["schedule"])
            self._runtime.upload(scalars.reshape(-1), self._epoch_slots["scalars"])
            self._bring_rows()
            self._step.memory.adopt()
            self._before[...] = self._kept

    def _bring_rows(self) -> None:
        """Upload the orders of an epoch and its sample weights, or hand them to the stream of rows."""
        if self._chunks is not None:
            (epoch,) = self._epochs.values()
            weight = epoch.data.wide_weight
            self._chunks.begin(epoch.order, None if weight is None else to_host(weight).astype(self._spec.dtype))
            return
        order = np.zeros(self._order_at[-1], np.int32)
        for place, epoch in self._epochs.items():
            order[self._order_at[place] : self._order_at[place + 1]] = epoch.order + self._first_rows[place]
        self._runtime.upload(order, self._order)
        if self._row_weights is not None:
            for place, epoch in self._epochs.items():  # on the device: nothing of the data comes to the host
                own = slice(self._order_at[place], self._order_at[place + 1])
                rows = self._order[own] - self._first_rows[place] if self._first_rows[place] else self._order[own]
                of_rows: Any = epoch.data.sample_weight
                self._row_weights[own] = of_rows[rows]

    def run(self, first: int, last: int) -> None:
        self._position = last
        with self._runtime.active():
            while first < last:
                begin = first - first % self._window_size
                end = min(begin + self._window_size, self.n_updates)
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
        losses = self._sums_of_updates("losses")
        penalties = self._sums_of_updates("penalties") if self._step.penalised else {}
        totals = np.zeros((len(self._epochs), 2))
        for row, (place, epoch) in zip(totals, self._epochs.items(), strict=True):
            # Summing within updates first makes the sum the same for windows of any size.
            row[:] = losses[place].sum(axis=0)
            if place in penalties:
                spec, sums = epoch.training.layers.spec, penalties[place]
                added = 0.5 * spec.l2 * sums[:, 0] + spec.l1 * sums[:, 1]
                row[0] += float((epoch.weights * epoch.penalty_factors) @ added)
        return totals

    def _left(self, name: str) -> dict[int, NDArray[Any]]:
        """Return what the launches of the epoch have left in these slots, for each network: as a lone one's slots."""
        left = self._runtime.to_numpy(self._epoch_slots[name]).reshape(self.n_updates, len(self._trainings), -1)
        return {place: np.ascontiguousarray(left[: self._updates_of[place], place]) for place in self._epochs}

    def _sums_of_updates(self, name: str) -> dict[int, NDArray[np.float64]]:
        """Return for each network, for each of its updates, the sum of the pairs that its launches have left."""
        left = self._left(name).items()
        return {place: np.asarray(own.astype(np.float64).reshape(len(own), -1, 2).sum(axis=1)) for place, own in left}

    def state(self) -> tuple[TrainingState, ...]:
        totals = self.totals()
        parts = {name: self._left(name) for name in ("losses", "penalties")}
        return tuple(
            taken_out(
                epoch.training, self._position, row, {name: own[place].reshape(-1) for name, own in parts.items()}
            )
            for row, (place, epoch) in zip(totals, self._epochs.items(), strict=True)
        )

    def restore(self, *states: TrainingState) -> None:
        for epoch, state in zip(self._epochs.values(), states, strict=True):
            put_back(epoch.training, state)
        position = states[0].position
        parts = self._parts_of_states(states)
        with self._runtime.active():
            self._window = None
            for name, values in parts.items():
                self._runtime.upload(values.reshape(-1), self._epoch_slots[name])
            if position < self.n_updates:
                begin = position - position % self._window_size
                self._enter(begin, min(begin + self._window_size, self.n_updates))
                for name in parts:  # the first updates of this window have been made
                    n = (position - begin) * self._slot_lengths[name]
                    self._slots[name][:n] = self._of_window(name, begin, position)
        self._position = position

    def _parts_of_states(self, states: Sequence[TrainingState]) -> dict[str, NDArray[Any]]:
        """Return the losses and penalties of each update, as this plan keeps them.

        If a plan of another kind made a state, its totals count as the losses of the first update.
        """
        k = len(self._trainings)
        shapes = {name: (self.n_updates, k, self._slot_lengths[name] // k) for name in ("losses", "penalties")}
        parts = {name: np.zeros(shape, self._spec.dtype) for name, shape in shapes.items()}
        for place, state in zip(self._epochs, states, strict=True):
            own = {name: part[: self._updates_of[place], place] for name, part in parts.items()}
            if {name: part.size for name, part in state.parts.items()} == {name: a.size for name, a in own.items()}:
                for name, part in state.parts.items():
                    own[name][...] = np.asarray(part, self._spec.dtype).reshape(own[name].shape)
            else:
                own["losses"][0, :2] = state.totals
        return parts

    def rewind(self, *places: int) -> None:
        self._go_back(places, parameters=False)

    def go_back(self, *places: int) -> None:
        """Restore parameters and optimizers' memory to what they were at the beginning of the epoch.

        A plan that shares its scratch with others has kept the parameters; a lone training keeps its own.
        """
        self._go_back(places, parameters=True)

    def _go_back(self, places: tuple[int, ...], *, parameters: bool) -> None:
        """Restore what belongs to the updates given to `begin_epoch` at these places; none stands for all."""
        members = list(self._epochs) or list(range(len(self._trainings)))
        with self._runtime.active():
            chosen = [members[place] for place in places] if places else members
            self._step.memory.go_back(self._before, chosen, parameters=parameters)

    def release(self, trainings: Sequence[Training]) -> None:
        """Give the networks of trainings that have ended arrays of their own again."""
        with self._runtime.active():
            for place, training in enumerate(self._trainings):
                if any(training.layers is ended.layers for ended in trainings):
                    self._step.memory.release(place)

    def host_parameters(self) -> list[NDArray[Any]]:
        """Return the parameters of the networks given to `begin_epoch`, on the host and without padding."""
        with self._runtime.active():
            found = self._step.memory.host_parameters()
        return [found[place] for place in self._epochs]

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
            self._step.launch(index % self._window_size, self._parts_of[index])

    def _replay(self, begin: int, end: int) -> None:
        """Make a window's updates by one graph, which is captured when it is first needed."""
        key = (end - begin, self._parts_of[end - 1], begin // self._window_size % len(self._places))
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
