"""``Dataset``, the form of data that training takes; targets as numbers; the split into two parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpuprop.datasets.checks import data_error, listed, refuse_nonfinite
from gpuprop.datasets.request import row_place
from gpuprop.errors import unknown_name

Label = str | int | float | bool
Task = Literal["classification", "regression"]
Part = tuple[NDArray[Any], NDArray[Any]]

TASKS = ("auto", "classification", "regression")
MAX_AUTO_CLASSES = 100


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and their targets, checked and ready for training.

    Attributes
    ----------
    name : str
        A short name: ``"mnist"``, or a file's name without its ending.
    X : ndarray of shape (n_samples, n_features)
        C-contiguous, finite; uint8, float32 or float64, not scaled.
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        Classification: int64 indices into ``classes``. Regression: float64, one- or two-dimensional.
    task : {"classification", "regression"}
    classes : list of str, int, float or bool, or None
        The sorted labels; None for regression.
    feature_names : tuple of str or None
        The names of the columns of ``X``, if the source has names.
    target_name : str or None
        The name of the target column, if the source has names.
    test : tuple (X_test, y_test) or None
        The test part, if the data set comes with one.
    """

    name: str
    X: NDArray[Any]
    y: NDArray[Any]
    task: Task
    classes: list[Label] | None = None
    feature_names: tuple[str, ...] | None = None
    target_name: str | None = None
    test: Part | None = None


def encode_target(
    source: object,
    values: NDArray[Any],
    task: str = "auto",
    place: Callable[[int], str] = row_place,
) -> tuple[NDArray[Any], list[Label] | None]:
    """Turn the targets of a file into ``y``, and decide whether they are classes.

    Parameters
    ----------
    source : object
        Names the data in messages.
    values : ndarray of shape (n,) or (n, K)
        Numbers, bools or text.
    task : {"auto", "classification", "regression"}
        With ``"auto"``, text, bools, and integers with at most 100 distinct values are classes.
    place : callable
        Names a row in messages.

    Returns
    -------
    y : ndarray
        int64 indices into ``classes``, or float64 for regression.
    classes : list or None
        The sorted labels, or None for regression.
    """
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    refuse_nonfinite(source, values, place, lambda column: "target")
    is_text, is_float = values.dtype.kind in "OU", values.dtype.kind == "f"
    if values.ndim == 2 and (task == "classification" or (task == "auto" and not is_float)):
        raise data_error(
            source,
            f"got targets of shape {values.shape}, expected one class per row, shape ({len(values)},); "
            "turn one-hot rows into class indices with argmax(axis=1), or choose the task regression",
        )
    if task == "regression" or (task == "auto" and is_float):
        if is_text:
            raise data_error(
                source, f"got text targets such as {str(values.flat[0])!r}, expected numbers for regression"
            )
        return values.astype(np.float64), None
    labels, indices = np.unique(values, return_inverse=True)
    if task == "auto" and values.dtype.kind in "iu" and len(labels) > MAX_AUTO_CLASSES:
        return values.astype(np.float64), None
    if len(labels) < 2:
        raise data_error(source, f"got only one class, {listed(labels.tolist())}, expected at least two")
    return indices.astype(np.int64), labels.tolist()


def encode_like(
    source: object,
    values: NDArray[Any],
    classes: Sequence[Label] | None,
    place: Callable[[int], str] = row_place,
) -> NDArray[Any]:
    """Turn the targets of a file into ``y`` for a model that already has its classes (None: regression).

    Labels are compared as values (1 and 1.0 are the same), and then as text, because one kind of file gives ``"1"`` for
    what another gives as 1.

    Raises
    ------
    DataError
        If a label is not one of the classes.
    """
    if classes is None:
        return encode_target(source, values, "regression", place)[0]
    refuse_nonfinite(source, values, place, lambda column: "target")
    if values.ndim != 1:
        raise data_error(source, f"got targets of shape {values.shape}, expected one class per row")
    by_label = {label: index for index, label in enumerate(classes)}
    by_text = {str(label): index for index, label in enumerate(classes)}
    labels, inverse = np.unique(values, return_inverse=True)
    indices = np.array([by_label.get(v, by_text.get(str(v), -1)) for v in labels.tolist()], np.int64)
    y = indices[inverse]
    if (indices < 0).any():
        row = int(np.argmax(y < 0))
        label = values[row : row + 1].tolist()[0]
        raise data_error(source, f"{place(row)}: got class {label!r}, expected one of {listed(list(classes))}")
    return y


def split(dataset: Dataset, test_fraction: float = 0.25, seed: int = 0) -> tuple[Part, Part]:
    """Hold out a part of a data set for testing; ``dataset.test`` is not used.

    Parameters
    ----------
    dataset : Dataset
    test_fraction : float, default 0.25
        The share of the rows to hold out, strictly between 0 and 1; the number of rows is rounded up.
    seed : int, default 0
        The same seed draws the same rows as ``sklearn.model_selection.train_test_split(random_state=seed)``.

    Returns
    -------
    (X_train, y_train), (X_test, y_test)
        Shuffled copies. For classification they are stratified: both parts hold the classes in the same proportions.

    Raises
    ------
    ValueError
        If ``test_fraction`` is out of range.
    DataError
        If a class has only one row, or a part would have fewer rows than there are classes.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"got test_fraction {test_fraction}, expected a number between 0 and 1")
    from sklearn.model_selection import train_test_split

    classified = dataset.classes is not None
    _check_splittable(dataset, test_fraction)
    train, test = train_test_split(
        np.arange(len(dataset.X)),
        test_size=test_fraction,
        random_state=seed,
        stratify=dataset.y if classified else None,
    )
    return (dataset.X[train], dataset.y[train]), (dataset.X[test], dataset.y[test])


def _check_splittable(dataset: Dataset, test_fraction: float) -> None:
    advice = "add rows, or give a test file"
    if dataset.classes is not None:
        counts = np.bincount(dataset.y, minlength=len(dataset.classes))
        rare = [label for label, count in zip(dataset.classes, counts, strict=True) if count < 2]
        if rare:
            raise data_error(
                dataset.name, f"got a single row of class {listed(rare)}, expected at least 2 to split; {advice}"
            )
    n_rows, needed = len(dataset.X), len(dataset.classes or [None])
    n_test = math.ceil(n_rows * test_fraction)
    if min(n_test, n_rows - n_test) < needed:
        raise data_error(
            dataset.name,
            f"got {n_rows} rows, split into {n_rows - n_test} and {n_test}, "
            f"expected at least {needed} in each part; {advice}",
        )
