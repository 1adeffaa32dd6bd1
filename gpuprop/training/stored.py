"""What a checkpoint's file holds of a training: the model under the names of a model file, and all else beside it."""

from __future__ import annotations

import functools
import platform
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.installed import versions
from gpuprop.core.parameters import Parameters
from gpuprop.core.scaling_layer import ScalingLayer
from gpuprop.model.spec_views import array_names
from gpuprop.training.packing import pack, unpack
from gpuprop.training.records import Progress, Within, even_columns
from gpuprop.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gpuprop.core.spec import Spec
    from gpuprop.model.network import Network

    Tensors = dict[str, NDArray[Any]]

__all__ = ["model_tensors", "packed_progress", "place_of", "progress_from"]

#: Tensors with this beginning are the training's, all others the model's.
STATE = "state."


def model_tensors(spec: Spec, flat: NDArray[Any]) -> Tensors:
    """Return parameters as the tensors of a model file."""
    named = zip(array_names(spec), Parameters(flat, spec.layout).arrays, strict=True)
    return {name: own for name, own in named if own.size}


def packed_progress(progress: Progress, tensors: Tensors, *, model_is_trained: bool) -> dict[str, Any]:
    """Return a progress as JSON values, and put its arrays into `tensors`.

    Parameters
    ----------
    progress : Progress
    tensors : dict
    model_is_trained : bool
        Whether the model in the file has the progress's own parameters, which then are not kept twice.
    """
    layer, within = progress.scaling_layer, progress.within
    fields = dict(vars(progress))
    fields["parameters"] = None if model_is_trained else progress.parameters
    fields["scaling_layer"] = None if layer is None else dict(layer.arrays())
    fields["within"] = None if within is None else dict(vars(within))
    packed: dict[str, Any] = pack(fields, tensors, STATE + "progress")
    return packed


def progress_from(packed: Mapping[str, Any], tensors: Tensors, config: Mapping[str, Any]) -> Progress:
    """Return the progress that `packed_progress` has packed; the caller refuses what goes wrong here."""
    fields = unpack(packed, tensors)
    fields["history"] = {str(name): list(column) for name, column in fields["history"].items()}
    fields["data"] = {str(name): str(digest) for name, digest in fields["data"].items()}
    fields["callbacks"] = [(str(name), dict(state)) for name, state in fields["callbacks"]]
    if fields["learning_rates"] is not None:
        first, now = fields["learning_rates"]
        fields["learning_rates"] = (float(first), float(now))
    if fields["parameters"] is None:
        fields["parameters"] = _flat(tensors)
    arrays = fields["scaling_layer"]
    if arrays is not None:
        fields["scaling_layer"] = ScalingLayer.of(arrays)
    if fields["within"] is not None:
        fields["within"] = Within(**fields["within"])
    even_columns(fields["history"], fields["history"])
    return Progress(**fields)


def _flat(tensors: Tensors) -> NDArray[Any]:
    """Return all parameters of the model in a file, in the order of ``Network.host_parameters``."""
    kinds = ("weights", "biases", "slopes", "scales", "means", "variances", "embedding")

    def place(name: str) -> tuple[int, int, str]:
        kind, _, which = name.partition(".")
        return kinds.index(kind), int(which) if which.isdigit() else 0, "" if which == "numbers" else which

    names = sorted((name for name in tensors if not name.startswith(STATE)), key=place)
    return np.concatenate([tensors[name].reshape(-1) for name in names])


def place_of(network: Network, plan: str | None, threads: int | None) -> dict[str, Any]:
    """Return where a training computes: device, path, threads and versions, on which the bits depend."""
    return {
        "device": network.device_,
        "plan": plan,
        "threads": threads,
        "processor": platform.machine(),
        "versions": _versions(),
    }


@functools.cache
def _versions() -> dict[str, str]:
    return {"gpuprop": __version__, **versions("numpy", "numba")}
