"""Which rows of a data set train a network, and which test it; they are the same in every test."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop import datasets
from gpuprop.datasets import Dataset
from gpuprop.datasets.bundled import BUNDLED
from gpuprop.datasets.checks import listed
from gpuprop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.datasets import RawTable
    from gpuprop.model.network import Network

    Part = tuple[NDArray[Any], NDArray[Any]]

__all__ = [
    "TEST_FRACTION",
    "Source",
    "TableParts",
    "check_columns",
    "held_out_rows",
    "kinds_of",
    "rows_for_model",
    "table_parts",
    "target_asked",
    "targets_like",
    "targets_of",
    "train_and_test_parts",
    "with_targets",
]

_SHOWN = 20
"""The most names that a message lists."""

#: Share of the rows held out for testing, where a data set has no test part of its own.
TEST_FRACTION = 0.25


@dataclass(frozen=True)
class Source:
    """Where data come from, and how they are read; see `gpuprop.datasets.load`.

    Attributes
    ----------
    data : str
        A built-in data set, ``openml:NAME`` or a file.
    target : str or None
        The target column, by name or index.
    labels : str or None
        The labels of an IDX file.
    header : bool or None
        Whether a CSV file starts with a line of names.
    arrays : mapping of str to str
        The names of the arrays X and y in an NPZ file.
    na_values : tuple of str
        What stands for a missing value in a table, beside the usual spellings.
    """

    data: str
    target: str | None = None
    labels: str | None = None
    header: bool | None = None
    arrays: Mapping[str, str] = field(default_factory=dict)
    na_values: tuple[str, ...] = ()

    def load(self, task: str = "auto") -> Dataset:
        """Return the data set of a source of numbers."""
        return datasets.load(
            self.data, target=self.target, labels=self.labels, task=task, header=self.header, arrays=self.arrays
        )

    def read_table(
        self, *, columns: Sequence[str] | None = None, kinds: Mapping[str, str] | None = None, with_target: bool = True
    ) -> RawTable:
        """Return the table of a source of mixed columns; see `gpuprop.datasets.read_table`."""
        return datasets.read_table(
            self.data,
            target=self.target,
            header=self.header,
            na_values=self.na_values,
            columns=columns,
            kinds=kinds,
            with_target=with_target,
        )


@dataclass(frozen=True, eq=False)
class TableParts:
    """The rows of a table that train a model, and those that test it.

    Attributes
    ----------
    name : str
        A short name for the run.
    train, test : tuple (frame, y)
        Data frames of columns of any kind; ``y`` holds indices into `classes`, or the values of a regression.
    classes : list of labels or None
        As the file spells them; None for a regression.
    target_name : str
    notes : tuple of str
        A sentence about each thing that was guessed.
    target_guessed : bool
        Whether nothing but its place made a column the target.
    place : callable
        Takes the number of a row in the table, and returns its name in a message; the frames' indices are such numbers.
    """

    name: str
    train: tuple[Any, NDArray[Any]]
    test: tuple[Any, NDArray[Any]]
    classes: list[Any] | None
    target_name: str
    notes: tuple[str, ...]
    target_guessed: bool
    place: Callable[[int], str]

    def labels(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return the labels of class indices; the values of a regression as they are."""
        return y if self.classes is None else np.array(self.classes)[y]


def train_and_test_parts(
    dataset: Dataset, test: Source | None = None, fraction: float | None = None, seed: int = 0
) -> tuple[Part, Part]:
    """Return the rows to train on and the rows to test with.

    Parameters
    ----------
    dataset : Dataset
    test : Source or None, default=None
        The source of the test part; all rows of `dataset` then train. If it names no target, the data set's is used.
    fraction : float or None, default=None
        Share of the rows to hold out. None takes the test part that the data set comes with, or else `TEST_FRACTION`.
    seed : int, default=0
        Equal seeds hold out equal rows.

    Raises
    ------
    DataError
        If the test part cannot be read, or has too few rows to be scored.
    """
    if test is not None:
        train_part = (dataset.X, dataset.y)
        test_part = datasets.load_test(
            test.data,
            classes=dataset.classes,
            n_features=dataset.X.shape[1],
            feature_names=dataset.feature_names,
            target=test.target if dataset.target_name is None else dataset.target_name,
            header=test.header,
            arrays=test.arrays,
        )
    elif fraction is None and dataset.test is not None:
        train_part, test_part = (dataset.X, dataset.y), dataset.test
    else:
        train_part, test_part = datasets.split(dataset, TEST_FRACTION if fraction is None else fraction, seed)
    if dataset.task == "regression" and len(test_part[0]) < 2:
        raise DataError(f"{dataset.name}: got one row for testing, expected at least 2: R2 needs them; add rows")
    return train_part, test_part


