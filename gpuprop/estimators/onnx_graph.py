"""A network as an ONNX graph: a Gemm and an activation for each layer, and an Add where one is residual.

This needs the package onnx.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, checker, helper, numpy_helper

from gpuprop.maths.activations import Activation
from gpuprop.model.network import Network
from gpuprop.model.unscaled import folded_network

__all__ = ["build"]

#: Gelu came with version 20 of the operators.
_OPERATORS_VERSION = 20
_FORMAT_VERSION = 9


def build(network: Network, *, classifier: bool) -> Any:
    """Return the network as an ``onnx.ModelProto``; see ``to_onnx`` of the estimators for inputs and outputs."""
    if network.spec.has_slopes or network.spec.embedding is not None:
        raise ValueError("a network with slopes or embeddings has no ONNX graph")
    network = folded_network(network)
    kind = TensorProto.FLOAT if network.dtype == np.float32 else TensorProto.DOUBLE
    nodes, constants, below = [], [], "X"
    layers = zip(network.weights, network.biases, network.layer_activations, strict=True)
    for layer, (weights, biases, activation) in enumerate(layers, start=1):
        constants += [_constant(f"W{layer}", network, weights), _constant(f"b{layer}", network, biases)]
        nodes.append(helper.make_node("Gemm", [below, f"W{layer}", f"b{layer}"], [f"z{layer}"]))
        adds = network.spec.adds_input(layer)
        nodes += _activation_nodes(activation, f"z{layer}", f"f{layer}" if adds else f"a{layer}")
        if adds:
            nodes.append(helper.make_node("Add", [f"f{layer}", below], [f"a{layer}"]))
        below = f"a{layer}"
    output, n_columns = ("probabilities" if classifier else "prediction"), network.layer_sizes[-1]
    if classifier and n_columns == 1:
        n_columns = 2
        constants.append(numpy_helper.from_array(np.ones(1, network.dtype), "one"))
        nodes.append(helper.make_node("Sub", ["one", below], ["other"]))
        nodes.append(helper.make_node("Concat", ["other", below], [output], axis=1))
    else:
        nodes.append(helper.make_node("Identity", [below], [output]))
    graph = helper.make_graph(
        nodes,
        "gpuprop",
        [helper.make_tensor_value_info("X", kind, ["n_samples", network.layer_sizes[0]])],
        [helper.make_tensor_value_info(output, kind, ["n_samples", n_columns])],
        constants,
    )
    model = helper.make_model(
        graph,
        producer_name="gpuprop",
        ir_version=_FORMAT_VERSION,
        opset_imports=[helper.make_opsetid("", _OPERATORS_VERSION)],
    )
    checker.check_model(model, full_check=True)
    return model


def _constant(name: str, network: Network, array: Any) -> Any:
    values: NDArray[Any] = network.ops.to_numpy(array)
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


def _activation_nodes(activation: Activation, z: str, a: str) -> list[Any]:
    """Return a node for each operator that the activation's record names."""
    if not activation.built_in:
        raise ValueError(f"activation {activation.name!r}: got one of your own, expected gpuprop's; ONNX has no others")
    nodes, below, last = [], z, len(activation.onnx) - 1
    for place, operator in enumerate(activation.onnx):
        inputs, out = ([z, below] if operator == "Mul" else [below]), a if place == last else f"s{place}_{a}"
        nodes.append(helper.make_node(operator, inputs, [out], **_settings(activation)))
        below = out
    return nodes


def _settings(activation: Activation) -> dict[str, Any]:
    """Return the attributes of an activation's operator: its parameter, where the name has one, or softmax's axis."""
    if activation.name == "softmax":
        return {"axis": 1}
    return {} if activation.name == activation.base_name else {"alpha": activation.parameter}
