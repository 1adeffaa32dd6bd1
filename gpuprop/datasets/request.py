"""``Request``, which tells a reader what to read; ``Records``, which it returns; and the choice of columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gpuprop.datasets.checks import data_error, listed, nearest


@dataclass(frozen=True)
class Request:
    """What to read from a file.

    Attributes
    ----------
    target : str, int or None
        The target column by name or by index (negative: from the end). None takes the last column or, if
        ``feature_names`` are known, the one column that is not among them.
    labels : Path or None
        The label file that belongs to an IDX file of images.
    header : bool or None
        Whether a CSV file starts with a line of names; None lets the reader find out.
    feature_names : tuple of str or None
        The columns to read, in this order, from files that name their columns.
    n_features : int or None
        The number of features that the file must have.
    with_target : bool
        Whether to read targets; False for predictions.
    """

    target: str | int | None = None
    labels: Path | None = None
    header: bool | None = None
    feature_names: tuple[str, ...] | None = None
    n_features: int | None = None
    with_target: bool = True


def row_place(row: int) -> str:
    """Name a row for a message, counted from 1."""
    return f"row {row + 1}"


@dataclass(frozen=True, eq=False)
class Records:
    """What a reader returns; the targets are still those of the file.

    Attributes
    ----------
    name : str
        The source, for messages.
    X : ndarray of shape (n_samples, n_features)
        Finite numbers, C-contiguous; uint8, float32 or float64.
    target : ndarray of shape (n_samples,) or (n_samples, K), or None
        Numbers, bools or text (dtype U, or object holding ``str`` only).
    feature_names : tuple of str or None
    target_name : str or None
    place : callable
        Takes the index of a row, and returns its name in a message: ``"line 7"``, ``"row 6"``.
    """

    name: str
    X: NDArray[Any]
    target: NDArray[Any] | None
    feature_names: tuple[str, ...] | None = None
    target_name: str | None = None
    place: Callable[[int], str] = row_place


def choose_columns(
    source: object, n_columns: int, names: Sequence[str] | None, request: Request
) -> tuple[list[int], int | None]:
    """Return the indices of the feature columns, in order, and the index of the target column (or None).

    Columns are found by name if the file and the request both have names, else by position. A column that is neither
    a feature nor the target is an error: no column is dropped silently.
    """
    target = _target_column(source, n_columns, names, request)
    if request.feature_names is not None and names is not None:
        features = [_column_named(source, name, names) for name in request.feature_names]
        others = [names[i] for i in range(n_columns) if i not in {*features, target}]
        if others:
            raise data_error(source, f"got unexpected columns {listed(others)}; remove them")
        if target in features:
            raise data_error(source, f"column {names[features[features.index(target)]]!r} is a feature, not a target")
    else:
        features = [i for i in range(n_columns) if i != target]
    if not features:
        raise data_error(source, f"got {n_columns} column(s), expected at least one feature beside the target")
    check_n_features(source, len(features), request)
    return features, target if request.with_target else None


def check_n_features(source: object, n_features: int, request: Request) -> None:
    """Raise ``DataError`` unless the file has the number of features that the request expects."""
    if request.n_features is not None and n_features != request.n_features:
        raise data_error(source, f"got {n_features} features, expected {request.n_features}")


def _target_column(source: object, n_columns: int, names: Sequence[str] | None, request: Request) -> int | None:
    target = request.target
    if not request.with_target:
        # Input for predictions may still hold the target, which only its name can tell.
        return names.index(target) if names is not None and isinstance(target, str) and target in names else None
    if target is None:
        return _last_or_only_other(source, n_columns, names, request.feature_names)
    if isinstance(target, str):
        if names is not None and target in names:
            return names.index(target)
        if not target.removeprefix("-").isdecimal():
            if names is None:
                raise data_error(source, f"got target {target!r}, but the columns have no names; give an index")
            return _column_named(source, target, names)
        target = int(target)
    if not -n_columns <= target < n_columns:
        raise data_error(source, f"got target index {target}, expected {-n_columns} to {n_columns - 1}")
    return target % n_columns


def _last_or_only_other(
    source: object, n_columns: int, names: Sequence[str] | None, feature_names: Sequence[str] | None
) -> int:
    if names is None or feature_names is None:
        return n_columns - 1
    others = [i for i in range(n_columns) if names[i] not in feature_names]
    if len(others) != 1:
        found = listed([names[i] for i in others]) or "none"
        raise data_error(source, f"got columns beside the features: {found}, expected exactly one, the target")
    return others[0]


def _column_named(source: object, name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise data_error(source, f"has no column {name!r}{nearest(name, names)} (columns: {listed(names)})")
    return list(names).index(name)
