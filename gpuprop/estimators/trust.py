"""How far to believe a trained model: temperature scaling, and conformal sets and intervals that cover the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import to_host
from gpuprop.errors import check_real
from gpuprop.model.network import Network
from gpuprop.training.calibration import brier_score, expected_calibration_error

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]

__all__ = ["Calibration", "Conformal", "calibrate", "conformal"]

_LARGEST_LOG = math.log(1e3)


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` has changed.

    Attributes
    ----------
    temperature : float
        The output layer's net inputs were divided by it; above 1, the network was too sure.
    loss, expected_error, brier : tuple (before, after)
        Cross-entropy, expected calibration error and Brier score on the rows that it was fitted to.
    """

    temperature: float
    loss: tuple[float, float]
    expected_error: tuple[float, float]
    brier: tuple[float, float]


def calibrate(model: Any, X: ArrayLike, y: ArrayLike) -> Calibration:
    """Divide a classifier's net inputs by the temperature that fits its probabilities to some rows, in place.

    No prediction changes, only how sure it is: the weights and biases of the last layer are divided by the temperature.
    So files, exports and checkpoints of the model need nothing more.

    Parameters
    ----------
    model : Network, MLPClassifier, or TabularClassifier of one network
    X : array_like or data frame
        Rows that were not trained on, such as validation rows; a thousand are many.
    y : array_like of shape (n_samples,)
        Class indices for a network; labels for an estimator.

    Returns
    -------
    Calibration

    Raises
    ------
    TypeError, ValueError
        If the model is none whose probabilities can be scaled.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017,
    arXiv:1706.04599.

    Examples
    --------
    >>> import gpuprop
    >>> data = gpuprop.datasets.load("digits")
    >>> net = gpuprop.Network((64, 32, 10), loss="categorical_cross_entropy", seed=0)
    >>> _ = gpuprop.Trainer(net, epochs=20).fit(data.X[:900] / 16, data.y[:900])
    >>> found = gpuprop.calibrate(net, data.X[900:] / 16, data.y[900:])
    >>> found.loss[1] <= found.loss[0]
    True
    """
    network, inputs, true = _classifier_parts(model, X, y)
    z = np.asarray(to_host(network.net_inputs(inputs)[-1]), np.float64)
    if z.shape[1] == 1:  # two classes by one logistic unit: softmax of (0, z)
        z = np.hstack([np.zeros_like(z), z])
    temperature = _fitted_temperature(z, true)
    before, after = _softmax(z), _softmax(z / temperature)
    for array in (network.weights[-1], network.biases[-1]):
        array /= temperature
    rows = np.arange(len(true))
    tiny = np.finfo(np.float64).tiny
    pair = (before, after)
    return Calibration(
        temperature,
        _two([float(-np.log(np.maximum(shares[rows, true], tiny)).mean()) for shares in pair]),
        _two([expected_calibration_error(true, shares) for shares in pair]),
        _two([brier_score(true, shares) for shares in pair]),
    )


def _two(values: Sequence[float]) -> tuple[float, float]:
    before, after = values
    return before, after


def _classifier_parts(model: Any, X: Any, y: Any) -> tuple[Network, Any, NDArray[np.int64]]:
    """Return the network whose last layer is to be scaled, its inputs, and true class indices."""
    labels = np.asarray(y)
    if isinstance(model, Network):
        network, inputs, classes = model, X, None
    elif hasattr(model, "network_"):
        network, inputs, classes = model.network_, X, model.classes_
    elif hasattr(model, "networks_"):
        if len(model.networks_) != 1:
            raise ValueError(f"calibrate: got an estimator of {len(model.networks_)} networks, expected one")
        network, inputs, classes = model.networks_[0], model.columns_.transform(X), getattr(model, "classes_", None)
    else:
        raise TypeError(f"calibrate: got {type(model).__name__}, expected a fitted classifier of gpuprop")
    single = network.metric == "class" or (network.metric == "labels" and network.layer_sizes[-1] == 1)
    if not single or network.output_activation.name not in ("softmax", "logistic") or labels.ndim != 1:
        raise ValueError(
            "calibrate: needs one class for each row, and the probabilities of softmax or logistic outputs"
        )
    if network.output_activation.name == "logistic" and network.layer_sizes[-1] > 1:
        raise ValueError("calibrate: several logistic outputs are questions of their own; calibrate each by itself")
    if classes is not None:
        labels = _known(np.asarray(classes), labels)
    return network, inputs, labels.astype(np.int64)


def _fitted_temperature(z: Array, true: NDArray[np.int64]) -> float:
    """Return the temperature of the lowest cross-entropy: a convex function of its inverse, so bisection finds it."""
    rows = np.arange(len(z))

    def slope(inverse: float) -> float:
        shares = _softmax(inverse * z)
        return float(((shares * z).sum(axis=1) - z[rows, true]).mean())

    low, high = -_LARGEST_LOG, _LARGEST_LOG  # logarithms of the inverse
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(math.exp(middle)) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


