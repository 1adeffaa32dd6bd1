"""Training on a GPU: an epoch's updates by fused kernels, without a wait, a copy or an allocation between two of them.

::

    an epoch    | window: up to so many updates          | window ...        | last window |
    a window    | update 0      | update 1 | ... one CUDA graph, captured once, replayed every epoch
    an update   | part 0 | part 1 | ...      parts of at most batch_size rows whose gradients add up
    a part      H forward, head (last layer + loss + delta + last hidden delta), H - 1 hidden deltas, gradients + update
                = 2 H + 1 launches for H hidden layers, and one each for: more than 16 classes, clipping, a split batch

What differs between two updates lies in device memory, in one slot a part: its rows, the update's number
(`schedule`), the rate and the optimizer's other numbers (`scalars`). They are uploaded once an epoch, and copied on the
device to where a window's graph reads them; losses go back the same way and are read once an epoch. Kernels take views
that are made once, so that a launch converts nothing. Data too large for the device are streamed, a window's rows at a
time: `gpuprop.backends.cuda_streaming`.

More than 16 classes, or no hidden layer, need a launch more: the last hidden delta by itself. So does norm clipping,
which needs the norm of all gradients before the first update, and a large batch for few parameters, whose gradients
are formed by parts of the batch (`gpuprop_kernels.shapes.choose_parts`) that the update adds up. Accumulation leaves
gradients in memory and updates after the last part; max-norm adds a launch a layer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.cuda_ops import METRICS, kernel_activation, kernel_loss, slot_scalars
from gpuprop.backends.cuda_streaming import HostRows, RowStream, open_stream
from gpuprop.backends.interchange import to_host
from gpuprop_kernels import launch
from gpuprop_kernels.dropout import mask_constants
from gpuprop_kernels.gradient import GradientJob, job_table
from gpuprop_kernels.head import MOST_CLASSES
from gpuprop_kernels.launch import Batch, Dropout, Penalty, blocks, padded
from gpuprop_kernels.optimizers import SCALARS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda_ops import CudaOps
    from gpuprop.backends.ops import Array
    from gpuprop.network import Network, TrainingData
    from gpuprop.step import UpdateRule

__all__ = ["CudaUpdates"]

WINDOW_LAUNCHES = 2000
"""Launches that one graph may hold: capturing one costs the host some 50 microseconds, once."""

CHECKED_UPDATES = 4
"""Updates that are made eagerly and by replay, to see that both give the same bits."""


class CudaUpdates:
    """`gpuprop.backends.ops.UpdatePlan` by fused kernels.

    Parameters
    ----------
    ops : CudaOps
    network, data, rule
        As the training loop has them. The arrays of ``rule.state`` move into one buffer, where kernels expect them.
    part_size, update_size : int
        Rows of a part and of an update.
    """

    def __init__(
        self, ops: CudaOps, network: Network, data: TrainingData, rule: UpdateRule, part_size: int, update_size: int
    ) -> None:
        self._ops, self._runtime, self._rule = ops, ops.runtime, rule
        self._network, self._update_size = network, update_size
        self._parts = _parts(data.n_samples, part_size, update_size)
        self._most_parts = max(len(parts) for parts in self._parts)
        with self._runtime.active():
            self._step = step = _Step(ops, network, rule, part_size, part_size < update_size)
            launches = step.launches_of_a_part * self._most_parts + step.launches_of_an_update
            self._window_size = min(len(self._parts), max(1, WINDOW_LAUNCHES // launches))
            self._bring(data)
            self._allocate()
        self._graphs: dict[tuple[int, ...], Callable[[], None]] = {}
        self._factors: dict[tuple[int, ...], bytes] = {}
        self._replays = True
        self._state_before = step.memory.copy()

    def _bring(self, data: TrainingData) -> None:
        """Have the data set in one place on the device; or in two, which take turns with the rows of a window."""
        ops, weight = self._ops, data.sample_weight
        self._chunks: RowStream | None = None
        if isinstance(data.inputs, HostRows):
            hosts = (data.inputs, data.targets, weight)
            self._chunks = open_stream(ops, hosts, self._update_size, self._window_size)
            self._window_size = self._chunks.chunk_rows // self._update_size
            self._order = ops.asarray(np.arange(self._chunks.chunk_rows), np.int32)
            places = self._chunks.buffers
        else:
            self._order = ops.empty(data.n_samples, np.int32)
            # Weights may differ from epoch to epoch, and what was handed in stays as it is.
            places = [[data.inputs, data.targets, None if weight is None else weight.copy()]]
        self._row_weights = places[0][2]
        self._places = [self._step.view_data(place, data) for place in places]

    def _allocate(self) -> None:
        """Allocate the slots of a window, which launches read and write, and those of an epoch, which last."""
        step, dtype, empty = self._step, self._network.dtype, self._ops.empty
        lengths: dict[str, tuple[int, Any]] = {
            "schedule": (4 * self._most_parts, np.int32),
            "scalars": (SCALARS * self._most_parts, dtype),
            "losses": (step.losses_of_a_slot * self._most_parts, dtype),
            "penalties": (2 * step.tallying_blocks * step.penalised, dtype),
        }  # of an update
        self._slots = {name: empty(self._window_size * n, kind) for name, (n, kind) in lengths.items()}
        self._epoch_slots = {name: empty((len(self._parts) * n,), kind) for name, (n, kind) in lengths.items()}
        self._slot_lengths = {name: n for name, (n, _) in lengths.items()}
        step.bind(**self._slots, order=self._order)

    # --- the plan ------------------------------------------------------------------------------------------------

    def begin_epoch(  # noqa: D102  (contracts: see UpdatePlan)
        self,
        data: TrainingData,
        order: NDArray[np.int32],
        weights: NDArray[np.float64],
        penalty_factors: NDArray[np.float64],
        rates: NDArray[np.float64],
        steps_done: int,
    ) -> None:
        self._weights, self._penalty_factors = weights, penalty_factors
        self._window: tuple[int, int] | None = None
        most, optimizer = self._most_parts, self._rule.optimizer
        # In slots: the last update may have fewer parts, whose slots stay zero.
        schedule = np.zeros((len(self._parts), most, 4), np.int32)
        scalars = np.zeros((len(self._parts), most, SCALARS), self._network.dtype)
        for index, parts in enumerate(self._parts):
            step = steps_done + index
            scalars[index] = slot_scalars(optimizer, float(rates[index]), step + 1, float(weights[index]))
            # Rows of a stream are counted from the beginning of their window.
            base = 0 if self._chunks is None else index // self._window_size * self._chunks.chunk_rows
            for place, (start, n_rows, first_row) in enumerate(parts):
                schedule[index, place] = start - base, n_rows, step, first_row
        with self._runtime.active():
            self._runtime.upload(schedule.reshape(-1), self._epoch_slots["schedule"])
            self._runtime.upload(scalars.reshape(-1), self._epoch_slots["scalars"])
            self._bring_rows(data, order)
            self._state_before[...] = self._step.memory

    def _bring_rows(self, data: TrainingData, order: NDArray[np.int32]) -> None:
        """Take the order of an epoch, and its sample weights."""
        if self._chunks is not None:
            weight = data.wide_weight
            self._chunks.begin(order, None if weight is None else to_host(weight).astype(self._network.dtype))
            return
        self._runtime.upload(order, self._order)
        if self._row_weights is not None:
            self._row_weights[...] = data.sample_weight

    def run(self, first: int, last: int) -> None:  # noqa: D102
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

    def totals(self) -> NDArray[np.float64]:  # noqa: D102
        with self._runtime.active():
            self._leave()
        # By updates first, so that the sum is the same for windows of any size.
        loss, score = self._sums_of_updates("losses").sum(axis=0)
        network = self._network
        if self._step.penalised:
            sums = self._sums_of_updates("penalties")
            penalties = 0.5 * network.l2 * sums[:, 0] + network.l1 * sums[:, 1]
            loss += float((self._weights * self._penalty_factors) @ penalties)
        return np.array([loss, score])

    def _sums_of_updates(self, name: str) -> NDArray[np.float64]:
        """Return the sums of the pairs that each update of the epoch has left, (updates, 2)."""
        left = self._runtime.to_numpy(self._epoch_slots[name]).astype(np.float64)
        return np.asarray(left.reshape(len(self._parts), -1, 2).sum(axis=1))

    def rewind(self) -> None:  # noqa: D102
        with self._runtime.active():
            self._step.memory[...] = self._state_before

    def places(self) -> Iterator[tuple[str, Array]]:  # noqa: D102
        yield from self._step.places()

    # --- windows -------------------------------------------------------------------------------------------------

    def _enter(self, begin: int, end: int) -> None:
        """Have the rows and the slots of the updates `begin` to `end` - 1 where launches find them."""
        if self._window == (begin, end):
            return
        self._leave()
        index = begin // self._window_size
        if self._chunks is not None:
            self._chunks.fetch(index)
        self._step.use(self._places[index % len(self._places)])
        for name in ("schedule", "scalars"):
            self._slots[name][: (end - begin) * self._slot_lengths[name]] = self._of_window(name, begin, end)
        self._slots["losses"][...] = 0
        self._slots["penalties"][...] = 0
        self._window = (begin, end)

    def _leave(self) -> None:
        """Keep what the window's updates have left."""
        if self._window is None:
            return
        begin, end = self._window
        self._window = None
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
            factor = float(self._penalty_factors[index])
            self._step.launch(place, place * self._most_parts, len(self._parts[index]), factor)

    def _replay(self, begin: int, end: int) -> None:
        """Make a window's updates by one graph: captured when it is first needed, launched ever after."""
        # The factors of the penalties are arguments of launches, which a graph keeps; they change from epoch to epoch
        # only under sample weights and scikit-learn's conventions together.
        factors = self._penalty_factors[begin:end].tobytes()
        key = (end - begin, len(self._parts[end - 1]), begin // self._window_size % len(self._places))
        if self._step.penalised and self._factors.setdefault(key, factors) != factors:
            self._launch(begin, end)
            return
        if self._replays and key not in self._graphs:
            self._capture(key, begin, end)
        graph = self._graphs.get(key)
        if graph is None:
            self._launch(begin, end)
        else:
            graph()

    def _capture(self, key: tuple[int, ...], begin: int, end: int) -> None:
        """Record a window as a graph, if a replay gives the bits that launches give."""
        try:
            same = self._replay_gives_the_same_bits(begin)
            graph = self._runtime.record(lambda: self._launch(begin, end)) if same else None
            flaw = "" if same else "a replay of them gives other numbers"
        except Exception as error:  # whatever a driver has against capturing, launches still work
            graph, flaw = None, str(error) or type(error).__name__
        if flaw:
            warnings.warn(
                f"CUDA graphs are not used on {self._ops.device}: {' '.join(flaw.split())}; each kernel is launched by "
                "itself, which is slower for small networks",
                RuntimeWarning,
                stacklevel=2,
            )
        if graph is None:
            self._replays = False
        else:
            self._graphs[key] = graph

    def _replay_gives_the_same_bits(self, begin: int) -> bool:
        """Make the first updates of a window eagerly and by replay, and take them back.

        The eager ones also compile every kernel, which cannot be done during a capture.
        """
        end = begin + CHECKED_UPDATES
        arrays = (self._step.parameters, self._step.memory, self._slots["losses"], self._slots["penalties"])
        before = [array.copy() for array in arrays]

        def result(make: Callable[[], None]) -> list[bytes]:
            make()
            bits = [self._runtime.to_numpy(array).tobytes() for array in arrays]
            for array, old in zip(arrays, before, strict=True):
                array[...] = old
            return bits

        eager = result(lambda: self._launch(begin, end))
        graph = self._runtime.record(lambda: self._launch(begin, end))
        if graph is None:  # the simulator
            self._replays = False
            return True
        return result(graph) == eager


def _parts(n_samples: int, part_size: int, update_size: int) -> list[list[tuple[int, int, int]]]:
    """Return for each update of an epoch its parts: start in the order, rows, and rows of the update before it."""
    updates = []
    for start in range(0, n_samples, update_size):
        stop = min(start + update_size, n_samples)
        updates.append([(at, min(part_size, stop - at), at - start) for at in range(start, stop, part_size)])
    return updates


class _Step:
    """The launches of one update, with the workspace that they share."""

    def __init__(self, ops: CudaOps, network: Network, rule: UpdateRule, max_rows: int, accumulates: bool) -> None:
        self._ops, self._network, self._rule = ops, network, rule
        self._max_rows, self._accumulates = max_rows, accumulates
        self._dtype, self._stream = network.dtype, ops.runtime.stream
        self._sizes, self._top = network.layer_sizes, network.n_layers
        self._activations: list[Any] = [None, *(kernel_activation(one) for one in network.layer_activations)]
        self._has_head = self._top > 1 and self._sizes[-1] <= MOST_CLASSES
        self._keeps_gradients = accumulates or rule.clip_norm is not None
        self._drops = [self._dropout(layer, rate) for layer, rate in enumerate(network.dropout)]
        self._lay_out()
        self._move_state()
        self._view_parameters()
        self._make_jobs()
        self._count()

    # --- memory --------------------------------------------------------------------------------------------------

    def _dropout(self, layer: int, rate: float) -> Dropout | None:
        if not rate:
            return None
        mask, keep = mask_constants(rate, self._network.seed, layer, self._dtype)
        return Dropout(self._ops.constant(mask, np.int32), self._ops.constant(keep, self._dtype))

    def _lay_out(self) -> None:
        """Allocate one flat workspace, with a view of each array in it: "a1", "z1", "d1" and "sums1" of layer 1, ..."""
        tall, sizes, lengths = self._max_rows, self._sizes, {}
        self._tiles: list[Any] = [None, *(self._ops.tile(tall, size, self._dtype) for size in sizes[1:])]
        self._sum_rows = [0, *(blocks(tall, tile.rows) for tile in self._tiles[1:])]
        if self._drops[0]:
            lengths["a0"] = tall * padded(sizes[0])
        for layer in range(1, self._top):
            lengths[f"a{layer}"] = lengths[f"d{layer}"] = tall * padded(sizes[layer])
            if self._activations[layer].derivative_of == "z":
                lengths[f"z{layer}"] = lengths[f"a{layer}"]
        if self._has_head:
            # One row of column sums for each of the head's blocks, of the last two layers.
            self._sum_rows[-2:] = [blocks(tall, launch.head_rows().rows)] * 2
        else:
            lengths[f"z{self._top}"] = tall * padded(sizes[-1])
        lengths[f"d{self._top}"] = tall * padded(sizes[-1])
        for layer in range(1, self._top + 1):
            lengths[f"sums{layer}"] = self._sum_rows[layer] * padded(sizes[layer])
        ends = np.cumsum([0, *lengths.values()]).tolist()
        self._offsets = dict(zip(lengths, ends, strict=False))
        self._counts = self._ops.constant(np.zeros(self._sum_rows[-1]), np.uint32)
        self._workspace = self._ops.empty(ends[-1], self._dtype)
        self._lengths = lengths
        view = self._ops.runtime.view
        self._whole_workspace = view(self._workspace)
        self._view = {
            name: view(self._workspace[self._offsets[name] : self._offsets[name] + n]) for name, n in lengths.items()
        }

    def _move_state(self) -> None:
        """Put the optimizer's state into one buffer; four spare elements serve optimizers that remember nothing."""
        state, size = self._rule.state, self._network.parameters.size
        self.memory = self._ops.empty(len(state) * size + 4, self._dtype)
        for index, name in enumerate(state):
            place = self.memory[index * size : (index + 1) * size]
            place[...] = state[name]
            state[name] = place

    def _view_parameters(self) -> None:
        ops, parameters = self._ops, self._network._parameters
        self.parameters = parameters.flat
        view = ops.runtime.view
        self._flat, self._memory = view(parameters.flat), view(self.memory)
        self._n_weights = parameters.n_weights
        self._weights, self._biases, self._weights_at, self._biases_at = [None], [None], [0], [0]
        start = 0
        for n_in, n_out in pairwise(self._sizes):
            self._weights_at.append(start)
            self._weights.append(view(parameters.flat[start : start + n_in * padded(n_out)]))
            start += n_in * padded(n_out)
        for n_out in self._sizes[1:]:
            self._biases_at.append(start)
            self._biases.append(view(parameters.flat[start : start + padded(n_out)]))
            start += padded(n_out)
        self._gradients = view(ops.empty(parameters.flat.size if self._keeps_gradients else 4, self._dtype))

    def _make_jobs(self) -> None:
        """Make the table of the launch that forms all gradients."""
        jobs = [
            GradientJob(
                self._sizes[layer - 1],
                self._sizes[layer],
                self._offsets.get(f"a{layer - 1}", 0),
                self._offsets[f"d{layer}"],
                self._offsets[f"sums{layer}"],
                self._sum_rows[layer],
                self._weights_at[layer],
                self._biases_at[layer],
                gathered=layer == 1 and not self._drops[0],
            )
            for layer in range(1, self._top + 1)
        ]
        # The largest layer's tile serves all of them.
        largest = max(pairwise(self._sizes), key=lambda pair: pair[0] * pair[1])
        tile = self._ops.tile(*largest, self._dtype, optimizer=not self._keeps_gradients)
        table, self._n_blocks = job_table(jobs, tile)
        parts = launch.choose_parts(self._n_blocks, self._max_rows, self._ops.runtime.multiprocessors)
        if parts > 1:
            # Nothing is fused with a part of a gradient, and any tile will do.
            tile = self._ops.tile(*largest, self._dtype)
            table, self._n_blocks = job_table(jobs, tile)
        self._gradient_tile, self._gradient_parts = tile, parts
        self._jobs, self._n_jobs = self._ops.constant(table, np.int32), 2 * len(jobs)
        size = self._network.parameters.size
        self.tallying_blocks = self._n_blocks if parts == 1 else launch.update_blocks(size)
        self._squares = self._ops.runtime.view(self._ops.empty(self.tallying_blocks, self._dtype))
        self._slabs = self._ops.runtime.view(self._ops.empty(parts * size if parts > 1 else 4, self._dtype))

    def _count(self) -> None:
        """Count launches, for the size of a window, and what a slot leaves of losses."""
        network, rule = self._network, self._rule
        splits = self._gradient_parts > 1
        self.launches_of_a_part = 2 * self._top - self._has_head + (self._drops[0] is not None) + splits
        self.penalised = bool(network.l1 or network.l2)
        self.launches_of_an_update = self._keeps_gradients + (rule.max_norm is not None) * self._top
        per_slot = launch.head_rows().rows if self._has_head else self._tiles[self._top].rows
        self.losses_of_a_slot = 2 * blocks(self._max_rows, per_slot)

    def bind(self, schedule: Array, scalars: Array, losses: Array, penalties: Array, order: Array) -> None:
        """Take the arrays of a window, which every launch reads or writes one slot of."""
        view, n = self._ops.runtime.view, 2 * self.tallying_blocks
        self._schedule, self._scalars, self._losses = view(schedule), view(scalars), view(losses)
        self._order = view(order)
        self._penalties = [view(penalties[at : at + n]) for at in range(0, penalties.size, n)]

    def view_data(self, place: list[Array | None], data: TrainingData) -> tuple[Any, ...]:
        """Return what launches take for inputs, targets and weights there, scaled and scored as `data` says."""
        ops, (inputs, targets, weights) = self._ops, place
        rows = ops.rows(inputs, data.scaling, self._dtype)
        return rows, ops.flat(targets), None if weights is None else ops.flat(weights), METRICS[data.metric]

    def use(self, views: tuple[Any, ...]) -> None:
        """Read rows from here, until told otherwise."""
        self._data_rows, self._targets, self._weights_of_rows, self._metric = views

    # --- launches ------------------------------------------------------------------------------------------------

    def launch(self, place: int, first_slot: int, n_parts: int, penalty_factor: float) -> None:
        """Launch the update at `place` of the window; its parts have the slots from `first_slot`."""
        penalty = None
        if self.penalised:
            network = self._network
            penalty = Penalty(network.l1 * penalty_factor, network.l2 * penalty_factor, self._penalties[place])
        for part in range(n_parts):
            batch = Batch(self._schedule, first_slot + part, self._max_rows, self._order, self._stream)
            self._forward(batch)
            self._backward(batch)
            # Penalties count once an update.
            self._gradients_of(batch, accumulate=part > 0, penalty=None if part else penalty)
        if self._keeps_gradients:
            self._update(first_slot + n_parts - 1, self._gradients)
        if self._rule.max_norm is not None:
            self._ops.limit_incoming_norms(self._flat, self._sizes, self._rule.max_norm)

    def _inputs(self, layer: int) -> Any:
        """Return what layer `layer` + 1 reads."""
        return self._data_rows if layer == 0 and not self._drops[0] else self._view[f"a{layer}"]

    def _forward(self, batch: Batch) -> None:
        if self._drops[0]:
            rows, out = self._data_rows, self._view["a0"]
            launch.load_batch(rows, out, batch, n_features=self._sizes[0], dropout=self._drops[0])
        for layer in range(1, self._top):
            launch.forward_layer(
                self._inputs(layer - 1),
                self._weights[layer],
                self._biases[layer],
                self._view[f"a{layer}"],
                batch,
                activation=self._activations[layer],
                n_in=self._sizes[layer - 1],
                n_out=self._sizes[layer],
                tile=self._tiles[layer],
                z=self._view.get(f"z{layer}"),
                dropout=self._drops[layer],
            )

    def _backward(self, batch: Batch) -> None:
        if self._has_head:
            self._head(batch)
        else:
            self._wide_output(batch)
        for layer in range(self._top - 1 - self._has_head, 0, -1):
            launch.hidden_delta(
                self._view[f"d{layer + 1}"],
                self._weights[layer + 1],
                self._source(layer),
                self._view[f"d{layer}"],
                self._view[f"sums{layer}"],
                batch,
                activation=self._activations[layer],
                n_units=self._sizes[layer],
                n_next=self._sizes[layer + 1],
                tile=self._tiles[layer],
                dropout=self._drops[layer],
            )

    def _source(self, layer: int) -> Any:
        """Return what the derivative of a hidden layer is taken from."""
        return self._view.get(f"z{layer}", self._view[f"a{layer}"])

    def _head(self, batch: Batch) -> None:
        top, below = self._top, self._top - 1
        launch.output_head(
            self._view[f"a{below}"],
            self._weights[top],
            self._biases[top],
            self._targets,
            self._weights_of_rows,
            self._view[f"d{top}"],
            self._view[f"sums{top}"],
            self._losses,
            self._source(below),
            self._view[f"d{below}"],
            self._view[f"sums{below}"],
            self._scalars,
            batch,
            output=self._activations[top],
            loss=kernel_loss(self._network.loss_function),
            metric=self._metric,
            hidden=self._activations[below],
            n_in=self._sizes[below],
            n_out=self._sizes[top],
            targets_ld=padded(self._sizes[top]),
            shape=launch.head_rows(),
            dropout=self._drops[below],
        )

    def _wide_output(self, batch: Batch) -> None:
        top = self._top
        launch.wide_output(
            self._inputs(top - 1),
            self._weights[top],
            self._biases[top],
            self._view[f"z{top}"],
            self._targets,
            self._weights_of_rows,
            self._view[f"d{top}"],
            self._view[f"sums{top}"],
            self._losses,
            self._counts,
            self._scalars,
            batch,
            output=self._activations[top],
            loss=kernel_loss(self._network.loss_function),
            metric=self._metric,
            n_in=self._sizes[top - 1],
            n_out=self._sizes[top],
            targets_ld=padded(self._sizes[top]),
            tile=self._tiles[top],
        )

    def _gradients_of(self, batch: Batch, *, accumulate: bool, penalty: Penalty | None) -> None:
        """Launch the gradients, and with them the update where nothing comes between."""
        splits, keeps = self._gradient_parts > 1, self._keeps_gradients
        squares = None if self._rule.clip_norm is None else self._squares
        if splits:
            out, mode = self._slabs, "slab"
        elif keeps:
            out, mode = self._gradients, "accumulate" if accumulate else "store"
        else:
            out, mode = self._memory, self._rule.optimizer.name
        launch.accumulate_gradients(
            None if self._drops[0] else self._data_rows,
            self._whole_workspace,
            self._flat,
            out,
            self._jobs,
            self._scalars,
            batch,
            mode=mode,
            tile=self._gradient_tile,
            n_jobs=self._n_jobs,
            n_blocks=self._n_blocks,
            parts=self._gradient_parts,
            penalty=None if splits else penalty,
            squares=None if splits else squares,
        )
        if splits and keeps:
            launch.sum_slabs(
                self._flat,
                self._gradients,
                self._slabs,
                n_weights=self._n_weights,
                parts=self._gradient_parts,
                accumulate=accumulate,
                penalty=penalty,
                squares=squares,
                stream=self._stream,
            )
        elif splits:
            self._update(batch.slot, self._slabs, self._gradient_parts, penalty)

    def _update(self, slot: int, gradients: Any, parts: int = 1, penalty: Penalty | None = None) -> None:
        """Launch the optimizer on gradients in memory, or on the slabs that add up to them."""
        clip = self._rule.clip_norm
        launch.update_parameters(
            self._flat,
            self._memory,
            gradients,
            self._scalars,
            slot,
            optimizer=self._rule.optimizer.name,
            n_weights=self._n_weights,
            parts=parts,
            squares=None if clip is None else self._squares,
            n_squares=self.tallying_blocks,
            clip_norm=clip,
            penalty=penalty,
            stream=self._stream,
        )

    def places(self) -> Iterator[tuple[str, Array]]:
        """Yield what the last update left, in the order of the algorithm."""
        network, layers = self._network, range(1, self._top + 1)
        names = {
            **{f"a{layer}": f"the output of layer {layer}" for layer in layers},
            "z" + str(self._top): f"the output of layer {self._top}",
            **{f"d{layer}": f"the delta of layer {layer}" for layer in reversed(layers)},
        }
        for short, name in names.items():
            if short in self._lengths:
                at = self._offsets[short]
                yield name, self._workspace[at : at + self._lengths[short]]
        yield from ((f"the updated weights of layer {layer}", network.weights[layer - 1]) for layer in layers)
        yield from ((f"the updated biases of layer {layer}", network.biases[layer - 1]) for layer in layers)
