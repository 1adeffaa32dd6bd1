"""The fused launches of one training update on a GPU; `gpuprop.backends.cuda.kernel_plan` describes their sequence.

::

    a part    load_batch          only with dropout on the input
              forward_layer       each hidden layer
              output_head         last layer, loss, delta, last hidden delta; more than 16 classes: wide_output
              hidden_delta        each hidden layer that the head has not done, from the last to the first
              accumulate_gradients    all layers, with the optimizer in it unless something comes between
    then      sum_slabs, update_parameters, limit_incoming_norm: where the batch is split, clipped, or of several parts

The launches read their rows, their rate and the number of their update from slots in device memory (`Step.bind`), so
that the same launches, once recorded, serve every window and epoch. Several networks take the launches of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.cuda.memory import Scratch, StepMemory
from gpuprop.backends.cuda.network_buffer import SPARE
from gpuprop.backends.cuda.translation import METRICS, kernel_loss
from gpuprop_kernels import launch
from gpuprop_kernels.dropout import mask_constants
from gpuprop_kernels.gradient import job_table
from gpuprop_kernels.launch import Batch, Dropout, Networks, blocks, padded

if TYPE_CHECKING:
    from gpuprop.backends.cuda.array_ops import CudaArrays
    from gpuprop.core.array_ops import Array
    from gpuprop.core.data import TrainingData
    from gpuprop.core.updates import Training

__all__ = ["Step", "limit_incoming_norms", "view_data"]


class Step:
    """The launches of one update, of one network or of several that have the same launches.

    Tiles and parts of the batch are those of a lone network, whatever the number of networks: they decide in which
    order sums are formed, and so a network gets the same bits in any company.

    Parameters
    ----------
    ops : CudaArrays
    trainings : sequence of Training
        With equal `gpuprop.backends.cuda.together.kind`.
    scratch : Scratch
    """

    def __init__(self, ops: CudaArrays, trainings: Sequence[Training], scratch: Scratch) -> None:
        one = trainings[0]
        self._ops, self._trainings, self._scratch = ops, trainings, scratch
        self._spec, self._rule, self._max_rows, self._stream = (
            one.layers.spec,
            one.rule,
            one.part_size,
            ops.runtime.stream,
        )
        self._keeps_gradients = one.part_size < one.update_size or one.rule.clip_norm is not None
        self._drops = [self._dropout(layer) for layer in range(len(self._spec.dropout))]
        self.memory = memory = StepMemory(
            ops, trainings, scratch, keeps_gradients=self._keeps_gradients, drops_inputs=bool(self._drops[0])
        )
        self._sizes, self._top, self._has_head = memory.sizes, memory.top, memory.has_head
        self._view, self._activations, self._tiles = memory.view, memory.activations, memory.tiles
        self._make_jobs()
        self._count()

    def _dropout(self, layer: int) -> Dropout | None:
        """Return the constants of a layer's dropout, network by network; either all networks have some, or none."""
        if not self._spec.dropout[layer]:
            return None
        specs = [training.layers.spec for training in self._trainings]
        constants = [mask_constants(spec.dropout[layer], spec.seed, layer, spec.dtype) for spec in specs]
        masks, keeps = (np.concatenate(arrays) for arrays in zip(*constants, strict=True))
        return Dropout(self._ops.constant(masks, np.int32), self._ops.constant(keeps, self._spec.dtype))

    def _make_jobs(self) -> None:
        """Make the table of the launch that forms all gradients."""
        jobs = self.memory.gradient_jobs(gathers=not self._drops[0])
        # All layers use the largest layer's tile.
        largest = max(pairwise(self._sizes), key=lambda pair: pair[0] * pair[1])
        # Sums of penalties and of squares take registers, as an optimizer does: with both sums, 128x128 spills for
        # sm_75, sm_80, sm_100 and sm_120.
        tallies = self._spec.penalised or self._rule.clip_norm is not None
        in_registers = not self._keeps_gradients or tallies
        tile = self._ops.tile(*largest, self._spec.dtype, optimizer=in_registers, needs_registers=True)
        table, self._n_blocks = job_table(jobs, tile)
        parts = launch.choose_parts(self._n_blocks, self._max_rows, self._ops.runtime.multiprocessors)
        if parts > 1:
            # Nothing is fused into the launch of a partial gradient, so any tile will do.
            tile = self._ops.tile(*largest, self._spec.dtype, needs_registers=True)
            table, self._n_blocks = job_table(jobs, tile)
        self._gradient_tile, self._gradient_parts = tile, parts
        self._jobs, self._n_jobs = self._ops.constant(table, np.int32), 2 * len(jobs)
        n_all, view, take = self.memory.parameters.size, self._ops.runtime.view, self._scratch.take
        self.tallying_blocks = self._n_blocks if parts == 1 else launch.update_blocks(self.memory.n_parameters)
        self._squares = view(take("squares", len(self._trainings) * self.tallying_blocks, self._spec.dtype))
        self._slabs = view(take("slabs", parts * n_all if parts > 1 else SPARE, self._spec.dtype))

    def _count(self) -> None:
        """Count the launches, for the size of a window, and the losses that a slot leaves."""
        rule = self._rule
        splits = self._gradient_parts > 1
        self.launches_of_a_part = 2 * self._top - self._has_head + (self._drops[0] is not None) + splits
        self.penalised = self._spec.penalised
        self.launches_of_an_update = self._keeps_gradients + (rule.max_norm is not None) * self._top
        per_slot = launch.head_rows().rows if self._has_head else self._tiles[self._top].rows
        self.losses_of_a_slot = 2 * blocks(self._max_rows, per_slot)

    def bind(self, slots: dict[str, Array], order: Array, most_parts: int) -> None:
        """Take the arrays of a window; every launch reads or writes one slot of them for each network.

        The slots of an update lie together: as many as it has parts for one network, then for the next.
        """
        memory, view = self.memory, self._ops.runtime.view
        count = len(self._trainings)
        apart = None if count == 1 else most_parts
        self._networks = Networks(count, apart, memory.n_parameters, memory.n_workspace)
        self._slots_of_update = count * most_parts
        self._schedule, self._scalars, self._losses = (view(slots[name]) for name in ("schedule", "scalars", "losses"))
        self._order = view(order)
        penalties, n = slots["penalties"], 2 * self.tallying_blocks * self._networks.count
        self._penalties = [view(penalties[at : at + n]) for at in range(0, penalties.size, n)]

    def view_data(self, place: list[Array | None], data: TrainingData) -> tuple[Any, ...]:
        """Return inputs, targets and weights at `place` as launches take them; scaling and metric come from `data`."""
        return view_data(self._ops, place, data, self._spec.dtype)

    def use(self, views: tuple[Any, ...]) -> None:
        """Let the following launches read their rows from these views."""
        self._data_rows, self._targets, self._weights_of_rows, self._metric = views

    def work(self, n_parts: int) -> Iterator[tuple[str, int]]:
        """Yield the name of each launch of an update of so many parts, in order, and the bytes that it must move.

        That is what the launch reads and writes of its matrices, each once, whatever caches do; a split batch's partial
        gradients count as often as they are written.
        """
        sizes, top, rows, count = self._sizes, self._top, self._max_rows, len(self._trainings)
        item, n = self._spec.dtype.itemsize, self.memory.n_parameters
        pixel = item if self._drops[0] else self._data_rows.data.dtype.itemsize
        units = [rows * size * item for size in sizes]
        inputs = [rows * sizes[0] * pixel, *units[1:]]
        matrices = [0, *((fan_in + 1) * fan_out * item for fan_in, fan_out in pairwise(sizes))]
        slots = 1 + len(self._rule.optimizer.slots)  # parameters, and what the optimizer remembers
        splits, keeps = self._gradient_parts > 1, self._keeps_gradients

        def update(read: int) -> tuple[str, int]:
            return "update_parameters", (read + 2 * slots) * n * item

        def made() -> Iterator[tuple[str, int]]:
            for _ in range(n_parts):
                if self._drops[0]:
                    yield "load_batch", rows * sizes[0] * self._data_rows.data.dtype.itemsize + units[0]
                for layer in range(1, top):
                    yield "forward_layer", inputs[layer - 1] + matrices[layer] + units[layer]
                below = units[top - 1] if self._has_head else 0  # the last hidden layer's delta
                name = "output_head" if self._has_head else "wide_output"
                yield name, inputs[top - 1] + below + matrices[top] + 2 * units[top]
                for layer in range(top - 1 - self._has_head, 0, -1):
                    yield "hidden_delta", units[layer + 1] + matrices[layer + 1] + 2 * units[layer]
                read = sum(inputs[:top]) + sum(units[1:])
                written = self._gradient_parts * n if splits else n if keeps else 2 * slots * n
                yield "accumulate_gradients", read + written * item
                if splits and keeps:
                    yield "sum_slabs", (self._gradient_parts + 1) * n * item
                elif splits:
                    yield update(self._gradient_parts)
            if keeps:
                yield update(1)
            if self._rule.max_norm is not None:
                for fan_in, fan_out in pairwise(sizes):
                    yield "limit_incoming_norm", 2 * fan_in * fan_out * item

        return ((name, count * n_bytes) for name, n_bytes in made())

    # --- launches ------------------------------------------------------------------------------------------------

    def launch(self, place: int, n_parts: int) -> None:
        """Launch the update at `place` of the window, which has so many parts."""
        networks, penalties = self._networks, self._penalties[place] if self.penalised else None
        first_slot = place * self._slots_of_update
        batches = [
            Batch(self._schedule, first_slot + part, self._max_rows, self._order, self._stream, networks)
            for part in range(n_parts)
        ]
        for part, batch in enumerate(batches):
            self._forward(batch)
            self._backward(batch)
            # Penalties count once in an update.
            self._gradients_of(batch, accumulate=part > 0, penalties=None if part else penalties)
        # A network that makes this update has rows in its first part.
        if self._keeps_gradients:
            self._update(batches[0], self.memory.gradients)
        if self._rule.max_norm is not None:
            limit_incoming_norms(self.memory.flat, self._sizes, self._rule.max_norm, batches[0])

    def _inputs(self, layer: int) -> Any:
        """Return the input of layer `layer` + 1."""
        return self._data_rows if layer == 0 and not self._drops[0] else self._view[f"a{layer}"]

    def _forward(self, batch: Batch) -> None:
        if self._drops[0]:
            rows, out = self._data_rows, self._view["a0"]
            launch.load_batch(rows, out, batch, n_features=self._sizes[0], dropout=self._drops[0])
        for layer in range(1, self._top):
            launch.forward_layer(
                self._inputs(layer - 1),
                self.memory.weights[layer],
                self.memory.biases[layer],
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
                self.memory.weights[layer + 1],
                self.memory.source(layer),
                self._view[f"d{layer}"],
                self._view[f"sums{layer}"],
                batch,
                activation=self._activations[layer],
                n_units=self._sizes[layer],
                n_next=self._sizes[layer + 1],
                tile=self._tiles[layer],
                dropout=self._drops[layer],
            )

    def _head(self, batch: Batch) -> None:
        top, below = self._top, self._top - 1
        launch.output_head(
            self._view[f"a{below}"],
            self.memory.weights[top],
            self.memory.biases[top],
            self._targets,
            self._weights_of_rows,
            self._view[f"d{top}"],
            self._view[f"sums{top}"],
            self._losses,
            self.memory.source(below),
            self._view[f"d{below}"],
            self._view[f"sums{below}"],
            self._scalars,
            batch,
            output=self._activations[top],
            loss=kernel_loss(self._spec.loss),
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
            self.memory.weights[top],
            self.memory.biases[top],
            self._view[f"z{top}"],
            self._targets,
            self._weights_of_rows,
            self._view[f"d{top}"],
            self._view[f"sums{top}"],
            self._losses,
            self.memory.counts,
            self._scalars,
            batch,
            output=self._activations[top],
            loss=kernel_loss(self._spec.loss),
            metric=self._metric,
            n_in=self._sizes[top - 1],
            n_out=self._sizes[top],
            targets_ld=padded(self._sizes[top]),
            tile=self._tiles[top],
        )

    def _gradients_of(self, batch: Batch, *, accumulate: bool, penalties: Array | None) -> None:
        """Launch the gradients; the same launch makes the update where nothing comes between."""
        splits, keeps = self._gradient_parts > 1, self._keeps_gradients
        squares = None if self._rule.clip_norm is None else self._squares
        if splits:
            out, mode = self._slabs, "slab"
        elif keeps:
            out, mode = self.memory.gradients, "accumulate" if accumulate else "store"
        else:
            out, mode = self.memory.state, self._rule.optimizer.name
        launch.accumulate_gradients(
            None if self._drops[0] else self._data_rows,
            self.memory.whole_workspace,
            self.memory.flat,
            out,
            self._jobs,
            self._scalars,
            batch,
            mode=mode,
            tile=self._gradient_tile,
            n_jobs=self._n_jobs,
            n_blocks=self._n_blocks,
            parts=self._gradient_parts,
            penalties=None if splits else penalties,
            squares=None if splits else squares,
        )
        if splits and keeps:
            launch.sum_slabs(
                self.memory.flat,
                self.memory.gradients,
                self._slabs,
                self._scalars,
                batch,
                n_weights=self.memory.n_weights,
                parts=self._gradient_parts,
                accumulate=accumulate,
                penalties=penalties,
                squares=squares,
            )
        elif splits:
            self._update(batch, self._slabs, self._gradient_parts, penalties)

    def _update(self, batch: Batch, gradients: Any, parts: int = 1, penalties: Array | None = None) -> None:
        """Launch the optimizer on gradients in memory, or on the slabs that add up to them."""
        clip = self._rule.clip_norm
        launch.update_parameters(
            self.memory.flat,
            self.memory.state,
            gradients,
            self._scalars,
            batch,
            optimizer=self._rule.optimizer.name,
            n_weights=self.memory.n_weights,
            parts=parts,
            squares=None if clip is None else self._squares,
            n_squares=self.tallying_blocks,
            clip_norm=clip,
            penalties=penalties,
        )


def view_data(ops: CudaArrays, place: list[Array | None], data: TrainingData, dtype: Any) -> tuple[Any, ...]:
    """Return inputs, targets and weights at `place` as launches take them, and the kernels' name of the metric."""
    inputs, targets, weights = place
    rows = ops.rows(inputs, data.scaling, dtype)
    return rows, ops.flat(targets), None if weights is None else ops.flat(weights), METRICS[data.metric]


def limit_incoming_norms(flat: Any, layer_sizes: tuple[int, ...], max_norm: float, batch: Batch) -> None:
    """Shorten the incoming weights of each unit of each layer to at most `max_norm`."""
    offset = 0
    for n_in, n_out in pairwise(layer_sizes):
        launch.limit_incoming_norm(flat, offset, max_norm, batch, n_in=n_in, n_out=n_out)
        offset += n_in * padded(n_out)
