"""Loads a data set, a test part for it, the input for predictions, or a table, from a name or a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gpuprop.datasets.bundled import BUNDLED
from gpuprop.datasets.checks import check_file, data_error, nearest
from gpuprop.datasets.columnar import OPENML, read_openml, read_parquet
from gpuprop.datasets.dataset import Dataset, Label, Part, encode_like, encode_target
from gpuprop.datasets.delimited import read_csv
from gpuprop.datasets.idx import is_idx_name, read_images
from gpuprop.datasets.npy import read_npy, read_npz
from gpuprop.datasets.opening import ENDINGS, bare_name, ending
from gpuprop.datasets.raw_table import Columns, RawTable, numeric_records, raw_table
from gpuprop.datasets.request import Records, Request, check_n_features

Source = str | PathLike[str]
TABLES: dict[str, Callable[[Path, Request], Columns]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".tab": read_csv,
    ".psv": read_csv,
    ".txt": read_csv,
    ".data": read_csv,
    ".dat": read_csv,
    ".parquet": read_parquet,
}
ARRAYS: dict[str, Callable[[Path, Request], Records]] = {".npy": read_npy, ".npz": read_npz}
KINDS = f"{', '.join([*TABLES, *ARRAYS])}, or IDX with 'idx' in its name"


def load(
    source: Source,
    *,
    target: str | int | None = None,
    labels: Source | None = None,
    task: str = "auto",
    header: bool | None = None,
    arrays: Mapping[str, str] | None = None,
    feature_names: Sequence[str] | None = None,
    max_unpacked: int | None = None,
) -> Dataset:
    """Load a data set of numbers for training.

    Parameters
    ----------
    source : str or path
        ``"mnist"``, ``"digits"``, ``"xor"``, ``"openml:NAME"``, ``"openml:NAME@VERSION"``, ``"openml:ID"``, or a file:
        text (``.csv``, ``.tsv``, ``.tab``, ``.psv``, ``.txt``, ``.data``, ``.dat``), plain or compressed by gzip,
        bzip2, xz, zstd or zip, which its first bytes tell; NPY; NPZ; Parquet (needs the extra ``parquet``); or IDX,
        plain or gzip-compressed, with ``idx`` in its name. A built-in name wins over a file with that name;
        ``./mnist`` is the file.
    target : str or int, optional
        The target column of a table or NPY file, by name or by index (negative: from the end). The default is
        OpenML's own target, else the column named y, target, label or class, else the last column.
    labels : path, optional
        The IDX file of the labels. The default is the file beside the images whose name has ``labels`` for ``images``
        and ``idx1`` for ``idx3``.
    task : {"auto", "classification", "regression"}, default "auto"
        With ``"auto"`` the values decide, however they are stored; see `encode_target`.
    header : bool, optional
        Whether the first line of a text file holds names. By default the reader finds out, or refuses the file.
    arrays : dict, optional
        The names of the arrays ``"X"`` and ``"y"`` of an NPZ file. By default they are found by the names in use:
        ``X`` and ``y``, ``x_train`` and ``y_train`` (with ``x_test`` and ``y_test`` as the test part), ``data`` and
        ``target``, ``images`` and ``labels``, ``arr_0`` and ``arr_1``.
    feature_names : sequence of str, optional
        The names of a model's columns. If the source has names too, its columns are taken by name, in this order.
    max_unpacked : int, optional
        The most bytes that a compressed file (also NPZ and Parquet) may unpack to. The default is the environment
        variable ``GPUPROP_MAX_UNPACKED``, and without it 512 MiB, or 200 times the file if that is more: a small file
        can be made to fill any memory.

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

    Examples
    --------
    >>> import gpuprop
    >>> gpuprop.datasets.load("digits").X.shape
    (1797, 64)
    """
    if _is_bundled(source):
        if target is not None or labels is not None or task not in {"auto", "classification"}:
            raise data_error(source, "has its own labels, for classification; leave out target, labels and task")
        return BUNDLED[str(source)]()
    request = Request(
        target=target,
        labels=None if labels is None else Path(labels),
        header=header,
        feature_names=None if feature_names is None else tuple(feature_names),
        arrays=arrays or {},
        max_unpacked=max_unpacked,
    )
    records = _read(source, request)
    told = records.task if task == "auto" and records.task is not None else task
    y, classes = encode_target(records.name, _targets(records), told, records.place)
    test = None
    if records.test is not None:
        X_test, labels_of_test = records.test
        test = X_test, encode_like(f"{records.name} (test part)", labels_of_test, classes)
    return Dataset(
        name=short_name(source),
        X=records.X,
        y=y,
        task="regression" if classes is None else "classification",
        classes=classes,
        feature_names=records.feature_names,
        target_name=records.target_name,
        test=test,
        notes=records.notes,
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
    arrays: Mapping[str, str] | None = None,
    max_unpacked: int | None = None,
) -> Part:
    """Load samples with targets that fit an existing model or data set.

    Parameters
    ----------
    source : str or path
        As for ``load``. ``"mnist"`` and an NPZ file with a test part give this part; ``"digits"`` and ``"xor"`` give
        all their rows.
    classes : sequence of labels or None
        The model's classes, in its order; None for regression.
    n_features : int, optional
        How many features the model takes.
    feature_names : sequence of str, optional
        The names of the model's columns. If the source has names too, its columns are taken by name, in this order.
    target, labels, header, arrays, max_unpacked
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

    Examples
    --------
    >>> import gpuprop
    >>> dataset = gpuprop.datasets.load("digits")
    >>> X, y = gpuprop.datasets.load_test("digits", classes=dataset.classes)
    >>> X.shape[1]
    64
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
        arrays=arrays or {},
        max_unpacked=max_unpacked,
    )
    records = _read(source, request)
    X, found = records.test or (records.X, _targets(records))
    return X, encode_like(records.name, found, classes, records.place)


