"""``Dataset``, the form of data that training takes; targets as numbers; the split into two parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.datasets.checks import data_error, listed, refuse_nonfinite
from gpuprop.datasets.drawn_rows import train_and_test_rows
from gpuprop.datasets.numbers import MISSING, is_number, read_numbers
from gpuprop.datasets.raw_table import is_odd_in_numbers
from gpuprop.datasets.request import Task, row_place
from gpuprop.errors import unknown_name

Label = str | int | float | bool
Part = tuple[NDArray[Any], NDArray[Any]]

TASKS = ("auto", "classification", "regression")
MANY_CLASSES = 10  # more different numbers than these are no classes, unless they count 0, 1, 2, ...
MAX_AUTO_CLASSES = 100  # and so are more than these


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
    notes : tuple of str
        A sentence about each thing that was guessed when the source was read.

    Examples
    --------
    >>> import gpuprop
    >>> dataset = gpuprop.datasets.load("digits")
    >>> dataset.X.shape, dataset.task, len(dataset.classes)
    ((1797, 64), 'classification', 10)
    """

    name: str
    X: NDArray[Any]
    y: NDArray[Any]
    task: Task
    classes: list[Label] | None = None
    feature_names: tuple[str, ...] | None = None
    target_name: str | None = None
    test: Part | None = None
    notes: tuple[str, ...] = ()


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
        Numbers, bools, text (dtype U or S), or labels as a file spells them (dtype object).
    task : {"auto", "classification", "regression"}
        With ``"auto"`` the values decide, however they are stored (2, 2.0 and "2" are the same). Classes are: bools;
        text; whole numbers, if there are at most 10 different ones, or if they count 0, 1, 2, ... or 1, 2, 3, ...
        without a gap, up to 100; and numbers with leading zeros. Other numbers are a regression.
    place : callable
        Names a row in messages.

    Returns
    -------
    y : ndarray
        int64 indices into ``classes``, or float64 for regression.
    classes : list or None
        The sorted labels, or None for regression. They have the type of ``values``. Those that a file spells as Python
        prints integers, floats or bools have that type, and others stay text: ``007`` stays ``007``.

    Raises
    ------
    DataError
        If a target is missing, or is none for the task.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuprop.datasets import encode_target
    >>> codes, classes = encode_target("file.csv", np.array(["b", "a", "b"]))
    >>> codes.tolist(), classes
    ([1, 0, 1], ['a', 'b'])
    """
    if task not in TASKS:
        raise unknown_name("task", task, TASKS)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.ndim == 1 and values.dtype.kind in "OU":
        _refuse_missing(source, values, place)
        numbers = _as_numbers(source, values, task, place)
        if numbers is not None:
            refuse_nonfinite(source, numbers, place, lambda column: "target")
            return numbers, None
        values, task = _as_labels(source, values, task), "classification"
    refuse_nonfinite(source, values, place, lambda column: "target")
    is_float = values.dtype.kind == "f"
    if values.ndim == 2 and (task == "classification" or (task == "auto" and not is_float)):
        raise data_error(
            source,
            f"got targets of shape {values.shape}, expected one class per row, shape ({len(values)},); "
            "turn one-hot rows into class indices with argmax(axis=1), or choose the task regression",
        )
    if task == "regression" or values.ndim == 2:
        return values.astype(np.float64), None
    labels, indices = np.unique(values, return_inverse=True)
    if task == "auto" and values.dtype.kind in "iuf" and not _are_classes(labels):
        return values.astype(np.float64), None
    if len(labels) < 2:
        raise data_error(
            source,
            f"got only one class, {listed(labels.tolist())}, expected at least two; name another target, or add rows",
        )
    return indices.astype(np.int64), labels.tolist()


def _are_classes(values: NDArray[Any]) -> bool:
    """Return whether different numbers look like classes: whole and few, or a count without a gap."""
    if values.dtype.kind == "f" and (len(values) < 2 or not np.all(np.trunc(values) == values)):
        return False
    counts = values[0] in (0, 1) and values[-1] - values[0] == len(values) - 1
    return len(values) <= MANY_CLASSES or (counts and len(values) <= MAX_AUTO_CLASSES)


def _as_labels(source: object, values: NDArray[Any], task: str) -> NDArray[Any]:
    """Return labels that are text as numbers or bools if a file spells them so, else as they are."""
    spelled, indices = np.unique(values.astype(str).astype(object), return_inverse=True)
    if task == "auto" and len(spelled) > max(MANY_CLASSES, len(values) / 2):
        raise data_error(
            source,
            f"got {len(spelled)} different texts as targets of {len(values)} rows, such as {str(values[0])!r}, "
            "expected a few classes; name another target, or choose the task classification if each text is a class",
        )
    if values.dtype.kind == "U":
        return values
    return np.asarray(_labels(spelled.tolist()))[indices]


def _as_numbers(
    source: object, values: NDArray[Any], task: str, place: Callable[[int], str]
) -> NDArray[np.float64] | None:
    """Return targets that are text as the numbers of a regression, or None if they are labels of classes."""
    import pandas as pd

    texts = pd.Series(values, dtype=object).map(str)
    reading = read_numbers(texts)
    row = int(np.argmax(reading.odd))
    if task == "regression" and reading.odd.all():
        raise data_error(source, f"got text targets such as {texts.iloc[0]!r}, expected numbers for regression")
    if task == "regression" and reading.odd.any():
        raise data_error(source, f"{place(row)}: got {texts.iloc[row]!r} as target, expected a number")
    if reading.odd.any() and not reading.odd.all() and task == "auto" and texts[reading.odd].isin(MISSING).all():
        raise data_error(
            source,
            f"{place(row)}: got {texts.iloc[row]!r} as target, expected a number, as in the other rows; fill it in or "
            "remove the row, or choose the task classification if it is a label",
        )
    if task == "auto" and is_odd_in_numbers(reading):
        raise data_error(
            source,
            f"{place(row)}: got {texts.iloc[row]!r} as target, expected a number, as in "
            f"{int((~reading.odd).sum())} other rows; correct it or remove the row, or choose the task classification "
            "if the targets are labels",
        )
    if task == "regression":
        return reading.values
    if task == "classification" or reading.odd.any():
        return None
    if reading.example is None:
        is_whole = bool(np.all(np.trunc(reading.values) == reading.values))
        if is_whole and texts.str.match(r"\s*[-+]?(?:0\d|\d{17})").any():  # 007, and more digits than a float has
            return None
        if is_whole and _are_classes(np.unique(reading.values)):
            return None
    return reading.values


def _labels(spelled: list[str]) -> list[Label]:
    """Return labels with the type that prints as they are spelled; as text if there is none."""
    types: tuple[Callable[[str], Label], ...] = (int, float, _truth)
    for convert in types:
        try:
            labels = [convert(text) for text in spelled]
        except ValueError:
            continue
        if all(str(label) == text and abs(float(label)) < 2**53 for label, text in zip(labels, spelled, strict=True)):
            return labels
    if all(map(is_number, spelled)):
        numbers = {float(text) for text in spelled}
        if len(numbers) < len(spelled) and all(abs(number) < 2**53 for number in numbers):  # 1 and 1.0
            return [float(text) for text in spelled]
    return list(spelled)


def _truth(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(text)
    return text == "True"


def encode_like(
    source: object,
    values: NDArray[Any],
    classes: Sequence[Label] | None,
    place: Callable[[int], str] = row_place,
) -> NDArray[Any]:
    """Turn the targets of a file into ``y`` for a model that already has its classes (None: regression).

    Labels are compared as they are spelled, and then as values: 1, 1.0 and "1" are one class if the model's classes
    are numbers, ``TRUE`` and ``True`` if they are bools. Classes that are text keep their spelling.

    Raises
    ------
    DataError
        If a label is not one of the classes.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuprop.datasets import encode_like
    >>> encode_like("file.csv", np.array(["b", "a"]), ["a", "b"]).tolist()
    [1, 0]
    """
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if classes is None:
        return encode_target(source, values, "regression", place)[0]
    refuse_nonfinite(source, values, place, lambda column: "target")
    if values.ndim != 1:
        raise data_error(source, f"got targets of shape {values.shape}, expected one class per row")
    _refuse_missing(source, values, place)
    by_label = {label: index for index, label in enumerate(classes)}
    by_text = {str(label): index for index, label in enumerate(classes)}

    def index_of(label: Any) -> int:
        found = by_text.get(str(label), by_label.get(label, -1) if not isinstance(label, str) else -1)
        if found >= 0:
            return found
        text = str(label).strip()
        if isinstance(classes[0], bool):
            return by_label.get({"true": True, "false": False}.get(text.casefold(), text), -1)
        if isinstance(classes[0], str) and isinstance(
            label, bool
        ):  # stored as one, and spelled as TRUE in another file
            return next((by_text[name] for name in (text.upper(), text.lower()) if name in by_text), -1)
        if isinstance(classes[0], str):  # a whole number may be stored as a float, such as 2.0 for "2"
            return by_text.get(str(int(label)), -1) if isinstance(label, float) and label.is_integer() else -1
        return by_label.get(float(text), -1) if is_number(text) else -1

    labels, inverse = np.unique(values, return_inverse=True)
    indices = np.array([index_of(label) for label in labels.tolist()], np.int64)
    y = indices[inverse]
    if (indices < 0).any():
        row = int(np.argmax(y < 0))
        label = values[row : row + 1].tolist()[0]
        raise data_error(source, f"{place(row)}: got class {label!r}, expected one of {listed(list(classes))}")
    return y


def _refuse_missing(source: object, values: NDArray[Any], place: Callable[[int], str]) -> None:
    if values.dtype.kind != "O":
        return
    missing = [i for i, value in enumerate(values) if value is None or value != value]
    if missing:
        raise data_error(source, f"{place(missing[0])}: got no target; fill it in, or remove the row")


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

    Examples
    --------
    >>> import gpuprop
    >>> (X, y), (X_test, y_test) = gpuprop.datasets.split(gpuprop.datasets.load("digits"), 0.2)
    >>> len(X) + len(X_test)
    1797
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"got test_fraction {test_fraction}, expected a number between 0 and 1")
    _check_splittable(dataset, test_fraction)
    classes = None if dataset.classes is None else dataset.y
    train, test = train_and_test_rows(len(dataset.X), test_fraction, seed, classes)
    return (dataset.X[train], dataset.y[train]), (dataset.X[test], dataset.y[test])


def _check_splittable(dataset: Dataset, test_fraction: float) -> None:
    advice = "add rows, give a test file, or name another target"
    if dataset.classes is not None:
        counts = np.bincount(dataset.y, minlength=len(dataset.classes))
        rare = [label for label, count in zip(dataset.classes, counts, strict=True) if count < 2]
        if rare:
            if not any(isinstance(label, str) for label in rare):
                advice += "; if the target is a quantity, choose the task regression (--task regression)"
            raise data_error(
                dataset.name, f"got a single row of class {listed(rare)}, expected at least 2 to split; {advice}"
            )
    n_rows, needed = len(dataset.X), len(dataset.classes or [None])
    each = f", one of each of {needed} classes" if needed > 1 else ""
    n_test = math.ceil(n_rows * test_fraction)
    if min(n_test, n_rows - n_test) < needed:
        raise data_error(
            dataset.name,
            f"got {n_rows} rows, split into {n_rows - n_test} and {n_test}, "
            f"expected at least {needed} in each part{each}; {advice}",
        )
