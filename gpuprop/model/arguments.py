"""The arguments of `gpuprop.model.network.Network`, checked: each function returns one as the network keeps it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gpuprop.core.embedding import InputEmbedding
from gpuprop.core.spec import Spec
from gpuprop.errors import check_integer, check_real
from gpuprop.maths.activations import Activation, get_activation
from gpuprop.maths.losses import Loss

__all__ = [
    "check_blocks",
    "check_classes",
    "check_dropout",
    "check_dtype",
    "check_embedding",
    "check_feature_names",
    "check_hidden_activations",
    "check_layer_sizes",
    "check_named",
    "check_seed",
    "with_numbers",
]


def check_layer_sizes(layer_sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes of at least two layers."""
    if isinstance(layer_sizes, (str, int)) or not hasattr(layer_sizes, "__iter__"):
        raise TypeError(f"layer_sizes: got {layer_sizes!r}, expected a sequence such as (784, 128, 10)")
    sizes = tuple(check_integer("layer_sizes", size, 1) for size in layer_sizes)
    if len(sizes) < 2:
        raise ValueError(f"layer_sizes: got {sizes}, expected at least an input and an output layer, e.g. (2, 4, 1)")
    return sizes


def check_hidden_activations(
    given: str | Activation | Sequence[str | Activation], n_hidden: int
) -> tuple[Activation, ...]:
    """Return one activation for each hidden layer: the given one for all of them, or one each."""
    if isinstance(given, (str, Activation)):
        return (get_activation(given),) * n_hidden
    if not isinstance(given, Sequence):
        raise TypeError(f"hidden_activation: got {given!r}, expected a name, an Activation, or a list of them")
    if len(given) != n_hidden:
        raise ValueError(
            f"hidden_activation: got {len(given)} activations, expected one for each of the {n_hidden} hidden layers"
        )
    return tuple(get_activation(one) for one in given)


def check_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64 in the machine's byte order."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found not in (np.float32, np.float64) or not found.isnative:
        raise ValueError(f"dtype: got {dtype!r}, expected 'float32' or 'float64'")
    return found


def check_named(activations: Iterable[Activation], loss: Loss) -> None:
    """Raise ``ValueError`` for functions that a model file, which holds their names, could not tell to a reader."""
    if not loss.built_in:
        raise ValueError(f"loss: got {loss.name!r}, which is not one of gpuprop's own; a model file holds no others")
    by_name: dict[str, Activation] = {}
    for activation in activations:
        if by_name.setdefault(activation.name, activation) != activation:
            raise ValueError(
                f"got two different activations named {activation.name!r}, which a model file cannot tell apart; "
                "give one of them another name"
            )


def check_embedding(embedding: InputEmbedding | Mapping[str, Any] | None, n_inputs: int) -> InputEmbedding | None:
    """Return an embedding whose outputs are the inputs of the first layer, or None."""
    if isinstance(embedding, Mapping):
        embedding = InputEmbedding.from_config(embedding)
    if embedding is not None and not isinstance(embedding, InputEmbedding):
        raise TypeError(f"embedding: got {embedding!r}, expected an InputEmbedding or None")
    if embedding is not None and embedding.n_outputs != n_inputs:
        raise ValueError(f"embedding: gives {embedding.n_outputs} numbers, expected {n_inputs}, as layer_sizes[0] says")
    return embedding


def check_blocks(spec: Spec) -> None:
    """Refuse normalised or residual layers where there are none that could be so."""
    hidden = spec.layer_sizes[1:-1]
    if spec.batch_norm and not hidden:
        raise ValueError("batch_norm: got no hidden layer, expected at least one; only hidden layers are normalised")
    if spec.residual and not any(spec.adds_input(layer) for layer in range(1, spec.n_layers)):
        raise ValueError(
            f"residual: got hidden layers of {', '.join(map(str, hidden)) or 'no'} units, expected two neighbours of "
            "one size, such as (784, 256, 256, 10): a layer adds its input to its output"
        )
    if spec.has_slopes and spec.has_blocks:
        raise ValueError("slopes: got them together with batch_norm or residual, expected one or the other")


def with_numbers(spec: Spec, dtype: DTypeLike | None, precision: str | None) -> Spec:
    """Return a spec with another dtype or precision, each if it is given; float64 has the precision "float32"."""
    found = spec.dtype if dtype is None else check_dtype(dtype)
    if precision is None:
        precision = spec.precision if found == np.float32 else "float32"
    return replace(spec, dtype=found, precision=precision)


def check_seed(seed: int | None) -> int:
    """Return a seed below 2**64; None draws one."""
    if seed is None:
        return int(np.random.default_rng().integers(2**63))
    number = check_integer("seed", seed, 0)
    if number >= 2**64:
        raise ValueError(f"seed: got {seed}, expected an integer below 2**64")
    return number


def check_dropout(dropout: float | Sequence[float], n_layers: int) -> tuple[float, ...]:
    """Return the rate of the input and of each hidden layer."""
    if isinstance(dropout, Sequence) and not isinstance(dropout, str):
        rates = [check_real("dropout", rate, 0.0, 1.0, open_maximum=True) for rate in dropout]
        if len(rates) == n_layers:
            return tuple(rates)
        if len(rates) == 2:
            return (rates[0],) + (rates[1],) * (n_layers - 1)
        raise ValueError(
            f"dropout: got {len(rates)} rates, expected one number, a pair (input, hidden), or {n_layers} "
            "(the input and each hidden layer)"
        )
    rate = check_real("dropout", dropout, 0.0, 1.0, open_maximum=True)
    return (0.0,) + (rate,) * (n_layers - 1)


def check_classes(classes: Sequence[Any] | None, n_outputs: int) -> tuple[Any, ...] | None:
    """Return the labels of the classes as plain Python values, or None."""
    if classes is None:
        return None
    # A date of NumPy would give an integer.
    labels = tuple(
        label.item() if isinstance(label, np.generic) and label.dtype.kind in "biufU" else label for label in classes
    )
    expected = 2 if n_outputs == 1 else n_outputs
    if len(labels) != expected:
        raise ValueError(f"classes: got {len(labels)} labels, expected {expected} for {n_outputs} output(s)")
    for label in labels:
        if not isinstance(label, (str, int, float, bool)) or (isinstance(label, float) and not math.isfinite(label)):
            raise TypeError(f"classes: got {label!r}, expected text, numbers or booleans")
    if len(set(labels)) < len(labels):
        raise ValueError(f"classes: got {', '.join(map(repr, labels[:8]))}, expected different labels")
    return labels


def check_feature_names(names: Sequence[str] | None, n_features: int) -> tuple[str, ...] | None:
    """Return one name for each input, or None."""
    if names is None:
        return None
    if len(names) != n_features or not all(isinstance(name, str) for name in names):
        raise ValueError(f"feature_names: got {len(names)} names, expected {n_features} strings, one an input")
    return tuple(names)
