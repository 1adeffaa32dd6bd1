"""Parametric activations: each hidden unit has a slope alpha, 1 at first, and computes ``a = z + alpha (f(z) - z)``.

With the derivative ``d = dL/da``:

    dL/dalpha = sum over the rows of d (f(z) - z),    dL/dz = d (1 - alpha) + alpha d f'(z).

Source: Holzmueller, Grinsztajn, Steinwart, "Better by default", NeurIPS 2024, arXiv:2407.04491, section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuprop.maths.activations import get_activation

if TYPE_CHECKING:
    from gpuprop.core.array_ops import Array
    from gpuprop.core.layers import Layers
    from gpuprop.core.workspace import TrainingWorkspace

__all__ = ["IDENTITY", "blend", "hidden_delta_with_slopes"]

IDENTITY = get_activation("identity", output=True)
"""The activation under which a hidden delta is the derivative by the layer's output."""


def blend(z: Array, f: Array, slopes: Array, out: Array) -> None:
    """``out = z + slopes * (f - z)`` for the net inputs z and the activations f, each (n_rows, n_units)."""
    out[...] = f
    out -= z
    out *= slopes
    out += z


def hidden_delta_with_slopes(layers: Layers, work: TrainingWorkspace, layer: int, *, accumulate: bool) -> None:
    """Write ``dL/dz`` of a hidden layer to ``work.delta``, and the gradient of its slopes.

    `accumulate` says whether to add the gradient to the old values or to overwrite them.
    """
    ops, activation, slopes = layers.ops, layers.spec.activations[layer - 1], layers.parameters.slopes[layer - 1]
    above, weights, mask = work.delta[layer + 1], layers.weights[layer], work.masks[layer]
    z: Any = work.z[layer]
    f: Any = work.f[layer]
    delta, gradient = work.delta[layer], work.gradients.slopes[layer - 1]
    ops.hidden_delta(above, weights, IDENTITY, work.a[layer], mask, delta)  # d, the derivative by the layer's output
    own = (delta * (f - z)).sum(axis=0)
    gradient[...] = gradient + own if accumulate else own
    straight = delta * (1 - slopes)
    ops.hidden_delta(above, weights, activation, activation.source(z, f), mask, delta)  # d f'
    delta *= slopes
    delta += straight
