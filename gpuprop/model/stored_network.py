"""Networks in model files: writing one, and reading the network of a file of any kind but an ensemble's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gpuprop.backends import choose
from gpuprop.maths.activations import Activation, get_activation
from gpuprop.model.container import model_to_read, read_file
from gpuprop.model.network import Network
from gpuprop.model.network_file import (
    NetworkContent,
    check_tensors,
    network_config,
    write_ensemble,
    write_network,
)
from gpuprop.model.refusals import naming, refuse, refusing, shown
from gpuprop.model.spec_views import array_names

__all__ = ["load_network", "network_from", "read_model", "save_network", "save_networks"]

Array = NDArray[Any]


def save_network(
    network: Network,
    path: str | os.PathLike[str],
    *,
    kind: str = "network",
    estimator: Mapping[str, Any] | None = None,
) -> None:
    """Write `network` to a model file.

    Parameters
    ----------
    network : Network
        The file gets its ``get_config()`` and ``named_arrays()``.
    path : str or path
        The file, or an existing folder, in which the file will be ``model.safetensors``. An existing file is replaced,
        and stays as it was if anything fails.
    kind : {"network", "classifier", "regressor"}, default="network"
    estimator : mapping of JSON values or None, default=None
        What `gpuprop.estimators.described` says of the estimator around the network.

    Raises
    ------
    ModelFileError
        If the file cannot be written.
    """
    write_network(_content(network, kind, estimator), path)


def save_networks(
    networks: Sequence[Network],
    path: str | os.PathLike[str],
    *,
    kind: str,
    estimators: Sequence[Mapping[str, Any]] | None = None,
    ensemble: Mapping[str, Any],
) -> None:
    """Write several networks to one model file; `path` and errors are those of `save_network`.

    Parameters
    ----------
    networks : sequence of Network
    path : str or path
    kind : str
        Of the members of an ensemble, if there are `estimators`; of the whole file otherwise.
    estimators : sequence of mappings, or None, default=None
        What `gpuprop.estimators.described` says of each member of an ensemble; None if the members are plain networks.
    ensemble : mapping of JSON values
        What it says of the whole.
    """
    if estimators is None:
        members = [_content(network, "network", None) for network in networks]
        write_ensemble(members, path, ensemble=ensemble, kind=kind)
        return
    pairs = zip(networks, estimators, strict=True)
    write_ensemble([_content(network, kind, own) for network, own in pairs], path, ensemble=ensemble)


def _content(network: Network, kind: str, estimator: Mapping[str, Any] | None) -> NetworkContent:
    return NetworkContent(network.get_config(), network.named_arrays(), kind, estimator)


def load_network(
    path: str | os.PathLike[str], device: str = "auto", *, activations: Iterable[Activation] = ()
) -> Network:
    """Read the network of a model file of any kind but an ensemble's; arguments and errors as of `gpuprop.load`."""
    file, tensors, metadata = read_model(path, device)
    with naming(file, "read"):
        return network_from(tensors, metadata, device, activations)


def read_model(path: str | os.PathLike[str], device: str) -> tuple[Path, dict[str, Array], dict[str, Any]]:
    """Return the name of a model file, its tensors and its metadata, see `gpuprop.model.container.read_file`."""
    choose(device)  # a wrong device is no fault of the file, so it raises before the file is read
    file = model_to_read(path)
    tensors, metadata = read_file(file)
    if metadata.get("kind") == "checkpoint":  # of a training, whose own tensors are no part of the model
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("state.")}
        metadata = {**metadata, "kind": "network"}
    return file, tensors, metadata


def network_from(
    tensors: Mapping[str, Array], metadata: Mapping[str, Any], device: str, activations: Iterable[Activation]
) -> Network:
    """Return the network that a file's tensors and metadata describe.

    Raises
    ------
    RefusedError
        If they do not describe a network; the caller runs within `gpuprop.model.refusals.naming`.
    """
    config = network_config(metadata)
    check_tensors(tensors, config)
    _insert_activations(config, activations)
    with refusing("parameters", "a network"):
        network = Network(**config, device=device, emulate=True, init="zeros")
    for name, own in zip(array_names(network.spec), network.layers.parameters.arrays, strict=True):
        if own.size:
            own[...] = network.ops.asarray(tensors[name], network.dtype)
    return network


def _insert_activations(config: dict[str, Any], activations: Iterable[Activation]) -> None:
    """Replace the names of activations in `config` with objects: gpuprop's, or the user's own."""
    own = {activation.name: activation for activation in activations}

    def resolve(name: object) -> object:
        if not isinstance(name, str):
            return name  # None, or something that Network refuses
        if name not in own:
            with suppress(ValueError):
                return get_activation(name, output=True)  # it also knows names such as "leaky_relu(0.2)"
            refuse(
                f"the network uses an activation {shown(name)} that is not gpuprop's own; "
                "pass the object: gpuprop.load(path, activations=(...,))"
            )
        return own[name]

    for key in ("hidden_activation", "output_activation"):
        value = config.get(key)
        if isinstance(value, list):
            config[key] = [resolve(name) for name in value]
        elif key in config:
            config[key] = resolve(value)
