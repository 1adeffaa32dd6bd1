"""Which rows of a data set train a network, and which test it; they are the same in every test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuprop import datasets
from gpuprop.datasets import Dataset
from gpuprop.datasets.bundled import BUNDLED
from gpuprop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.model.network import Network

    Part = tuple[NDArray[Any], NDArray[Any]]

__all__ = ["TEST_FRACTION", "Source", "rows_for_model", "train_and_test_parts"]

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
    """

    data: str
    target: str | None = None
    labels: str | None = None
    header: bool | None = None

    def load(self, task: str = "auto") -> Dataset:
        """Return the data set."""
        return datasets.load(self.data, target=self.target, labels=self.labels, task=task, header=self.header)


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
        )
    elif fraction is None and dataset.test is not None:
        train_part, test_part = (dataset.X, dataset.y), dataset.test
    else:
        train_part, test_part = datasets.split(dataset, TEST_FRACTION if fraction is None else fraction, seed)
    if dataset.task == "regression" and len(test_part[0]) < 2:
        raise DataError(f"{dataset.name}: got one row for testing, expected at least 2: R2 needs them; add rows")
    return train_part, test_part


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
        target=source.target,
        labels=source.labels,
        header=source.header,
    )
    if fraction is None:
        return X, y
    absent = [label for index, label in enumerate(classes or ()) if index not in y]
    if absent:
        raise DataError(
            f"{source.data}: has no row of class {', '.join(map(repr, absent[:8]))}, so it is not what the model was "
            "trained on; leave out --test-fraction"
        )
    # These are the rows of `train` in their order, whatever order the columns have: the same ones are held out.
    rows = Dataset(source.data, X, y, "regression" if classes is None else "classification", classes)
    return datasets.split(rows, fraction, network.seed)[1]