# --- conformal prediction -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Conformal:
    """A model with a promise: its sets or intervals hold the truth for a share of at least ``1 - alpha`` of new rows.

    The promise is about the average over rows of the same kind as those that `conformal` was given; no single group of
    rows has it.

    Attributes
    ----------
    model : object, or a pair of them
    alpha : float
    threshold : float or ndarray of shape (n_outputs,)
        The score up to which a class belongs to the set, or by which an interval is wider than the prediction.
    """

    model: Any
    alpha: float
    threshold: Any

    def predict_set(self, X: Any) -> NDArray[np.bool_]:
        """Return which classes each row may have, (n_samples, n_classes), in the order of the model's classes."""
        return np.asarray(1.0 - _probabilities(self.model, X) <= self.threshold)

    def predict_interval(self, X: Any) -> Array:
        """Return the lower and upper ends for each row: (n_samples, 2), or (n_samples, n_outputs, 2)."""
        low, high = _ends(self.model, X)
        interval = np.stack([low - self.threshold, high + self.threshold], axis=-1)
        return interval[:, 0] if interval.shape[1] == 1 else interval


def conformal(model: Any, X: Any, y: ArrayLike, alpha: float = 0.1) -> Conformal:
    """Return sets or intervals that hold the truth for a share of at least ``1 - alpha`` of new rows.

    Parameters
    ----------
    model : Network, estimator, or a pair (lower, upper) of them
        Fitted; any estimator with scikit-learn's methods serves. Of a classifier the sets hold the classes whose
        probability is large enough. Of a regression the intervals have one width. A pair of regressions for two
        quantiles, such as ``MLPRegressor("pinball(0.05)")`` and ``MLPRegressor("pinball(0.95)")``, gives intervals that
        are wide where the data are (conformalised quantile regression).
    X, y : array_like or data frame
        Rows that the model was not trained on, and that chose nothing about it. 1 / alpha rows are the fewest; with a
        thousand the promise is kept closely.
    alpha : float, default=0.1

    Returns
    -------
    Conformal
        ``predict_set(X)`` for a classifier, ``predict_interval(X)`` for a regression.

    Raises
    ------
    ValueError
        If there are too few rows for this `alpha`.

    References
    ----------
    V. Vovk, A. Gammerman and G. Shafer, "Algorithmic learning in a random world", 2005; Y. Romano, E. Patterson and
    E. J. Candes, "Conformalized quantile regression", NeurIPS 2019, arXiv:1905.03222. MAPIE has more of these methods
    and takes gpuprop's estimators.

    Examples
    --------
    >>> import gpuprop
    >>> data = gpuprop.datasets.load("digits")
    >>> model = gpuprop.MLPClassifier((32,), tol=0.01, random_state=0).fit(data.X[:900] / 16, data.y[:900])
    >>> sure = gpuprop.conformal(model, data.X[900:1300] / 16, data.y[900:1300], alpha=0.05)
    >>> sets = sure.predict_set(data.X[1300:] / 16)
    >>> sets.shape
    (497, 10)
    """
    alpha = check_real("alpha", alpha, 0.0, 1.0, open_minimum=True, open_maximum=True)
    truth = np.asarray(to_host(y))
    if _is_classifier(model):
        shares = _probabilities(model, X)
        places = _places(model, truth)
        scores = 1.0 - shares[np.arange(len(places)), places]
        return Conformal(model, alpha, float(_quantile(scores[:, None], alpha)[0]))
    low, high = _ends(model, X)
    values = truth.reshape(len(truth), -1).astype(np.float64)
    if values.shape != low.shape:
        raise ValueError(f"y: got shape {truth.shape}, expected {low.shape[0]} rows of {low.shape[1]} outputs")
    # Each output has an interval of its own, and its own promise.
    return Conformal(model, alpha, _quantile(np.maximum(low - values, values - high), alpha))


def _quantile(scores: Array, alpha: float) -> Array:
    """Return of each column the score of rank ``ceil((n + 1) (1 - alpha))``."""
    n_rows = len(scores)
    rank = math.ceil((n_rows + 1) * (1 - alpha) - 1e-9)
    if rank > n_rows:
        raise ValueError(
            f"got {n_rows} rows, expected at least {math.ceil(1 / alpha - 1e-9) - 1} for alpha={alpha:g}: with fewer, "
            "no finite set holds the promise"
        )
    return np.asarray(np.sort(scores, axis=0)[rank - 1])


def _is_classifier(model: Any) -> bool:
    if isinstance(model, tuple | list):
        return False
    return model.is_classifier if isinstance(model, Network) else hasattr(model, "predict_proba")


def _probabilities(model: Any, X: Any) -> Array:
    if not isinstance(model, Network):
        return np.asarray(model.predict_proba(X), np.float64)
    outputs = np.asarray(to_host(model.forward(X)), np.float64)
    return np.hstack([1 - outputs, outputs]) if outputs.shape[1] == 1 else outputs


def _places(model: Any, labels: Array) -> NDArray[np.int64]:
    if isinstance(model, Network):
        return labels.astype(np.int64)
    return _known(np.asarray(model.classes_), labels)


def _known(classes: Array, labels: Array) -> NDArray[np.int64]:
    """Return the places of labels among the classes."""
    places = np.searchsorted(classes, labels).astype(np.int64)
    if not np.array_equal(classes[np.minimum(places, len(classes) - 1)], labels):
        raise ValueError("y: has labels that the classifier does not know")
    return np.asarray(places)


def _ends(model: Any, X: Any) -> tuple[Array, Array]:
    """Return the ends of the interval before it is widened: the prediction twice, or two quantiles in their order."""
    models = model if isinstance(model, tuple | list) else (model, model)
    if len(models) != 2:
        raise ValueError(f"model: got {len(models)} models, expected one, or two for the lower and the upper quantile")
    low, high = (np.asarray(to_host(one.predict(X)), np.float64).reshape(len(X), -1) for one in models)
    return np.minimum(low, high), np.maximum(low, high)