def table_parts(
    source: Source,
    task: str = "auto",
    *,
    kinds: Mapping[str, str] | None = None,
    test: Source | None = None,
    fraction: float | None = None,
    seed: int = 0,
) -> TableParts:
    """Return the rows of a table to train on and to test with; see `train_and_test_parts`.

    Parameters
    ----------
    source : Source
    task : {"auto", "classification", "regression"}
    kinds : mapping of str to {"number", "text"} or None, default=None
        What columns hold, where the user says it.
    test, fraction, seed
        As for `train_and_test_parts`. The test part is read as the training part was: with its names, its target, the
        kinds of its columns and its labels.

    Raises
    ------
    DataError
        If a table cannot be read, or the target is none.
    """
    table = source.read_table(kinds=kinds)
    if table.target_guessed and table.names_known:
        names = listed([*table.frame.columns, table.target_name], _SHOWN)
        raise DataError(f"{source.data}: does not say which column is the target; give --target NAME, one of {names}")
    table = with_targets(table)
    y, classes = targets_of(table, task)
    if any(isinstance(label, float) and not label.is_integer() for label in classes or ()):
        classes = [str(label) for label in classes or ()]  # scikit-learn takes no fractions for classes
    name = datasets.short_name(source.data)
    if test is None:
        rows = _numbered(name, y, classes)
        (train, y_train), (held_out, y_test) = datasets.split(
            rows, TEST_FRACTION if fraction is None else fraction, seed
        )
        train_part = (table.frame.iloc[train[:, 0]], y_train)
        test_part = (table.frame.iloc[held_out[:, 0]], y_test)
    else:
        known = [*table.frame.columns, table.target_name]
        own = replace(test, target=table.target_name if table.names_known else source.target)
        other = with_targets(own.read_table(columns=known if table.names_known else None, kinds=kinds_of(table.frame)))
        train_part, test_part = (table.frame, y), (other.frame, targets_like(other, classes))
    if classes is None and len(test_part[0]) < 2:
        raise DataError(f"{name}: got one row for testing, expected at least 2: R2 needs them; add rows")
    return TableParts(
        name,
        train_part,
        test_part,
        classes,
        str(table.target_name),
        table.notes,
        table.target_guessed,
        table.place,
    )


def with_targets(table: RawTable) -> RawTable:
    """Return the table without the rows that have no target; a note says how many these were.

    Raises
    ------
    DataError
        If no row has a target.
    """
    if table.target is None or table.target.notna().all():
        return table
    known = table.target.notna().to_numpy(bool)
    rows, first = np.flatnonzero(known), int(np.argmin(known))
    if not len(rows):
        raise DataError(f"{table.name}: has no row with a target in column {table.target_name!r}, expected some")
    n_others = len(known) - len(rows)
    what = "1 row has no target and was" if n_others == 1 else f"{n_others:,} rows have no target and were"
    return replace(
        table,
        frame=table.frame.iloc[rows].reset_index(drop=True),
        target=table.target.iloc[rows].reset_index(drop=True),
        notes=(*table.notes, f"{what} left out ({table.place(first)} is the first)."),
        place=lambda row: table.place(int(rows[row])),
    )


def _check_same(source: str, y: NDArray[Any], classes: Sequence[Any] | None, seed: Any) -> None:
    """Refuse rows that cannot be those of which a training has held out some."""
    absent = [label for index, label in enumerate(classes or ()) if index not in y]
    if absent:
        raise DataError(
            f"{source}: has no row of class {listed(absent, _SHOWN)}, so it is not what the model was trained on; "
            "leave out --test-fraction"
        )
    if not isinstance(seed, int):
        raise DataError(
            f"{source}: the model has no seed that tells which rows its training held out; leave out --test-fraction"
        )


