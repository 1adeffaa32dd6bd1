"""Tables that stay on disk: Parquet files and Arrow's IPC files and streams as `gpuprop.datasets.StoredRows`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.datasets.checks import data_error
from gpuprop.datasets.request import Request, target_column
from gpuprop.datasets.stored import Part, Piece, StoredRows, kept_dtype, stored_rows

__all__ = ["ARROW", "arrow_rows", "parquet_rows"]

ARROW = {".arrow", ".arrows", ".feather", ".ipc"}
"""The endings of Arrow's files and streams."""
_MAGIC = b"ARROW1"

#: Returns columns of a piece, by their names.
_Reader = Callable[[Piece, Sequence[str]], list[NDArray[Any]]]


def parquet_rows(path: Path, files: Sequence[Path], target: str | int | None, weight: str | None) -> StoredRows:
    """Return the rows of Parquet files with equal columns; each row group is a piece."""
    try:
        from pyarrow import parquet
    except ImportError:
        raise _missing(path) from None
    pieces: list[Piece] = []
    metadata_of = {}
    schemas = []
    for file in files:
        metadata_of[file] = metadata = parquet.read_metadata(file)
        schemas.append(metadata.schema.to_arrow_schema())
        groups = range(metadata.num_row_groups)
        pieces += [Piece(file, group, metadata.row_group(group).num_rows) for group in groups]

    def read(piece: Piece, columns: Sequence[str]) -> list[NDArray[Any]]:
        # What a file says of its columns is long: it is read once.
        with parquet.ParquetFile(piece.file, metadata=metadata_of[piece.file], pre_buffer=False) as file:
            table = file.read_row_group(piece.first, columns=list(columns), use_threads=False)
        return [np.asarray(table.column(name).to_numpy()) for name in columns]

    return _table(path, _same_columns(files, schemas), pieces, read, (target, weight))


def arrow_rows(path: Path, files: Sequence[Path], target: str | int | None, weight: str | None) -> StoredRows:
    """Return the rows of Arrow's IPC files or streams with equal columns; each record batch is a piece.

    An IPC file is a stream between a beginning and an end of its own; where its batches begin is found out once.
    """
    try:
        import pyarrow as pa
        from pyarrow import ipc
    except ImportError:
        raise _missing(path) from None
    pieces: list[Piece] = []
    places: dict[tuple[Path, int], int] = {}
    schemas = []
    for file in files:
        # Mapped: only the heads of the batches are read.
        with pa.memory_map(str(file)) as source:
            source.seek(8 if source.read(len(_MAGIC)) == _MAGIC else 0)
            try:
                schema = ipc.read_schema(ipc.read_message(source))
                with suppress(EOFError):  # the end of the stream
                    while True:
                        at, message = source.tell(), ipc.read_message(source)
                        if message.type != "record batch":
                            raise data_error(file, f"holds a {message.type}, expected columns without a dictionary")
                        n_rows = ipc.read_record_batch(message, schema).num_rows
                        if n_rows:
                            places[file, len(pieces)] = at
                            pieces.append(Piece(file, len(pieces), n_rows))
            except (pa.ArrowInvalid, EOFError, OSError) as error:
                raise data_error(file, f"is no file or stream of Arrow's: {error}") from None
        schemas.append(schema)
    schema = _same_columns(files, schemas)

    def read(piece: Piece, columns: Sequence[str]) -> list[NDArray[Any]]:
        with pa.OSFile(str(piece.file)) as source:
            source.seek(places[piece.file, piece.first])
            batch = ipc.read_record_batch(ipc.read_message(source), schema)
            return [np.array(batch.column(name).to_numpy(zero_copy_only=False)) for name in columns]

    return _table(path, schema, pieces, read, (target, weight))


def _missing(path: Path) -> Exception:
    return data_error(path, "Parquet and Arrow need pyarrow; install it with: pip install 'gpuprop[parquet]'")


def _same_columns(files: Sequence[Path], schemas: Sequence[Any]) -> Any:
    """Return the schema of all files."""
    for file, schema in zip(files, schemas, strict=True):
        if schema.names != schemas[0].names:
            raise data_error(file, f"has other columns than {files[0].name}")
    return schemas[0]


def _table(
    path: Path, schema: Any, pieces: Sequence[Piece], read: _Reader, given: tuple[str | int | None, str | None]
) -> StoredRows:
    """Return the rows of a table; `given` are the target and the column of sample weights."""
    names, (target, weight) = list(schema.names), given
    if weight is not None and weight not in names:
        raise data_error(path, f"sample_weight: there is no column {weight!r}, expected one of {', '.join(names)}")
    candidates = [name for name in names if name != weight]
    place = target_column(path, len(candidates), candidates, Request(target=target))
    assert place is not None, "a table has a target"
    target_name, features = candidates[place], [name for i, name in enumerate(candidates) if i != place]
    for name in features if weight is None else [*features, weight]:
        if not _is_number(schema.field(name).type):
            raise data_error(
                path, f"column {name!r} holds {schema.field(name).type}, expected numbers; `load` reads it"
            )
    dtype = np.result_type(*(kept_dtype(np.dtype(schema.field(name).type.to_pandas_dtype())) for name in features))

    def whole(piece: Piece) -> Part:
        *columns, y = read(piece, [*features, target_name])
        X = np.empty((piece.n_rows, len(columns)), dtype)
        for place, column in enumerate(columns):
            X[:, place] = column
        return X, y

    return stored_rows(
        path,
        tuple(pieces),
        len(features),
        dtype,
        read_piece=whole,
        target_reader=lambda piece: read(piece, [target_name])[0],
        weight_reader=None if weight is None else lambda piece: read(piece, [weight])[0],
        feature_names=tuple(features),
        target_name=target_name,
    )


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))
