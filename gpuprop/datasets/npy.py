"""NumPy's files, NPY and NPZ. They are never unpickled, and their sizes are checked before they are read."""

from __future__ import annotations

import math
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from gpuprop.datasets.checks import (
    DEFLATE_MAX_RATIO,
    as_features,
    data_error,
    listed,
    nearest,
    open_file,
    refuse_nonfinite,
    refuse_oversized,
    refuse_unpacked,
)
from gpuprop.datasets.opening import hint
from gpuprop.datasets.request import Records, Request, check_n_features, choose_columns, row_place
from gpuprop.errors import DataError

MAX_HEADER = 10_000  # numpy's own bound for a header that it parses


def read_array(stream: IO[bytes], n_bytes: int, name: str) -> NDArray[Any]:
    """Read one array in NPY format from a seekable stream that must hold exactly ``n_bytes`` bytes.

    Returns
    -------
    ndarray
        Bools, integers, floats of at most 8 bytes, or text (dtype U, or bytes, dtype S); native byte order, at least
        one element.

    Raises
    ------
    DataError
        If the header is not that of an NPY file, the elements have another type, or their size does not fit the file.
    """
    dtype, shape = _read_header(stream, n_bytes, name)
    if dtype.kind not in "biufUS" or dtype.itemsize == 0 or (dtype.kind == "f" and dtype.itemsize > 8):
        hint = "; save it with astype(str) or astype(float)" if dtype.kind == "O" else ""
        raise data_error(name, f"holds elements of dtype {dtype}, expected bools, integers, floats or text{hint}")
    size = math.prod(shape) * dtype.itemsize
    if any(n < 0 for n in shape) or size == 0 or len(shape) > 32:
        raise data_error(name, f"declares shape {listed(shape)}, expected at least one row and one element a row")
    start = stream.tell()
    if start + size != n_bytes:
        kind = "truncated" if start + size > n_bytes else "oversized"
        raise data_error(
            name,
            f"declares shape {listed(shape)} of {dtype}, {size} bytes from offset {start}, "
            f"got {n_bytes - start} bytes: {kind}",
        )
    refuse_oversized(name, size)
    stream.seek(0)
    try:
        array = npy_format.read_array(stream, allow_pickle=False)
    except (ValueError, TypeError, EOFError) as error:
        raise data_error(name, f"cannot be read: {error}") from None
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_header(stream: IO[bytes], n_bytes: int, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    start = stream.read(12)
    if start[:6] != npy_format.MAGIC_PREFIX:
        raise data_error(
            name, f"got bytes {start[:6].hex(' ')} at offset 0, expected 93 4e 55 4d 50 59 (NPY){hint(start)}"
        )
    version = tuple(start[6:8])
    if version not in {(1, 0), (2, 0)}:
        raise data_error(name, f"got NPY version {start[6:8].hex(' ')} at offset 6, expected 01 00 or 02 00")
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(start[8 : 8 + width], "little")
    if length > min(MAX_HEADER, n_bytes - 8 - width) or len(start) < 8 + width:
        raise data_error(
            name, f"declares a header of {length} bytes at offset 8, expected at most {MAX_HEADER} within the file"
        )
    stream.seek(8)
    parse = npy_format.read_array_header_1_0 if width == 2 else npy_format.read_array_header_2_0
    try:
        shape, _, dtype = parse(stream)
    except (
        Exception
    ) as error:  # the header is a Python literal, and a hostile one can fail in many ways, even by MemoryError
        reason = f"{type(error).__name__}: {str(error)[:100]}"
        raise data_error(name, f"got no valid NPY header at offset {8 + width} ({reason})") from None
    return dtype, shape


def read_npy(path: Path, request: Request) -> Records:
    """Read an NPY file: features and target are columns of one matrix.

    All columns have one dtype, so a target column of whole numbers counts as integers even in a matrix of floats. If
    the request asks for no target, samples of more than one dimension are flattened.
    """
    stream, n_bytes = open_file(path)
    with stream:
        array = read_array(stream, n_bytes, str(path))
    _check_numeric(path, array)
    if not request.with_target:
        return Records(str(path), _features(path, _without_target(array, request), request), None)
    if array.ndim != 2:
        raise data_error(
            path,
            f"got an array of {array.ndim} dimension(s), expected 2 (samples x columns, one of them the target); "
            "keep samples of another shape in an NPZ file with arrays X and y",
        )
    features, target = choose_columns(path, array.shape[1], request)
    refuse_nonfinite(path, array, row_place, lambda column: f"column {column + 1}")
    return Records(str(path), as_features(array[:, features]), _whole_as_integers(array[:, target]))


def _without_target(array: NDArray[Any], request: Request) -> NDArray[Any]:
    """Return the samples of a matrix that may still hold the target, which its index tells."""
    index = str(request.target)
    if array.ndim == 2 and array.shape[1] - 1 == request.n_features and index.removeprefix("-").isdecimal():
        return np.asarray(np.delete(array, int(index), axis=1))
    return array


def _whole_as_integers(values: NDArray[Any]) -> NDArray[Any]:
    # Beyond 2**53 floats are not exact integers, and beyond 2**63 the conversion would be undefined.
    if values.dtype.kind == "f" and np.all(np.trunc(values) == values) and np.all(np.abs(values) < 2.0**53):
        return values.astype(np.int64)
    return values


#: How others name the arrays of a data set, in lower case and without underscores: by letters, by words, and by places
#: (``numpy.savez`` without names).
FEATURES = ("x", "data", "images", "image", "features", "inputs", "samples", "arr0")
TARGETS = ("y", "target", "targets", "label", "labels", "outputs", "arr1")
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test", "val": "val", "validation": "val"}
ARRAYS_ADVICE = "name them with --arrays X=NAME,y=NAME (in Python: arrays={'X': NAME, 'y': NAME})"


def read_npz(path: Path, request: Request) -> Records:
    """Read features (n, ...) and, if the request asks for targets, targets (n,) or (n, K) from an NPZ file.

    The arrays are those that the request names, or ``X`` and ``y``, or whatever is named as others name them
    (``FEATURES``, ``TARGETS``), in upper or lower case. ``x_train`` or ``train_images`` is the part for training, and
    the arrays with ``test`` in their names are the test part; predictions are made for the test part.
    """
    stream, n_bytes = open_file(path)
    with stream:
        start = stream.read(16)
        try:
            with zipfile.ZipFile(stream) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                parts = _named_arrays(path, names, request) if request.arrays else _usual_arrays(path, names, request)
                _refuse_bomb(archive, [key for keys in parts for key in keys], n_bytes, path, request)
                found = [[_read_member(archive, key, path) for key in keys] for keys in parts]
        except DataError:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError, ValueError) as error:
            raise data_error(
                path, f"is not a valid NPZ file ({error}){'' if start[:2] == b'PK' else hint(start)}"
            ) from None
    if request.with_target and len(parts[0]) == 1:
        raise data_error(
            path,
            f"holds the arrays {listed(names)}, expected X and y: no array 'y', nor another of the usual names for it; "
            f"{ARRAYS_ADVICE}",
        )
    pairs = [_features_and_target(path, keys, arrays, request) for keys, arrays in zip(parts, found, strict=True)]
    used = [name for keys in parts for name in keys]
    rest = [name for name in names if name not in used]
    notes = [] if used in (["X", "y"], ["X"]) else [f"The data are the arrays {listed(used)}."]
    if rest and request.with_target and not request.arrays:
        notes.append(f"The arrays {listed(rest)} were left out.")
    (X, y), *more = pairs
    test = (more[0][0], more[0][1]) if more and more[0][1] is not None else None
    holds_labels = y is not None and y.dtype.kind in "iu" and y.ndim == 1 and "label" in parts[0][1].casefold()
    return Records(str(path), X, y, notes=tuple(notes), task="classification" if holds_labels else None, test=test)


