"""Models in files: `load` reads a network, an estimator or an ensemble; the functions that write them are here too.

`gpuprop.model.container` documents the format, `gpuprop.model.network_file` what a file says of a network, and
`gpuprop.estimators.described` what it says of an estimator. Networks are read without importing scikit-learn.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from gpuprop.model.container import FORMAT_VERSION, MODEL_FILE_NAME, read_file, write_file
from gpuprop.model.forms import TEXT, Fields, Items, Named
from gpuprop.model.refusals import naming, refuse, refusing, shown
from gpuprop.model.stored_network import load_network, network_from, read_model, save_network, save_networks

if TYPE_CHECKING:
    from gpuprop.estimators.base import BaseMLP
    from gpuprop.estimators.ensemble import MLPEnsemble
    from gpuprop.estimators.tabular import TabularClassifier, TabularRegressor
    from gpuprop.maths.activations import Activation
    from gpuprop.model.network import Network

__all__ = [
    "FORMAT_VERSION",
    "MODEL_FILE_NAME",
    "load",
    "load_network",
    "read_file",
    "save_ensemble",
    "save_network",
    "write_file",
]

Array = NDArray[Any]


def load(
    path: str | os.PathLike[str], device: str = "auto", *, activations: Iterable[Activation] = ()
) -> Network | BaseMLP | MLPEnsemble | TabularClassifier | TabularRegressor:
    """Read a model that ``save`` of a network, estimator or ensemble wrote; ``gpuprop.load`` is this function.

    Parameters
    ----------
    path : str or path
        The file, or the folder of a run, which contains a ``model.safetensors``.
    device : str, default="auto"
        The device that will hold the network, see `gpuprop.backends`; a file says nothing about devices.
    activations : iterable of Activation, default=()
        The activations of your own that the network uses: a file contains their names, never their code.

    Returns
    -------
    Network, MLPClassifier, MLPRegressor, MLPEnsemble, TabularClassifier or TabularRegressor
        With the same parameters, bit for bit.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, of a newer format, no model, or names an activation that is
        neither gpuprop's nor in `activations`.
    ValueError, BackendUnavailableError
        If `device` is unknown or cannot be used here.

    Examples
    --------
    >>> import gpuprop
    >>> gpuprop.Network((2, 4, 1), seed=0).save("model.safetensors")
    >>> gpuprop.load("model.safetensors").layer_sizes
    (2, 4, 1)
    """
    activations = tuple(activations)
    file, tensors, metadata = read_model(path, device)
    with naming(file, "read"):
        kind = metadata.get("kind")
        own = {activation.name: activation for activation in activations}
        if kind == "ensemble":
            from gpuprop.estimators.restored import restore_ensemble

            members = [_model(*member, device, activations) for member in _members(tensors, metadata)]
            with refusing("metadata", "an ensemble"):
                return restore_ensemble(members, metadata["ensemble"], own)
        if kind in ("tabular-classifier", "tabular-regressor"):
            from gpuprop.estimators.tabular_restored import restore_tabular

            networks = [network_from(*member, device, activations) for member in _members(tensors, metadata)]
            with refusing("metadata", f"a {kind}"):
                return restore_tabular(kind, networks, metadata["ensemble"], own)
        return _model(tensors, metadata, device, activations)


def save_ensemble(
    members: Sequence[BaseMLP],
    path: str | os.PathLike[str],
    *,
    kind: str,
    estimators: Sequence[Mapping[str, Any]],
    ensemble: Mapping[str, Any],
) -> None:
    """Write fitted estimators of one kind to one model file; see `gpuprop.model.stored_network.save_networks`."""
    networks = [member.network_ for member in members]
    save_networks(networks, path, kind=kind, estimators=estimators, ensemble=ensemble)


def _model(
    tensors: dict[str, Array], metadata: dict[str, Any], device: str, activations: Iterable[Activation]
) -> Network | BaseMLP:
    """Return the network that tensors and metadata describe, or the estimator around it."""
    network, kind = network_from(tensors, metadata, device, activations), metadata["kind"]
    if kind == "network":
        return network
    from gpuprop.estimators.restored import restore

    with refusing("metadata", f"a {kind}"):
        return restore(kind, network, metadata["estimator"], {own.name: own for own in activations})


def _members(tensors: dict[str, Array], metadata: dict[str, Any]) -> list[tuple[dict[str, Array], dict[str, Any]]]:
    """Return tensors and metadata of each member of an ensemble's file."""
    Fields({"kind": TEXT, "members": Items(Named(), 1), "ensemble": Named()}).check(metadata, "metadata")
    described = metadata["members"]
    own: list[dict[str, Array]] = [{} for _ in described]
    for name, tensor in tensors.items():
        found = re.fullmatch(r"member\.([0-9]{1,9})\.(.+)", name)
        if found is None or int(found[1]) >= len(own):
            refuse(f"got a tensor {shown(name)}, expected those of {len(own)} members")
        own[int(found[1])][found[2]] = tensor
    return list(zip(own, described, strict=True))
