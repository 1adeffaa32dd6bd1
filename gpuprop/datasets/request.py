"""``Request``, which tells a reader what to read; ``Records``, which it returns; and the choice of columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from gpuprop.datasets.checks import data_error, listed, nearest
from gpuprop.datasets.first_line import TARGET_NAMES

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Request:
    """What to read from a file.

    Attributes
    ----------
    target : str, int or None
        The target column by name or by index (negative: from the end). None takes, if ``feature_names`` are known, the
        one column that is not among them; else the column named y, target, label or class; else the last one.
    labels : Path or None
        The label file that belongs to an IDX file of images.
    header : bool or None
        Whether a CSV file starts with a line of names; None lets the reader find out.
    feature_names : tuple of str or None
        The names of a model's columns.
    kinds : mapping of str to {"number", "text"}
        What columns hold, by name, where that is known.
    na_values : tuple of str
        What stands for a missing value beside pandas' own spellings.
    n_features : int or None
        The number of features that the file must have.
    with_target : bool
        Whether to read targets; False for predictions.
    arrays : mapping of str to str
        The names of the arrays ``"X"`` and ``"y"`` in an NPZ file.
    max_unpacked : int or None
        The most bytes that a compressed file may unpack to, see `gpuprop.datasets.checks.refuse_unpacked`.
    """

    target: str | int | None = None
    labels: Path | None = None
    header: bool | None = None
    feature_names: tuple[str, ...] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    na_values: tuple[str, ...] = ()
    n_features: int | None = None
    with_target: bool = True
    arrays: Mapping[str, str] = field(default_factory=dict)
    max_unpacked: int | None = None

    @property
    def known_names(self) -> tuple[str, ...]:
        """The names of columns that are known before the file is read."""
        return tuple(dict.fromkeys([*(self.feature_names or ()), *self.kinds]))


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
    notes : tuple of str
        A sentence about each thing that was guessed.
    task : {"classification", "regression"} or None
        What the file says about the target beyond its values: a file of labels and a nominal column hold classes,
        sums of money are numbers.
    test : tuple (X, target) or None
        The test part, if the file holds one.
    """

    name: str
    X: NDArray[Any]
    target: NDArray[Any] | None
    feature_names: tuple[str, ...] | None = None
    target_name: str | None = None
    place: Callable[[int], str] = row_place
    notes: tuple[str, ...] = ()
    task: Task | None = None
    test: tuple[NDArray[Any], NDArray[Any]] | None = None


def choose_columns(source: object, n_columns: int, request: Request) -> tuple[list[int], int | None]:
    """Return the indices of the feature columns of a nameless matrix, and the index of the target column (or None)."""
    target = target_column(source, n_columns, None, request)
    features = [i for i in range(n_columns) if i != target]
    check_features(source, n_columns, len(features), request)
    return features, target


def choose_named(source: object, names: Sequence[str], target_name: str | None, request: Request) -> list[int]:
    """Return the indices of the columns that the request names as features, in its order, or of all columns.

    ``names`` are the columns beside the target. One that is not a feature is an error: no column is dropped silently.
    """
    wanted = request.feature_names
    if wanted is None:
        return list(range(len(names)))
    if target_name in wanted:
        raise data_error(source, f"column {target_name!r} is a feature, not a target")
    places = {name: i for i, name in enumerate(names)}
    missing = [name for name in wanted if name not in places]
    known = set(wanted)
    others = [name for name in names if name not in known]
    if missing:
        hint = nearest(missing[0], others) if len(missing) == 1 else ""
        raise data_error(
            source,
            f"has no column {listed(missing)}{hint} "
            f"(columns of the file: {listed(names)}; of the model: {listed(wanted)})",
        )
    if others:
        raise data_error(source, f"got unexpected columns {listed(others)}; remove them")
    return [places[name] for name in wanted]


def check_features(source: object, n_columns: int, n_features: int, request: Request) -> None:
    """Raise ``DataError`` unless features are left, as many as the request expects."""
    if n_features == 0:
        raise data_error(source, f"got {n_columns} column(s), expected at least one feature beside the target")
    check_n_features(source, n_features, request)


def check_n_features(source: object, n_features: int, request: Request) -> None:
    """Raise ``DataError`` unless the file has the number of features that the request expects."""
    if request.n_features is not None and n_features != request.n_features:
        raise data_error(source, f"got {n_features} features, expected {request.n_features}")


def target_column(source: object, n_columns: int, names: Sequence[str] | None, request: Request) -> int | None:
    """Return the index of the target column, or None if the file need not hold one and does not say that it does."""
    target = request.target
    if not request.with_target:
        # Input for predictions may still hold the target, which only its name can tell.
        if names is None:
            is_there = request.feature_names is not None and n_columns == len(request.feature_names) + 1
            return _place(target, n_columns) if is_there else None
        return list(names).index(target) if isinstance(target, str) and target in names else None
    if names is None and _place(target, n_columns) is not None:
        return _place(target, n_columns)
    if target is None:
        return _default_target(source, n_columns, names, request.feature_names)
    if isinstance(target, str):
        if names is not None and target in names:
            return list(names).index(target)
        if not target.removeprefix("-").isdecimal():
            if names is None:
                raise data_error(source, f"got target {target!r}, but the columns have no names; give an index")
            raise data_error(source, f"has no column {target!r}{nearest(target, names)} (columns: {listed(names)})")
        if names is not None and not -n_columns <= int(target) < n_columns:
            raise data_error(
                source,
                f"has no column {target!r}, and that is no index of its {n_columns} columns ({listed(names)})",
            )
        target = int(target)
    if not -n_columns <= target < n_columns:
        raise data_error(source, f"got target index {target}, expected {-n_columns} to {n_columns - 1}")
    return target % n_columns


def _place(target: object, n_columns: int) -> int | None:
    """Return the index of ``"column 3"``, as nameless columns are called."""
    found = re.fullmatch(r"column (\d+)", target) if isinstance(target, str) else None
    return int(found[1]) - 1 if found and 1 <= int(found[1]) <= n_columns else None


def is_target_guessed(names: Sequence[str] | None, target: int | None, request: Request) -> bool:
    """Return whether nothing but its place at the end made a column the target."""
    if target is None or request.target is not None or (names is not None and request.feature_names is not None):
        return False
    return names is None or names[target].casefold() not in TARGET_NAMES


def _default_target(
    source: object, n_columns: int, names: Sequence[str] | None, feature_names: Sequence[str] | None
) -> int:
    if names is None:
        return n_columns - 1
    if feature_names is None:
        obvious = [i for i, name in enumerate(names) if name.casefold() in TARGET_NAMES]
        return obvious[0] if len(obvious) == 1 else n_columns - 1
    others = [i for i in range(n_columns) if names[i] not in feature_names]
    if len(others) > 1:
        others = [i for i in others if names[i].casefold() in TARGET_NAMES] or others
    if len(others) != 1:
        found = listed([names[i] for i in others]) or "none"
        raise data_error(
            source,
            f"got columns beside the features: {found}, expected exactly one, the target; name it as target "
            f"(columns of the model: {listed(feature_names)})",
        )
    return others[0]
