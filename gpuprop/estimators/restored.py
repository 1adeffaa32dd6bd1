"""Estimators and ensembles out of the descriptions in model files; see `gpuprop.estimators.described`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpuprop.estimators.base import BaseMLP
from gpuprop.estimators.classifier import MLPClassifier
from gpuprop.estimators.described import RECORDS, restore_records, restored_labels
from gpuprop.estimators.ensemble import MLPEnsemble
from gpuprop.estimators.plain_values import revived
from gpuprop.estimators.regressor import MLPRegressor
from gpuprop.maths.activations import Activation
from gpuprop.model.network import Network

__all__ = ["KINDS", "restore", "restore_ensemble", "restore_feature_names", "restored_labels"]

#: The kinds of model file that hold an estimator.
KINDS: dict[str, type[BaseMLP]] = {"classifier": MLPClassifier, "regressor": MLPRegressor}


def restore(
    kind: str, network: Network, described: Mapping[str, Any], activations: Mapping[str, Activation]
) -> BaseMLP:
    """Return the estimator that `gpuprop.estimators.described.describe` described, with `network` as its network.

    Raises
    ------
    TypeError, ValueError, LookupError, AttributeError
        If the description is not one.
    """
    parameters = {name: revived(value, activations) for name, value in described["parameters"].items()}
    estimator = KINDS[kind](**parameters, device=network.device_)
    if isinstance(estimator, MLPClassifier):
        _restore_labels(estimator, described["labels"])
        n_outputs, n_labels = network.layer_sizes[-1], len(estimator.classes_)
        if n_labels != n_outputs and not (n_outputs == 1 and n_labels <= 2):
            raise ValueError(f"{n_labels} labels for {n_outputs} outputs")
    records = {name: revived(value) for name, value in described["records"].items()}
    unknown = set(records) - set(RECORDS)
    if unknown:
        raise ValueError(f"unknown record {sorted(unknown)[0]!r}")
    estimator.take_network(network)
    restore_records(estimator, records)
    restore_feature_names(estimator, described)
    return estimator


def restore_ensemble(
    members: Sequence[Any], described: Mapping[str, Any], activations: Mapping[str, Activation]
) -> MLPEnsemble:
    """Return the ensemble that `describe_ensemble` described, with these members; errors are those of `restore`."""
    first = members[0]
    if type(first) not in KINDS.values() or any(type(member) is not type(first) for member in members):
        raise ValueError("the members are not all classifiers, or all regressors")
    if any(member.network_.layer_sizes != first.network_.layer_sizes for member in members):
        raise ValueError("the members have different layers")
    own, inner = (
        {name: revived(value, activations) for name, value in described[part].items()}
        for part in ("parameters", "estimator")
    )
    ensemble = MLPEnsemble(type(first)(**inner, device=first.device), **own)
    ensemble.estimators_ = list(members)
    ensemble.n_features_in_ = first.n_features_in_
    if isinstance(first, MLPClassifier):
        if any(not np.array_equal(member.classes_, first.classes_) for member in members):
            raise ValueError("the members have different classes")
        ensemble.classes_ = first.classes_
    restore_feature_names(ensemble, described)
    return ensemble


def _restore_labels(classifier: MLPClassifier, labels: Mapping[str, Any]) -> None:
    classes = restored_labels(labels)
    classifier.learn_labels(np.array([[0] * len(classes), [1] * len(classes)]) if labels["several"] else classes)


def restore_feature_names(estimator: Any, described: Mapping[str, Any]) -> None:
    """Give an estimator the names of its columns, if the file has them."""
    if "feature_names" in described:
        estimator.feature_names_in_ = np.array([str(name) for name in described["feature_names"]], dtype=object)
