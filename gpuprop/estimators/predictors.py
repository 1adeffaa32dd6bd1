"""A stored model and the rows for it: `load_predictor` gives networks and estimators for tables one interface.

What the model knows decides how a source is read: the names and kinds of its columns, its target, the spelling of its
labels and of missing values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpuprop import datasets
from gpuprop.errors import DataError
from gpuprop.model.network import Network
from gpuprop.model.predictions import class_columns, prediction_columns, value_columns
from gpuprop.training.metrics import Metrics, measured
from gpuprop.training.parts import (
    Source,
    check_columns,
    held_out_rows,
    rows_for_model,
    target_asked,
    targets_like,
    with_targets,
)

if TYPE_CHECKING:
    from gpuprop.datasets import RawTable
    from gpuprop.estimators.tabular import BaseTabular
    from gpuprop.training.answers import AnswersOfClassifier

__all__ = ["NetworkPredictor", "Predictor", "Rows", "TablePredictor", "load_predictor"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows for a model.

    Attributes
    ----------
    X : ndarray or data frame
        As the model's ``predict`` takes them.
    y : ndarray or None
        Class indices, or the values of a regression; None where they were not asked for.
    notes : tuple of str
        A sentence about each thing that was guessed when the rows were read.
    name : str
        The source, for messages.
    place : callable or None
        Takes the index of a row, and returns its name in a message.
    """

    X: Any
    y: Array | None = None
    notes: tuple[str, ...] = ()
    name: str = ""
    place: Callable[[int], str] | None = None


class Predictor(Protocol):
    """What a command needs of a trained model."""

    @property
    def network(self) -> Network:
        """The network; of several the first."""

    @property
    def classes(self) -> Sequence[Any] | None:
        """The labels of a classifier; None for a regression."""

    def describe(self) -> str:
        """Return a short description of the model."""

    def rows(self, source: Source, fraction: float | None = None) -> Rows:
        """Return samples and targets: all rows of a file, or those that this share and the model's seed hold out."""

    def features(self, source: Source) -> Rows:
        """Return samples without targets."""

    def network_rows(self, source: Source) -> tuple[Array, Array]:
        """Return inputs and targets as the network itself takes them."""

    def predict(self, rows: Rows) -> Array:
        """Return class indices, (n_samples,), or values, (n_samples,) or (n_samples, n_outputs)."""

    def metrics(self, names: Sequence[str], rows: Rows) -> dict[str, float | None]:
        """Return metrics by the names of scikit-learn's scorers; None where one is not defined."""

    def columns(self, rows: Rows) -> dict[str, list[Any]]:
        """Return the columns of a prediction file; see `gpuprop.model.predictions.prediction_columns`."""


def load_predictor(path: str | os.PathLike[str], device: str = "auto") -> Predictor:
    """Read a model file; errors are those of `gpuprop.load`, and that an ensemble has no place here."""
    from gpuprop.estimators.stored_models import load, load_network
    from gpuprop.model.container import model_to_read, read_file

    if str(read_file(model_to_read(path))[1].get("kind")).startswith("tabular"):
        model: Any = load(path, device)
        return TablePredictor(model)
    return NetworkPredictor(load_network(path, device))


class NetworkPredictor:
    """A network, for samples that are rows of numbers.

    Parameters
    ----------
    network : Network
    """

    def __init__(self, network: Network) -> None:
        self.network = network

    @property
    def classes(self) -> Sequence[Any] | None:
        """The labels, by default 0, 1, ...; None for a regression."""
        if not self.network.is_classifier:
            return None
        return self.network.classes or range(max(2, self.network.layer_sizes[-1]))

    def describe(self) -> str:
        """Return the network's layers, activations, loss and device."""
        return repr(self.network)

    def rows(self, source: Source, fraction: float | None = None) -> Rows:
        """Return samples and targets, see `gpuprop.training.parts.rows_for_model`."""
        return Rows(*rows_for_model(self.network, source, fraction))

    def features(self, source: Source) -> Rows:
        """Return samples without targets."""
        return Rows(
            datasets.load_features(
                source.data,
                n_features=self.network.layer_sizes[0],
                feature_names=self.network.feature_names,
                target=source.target or target_asked(self.network.target_name),
                header=source.header,
                arrays=source.arrays,
            )
        )

    def network_rows(self, source: Source) -> tuple[Array, Array]:
        """Return samples and targets: they are those of the network."""
        return rows_for_model(self.network, source)

    def predict(self, rows: Rows) -> Array:
        """Return the network's predictions."""
        return self.network.predict(rows.X)

    def metrics(self, names: Sequence[str], rows: Rows) -> dict[str, float | None]:
        """Return metrics by the names of scikit-learn's scorers; None where one is not defined.

        Raises
        ------
        ValueError
            If there is no such scorer, or it does not fit the model's task.
        """
        return measured(self.network, Metrics(names, self.network), rows.X, rows.y) if names else {}

    def columns(self, rows: Rows) -> dict[str, list[Any]]:
        """Return the columns of a prediction file."""
        return prediction_columns(self.network, rows.X)