def _named_arrays(path: Path, names: Sequence[str], request: Request) -> list[list[str]]:
    roles = ["X", "y"] if request.with_target else ["X"]
    if not set(roles) <= set(request.arrays) <= {"X", "y"}:
        raise data_error(path, f"got names for the arrays {listed(sorted(request.arrays))}, expected names for X and y")
    wanted = [request.arrays[role] for role in roles]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise data_error(path, f"has no array {listed(missing)}{nearest(missing[0], names)} (arrays: {listed(names)})")
    return [wanted]


def _usual_arrays(path: Path, names: Sequence[str], request: Request) -> list[list[str]]:
    """Return the names of the arrays of features and of targets: of the data, and then of their test part."""
    by_part: dict[str, dict[str, list[str]]] = {"": {}, "train": {}, "test": {}, "val": {}}
    for name in names:
        part, role = _part_and_role(name)
        if role:
            by_part[part].setdefault(role, []).append(name)
    parts = [part for part in ("", "train", "test") if "X" in by_part[part]]
    if parts[:2] == ["", "train"]:  # the whole, and its parts beside it
        parts = [""]
    if not request.with_target:
        parts = parts[-1:]
    if not parts:
        raise data_error(
            path,
            f"holds the arrays {listed(names) or 'none'}, expected X and y: no array 'X', nor another of the usual "
            f"names for it; {ARRAYS_ADVICE}",
        )
    chosen = []
    for part in parts:
        roles = ("X", "y") if request.with_target else ("X",)
        found = [[role] if role in by_part[part].get(role, ()) else by_part[part].get(role, []) for role in roles]
        if any(len(candidates) > 1 for candidates in found):
            raise data_error(path, f"holds the arrays {listed(names)}, and several may be meant; {ARRAYS_ADVICE}")
        chosen.append([name for candidates in found for name in candidates])
    return chosen


