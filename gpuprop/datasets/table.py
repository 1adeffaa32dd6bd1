"""Tables with columns of several types from CSV, Parquet and OpenML, all read with pandas."""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.datasets.checks import check_file, data_error, listed, refuse_nonfinite, refuse_oversized
from gpuprop.datasets.request import Records, Request, choose_columns, row_place
from gpuprop.errors import DataError

ENCODING = "utf-8-sig"  # UTF-8, with or without the byte order mark that spreadsheets write


@dataclass(frozen=True, eq=False)
class Table:
    """A pandas frame with its source, the names of its columns and the places of its rows, for messages."""

    source: object
    frame: Any
    names: tuple[str, ...] | None
    place: Callable[[int], str] = row_place

    def records(self, request: Request) -> Records:
        """Return the features and the target that the request asks for."""
        if self.names is not None:
            _check_names(self.source, self.names)
        if self.frame.shape[0] == 0 or self.frame.shape[1] == 0:
            raise data_error(self.source, "has no rows of data, expected at least one")
        features, target = choose_columns(self.source, self.frame.shape[1], self.names, request)
        return Records(
            str(self.source),
            self._numbers(features),
            None if target is None else self._target(target),
            None if self.names is None else tuple(self.names[i] for i in features),
            None if self.names is None or target is None else self.names[target],
            self.place,
        )

    def _numbers(self, columns: list[int]) -> NDArray[np.float64]:
        """Return the columns as one float64 matrix; a text column raises an error that names its first text."""
        X = np.empty((len(self.frame), len(columns)), np.float64)
        for position, column in enumerate(columns):
            values = self.frame.iloc[:, column]
            if values.dtype.kind in "biuf":
                X[:, position] = values.to_numpy(np.float64, na_value=np.nan)
            else:
                X[:, position] = self._parsed(values, column)
        refuse_nonfinite(self.source, X, self.place, lambda position: self._column_name(columns[position]))
        return X

    def _parsed(self, values: Any, column: int) -> NDArray[np.float64]:
        """Return the numbers in a column that pandas left as text: huge integers, or real text, which is an error."""
        import pandas as pd

        name = self._column_name(column)
        if values.dtype.kind != "O":
            raise data_error(self.source, f"{name} holds {values.dtype}, expected numbers; leave it out or convert it")
        missing = values.isna().to_numpy(bool)
        converted = pd.to_numeric(values.astype(object), errors="coerce")
        numbers = np.asarray(converted.to_numpy(np.float64, na_value=np.nan))
        bad = np.isnan(numbers) & ~missing
        if bad.any():
            row = int(np.argmax(bad))
            raise data_error(
                self.source,
                f"{self.place(row)}, {name}: got {str(values.iloc[row])[:60]!r}, expected a number; "
                "leave the column out, or encode its values as numbers",
            )
        return numbers

    def _target(self, column: int) -> NDArray[Any]:
        """Return the target column as bools, integers, floats, or text (dtype object)."""
        values = self.frame.iloc[:, column]
        name = self._column_name(column)
        missing = values.isna().to_numpy(bool)
        if missing.any():
            row = int(np.argmax(missing))
            raise data_error(self.source, f"{self.place(row)}, {name}: got a missing value, expected a target")
        if values.dtype.kind in "biuf":
            kinds = {"b": np.bool_, "i": np.int64, "u": np.uint64, "f": np.float64}
            return np.asarray(values.to_numpy(kinds[values.dtype.kind]))
        texts = values.astype(object).to_numpy(dtype=object)
        other = next((value for value in texts if not isinstance(value, str)), None)
        if other is not None:
            raise data_error(self.source, f"{name} holds values such as {other!r}, expected numbers or text")
        return np.asarray(texts)

    def _column_name(self, column: int) -> str:
        return f"column {column + 1}" if self.names is None else f"column {self.names[column]!r}"


def _check_names(source: object, names: tuple[str, ...]) -> None:
    if "" in names:
        raise data_error(
            source,
            f"column {names.index('') + 1} has no name; name it, or write the file without its index "
            "(pandas: to_csv(..., index=False))",
        )
    duplicates = sorted(name for name, count in Counter(names).items() if count > 1)
    if duplicates:
        raise data_error(source, f"got several columns named {listed(duplicates)}, expected distinct names")


# CSV


def read_csv(path: Path, request: Request) -> Records:
    """Read a CSV file, UTF-8, with or without a line of names.

    The separator is the comma, semicolon or tab that occurs most often in the first line. Without
    ``request.header``, the first line holds names if none of its fields is a number, if a text in it stands above a
    number in the second line, or if it counts 0, 1, 2, ..., the names that pandas gives to nameless columns.
    Only an empty field is a missing value: ``NA`` or ``None`` may be the label of a class.
    """
    check_file(path)
    try:
        separator = _separator(path)
        first = list(islice(_lines(path, separator), 2))
        if not first:
            raise data_error(path, "holds only blank lines, expected rows of numbers")
        header = _is_header([fields for _, fields in first]) if request.header is None else request.header
        names = tuple(field.strip() for field in first[0][1]) if header else None
        if header and len(first) == 1:
            raise data_error(path, "has no rows of data after line 1, which holds the names; expected at least one")
        skipped = first[0][0] if header else 0
        frame = _parse_csv(path, separator, skipped, len(first[0][1]))
    except UnicodeDecodeError:
        raise _encoding_error(path) from None
    except csv.Error as error:
        raise data_error(path, f"is not a valid CSV file: {error}") from None

    def place(row: int) -> str:
        rows = islice(_lines(path, separator), row + bool(header), None)
        return f"line {next(rows, (0, []))[0]}"

    return Table(path, frame, names, place).records(request)


