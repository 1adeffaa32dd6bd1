"""Data sets that stay on disk: their rows are read a block at a time, and need never be in memory together.

`open` takes a folder of Parquet or NPZ files, a Parquet file, an NPY file, a folder with ``X.npy`` and ``y.npy``, or an
IDX file with its labels. ``Trainer.fit`` takes what it returns in the place of arrays.
"""

from __future__ import annotations

import bisect
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from gpuprop.datasets.bundled import BUNDLED
from gpuprop.datasets.checks import data_error, listed, refuse_nonfinite
from gpuprop.datasets.dataset import Label, encode_like, encode_target
from gpuprop.datasets.idx import is_idx_name
from gpuprop.datasets.request import Request, Task, row_place, target_column

__all__ = ["Statistics", "StoredRows", "is_stored", "open"]

Part = tuple[NDArray[Any], NDArray[Any]]

MEMORY = 256 * 2**20
"""The bytes that the rows in memory may take, where no other number is given."""
BLOCK_BYTES = 2**20
"""About the bytes of a block, where a file has none of its own."""
_MOST_CLASSES = 1000
"""More different labels than these are no classes."""


class Piece(NamedTuple):
    """Rows that are read together: `n_rows` of a file, from the row `first` on, or its row group of that number."""

    file: Path
    first: int
    n_rows: int


