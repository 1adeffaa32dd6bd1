"""THE step: backpropagation for one batch, in the order of the algorithm, on any backend.

    x, y   = take_batch(order, start)                   rows of the data set by this epoch's permutation
    a[l]   = f_l(a[l-1] @ W[l] + b[l])                  forward, l = 1..L
    d[L]   = dLoss/dz of the output layer               output delta
    d[l]   = (d[l+1] @ W[l+1].T) * f_l'(a[l])           hidden deltas, l = L-1..1
    gW[l]  = a[l-1].T @ d[l],  gb[l] = sum d[l]         outer-product gradients, accumulated over the batch
    params = optimizer(params, gradients, state)        update

All deltas are formed with the weights as they were, before any of them changes. In the code W[l] and b[l] of layer l
are ``network.weights[l - 1]`` and ``network.biases[l - 1]``: Python counts from 0, the layers from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuprop.core.ops import Array
    from gpuprop.maths.optimizers import Optimizer
    from gpuprop.model.network import Network, TrainingData, TrainingWorkspace, Workspace

__all__ = [
    "UpdateRule",
    "forward_pass",
    "loss_and_gradients",
    "output_delta",
    "take_batch",
    "training_step",
]


@dataclass(frozen=True)
class UpdateRule:
    """Everything that turns gradients into new parameters, but for the learning rate.

    Attributes
    ----------
    optimizer : Optimizer
    state, scratch : dict and tuple of flat arrays
        What the optimizer remembers between updates, and its work space.
    clip_norm : float or None
        The gradient of all parameters together is shortened to at most this Euclidean norm.
    max_norm : float or None
        After the update the incoming weights of each unit are shortened to at most this norm.
    """

    optimizer: Optimizer
    state: dict[str, Array]
    scratch: tuple[Array, ...]
    clip_norm: float | None = None
    max_norm: float | None = None


def training_step(
    network: Network,
    work: TrainingWorkspace,
    data: TrainingData,
    order: Array,
    start: int,
    stop: int,
    total_weight: float,
    rule: UpdateRule,
    learning_rate: float,
    steps_done: int,
    penalty_factor: float = 1.0,
) -> None:
    """Train on rows ``order[start:stop]``: one gradient, one update.

    `total_weight` is the sum of the rows' sample weights, `steps_done` the number of updates before this one; the
    network's penalties are multiplied by `penalty_factor`. A batch larger than the workspace is worked through in
    parts whose gradients add up.
    """
    loss_and_gradients(network, work, data, order, start, stop, total_weight, steps_done, penalty_factor)
    network.ops.update(
        network._parameters,
        work.gradients,
        rule.optimizer,
        rule.state,
        rule.scratch,
        learning_rate,
        steps_done + 1,
        rule.clip_norm,
        rule.max_norm,
    )


def loss_and_gradients(
    network: Network,
    work: TrainingWorkspace,
    data: TrainingData,
    order: Array,
    start: int,
    stop: int,
    total_weight: float,
    dropout_step: int | None,
    penalty_factor: float = 1.0,
) -> None:
    """Write the gradient of the batch's loss to ``work.gradients``; add loss and score to ``work.totals``."""
    for first in range(start, stop, work.n_rows):
        part = work.rows(min(work.n_rows, stop - first))
        take_batch(network, part, data, order, first)
        forward_pass(network, part, dropout_step, first_row=first - start)
        output_delta(network, part, data, total_weight)
        hidden_deltas(network, part)
        accumulate_gradients(network, part, accumulate=first > start)
    if network.l1 or network.l2:
        l1, l2 = network.l1 * penalty_factor, network.l2 * penalty_factor
        network.ops.add_penalty(network._parameters, work.gradients, l1, l2, total_weight, work.totals)


def take_batch(network: Network, work: TrainingWorkspace, data: TrainingData, order: Array, start: int) -> None:
    """``x, y = rows of the data set``, as many as the workspace holds."""
    network.ops.take_batch(data.inputs, order, start, data.scaling, work.a[0])
    network.ops.take_batch(data.targets, order, start, None, work.y[0])
    if data.sample_weight is not None:
        network.ops.take_batch(data.sample_weight, order, start, None, work.sample_weight[0])


def forward_pass(network: Network, work: Workspace, dropout_step: int | None = None, first_row: int = 0) -> None:
    """``a[l] = f_l(a[l-1] @ W[l] + b[l])`` for l = 1..L, from ``work.a[0]`` to the outputs ``work.a[L]``."""
    ops = network.ops
    for layer in range(1, network.n_layers + 1):
        below = layer - 1
        mask = work.masks[below]
        if dropout_step is not None and mask is not None:
            rate = network.dropout[below]
            ops.drop(work.a[below], rate, network.seed, below, dropout_step, first_row, mask, work.inputs[below])
        ops.forward(
            work.inputs[below],
            network.weights[layer - 1],
            network.biases[layer - 1],
            network.layer_activations[layer - 1],
            work.z[layer],
            work.a[layer],
        )


def output_delta(network: Network, work: TrainingWorkspace, data: TrainingData, total_weight: float) -> None:
    """``delta[L] = dLoss/dz``; the batch's loss and score go to ``work.totals``."""
    top = network.n_layers
    network.ops.output_delta(
        work.z[top],
        work.a[top],
        work.y[0],
        None if data.sample_weight is None else work.sample_weight[0],
        total_weight,
        network.layer_activations[top - 1],
        network.loss_function,
        data.metric,
        work.delta[top],
        work.totals,
    )


def hidden_deltas(network: Network, work: TrainingWorkspace) -> None:
    """``delta[l] = (delta[l+1] @ W[l+1].T) * f_l'`` for l = L-1..1, with the weights as they still are."""
    for layer in range(network.n_layers - 1, 0, -1):
        activation = network.layer_activations[layer - 1]
        network.ops.hidden_delta(
            work.delta[layer + 1],
            network.weights[layer],
            activation,
            activation.source(work.z[layer], work.a[layer]),
            work.masks[layer],
            work.delta[layer],
        )


def accumulate_gradients(network: Network, work: TrainingWorkspace, *, accumulate: bool) -> None:
    """``gW[l] (+)= a[l-1].T @ delta[l]`` and ``gb[l] (+)= sum delta[l]`` for every layer."""
    for layer in range(1, network.n_layers + 1):
        network.ops.accumulate_gradient(
            work.inputs[layer - 1],
            work.delta[layer],
            work.gradients.weights[layer - 1],
            work.gradients.biases[layer - 1],
            accumulate=accumulate,
        )
