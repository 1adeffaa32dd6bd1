"""How far a classifier's probabilities can be believed: reliability, expected calibration error, Brier score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Reliability", "brier_score", "expected_calibration_error", "reliability"]


@dataclass(frozen=True, eq=False)
class Reliability:
    """The rows of a test part by the probability of the class that is predicted.

    Attributes
    ----------
    edges : ndarray of shape (n_bins + 1,)
    counts : ndarray of shape (n_bins,)
        Rows in each bin.
    confidence, accuracy : ndarray of shape (n_bins,)
        The mean probability in each bin, and the share of its rows whose prediction is right; NaN in an empty bin.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.intp]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """The mean gap between confidence and accuracy over all rows (expected calibration error)."""
        filled = self.counts > 0
        gaps = np.abs(self.confidence[filled] - self.accuracy[filled])
        return float(np.average(gaps, weights=self.counts[filled]))


def reliability(y: ArrayLike, probabilities: ArrayLike, n_bins: int = 15) -> Reliability:
    """Sort rows by the probability of their predicted class into bins of equal width.

    Parameters
    ----------
    y : array_like of int, shape (n_samples,)
        True class indices.
    probabilities : array_like of shape (n_samples, n_classes)
    n_bins : int, default=15

    Notes
    -----
    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017.
    """
    shares, true = np.asarray(probabilities, np.float64), np.asarray(y)
    confidence = shares.max(axis=1)
    right = (shares.argmax(axis=1) == true).astype(np.float64)
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    counts = np.bincount(place, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            edges,
            counts,
            np.bincount(place, confidence, minlength=n_bins) / counts,
            np.bincount(place, right, minlength=n_bins) / counts,
        )


def expected_calibration_error(y: ArrayLike, probabilities: ArrayLike, n_bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy, see `reliability`.

    Examples
    --------
    >>> from gpuprop.training.calibration import expected_calibration_error
    >>> float(round(expected_calibration_error([0, 1], [[0.8, 0.2], [0.8, 0.2]]), 3))
    0.3
    """
    return reliability(y, probabilities, n_bins).expected_error


def brier_score(y: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the mean over the rows of the squared distance between probabilities and the true class, from 0 to 2.

    Notes
    -----
    G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78, 1950.
    """
    shares: NDArray[Any] = np.array(probabilities, np.float64)
    shares[np.arange(len(shares)), np.asarray(y)] -= 1.0
    return float((shares**2).sum(axis=1).mean())
