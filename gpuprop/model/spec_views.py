"""The properties of a network that come from its spec, under the names that a user of the network knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from gpuprop.core.layers import Layers
    from gpuprop.core.spec import Spec
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss

__all__ = ["SpecViews"]


class SpecViews:
    """The part of a network that never changes."""

    layers: Layers

    @property
    def spec(self) -> Spec:
        """What the network computes, as backends know it."""
        return self.layers.spec

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Units of each layer, input and output included."""
        return self.spec.layer_sizes

    @property
    def n_layers(self) -> int:
        """Layers that have weights."""
        return self.spec.n_layers

    @property
    def layer_activations(self) -> tuple[Activation, ...]:
        """Activation of each layer that has weights."""
        return self.spec.activations

    @property
    def hidden_activations(self) -> tuple[Activation, ...]:
        """Activation of each hidden layer."""
        return self.spec.hidden_activations

    @property
    def output_activation(self) -> Activation:
        """Activation of the output layer."""
        return self.spec.output_activation

    @property
    def loss_function(self) -> Loss:
        """The loss."""
        return self.spec.loss

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.spec.dtype

    @property
    def seed(self) -> int:
        """The seed that determines initial weights, row orders and dropout masks."""
        return self.spec.seed

    @property
    def dropout(self) -> tuple[float, ...]:
        """Share of units dropped from the input and from each hidden layer."""
        return self.spec.dropout

    @property
    def l1(self) -> float:
        """The penalty's factor of ``sum |W|``."""
        return self.spec.l1

    @property
    def l2(self) -> float:
        """The penalty's factor of ``sum W^2 / 2``."""
        return self.spec.l2
