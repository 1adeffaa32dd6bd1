"""Estimators and ensembles out of the descriptions in model files; see `gpuprop.estimators.described`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpuprop.estimators.base import BaseMLP
from gpuprop.estimators.classifier import MLPClassifier
from gpuprop.estimators.described import DESCRIBED, check_records, restore_records, restored_labels
from gpuprop.estimators.ensemble import MLPEnsemble
from gpuprop.estimators.parameters import check_parameters, check_types
from gpuprop.estimators.plain_values import revived
from gpuprop.estimators.regressor import MLPRegressor
from gpuprop.maths.activations import Activation
from gpuprop.model.network import Network
from gpuprop.model.refusals import shown

__all__ = ["KINDS", "restore", "restore_ensemble", "restore_feature_names", "revived_content"]

#: The kinds of model file that hold an estimator.
KINDS: dict[str, type[BaseMLP]] = {"classifier": MLPClassifier, "regressor": MLPRegressor}


def restore(
    kind: str, network: Network, described: Mapping[str, Any], activations: Mapping[str, Activation]
) -> BaseMLP:
    """Return the estimator that `gpuprop.estimators.described.describe` described, with `network` as its network.

    Raises
    ------
    RefusedError, TypeError, ValueError, LookupError, AttributeError
        If the description is not one.
    """
    content = revived_content(described, activations)
    DESCRIBED[kind].check(content, "metadata.estimator")
    estimator = KINDS[kind](**content["parameters"], device=network.device_)
    check_parameters(estimator)
    if network.spec.embedding is not None or network.loss_function.classification != (kind == "classifier"):
        raise ValueError(f"a network of another kind than a {kind}'s: {network!r}")
    if isinstance(estimator, MLPClassifier):
        _restore_labels(estimator, content["labels"])
        n_outputs, n_labels = network.layer_sizes[-1], len(estimator.classes_)
        if n_outputs != (1 if n_labels <= 2 and not estimator.is_multilabel else n_labels):
            raise ValueError(f"{n_labels} labels for {n_outputs} outputs")
    check_records(content["records"])
    estimator.take_network(network)
    restore_records(estimator, content["records"])
    restore_feature_names(estimator, described)
    return estimator


def revived_content(described: Mapping[str, Any], activations: Mapping[str, Activation]) -> dict[str, Any]:
    """Return what a file says of an estimator, with values in place of what stands for them, see `plain_values`."""
    content = dict(described)
    for part in ("parameters", "estimator", "records", "labels"):  # each gives values to names
        if isinstance(content.get(part), dict):
            content[part] = {name: revived(one, activations) for name, one in content[part].items()}
    if "history" in content:
        content["history"] = revived(content["history"])
    return content


def restore_ensemble(
    members: Sequence[Any], described: Mapping[str, Any], activations: Mapping[str, Activation]
) -> MLPEnsemble:
    """Return the ensemble that `describe_ensemble` described, with these members; errors are those of `restore`."""
    first = members[0]
    if type(first) not in KINDS.values() or any(type(member) is not type(first) for member in members):
        raise ValueError("the members are not all classifiers, or all regressors")
    if any(member.network_.layer_sizes != first.network_.layer_sizes for member in members):
        raise ValueError("the members have different layers")
    content = revived_content(described, activations)
    DESCRIBED["ensemble"].check(content, "metadata.ensemble")
    inner = type(first)(**content["estimator"], device=first.device)
    check_parameters(inner)
    ensemble = MLPEnsemble(inner, **content["parameters"])
    check_types(ensemble)
    ensemble.estimators_ = list(members)
    ensemble.n_features_in_ = first.n_features_in_
    if isinstance(first, MLPClassifier):
        if any(not np.array_equal(member.classes_, first.classes_) for member in members):
            raise ValueError("the members have different classes")
        ensemble.classes_ = first.classes_
    restore_feature_names(ensemble, described)
    return ensemble


def _restore_labels(classifier: MLPClassifier, labels: Mapping[str, Any]) -> None:
    classes, several = restored_labels(labels), labels["several"]
    if several and len(classes) < 2:
        raise ValueError(f"several labels of {len(classes)}, expected at least 2")
    classifier.learn_labels(np.array([[0] * len(classes), [1] * len(classes)]) if several else classes)
    if classifier.classes_.tolist() != classes.tolist():
        raise ValueError(f"labels {shown(classes.tolist())} for several labels, expected 0, 1, ...")


def restore_feature_names(estimator: Any, described: Mapping[str, Any]) -> None:
    """Give an estimator the names of its columns, if the file has them."""
    if "feature_names" in described:
        names = described["feature_names"]
        if len(names) != estimator.n_features_in_:
            raise ValueError(f"{len(names)} feature names for {estimator.n_features_in_} features")
        estimator.feature_names_in_ = np.array(names, dtype=object)
