"""Precision, recall and F1 by class, counted with NumPy: scikit-learn's report without a second's import.

With C the confusion matrix (true classes by predicted ones), a class k has the precision ``C[k, k] / sum C[:, k]``, the
recall ``C[k, k] / sum C[k, :]``, and as F1 the harmonic mean of both, ``2 C[k, k] / (sum C[:, k] + sum C[k, :])``. What
would be divided by zero is 0. Text and figures are those of ``sklearn.metrics.classification_report``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["class_figures", "class_report", "confusion_counts"]

_COLUMNS = ("precision", "recall", "f1-score", "support")
_WIDEST = "weighted avg"


def confusion_counts(y: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Return how often each class (rows) was predicted as each other one (columns), from class indices."""
    pairs = np.asarray(y, np.int64) * n_classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


def class_figures(counts: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any]:
    """Return the figures of each class by its name, the accuracy, and the means over the classes.

    Parameters
    ----------
    counts : ndarray of shape (n_classes, n_classes)
        From `confusion_counts`, with at least one sample.
    names : sequence of str
        The names of the classes.
    """
    rows, means, accuracy = _figures(counts)
    found: dict[str, Any] = {name: _named(row) for name, row in zip(names, rows, strict=True)}
    return found | {"accuracy": accuracy} | {name: _named(row) for name, row in means.items()}


def class_report(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """Return the same figures as a table of text."""
    rows, means, accuracy = _figures(counts)
    width = max(len(_WIDEST), *map(len, names))

    def line(name: str, *row: float) -> str:
        *shares, support = row
        return f"{name:>{width}}  " + " ".join(f"{share:>9.4f}" for share in shares) + f" {int(support):>9}"

    return "\n".join(
        [
            " " * width + "  " + " ".join(f"{column:>9}" for column in _COLUMNS),
            "",
            *(line(name, *row) for name, row in zip(names, rows, strict=True)),
            "",
            f"{'accuracy':>{width}}  {'':>9} {'':>9} {accuracy:>9.4f} {int(counts.sum()):>9}",
            *(line(name, *row) for name, row in means.items()),
        ]
    )


def _figures(counts: NDArray[np.int64]) -> tuple[list[list[float]], dict[str, list[float]], float]:
    """Return the rows of all classes, the rows of their means, and the accuracy."""
    right, support, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    n_samples = float(support.sum())
    columns = (
        _quotients(right, predicted),
        _quotients(right, support),
        _quotients(2 * right, support + predicted),
    )
    rows = np.column_stack((*columns, support)).tolist()
    means = {
        name: [*(float(np.average(column, weights=weights)) for column in columns), n_samples]
        for name, weights in (("macro avg", None), (_WIDEST, support))
    }
    return rows, means, float(right.sum() / n_samples)


def _quotients(numerators: NDArray[np.int64], denominators: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the quotients; 0 where it would be divided by zero."""
    return np.divide(numerators, denominators, out=np.zeros(len(numerators)), where=denominators != 0)


def _named(row: list[float]) -> dict[str, float]:
    return dict(zip(_COLUMNS, row, strict=True))
