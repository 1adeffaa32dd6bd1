"""THE step: backpropagation for one batch, in the order of the algorithm, on any backend.

    x, y   = take_batch(order, start)                   rows of the data set by this epoch's permutation
    a[l]   = f_l(a[l-1] @ W[l] + b[l])                  forward, l = 1..L
    d[L]   = dLoss/dz of the output layer               output delta
    d[l]   = (d[l+1] @ W[l+1].T) * f_l'(a[l])           hidden deltas, l = L-1..1
    gW[l]  = a[l-1].T @ d[l],  gb[l] = sum d[l]         outer-product gradients, accumulated over the batch
    params = optimizer(params, gradients, state)        update

All deltas are formed with the weights as they were, before any of them changes. In the code W[l] and b[l] of layer l
are ``layers.weights[l - 1]`` and ``layers.biases[l - 1]``: Python counts from 0, the layers from 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuprop.core.blocks import block_delta, block_forward, follow_batches
from gpuprop.core.ops import Dropping, OutputLayer, Outputs
from gpuprop.core.slopes import blend, hidden_delta_with_slopes
from gpuprop.core.step_extras import add_embedding_gradient, embed, update_scaled

if TYPE_CHECKING:
    from gpuprop.core.array_ops import Array
    from gpuprop.core.data import TrainingData
    from gpuprop.core.layers import Layers
    from gpuprop.core.parameters import Parameters
    from gpuprop.core.rule import UpdateRule
    from gpuprop.core.updates import Batch, Moment
    from gpuprop.core.workspace import TrainingWorkspace, Workspace
    from gpuprop.maths.scaling import InputScaling

__all__ = [
    "add_penalty",
    "batch_gradients",
    "forward_pass",
    "hidden_deltas",
    "loss_and_gradients",
    "output_delta",
    "take_batch",
    "take_inputs",
    "training_step",
    "update",
]


def training_step(
    layers: Layers,
    work: TrainingWorkspace,
    batch: Batch,
    rule: UpdateRule,
    moment: Moment,
) -> None:
    """Train on the rows of a batch: one gradient, one update.

    A batch larger than the workspace is worked through in parts whose gradients add up.
    """
    loss_and_gradients(
        layers, work, batch, moment.steps_done, moment.penalty_factor, dropout_factor=moment.dropout_factor
    )
    if layers.spec.batch_norm:
        follow_batches(layers, work)
    update(layers, work.gradients, rule, moment)


def update(layers: Layers, gradients: Parameters, rule: UpdateRule, moment: Moment) -> None:
    """``params = optimizer(params, gradients, state)``, after what decays apart from the optimizer has done so."""
    if rule.scaling_layer is None:
        rule.decay(layers.parameters, moment.decay)
        layers.ops.update(layers.parameters, gradients, rule, moment.learning_rate, moment.steps_done + 1)
    else:
        update_scaled(layers, gradients, rule, rule.scaling_layer, moment)


def loss_and_gradients(
    layers: Layers,
    work: TrainingWorkspace,
    batch: Batch,
    dropout_step: int | None,
    penalty_factor: float = 1.0,
    dropout_factor: float = 1.0,
) -> None:
    """Write the gradient of the batch's loss to ``work.gradients``; add loss and score to ``work.totals``."""
    batch_gradients(layers, work, batch, dropout_step, dropout_factor)
    add_penalty(layers, work.gradients, batch.total_weight, work.totals, penalty_factor)


def batch_gradients(
    layers: Layers, work: TrainingWorkspace, batch: Batch, dropout_step: int | None, dropout_factor: float = 1.0
) -> None:
    """Do as `loss_and_gradients`, without the penalties; the batch may be a shard of one."""
    data, order, start, stop, total_weight, first_row = batch
    for first in range(start, stop, work.n_rows):
        part, row = work.rows(min(work.n_rows, stop - first)), first_row + first - start
        take_batch(layers, part, data, order, first)
        forward_pass(layers, part, dropout_step, first_row=row, dropout_factor=dropout_factor)
        output_delta(layers, part, data, total_weight)
        hidden_deltas(layers, part, accumulate=first > start)
        accumulate_gradients(layers, part, accumulate=first > start)


def add_penalty(
    layers: Layers, gradients: Parameters, total_weight: float, totals: Array, penalty_factor: float = 1.0
) -> None:
    """Add the gradient of the penalties to that of the batch, and the penalties to ``totals[0]``."""
    spec = layers.spec
    if spec.penalised:
        l1, l2 = spec.l1 * penalty_factor, spec.l2 * penalty_factor
        layers.ops.add_penalty(layers.parameters, gradients, l1, l2, total_weight, totals)


