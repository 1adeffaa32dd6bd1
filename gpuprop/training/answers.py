"""A network's answers for some rows, in the shape of an estimator: what scikit-learn's scorers ask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if

__all__ = ["Answers", "AnswersOfClassifier", "AnswersOfRegression"]


class Answers(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no type annotations
    """What a model says about rows that are known already; the rows that a method gets are not looked at."""

    def __sklearn_is_fitted__(self) -> bool:
        return True


class AnswersOfRegression(RegressorMixin, Answers):  # type: ignore[misc]
    """The values that a regression predicts.

    Parameters
    ----------
    values : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def predict(self, X: object) -> NDArray[Any]:
        """Return the values."""
        return self.values


def _probable(answers: AnswersOfClassifier) -> bool:
    return answers.probable


class AnswersOfClassifier(ClassifierMixin, Answers):  # type: ignore[misc]
    """The classes or labels that a classifier predicts.

    Parameters
    ----------
    outputs : ndarray of shape (n_samples, n_outputs)
        Of the network.
    single : bool
        Whether each row has one class, that of the largest output; else each output is a question of its own.
    probable : bool
        Whether outputs are probabilities.
    """

    def __init__(self, outputs: NDArray[Any], single: bool, probable: bool) -> None:
        self.outputs, self.single, self.probable = outputs, single, probable
        n_outputs = outputs.shape[1]
        self._several = not single and n_outputs > 1
        self.classes_ = [np.arange(2)] * n_outputs if self._several else np.arange(max(2, n_outputs))

    def predict(self, X: object) -> NDArray[Any]:
        """Return class indices, or 0 and 1 for each label."""
        if self.single:
            return np.asarray(self.outputs.argmax(axis=1))
        labels = (self.outputs > 0.5).astype(np.int64)
        return labels if self._several else labels[:, 0]

    @available_if(_probable)  # type: ignore[untyped-decorator]
    def predict_proba(self, X: object) -> NDArray[Any]:
        """Return the probability of each class, or of each label."""
        if self.single or self._several:
            # In float32 a row adds up to 1 only up to rounding, of which scikit-learn warns.
            return self.outputs / self.outputs.sum(axis=1, keepdims=True) if self.single else self.outputs
        return np.hstack([1 - self.outputs, self.outputs])

    def decision_function(self, X: object) -> NDArray[Any]:
        """Return what is larger for a likelier class."""
        if self.single and self.outputs.shape[1] == 2:
            return np.asarray(self.outputs[:, 1] - self.outputs[:, 0])
        return self.outputs[:, 0] if self.outputs.shape[1] == 1 else self.outputs