def _part_and_role(name: str) -> tuple[str, str]:
    """Return the part that an array belongs to, and whether it holds features (X), targets (y) or neither ("")."""
    stem = re.sub(r"[_\W]", "", name.casefold())
    part = ""
    for word in sorted(PARTS, key=len, reverse=True):
        if stem.startswith(word) or stem.endswith(word):
            stem, part = stem.removeprefix(word) if stem.startswith(word) else stem.removesuffix(word), PARTS[word]
            break
    return part, "X" if stem in FEATURES else "y" if stem in TARGETS else ""


def _features_and_target(
    path: Path, keys: Sequence[str], arrays: Sequence[NDArray[Any]], request: Request
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    X, y = arrays[0], arrays[1] if len(arrays) > 1 else None
    _check_numeric(f"{path}[{keys[0]}]", X)
    if y is not None and y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y is not None and (y.ndim > 2 or y.ndim == 0 or X.ndim == 0 or len(y) != len(X)):
        raise data_error(
            path,
            f"got {keys[1]} of shape {y.shape}, expected {len(X) if X.ndim else 0} rows, as {keys[0]} has, and 1 or 2 "
            "dimensions",
        )
    if y is not None and y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    return _features(path, X, request), y


def _member(archive: zipfile.ZipFile, key: str) -> zipfile.ZipInfo:
    return archive.infolist()[[name.removesuffix(".npy") for name in archive.namelist()].index(key)]


def _refuse_bomb(archive: zipfile.ZipFile, keys: Sequence[str], n_bytes: int, path: Path, request: Request) -> None:
    """Refuse arrays that would fill the memory, or that cannot be so large, by what the archive says of them."""
    unpacked = 0
    for key in keys:
        info, name = _member(archive, key), f"{path}[{key}]"
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise data_error(
                name, "got an unknown compression, expected stored or deflated, the two that numpy.savez uses"
            )
        ratio = 1 if info.compress_type == zipfile.ZIP_STORED else DEFLATE_MAX_RATIO
        if info.file_size > ratio * min(info.compress_size, n_bytes):
            raise data_error(
                name,
                f"declares {info.file_size} bytes in {info.compress_size} packed ones at offset {info.header_offset}, "
                f"more than {ratio} to 1, which no valid file does",
            )
        unpacked += info.file_size if ratio > 1 else 0
    refuse_unpacked(path, unpacked, n_bytes, request.max_unpacked)


def _read_member(archive: zipfile.ZipFile, key: str, path: Path) -> NDArray[Any]:
    info = _member(archive, key)
    with archive.open(info) as member:
        return read_array(member, info.file_size, f"{path}[{key}]")


def _check_numeric(source: object, X: NDArray[Any]) -> None:
    if X.dtype.kind in "US":
        raise data_error(source, f"holds text (dtype {X.dtype}), expected numbers")


def _features(path: Path, array: NDArray[Any], request: Request) -> NDArray[Any]:
    if array.ndim < 2:
        raise data_error(
            path, f"got features of shape {array.shape}, expected at least 2 dimensions (samples x features)"
        )
    X = as_features(array)
    check_n_features(path, X.shape[1], request)
    refuse_nonfinite(path, X, row_place, lambda column: f"column {column + 1}")
    return X
