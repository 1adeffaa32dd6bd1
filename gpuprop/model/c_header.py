"""A network as C: one header without dependencies but the C library's mathematics, for microcontrollers and the like.

Weights are float32, or 8-bit integers with a factor for each unit. Nothing is allocated: two rows of activations are on
the stack.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import to_host
from gpuprop.model.unscaled import folded_network

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

    from gpuprop.model.network import Network

    Array = NDArray[Any]

__all__ = ["c_header", "c_test_program", "rounded"]

#: Each activation as C, of the net input z and the parameter p of its name.
_ACTIVATIONS = {
    "identity": "z",
    "logistic": "1.0f / (1.0f + expf(-z))",
    "tanh": "tanhf(z)",
    "relu": "z > 0.0f ? z : 0.0f",
    "leaky_relu": "z > 0.0f ? z : p * z",
    "elu": "z > 0.0f ? z : p * expm1f(z)",
    "softplus": "(z > 0.0f ? z : 0.0f) + log1pf(expf(-fabsf(z)))",
    "gelu": "0.5f * z * (1.0f + erff(z * 0.70710678f))",
    "silu": "z / (1.0f + expf(-z))",
    "selu": "1.05070099f * (z > 0.0f ? z : 1.67326324f * expm1f(z))",
    "mish": "z * tanhf((z > 0.0f ? z : 0.0f) + log1pf(expf(-fabsf(z))))",
    "exponential": "expf(z)",
}
_LEVELS = 127


def rounded(network: Network) -> Network:
    """Return a copy whose weights are those of the 8-bit header: multiples of a 127th of each unit's largest weight.

    Batch normalisation is folded into weights and biases first.
    """
    twin = folded_network(network)
    for weights in twin.weights:
        codes, factors = _codes(weights)
        weights[...] = codes * factors
    return twin


def _codes(weights: Any) -> tuple[Array, Array]:
    values = np.asarray(to_host(weights), np.float64)
    factors = np.abs(values).max(axis=0) / _LEVELS
    factors[factors == 0] = 1.0
    return np.rint(values / factors).astype(np.int8), factors.astype(np.float32)


def c_header(network: Network, name: str = "model", *, int8: bool = False) -> str:
    """Return the header: ``void NAME_predict(const float *x, float *out)`` for one row of raw inputs.

    Parameters
    ----------
    network : Network
    name : str, default="model"
        The beginning of all names in the header.
    int8 : bool, default=False
        Whether weights are 8-bit integers: a quarter of the memory, see `rounded`.

    Raises
    ------
    ValueError
        If the name is none in C, or the network has slopes, embeddings, or an activation of your own.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name, flags=re.ASCII):
        raise ValueError(f"name: got {name!r}, expected letters, digits and underscores")
    if network.spec.has_slopes or network.spec.embedding is not None:
        raise ValueError("a network with slopes or embeddings has no C header")
    network = folded_network(network)
    for activation in (*network.hidden_activations, network.output_activation):
        if not activation.built_in or (activation.base_name not in _ACTIVATIONS and activation.name != "softmax"):
            raise ValueError(f"activation {activation.name!r}: has no form in C here")
    sizes = network.layer_sizes
    parts = [_head(network, name, int8=int8)]
    scaling = network.input_scaling
    if scaling is not None:
        shift = np.broadcast_to(scaling.shift, (sizes[0],))
        scale = np.broadcast_to(scaling.scale, (sizes[0],))
        parts += [_array("float", f"{name}_shift", shift), _array("float", f"{name}_scale", scale)]
    for layer, (weights, biases) in enumerate(zip(network.weights, network.biases, strict=True), start=1):
        if int8:
            codes, factors = _codes(weights)
            parts += [_array("signed char", f"{name}_w{layer}", codes), _array("float", f"{name}_f{layer}", factors)]
        else:
            parts.append(_array("float", f"{name}_w{layer}", to_host(weights)))
        parts.append(_array("float", f"{name}_b{layer}", to_host(biases)))
    parts.append(_predict(network, name, int8=int8))
    return "\n".join(parts)


def _head(network: Network, name: str, *, int8: bool) -> str:
    guard = f"{name.upper()}_H"
    sizes = network.layer_sizes
    kind = "8-bit" if int8 else "float32"
    return (
        f"/* {'-'.join(map(str, sizes))}, {kind} weights, by gpuprop. Include it in one file of a program, and link\n"
        f"   with -lm. {name}_predict reads {sizes[0]} raw inputs and writes {sizes[-1]} outputs. */\n"
        f"#ifndef {guard}\n#define {guard}\n#include <math.h>\n\n"
        f"#define {name.upper()}_INPUTS {sizes[0]}\n#define {name.upper()}_OUTPUTS {sizes[-1]}\n"
    )