def _separator(path: Path) -> str:
    with path.open(encoding=ENCODING, newline="") as stream:
        first = next((line for line in stream if line.strip()), "")
    return max(",;\t", key=first.count)


def _lines(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the last line and the fields of each row; skip blank lines, as pandas does."""
    with path.open(encoding=ENCODING, newline="") as stream:
        reader = csv.reader(stream, delimiter=separator, skipinitialspace=True)
        for fields in reader:
            if fields and (len(fields) > 1 or fields[0].strip()):
                yield reader.line_num, fields


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _is_header(rows: list[list[str]]) -> bool:
    first = rows[0]
    if not any(map(_is_number, first)) or (len(first) > 2 and first == [str(i) for i in range(len(first))]):
        return True
    second = rows[1] if len(rows) > 1 else []
    return any(
        above and not _is_number(above) and _is_number(below) for above, below in zip(first, second, strict=False)
    )


def _parse_csv(path: Path, separator: str, skipped: int, n_fields: int) -> Any:
    import pandas as pd

    try:
        with path.open(encoding=ENCODING, newline="") as stream:
            for _ in range(skipped):  # skiprows would count a quoted line break differently from csv
                stream.readline()
            frame = pd.read_csv(
                stream,
                sep=separator,
                header=None,
                index_col=False,
                skipinitialspace=True,
                keep_default_na=False,
                na_values=[""],
                low_memory=False,  # one type for the whole column
            )
    except (ValueError, OverflowError, MemoryError) as error:  # pandas' ParserError is a ValueError
        if isinstance(error, UnicodeDecodeError):
            raise
        _refuse_ragged(path, separator, n_fields)
        raise data_error(path, f"is not a valid CSV file: {error}") from None
    # pandas fills short lines, which then have missing values in the last column.
    if frame.shape[1] != n_fields or frame.iloc[:, -1].isna().any():
        _refuse_ragged(path, separator, n_fields)
    return frame


def _refuse_ragged(path: Path, separator: str, n_fields: int) -> None:
    for line, fields in _lines(path, separator):
        if len(fields) != n_fields:
            raise data_error(path, f"line {line} has {len(fields)} fields, expected {n_fields}, as the first line has")


def _encoding_error(path: Path) -> DataError:
    """Return the error for the first byte that is not UTF-8; pandas would count from the start of a block."""
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        return data_error(path, f"got byte {byte:02x} at offset {error.start}, expected UTF-8 text; save it as UTF-8")
    return data_error(path, "is not UTF-8 text; save it as UTF-8")


# Parquet


def read_parquet(path: Path, request: Request) -> Records:
    """Read a Parquet file (needs the extra ``parquet``); an index that pandas stored in it is not read as a column."""
    n_bytes = check_file(path)
    try:
        from pyarrow import parquet
    except ImportError:
        raise data_error(path, "Parquet needs pyarrow; install it with: pip install 'gpuprop[parquet]'") from None
    with path.open("rb") as stream:
        if stream.read(4) != b"PAR1":
            raise data_error(path, "got no PAR1 at offset 0, expected a Parquet file")
        try:
            file = parquet.ParquetFile(stream)
            refuse_oversized(path, 8 * file.metadata.num_rows * file.metadata.num_columns)
            names = tuple(file.schema_arrow.names)
            _check_names(path, names)  # checked here, because pandas cannot hold two columns with one name
            frame = file.read(use_threads=False).to_pandas(use_threads=False)
        except DataError:
            raise
        except Exception as error:  # Arrow's errors have no common base but this one
            raise data_error(path, f"is not a valid Parquet file of {n_bytes} bytes: {str(error)[:200]}") from None
    return Table(path, frame, tuple(map(str, frame.columns))).records(request)


# OpenML


def read_openml(name: str, request: Request) -> Records:
    """Fetch a data set from OpenML by its name with scikit-learn, which keeps it in its own cache."""
    from sklearn.datasets import fetch_openml

    source = f"openml:{name}"
    if not name:
        raise data_error(source, "got no name, expected one, such as diabetes, after the colon")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "A network error occurred")  # the error below reports it
            bunch = fetch_openml(name, as_frame=True)
    except Exception as error:  # no network, no such data set, a broken cache: urllib's, scikit-learn's, ValueError
        raise data_error(source, f"cannot be fetched: {str(error)[:200] or type(error).__name__}") from None
    target = request.target
    if target is None and request.with_target:
        if len(bunch.target_names) != 1:
            raise data_error(source, f"has the targets {listed(bunch.target_names) or 'none'}; give one as target")
        target = bunch.target_names[0]
    names = tuple(map(str, bunch.frame.columns))
    request = replace(request, target=target)
    return Table(source, bunch.frame, names).records(request)
