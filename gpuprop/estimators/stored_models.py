"""Model files: one model in one safetensors file, equal bytes for equal runs, nothing in it ever executed.

A file is, in this order, the length of the header (8 bytes, little-endian), the header (JSON: the type, shape
and place of every tensor), and the bytes of the tensors. The header's only metadata key, ``gpuprop``, holds
sorted JSON::

    format_version   FORMAT_VERSION of the gpuprop that wrote the file
    kind             "network", "classifier", "regressor" or "ensemble"
    parameters       the keyword arguments of gpuprop.Network, with classes and input scaling
    estimator        of a classifier or regressor: its parameters, labels and records, see estimators.files
    members          of an ensemble, instead of those two: kind, parameters and estimator of each
    ensemble         of an ensemble: its own parameters
    sha256           of all the other metadata and all tensors, see _digest

The tensors of a network are ``weights.0, biases.0, weights.1, ...``, of an ensemble ``member.0.weights.0, ...``.
There is no time and no path in a file.

Reading trusts nothing. The 8 bytes and the header are held against the size of the file before anything of
that size is allocated; only then does safetensors take the tensors. Every flaw is a ModelFileError, in one line.
Format: https://github.com/huggingface/safetensors (the README's section "Format").
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from gpuprop.errors import ModelFileError

if TYPE_CHECKING:
    from gpuprop.estimators.base import BaseMLP
    from gpuprop.estimators.ensemble import MLPEnsemble
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

FORMAT_VERSION = 1
"""The format that this version of gpuprop writes, and the newest that it reads."""

MODEL_FILE_NAME = "model.safetensors"
"""The model's name within the folder of a run."""

MAX_HEADER_BYTES = 8 * 2**20
"""Longest header: names and scaling of 100,000 input columns fit, and no JSON of that length fills a memory."""

_MAX_DIMENSIONS = 8
_METADATA_KEY = "gpuprop"
_RESERVED_KEYS = ("format_version", "sha256")  # of the metadata

# safetensors' names of the types that NumPy has too.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}


class _RefusedError(Exception):
    """What is wrong with a file; `_naming` puts the file's name in front."""


# --- networks ----------------------------------------------------------------------------------------------


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
        Its ``get_config()``, ``weights`` and ``biases`` are what is written.
    path : str or path
        The file, or an existing folder, which gets a ``model.safetensors``. A file that is there is replaced,
        and stays as it was if anything fails.
    kind : {"network", "classifier", "regressor"}, default="network"
    estimator : mapping of JSON values or None, default=None
        What `gpuprop.estimators.described` says of the estimator around the network.

    Raises
    ------
    ModelFileError
        If the file cannot be written.
    """
    metadata: dict[str, Any] = {"kind": kind, "parameters": network.get_config()}
    if estimator is not None:
        metadata["estimator"] = estimator
    tensors = {name: network.ops.to_numpy(tensor) for name, tensor in _tensors_of(network).items()}
    write_file(_model_file(path), tensors, metadata)


def save_ensemble(
    members: Sequence[BaseMLP],
    path: str | os.PathLike[str],
    *,
    kind: str,
    estimators: Sequence[Mapping[str, Any]],
    ensemble: Mapping[str, Any],
) -> None:
    """Write estimators of one kind to one model file; arguments and errors are else those of `save_network`.

    Parameters
    ----------
    members : sequence of estimators
    path : str or path
    kind : {"classifier", "regressor"}
    estimators : sequence of mappings
        What `gpuprop.estimators.described` says of each.
    ensemble : mapping of JSON values
        What it says of the ensemble itself.
    """
    tensors, described = {}, []
    for i, (member, estimator) in enumerate(zip(members, estimators, strict=True)):
        network = member.network_
        described.append({"kind": kind, "parameters": network.get_config(), "estimator": estimator})
        for name, tensor in _tensors_of(network).items():
            tensors[f"member.{i}.{name}"] = network.ops.to_numpy(tensor)
    write_file(_model_file(path), tensors, {"kind": "ensemble", "members": described, "ensemble": ensemble})


def load(
    path: str | os.PathLike[str], device: str = "auto", *, activations: Iterable[Activation] = ()
) -> Network | BaseMLP | MLPEnsemble:
    """Read a model that ``save`` of a network, estimator or ensemble wrote; ``gpuprop.load`` is this function.

    Parameters
    ----------
    path : str or path
        The file, or the folder of a run, which holds a ``model.safetensors``.
    device : str, default="auto"
        Where the network shall live, see `gpuprop.backends`; a file says nothing about devices.
    activations : iterable of Activation, default=()
        The activations of your own that the network uses: a file holds their names, never their code.

    Returns
    -------
    Network, MLPClassifier, MLPRegressor or MLPEnsemble
        With the same parameters, bit for bit.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, of a newer format, no model, or names an activation that is
        neither gpuprop's nor in `activations`.
    ValueError, BackendUnavailableError
        If `device` is unknown or cannot be used here.
    """
    activations = tuple(activations)
    file, tensors, metadata = _read_model(path, device)
    with _naming(file, "read"):
        if metadata.get("kind") != "ensemble":
            return _model(tensors, metadata, device, activations)
        from gpuprop.estimators.described import restore_ensemble

        members = [_model(*member, device, activations) for member in _members(tensors, metadata)]
        own = {activation.name: activation for activation in activations}
        with _refusing("metadata", "an ensemble"):
            return restore_ensemble(members, metadata["ensemble"], own)


def load_network(
    path: str | os.PathLike[str], device: str = "auto", *, activations: Iterable[Activation] = ()
) -> Network:
    """Read the network of a model file of any kind but an ensemble's; arguments and errors are those of `load`."""
    file, tensors, metadata = _read_model(path, device)
    with _naming(file, "read"):
        return _network(tensors, metadata, device, activations)