def _array(kind: str, name: str, values: ArrayLike) -> str:
    flat = np.asarray(values).reshape(-1)
    texts = [str(int(value)) if kind == "signed char" else _float(value) for value in flat]
    lines = [", ".join(texts[i : i + 12]) for i in range(0, len(texts), 12)]
    return f"static const {kind} {name}[{len(texts)}] = {{\n" + ",\n".join(lines) + "\n};\n"


def _float(value: Any) -> str:
    text = f"{float(np.float32(value)):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _predict(network: Network, name: str, *, int8: bool) -> str:
    sizes, widest = network.layer_sizes, max(network.layer_sizes)
    lines = [
        f"static void {name}_predict(const float *x, float *out)",
        "{",
        f"    static float rows[2][{widest}];",
        "    float *a = rows[0], *next = rows[1], *other;",
        "    int i, j;",
        f"    for (i = 0; i < {sizes[0]}; i++)",
        f"        a[i] = (x[i] - {name}_shift[i]) * {name}_scale[i];"
        if network.input_scaling is not None
        else "        a[i] = x[i];",
    ]
    activations = (*network.hidden_activations, network.output_activation)
    for layer, activation in enumerate(activations, start=1):
        below, units = sizes[layer - 1], sizes[layer]
        value = f"{name}_b{layer}[j] + {name}_f{layer}[j] * z" if int8 else f"{name}_b{layer}[j] + z"
        formula = _ACTIVATIONS.get(activation.base_name, "z")
        lines += [
            f"    for (j = 0; j < {units}; j++) {{",
            "        float z = 0.0f;",
            *([f"        const float p = {_float(activation.parameter)};"] if re.search(r"\bp\b", formula) else []),
            f"        for (i = 0; i < {below}; i++)",
            f"            z += a[i] * {name}_w{layer}[i * {units} + j];",
            f"        z = {value};",
            f"        next[j] = {formula};",
            *(["        next[j] += a[j];"] if network.spec.adds_input(layer) else []),
            "    }",
            "    other = a; a = next; next = other;",
        ]
    n_outputs = sizes[-1]
    if network.output_activation.name == "softmax":
        lines += [
            "    {",
            "        float largest = a[0], sum = 0.0f;",
            f"        for (j = 1; j < {n_outputs}; j++)",
            "            if (a[j] > largest) largest = a[j];",
            f"        for (j = 0; j < {n_outputs}; j++)",
            "            sum += a[j] = expf(a[j] - largest);",
            f"        for (j = 0; j < {n_outputs}; j++)",
            "            a[j] /= sum;",
            "    }",
        ]
    lines += [f"    for (j = 0; j < {n_outputs}; j++)", "        out[j] = a[j];", "}", "", "#endif", ""]
    return "\n".join(lines)


def c_test_program(header: str, name: str, X: ArrayLike, outputs: ArrayLike, tolerance: float = 1e-4) -> str:
    """Return a program that compares the header's outputs for some rows with these; its exit status is 0 if they agree.

    Parameters
    ----------
    header : str
        The header's file name.
    name : str
        As for `c_header`.
    X, outputs : array_like
        Raw inputs, and what the network answers.
    tolerance : float, default=1e-4
        Of each output, relative to 1 + its size.
    """
    rows, expected = np.asarray(X), np.asarray(outputs)
    body: Iterable[str] = (
        f"/* Compile: cc {name}_test.c -lm */",
        "#include <stdio.h>",
        f'#include "{header}"',
        "",
        _array("float", "inputs", rows),
        _array("float", "expected", expected),
        "int main(void)",
        "{",
        f"    float out[{expected.shape[1]}], worst = 0.0f;",
        "    int row, j;",
        f"    for (row = 0; row < {len(rows)}; row++) {{",
        f"        {name}_predict(inputs + row * {rows.shape[1]}, out);",
        f"        for (j = 0; j < {expected.shape[1]}; j++) {{",
        f"            float should = expected[row * {expected.shape[1]} + j];",
        "            float error = fabsf(out[j] - should) / (1.0f + fabsf(should));",
        "            if (!(error <= worst)) worst = error;",
        "        }",
        "    }",
        f'    printf("{len(rows)} rows, largest error %g\\n", worst);',
        f"    return worst <= {_float(tolerance)} ? 0 : 1;",
        "}",
        "",
    )
    return "\n".join(body)