def take_batch(layers: Layers, work: TrainingWorkspace, data: TrainingData, order: Array, start: int) -> None:
    """``x, y = rows of the data set``, as many as the workspace holds."""
    ops = layers.ops
    take_inputs(layers, work, data.inputs, data.scaling, order, start)
    ops.take_batch(data.targets, order, start, None, work.y[0])
    if data.sample_weight is not None:
        ops.take_batch(data.sample_weight, order, start, None, work.sample_weight[0])


def take_inputs(
    layers: Layers, work: Workspace, inputs: Array, scaling: InputScaling | None, order: Array, start: int
) -> None:
    """``x = rows of the inputs``, embedded if the network embeds its inputs."""
    embedding = layers.spec.embedding
    if embedding is None:
        layers.ops.take_batch(inputs, order, start, scaling, work.a[0])
    else:
        layers.ops.take_batch(inputs, order, start, scaling, work.raw[0])
        embed(layers, work, embedding)


def forward_pass(
    layers: Layers,
    work: Workspace,
    dropout_step: int | None = None,
    first_row: int = 0,
    dropout_factor: float = 1.0,
) -> None:
    """``a[l] = f_l(a[l-1] @ W[l] + b[l])`` for l = 1..L, from ``work.a[0]`` to the outputs ``work.a[L]``.

    Units are dropped if `dropout_step` is given; their share is the spec's times `dropout_factor`. Normalised layers
    then take mean and variance of the batch, otherwise their running averages.
    """
    ops, spec, weights, biases = layers.ops, layers.spec, layers.weights, layers.biases
    for layer in range(1, spec.n_layers + 1):
        below = layer - 1
        mask = work.masks[below]
        if dropout_step is not None and mask is not None:
            dropping = Dropping(spec.dropout[below] * dropout_factor, spec.seed, below, dropout_step, first_row)
            ops.drop(work.a[below], dropping, mask, work.inputs[below])
        if spec.has_blocks and layer < spec.n_layers:
            block_forward(layers, work, layer, by_batch=dropout_step is not None)
            continue
        activation = spec.activations[layer - 1]
        f = work.a[layer] if work.f[layer] is None else work.f[layer]
        ops.forward(work.inputs[below], weights[below], biases[below], activation, work.z[layer], f)
        if f is not work.a[layer]:
            blend(work.z[layer], f, layers.parameters.slopes[below], work.a[layer])


def output_delta(layers: Layers, work: TrainingWorkspace, data: TrainingData, total_weight: float) -> None:
    """``delta[L] = dLoss/dz``; the batch's loss and score go to ``work.totals``."""
    spec = layers.spec
    top = spec.n_layers
    sample_weight = None if data.sample_weight is None else work.sample_weight[0]
    outputs = Outputs(work.z[top], work.a[top], work.y[0], sample_weight)
    judged = OutputLayer(spec.output_activation, spec.loss, data.metric)
    layers.ops.output_delta(outputs, judged, total_weight, work.delta[top], work.totals)


def hidden_deltas(layers: Layers, work: TrainingWorkspace, *, accumulate: bool = False) -> None:
    """``delta[l] = (delta[l+1] @ W[l+1].T) * f_l'`` for l = L-1..1, with the weights as they still are.

    What is trained beside weights and biases gets its gradient here: slopes, scales, and embeddings.
    """
    ops, spec, weights = layers.ops, layers.spec, layers.weights
    for layer in range(spec.n_layers - 1, 0, -1):
        if spec.has_slopes:
            hidden_delta_with_slopes(layers, work, layer, accumulate=accumulate)
            continue
        if spec.has_blocks:
            block_delta(layers, work, layer, accumulate=accumulate)
            continue
        activation = spec.activations[layer - 1]
        source = activation.source(work.z[layer], work.a[layer])
        ops.hidden_delta(
            work.delta[layer + 1], weights[layer], activation, source, work.masks[layer], work.delta[layer]
        )
    if spec.embedding is not None:
        add_embedding_gradient(layers, work, spec.embedding, accumulate=accumulate)


def accumulate_gradients(layers: Layers, work: TrainingWorkspace, *, accumulate: bool) -> None:
    """``gW[l] (+)= a[l-1].T @ delta[l]`` and ``gb[l] (+)= sum delta[l]`` for every layer."""
    gradients = work.gradients
    for below in range(layers.spec.n_layers):
        layers.ops.accumulate_gradient(
            work.inputs[below],
            work.delta[below + 1],
            gradients.weights[below],
            work.bias_grads[below],
            accumulate=accumulate,
        )