def _read_model(path: str | os.PathLike[str], device: str) -> tuple[Path, dict[str, Array], dict[str, Any]]:
    from gpuprop.backends import choose

    choose(device)  # a wrong device is no flaw of the file: say so before the file is touched
    file = _model_file(path)
    return file, *read_file(file)


def _model(
    tensors: dict[str, Array], metadata: dict[str, Any], device: str, activations: Iterable[Activation]
) -> Network | BaseMLP:
    """Return what one network's tensors and metadata describe: the network, or the estimator around it."""
    network, kind = _network(tensors, metadata, device, activations), metadata["kind"]
    if kind == "network":
        return network
    from gpuprop.estimators.described import restore

    with _refusing("metadata", f"a {kind}"):
        return restore(kind, network, metadata["estimator"], {own.name: own for own in activations})


def _network(
    tensors: dict[str, Array], metadata: dict[str, Any], device: str, activations: Iterable[Activation]
) -> Network:
    from gpuprop.model.network import Network

    # A file holds no device, and no initialisation: its parameters are there.
    config = _network_config(metadata, known=set(inspect.signature(Network).parameters) - {"device", "init"})
    _check_network_tensors(tensors, config)
    _insert_activations(config, activations)
    with _refusing("parameters", "a network"):
        network = Network(**config, device=device, init="zeros")
    for name, own in _tensors_of(network).items():
        own[...] = network.ops.asarray(tensors[name], network.dtype)
    return network


@contextmanager
def _refusing(given: str, what: str) -> Iterator[None]:
    """Refuse parameters or metadata that networks, estimators and ensembles cannot be made of."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        _refuse(f"its {given} do not make {what}: {_one_line(error)}")


def _members(tensors: dict[str, Array], metadata: dict[str, Any]) -> list[tuple[dict[str, Array], dict[str, Any]]]:
    """Return tensors and metadata of each member of an ensemble's file."""
    described = metadata.get("members")
    if not (isinstance(described, list) and described and all(isinstance(member, dict) for member in described)):
        _refuse(f"got members {_shown(described)}, expected a list of JSON objects")
    own: list[dict[str, Array]] = [{} for _ in described]
    for name, tensor in tensors.items():
        found = re.fullmatch(r"member\.([0-9]{1,9})\.(.+)", name)
        if found is None or int(found[1]) >= len(own):
            _refuse(f"got a tensor {_shown(name)}, expected those of {len(own)} members")
        own[int(found[1])][found[2]] = tensor
    return list(zip(own, described, strict=True))


def _model_file(path: str | os.PathLike[str]) -> Path:
    """Return `path`, or the model file within it when it is a folder."""
    path = Path(path)
    with _naming(path, "found"):
        return path / MODEL_FILE_NAME if path.is_dir() else path


def _tensors_of(network: Network) -> dict[str, Any]:
    """Return weights and biases, views on the network's device, by their names in a file."""
    tensors = {}
    for layer, (weights, biases) in enumerate(zip(network.weights, network.biases, strict=True)):
        tensors[f"weights.{layer}"] = weights
        tensors[f"biases.{layer}"] = biases
    return tensors


