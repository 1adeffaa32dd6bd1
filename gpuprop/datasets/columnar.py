"""Tables whose columns have types of their own: Parquet, read by pyarrow, and OpenML, fetched by scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpuprop.datasets.checks import check_file, data_error, listed, refuse_unpacked
from gpuprop.datasets.opening import hint
from gpuprop.datasets.raw_table import Columns, check_names
from gpuprop.datasets.request import Request, target_column
from gpuprop.errors import DataError

OPENML = "openml:"
BATCH_ROWS = 4096
#: Arrow's types of columns that a file can hold by codes: a few bytes may then stand for very many.
TEXTS_AND_BYTES = ("string", "large_string", "binary", "large_binary")


def read_parquet(path: Path, request: Request) -> Columns:
    """Read a Parquet file (needs the extra ``parquet``); an index that pandas stored in it is not read as a column."""
    n_bytes, unpacked = check_file(path), 0
    try:
        from pyarrow import Table, parquet
    except ImportError:
        raise data_error(path, "Parquet needs pyarrow; install it with: pip install 'gpuprop[parquet]'") from None
    with path.open("rb") as stream:
        start = stream.read(16)
        if start[:4] != b"PAR1":
            raise data_error(path, f"got no PAR1 at offset 0, expected a Parquet file{hint(start)}")
        try:
            file = parquet.ParquetFile(stream)
            refuse_unpacked(path, _declared_bytes(file.metadata), n_bytes, request.max_unpacked)
            check_names(path, file.schema_arrow.names)  # here, because pandas cannot hold two columns with one name
            texts = [field.name for field in file.schema_arrow if str(field.type) in TEXTS_AND_BYTES]
            coded = parquet.ParquetFile(stream, read_dictionary=texts)
            batches = []
            for batch in coded.iter_batches(BATCH_ROWS, use_threads=False):
                batches.append(batch)
                unpacked += _unpacked_bytes(batch, texts)
                refuse_unpacked(path, unpacked, n_bytes, request.max_unpacked)
            table = Table.from_batches(batches, coded.schema_arrow).cast(file.schema_arrow)
            frame = table.to_pandas(use_threads=False)
        except DataError:
            raise
        except Exception as error:  # Arrow's errors have no common base but this one
            raise data_error(path, f"is not a valid Parquet file of {n_bytes} bytes: {str(error)[:200]}") from None
    return _columns(path, frame, request, [])


def _declared_bytes(metadata: Any) -> int:
    """Return the bytes of a Parquet file's columns by what its footer says, with 8 for each cell."""
    groups = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return int(max(8 * metadata.num_rows * metadata.num_columns, groups))


def _unpacked_bytes(batch: Any, texts: Sequence[str]) -> int:
    """Return the bytes of a part of a table once its texts, which are codes here, are written out."""
    from pyarrow import compute

    n_bytes = int(batch.nbytes)
    for name in texts:
        column = batch.column(name)
        lengths = compute.binary_length(column.dictionary).cast("int64")
        n_bytes += compute.sum(lengths.take(column.indices)).as_py() or 0
    return n_bytes


def read_openml(name: str, request: Request) -> Columns:
    """Fetch a data set from OpenML with scikit-learn, which keeps it in its own cache.

    ``NAME`` takes the oldest active version, ``NAME@VERSION`` the one that is said, and a number is OpenML's own ID.
    """
    from sklearn.datasets import fetch_openml

    source = OPENML + name
    title, _, version = name.partition("@")
    if not title:
        raise data_error(source, "got no name, expected one, such as diabetes, after the colon")
    if (version or "@" in name) and not version.isdecimal():
        raise data_error(source, f"got version {version!r}, expected a number, as in {OPENML}{title}@2")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if title.isdecimal() and not version:
                bunch = fetch_openml(data_id=int(title), as_frame=True)
            elif version:
                bunch = fetch_openml(title, version=int(version), as_frame=True)
            else:
                bunch = fetch_openml(title, as_frame=True)
    except Exception as error:  # no network, no such data set, a broken cache: urllib's, scikit-learn's, ValueError
        raise data_error(source, f"cannot be fetched: {str(error)[:200] or type(error).__name__}") from None
    notes = [str(warning.message) for warning in caught if "version" in str(warning.message)]
    target = request.target
    if target is None and request.with_target:
        if len(bunch.target_names) != 1:
            raise data_error(source, f"has the targets {listed(bunch.target_names) or 'none'}; give one as target")
        target = bunch.target_names[0]
    return _columns(source, bunch.frame, replace(request, target=target), notes)


def _columns(source: object, frame: Any, request: Request, notes: Sequence[str]) -> Columns:
    """Return columns of numbers and text for those of a frame; nominal ones stay nominal."""
    names = tuple(map(str, frame.columns))
    check_names(source, names)
    if not names:
        raise data_error(source, "has no columns, expected at least one")
    target = target_column(source, len(names), names, request)
    frame = frame.reset_index(drop=True)
    frame.columns = range(len(names))
    nominal = [i for i in frame.columns if hasattr(frame[i].dtype, "categories")]
    for i in frame.columns:
        is_text = request.kinds.get(names[i]) == "text"
        frame[i] = _plain(frame[i], is_text, keeps_bools=i == target)
    return Columns(source, frame, names, target, notes=tuple(notes), nominal=nominal)


def _plain(column: Any, is_text: bool, keeps_bools: bool) -> Any:
    """Return a column as numbers or text.

    Decimals become floats; dates their ISO form; bools and whatever else there is become text, as in a CSV file.
    """
    import pandas as pd

    kind = column.dtype.kind
    if hasattr(column.dtype, "categories"):
        return _texts(column.astype(object))
    if kind in "iuf" and not is_text:
        has_gaps = bool(column.isna().any())
        return column.astype("float64") if has_gaps or kind == "f" else column.astype(column.dtype.name.lower())
    if kind == "b" and keeps_bools and not column.isna().any():
        return column.astype(bool)
    if kind == "M":
        at_midnight = bool((column.dropna() == column.dropna().dt.normalize()).all())
        return _texts(column.dt.strftime("%Y-%m-%d" if at_midnight else "%Y-%m-%dT%H:%M:%S.%f"))
    if kind != "O":
        return _texts(column.astype(object))
    kinds = {type(value).__name__ for value in column.dropna()}
    if kinds == {"Decimal"} and not is_text:
        return pd.to_numeric(column.astype(object).where(column.notna(), None).map(float, na_action="ignore"))
    return _texts(column)


def _texts(column: Any) -> Any:
    """Return a column as text; bytes are taken for UTF-8."""
    values = column.astype(object)
    return values.where(values.notna(), None).map(_text, na_action="ignore")


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
