"""The container of a model file: tensors and JSON metadata in one safetensors file; equal contents give equal bytes.

A file is, in this order, the length of the header (8 bytes, little-endian), the header (JSON: the type, shape and place
of every tensor), and the bytes of the tensors. The header's only metadata key, ``gpuprop``, holds sorted JSON: whatever
the writer gave, ``format_version``, and ``sha256`` of all the other metadata and all tensors, see `_digest`. A file
contains no time and no path.

The reader trusts nothing, and executes nothing. It compares the 8 bytes and the header with the size of the file before
it allocates anything of that size; only then does safetensors read the tensors. Every fault is a ModelFileError, in one
line. Format: https://github.com/huggingface/safetensors (the README's section "Format").

This module knows no network: `gpuprop.model.network_file` says what the metadata and tensors of a network are.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpuprop.errors import ModelFileError
from gpuprop.model.refusals import naming, one_line, refuse, shown

__all__ = [
    "CHECKPOINTS",
    "CHECKPOINT_PATTERN",
    "DTYPES",
    "FORMAT_VERSION",
    "MAX_HEADER_BYTES",
    "MODEL_FILE_NAME",
    "flush_folder",
    "header_bytes",
    "is_unfinished",
    "model_file",
    "model_to_read",
    "read_file",
    "replace_flushed",
    "write_file",
]

Array = NDArray[Any]

FORMAT_VERSION = 1
"""The format that this version of gpuprop writes, and the newest that it reads."""

MODEL_FILE_NAME = "model.safetensors"
"""The model's name within the folder of a run."""

CHECKPOINTS, CHECKPOINT_PATTERN = ".checkpoints", "checkpoint-*.safetensors"
"""The folder for checkpoints within the folder of a run, and the names of these."""

MAX_HEADER_BYTES = 8 * 2**20
"""The longest header. Names and scaling of 100,000 input columns fit, and parsing that much JSON fills no memory."""

_MAX_DIMENSIONS = 8
_METADATA_KEY = "gpuprop"
_RESERVED_KEYS = ("format_version", "sha256")  # of the metadata