class Statistics(NamedTuple):
    """What one pass over the rows has found.

    Attributes
    ----------
    mean, deviation : ndarray of shape (n_features,)
        Of each column, in float64; the deviation of a constant column is 0.
    target_mean, target_deviation : ndarray of shape (n_outputs,)
        Of each target; empty for classes.
    counts : ndarray of shape (n_classes,), int64
        The rows of each class; empty for a regression.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    target_mean: NDArray[np.float64]
    target_deviation: NDArray[np.float64]
    counts: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StoredRows:
    """A data set that stays on disk.

    Attributes
    ----------
    name : str
    pieces : tuple of Piece
        What is read together, in the order of the rows.
    n_features : int
    dtype : dtype
        Of the inputs in memory: uint8, float32 or float64.
    task : {"classification", "regression"}
    classes : list or None
        The sorted labels; None for a regression.
    n_outputs : int
        Targets of a row; 1 for classes.
    feature_names : tuple of str or None
    target_name : str or None
    memory : int
        The bytes that rows in memory may take, while a network is trained on them.
    read_piece : callable
        ``read_piece(piece)`` returns inputs, and targets as the file has them.
    target_reader : callable or None
        Reads only the targets of a piece, where that is cheaper.

    Raises
    ------
    DataError
        When rows are read, if a file has changed or is damaged.

    Examples
    --------
    >>> import tempfile, numpy as np, gpuprop
    >>> from pathlib import Path
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "X.npy", np.arange(12.0).reshape(6, 2)), np.save(folder / "y.npy", [0, 1, 0, 1, 0, 1])
    (None, None)
    >>> rows = gpuprop.datasets.open(folder)
    >>> rows.n_samples, rows.n_features, rows.classes
    (6, 2, [0, 1])
    >>> rows.statistics.mean.tolist()
    [5.0, 6.0]
    """

    name: str
    pieces: tuple[Piece, ...]
    n_features: int
    dtype: np.dtype[Any]
    task: Task
    classes: list[Label] | None
    n_outputs: int
    feature_names: tuple[str, ...] | None
    target_name: str | None
    memory: int
    read_piece: Callable[[Piece], Part]
    target_reader: Callable[[Piece], NDArray[Any]] | None = None

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first row of each piece, and the number of all rows."""
        return tuple(np.cumsum([0, *(piece.n_rows for piece in self.pieces)]).tolist())

    @property
    def n_samples(self) -> int:
        """The number of rows."""
        return self.starts[-1]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        return self.n_samples, self.n_features

    @property
    def row_bytes(self) -> int:
        """The bytes of a row's inputs and targets in memory."""
        return self.n_features * self.dtype.itemsize + 8 * self.n_outputs

    def read(self, place: int) -> Part:
        """Return inputs and targets of a piece.

        Returns
        -------
        X : ndarray of shape (n_rows, n_features)
            Of `dtype`.
        y : ndarray of shape (n_rows,) or (n_rows, n_outputs)
            int64 class indices, or float64.

        Raises
        ------
        DataError
            If the file has changed since it was opened, or holds what is no finite number or another class.
        """
        piece = self.pieces[place]
        try:
            X, labels = self.read_piece(piece)
        except OSError as error:
            raise data_error(piece.file, f"cannot be read: {error.strerror or error}") from None
        if len(X) != piece.n_rows or X.shape[1] != self.n_features:
            raise data_error(piece.file, f"got rows of shape {X.shape}, expected {(piece.n_rows, self.n_features)}")

        def at(row: int) -> str:
            return row_place(piece.first + row)

        refuse_nonfinite(piece.file, X, at, lambda column: f"column {column + 1}")
        return np.ascontiguousarray(X, self.dtype), encode_like(piece.file, labels, self.classes, at)

    def blocks(self) -> Iterator[Part]:
        """Yield all rows in their order, a piece at a time."""
        for place in range(len(self.pieces)):
            yield self.read(place)

    @cached_property
    def statistics(self) -> Statistics:
        """What one pass over all rows finds, with the memory of one piece; made when it is first asked for."""
        inputs, targets = _Moments(self.n_features), _Moments(0 if self.classes else self.n_outputs)
        counts = np.zeros(len(self.classes or ()), np.int64)
        for X, y in self.blocks():
            inputs.add(X)
            if self.classes:
                counts += np.bincount(y, minlength=len(counts))
            else:
                targets.add(y.reshape(len(y), -1))
        return Statistics(inputs.mean, inputs.deviation, targets.mean, targets.deviation, counts)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of names, sizes, beginnings and ends of the files, and of how the rows are cut."""
        digest = hashlib.sha256(repr([(one.file.name, *one[1:]) for one in self.pieces]).encode())
        for file in dict.fromkeys(piece.file for piece in self.pieces):
            size = file.stat().st_size
            with file.open("rb") as stream:
                digest.update(f"{size} ".encode() + stream.read(65536))
                stream.seek(max(0, size - 65536))
                digest.update(stream.read())
        return digest.hexdigest()

    def standardised(self) -> tuple[StoredRows, NDArray[np.float64], NDArray[np.float64]]:
        """Return the rows with targets of mean 0 and deviation 1, and what mean and deviation were."""
        found = self.statistics
        mean, deviation = found.target_mean, np.where(found.target_deviation > 0, found.target_deviation, 1.0)

        def read(piece: Piece) -> Part:
            X, y = self.read_piece(piece)
            return X, (y.reshape(len(y), -1) - mean) / deviation

        rows = replace(self, read_piece=read)
        ones = (found.target_deviation > 0).astype(np.float64)
        vars(rows)["statistics"] = found._replace(target_mean=np.zeros_like(mean), target_deviation=ones)
        return rows, mean, deviation

    def without(self, places: Sequence[int]) -> StoredRows:
        """Return the data set without some of its pieces."""
        left = set(places)
        return replace(self, pieces=tuple(piece for place, piece in enumerate(self.pieces) if place not in left))

    def held_out(self, share: float, seed: int, *, purpose: int = 1) -> tuple[StoredRows, Part]:
        """Take a random share of the pieces into memory.

        Parameters
        ----------
        share : float
        seed, purpose : int
            Equal ones draw equal pieces.

        Returns
        -------
        rest : StoredRows
        (X, y)

        Raises
        ------
        DataError
            If there is only one piece, or the share would take more memory than allowed.
        """
        if len(self.pieces) < 2:
            raise data_error(self.name, "has a single block, from which nothing can be held out; give separate rows")
        order = np.random.default_rng([seed, purpose]).permutation(len(self.pieces))
        counts = np.cumsum([self.pieces[place].n_rows for place in order])
        n_pieces = min(max(1, bisect.bisect_left(counts, share * self.n_samples) + 1), len(order) - 1)
        taken = sorted(order[:n_pieces].tolist())
        n_rows = int(counts[n_pieces - 1])
        if n_rows * self.row_bytes > self.memory:
            raise data_error(
                self.name,
                f"a share of {share:g} for validation or testing takes {n_rows * self.row_bytes:,} bytes, expected at "
                f"most {self.memory:,}; take a smaller share, or allow more memory",
            )
        parts = [self.read(place) for place in taken]
        X, y = np.concatenate([X for X, _ in parts]), np.concatenate([y for _, y in parts])
        return self.without(taken), (X, y)


class _Moments:
    """Mean and deviation of columns, over pieces that are added one after the other.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """

    def __init__(self, n_columns: int) -> None:
        self.count, self.mean, self._squares = 0, np.zeros(n_columns), np.zeros(n_columns)

    def add(self, rows: NDArray[Any]) -> None:
        """Add some rows."""
        wide = rows.astype(np.float64)
        mean = wide.mean(axis=0)
        wide -= mean
        wide *= wide
        delta, total = mean - self.mean, self.count + len(rows)
        self._squares += wide.sum(axis=0) + delta**2 * (self.count * len(rows) / total)
        self.mean = self.mean + delta * (len(rows) / total)
        self.count = total

    @property
    def deviation(self) -> NDArray[np.float64]:
        return np.sqrt(self._squares / max(1, self.count))


def is_stored(source: object) -> bool:
    """Return whether a source is a folder, whose rows stay on disk.

    Examples
    --------
    >>> from gpuprop.datasets import is_stored
    >>> is_stored("mnist")
    False
    """
    return isinstance(source, (str, os.PathLike)) and source not in BUNDLED and Path(source).is_dir()


def open(
    source: str | os.PathLike[str],
    *,
    target: str | int | None = None,
    labels: str | os.PathLike[str] | None = None,
    task: str = "auto",
    memory: int = MEMORY,
) -> StoredRows:
    """Open a data set that stays on disk.

    Parameters
    ----------
    source : str or path
        A Parquet file, or a folder of them with equal columns (needs the extra ``parquet``); a folder of NPZ files that
        hold the arrays X and y; a folder with ``X.npy`` and ``y.npy``; an NPY file; or an uncompressed IDX file.
    target : str or int, optional
        The target column of a table or NPY file, as for `load`.
    labels : path, optional
        The IDX file of the labels; the default is as for `load`.
    task : {"auto", "classification", "regression"}, default "auto"
        As for `load`; one pass over the targets finds the classes.
    memory : int, default 256 MiB
        The bytes that rows in memory may take while a network is trained on them.

    Returns
    -------
    StoredRows

    Raises
    ------
    DataError
        If there are no such files, or their contents are wrong. Columns must be numbers.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import gpuprop
    >>> Path("rows").mkdir()
    >>> np.save("rows/X.npy", np.zeros((6, 3), np.float32)), np.save("rows/y.npy", np.arange(6) % 2)
    (None, None)
    >>> gpuprop.datasets.open("rows").n_samples
    6
    """
    path = Path(source)
    if not path.exists():
        raise data_error(path, "there is no such file or folder")
    found = _opened(path, target, None if labels is None else Path(labels), memory)
    if not found.pieces or not found.n_features:
        raise data_error(path, "holds no rows, or no columns beside the target")
    largest = max(piece.n_rows for piece in found.pieces) * found.row_bytes
    if 4 * largest > memory:
        raise data_error(
            path,
            f"has a block of {largest:,} bytes, which is read at once, expected at most a quarter of the memory of "
            f"{memory:,} bytes; allow more memory, or write it in smaller row groups or files",
        )
    return _with_targets(replace(found, memory=memory), task)


def _with_targets(rows: StoredRows, task: str) -> StoredRows:
    """Find out in one pass over the targets what they are: the different labels suffice, as long as they are few."""
    different: NDArray[Any] | None = None
    some: NDArray[Any] | None = None
    for piece in rows.pieces:
        values = rows.read_piece(piece)[1] if rows.target_reader is None else rows.target_reader(piece)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        some = values if some is None else some
        if values.ndim == 2 or task == "regression":
            different = None
            break
        try:
            new = np.unique(values)
            different = new if different is None else np.unique(np.concatenate([different, new]))
        except TypeError:  # text and gaps cannot be sorted
            raise data_error(piece.file, "has rows without a target; fill them in, or remove them") from None
        if len(different) > _MOST_CLASSES:
            if task == "classification" or different.dtype.kind in "OUS":
                raise data_error(rows.name, f"got more than {_MOST_CLASSES} different targets, expected a few classes")
            break
    assert some is not None, "there are rows"
    if different is None or len(different) > _MOST_CLASSES:
        y, classes = encode_target(rows.name, some, "regression")
    else:
        told = "classification" if different.dtype.kind in "OUS" else task  # each stands for many rows
        y, classes = encode_target(rows.name, different, told)
    n_outputs = 1 if y.ndim == 1 else y.shape[1]
    return replace(
        rows, task="regression" if classes is None else "classification", classes=classes, n_outputs=n_outputs
    )


# --- the formats -------------------------------------------------------------------------------------------------


def _opened(path: Path, target: str | int | None, labels: Path | None, memory: int) -> StoredRows:
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith((".", "_")))
        kinds = sorted({one.suffix.lower() for one in files})
        if kinds == [".npy"] and {one.name for one in files} == {"X.npy", "y.npy"}:
            return _npy_pair(path, memory)
        if kinds == [".npz"]:
            return _npz_folder(path, files)
        if kinds == [".parquet"]:
            return _parquet(path, files, target)
        expected = "expected Parquet files, NPZ files, or X.npy and y.npy"
        raise data_error(path, f"got a folder of {listed(kinds) or 'no files'}, {expected}")
    if path.suffix.lower() == ".parquet":
        return _parquet(path, [path], target)
    if path.suffix.lower() == ".npy":
        return _npy_table(path, target, memory)
    if is_idx_name(path):
        return _idx(path, labels, memory)
    raise data_error(path, "got a file of another kind, expected Parquet, NPY or IDX, or a folder")


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


def _kept_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype == np.uint8 or dtype == np.float32:
        return dtype
    return np.dtype(np.float32 if dtype.kind in "bf" and dtype.itemsize < 4 else np.float64)


def _stored(path: Path, pieces: tuple[Piece, ...], n_features: int, dtype: np.dtype[Any], **fields: Any) -> StoredRows:
    usual: dict[str, Any] = {"feature_names": None, "target_name": None, "task": "regression", "classes": None}
    return StoredRows(path.stem, pieces, n_features, dtype, n_outputs=1, memory=MEMORY, **(usual | fields))


def _flat(rows: NDArray[Any]) -> NDArray[Any]:
    return rows.reshape(len(rows), -1)


def _pair(path: Path, X: _Raw, y: _Raw, dtype: np.dtype[Any], memory: int) -> StoredRows:
    """Return the rows of an array of inputs and one of targets; `dtype` is what inputs are kept in."""
    return _stored(
        path,
        X.pieces(memory),
        math.prod(X.shape[1:]),
        dtype,
        read_piece=lambda piece: (_flat(X.rows(*piece[1:])), y.rows(*piece[1:])),
        target_reader=lambda piece: y.rows(*piece[1:]),
    )


def _npy_pair(folder: Path, memory: int) -> StoredRows:
    X, y = _npy(folder / "X.npy"), _npy(folder / "y.npy")
    if X.shape[0] != y.shape[0]:
        raise data_error(folder, f"got X.npy of shape {X.shape} and y.npy of shape {y.shape}, expected as many rows")
    return _pair(folder, X, y, _kept_dtype(X.dtype), memory)


def _npy_table(path: Path, target: str | int | None, memory: int) -> StoredRows:
    table = _npy(path)
    if len(table.shape) != 2 or table.shape[1] < 2:
        raise data_error(path, f"got an array of shape {table.shape}, expected rows of features and a target")
    given = int(target) if isinstance(target, str) and target.lstrip("-").isdigit() else target
    place = target_column(path, table.shape[1], None, Request(target=given))
    assert place is not None, "a table of several columns has a target"

    def read(piece: Piece) -> Part:
        rows = table.rows(*piece[1:])
        return np.delete(rows, place, axis=1), rows[:, place]

    name = f"column {place + 1}"
    dtype = _kept_dtype(table.dtype)
    return _stored(path, table.pieces(memory), table.shape[1] - 1, dtype, read_piece=read, target_name=name)


def _npz_folder(folder: Path, files: Sequence[Path]) -> StoredRows:
    def arrays(file: Path) -> Part:
        with np.load(file, allow_pickle=False) as archive:
            if not {"X", "y"} <= set(archive.files):
                raise data_error(file, f"holds the arrays {listed(archive.files)}, expected X and y")
            return _flat(archive["X"]), archive["y"]

    def targets(piece: Piece) -> NDArray[Any]:
        with np.load(piece.file, allow_pickle=False) as archive:
            return np.asarray(archive["y"])

    first, _ = arrays(files[0])
    pieces = []
    for file in files:
        with np.load(file, allow_pickle=False) as archive:
            pieces.append(Piece(file, 0, len(archive["y"])))
    dtype = _kept_dtype(first.dtype)
    read = lambda piece: arrays(piece.file)  # noqa: E731
    return _stored(folder, tuple(pieces), first.shape[1], dtype, read_piece=read, target_reader=targets)


def _idx(path: Path, labels: Path | None, memory: int) -> StoredRows:
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


def _parquet(path: Path, files: Sequence[Path], target: str | int | None) -> StoredRows:
    try:
        from pyarrow import parquet
    except ImportError:
        raise data_error(path, "Parquet needs pyarrow; install it with: pip install 'gpuprop[parquet]'") from None
    schema = parquet.read_schema(files[0])
    names = list(schema.names)
    place = target_column(path, len(names), names, Request(target=target))
    assert place is not None, "a table has a target"
    target_name, features = names[place], [name for i, name in enumerate(names) if i != place]
    for name in features:
        if not _is_number(schema.field(name).type):
            raise data_error(
                path, f"column {name!r} holds {schema.field(name).type}, expected numbers; `load` reads it"
            )
    pieces: list[Piece] = []
    for file in files:
        metadata = parquet.read_metadata(file)
        if parquet.read_schema(file).names != names:
            raise data_error(file, f"has other columns than {files[0].name}")
        groups = range(metadata.num_row_groups)
        pieces += [Piece(file, group, metadata.row_group(group).num_rows) for group in groups]

    def read(piece: Piece, columns: Sequence[str]) -> list[NDArray[Any]]:
        with parquet.ParquetFile(piece.file) as file:
            table = file.read_row_group(piece.first, columns=list(columns), use_threads=False)
        return [np.asarray(table.column(name).to_numpy()) for name in columns]

    def whole(piece: Piece) -> Part:
        *columns, y = read(piece, [*features, target_name])
        X = np.empty((piece.n_rows, len(columns)), dtype)
        for place, column in enumerate(columns):
            X[:, place] = column
        return X, y

    dtype = np.result_type(*(_kept_dtype(np.dtype(schema.field(name).type.to_pandas_dtype())) for name in features))
    return _stored(
        path,
        tuple(pieces),
        len(features),
        dtype,
        read_piece=whole,
        target_reader=lambda piece: read(piece, [target_name])[0],
        feature_names=tuple(features),
        target_name=target_name,
    )


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))
