"""Learning rates of groups of parameters: weights, biases, single layers, and the factors of a scaling layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from gpuprop.errors import check_real, unknown_name

if TYPE_CHECKING:
    from gpuprop.core.spec import Spec
    from gpuprop.maths.optimizers import Optimizer

__all__ = ["Parametrization", "check_rate_factors", "rate_factors"]

#: How a layer's weights are written: as they are, or as ``W / sqrt(fan_in)``.
Parametrization = Literal["standard", "neural-tangent"]


def check_rate_factors(given: Mapping[str, float] | None, n_layers: int, *, scaling_layer: bool) -> dict[str, float]:
    """Return factors of the learning rate by the names of groups.

    The groups are "weights", "biases", "W1" to "WL", "b1" to "bL" for the weights and biases of one layer, and "scale"
    for the factors of a scaling layer.

    Raises
    ------
    TypeError, ValueError
        If there is no such group, or a factor is negative or not finite.
    """
    known = ["weights", "biases", *(f"{letter}{layer}" for letter in "Wb" for layer in range(1, n_layers + 1))]
    if scaling_layer:
        known.append("scale")
    factors = {}
    for name, factor in dict(given or {}).items():
        if name == "scale" and not scaling_layer:
            raise ValueError("learning_rate_factors: 'scale' needs scaling_layer=True")
        if name not in known:
            raise unknown_name("learning_rate_factors", name, known)
        factors[name] = check_real(f"learning_rate_factors[{name!r}]", factor, 0.0)
    return factors


def rate_factors(
    spec: Spec, optimizer: Optimizer, factors: Mapping[str, float], parametrization: Parametrization
) -> tuple[float, ...] | None:
    """Return the factor for W[1] to W[L] and b[1] to b[L], or None where all are 1.

    The factors of a parameter's groups are multiplied. In the neural-tangent parametrisation, a layer computes
    ``c x W + b`` with c = 1 / sqrt(fan_in), and W is what is trained (Jacot, Gabriel, Hongler, "Neural tangent
    kernel", NeurIPS 2018). The network keeps the product ``c W``, whose change is c times that of W. W's gradient is c
    times that of the product; where the optimizer's steps follow the gradient's scale, that is another c, and where
    they are normalised, it cancels but for their epsilon.
    """
    found = []
    for letter, kind in (("W", "weights"), ("b", "biases")):
        for layer, fan_in in enumerate(spec.layer_sizes[:-1], start=1):
            factor = factors.get(kind, 1.0) * factors.get(f"{letter}{layer}", 1.0)
            if letter == "W" and parametrization == "neural-tangent":
                factor /= fan_in if optimizer.follows_scale else math.sqrt(fan_in)
            found.append(factor)
    return None if all(factor == 1.0 for factor in found) else tuple(found)
