"""A network without a scaling of its inputs or batch normalisation: weights and biases do what these did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuprop.arrays import to_host
from gpuprop.core.folded import folded

if TYPE_CHECKING:
    from gpuprop.model.network import Network

__all__ = ["folded_network", "without_scaling"]


def folded_network(network: Network) -> Network:
    """Return a copy without batch normalisation that gives the same answers, up to rounding."""
    twin = network.copy()
    twin.layers = folded(twin.layers)
    return twin


def without_scaling(network: Network) -> Network:
    """Return a copy that gives the same answers for raw inputs, up to rounding.

    ``((x - shift) * scale) W + b`` is ``x (scale W) + (b - (shift * scale) W)``.
    """
    scaling, twin = network.input_scaling, network.copy()
    if scaling is None:
        return twin
    n_inputs = network.layer_sizes[0]
    scale = np.broadcast_to(scaling.scale, (n_inputs,))[:, None]
    shift = np.broadcast_to(scaling.shift, (n_inputs,))[:, None]
    weights = np.asarray(to_host(network.weights[0]), np.float64)
    biases = np.asarray(to_host(network.biases[0]), np.float64)
    ops = network.ops
    twin.weights[0][...] = ops.asarray(weights * scale, network.dtype)
    twin.biases[0][...] = ops.asarray(biases - (shift * scale * weights).sum(axis=0), network.dtype)
    twin.input_scaling = None
    return twin
