"""Learning rates of groups of parameters: weights, biases, single layers, and the factors of a scaling layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from gpuprop.errors import check_real, unknown_name

if TYPE_CHECKING:
    from gpuprop.core.spec import Spec

__all__ = ["Parametrization", "check_factors", "decay_factors", "gradient_factors", "groups_of", "rate_factors"]

#: How a layer's weights are written: as they are, or as ``W / sqrt(fan_in)``.
Parametrization = Literal["standard", "neural-tangent"]


def groups_of(spec: Spec) -> list[tuple[str, ...]]:
    """Return the groups of each of ``Parameters.arrays``."""
    layers = range(1, spec.n_layers + 1)
    groups: list[tuple[str, ...]] = [("weights", f"W{layer}") for layer in layers]
    groups += [("biases", f"b{layer}") for layer in layers]
    groups += [("slopes",)] * (spec.n_layers - 1 if spec.has_slopes else 0)
    if spec.batch_norm:
        groups += [("scales",)] * (spec.n_layers - 1) + [()] * (2 * (spec.n_layers - 1))  # averages are in no group
    return groups + ([("number_embedding",), ("category_embedding",)] if spec.embedding is not None else [])


def check_factors(argument: str, given: Mapping[str, float] | None, spec: Spec, *, scaling: bool) -> dict[str, float]:
    """Return factors by the names of groups of parameters.

    The groups are "weights", "biases", "W1" to "WL", "b1" to "bL" for the weights and biases of one layer, "slopes",
    "scales", "number_embedding" and "category_embedding" where the network has them, and "scale" for the factors of a
    scaling layer.

    Raises
    ------
    TypeError, ValueError
        If there is no such group, or a factor is negative or not finite.
    """
    known = list(dict.fromkeys(name for names in groups_of(spec) for name in names))
    factors = {}
    for name, factor in dict(given or {}).items():
        if name == "scale" and not scaling:
            raise ValueError(f"{argument}: 'scale' needs scaling_layer=True")
        if name not in (*known, "scale"):
            raise unknown_name(argument, name, [*known, "scale"] if scaling else known)
        factors[name] = check_real(f"{argument}[{name!r}]", factor, 0.0)
    return factors


def rate_factors(
    spec: Spec, factors: Mapping[str, float], parametrization: Parametrization
) -> tuple[float, ...] | None:
    """Return the factor of the learning rate for each of ``Parameters.arrays``, or None where all are 1.

    The factors of an array's groups are multiplied, and those of `gradient_factors` come on top.
    """
    found = [math.prod(factors.get(name, 1.0) for name in names) for names in groups_of(spec)]
    for index, factor in enumerate(gradient_factors(spec, parametrization) or ()):
        found[index] *= factor
    return None if all(factor == 1.0 for factor in found) else tuple(found)


def gradient_factors(spec: Spec, parametrization: Parametrization) -> tuple[float, ...] | None:
    """Return the factor of the gradient for each of ``Parameters.arrays``, or None in the standard parametrisation.

    In the neural-tangent parametrisation a layer computes ``c x W + b`` with c = 1 / sqrt(fan_in), and W is what is
    trained (Jacot, Gabriel, Hongler, "Neural tangent kernel", NeurIPS 2018). The network keeps the product ``c W``. The
    gradient of W is c times that of the product, and the product changes by c times what W changes: so the optimizer
    gets c times the gradient, and its learning rate is multiplied by c, too.
    """
    if parametrization == "standard":
        return None
    of_weights = [1 / math.sqrt(fan_in) for fan_in in spec.layer_sizes[:-1]]
    return tuple(of_weights + [1.0] * (len(groups_of(spec)) - len(of_weights)))


def decay_factors(spec: Spec, factors: Mapping[str, float]) -> tuple[float, ...]:
    """Return the factor of the decay for each of ``Parameters.arrays``; without one, weights have 1 and others 0."""
    spared = ("biases", "slopes", "scales", "number_embedding", "category_embedding")
    known = {"weights": 1.0, **dict.fromkeys(spared, 0.0), **factors}
    return tuple(math.prod(known.get(name, 1.0) for name in names) if names else 0.0 for names in groups_of(spec))
