"""What a model file holds of a network: names of tensors, and metadata.

The metadata, in the container of `gpuprop.model.container`, are::

    kind             "network", "classifier", "regressor", "ensemble", "tabular-classifier" or "tabular-regressor"
    parameters       the keyword arguments of gpuprop.Network, with classes and input scaling
    estimator        of a classifier or regressor: its parameters, labels and records, see gpuprop.estimators.described
    members          of all others, instead of those two: kind, parameters and estimator of each network
    ensemble         of all others: what belongs to the whole, see gpuprop.estimators.described and tabular_described

The tensors of a network are ``weights.0, biases.0, weights.1, ...``, and where it has some ``slopes.0, ...``,
``scales.0, ..., means.0, ..., variances.0, ...`` of batch normalisation, and ``embedding.numbers,
embedding.categories``; those of an ensemble are ``member.0.weights.0, ...``.

This module is below `gpuprop.model.network`, so that a network can save itself: it takes what it writes as data.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

from gpuprop.core.embedding import InputEmbedding
from gpuprop.core.precision import PRECISIONS
from gpuprop.model.container import model_file, write_file
from gpuprop.model.forms import FLAG, NONE, TEXT, Either, Fields, Items, Named, Real, Whole, Word
from gpuprop.model.refusals import refuse, refusing, shown

__all__ = ["NETWORK", "NetworkContent", "check_tensors", "network_config", "write_ensemble", "write_network"]

Array = NDArray[Any]

_SCALE = Either(Real(), Items(Real()))
_MOST_SIZE = 2**31 - 1

#: What ``parameters`` may be: the arguments of `gpuprop.Network` that a file holds.
NETWORK = Fields(
    {"layer_sizes": Items(Whole(1), least=2), "dtype": Word(("float32", "float64"))},
    {
        "hidden_activation": Either(TEXT, Items(TEXT)),
        "output_activation": Either(TEXT, NONE),
        "loss": TEXT,
        "seed": Either(Whole(0, 2**64 - 1), NONE),
        "dropout": Either(Real(0, 1), Items(Real(0, 1))),
        "l1": Real(0),
        "l2": Real(0),
        "slopes": FLAG,
        "batch_norm": FLAG,
        "residual": FLAG,
        "precision": Word(PRECISIONS),
        "embedding": Either(
            NONE,
            Fields(
                {"n_numbers": Whole(0, _MOST_SIZE), "n_plain": Whole(0, _MOST_SIZE)},
                {
                    "categories": Items(Whole(1, _MOST_SIZE)),
                    "n_frequencies": Whole(1, _MOST_SIZE),
                    "number_width": Whole(2, _MOST_SIZE),
                    "category_width": Whole(1, _MOST_SIZE),
                },
            ),
        ),
        "input_scaling": Either(NONE, Fields({"shift": _SCALE, "scale": _SCALE})),
        "classes": Either(NONE, Items(Either(TEXT, Real(), FLAG))),
        "feature_names": Either(NONE, Items(TEXT)),
        "target_name": Either(NONE, TEXT),
    },
)


@dataclass(frozen=True)
class NetworkContent:
    """A network as data.

    Attributes
    ----------
    config : mapping of JSON values
        What ``Network.get_config`` returns.
    arrays : mapping of str to array
        What ``Network.named_arrays`` returns: all parameters, on the host.
    kind : {"network", "classifier", "regressor"}, default="network"
    estimator : mapping of JSON values or None, default=None
        What `gpuprop.estimators.described` says of the estimator around the network.
    """

    config: Mapping[str, Any]
    arrays: Mapping[str, Array]
    kind: str = "network"
    estimator: Mapping[str, Any] | None = None

    def metadata(self) -> dict[str, Any]:
        """Return everything but the tensors."""
        metadata: dict[str, Any] = {"kind": self.kind, "parameters": self.config}
        return metadata if self.estimator is None else metadata | {"estimator": self.estimator}


def write_network(content: NetworkContent, path: str | os.PathLike[str]) -> None:
    """Write a network to a model file.

    Parameters
    ----------
    content : NetworkContent
    path : str or path
        The file, or an existing folder, in which the file will be ``model.safetensors``. An existing file is replaced,
        and stays as it was if anything fails.

    Raises
    ------
    ModelFileError
        If the file cannot be written.
    """
    write_file(model_file(path), dict(content.arrays), content.metadata())


def write_ensemble(
    members: Sequence[NetworkContent],
    path: str | os.PathLike[str],
    *,
    ensemble: Mapping[str, Any],
    kind: str = "ensemble",
) -> None:
    """Write several networks to one model file; `path` and errors are those of `write_network`.

    Parameters
    ----------
    members : sequence of NetworkContent
    path : str or path
    ensemble : mapping of JSON values
        What `gpuprop.estimators` says of the ensemble itself.
    kind : str, default="ensemble"
    """
    tensors = {f"member.{i}.{name}": array for i, member in enumerate(members) for name, array in member.arrays.items()}
    metadata = {"kind": kind, "members": [member.metadata() for member in members], "ensemble": ensemble}
    write_file(model_file(path), tensors, metadata)


def network_config(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of Network out of a file's metadata.

    Raises
    ------
    RefusedError
        If the file is not of a kind with a network, or its parameters are no such arguments.
    """
    kind = metadata.get("kind")
    if kind not in ("network", "classifier", "regressor"):
        refuse(f"got a file of kind {shown(kind)}, expected 'network', 'classifier' or 'regressor'")
    about = {} if kind == "network" else {"estimator": Named()}
    # A checkpoint is read as its network; what else it holds is for `gpuprop.training` to check.
    Fields({"kind": TEXT, "parameters": NETWORK, **about}, {"checkpoint": Named()}).check(dict(metadata), "metadata")
    return dict(metadata["parameters"])


