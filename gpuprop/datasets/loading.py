"""Loads a data set, a test part for it, or the input for predictions, from a name or a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gpuprop.datasets.bundled import BUNDLED
from gpuprop.datasets.checks import check_file, data_error, nearest
from gpuprop.datasets.dataset import Dataset, Label, Part, encode_like, encode_target
from gpuprop.datasets.idx import is_idx_name, read_images
from gpuprop.datasets.npy import read_npy, read_npz
from gpuprop.datasets.request import Records, Request, check_n_features
from gpuprop.datasets.table import read_csv, read_openml, read_parquet

Source = str | PathLike[str]
OPENML = "openml:"
READERS: dict[str, Callable[[Path, Request], Records]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".txt": read_csv,
    ".data": read_csv,
    ".npy": read_npy,
    ".npz": read_npz,
    ".parquet": read_parquet,
}
KINDS = f"{', '.join(READERS)}, or IDX with 'idx' in its name"


def load(
    source: Source,
    *,
    target: str | int | None = None,
    labels: Source | None = None,
    task: str = "auto",
    header: bool | None = None,
) -> Dataset:
    """Load a data set for training.

    Parameters
    ----------
    source : str or path
        ``"mnist"``, ``"digits"``, ``"xor"``, ``"openml:NAME"``, or a file: CSV (``.csv``, ``.tsv``, ``.txt``,
        ``.data``), NPY, NPZ with arrays ``X`` and ``y``, Parquet (needs the extra ``parquet``), or IDX, plain or
        ``.gz``, with ``idx`` in its name. A built-in name wins over a file with that name; ``./mnist`` is the file.
    target : str or int, optional
        The target column of a CSV, Parquet, NPY or OpenML source, by name or by index (negative: from the end).
        The default is OpenML's own target, else the last column.
    labels : path, optional
        The IDX file of the labels. The default is the file beside the images whose name has ``labels`` for ``images``
        and ``idx1`` for ``idx3``.
    task : {"auto", "classification", "regression"}, default "auto"
        With ``"auto"``, text, bools, and integers with at most 100 distinct values are classes.
    header : bool, optional
        Whether the first line of a CSV file holds names. By default the reader finds out (see ``table.read_csv``).

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If the source cannot be found or read, or its contents are wrong. The message is one line that names the source,
        the place and what was expected.
    ValueError
        If ``task`` is unknown.
    """
    if _is_bundled(source):
        if target is not None or labels is not None or task not in {"auto", "classification"}:
            raise data_error(source, "has its own labels, for classification; leave out target, labels and task")
        return BUNDLED[str(source)]()
    request = Request(target=target, labels=None if labels is None else Path(labels), header=header)
    records = _read(source, request)
    y, classes = encode_target(records.name, _targets(records), task, records.place)
    return Dataset(
        name=_short_name(source),
        X=records.X,
        y=y,
        task="regression" if classes is None else "classification",
        classes=classes,
        feature_names=records.feature_names,
        target_name=records.target_name,
    )


def load_test(
    source: Source,
    *,
    classes: Sequence[Label] | None,
    n_features: int | None = None,
    feature_names: Sequence[str] | None = None,
    target: str | int | None = None,
    labels: Source | None = None,
    header: bool | None = None,
) -> Part:
    """Load samples with targets that fit an existing model or data set.

    Parameters
    ----------
    source : str or path
        As for ``load``. ``"mnist"`` gives its test part; ``"digits"`` and ``"xor"`` give all their rows.
    classes : sequence of labels or None
        The model's classes, in its order; None for regression.
    n_features : int, optional
        How many features the model takes.
    feature_names : sequence of str, optional
        The names of the model's columns. If the source has names too, its columns are taken by name, in this order.
    target, labels, header
        As for ``load``. Without ``target``, if columns are taken by name, the one that is not a feature is the target.

    Returns
    -------
    X : ndarray of shape (n_samples, n_features)
    y : ndarray
        int64 indices into ``classes``, or float64 for regression.

    Raises
    ------
    DataError
        As for ``load``, and if columns are missing or superfluous, or a label is not one of ``classes``.
    """
    if _is_bundled(source):
        X, labels_of_rows = _bundled_test(source, n_features)
        return X, encode_like(source, labels_of_rows, classes)
    request = Request(
        target=target,
        labels=None if labels is None else Path(labels),
        header=header,
        feature_names=None if feature_names is None else tuple(feature_names),
        n_features=n_features,
    )
    records = _read(source, request)
    return records.X, encode_like(records.name, _targets(records), classes, records.place)


def load_features(
    source: Source,
    *,
    n_features: int | None = None,
    feature_names: Sequence[str] | None = None,
    target: str | None = None,
    header: bool | None = None,
) -> NDArray[Any]:
    """Load samples without targets, for predictions.

    Parameters
    ----------
    source : str or path
        As for ``load``. Every column of an NPY file is a feature; only ``X`` of an NPZ file is read.
    n_features, feature_names, header
        As for ``load_test``.
    target : str, optional
        The name of the model's target column, which is ignored if the source holds it. Nothing else is ignored.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        uint8, float32 or float64, C-contiguous, finite.
    """
    if _is_bundled(source):
        return _bundled_test(source, n_features)[0]
    request = Request(
        target=target,
        header=header,
        feature_names=None if feature_names is None else tuple(feature_names),
        n_features=n_features,
        with_target=False,
    )
    return _read(source, request).X


def _targets(records: Records) -> NDArray[Any]:
    """Return the targets of a source that was read with them."""
    if records.target is None:
        raise data_error(records.name, "got no targets, expected one for each sample")
    return records.target


def _is_bundled(source: Source) -> bool:
    return isinstance(source, str) and source in BUNDLED


def _bundled_test(source: Source, n_features: int | None) -> Part:
    """Return the test part of a built-in data set, or all its rows; its classes 0, 1, ... equal their indices."""
    dataset = BUNDLED[str(source)]()
    X, y = dataset.test or (dataset.X, dataset.y)
    check_n_features(source, X.shape[1], Request(n_features=n_features))
    return X, y


def _read(source: Source, request: Request) -> Records:
    if isinstance(source, str) and source.startswith(OPENML):
        _refuse_labels(source, request)
        return read_openml(source.removeprefix(OPENML), request)
    path = Path(source)
    reader = READERS.get(path.suffix.lower()) or (read_images if is_idx_name(path) else None)
    if reader is None:
        if isinstance(source, str) and not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for long names
            known = [*BUNDLED, OPENML + "NAME"]
            raise data_error(source, f"no such file or data set{nearest(source, BUNDLED)} (known: {', '.join(known)})")
        check_file(path)
        raise data_error(path, f"is a file of unknown kind {path.suffix!r}, expected {KINDS}")
    if reader is not read_images:
        _refuse_labels(path, request)
    if reader in (read_images, read_npz) and request.with_target and request.target is not None:
        raise data_error(
            path, "has no target column to choose: its targets are the labels file (IDX) or the array y (NPZ)"
        )
    return reader(path, request)


def _refuse_labels(source: Source, request: Request) -> None:
    if request.labels is not None:
        raise data_error(source, "got a labels file, which belongs to IDX images only; give a target column instead")


def _short_name(source: Source) -> str:
    """Return a name for a run: ``iris`` for ``data/iris.csv``, ``adult`` for ``openml:adult``."""
    if isinstance(source, str) and source.startswith(OPENML):
        return source.removeprefix(OPENML)
    return Path(source).name.removesuffix(".gz").split(".")[0] or Path(source).name
