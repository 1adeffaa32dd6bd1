"""Estimators for tables out of the descriptions in model files; see `gpuprop.estimators.tabular_described`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpuprop.estimators.columns import Columns
from gpuprop.estimators.described import restored_labels
from gpuprop.estimators.plain_values import revived
from gpuprop.estimators.restored import restore_feature_names
from gpuprop.estimators.tabular import TabularClassifier, TabularRegressor
from gpuprop.estimators.tabular_described import TABULAR_KINDS
from gpuprop.maths.activations import Activation
from gpuprop.model.network import Network

__all__ = ["restore_tabular"]


def restore_tabular(
    kind: str, networks: Sequence[Network], described: Mapping[str, Any], activations: Mapping[str, Activation]
) -> TabularClassifier | TabularRegressor:
    """Return the estimator that a file describes, with these networks.

    Raises
    ------
    TypeError, ValueError, LookupError, AttributeError
        If the description is not one.
    """
    parameters = {name: revived(value, activations) for name, value in described["parameters"].items()}
    estimator: TabularClassifier | TabularRegressor
    if kind == TABULAR_KINDS[0]:
        estimator = TabularClassifier(**parameters, device=networks[0].device_)
    else:
        estimator = TabularRegressor(**parameters, device=networks[0].device_)
    estimator.networks_ = list(networks)
    estimator.columns_ = Columns.from_plain(described["columns"])
    estimator.n_features_in_ = int(described["n_features"])
    estimator.best_epochs_ = [int(epoch) for epoch in described["best_epochs"]]
    estimator.history_ = {column: list(values) for column, values in revived(described["history"]).items()}
    sizes = {network.layer_sizes for network in networks}
    n_inputs, estimator.n_outputs_ = networks[0].spec.n_inputs, networks[0].layer_sizes[-1]
    if len(sizes) != 1 or n_inputs != len(estimator.columns_.input_names):
        raise ValueError(f"networks of the sizes {sorted(sizes)} for {len(estimator.columns_.input_names)} inputs")
    if len(estimator.columns_.kinds) != estimator.n_features_in_:
        raise ValueError(f"{len(estimator.columns_.kinds)} columns, expected {estimator.n_features_in_}")
    restore_feature_names(estimator, described)
    if isinstance(estimator, TabularClassifier):
        estimator.classes_ = restored_labels(described["labels"])
        if len(estimator.classes_) != estimator.n_outputs_:
            raise ValueError(f"{len(estimator.classes_)} labels for {estimator.n_outputs_} outputs")
    else:
        _restore_targets(estimator, described["targets"])
    return estimator


def _restore_targets(regressor: TabularRegressor, targets: Mapping[str, Any]) -> None:
    regressor.target_ndim_ = int(targets["ndim"])
    regressor.target_mean_ = np.array(targets["mean"], np.float64)
    regressor.target_deviation_ = np.array(targets["deviation"], np.float64)
    regressor.target_range_ = None if targets["range"] is None else np.array(targets["range"], np.float64)
    shape = (regressor.n_outputs_,)
    if regressor.target_mean_.shape != shape or regressor.target_deviation_.shape != shape:
        raise ValueError(f"targets of shape {regressor.target_mean_.shape} for {shape[0]} outputs")
    if regressor.target_range_ is not None and regressor.target_range_.shape != (2, *shape):
        raise ValueError(f"a range of targets of shape {regressor.target_range_.shape}, expected {(2, *shape)}")
