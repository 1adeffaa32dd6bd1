"""`Layers`: a network as the step sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuprop.core.array_ops import Array
    from gpuprop.core.ops import Ops
    from gpuprop.core.parameters import Parameters
    from gpuprop.core.spec import Spec

__all__ = ["Layers"]


class Layers:
    """What a network computes, its parameters, and the primitives of the device that holds them.

    A network keeps one such object for its whole life; when it moves to another device, `ops` and `parameters` change.

    Parameters
    ----------
    spec : Spec
    ops : Ops
    parameters : Parameters

    Attributes
    ----------
    idle : list
        Arrays of the last forward pass that no thread uses now, for the next one; at most one entry.
    """

    def __init__(self, spec: Spec, ops: Ops, parameters: Parameters) -> None:
        self.spec = spec
        self.ops = ops
        self.parameters = parameters
        self.idle: list[Any] = []

    @property
    def weights(self) -> list[Array]:
        """``weights[l - 1]``: W of layer l, (fan_in, fan_out)."""
        return self.parameters.weights

    @property
    def biases(self) -> list[Array]:
        """``biases[l - 1]``: b of layer l, (fan_out,)."""
        return self.parameters.biases
