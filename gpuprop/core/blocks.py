"""Hidden layers with batch normalisation, with a path around them, or with both.

Batch normalisation of a unit's net input x, with the mean m and the variance v of its batch::

    xhat = (x - m) / sqrt(v + eps),    z = gamma xhat + b,    a = f(z)

b is the layer's bias; gamma, 1 at first, is its scale. With delta = dL/dz over the n rows of the batch:

    dL/db = sum delta,    dL/dgamma = sum delta xhat,
    dL/dx = gamma / sqrt(v + eps) (delta - (dL/db + xhat dL/dgamma) / n)

Outside training, m and v are running averages, see `gpuprop.core.moments`. Source: Ioffe and Szegedy, "Batch
normalization: accelerating deep network training by reducing internal covariate shift", ICML 2015, arXiv:1502.03167,
algorithms 1 and 2; eps is PyTorch's. Weights of samples do not change m and v.

A residual layer adds its input to its output, where both have one size: ``a[l] = f(z[l]) + a[l-1]``. So

    dL/da[l-1] = (dL/dx[l]) @ W[l].T + dL/da[l]

Dropout changes what W reads, and not the path around it. Source: He, Zhang, Ren and Sun, "Deep residual learning for
image recognition", CVPR 2016, arXiv:1512.03385, section 3.2, and "Identity mappings in deep residual networks", ECCV
2016, arXiv:1603.05027, section 2: the path around has nothing in it.

This is written with the functions of arrays, one after the other, which the arrays of a GPU have, too; no compiled loop
and no fused kernel knows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.slopes import IDENTITY

if TYPE_CHECKING:
    from gpuprop.core.layers import Layers
    from gpuprop.core.parameters import Parameters
    from gpuprop.core.workspace import TrainingWorkspace, Workspace

__all__ = ["EPSILON", "block_delta", "block_forward", "follow_batches"]

EPSILON = 1e-5


def block_forward(layers: Layers, work: Workspace, layer: int, *, by_batch: bool) -> None:
    """Write the output of a hidden layer to ``work.a[layer]``; `by_batch` says whose mean and variance count."""
    with layers.ops.active():
        _forward(layers, work, layer, by_batch=by_batch)


def _forward(layers: Layers, work: Workspace, layer: int, *, by_batch: bool) -> None:
    spec, below = layers.spec, layer - 1
    ops, activation, z = layers.ops, spec.activations[below], work.z[layer]  # z is kept where layers are normalised
    f: Any = work.a[layer] if work.f[layer] is None else work.f[layer]
    inputs, weights, biases = work.inputs[below], layers.weights[below], layers.biases[below]
    if spec.batch_norm:
        normed: Any = work.normed[layer]
        ops.forward(inputs, weights, work.no_biases[layer], IDENTITY, None, normed)
        _normalise(layers.parameters, work, layer, by_batch=by_batch)
        np.multiply(normed, layers.parameters.scales[below], out=z)
        z += biases
        f[...] = activation.function(z)
    else:
        ops.forward(inputs, weights, biases, activation, z, f)
    if spec.adds_input(layer):
        np.add(f, work.a[below], out=work.a[layer])


def _normalise(parameters: Parameters, work: Workspace, layer: int, *, by_batch: bool) -> None:
    """Turn the net inputs in ``work.normed[layer]`` into xhat."""
    x: Any = work.normed[layer]
    moments = work.moments[layer]
    moments.by_batch = by_batch
    mean, variance = parameters.means[layer - 1], parameters.variances[layer - 1]
    if by_batch:
        mean = x.mean(axis=0, dtype=np.float64).astype(x.dtype)
        x -= mean
        variance = np.square(x).mean(axis=0, dtype=np.float64).astype(x.dtype)
        moments.note(mean, variance, len(x))
    else:
        x -= mean
    moments.inverse = 1 / np.sqrt(variance + x.dtype.type(EPSILON))
    x *= moments.inverse


def block_delta(layers: Layers, work: TrainingWorkspace, layer: int, *, accumulate: bool) -> None:
    """Write the derivative of the loss by what a hidden layer's weights give to ``work.delta[layer]``.

    The gradients of biases and scales of a normalised layer are written here; `accumulate` says whether to add them to
    the old values or to overwrite them.
    """
    with layers.ops.active():
        _delta(layers, work, layer, accumulate=accumulate)


def _delta(layers: Layers, work: TrainingWorkspace, layer: int, *, accumulate: bool) -> None:
    spec, activation = layers.spec, layers.spec.activations[layer - 1]
    a, mask, z = work.a[layer], work.masks[layer], work.z[layer]
    delta: Any = work.delta[layer]
    f: Any = a if work.f[layer] is None else work.f[layer]
    layers.ops.hidden_delta(work.delta[layer + 1], layers.weights[layer], IDENTITY, a, mask, delta)  # dL/da
    if spec.adds_input(layer + 1):
        delta += work.around[layer + 1]
    if spec.adds_input(layer):
        around: Any = work.around[layer]
        around[...] = delta
    delta *= activation.derivative(activation.source(z, f))
    if spec.batch_norm:
        _normalised_delta(layers.parameters, work, layer, accumulate=accumulate)


def _normalised_delta(parameters: Parameters, work: TrainingWorkspace, layer: int, *, accumulate: bool) -> None:
    """Turn dL/dz in ``work.delta[layer]`` into dL/dx; write the gradients of biases and scales."""
    delta: Any = work.delta[layer]
    xhat: Any = work.normed[layer]
    gradients, moments = work.gradients, work.moments[layer]
    of_biases = delta.sum(axis=0, dtype=np.float64).astype(delta.dtype)
    of_scales = (delta * xhat).sum(axis=0, dtype=np.float64).astype(delta.dtype)
    for own, found in ((gradients.biases[layer - 1], of_biases), (gradients.scales[layer - 1], of_scales)):
        own[...] = own + found if accumulate else found
    if moments.by_batch:
        share = delta.dtype.type(1 / len(delta))
        delta -= share * of_biases
        delta -= xhat * (share * of_scales)
    delta *= parameters.scales[layer - 1] * moments.inverse


def follow_batches(layers: Layers, work: TrainingWorkspace) -> None:
    """Bring the running averages closer to the mean and the variance of an update's batch."""
    parameters = layers.parameters
    with layers.ops.active():
        for moments, *averages in zip(work.moments[1:-1], parameters.means, parameters.variances, strict=True):
            moments.follow(*averages)
