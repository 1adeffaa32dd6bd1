"""Data sets that stay on disk: their rows are read a block at a time, and need never be in memory together.

`gpuprop.datasets.stored_opening` opens files and folders, and ``Trainer.fit`` takes what it returns in the place of
arrays.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpuprop.datasets.checks import data_error, refuse_nonfinite
from gpuprop.datasets.dataset import Label, encode_like
from gpuprop.datasets.request import Task, row_place

__all__ = ["BLOCK_BYTES", "MEMORY", "Part", "Piece", "Statistics", "StoredRows", "kept_dtype", "stored_rows"]

Part = tuple[NDArray[Any], NDArray[Any]]

MEMORY = 256 * 2**20
"""The bytes that the rows in memory may take, where no other number is given."""
BLOCK_BYTES = 2**20
"""About the bytes of a block, where a file has none of its own."""


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
    row_reader : callable or None
        ``row_reader(rows)`` returns inputs and targets of single rows of the file, in ascending order; None where rows
        cannot be found but by reading those around them.
    weight_reader : callable or None
        ``weight_reader(piece)`` returns the sample weights of a piece.

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
    row_reader: Callable[[NDArray[Any]], Part] | None = None
    weight_reader: Callable[[Piece], NDArray[Any]] | None = None

    #: What messages call such rows, and what the plan of a training says of them.
    kind: ClassVar[str] = "rows that stay on disk"
    said: ClassVar[str] = "the rows stay on disk"

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

        return self._checked(piece.file, X, labels, lambda row: row_place(piece.first + row))

    def rows_at(self, places: NDArray[Any]) -> Part:
        """Return inputs and targets of single rows, as `read` does; `places` are their numbers, in ascending order.

        Raises
        ------
        DataError
            As `read`; the format must have a `row_reader`.
        """
        assert self.row_reader is not None, "the training has looked"
        starts = np.array(self.starts)
        offsets = np.array([piece.first for piece in self.pieces]) - starts[:-1]
        rows = places + offsets[np.searchsorted(starts, places, side="right") - 1]
        file = self.pieces[0].file
        try:
            X, labels = self.row_reader(rows)
        except (OSError, ValueError) as error:
            raise data_error(file, f"cannot be read: {error}") from None
        return self._checked(file, X, labels, lambda row: row_place(int(rows[row])))

    def _checked(self, file: Path, X: NDArray[Any], labels: NDArray[Any], at: Callable[[int], str]) -> Part:
        refuse_nonfinite(file, X, at, lambda column: f"column {column + 1}")
        return np.ascontiguousarray(X, self.dtype), encode_like(file, labels, self.classes, at)

    def read_in_epoch(self, place: int, epoch: int) -> Part:
        """Return what a training takes of a piece in an epoch, counted from 0: here the same in all of them."""
        return self.read(place)

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
    def weights(self) -> NDArray[np.float64] | None:
        """The sample weights of all rows, eight bytes each, which stay in memory; None if there are none.

        Raises
        ------
        DataError
            If one is negative or no finite number, or if all are 0.
        """
        if self.weight_reader is None:
            return None
        found = np.empty(self.n_samples)
        for piece, start in zip(self.pieces, self.starts, strict=False):
            found[start : start + piece.n_rows] = weight = self.weight_reader(piece)
            wrong = ~(np.isfinite(weight) & (weight >= 0))
            if wrong.any():
                row = int(wrong.argmax())
                got = f"got the sample weight {weight[row]:g}, expected a finite number, 0 or more"
                raise data_error(piece.file, f"row {row + 1} of a block of {piece.n_rows}: {got}")
        if not found.any():
            raise data_error(self.name, "got sample weights that are all 0, expected some above")
        return found

    @cached_property
    def target_variation(self) -> float:
        """The weighted sum of squares of a regression's targets about their mean; weights take a pass of their own."""
        if self.weights is None:
            return float((self.statistics.target_deviation**2).sum()) * self.n_samples
        moments = _Moments(self.n_outputs)
        for piece, start in zip(self.pieces, self.starts, strict=False):
            y = self.read_piece(piece)[1].reshape(piece.n_rows, -1)
            moments.add(y, self.weights[start : start + piece.n_rows])
        return float(moments.squares.sum())

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

        def scaled(part: Part) -> Part:
            X, y = part
            return X, (y.reshape(len(y), -1) - mean) / deviation

        by_piece, by_row = self.read_piece, self.row_reader
        rows = replace(
            self,
            read_piece=lambda piece: scaled(by_piece(piece)),
            row_reader=None if by_row is None else lambda rows: scaled(by_row(rows)),
        )
        ones = (found.target_deviation > 0).astype(np.float64)
        vars(rows)["statistics"] = found._replace(target_mean=np.zeros_like(mean), target_deviation=ones)
        return rows, mean, deviation

    def without(self, places: Sequence[int]) -> StoredRows:
        """Return the data set without some of its pieces."""
        left = set(places)
        return replace(self, pieces=tuple(piece for place, piece in enumerate(self.pieces) if place not in left))

    def held_out(self, share: float, seed: int, *, purpose: int = 1) -> tuple[StoredRows, tuple[NDArray[Any], ...]]:
        """Take a random share of the pieces into memory.

        Parameters
        ----------
        share : float
        seed, purpose : int
            Equal ones draw equal pieces.

        Returns
        -------
        rest : StoredRows
        (X, y), or (X, y, sample_weight) where rows have weights

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
        if self.weights is None:
            return self.without(taken), (X, y)
        weight = np.concatenate([self.weights[self.starts[place] : self.starts[place + 1]] for place in taken])
        return self.without(taken), (X, y, weight)


class _Moments:
    """Mean, deviation and sum of squares of columns, over pieces that are added one after the other.

    Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979;
    rows may have weights, whose sums then take the place of numbers of rows.
    """

    def __init__(self, n_columns: int) -> None:
        self.count, self.mean, self.squares = 0.0, np.zeros(n_columns), np.zeros(n_columns)

    def add(self, rows: NDArray[Any], weight: NDArray[np.float64] | None = None) -> None:
        """Add some rows."""
        count = float(len(rows) if weight is None else weight.sum())
        if count == 0:
            return
        wide = rows.astype(np.float64)
        mean = wide.mean(axis=0) if weight is None else weight @ wide / count
        wide -= mean
        wide *= wide
        delta, total = mean - self.mean, self.count + count
        self.squares += wide.sum(axis=0) if weight is None else weight @ wide
        self.squares += delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    @property
    def deviation(self) -> NDArray[np.float64]:
        return np.sqrt(self.squares / max(1.0, self.count))


def kept_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which inputs of a file are kept in memory."""
    if dtype == np.uint8 or dtype == np.float32:
        return dtype
    return np.dtype(np.float32 if dtype.kind in "bf" and dtype.itemsize < 4 else np.float64)


def stored_rows(
    path: Path, pieces: tuple[Piece, ...], n_features: int, dtype: np.dtype[Any], **fields: Any
) -> StoredRows:
    """Return a data set whose targets are not known yet; `fields` are those of `StoredRows` that a format has."""
    usual: dict[str, Any] = {"feature_names": None, "target_name": None, "task": "regression", "classes": None}
    return StoredRows(path.stem, pieces, n_features, dtype, n_outputs=1, memory=MEMORY, **(usual | fields))