def load_features(
    source: Source,
    *,
    n_features: int | None = None,
    feature_names: Sequence[str] | None = None,
    target: str | None = None,
    header: bool | None = None,
    arrays: Mapping[str, str] | None = None,
    max_unpacked: int | None = None,
) -> NDArray[Any]:
    r"""Load samples without targets, for predictions.

    Parameters
    ----------
    source : str or path
        As for ``load``. Every column of an NPY file is a feature; only the features of an NPZ file are read, and of
        one with a test part only this part.
    n_features, feature_names, header, arrays, max_unpacked
        As for ``load_test``.
    target : str, optional
        The model's target column, which is ignored if the source holds it: its name, or its index in an NPY file.
        Nothing else is ignored.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        uint8, float32 or float64, C-contiguous, finite.

    Raises
    ------
    DataError
        If the file cannot be read, or its columns are not those that were asked for.

    Examples
    --------
    >>> from pathlib import Path
    >>> import gpuprop
    >>> _ = Path("rows.csv").write_text("a,b\n1,2\n3,4\n")
    >>> gpuprop.datasets.load_features("rows.csv", n_features=2).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    if _is_bundled(source):
        return _bundled_test(source, n_features)[0]
    request = Request(
        target=target,
        header=header,
        feature_names=None if feature_names is None else tuple(feature_names),
        n_features=n_features,
        with_target=False,
        arrays=arrays or {},
        max_unpacked=max_unpacked,
    )
    return _read(source, request).X


def read_table(
    source: Source,
    *,
    target: str | int | None = None,
    header: bool | None = None,
    na_values: Sequence[str] = (),
    columns: Sequence[str] | None = None,
    kinds: Mapping[str, str] | None = None,
    with_target: bool = True,
    max_unpacked: int | None = None,
) -> RawTable:
    r"""Read a table of any columns: text (CSV of all kinds), Parquet, or OpenML; see `is_table`.

    Parameters
    ----------
    source : str or path
        As for ``load``; no arrays.
    target, header, max_unpacked
        As for ``load``. Without ``with_target``, ``target`` names a column to leave out if it is there.
    na_values : sequence of str, default ()
        What stands for a missing value beside an empty field and pandas' spellings (``NA``, ``NaN``, ``None``, ...).
        Where such a spelling is one more value of a nominal feature (no garage: ``NA``), nothing is lost: a missing
        value is told apart from all others. But it may be the name of a class; so in a target of text only an empty
        field and ``na_values`` are missing.
    columns : sequence of str, optional
        The names of all columns of a model. They tell whether line 1 holds names, and name the columns of a file
        without names. Columns that are missing from the file, or superfluous, are no error here.
    kinds : dict of str to {"number", "text"}, optional
        What columns hold, where that is known. Text keeps the spelling of the file (``01`` stays ``01``); a column of
        numbers with a cell that is none is an error, which names the line.
    with_target : bool, default True
        Whether to read a target.

    Returns
    -------
    RawTable

    Raises
    ------
    DataError
        If the source cannot be found or read, or its contents are wrong.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from gpuprop.datasets import read_table
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "trips.csv"
    >>> _ = path.write_text("city;km;paid\nOslo;1,5;yes\n;2,5;no\n")
    >>> table = read_table(path, target="paid")
    >>> table.frame["km"].tolist(), table.target.tolist(), table.notes
    ([1.5, 2.5], ['yes', 'no'], ("Column 'km' was read as numbers: '1,5' is 1.5.",))
    """
    if not is_table(source):
        if not _is_bundled(source):
            _reader(source)
        raise data_error(source, f"holds no table with columns; expected {', '.join(TABLES)} or {OPENML}NAME")
    request = Request(
        target=target,
        header=header,
        feature_names=None if columns is None else tuple(columns),
        kinds=kinds or {},
        na_values=tuple(na_values),
        with_target=with_target,
        max_unpacked=max_unpacked,
    )
    return _read_table(source, request)


def is_table(source: Source) -> bool:
    """Return whether a source holds a table with columns (text, Parquet, OpenML), which ``read_table`` reads.

    Examples
    --------
    >>> from gpuprop.datasets import is_table
    >>> is_table("shop.csv"), is_table("images.npy")
    (True, False)
    """
    if _is_bundled(source):
        return False
    return _is_openml(source) or ending(Path(source)) in TABLES


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


def _is_openml(source: Source) -> bool:
    return isinstance(source, str) and source.startswith(OPENML)


def _read_table(source: Source, request: Request) -> RawTable:
    if _is_openml(source):
        return raw_table(read_openml(str(source).removeprefix(OPENML), request), request)
    path = Path(source)
    return raw_table(TABLES[ending(path)](path, request), request)


def _read(source: Source, request: Request) -> Records:
    if is_table(source):
        _refuse_labels(source, request)
        _refuse_arrays(source, request)
        return numeric_records(_read_table(source, request), request)
    path, reader = Path(source), _reader(source)
    if reader is not read_images:
        _refuse_labels(path, request)
    if reader is not read_npz:
        _refuse_arrays(path, request)
    if reader is not read_npy and request.with_target and request.target is not None:
        raise data_error(
            path, "has no target column to choose: its targets are the labels file (IDX) or the array y (NPZ)"
        )
    return reader(path, request)


def _reader(source: Source) -> Callable[[Path, Request], Records]:
    """Return the reader of a file of arrays."""
    path = Path(source)
    reader = ARRAYS.get(path.suffix.lower()) or (read_images if is_idx_name(path) else None)
    if reader is None:
        if isinstance(source, str) and not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for long names
            known = [*BUNDLED, OPENML + "NAME"]
            raise data_error(source, f"no such file or data set{nearest(source, BUNDLED)} (known: {', '.join(known)})")
        check_file(path)
        raise data_error(path, f"is a file of unknown kind {path.suffix!r}, expected {KINDS}; {_advice(path)}")
    return reader


def _advice(path: Path) -> str:
    if path.suffix.lower() in {".xls", ".xlsx", ".ods"}:
        return "save the sheet as CSV UTF-8"
    if path.suffix.lower() in ENDINGS:
        return f"name it with the ending of what it holds, such as {path.stem}.csv{path.suffix}"
    return "rename it if it is one of them"


def _refuse_labels(source: Source, request: Request) -> None:
    if request.labels is not None:
        raise data_error(source, "got a labels file, which belongs to IDX images only; give a target column instead")


def _refuse_arrays(source: Source, request: Request) -> None:
    if request.arrays:
        raise data_error(source, "got names of arrays, which belong to NPZ files only; leave them out")


def short_name(source: Source) -> str:
    """Return a name for a run: ``iris`` for ``data/iris.csv``, ``adult`` for ``openml:adult@2``.

    Examples
    --------
    >>> from gpuprop.datasets import short_name
    >>> short_name("data/shop.csv")
    'shop'
    """
    if _is_openml(source):
        return str(source).removeprefix(OPENML).partition("@")[0]
    name = bare_name(Path(source))
    return name.split(".")[0] or name
