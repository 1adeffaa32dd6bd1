"""The parameters that a network begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.parameters import Parameters
from gpuprop.maths.initializers import Initializer, default_initializer, get_initializer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.spec import Spec

__all__ = ["initial_parameters"]


def initial_parameters(spec: Spec, init: str | Initializer | None) -> NDArray[Any]:
    """Draw the weights in float64, layer by layer from one stream, then embeddings; biases are 0, slopes and scales 1.

    Raises
    ------
    MemoryError
        If there is no room for the parameters; the message says how many they are.
    ValueError
        If `init` returns weights of a wrong shape.
    """
    size = Parameters.count(spec.layout)
    try:
        flat = np.zeros(size, spec.dtype)
    except (MemoryError, ValueError):
        gib = size * spec.dtype.itemsize / 2**30
        sizes = "-".join(map(str, spec.layer_sizes))
        raise MemoryError(f"a network of {sizes} has {size:,} parameters, {gib:,.1f} GiB; use smaller layers") from None
    rng = np.random.default_rng(np.random.SeedSequence(spec.seed))
    parameters = Parameters(flat, spec.layout)
    for weights, activation in zip(parameters.weights, spec.activations, strict=True):
        initializer = get_initializer(default_initializer(activation) if init is None else init)
        drawn = np.asarray(initializer(rng, *weights.shape))
        if drawn.shape != weights.shape:
            raise ValueError(f"init: got weights of shape {drawn.shape}, expected {weights.shape}")
        weights[...] = drawn
    for ones in (*parameters.slopes, *parameters.scales, *parameters.variances):
        ones[...] = 1
    if spec.embedding is not None:
        for own, drawn in zip(parameters.embedding, spec.embedding.initial(rng), strict=True):
            own[...] = drawn
    return flat