DTYPES = {
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
"""safetensors' names of the types that NumPy has too."""


def write_file(path: str | os.PathLike[str], tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata, completely or not at all; equal arguments give equal bytes.

    The function writes a file of another name in the same folder, flushes it to the disk, and renames it to `path`. It
    follows a link.

    Parameters
    ----------
    path : str or path
        The file; its folder must exist.
    tensors : mapping of str to array
        Non-empty arrays of at most 8 dimensions: floats of 16 to 64 bits, integers or bool.
    metadata : mapping of str to JSON values
        Everything else, without NaN and infinity. The function adds ``format_version`` and ``sha256``.

    Raises
    ------
    ValueError
        If tensors or metadata cannot be stored.
    ModelFileError
        If the file cannot be written.
    """
    content = _encode(tensors, metadata)
    target = Path(os.path.realpath(path))
    with naming(path, "written"):
        if target.is_dir():
            refuse("cannot be written: it is a folder; name a file")
        replace_flushed(target, content)


def replace_flushed(target: Path, content: bytes) -> None:
    """Write a file beside `target`, flush it to the disk, and rename it to `target`; flush the folder.

    Raises
    ------
    OSError
        If that fails; `target` then is as it was.
    """
    beside = target.with_name(f".gpuprop-{secrets.token_hex(8)}.tmp")
    try:
        # open("x") gives the usual permissions; only the owner could read a file that tempfile makes.
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    flush_folder(target.parent)


def header_bytes(metadata: Mapping[str, Any]) -> int:
    """Return how many bytes of a header these metadata take, of which there may be `MAX_HEADER_BYTES` in all."""
    return len(json.dumps(_to_json(metadata)))


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
    with naming(path, "read"):
        # Look before opening: opening a named pipe would wait for a writer, and a device has no end.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            refuse("got a folder or a special file, expected a model file")
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            metadata = _read_header(file, size)
            file.seek(0)
            content = file.read(size)
        recorded = metadata.pop("sha256", None)
        tensors = _decode(content)
        if recorded != _digest(tensors, metadata):
            refuse(
                "the SHA-256 does not match the content: the file is damaged; copy it again, or train the model again"
            )
        del metadata["format_version"]
    return tensors, metadata


def _encode(tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> bytes:
    from safetensors.numpy import save

    taken = [key for key in _RESERVED_KEYS if key in metadata]
    if taken:
        raise ValueError(f"got the metadata key {taken[0]!r}, which the format itself sets; use another")
    arrays = {name: _storable(name, tensors[name]) for name in sorted(tensors)}
    try:
        # Through JSON and back, because a reader digests what it sees, e.g. lists instead of tuples.
        described: dict[str, Any] = _parse_json(_to_json({**metadata, "format_version": FORMAT_VERSION}), "it")
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata of a model file must be plain JSON without NaN and infinity: {error}") from error
    described["sha256"] = _digest(arrays, described)
    # One metadata key, because safetensors writes several in no fixed order; it sorts tensors by type and name.
    content = bytes(save(arrays, metadata={_METADATA_KEY: _to_json(described)}))
    n_bytes = int.from_bytes(content[:8], "little")
    if n_bytes > MAX_HEADER_BYTES:
        raise ValueError(f"got {n_bytes} bytes of metadata, expected at most {MAX_HEADER_BYTES}; shorten it")
    return content


def _storable(name: str, tensor: Array) -> Array:
    """Return `tensor` C-contiguous and little-endian, as safetensors takes it."""
    if not name or name == "__metadata__":
        raise ValueError(f"got the tensor name {name!r}, which safetensors does not allow; use another")
    if tensor.dtype.name not in DTYPES.values():
        raise ValueError(f"tensor {name!r}: got dtype {tensor.dtype}, expected one of {', '.join(DTYPES.values())}")
    if tensor.size == 0 or tensor.ndim > _MAX_DIMENSIONS:
        raise ValueError(
            f"tensor {name!r}: got shape {tensor.shape}, expected at least one element and at most "
            f"{_MAX_DIMENSIONS} dimensions"
        )
    return np.asarray(tensor, dtype=tensor.dtype.newbyteorder("<"), order="C")


def _digest(tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything in a file, in hexadecimal digits.

    It covers the metadata without ``sha256`` as sorted JSON, then for each tensor, sorted by name, ``[name, dtype,
    shape]`` as JSON and the bytes. It covers names and metadata because a changed one would otherwise go unnoticed.
    """
    digest = hashlib.sha256(_to_json(metadata).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(_to_json([name, tensor.dtype.name, list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _to_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def flush_folder(folder: Path) -> None:
    """Flush the folder, so that the rename survives a power cut where the system supports it."""
    with suppress(OSError):  # Windows cannot open a folder, some network file systems cannot flush one
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def model_file(path: str | os.PathLike[str]) -> Path:
    """Return `path`, or the model file within it if it is a folder."""
    path = Path(path)
    with naming(path, "found"):
        return path / MODEL_FILE_NAME if path.is_dir() else path


def model_to_read(path: str | os.PathLike[str]) -> Path:
    """Return `path`, or the model within it if it is the folder of a run.

    Until a run has published its model, its last sound checkpoint has one: a file of its own beside it, or the
    checkpoint.
    """
    published = model_file(path)
    with naming(path, "found"):
        if published == Path(path) or published.exists():
            return published
        for pattern in (MODEL_FILE_NAME, CHECKPOINT_PATTERN):
            found = Path(path).glob(f"{CHECKPOINTS}/*/{pattern}")
            newest_first = sorted(found, key=lambda file: file.stat().st_mtime_ns, reverse=True)
            sound = next(filter(_is_sound, newest_first), None)
            if sound is not None or newest_first:
                return sound or newest_first[0]  # a damaged one, whose reader says what is wrong with it
    return published


def is_unfinished(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is the folder of a run that has not published its model, and has one of a checkpoint."""
    return model_to_read(path) != model_file(path)


def _is_sound(file: Path) -> bool:
    try:
        read_file(file)
    except ModelFileError:
        return False
    return True


# --- reading files that may be hostile ---------------------------------------------------------------------


def _read_header(file: BinaryIO, size: int) -> dict[str, Any]:
    """Read and check length, metadata and tensor table of a file of `size` bytes; return the metadata."""
    if size < 8:
        refuse(f"got {size} bytes, expected a model file: truncated, or something else")
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        refuse(f"got {size} bytes, expected a header of {length} bytes: truncated, or not a model file")
    if length > MAX_HEADER_BYTES:
        refuse(f"got a header of {length} bytes, expected at most {MAX_HEADER_BYTES}")
    header = _parse_json(_as_text(file.read(length)), "the header")
    metadata = _checked_metadata(header.pop("__metadata__", None))
    data_bytes = size - 8 - length
    position = 0
    for begin, end, name in sorted((*_checked_span(name, entry, data_bytes), name) for name, entry in header.items()):
        if begin != position:
            refuse(f"tensor {shown(name)}: got offset {begin}, expected {position}: gap or overlap")
        position = end
    if position != data_bytes:
        refuse(f"got {size} bytes, expected {8 + length + position}: truncated or overlong")
    return metadata


def _checked_metadata(own: object) -> dict[str, Any]:
    """Return gpuprop's metadata out of the header's ``__metadata__``."""
    if not (isinstance(own, dict) and set(own) == {_METADATA_KEY} and isinstance(own[_METADATA_KEY], str)):
        refuse(f"its metadata is not the single key {_METADATA_KEY!r}: not a model file of gpuprop")
    text = own[_METADATA_KEY]
    metadata = _parse_json(text, "the metadata")
    version = metadata.get("format_version")
    if type(version) is not int or version < 1:
        refuse(f"got format_version {shown(version)}, expected an integer from 1 to {FORMAT_VERSION}")
    if version > FORMAT_VERSION:
        refuse(f"got format version {shown(version)}, expected at most {FORMAT_VERSION}; upgrade gpuprop")
    if text != _to_json(metadata):
        refuse("the metadata is not sorted JSON as gpuprop writes it: the file is damaged, or not gpuprop's")
    return metadata


def _checked_span(name: str, entry: object, data_bytes: int) -> tuple[int, int]:
    """Return where a tensor begins and ends in the `data_bytes` bytes behind the header; check type and shape."""
    where = f"tensor {shown(name)}"
    if not (isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"}):
        refuse(f"{where}: got {shown(entry)}, expected dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        refuse(f"{where}: got dtype {shown(dtype)}, expected one of {', '.join(DTYPES)}")
    # No dimension of a non-empty tensor is larger than its bytes, so the products below stay small numbers.
    if not (_are_integers(shape, 1, data_bytes) and len(shape) <= _MAX_DIMENSIONS):
        refuse(f"{where}: got shape {shown(shape)}, expected up to {_MAX_DIMENSIONS} sizes that fit the file")
    if not (_are_integers(offsets, 0, data_bytes) and len(offsets) == 2):
        refuse(f"{where}: got data_offsets {shown(offsets)}, expected two integers from 0 to {data_bytes}")
    begin, end = offsets
    expected = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
    if end - begin != expected:
        refuse(f"{where}: got {end - begin} bytes, expected {expected} for {dtype} {shown(shape)}")
    return begin, end


def _are_integers(values: object, low: int, high: int) -> bool:
    return isinstance(values, list) and all(type(n) is int and low <= n <= high for n in values)


def _decode(content: bytes) -> dict[str, Array]:
    """Let safetensors read the tensors from bytes whose header has been checked."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        loaded = load(content)
    except SafetensorError as error:
        refuse(f"safetensors refuses it: {one_line(error)}")
    # Whether the arrays are writable depends on the version of safetensors.
    return {name: np.require(tensor, requirements=["C", "W"]) for name, tensor in loaded.items()}


def _as_text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        refuse(f"the header is not UTF-8 text at byte {8 + error.start}: damaged, or not a model file")


def _parse_json(text: str, what: str) -> dict[str, Any]:
    """Parse a JSON object strictly: no duplicate keys, no NaN, no infinity, not even as 1e999."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            refuse(f"{what} has a duplicate key")
        return result

    def finite(literal: str) -> float:
        value = float(literal)
        if not math.isfinite(value):
            refuse(f"{what} holds {shown(literal)}, expected finite numbers")
        return value

    try:
        parsed = json.loads(text, object_pairs_hook=unique, parse_constant=finite, parse_float=finite)
    except ValueError as error:  # not JSON, or an integer of more digits than Python converts
        refuse(f"{what} is not valid JSON: {one_line(error)}")
    if not isinstance(parsed, dict):
        refuse(f"{what} is {shown(parsed)}, expected a JSON object")
    return parsed
