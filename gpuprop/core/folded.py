"""Layers without batch normalisation: their weights and biases do what running averages and scales did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gpuprop.core.blocks import EPSILON
from gpuprop.core.layers import Layers
from gpuprop.core.parameters import Parameters

__all__ = ["folded"]


def folded(layers: Layers) -> Layers:
    """Return layers that compute the same outside training, up to rounding; those that are not normalised as they are.

    ``gamma (a W - m) / s + b`` with ``s = sqrt(v + eps)`` is ``a (W g) + (b - m g)`` with ``g = gamma / s``.
    """
    spec, ops, own = layers.spec, layers.ops, layers.parameters
    if not spec.batch_norm:
        return layers
    plain = replace(spec, batch_norm=False)
    flat = np.empty(Parameters.count(plain.layout), spec.dtype)
    found, host = Parameters(flat, plain.layout), Parameters(own.to_host(ops), spec.layout)
    for mine, theirs in zip(found.arrays, [*host.weights, *host.biases, *host.embedding], strict=True):
        mine[...] = theirs
    for layer, scale in enumerate(host.scales):
        factor = scale / np.sqrt(host.variances[layer].astype(np.float64) + EPSILON)
        found.weights[layer][...] = host.weights[layer] * factor
        found.biases[layer][...] = host.biases[layer] - host.means[layer] * factor
    return Layers(plain, ops, Parameters.on_device(ops, flat, plain.layout))
