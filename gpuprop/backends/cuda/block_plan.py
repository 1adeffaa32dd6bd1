"""Training of small networks on a GPU: one block trains one network, whole epochs in one launch.

::

    an epoch    one launch, k blocks for k networks: take batch, forward, deltas, gradients, update, and the next one
    a block     parameters, optimizer's state and the batch in its shared memory: `gpuprop_kernels.block_epoch`

An update of such a network takes less time than the launches that would make it layer by layer. Which networks train
so depends on their shape, their batch, and the device (`chooses_block`), and not on how many there are: the sums of
both forms have orders of their own, and a network must get the bits of its lone fit in any company. Many networks lose
nothing by that: one more costs a block, whereas in shared launches it would cost at least a tile for each layer.

Slots, orders, sums of losses, states and what goes back are those of `CudaPlan`; here a window is one launch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.cuda.kernel_plan import CudaPlan
from gpuprop.backends.cuda.launches import view_data
from gpuprop.backends.cuda.network_buffer import NetworkBuffer
from gpuprop.backends.cuda.residence import HostRows
from gpuprop.backends.cuda.translation import IDENTITY, kernel_activation, kernel_loss
from gpuprop_kernels.arguments import Batch, Dropout
from gpuprop_kernels.block_launch import BlockRule, Networks, train_networks
from gpuprop_kernels.block_layout import MOST_UPDATES, BlockLayout, block_layout, worth_a_block
from gpuprop_kernels.dropout import mask_constants
from gpuprop_kernels.optimizers import STATE_ARRAYS
from gpuprop_kernels.shapes import padded

if TYPE_CHECKING:
    from gpuprop.backends.cuda.array_ops import CudaArrays
    from gpuprop.core.array_ops import Array
    from gpuprop.core.data import TrainingData
    from gpuprop.core.updates import Training

__all__ = ["BlockPlan", "block_fault", "chooses_block"]


def block_fault(ops: CudaArrays, training: Training) -> str | None:
    """Return why a block cannot train this network, or None if it can.

    Parameters
    ----------
    ops : CudaArrays
    training : Training
        One that the fused kernels serve.
    """
    spec, rule = training.layers.spec, training.rule
    if isinstance(training.data.inputs, HostRows):
        return "the data set does not fit the device, and its rows are streamed"
    if spec.precision != "float32":
        return f"its products have the precision {spec.precision}, and a block multiplies in float32 and float64"
    if rule.clip_norm is not None or rule.max_norm is not None:
        return "a norm is clipped, which takes launches of its own"
    if training.part_size < training.update_size:
        return "the gradients of several batches add up to one update"
    if len(set(spec.activations[:-1])) > 1:
        return "its hidden layers have different activations"
    needed, most = _layout(training).size * spec.dtype.itemsize, ops.runtime.block_memory
    if needed > most:
        return f"it needs {_kib(needed)} KiB of shared memory, and a block may have {_kib(most)} KiB"
    return None


def chooses_block(ops: CudaArrays, training: Training) -> bool:
    """Return whether a training that may choose its path, and that the fused kernels serve, trains in a block."""
    worth = worth_a_block(training.layers.spec.layer_sizes, training.update_size)
    return worth and block_fault(ops, training) is None


def _layout(training: Training) -> BlockLayout:
    """Return how a network lies in a block."""
    spec = training.layers.spec
    return block_layout(
        spec.layer_sizes,
        training.part_size,
        state_arrays=STATE_ARRAYS[training.rule.optimizer.name],
        keeps_z=_hidden(training).derivative_of == "z",
    )


def _hidden(training: Training) -> Any:
    """Return the kernels' name of the hidden layers' activation; any will do if there are none."""
    first, *others = training.layers.spec.activations
    return kernel_activation(first) if others else IDENTITY


def _kib(n_bytes: int) -> str:
    return f"{n_bytes / 1024:.0f}"


class BlockPlan(CudaPlan):
    """`gpuprop.core.plan.Plan` that makes the updates of networks in a block each.

    Parameters
    ----------
    ops : CudaArrays
    trainings : sequence of Training
        One training, or several whose `gpuprop.backends.cuda.together.kind` is equal, without a `block_fault`.
    want : str
        Is not used.
    scratch : Scratch or None, default=None
        Is not used, but tells that there are other plans.
    """

    @property
    def name(self) -> str:
        """The name of the path."""
        return "block"

    @property
    def reason(self) -> str:
        """The path in one sentence."""
        needed, most = self._step.n_bytes, self._runtime.block_memory
        launches = -(-self.n_updates // self._window_size)
        whole = "whole epochs in one launch" if launches == 1 else f"an epoch in {launches} launches"
        return (
            f"block: {whole}, one block a network, because a network, its optimizer's state and a batch fit "
            f"its shared memory ({_kib(needed)} of {_kib(most)} KiB)"
        )

    def why_not(self, want: str) -> str:
        """Return why this training cannot take the path `want`, which differs from its own."""
        return "one launch makes the updates of an epoch"

    def _make_step(self) -> Any:
        return BlockStep(self._ops, self._trainings)

    def _most_in_a_window(self) -> int:
        return MOST_UPDATES

    def _why_no_graphs(self, want: str) -> str | None:
        return "one launch makes the updates of an epoch"

    def _launch(self, first: int, last: int) -> None:
        begin = first - first % self._window_size
        self._step.launch(first - begin, last - begin)


class BlockStep:
    """The launch of updates, as `gpuprop.backends.cuda.launches.Step` is for layers.

    Parameters
    ----------
    ops : CudaArrays
    trainings : sequence of Training
    """

    losses_of_a_slot = 2
    tallying_blocks = 1

    def __init__(self, ops: CudaArrays, trainings: Sequence[Training]) -> None:
        one = trainings[0]
        self._ops, self._training, self._spec = ops, one, one.layers.spec
        self.penalised = self._spec.penalised
        self.memory = memory = NetworkBuffer(ops, trainings)
        layout = _layout(one)
        self.n_bytes = layout.size * self._spec.dtype.itemsize
        layers = ops.constant(layout.table, np.int32)
        self._networks = Networks(
            len(trainings), memory.flat, memory.state, layers, layout, self._dropout([t.layers.spec for t in trainings])
        )

    def _dropout(self, specs: Sequence[Any]) -> Dropout | None:
        """Return the constants of all layers of each network; a layer that drops nothing keeps each unit."""
        if not any(self._spec.dropout):
            return None
        constants = [
            mask_constants(rate, spec.seed, layer, spec.dtype)
            for spec in specs
            for layer, rate in enumerate(spec.dropout)
        ]
        masks, keeps = (np.concatenate(arrays) for arrays in zip(*constants, strict=True))
        return Dropout(self._ops.constant(masks, np.int32), self._ops.constant(keeps, self._spec.dtype))

    def bind(self, slots: dict[str, Array], order: Array, most_parts: int) -> None:
        """Take the arrays of a window; an update reads and writes one slot of them for each network."""
        view = self._ops.runtime.view
        self._scalars, self._losses, self._penalties = (
            view(slots[name]) for name in ("scalars", "losses", "penalties")
        )
        self._schedule, self._order = view(slots["schedule"]), view(order)

    def view_data(self, place: list[Array | None], data: TrainingData) -> tuple[Any, ...]:
        """Return inputs, targets and weights at `place` as the launch takes them, and the metric."""
        return view_data(self._ops, place, data, self._spec.dtype)

    def use(self, views: tuple[Any, ...]) -> None:
        """Let the following launches read their rows from these views."""
        self._rows, self._targets, self._weights_of_rows, metric = views
        self._rule = BlockRule(
            threads=self._networks.layout.threads,
            source=self._rows.source,
            hidden=_hidden(self._training),
            output=kernel_activation(self._spec.activations[-1]),
            loss=kernel_loss(self._spec.loss),
            metric=metric,
            optimizer=self._training.rule.optimizer.name,
            dropout=self._networks.dropout is not None,
            penalised=self.penalised,
            weighted=self._weights_of_rows is not None,
        )

    def launch(self, first: int, last: int) -> None:
        """Make the updates `first` to `last` - 1 of the window, of all networks."""
        train_networks(
            self._networks,
            self._rows,
            self._targets,
            self._weights_of_rows,
            self._scalars,
            self._losses,
            self._penalties if self.penalised else None,
            Batch(self._schedule, first, self._training.part_size, self._order, self._ops.runtime.stream),
            rule=self._rule,
            last=last,
            targets_ld=padded(self._spec.layer_sizes[-1]),
        )
