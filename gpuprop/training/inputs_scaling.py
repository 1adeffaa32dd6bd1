"""The scaling layer that a training begins with: a new one, or that of the training which it continues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import to_host
from gpuprop.core.scaling_layer import ScalingLayer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.maths.optimizers import Optimizer
    from gpuprop.model.network import Network

__all__ = ["continued"]


def continued(
    known: ScalingLayer | None,
    network: Network,
    optimizer: Optimizer,
    *,
    rate_factor: float = 1.0,
    decay_factor: float = 0.0,
) -> ScalingLayer:
    """Return the scaling layer of a training, on the network's device.

    Parameters
    ----------
    known : ScalingLayer or None
        That of the training which is continued, on any device; None begins with ones.
    network : Network
    optimizer : Optimizer
    rate_factor, decay_factor : float
    """
    ops, first = network.ops, network.ops.to_numpy(network.weights[0])
    if known is None:
        factors, unscaled, state = np.ones(len(first), first.dtype), np.array(first), {}
    else:
        factors, unscaled = (np.array(to_host(array)) for array in (known.factors, known.weights))
        state = {name: np.array(to_host(array)) for name, array in known.state.items()}
        if not np.array_equal(first, factors[:, None] * unscaled):  # the network has been given other weights since
            unscaled = first / np.where(factors == 0, 1, factors)[:, None]

    def on_device(array: NDArray[Any]) -> Array:
        return ops.asarray(array, network.dtype)

    return ScalingLayer(
        factors=on_device(factors),
        weights=on_device(unscaled),
        state={name: on_device(state.get(name, np.zeros(len(first)))) for name in optimizer.slots},
        rate_factor=rate_factor,
        decay_factor=decay_factor,
    )
