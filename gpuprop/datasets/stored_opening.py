"""`open`: files and folders whose rows stay on disk."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.datasets.bundled import BUNDLED
from gpuprop.datasets.checks import data_error, listed
from gpuprop.datasets.dataset import encode_target
from gpuprop.datasets.idx import is_idx_name
from gpuprop.datasets.stored import MEMORY, StoredRows
from gpuprop.datasets.stored_arrays import idx_rows, npy_pair_rows, npy_table_rows, npz_folder_rows
from gpuprop.datasets.stored_tables import ARROW, arrow_rows, parquet_rows

__all__ = ["is_stored", "open"]

_MOST_CLASSES = 1000
"""More different labels than these are no classes."""


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
    sample_weight: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    task: str = "auto",
    memory: int = MEMORY,
) -> StoredRows:
    """Open a data set that stays on disk.

    Parameters
    ----------
    source : str or path
        A Parquet file, an IPC file or stream of Arrow's, or a folder of them with equal columns (needs the extra
        ``parquet``); a folder of NPZ files that hold the arrays X and y; a folder with ``X.npy`` and ``y.npy``; an NPY
        file; or an uncompressed IDX file. Rows of the last three can be visited in any order:
        ``Trainer(shuffle="full")``.
    target : str or int, optional
        The target column of a table or NPY file, as for `load`.
    sample_weight : str, optional
        The column of sample weights of a table, or the array of NPZ files. The weights stay in memory, eight bytes for
        each row.
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
    found = _opened(path, target, sample_weight, None if labels is None else Path(labels), memory)
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


def _opened(path: Path, target: str | int | None, weight: str | None, labels: Path | None, memory: int) -> StoredRows:
    files, kinds = _files(path)
    if kinds == [".parquet"]:
        return parquet_rows(path, files, target, weight)
    if kinds and ARROW.issuperset(kinds):
        return arrow_rows(path, files, target, weight)
    if path.is_dir() and kinds == [".npz"]:
        return npz_folder_rows(path, files, weight)
    if weight is not None:
        raise data_error(path, f"sample_weight: got {weight!r}, which Parquet, Arrow and NPZ files may have")
    if path.is_dir():
        if kinds == [".npy"] and {one.name for one in files} == {"X.npy", "y.npy"}:
            return npy_pair_rows(path, memory)
        expected = "expected Parquet files, Arrow files, NPZ files, or X.npy and y.npy"
        raise data_error(path, f"got a folder of {listed(kinds) or 'no files'}, {expected}")
    if kinds == [".npy"]:
        return npy_table_rows(path, target, memory)
    if is_idx_name(path):
        return idx_rows(path, labels, memory)
    raise data_error(path, "got a file of another kind, expected Parquet, Arrow, NPY or IDX, or a folder")


def _files(path: Path) -> tuple[list[Path], list[str]]:
    """Return the files of a folder, or a file by itself, and the different endings of their names."""
    files = [path]
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith((".", "_")))
    return files, sorted({one.suffix.lower() for one in files})