def _network_config(metadata: dict[str, Any], known: set[str]) -> dict[str, Any]:
    """Return the keyword arguments of Network, after checking that they are that."""
    kind, config = metadata.get("kind"), metadata.get("parameters")
    if kind not in ("network", "classifier", "regressor"):
        _refuse(f"got a file of kind {_shown(kind)}, expected 'network', 'classifier' or 'regressor'")
    if not isinstance(config, dict):
        _refuse(f"got parameters {_shown(config)}, expected a JSON object")
    unknown = sorted(set(config) - known)
    if unknown:
        _refuse(
            f"unknown parameter {_shown(unknown[0])} (format version {FORMAT_VERSION}); "
            "upgrade gpuprop if a later version wrote the file"
        )
    return config


def _check_network_tensors(tensors: dict[str, Array], config: dict[str, Any]) -> None:
    """Hold tensors against ``layer_sizes`` and ``dtype``: the network will take no more memory than they do."""
    sizes, dtype = config.get("layer_sizes"), config.get("dtype")
    if not (isinstance(sizes, list) and len(sizes) >= 2 and all(type(n) is int and n > 0 for n in sizes)):
        _refuse(f"got layer_sizes {_shown(sizes)}, expected a list of two or more positive integers")
    if dtype not in ("float32", "float64"):
        _refuse(f"got dtype {_shown(dtype)}, expected 'float32' or 'float64'")
    if len(tensors) != 2 * (len(sizes) - 1):
        _refuse(f"got {len(tensors)} tensors, expected weights and biases for layer_sizes {_shown(sizes)}")
    for layer, shape in enumerate(pairwise(sizes)):
        for name, expected in ((f"weights.{layer}", shape), (f"biases.{layer}", shape[1:])):
            got = tensors.get(name)
            if got is None:
                _refuse(f"tensor {name!r} is missing for layer_sizes {_shown(sizes)}")
            if got.shape != expected or got.dtype != dtype:
                _refuse(f"tensor {name!r}: got {got.dtype} {got.shape}, expected {dtype} {_shown(expected)}")


def _insert_activations(config: dict[str, Any], activations: Iterable[Activation]) -> None:
    """Replace the names of the user's own activations in `config` by the objects."""
    from gpuprop.maths.activations import get_activation

    own = {activation.name: activation for activation in activations}

    def resolve(name: object) -> object:
        if name is None or not isinstance(name, str):
            return name  # something that Network refuses
        if name not in own:
            with suppress(ValueError):
                return get_activation(name, output=True)  # gpuprop's own, "leaky_relu(0.2)" too
            _refuse(
                f"the network uses an activation {_shown(name)} that is not gpuprop's own; "
                "pass the object: gpuprop.load(path, activations=(...,))"
            )
        return own[name]

    for key in ("hidden_activation", "output_activation"):
        value = config.get(key)
        if isinstance(value, list):
            config[key] = [resolve(name) for name in value]
        elif key in config:
            config[key] = resolve(value)


# --- any file of this format -------------------------------------------------------------------------------


