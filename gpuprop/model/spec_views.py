"""What follows from a network's spec: properties under the names that a user knows, names of arrays, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gpuprop.core.parameters import Parameters
from gpuprop.core.spec import Spec
from gpuprop.errors import BackendUnavailableError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array, ArrayOps
    from gpuprop.core.layers import Layers
    from gpuprop.core.plan import Backend
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss

__all__ = ["SpecViews", "array_names", "check_place", "former_spec", "kept_options"]


def array_names(spec: Spec) -> list[str]:
    """Return the name of each of a network's arrays in a model file, in the order of ``Parameters.arrays``."""
    names = [f"{kind}.{layer}" for kind in ("weights", "biases") for layer in range(spec.n_layers)]
    if spec.has_slopes:
        names += [f"slopes.{layer}" for layer in range(spec.n_layers - 1)]
    if spec.batch_norm:
        names += [f"{kind}.{layer}" for kind in ("scales", "means", "variances") for layer in range(spec.n_layers - 1)]
    return names if spec.embedding is None else [*names, "embedding.numbers", "embedding.categories"]


def kept_options(spec: Spec) -> dict[str, Any]:
    """Return the constructor's arguments for what not every network has, as JSON values."""
    flags = {"slopes": spec.has_slopes, "batch_norm": spec.batch_norm, "residual": spec.residual}
    options: dict[str, Any] = {name: True for name, has in flags.items() if has}
    if spec.precision != "float32":
        options["precision"] = spec.precision
    return options if spec.embedding is None else options | {"embedding": spec.embedding.get_config()}


def check_place(spec: Spec, ops: ArrayOps) -> None:
    """Refuse a device that does not know what the network computes.

    Raises
    ------
    BackendUnavailableError
        If the network has slopes or an embedding, and the device is not the host.
    """
    if not ops.on_host and (spec.has_slopes or spec.embedding is not None):
        raise BackendUnavailableError(
            f"device {ops.device!r}: networks with slopes or an input embedding are computed on the host only; "
            "use device='cpu'"
        )


def former_spec(state: dict[str, Any]) -> Spec:
    """Take a spec out of what a pickle of version 0.1 holds, which names each part of it."""
    state.pop("n_layers", None)
    described = {name: state.pop(name) for name in ("layer_sizes", "dtype", "seed", "dropout", "l1", "l2")}
    return Spec(activations=state.pop("layer_activations"), loss=state.pop("loss_function"), **described)


class SpecViews:
    """What a network computes, which never changes, and views of its parameters, which training changes."""

    layers: Layers
    ops: Backend
    #: The updates that trainings have made with each optimizer, by its name. They decide how the next ones are made.
    #: Copies and pickles have them, and a model file does not.
    updates_made: Mapping[str, int] = MappingProxyType({})

    def count_updates(self, optimizer: str, n_updates: int) -> None:
        """Note that trainings with this optimizer have made so many updates in all."""
        self.updates_made = {**self.updates_made, optimizer: n_updates}  # copies of the network share the old mapping

    def use_precision(self, precision: str, *, emulate: bool = False) -> None:
        """Round the operands of products to another precision from now on; the parameters do not change.

        Parameters and errors are those of `gpuprop.Network`.
        """
        spec = replace(self.spec, precision=precision)
        self.ops = self.layers.ops = self.ops.in_precision(precision, emulate=emulate)
        self.layers.spec = spec

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
    def precision(self) -> str:
        """What the operands of products are rounded to, see `gpuprop.core.precision`."""
        return self.spec.precision

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

    @property
    def weights(self) -> list[Array]:
        """Views of the weight matrices, (fan_in, fan_out)."""
        return self.layers.weights

    @property
    def biases(self) -> list[Array]:
        """Views of the bias vectors, (fan_out,)."""
        return self.layers.biases

    def named_arrays(self) -> dict[str, NDArray[Any]]:
        """Return copies on the host of all parameters, each with its name in a model file; none is empty."""
        named = zip(array_names(self.spec), self.layers.parameters.arrays, strict=True)
        return {name: self.ops.to_numpy(own) for name, own in named if own.size}

    @property
    def batch_norm(self) -> bool:
        """Whether hidden layers are normalised over the batch."""
        return self.spec.batch_norm

    @property
    def residual(self) -> bool:
        """Whether hidden layers add their input to their output where both have one size."""
        return self.spec.residual

    @property
    def device_(self) -> str:
        """The device in use."""
        return self.ops.device

    @property
    def backend_(self) -> str:
        """The library that computes."""
        return self.ops.backend

    def __repr__(self) -> str:
        hidden = ", ".join(dict.fromkeys(activation.name for activation in self.hidden_activations))
        numbers = self.dtype.name if self.precision == "float32" else f"{self.dtype.name} by {self.precision}"
        return (
            f"Network({'-'.join(map(str, self.layer_sizes))}{', ' + hidden if hidden else ''}, "
            f"{self.output_activation.name} + {self.loss_function.name}, {numbers}, {self.device_})"
        )

    @property
    def n_parameters(self) -> int:
        """The length of `parameters`, which holds weights, biases and what other kinds the network has."""
        return Parameters.count(self.spec.layout)

    @property
    def n_weights(self) -> int:
        """How many of `parameters` are weights; ``parameters[:n_weights]`` holds them, and the biases follow."""
        return self.layers.parameters.n_weights