def check_tensors(tensors: Mapping[str, Array], config: Mapping[str, Any]) -> None:
    """Compare a file's tensors with ``layer_sizes`` and ``dtype``: then the network needs no more memory than they do.

    Raises
    ------
    RefusedError
        If a tensor is missing or superfluous, or has another shape or dtype.
    """
    sizes, dtype = config["layer_sizes"], config["dtype"]
    shapes = _shapes(config, sizes)
    if len(tensors) != len(shapes):
        refuse(f"got {len(tensors)} tensors, expected weights and biases for layer_sizes {shown(sizes)}")
    for name, expected in shapes.items():
        got = tensors.get(name)
        if got is None:
            refuse(f"tensor {name!r} is missing for layer_sizes {shown(sizes)}")
        if got.shape != expected or got.dtype != dtype:
            refuse(f"tensor {name!r}: got {got.dtype} {got.shape}, expected {dtype} {shown(expected)}")
        if name.startswith("variances.") and not (got >= 0).all():
            refuse(f"tensor {name!r}: got a variance below 0")


def _shapes(config: Mapping[str, Any], sizes: list[int]) -> dict[str, tuple[int, ...]]:
    """Return the name and the shape of each tensor of a network."""
    layers = list(pairwise(sizes))
    shapes: dict[str, tuple[int, ...]] = {f"weights.{layer}": shape for layer, shape in enumerate(layers)}
    shapes |= {f"biases.{layer}": shape[1:] for layer, shape in enumerate(layers)}
    if config.get("slopes"):
        shapes |= {f"slopes.{layer}": (width,) for layer, width in enumerate(sizes[1:-1])}
    if config.get("batch_norm"):
        kinds = ("scales", "means", "variances")
        shapes |= {f"{kind}.{layer}": (width,) for kind in kinds for layer, width in enumerate(sizes[1:-1])}
    if config.get("embedding") is not None:
        with refusing("parameters", "an embedding"):
            n_numbers, n_categories = InputEmbedding.from_config(config["embedding"]).sizes
        shapes |= {"embedding.numbers": (n_numbers,), "embedding.categories": (n_categories,)}
    return {name: shape for name, shape in shapes.items() if 0 not in shape}  # a file holds no empty tensors
