"""What a network achieves on a test part: accuracy and a report by class, or R2 and the errors of a regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.errors import DataError
from gpuprop.training.class_report import class_figures, class_report, confusion_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpuprop.model.network import Network

__all__ = ["Report", "report_of", "report_on"]


@dataclass(frozen=True)
class Report:
    """The figures of a test part.

    Attributes
    ----------
    metric : {"accuracy", "R2"}
    score : float
        The accuracy, or R2 (the mean over several outputs).
    text : str
        Several lines: precision and recall by class, or the errors of a regression.
    figures : dict
        The same as JSON values.
    """

    metric: str
    score: float
    text: str
    figures: dict[str, Any]


def report_on(network: Network, X: NDArray[Any], y: NDArray[Any], classes: Sequence[Any] | None = None) -> Report:
    """Predict `X`, and compare the predictions with `y`.

    Parameters
    ----------
    network : Network
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        Class indices, or true values.
    classes : sequence or None, default=None
        What the indices stand for; None calls them 0, 1, ...
    """
    if network.is_classifier and not classes:
        classes = list(range(max(2, network.layer_sizes[-1])))
    return report_of(y, network.predict(X), classes if network.is_classifier else None)


def report_of(y: NDArray[Any], predicted: NDArray[Any], classes: Sequence[Any] | None) -> Report:
    """Compare predictions with the truth.

    Parameters
    ----------
    y, predicted : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        True and predicted class indices, or values.
    classes : sequence or None
        What the indices stand for; None for values.
    """
    if classes is not None:
        return _of_classes(y, predicted, classes)
    return _of_numbers(y.reshape(len(y), -1), predicted.reshape(len(y), -1))


def _of_classes(y: NDArray[Any], predicted: NDArray[Any], classes: Sequence[Any]) -> Report:
    counts, names = confusion_counts(y, predicted, len(classes)), [str(label) for label in classes]
    figures = class_figures(counts, names)
    score = float(figures["accuracy"])
    text = class_report(counts, names)
    return Report("accuracy", score, text, {"n_samples": len(y), "accuracy": score, "report": figures})


def _of_numbers(y: NDArray[Any], predicted: NDArray[Any]) -> Report:
    if len(y) < 2:
        raise DataError("got one row to test with, expected at least 2: R2 is not defined for fewer")
    y, errors = y.astype(np.float64), predicted.astype(np.float64) - y
    squares = (errors**2).sum(axis=0)
    figures = {
        "n_samples": len(y),
        "r2": _r2(squares, ((y - y.mean(axis=0)) ** 2).sum(axis=0)),
        "mean_absolute_error": float(np.abs(errors).mean()),
        "root_mean_squared_error": float(np.sqrt(squares / len(y)).mean()),
        "target_mean": float(np.mean(y)),
        "target_deviation": float(np.mean(np.std(y, axis=0))),
    }
    lines = [f"{name.replace('_', ' '):>24}  {value:.6g}" for name, value in figures.items() if name != "r2"]
    return Report("R2", figures["r2"], "\n".join(lines), figures)


def _r2(squares: NDArray[np.float64], variation: NDArray[np.float64]) -> float:
    """Return R2, the mean over the outputs; of an output that never varies it is 1 if it is met, and else 0."""
    varies = variation > 0
    unexplained = np.where(squares > 0, 1.0, 0.0)
    np.divide(squares, variation, out=unexplained, where=varies)
    return float((1.0 - unexplained).mean())
