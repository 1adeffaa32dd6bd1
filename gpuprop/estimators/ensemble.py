"""MLPEnsemble: several networks that differ in their initial weights, train together and predict together."""

from __future__ import annotations

from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_random_state, get_tags
from sklearn.utils._param_validation import Interval
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from gpuprop.estimators.base import BaseMLP
from gpuprop.estimators.described import describe, describe_ensemble, kind_of
from gpuprop.estimators.kept_fits import keeps_fits
from gpuprop.estimators.members import Job, fit_together
from gpuprop.estimators.parameters import Method, fit_method
from gpuprop.estimators.samples import input_dtypes, validated, validated_inputs
from gpuprop.estimators.undoing import as_before_if_it_fails
from gpuprop.model.stored_network import save_networks

__all__ = ["MLPEnsemble"]

Array = NDArray[Any]


def _if_classifier(method: Method) -> Method:
    available: Method = available_if(lambda ensemble: is_classifier(ensemble))(method)
    return available


class MLPEnsemble(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no type annotations
    """Networks that differ in their initial weights; a prediction is the mean of their outputs.

    They train together, see `gpuprop.training.side_by_side`; each becomes the network that its own ``fit`` would have
    given.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        The members are copies of it. If its `checkpoint` names a folder, each member keeps checkpoints there, and a
        `fit` that was killed goes on where they stood; `random_state` must then not be None.
    n_networks : int, default=10
    random_state : int, RandomState or None, default=None
        The ensemble draws the `random_state` of each member from it.
    shared_order : bool, default=True
        Whether all members hold out the same rows and see the others in the same order. The ensemble then draws their
        common `order_random_state` too, unless `estimator` has one. With False each member has rows and an order of its
        own: the members vary more.

    Attributes
    ----------
    estimators_ : list of MLPClassifier or MLPRegressor
        The fitted members; ``clone(member).fit(X, y)`` gives the same network again.
    classes_ : ndarray of shape (n_classes,)
        The classes, if `estimator` is a classifier.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        The names of the columns, if X had names.

    Raises
    ------
    ValueError
        On fitting, if a parameter or the data are out of range.

    References
    ----------
    B. Lakshminarayanan, A. Pritzel and C. Blundell, "Simple and scalable predictive uncertainty estimation using deep
    ensembles", NeurIPS 2017: initial weights make most of the difference between members.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from gpuprop import MLPEnsemble, MLPRegressor
    >>> X, y = make_regression(n_samples=100, n_features=5, random_state=1)
    >>> ensemble = MLPEnsemble(MLPRegressor(tol=0.01), n_networks=3, random_state=0).fit(X, y / abs(y).max())
    >>> mean, std = ensemble.predict(X, return_std=True)
    >>> mean.shape, std.shape
    ((100,), (100,))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [BaseMLP],
        "n_networks": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "shared_order": ["boolean"],
    }

    def __init__(
        self, estimator: Any, n_networks: int = 10, *, random_state: Any = None, shared_order: bool = True
    ) -> None:
        self.estimator = estimator
        self.n_networks = n_networks
        self.random_state = random_state
        self.shared_order = shared_order

    @fit_method
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> Self:
        """Train all members. A fit that fails leaves the members of an earlier one.

        Parameters
        ----------
        X, y, sample_weight, X_val, y_val
            As for `MLPClassifier.fit`.

        Returns
        -------
        MLPEnsemble
            This object.
        """
        if keeps_fits(self.estimator) and self.random_state is None:
            raise ValueError(
                "random_state: got None for an ensemble with checkpoints, whose members would not be found again; "
                "pass an int"
            )
        with as_before_if_it_fails(self):
            X, y = validated(self, X, y, input_dtypes(self.estimator), reset=True)
            X_val = None if X_val is None else validated_inputs(self, X_val)
            options = {"sample_weight": sample_weight, "X_val": X_val, "y_val": y_val}
            members = [clone(self.estimator).set_params(**seeds) for seeds in self._seeds()]
            for outcome in fit_together(Job(member, X, y, options) for member in members):
                if outcome.error is not None:
                    raise outcome.error
        self.estimators_ = members
        if is_classifier(self):
            self.classes_ = members[0].classes_
        return self

    def _seeds(self) -> list[dict[str, int]]:
        """Return the parameters in which the members differ, or which they share."""
        random_state = check_random_state(self.random_state)
        of_order, *own = random_state.randint(np.iinfo(np.int32).max, size=self.n_networks + 1).tolist()
        share = self.shared_order and self.estimator.order_random_state is None
        shared = {"order_random_state": of_order} if share else {}
        return [{"random_state": seed} | shared for seed in own]

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the prediction that belongs to the mean of the members' outputs.

        Parameters
        ----------
        X : array_like or sparse matrix of shape (n_samples, n_features)
        return_std : bool, default=False
            Whether to return the standard deviation over the members too: of the predictions of a regression, or of
            the probability that a classifier gives to the predicted class, or to each label.

        Returns
        -------
        ndarray, or tuple of two of them
            Of the shape that `MLPClassifier.predict` or `MLPRegressor.predict` returns.
        """
        outputs = self._outputs(X)
        member, mean, std = self.estimators_[0], outputs.mean(axis=0), outputs.std(axis=0)
        predicted = member.prediction_of(mean)
        if not is_classifier(self):
            std = member.prediction_of(std)
        elif predicted.ndim == 1:  # of two classes only one has an output, and the other the same spread
            std = std[np.arange(len(std)), mean.argmax(axis=1)]
        return (predicted, std) if return_std else predicted

    @_if_classifier
    def predict_proba(self, X: Any) -> Array:
        """Return the mean of the members' probabilities for each class, or for each label."""
        outputs = self._outputs(X).mean(axis=0)
        probabilities: Array = self.estimators_[0].probabilities_of(outputs)
        return probabilities

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of a classifier, or R2 of a regression."""
        measure = accuracy_score if is_classifier(self) else r2_score
        return float(measure(y, self.predict(X), sample_weight=sample_weight))

    def save(self, path: str | Path) -> None:
        """Write the fitted ensemble to one file, which `gpuprop.load` reads; see `MLPClassifier.save`.

        Raises
        ------
        ModelFileError
            If the file cannot be written.
        ValueError
            If a parameter or a label is of a type that a file cannot hold.
        """
        check_is_fitted(self)
        save_networks(
            [member.network_ for member in self.estimators_],
            path,
            kind=kind_of(self.estimators_[0]),
            estimators=[describe(member) for member in self.estimators_],
            ensemble=describe_ensemble(self),
        )

    def _outputs(self, X: Any) -> Array:
        """Return the outputs of every member: (n_networks, n_samples, n_outputs)."""
        check_is_fitted(self)
        X = validated_inputs(self, X)
        return np.stack([member.network_.forward(X) for member in self.estimators_])

    def __sklearn_tags__(self) -> Any:
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        for name in ("estimator_type", "classifier_tags", "regressor_tags", "target_tags", "input_tags"):
            setattr(tags, name, getattr(inner, name))
        return tags
