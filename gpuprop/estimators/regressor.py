"""MLPRegressor: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d

from gpuprop.arrays import to_host
from gpuprop.estimators.base import BaseMLP, Role, if_stochastic
from gpuprop.estimators.parameters import CONSTRAINTS, fit_method, regression_loss, set_parameters
from gpuprop.estimators.undoing import as_before_if_it_fails

__all__ = ["MLPRegressor"]

Array = NDArray[Any]


class MLPRegressor(RegressorMixin, BaseMLP):  # type: ignore[misc]  # scikit-learn has no type annotations
    """Multilayer perceptron for regression, in place of scikit-learn's class of the same name.

    Parameters
    ----------
    loss : str, default="squared_error"
        A sum over the outputs. "squared_error" is half the squared error; "poisson" half the Poisson deviance (for
        ``y >= 0``; the outputs are then exponential). Beyond scikit-learn: "absolute_error" predicts medians, "huber"
        or "huber(DELTA)" grows only linearly for outliers, "pinball(Q)" predicts Q-quantiles.
    hidden_layer_sizes, activation, solver, ... :
        All further parameters are those of `MLPClassifier`, except `class_weight` and `label_smoothing`.

    Attributes
    ----------
    validation_scores_, best_validation_score_ : list of float, float
        R2 on the held-out rows after each epoch, and the best; None without early stopping.
    history_ : dict of lists
        As for `MLPClassifier`, with "train_r2" and "validation_r2" (over all outputs together).
    out_activation_ : str
        "identity", or "exp" for Poisson.
    loss_, best_loss_, loss_curve_, coefs_, intercepts_, n_iter_, plan_, ... :
        As for `MLPClassifier`.

    Raises
    ------
    ValueError
        On fitting, if a parameter or the data are out of range.
    NonFiniteLossError
        On fitting, if the loss becomes infinite or NaN.

    Notes
    -----
    docs/scikit-learn.md lists where and why this differs from scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from gpuprop import MLPRegressor
    >>> X, y = make_regression(n_samples=200, n_features=20, random_state=1)
    >>> MLPRegressor(random_state=1, max_iter=2000, tol=0.1).fit(X, y).predict(X[:2]).shape
    (2,)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = CONSTRAINTS | {"loss": [str]}

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float | None = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        max_epochs: int | None = None,
        l1: float = 0.0,
        weight_decay: float | None = None,
        dropout: Any = 0.0,
        clip_norm: float | None = None,
        device: str = "auto",
        dtype: Any = None,
        precision: str = "float32",
        emulate: bool = False,
        callbacks: Any = None,
        order_random_state: Any = None,
        n_threads: int | None = None,
        plan: str = "auto",
        checkpoint: Any = None,
        metrics: Any = None,
        monitor: str | None = None,
        batch_norm: bool = False,
        residual: bool = False,
    ) -> None:
        set_parameters(self, locals())

    @fit_method
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> MLPRegressor:
        """Train.

        Parameters
        ----------
        X : array_like or sparse matrix of shape (n_samples, n_features)
        y : array_like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array_like of shape (n_samples,) or None, default=None
        X_val, y_val : array_like or None, default=None
            Rows that are not trained on, evaluated after each epoch; early stopping watches them instead of
            holding out rows of its own.

        Returns
        -------
        MLPRegressor
            This object.
        """
        self._fit(X, y, sample_weight, X_val=X_val, y_val=y_val)
        return self

    @if_stochastic
    @fit_method
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Train one more epoch, with the parameters and the optimizer as they are; not for "lbfgs".

        A call that fails, because training diverges on these rows, say, leaves the estimator as it was.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        MLPRegressor
            This object.
        """
        with as_before_if_it_fails(self):
            self._fit(X, y, sample_weight, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """Return the prediction for each row of X: shape (n_samples,) or (n_samples, n_outputs)."""
        return self.prediction_of(self._forward(X))

    def prediction_of(self, outputs: Array) -> Array:
        """Return the predictions that belong to the network's outputs, see `predict`."""
        return outputs.ravel() if outputs.shape[1] == 1 else outputs

    @property
    def _loss_scale(self) -> float:  # type: ignore[override]
        """The number of outputs for the squared error, which scikit-learn averages over the outputs."""
        return float(self.n_outputs_) if self.loss == "squared_error" else 1.0

    def _check_targets(self, y: Any, role: Role) -> Array:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return np.asarray(y)

    def _network_loss(self) -> Any:
        return regression_loss(self)

    def _score_of(self, validation: Any) -> Callable[[Mapping[str, Any]], float]:
        def score(record: Mapping[str, Any]) -> float:
            outputs = to_host(self.network_.forward(validation.X))
            if not np.isfinite(outputs).all():
                return float(np.nan)
            return float(r2_score(validation.targets, outputs, sample_weight=validation.weight))

        return score

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