def write_file(path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata, completely or not at all; equal arguments give equal bytes.

    The bytes go to a file of another name in the same folder, are flushed to the disk, and take the place of
    `path` by one rename. A link is followed.

    Parameters
    ----------
    path : str or path
        The file; its folder must exist.
    tensors : mapping of str to array
        Non-empty arrays of at most 8 dimensions: floats of 16 to 64 bits, integers or bool.
    metadata : mapping of str to JSON values
        Everything else, without NaN and infinity. ``format_version`` and ``sha256`` are added here.

    Raises
    ------
    ValueError
        If tensors or metadata cannot be stored.
    ModelFileError
        If the file cannot be written.
    """
    content = _encode(tensors, metadata)
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".gpuprop-{secrets.token_hex(8)}.tmp")
    with _naming(path, "written"):
        if target.is_dir():
            _refuse("cannot be written: it is a folder; name a file")
        try:
            # Opened with "x" rather than by tempfile, whose files nobody else may read.
            with beside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _flush_folder(target.parent)


def read_file(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read what `write_file` wrote.

    Parameters
    ----------
    path : str or path
        The file.

    Returns
    -------
    tensors : dict of str to array
        Arrays of their own, writable.
    metadata : dict
        As it was given to `write_file`; tuples come back as lists.

    Raises
    ------
    ModelFileError
        If the file cannot be read, is not of this format, is of a newer version of it, or is damaged.
    """
    with _naming(path, "read"):
        # Looked at before it is opened: opening a named pipe waits for a writer, and a device has no end.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            _refuse("got a folder or a special file, expected a model file")
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            metadata = _read_header(file, size)
            file.seek(0)
            content = file.read(size)
        recorded = metadata.pop("sha256", None)
        tensors = _decode(content)
        if recorded != _digest(tensors, metadata):
            _refuse("the SHA-256 does not match the content: the file is damaged; copy it again or train anew")
        del metadata["format_version"]
    return tensors, metadata


def _encode(tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save

    taken = [key for key in _RESERVED_KEYS if key in metadata]
    if taken:
        raise ValueError(f"got the metadata key {taken[0]!r}, which the format itself sets; use another")
    arrays = {name: _storable(name, tensors[name]) for name in sorted(tensors)}
    try:
        # Through JSON and back: the digest must be that of what a reader will see, e.g. lists for tuples.
        described: dict[str, Any] = _parse_json(_to_json({**metadata, "format_version": FORMAT_VERSION}), "it")
    except (TypeError, ValueError, RecursionError, _RefusedError) as error:
        raise ValueError(f"metadata of a model file must be plain JSON without NaN and infinity: {error}") from error
    described["sha256"] = _digest(arrays, described)
    # One metadata key, because safetensors writes several in no fixed order; it sorts tensors by type and name.
    content = bytes(save(arrays, metadata={_METADATA_KEY: _to_json(described)}))
    header_bytes = int.from_bytes(content[:8], "little")
    if header_bytes > MAX_HEADER_BYTES:
        raise ValueError(f"got {header_bytes} bytes of metadata, expected at most {MAX_HEADER_BYTES}; shorten it")
    return content


def _storable(name: str, tensor: Array) -> Array:
    """Return `tensor` C-contiguous and little-endian, as safetensors takes it."""
    if not name or name == "__metadata__":
        raise ValueError(f"got the tensor name {name!r}, which safetensors does not allow; use another")
    if tensor.dtype.name not in _DTYPES.values():
        raise ValueError(f"tensor {name!r}: got dtype {tensor.dtype}, expected one of {', '.join(_DTYPES.values())}")
    if tensor.size == 0 or tensor.ndim > _MAX_DIMENSIONS:
        raise ValueError(
            f"tensor {name!r}: got shape {tensor.shape}, expected at least one element and at most "
            f"{_MAX_DIMENSIONS} dimensions"
        )
    return np.asarray(tensor, dtype=tensor.dtype.newbyteorder("<"), order="C")


def _digest(tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal digits, of all that a file says.

    Of the metadata without ``sha256``, as sorted JSON, then for each tensor by name: ``[name, dtype, shape]`` as
    JSON and its bytes. Names and metadata are in it because a changed one would otherwise go unnoticed.
    """
    digest = hashlib.sha256(_to_json(metadata).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(_to_json([name, tensor.dtype.name, list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _to_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _flush_folder(folder: Path) -> None:
    """Make the rename last through a power cut, where the system can."""
    with suppress(OSError):  # Windows cannot open a folder, some network file systems cannot flush one
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# --- reading what may be hostile ---------------------------------------------------------------------------


def _read_header(file: BinaryIO, size: int) -> dict[str, Any]:
    """Read and check length, metadata and tensor table of a file of `size` bytes; return the metadata."""
    if size < 8:
        _refuse(f"got {size} bytes, expected a model file: truncated, or something else")
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        _refuse(f"got {size} bytes, expected a header of {length} bytes: truncated, or not a model file")
    if length > MAX_HEADER_BYTES:
        _refuse(f"got a header of {length} bytes, expected at most {MAX_HEADER_BYTES}")
    header = _parse_json(_as_text(file.read(length)), "the header")
    metadata = _checked_metadata(header.pop("__metadata__", None))
    data_bytes = size - 8 - length
    position = 0
    for begin, end, name in sorted((*_checked_span(name, entry, data_bytes), name) for name, entry in header.items()):
        if begin != position:
            _refuse(f"tensor {_shown(name)}: got offset {begin}, expected {position}: gap or overlap")
        position = end
    if position != data_bytes:
        _refuse(f"got {size} bytes, expected {8 + length + position}: truncated or overlong")
    return metadata


def _checked_metadata(own: object) -> dict[str, Any]:
    """Return gpuprop's metadata out of the header's ``__metadata__``."""
    if not (isinstance(own, dict) and set(own) == {_METADATA_KEY} and isinstance(own[_METADATA_KEY], str)):
        _refuse(f"its metadata is not the single key {_METADATA_KEY!r}: not a model file of gpuprop")
    text = own[_METADATA_KEY]
    metadata = _parse_json(text, "the metadata")
    version = metadata.get("format_version")
    if type(version) is not int or version < 1:
        _refuse(f"got format_version {_shown(version)}, expected an integer from 1 to {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        _refuse(f"got format version {_shown(version)}, expected at most {FORMAT_VERSION}; upgrade gpuprop")
    if text != _to_json(metadata):
        _refuse("the metadata is not sorted JSON as gpuprop writes it: the file is damaged, or not gpuprop's")
    return metadata


def _checked_span(name: str, entry: object, data_bytes: int) -> tuple[int, int]:
    """Return where a tensor begins and ends in the `data_bytes` bytes behind the header; check type and shape."""
    where = f"tensor {_shown(name)}"
    if not (isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"}):
        _refuse(f"{where}: got {_shown(entry)}, expected dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        _refuse(f"{where}: got dtype {_shown(dtype)}, expected one of {', '.join(_DTYPES)}")
    # No dimension of a non-empty tensor is larger than its bytes, so the products below stay small numbers.
    if not (_are_integers(shape, 1, data_bytes) and len(shape) <= _MAX_DIMENSIONS):
        _refuse(f"{where}: got shape {_shown(shape)}, expected up to {_MAX_DIMENSIONS} sizes that fit the file")
    if not (_are_integers(offsets, 0, data_bytes) and len(offsets) == 2):
        _refuse(f"{where}: got data_offsets {_shown(offsets)}, expected two integers from 0 to {data_bytes}")
    begin, end = offsets
    expected = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if end - begin != expected:
        _refuse(f"{where}: got {end - begin} bytes, expected {expected} for {dtype} {_shown(shape)}")
    return begin, end


def _are_integers(values: object, low: int, high: int) -> bool:
    return isinstance(values, list) and all(type(n) is int and low <= n <= high for n in values)


def _decode(content: bytes) -> dict[str, Array]:
    """Let safetensors take the tensors out of bytes whose header has been checked."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        loaded = load(content)
    except SafetensorError as error:
        _refuse(f"safetensors refuses it: {_one_line(error)}")
    # Whether the arrays are writable depends on the version of safetensors.
    return {name: np.require(tensor, requirements=["C", "W"]) for name, tensor in loaded.items()}


def _as_text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        _refuse(f"the header is not UTF-8 text at byte {8 + error.start}: damaged, or not a model file")


def _parse_json(text: str, what: str) -> dict[str, Any]:
    """Parse a JSON object strictly: no duplicate keys, no NaN, no infinity, not even as 1e999."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            _refuse(f"{what} has a duplicate key")
        return result

    def finite(literal: str) -> float:
        value = float(literal)
        if not math.isfinite(value):
            _refuse(f"{what} holds {_shown(literal)}, expected finite numbers")
        return value

    try:
        parsed = json.loads(text, object_pairs_hook=unique, parse_constant=finite, parse_float=finite)
    except ValueError as error:  # not JSON, or an integer of more digits than Python converts
        _refuse(f"{what} is not valid JSON: {_one_line(error)}")
    if not isinstance(parsed, dict):
        _refuse(f"{what} is {_shown(parsed)}, expected a JSON object")
    return parsed


def _refuse(flaw: str) -> NoReturn:
    raise _RefusedError(flaw)


@contextmanager
def _naming(path: str | os.PathLike[str], done: str) -> Iterator[None]:
    """Turn whatever is wrong with the file `path` into a ModelFileError that names it."""
    try:
        yield
    except _RefusedError as flaw:
        raise ModelFileError(f"{_one_line(path)}: {flaw}") from None
    except OSError as error:
        reason = error.strerror or _one_line(error)
        raise ModelFileError(f"{_one_line(path)}: cannot be {done}: {reason}") from error
    except RecursionError:
        raise ModelFileError(f"{_one_line(path)}: its JSON is nested too deeply") from None
    except MemoryError as error:
        raise ModelFileError(f"{_one_line(path)}: cannot be {done}: not enough memory for it") from error


def _shown(value: object) -> str:
    """Return a short printable form of something out of a file."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_line(value: object) -> str:
    return " ".join(str(value).splitlines())[:1000]
