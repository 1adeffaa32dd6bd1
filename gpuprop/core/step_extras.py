"""What the step does where more is trained than weights and biases: embeddings, slopes, and factors of the inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprop.core.slopes import IDENTITY

if TYPE_CHECKING:
    from gpuprop.core.embedding import InputEmbedding
    from gpuprop.core.layers import Layers
    from gpuprop.core.parameters import Parameters
    from gpuprop.core.rule import UpdateRule
    from gpuprop.core.scaling_layer import ScalingLayer
    from gpuprop.core.updates import Moment
    from gpuprop.core.workspace import TrainingWorkspace, Workspace

__all__ = ["add_embedding_gradient", "embed", "update_scaled"]


def embed(layers: Layers, work: Workspace, embedding: InputEmbedding) -> None:
    """Write what the embedding makes of the batch in ``work.raw`` to ``work.a[0]``."""
    raw: Any = work.raw[0]
    embedding.forward(raw, layers.parameters.embedding, work.a[0])


def add_embedding_gradient(
    layers: Layers, work: TrainingWorkspace, embedding: InputEmbedding, *, accumulate: bool
) -> None:
    """Write the gradient of an embedding's parameters, from the deltas of the first layer.

    `accumulate` says whether to add to the old values or to overwrite them.
    """
    raw: Any = work.raw[0]
    delta: Any = work.delta[0]
    layers.ops.hidden_delta(work.delta[1], layers.weights[0], IDENTITY, work.a[0], work.masks[0], delta)
    gradients = work.gradients.embedding
    if not accumulate:
        for gradient in gradients:
            gradient[...] = 0
    embedding.backward(raw, delta, layers.parameters.embedding, gradients)


def update_scaled(
    layers: Layers, gradients: Parameters, rule: UpdateRule, scaling: ScalingLayer, moment: Moment
) -> None:
    """Update a network whose inputs have trained factors: V and the factors s are trained, and ``W[1] = s V``."""
    step = moment.steps_done + 1
    with layers.ops.active():
        of_factors = scaling.open(layers.parameters, gradients)
        rule.decay(layers.parameters, moment.decay)
        if scaling.decay_factor:
            array = scaling.factors
            array *= 1 - moment.decay * scaling.decay_factor
        layers.ops.update(layers.parameters, gradients, rule, moment.learning_rate, step)
        scratch = tuple(array[: scaling.factors.size] for array in rule.scratch)
        rate = moment.learning_rate * scaling.rate_factor
        rule.optimizer.update(scaling.factors, of_factors, scaling.state, rate, step, scratch, n_weights=0)
        scaling.close(layers.parameters)
