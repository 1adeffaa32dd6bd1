"""IDX files, the format of MNIST: plain or gzip-compressed.

Layout (Y. LeCun, "The MNIST database", section "File formats"): two zero bytes, a type code, the number of
dimensions, then each dimension as a big-endian 32-bit integer, then the elements, big-endian, in row-major order.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpuprop.datasets.checks import (
    DEFLATE_MAX_RATIO,
    as_features,
    data_error,
    open_file,
    refuse_nonfinite,
    refuse_oversized,
    refuse_unpacked,
)
from gpuprop.datasets.opening import hint
from gpuprop.datasets.request import Records, Request, check_n_features, row_place

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
CHUNK = 1 << 20
GZIP = b"\x1f\x8b"
QMNIST_COLUMNS = 8  # class, then where in the NIST databases the digit stands (github.com/facebookresearch/qmnist)


def is_idx_name(path: Path) -> bool:
    """Return whether a file has the name of an IDX file: ``train-images-idx3-ubyte.gz``, ``digits.idx``."""
    return "idx" in path.name.lower()


def read_idx(path: Path, max_unpacked: int | None = None) -> NDArray[Any]:
    """Read an IDX file, plain or gzip-compressed, which its first bytes tell.

    Returns
    -------
    ndarray
        It has the shape that the file declares, in native byte order.

    Raises
    ------
    DataError
        If the header is not that of an IDX file, or the file does not agree with its header.
    """
    stream, n_bytes = open_file(path)
    with stream:
        compressed = stream.read(2) == GZIP
        stream.seek(0)
        return parse_idx(stream, n_bytes, str(path), compressed=compressed, max_unpacked=max_unpacked)


def parse_idx(
    stream: BinaryIO, n_bytes: int, name: str, *, compressed: bool, max_unpacked: int | None = None
) -> NDArray[Any]:
    """Read IDX data from a stream of ``n_bytes`` bytes; messages call it ``name``."""

    def check(declared: int) -> None:
        if compressed:
            refuse_unpacked(name, declared, n_bytes, max_unpacked)
        else:
            refuse_oversized(name, declared)

    if not compressed:
        return _parse(stream, name, n_bytes, check)
    try:
        with gzip.GzipFile(fileobj=stream, mode="rb") as unpacked:
            return _parse(unpacked, name, n_bytes * DEFLATE_MAX_RATIO, check)
    except EOFError:
        raise data_error(name, f"the compressed data end too early, at offset {n_bytes}; get the file again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise data_error(name, f"is not a valid gzip file ({error}); get the file again") from None


def _parse(stream: BinaryIO | gzip.GzipFile, name: str, largest: int, check: Callable[[int], None]) -> NDArray[Any]:
    """Read header and elements; a header that declares more than ``largest`` bytes cannot be true.

    ``check`` refuses a number of bytes that is too much for the memory.
    """
    magic = _read_exactly(stream, 4, 0, name, "the IDX magic number")
    if magic[:2] != b"\0\0":
        raise data_error(
            name,
            f"got bytes {magic[:2].hex(' ')} at offset 0, expected 00 00, the start of an IDX file{hint(magic)}",
        )
    if magic[2] not in DTYPES:
        known = ", ".join(f"{code:02x}" for code in DTYPES)
        raise data_error(name, f"got IDX type code {magic[2]:02x} at offset 2, expected one of {known}")
    n_dimensions = magic[3]
    if n_dimensions == 0:
        raise data_error(name, "got 0 dimensions at offset 3, expected at least 1")
    sizes = _read_exactly(stream, 4 * n_dimensions, 4, name, f"{n_dimensions} dimension sizes")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    dtype = np.dtype(DTYPES[magic[2]])
    start, n_bytes = 4 + 4 * n_dimensions, math.prod(shape) * dtype.itemsize
    declared = f"{n_bytes} bytes ({' x '.join(map(str, shape))} of {dtype.newbyteorder('=').name})"
    if n_bytes == 0 or n_dimensions > 32:
        raise data_error(name, f"declares {declared} at offset 4, expected at least one row and one element a row")
    if start + n_bytes > largest:
        raise data_error(
            name, f"declares {declared} from offset {start}, expected at most {largest - start}: truncated"
        )
    check(n_bytes)
    values = np.empty(n_bytes, np.uint8)
    read = _fill(stream, values)
    if read < n_bytes:
        raise data_error(name, f"ends at offset {start + read}, expected {declared} from offset {start}: truncated")
    if stream.read(1):
        raise data_error(name, f"goes on after offset {start + n_bytes}, expected {declared} from offset {start}")
    array = values.view(dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_exactly(stream: BinaryIO | gzip.GzipFile, count: int, offset: int, name: str, what: str) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise data_error(
            name, f"ends at offset {offset + len(data)}, expected {what} ({count} bytes at offset {offset})"
        )
    return data


def _fill(stream: BinaryIO | gzip.GzipFile, values: NDArray[np.uint8]) -> int:
    """Fill the array from the stream, chunk by chunk, because one large read would hold the data twice."""
    filled = 0
    while filled < len(values):
        chunk = stream.read(min(CHUNK, len(values) - filled))
        if not chunk:
            break
        values[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
        filled += len(chunk)
    return filled


def read_images(path: Path, request: Request) -> Records:
    """Read an IDX file of samples and, if the request asks for targets, the IDX file of their labels.

    Without ``request.labels``, the labels are read from the file beside it that is named as in MNIST
    (``train-labels-idx1-ubyte`` for ``train-images-idx3-ubyte``) or QMNIST (``...-labels-idx2-int``). Whole numbers in
    a file of labels are classes, however many there are; of QMNIST's eight columns the first holds them.
    """
    images = read_idx(path, request.max_unpacked)
    if images.ndim < 2:
        raise data_error(
            path, f"got {images.ndim} dimension, expected at least 2 (samples x features); is it the labels?"
        )
    X = as_features(images)
    check_n_features(path, X.shape[1], request)
    refuse_nonfinite(path, X, row_place, lambda column: f"element {column + 1}")
    if not request.with_target:
        return Records(str(path), X, None)
    labels, notes = _read_labels(path, len(X), request)
    return Records(str(path), X, labels, notes=notes, task="classification" if labels.dtype.kind in "iu" else None)


def _read_labels(images: Path, n_images: int, request: Request) -> tuple[NDArray[Any], tuple[str, ...]]:
    path = request.labels or next((beside for beside in _labels_beside(images) if beside.exists()), None)
    if path is None:
        raise data_error(images, "got no file of labels; give their IDX file with --labels (in Python: labels=...)")
    labels, notes = read_idx(path, request.max_unpacked), []
    if labels.ndim == 2 and labels.shape[1] in (1, QMNIST_COLUMNS) and labels.dtype.kind == "i":
        if labels.shape[1] > 1:
            notes.append(f"{path.name}: the first of its {labels.shape[1]} columns was taken for the labels (QMNIST).")
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise data_error(
            path,
            f"got {labels.ndim} dimensions at offset 3, expected 1, the labels; it holds "
            f"{' x '.join(map(str, labels.shape))} numbers: is it the images?",
        )
    if len(labels) != n_images:
        raise data_error(
            path, f"got {len(labels)} labels at offset 4, expected {n_images}, one for each sample of {images}"
        )
    return labels, tuple(notes)


def _labels_beside(images: Path) -> list[Path]:
    """Return where the labels of a file of images may be, compressed or not."""
    name = images.name.replace("images", "labels")
    if name == images.name:
        return []
    names = [name.replace("idx3", "idx1"), name.replace("idx3-ubyte", "idx2-int")]
    names += [n.removesuffix(".gz") if n.endswith(".gz") else f"{n}.gz" for n in names]
    return [images.with_name(n) for n in names]
