"""`ScalingLayer`: one trained factor for each input, in front of the first layer.

The network computes ``(x * s) @ V = x @ (s[:, None] * V)``, so that it needs no layer of its own for the factors: its
first weights are the product ``W = s[:, None] * V``, and V and s are what is trained. With the gradient ``G = dL/dW``,
which the step forms in any case, the chain rule gives

    dL/dV = s[:, None] * G,    dL/ds = sum over the columns of V * G.

Source: Holzmueller, Grinsztajn, Steinwart, "Better by default", NeurIPS 2024, arXiv:2407.04491, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuprop.core.array_ops import Array
    from gpuprop.core.parameters import Parameters

__all__ = ["ScalingLayer"]


@dataclass(frozen=True)
class ScalingLayer:
    """The factors of the inputs, the first weights without them, and what the optimizer remembers of the factors.

    Attributes
    ----------
    factors : array of shape (n_features,)
        s; ones at first.
    weights : array of shape (n_features, units of the first layer)
        V.
    state : dict of arrays of shape (n_features,)
        The optimizer's memory of the factors, by the names in its ``slots``.
    rate_factor : float
        The learning rate of the factors is the training's times this.
    decay_factor : float
        They decay by the update's decay times this.
    """

    factors: Array
    weights: Array
    state: dict[str, Array]
    rate_factor: float = 1.0
    decay_factor: float = 0.0

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> ScalingLayer:
        """Return a layer of the arrays that `arrays` names; its factors of rate and decay are 1 and 0."""
        state = {name: array for name, array in arrays.items() if name not in ("factors", "weights")}
        return cls(arrays["factors"], arrays["weights"], state)

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """Yield everything that updates change, each array with a name."""
        yield "factors", self.factors
        yield "weights", self.weights
        yield from self.state.items()

    def open(self, parameters: Parameters, gradients: Parameters) -> Array:
        """Put V and its gradient in the place of W and its gradient; return the gradient of the factors."""
        own, gradient = parameters.weights[0], gradients.weights[0]
        of_factors = (gradient * self.weights).sum(axis=1)
        gradient *= self.factors[:, None]
        own[...] = self.weights
        return of_factors

    def close(self, parameters: Parameters) -> None:
        """Take the updated V, and put the product W in its place."""
        own = parameters.weights[0]
        self.weights[...] = own
        own *= self.factors[:, None]
