"""`Spec`: everything that a backend needs to know of a network, except its parameters."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gpuprop.core.parameters import Layout
from gpuprop.core.precision import check_precision

if TYPE_CHECKING:
    import numpy as np

    from gpuprop.core.embedding import InputEmbedding
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss

__all__ = ["Spec"]


@dataclass(frozen=True)
class Spec:
    """What a network computes: frozen and hashable, and the same on every device.

    Attributes
    ----------
    layer_sizes : tuple of int
        Units of each layer, input and output included.
    activations : tuple of Activation
        One for each layer above the input, the output layer's last.
    loss : Loss
    dtype : dtype
        float32 or float64: of parameters, activations and deltas alike.
    seed : int
        The key of the dropout masks.
    dropout : tuple of float
        Share of units dropped from the input and from each hidden layer.
    l1, l2 : float
        Penalties ``l1 sum |W|`` and ``l2 / 2 sum W^2`` on the weights.
    has_slopes : bool
        Whether each hidden unit has a trained slope, see `gpuprop.core.slopes`.
    embedding : InputEmbedding or None
        What precedes the first layer.
    batch_norm : bool
        Whether hidden layers are normalised over the batch, see `gpuprop.core.blocks`.
    residual : bool
        Whether a hidden layer adds the output of the hidden layer below to its own where they have one size.
    precision : str
        What the operands of products are rounded to: "float32", "tf32x3", "tf32" or "bf16"; see
        `gpuprop.core.precision`. All but "float32" need the dtype float32.
    """

    layer_sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    loss: Loss
    dtype: np.dtype[Any]
    seed: int
    dropout: tuple[float, ...]
    l1: float
    l2: float
    has_slopes: bool = False
    embedding: InputEmbedding | None = None
    batch_norm: bool = False
    residual: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_precision(self.precision, self.dtype)

    @property
    def n_inputs(self) -> int:
        """Columns of the inputs; an embedding makes more of them for the first layer."""
        return self.layer_sizes[0] if self.embedding is None else self.embedding.n_inputs

    @property
    def layout(self) -> Layout:
        """What the parameters are."""
        sizes = () if self.embedding is None else self.embedding.sizes
        return Layout(self.layer_sizes, self.has_slopes, sizes, self.batch_norm)

    @property
    def plain(self) -> bool:
        """Whether each layer is ``f(a @ W + b)``, which every backend knows."""
        return not self.has_slopes and self.embedding is None and not self.has_blocks

    @property
    def has_blocks(self) -> bool:
        """Whether hidden layers are normalised, or have paths around them."""
        return self.batch_norm or self.residual

    def adds_input(self, layer: int) -> bool:
        """Whether a layer, counted from 1, adds the output of the one below to its own: hidden layers of one size."""
        sizes = self.layer_sizes
        return self.residual and 1 < layer < self.n_layers and sizes[layer - 1] == sizes[layer]

    @property
    def n_layers(self) -> int:
        """Layers that have weights: all but the input."""
        return len(self.layer_sizes) - 1

    @property
    def n_weights(self) -> int:
        """Number of weights, biases not counted."""
        return sum(fan_in * fan_out for fan_in, fan_out in pairwise(self.layer_sizes))

    @property
    def hidden_activations(self) -> tuple[Activation, ...]:
        """Activation of each hidden layer."""
        return self.activations[:-1]

    @property
    def output_activation(self) -> Activation:
        """Activation of the output layer."""
        return self.activations[-1]

    @property
    def penalised(self) -> bool:
        """Whether the loss includes a penalty."""
        return bool(self.l1 or self.l2)
