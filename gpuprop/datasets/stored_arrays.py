"""Arrays that stay on disk: NPY, NPZ and IDX files as `gpuprop.datasets.StoredRows`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from gpuprop.datasets.checks import data_error, listed
from gpuprop.datasets.request import Request, target_column
from gpuprop.datasets.stored import BLOCK_BYTES, Part, Piece, StoredRows, kept_dtype, stored_rows

__all__ = ["idx_rows", "npy_pair_rows", "npy_table_rows", "npz_folder_rows"]


class _Raw(NamedTuple):
    """An array in a file: where its rows begin, and what they are."""

    file: Path
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return int(self.dtype.itemsize * math.prod(self.shape[1:]))

    def rows(self, first: int, n_rows: int) -> NDArray[Any]:
        """Read some rows; nothing is mapped, so that the file takes no address space."""
        with self.file.open("rb") as stream:
            stream.seek(self.offset + first * self.row_bytes)
            found = np.fromfile(stream, self.dtype, n_rows * math.prod(self.shape[1:]))
        if found.size != n_rows * math.prod(self.shape[1:]):
            raise data_error(self.file, f"ends within row {first + n_rows}: it is truncated")
        return found.reshape(n_rows, *self.shape[1:]).astype(self.dtype.newbyteorder("="), copy=False)

    def single(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Read single rows; the file is mapped while they are copied."""
        found = np.memmap(self.file, self.dtype, "r", self.offset, self.shape)[rows]
        return np.asarray(found).astype(self.dtype.newbyteorder("="), copy=False)

    def pieces(self, memory: int) -> tuple[Piece, ...]:
        """Cut the rows into pieces of about `BLOCK_BYTES`, or of less where memory is short."""
        each, n_rows = max(1, min(BLOCK_BYTES, memory // 16) // max(1, self.row_bytes)), self.shape[0]
        return tuple(Piece(self.file, first, min(each, n_rows - first)) for first in range(0, n_rows, each))


def _npy(file: Path) -> _Raw:
    with file.open("rb") as stream:
        try:
            version = npy_format.read_magic(stream)
            read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except ValueError as error:
            raise data_error(file, f"is no NPY file: {error}") from None
        if fortran or dtype.kind not in "biuf" or not shape:
            raise data_error(file, f"got {dtype} of shape {shape}, expected rows of numbers in C order")
        return _Raw(file, stream.tell(), dtype, shape)


def _flat(rows: NDArray[Any]) -> NDArray[Any]:
    return rows.reshape(len(rows), -1)


def _pair(path: Path, X: _Raw, y: _Raw, dtype: np.dtype[Any], memory: int) -> StoredRows:
    """Return the rows of an array of inputs and one of targets; `dtype` is what inputs are kept in."""
    return stored_rows(
        path,
        X.pieces(memory),
        math.prod(X.shape[1:]),
        dtype,
        read_piece=lambda piece: (_flat(X.rows(*piece[1:])), y.rows(*piece[1:])),
        target_reader=lambda piece: y.rows(*piece[1:]),
        row_reader=lambda rows: (_flat(X.single(rows)), y.single(rows)),
    )


def npy_pair_rows(folder: Path, memory: int) -> StoredRows:
    """Return the rows of ``X.npy`` and ``y.npy``."""
    X, y = _npy(folder / "X.npy"), _npy(folder / "y.npy")
    if X.shape[0] != y.shape[0]:
        raise data_error(folder, f"got X.npy of shape {X.shape} and y.npy of shape {y.shape}, expected as many rows")
    return _pair(folder, X, y, kept_dtype(X.dtype), memory)


def npy_table_rows(path: Path, target: str | int | None, memory: int) -> StoredRows:
    """Return the rows of an NPY file, of which one column is the target."""
    table = _npy(path)
    if len(table.shape) != 2 or table.shape[1] < 2:
        raise data_error(path, f"got an array of shape {table.shape}, expected rows of features and a target")
    given = int(target) if isinstance(target, str) and target.lstrip("-").isdigit() else target
    place = target_column(path, table.shape[1], None, Request(target=given))
    assert place is not None, "a table of several columns has a target"

    def parted(rows: NDArray[Any]) -> Part:
        return np.delete(rows, place, axis=1), rows[:, place]

    name = f"column {place + 1}"
    dtype = kept_dtype(table.dtype)
    return stored_rows(
        path,
        table.pieces(memory),
        table.shape[1] - 1,
        dtype,
        read_piece=lambda piece: parted(table.rows(*piece[1:])),
        row_reader=lambda rows: parted(table.single(rows)),
        target_name=name,
    )


def npz_folder_rows(folder: Path, files: Sequence[Path], weight: str | None) -> StoredRows:
    """Return the rows of NPZ files; each file is a piece, and `weight` names an array of sample weights."""
    wanted = {"X", "y"} | ({weight} if weight is not None else set())

    def arrays(file: Path) -> Part:
        with np.load(file, allow_pickle=False) as archive:
            if not wanted <= set(archive.files):
                raise data_error(file, f"holds the arrays {listed(archive.files)}, expected {listed(sorted(wanted))}")
            return _flat(archive["X"]), archive["y"]

    def one(piece: Piece, name: str) -> NDArray[Any]:
        with np.load(piece.file, allow_pickle=False) as archive:
            return np.asarray(archive[name])

    first, _ = arrays(files[0])
    pieces = []
    for file in files:
        with np.load(file, allow_pickle=False) as archive:
            pieces.append(Piece(file, 0, len(archive["y"])))
    dtype = kept_dtype(first.dtype)
    read = lambda piece: arrays(piece.file)  # noqa: E731
    return stored_rows(
        folder,
        tuple(pieces),
        first.shape[1],
        dtype,
        read_piece=read,
        target_reader=lambda piece: one(piece, "y"),
        weight_reader=None if weight is None else lambda piece: one(piece, weight),
    )


def idx_rows(path: Path, labels: Path | None, memory: int) -> StoredRows:
    """Return the rows of an IDX file and its labels."""
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    X, y = _idx_array(path), _idx_array(labels or beside)
    if X.shape[0] != y.shape[0]:
        raise data_error(path, f"got {X.shape[0]} rows and {y.shape[0]} labels, expected as many")
    return _pair(path, X, y, X.dtype, memory)


def _idx_array(file: Path) -> _Raw:
    with file.open("rb") as stream:
        start = stream.read(4)
        if len(start) < 4 or start[:3] != b"\x00\x00\x08":
            raise data_error(file, "got no IDX file of bytes, expected 00 00 08 at its beginning; unpack it if need be")
        shape = tuple(np.frombuffer(stream.read(4 * start[3]), ">u4").astype(int).tolist())
        return _Raw(file, stream.tell(), np.dtype(np.uint8), shape)
