"""What a network achieves on a test part: accuracy and a report by class, or R2 and the errors of a regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.errors import DataError

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
        Of scikit-learn's ``accuracy_score``, or ``r2_score`` (the mean over several outputs).
    text : str
        Several lines: scikit-learn's classification report, or the errors of a regression.
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
    from sklearn.metrics import accuracy_score, classification_report

    arguments = {
        "labels": list(range(len(classes))),
        "target_names": [str(label) for label in classes],
        "zero_division": 0,  # a class that is never predicted has no precision: 0, without a warning
    }
    text = classification_report(y, predicted, digits=4, **arguments)
    figures = classification_report(y, predicted, output_dict=True, **arguments)
    score = float(accuracy_score(y, predicted))
    return Report("accuracy", score, str(text).rstrip(), {"n_samples": len(y), "accuracy": score, "report": figures})


def _of_numbers(y: NDArray[Any], predicted: NDArray[Any]) -> Report:
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    if len(y) < 2:
        raise DataError("got one row to test with, expected at least 2: R2 is not defined for fewer")
    figures = {
        "n_samples": len(y),
        "r2": float(r2_score(y, predicted)),
        "mean_absolute_error": float(mean_absolute_error(y, predicted)),
        "root_mean_squared_error": float(root_mean_squared_error(y, predicted)),
        "target_mean": float(np.mean(y)),
        "target_deviation": float(np.mean(np.std(y, axis=0))),
    }
    lines = [f"{name.replace('_', ' '):>24}  {value:.6g}" for name, value in figures.items() if name != "r2"]
    return Report("R2", figures["r2"], "\n".join(lines), figures)