class TablePredictor:
    """An estimator for tables, for rows with columns of any kind.

    Parameters
    ----------
    model : TabularClassifier or TabularRegressor
    """

    def __init__(self, model: BaseTabular) -> None:
        self.model = model

    @property
    def network(self) -> Network:
        """The network; of several the first."""
        network: Network = self.model.networks_[0]
        return network

    @property
    def classes(self) -> Sequence[Any] | None:
        """The labels; None for a regression."""
        found: list[Any] | None = self.model.classes_.tolist() if hasattr(self.model, "classes_") else None
        return found

    def describe(self) -> str:
        """Return the kind of estimator and its network."""
        several = f"{len(self.model.networks_)} of " if len(self.model.networks_) > 1 else ""
        return f"{type(self.model).__name__}, {several}{self.network!r}"

    def rows(self, source: Source, fraction: float | None = None) -> Rows:
        """Return rows and targets; the model's own names decide which columns they are."""
        table = with_targets(self._read(source, with_target=True))
        classes = None if self.classes is None else list(self.classes)
        y = targets_like(table, classes)
        frame = table.frame
        if fraction is not None:
            frame, y = held_out_rows(table, y, classes, fraction, self.model.random_state)
        return Rows(frame, y, table.notes, table.name, None if fraction is not None else table.place)

    def features(self, source: Source) -> Rows:
        """Return rows without targets."""
        table = self._read(source, with_target=False)
        return Rows(table.frame, None, table.notes, table.name, table.place)

    def network_rows(self, source: Source) -> tuple[Array, Array]:
        """Return the inputs that the columns become, and the targets that the network is trained on."""
        rows = self.rows(source)
        y = np.asarray(rows.y)
        if self.classes is None:
            y = (y.reshape(len(y), -1) - self.model.target_mean_) / self.model.target_deviation_
        with _naming_cells(rows):
            return self.model.columns_.transform(rows.X), y

    def predict(self, rows: Rows) -> Array:
        """Return class indices, or values."""
        with _naming_cells(rows):
            if self.classes is None:
                return np.asarray(self.model.predict(rows.X))
            indices: Array = self.model.predict_proba(rows.X).argmax(axis=1)
            return indices

    def metrics(self, names: Sequence[str], rows: Rows) -> dict[str, float | None]:
        """Return metrics of all networks together, of values in the units of the data, or of class indices.

        Indices, as in training: scikit-learn's "f1", say, takes the class 1 of two for the positive one, but not "yes".
        """
        if not names:
            return {}
        from sklearn.metrics import get_scorer

        Metrics(names, self.network)  # refuses what does not fit, by its name
        y = np.asarray(rows.y)
        with _naming_cells(rows):
            answers = self.model if self.classes is None else self._answers(rows)
            return {name: float(get_scorer(name)(answers, rows.X, y)) for name in names}

    def _answers(self, rows: Rows) -> AnswersOfClassifier:
        from gpuprop.training.answers import AnswersOfClassifier

        return AnswersOfClassifier(np.asarray(self.model.predict_proba(rows.X)), single=True, probable=True)

    def columns(self, rows: Rows) -> dict[str, list[Any]]:
        """Return the columns of a prediction file: labels as they are spelled, and the probability of each class."""
        with _naming_cells(rows):
            if self.classes is None:
                return value_columns(np.asarray(self.model.predict(rows.X)).reshape(len(rows.X), -1))
            shares = self.model.predict_proba(rows.X)
        return class_columns(shares.argmax(axis=1), self.classes, shares.T)

    def _read(self, source: Source, *, with_target: bool) -> RawTable:
        """Return the table of a source, which has been checked to hold the columns that the model needs."""
        if not datasets.is_table(source.data):
            raise DataError(
                f"{source.data}: is no table, expected one with the model's columns (CSV, Parquet or openml:NAME)"
            )
        columns = self.model.columns_
        own = replace(
            source,
            target=source.target or target_asked(self.network.target_name),
            na_values=(*source.na_values, *(one for one in columns.asked.missing_values if isinstance(one, str))),
        )
        kinds = {kind.name: "number" if kind.kind == "number" else "text" for kind in columns.kinds if kind.used}
        table = own.read_table(columns=columns.names, kinds=kinds, with_target=with_target)
        check_columns(source.data, list(kinds), columns.names, table.frame)
        return table


@contextmanager
def _naming_cells(rows: Rows) -> Iterator[None]:
    """Name file and line in the error about a cell that is not what its column holds."""
    from gpuprop.estimators.cells import CellError  # here, because it imports pandas, which a network does not need

    try:
        yield
    except CellError as error:
        message = str(error) if rows.place is None else error.at(rows.place(error.row))
        raise DataError(f"{rows.name}: {message}") from None