def target_asked(target_name: str | None) -> str | None:
    """Return how a model's target is asked for: a column without a name, such as "column 4", by its index."""
    place = re.fullmatch(r"column (\d+)", target_name or "")
    return str(int(place[1]) - 1) if place else target_name


def held_out_rows(table: RawTable, y: NDArray[Any], classes: list[Any] | None, fraction: float, seed: Any) -> Part:
    """Return the rows of a table, and their targets, that a training with this share and seed has held out."""
    _check_same(table.name, y, classes, seed)
    rows, y = datasets.split(_numbered(table.name, y, classes), fraction, seed)[1]
    return table.frame.iloc[rows[:, 0]], y


def check_columns(source: str, needed: Sequence[str], names: Sequence[str], frame: Any) -> None:
    """Raise ``DataError`` if a frame lacks columns that a model needs; the message names them all.

    Parameters
    ----------
    source : str
        Where the frame comes from.
    needed, names : sequence of str
        The columns that the model uses, and all that it was trained with.
    frame : DataFrame
    """
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise DataError(
            f"{source}: lacks the {'column' if len(missing) == 1 else 'columns'} {listed(missing, _SHOWN)}; it has "
            f"{listed(list(frame.columns), _SHOWN)}, and the model was trained with {listed(names, _SHOWN)}"
        )


def kinds_of(frame: Any) -> dict[str, str]:
    """Return for each column of a frame whether it holds numbers or text, for reading another file alike."""
    return {name: "number" if frame[name].dtype.kind in "iuf" else "text" for name in frame.columns}


def targets_of(table: RawTable, task: str = "auto") -> tuple[NDArray[Any], list[Any] | None]:
    """Return the targets of a table as class indices and classes, or as numbers and None."""
    told = table.task if task == "auto" and table.task is not None else task
    return datasets.encode_target(table.name, table.labels(), told, table.place)


def targets_like(table: RawTable, classes: Sequence[Any] | None) -> NDArray[Any]:
    """Return the targets of a table as indices into classes that are known already, or as numbers."""
    return datasets.encode_like(table.name, table.labels(), classes, table.place)


def _numbered(name: str, y: NDArray[Any], classes: list[Any] | None) -> Dataset:
    """Return the numbers of the rows as a data set, for a split."""
    numbers = np.arange(len(y))[:, None]
    return Dataset(name, numbers, y, "regression" if classes is None else "classification", classes)


def rows_for_model(network: Network, source: Source, fraction: float | None = None) -> Part:
    """Return samples and targets for a network that is trained already.

    Parameters
    ----------
    network : Network
    source : Source
        A built-in data set gives its test part, a file all its rows.
    fraction : float or None, default=None
        Take only the rows that this share and the network's seed hold out.

    Raises
    ------
    DataError
        If the data cannot be read, or do not suit the network.
    """
    if source.data in BUNDLED and (fraction is not None or source.data == "digits"):
        # The whole data set, of which `train` holds out a share; digits comes without a test part.
        dataset = source.load()
        if dataset.X.shape[1] != network.layer_sizes[0] or list(network.classes or ()) not in ([], dataset.classes):
            raise DataError(f"{source.data}: has other columns or classes than the model was trained on")
        return datasets.split(dataset, TEST_FRACTION if fraction is None else fraction, network.seed)[1]
    classes = list(network.classes or range(max(2, network.layer_sizes[-1]))) if network.is_classifier else None
    X, y = datasets.load_test(
        source.data,
        classes=classes,
        n_features=network.layer_sizes[0],
        feature_names=network.feature_names,
        target=source.target or target_asked(network.target_name),
        labels=source.labels,
        header=source.header,
        arrays=source.arrays,
    )
    if fraction is None:
        return X, y
    _check_same(source.data, y, classes, network.seed)
    # These are the rows of `train` in their order, whatever order the columns have: the same ones are held out.
    rows = Dataset(source.data, X, y, "regression" if classes is None else "classification", classes)
    return datasets.split(rows, fraction, network.seed)[1]
