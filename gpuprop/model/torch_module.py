"""A network as PyTorch: the source of a module, which needs nothing but PyTorch, and its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import to_host
from gpuprop.model.unscaled import folded_network, without_scaling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.maths.activations import Activation
    from gpuprop.model.network import Network

    Array = NDArray[Any]

__all__ = ["torch_source", "torch_state"]

#: Each activation as PyTorch, of the net input z and the parameter p of its name.
_ACTIVATIONS = {
    "identity": "{z}",
    "logistic": "torch.sigmoid({z})",
    "tanh": "torch.tanh({z})",
    "relu": "F.relu({z})",
    "leaky_relu": "F.leaky_relu({z}, {p!r})",
    "elu": "F.elu({z}, {p!r})",
    "softplus": "F.softplus({z})",
    "gelu": "F.gelu({z})",
    "silu": "F.silu({z})",
    "selu": "F.selu({z})",
    "mish": "F.mish({z})",
    "softmax": "torch.softmax({z}, dim=1)",
    "exponential": "torch.exp({z})",
}


def torch_state(network: Network) -> dict[str, Array]:
    """Return the arrays of the module's state dict, for raw inputs: a scaling is folded into the first layer.

    They are "linear1.weight" (fan_out, fan_in), "linear1.bias", "linear2.weight", and so on.

    Raises
    ------
    ValueError
        If the network has slopes or embeddings.
    """
    plain = _exported(network)
    state: dict[str, Array] = {}
    for layer, (weights, biases) in enumerate(zip(plain.weights, plain.biases, strict=True), start=1):
        state[f"linear{layer}.weight"] = np.ascontiguousarray(np.asarray(to_host(weights)).T)
        state[f"linear{layer}.bias"] = np.array(to_host(biases))
    return state


def torch_source(network: Network, state_file: str) -> str:
    """Return the source of a Python module with the class ``Model``, and ``load``, which reads the state beside it.

    ``Model`` takes raw inputs of shape (n_samples, n_features) and returns what ``predict_proba`` of a classifier
    returns, or the outputs of another network; ``Model.net_input`` leaves out the last activation, as PyTorch's losses
    want it. Dropout is in its place, so that training can go on; batch normalisation is folded into weights and biases.

    Parameters
    ----------
    network : Network
    state_file : str
        The file name of the state, which ``load`` looks for beside the module.

    Raises
    ------
    ValueError
        If the network has slopes, embeddings, or an activation of your own.
    """
    plain = _exported(network)
    sizes, dtype = plain.layer_sizes, plain.dtype.name
    layers = [f"        self.linear{i} = nn.Linear({sizes[i - 1]}, {sizes[i]})" for i in range(1, len(sizes))]
    steps, below = [], "x"
    for layer in range(1, len(sizes)):
        read = below
        if plain.dropout[layer - 1]:
            read = f"F.dropout({below}, {plain.dropout[layer - 1]!r}, self.training)"
        net = f"self.linear{layer}({read})"
        if layer == len(sizes) - 1:
            steps.append(f"        return {net}")
        else:
            around = f" + {below}" if plain.spec.adds_input(layer) else ""
            steps.append(f"        a{layer} = {_in_torch(plain.layer_activations[layer - 1], net)}{around}")
            below = f"a{layer}"
    answer = _in_torch(plain.output_activation, "self.net_input(x)")
    both = plain.is_classifier and sizes[-1] == 1
    returned = "torch.cat([1 - p, p], dim=1)" if both else "p"
    return "\n".join(
        [
            f'"""The network {"-".join(map(str, sizes))}, written by gpuprop. Its state is in {state_file}."""',
            "",
            "import json",
            "from pathlib import Path",
            "",
            "import torch",
            "import torch.nn.functional as F",
            "from torch import nn",
            "",
            "",
            "class Model(nn.Module):",
            f'    """Takes raw inputs (n, {sizes[0]}), {dtype}; returns (n, {2 if both else sizes[-1]})."""',
            "",
            "    def __init__(self):",
            "        super().__init__()",
            *layers,
            "",
            "    def net_input(self, x):",
            '        """Return the output layer\'s net input, which PyTorch\'s losses take."""',
            *steps,
            "",
            "    def forward(self, x):",
            f"        p = {answer}",
            f"        return {returned}",
            "",
            "",
            f'def load(path=Path(__file__).with_name("{state_file}")):',
            '    """Return the model with its state; equal to safetensors.torch.load_file, which it does without."""',
            "    content = Path(path).read_bytes()",
            '    start = 8 + int.from_bytes(content[:8], "little")',
            "    header, state = json.loads(content[8:start]), {}",
            "    for name, tensor in header.items():",
            '        if name != "__metadata__":',
            '            first, last = (start + place for place in tensor["data_offsets"])',
            f"            values = torch.frombuffer(bytearray(content[first:last]), dtype=torch.{dtype})",
            '            state[name] = values.reshape(tensor["shape"])',
            f"    model = Model().to(torch.{dtype})",
            "    model.load_state_dict(state)",
            "    return model.eval()",
            "",
        ]
    )


def _exported(network: Network) -> Network:
    if network.spec.has_slopes or network.spec.embedding is not None:
        raise ValueError("a network with slopes or embeddings has no module of PyTorch")
    return without_scaling(folded_network(network))


def _in_torch(activation: Activation, net: str) -> str:
    form = _ACTIVATIONS.get(activation.base_name if activation.built_in else "")
    if form is None:
        raise ValueError(f"activation {activation.name!r}: got one of your own, expected gpuprop's")
    return form.format(z=net, p=activation.parameter)
