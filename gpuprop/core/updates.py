"""The updates of an epoch: what they are, and how they are made where the backend has no way of its own to do so."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from gpuprop.core import step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.ops import Array
    from gpuprop.model.network import Network, TrainingData, TrainingWorkspace

__all__ = ["EpochUpdates", "PlainUpdates", "Training"]


@dataclass(frozen=True)
class EpochUpdates:
    """The updates of one epoch: everything that they depend on, beside the parameters of the network.

    Attributes
    ----------
    network : Network
    rule : UpdateRule
        With the optimizer's memory, which the updates change.
    data : TrainingData
        With the sample weights of this epoch.
    order : ndarray of shape (n_samples,)
        The order of the rows.
    weights, penalty_factors, rates : ndarray of shape (updates of an epoch,)
        As for `gpuprop.core.ops.UpdatePlan.begin_epoch`.
    steps_done, n_updates : int
        Updates before this epoch, and of all epochs, if none is left out.
    part_size, update_size : int
        Rows of a batch, and of an update.
    watched : bool
        Whether a callback wants to be told of each update.
    """

    network: Network
    rule: step.UpdateRule
    data: TrainingData
    order: NDArray[np.int32]
    weights: NDArray[np.float64]
    penalty_factors: NDArray[np.float64]
    rates: NDArray[np.float64]
    steps_done: int
    n_updates: int
    part_size: int
    update_size: int
    watched: bool


#: A fit that pauses before the updates of each epoch: it yields what they are, and is sent the sums of loss and score
#: over the epoch where somebody else has made them, or else None.
Training: TypeAlias = Generator[EpochUpdates, "NDArray[np.float64] | None", None]


class PlainUpdates:
    """`gpuprop.core.ops.UpdatePlan` by the primitives: one `training_step` after the other."""

    def __init__(
        self, network: Network, work: TrainingWorkspace, data: TrainingData, rule: step.UpdateRule, update_size: int
    ) -> None:
        self._network, self._work, self._data, self._rule = network, work, data, rule
        self._update_size = update_size
        self._state_before = {name: array.copy() for name, array in rule.state.items()}

    def begin_epoch(  # noqa: D102  (contracts: see UpdatePlan)
        self,
        data: TrainingData,
        order: NDArray[np.int32],
        weights: NDArray[np.float64],
        penalty_factors: NDArray[np.float64],
        rates: NDArray[np.float64],
        steps_done: int,
    ) -> None:
        self._data = data
        self._order = self._network.ops.asarray(order, np.int32)
        self._weights, self._penalty_factors, self._rates = weights, penalty_factors, rates
        self._steps_done = steps_done
        for name, array in self._rule.state.items():
            self._state_before[name][...] = array
        self._work.totals[...] = 0.0

    def run(self, first: int, last: int) -> None:  # noqa: D102
        for index in range(first, last):
            start = index * self._update_size
            step.training_step(
                self._network,
                self._work,
                self._data,
                self._order,
                start,
                min(start + self._update_size, self._data.n_samples),
                float(self._weights[index]),
                self._rule,
                float(self._rates[index]),
                self._steps_done + index,
                float(self._penalty_factors[index]),
            )

    def totals(self) -> NDArray[np.float64]:  # noqa: D102
        return self._network.ops.to_numpy(self._work.totals)

    def rewind(self) -> None:  # noqa: D102
        for name, array in self._rule.state.items():
            array[...] = self._state_before[name]

    def places(self) -> Iterator[tuple[str, Array]]:  # noqa: D102
        network, work = self._network, self._work
        layers = range(1, network.n_layers + 1)
        yield from ((f"the output of layer {layer}", work.a[layer]) for layer in layers)
        yield "the loss", work.totals
        yield from ((f"the delta of layer {layer}", work.delta[layer]) for layer in reversed(layers))
        yield from ((f"the weight gradient of layer {layer}", work.gradients.weights[layer - 1]) for layer in layers)
        yield from ((f"the bias gradient of layer {layer}", work.gradients.biases[layer - 1]) for layer in layers)
        yield from ((f"the updated weights of layer {layer}", network.weights[layer - 1]) for layer in layers)
        yield from ((f"the updated biases of layer {layer}", network.biases[layer - 1]) for layer in layers)
