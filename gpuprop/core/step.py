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

from gpuprop.core.ops import Dropping, OutputLayer, Outputs

if TYPE_CHECKING:
    from gpuprop.core.array_ops import Array
    from gpuprop.core.data import TrainingData
    from gpuprop.core.layers import Layers
    from gpuprop.core.parameters import Parameters
    from gpuprop.core.rule import UpdateRule
    from gpuprop.core.scaling_layer import ScalingLayer
    from gpuprop.core.updates import Batch, Moment
    from gpuprop.core.workspace import TrainingWorkspace, Workspace

__all__ = [
    "forward_pass",
    "loss_and_gradients",
    "output_delta",
    "take_batch",
    "training_step",
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
    loss_and_gradients(layers, work, batch, moment.steps_done, moment.penalty_factor)
    if rule.scaling_layer is None:
        layers.ops.update(layers.parameters, work.gradients, rule, moment.learning_rate, moment.steps_done + 1)
    else:
        update_scaled(layers, work.gradients, rule, rule.scaling_layer, moment)


def update_scaled(
    layers: Layers, gradients: Parameters, rule: UpdateRule, scaling: ScalingLayer, moment: Moment
) -> None:
    """Update a network whose inputs have trained factors: V and the factors s are trained, and ``W[1] = s V``."""
    step = moment.steps_done + 1
    with layers.ops.active():
        of_factors = scaling.open(layers.parameters, gradients)
        layers.ops.update(layers.parameters, gradients, rule, moment.learning_rate, step)
        scratch = tuple(array[: scaling.factors.size] for array in rule.scratch)
        rate = moment.learning_rate * scaling.rate_factor
        rule.optimizer.update(scaling.factors, of_factors, scaling.state, rate, step, scratch, n_weights=0)
        scaling.close(layers.parameters)


def loss_and_gradients(
    layers: Layers, work: TrainingWorkspace, batch: Batch, dropout_step: int | None, penalty_factor: float = 1.0
) -> None:
    """Write the gradient of the batch's loss to ``work.gradients``; add loss and score to ``work.totals``."""
    data, order, start, stop, total_weight = batch
    for first in range(start, stop, work.n_rows):
        part = work.rows(min(work.n_rows, stop - first))
        take_batch(layers, part, data, order, first)
        forward_pass(layers, part, dropout_step, first_row=first - start)
        output_delta(layers, part, data, total_weight)
        hidden_deltas(layers, part)
        accumulate_gradients(layers, part, accumulate=first > start)
    spec = layers.spec
    if spec.penalised:
        l1, l2 = spec.l1 * penalty_factor, spec.l2 * penalty_factor
        layers.ops.add_penalty(layers.parameters, work.gradients, l1, l2, total_weight, work.totals)


def take_batch(layers: Layers, work: TrainingWorkspace, data: TrainingData, order: Array, start: int) -> None:
    """``x, y = rows of the data set``, as many as the workspace holds."""
    ops = layers.ops
    ops.take_batch(data.inputs, order, start, data.scaling, work.a[0])
    ops.take_batch(data.targets, order, start, None, work.y[0])
    if data.sample_weight is not None:
        ops.take_batch(data.sample_weight, order, start, None, work.sample_weight[0])


def forward_pass(layers: Layers, work: Workspace, dropout_step: int | None = None, first_row: int = 0) -> None:
    """``a[l] = f_l(a[l-1] @ W[l] + b[l])`` for l = 1..L, from ``work.a[0]`` to the outputs ``work.a[L]``."""
    ops, spec, weights, biases = layers.ops, layers.spec, layers.weights, layers.biases
    for layer in range(1, spec.n_layers + 1):
        below = layer - 1
        mask = work.masks[below]
        if dropout_step is not None and mask is not None:
            dropping = Dropping(spec.dropout[below], spec.seed, below, dropout_step, first_row)
            ops.drop(work.a[below], dropping, mask, work.inputs[below])
        activation = spec.activations[layer - 1]
        ops.forward(work.inputs[below], weights[below], biases[below], activation, work.z[layer], work.a[layer])


def output_delta(layers: Layers, work: TrainingWorkspace, data: TrainingData, total_weight: float) -> None:
    """``delta[L] = dLoss/dz``; the batch's loss and score go to ``work.totals``."""
    spec = layers.spec
    top = spec.n_layers
    sample_weight = None if data.sample_weight is None else work.sample_weight[0]
    outputs = Outputs(work.z[top], work.a[top], work.y[0], sample_weight)
    judged = OutputLayer(spec.output_activation, spec.loss, data.metric)
    layers.ops.output_delta(outputs, judged, total_weight, work.delta[top], work.totals)


def hidden_deltas(layers: Layers, work: TrainingWorkspace) -> None:
    """``delta[l] = (delta[l+1] @ W[l+1].T) * f_l'`` for l = L-1..1, with the weights as they still are."""
    ops, spec, weights = layers.ops, layers.spec, layers.weights
    for layer in range(spec.n_layers - 1, 0, -1):
        activation = spec.activations[layer - 1]
        source = activation.source(work.z[layer], work.a[layer])
        ops.hidden_delta(
            work.delta[layer + 1], weights[layer], activation, source, work.masks[layer], work.delta[layer]
        )


def accumulate_gradients(layers: Layers, work: TrainingWorkspace, *, accumulate: bool) -> None:
    """``gW[l] (+)= a[l-1].T @ delta[l]`` and ``gb[l] (+)= sum delta[l]`` for every layer."""
    gradients = work.gradients
    for below in range(layers.spec.n_layers):
        layers.ops.accumulate_gradient(
            work.inputs[below],
            work.delta[below + 1],
            gradients.weights[below],
            gradients.biases[below],
            accumulate=accumulate,
        )
