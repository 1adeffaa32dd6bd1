"""Estimators for tables out of the descriptions in model files; see `gpuprop.estimators.tabular_described`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpuprop.estimators.columns import Columns
from gpuprop.estimators.described import check_history, restored_labels
from gpuprop.estimators.restored import restore_feature_names, revived_content
from gpuprop.estimators.tabular import TabularClassifier, TabularRegressor
from gpuprop.estimators.tabular_described import TABULAR, TABULAR_KINDS, check_table_parameters
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
    content = revived_content(described, activations)
    TABULAR[kind].check(content, "metadata.ensemble")
    estimator: TabularClassifier | TabularRegressor
    if kind == TABULAR_KINDS[0]:
        estimator = TabularClassifier(**content["parameters"], device=networks[0].device_)
    else:
        estimator = TabularRegressor(**content["parameters"], device=networks[0].device_)
    check_table_parameters(estimator, content["parameters"])
    check_history(content["history"])
    estimator.networks_ = list(networks)
    estimator.columns_ = Columns.from_plain(content["columns"])
    estimator.n_features_in_ = content["n_features"]
    estimator.best_epochs_ = list(content["best_epochs"])
    estimator.history_ = {column: list(values) for column, values in content["history"].items()}
    _check_networks(networks, estimator.columns_, classification=kind == TABULAR_KINDS[0])
    estimator.n_outputs_ = networks[0].layer_sizes[-1]
    if len(estimator.best_epochs_) != len(networks):
        raise ValueError(f"{len(estimator.best_epochs_)} best epochs for {len(networks)} networks")
    if len(estimator.columns_.kinds) != estimator.n_features_in_:
        raise ValueError(f"{len(estimator.columns_.kinds)} columns, expected {estimator.n_features_in_}")
    restore_feature_names(estimator, content)
    if isinstance(estimator, TabularClassifier):
        estimator.classes_ = restored_labels(content["labels"])
        if len(estimator.classes_) != estimator.n_outputs_:
            raise ValueError(f"{len(estimator.classes_)} labels for {estimator.n_outputs_} outputs")
    else:
        _restore_targets(estimator, content["targets"])
    return estimator


def _check_networks(networks: Sequence[Network], columns: Columns, *, classification: bool) -> None:
    """Raise ``ValueError`` for networks that do not take what the columns give, or do not belong together."""
    first = networks[0].spec
    if any(one.spec.layer_sizes != first.layer_sizes or one.spec.embedding != first.embedding for one in networks):
        raise ValueError("networks of different layers")
    if any(one.loss_function.classification != classification for one in networks):
        raise ValueError(f"networks of the loss {first.loss.name!r}, which is for another task")
    n_numbers, n_plain, codes = columns.layout
    if first.embedding is None:
        fits = not codes and first.n_inputs == n_numbers + n_plain
    else:
        embedded = first.embedding
        fits = embedded.n_numbers in (0, n_numbers) and embedded.categories == codes
        fits = fits and embedded.n_numbers + embedded.n_plain == n_numbers + n_plain
    if not fits:
        raise ValueError(f"{networks[0]!r} for {len(columns.input_names)} inputs, {len(codes)} of them codes")


def _restore_targets(regressor: TabularRegressor, targets: Mapping[str, Any]) -> None:
    regressor.target_ndim_ = targets["ndim"]
    regressor.target_mean_ = np.array(targets["mean"], np.float64)
    regressor.target_deviation_ = np.array(targets["deviation"], np.float64)
    regressor.target_range_ = None if targets["range"] is None else np.array(targets["range"], np.float64)
    shape = (regressor.n_outputs_,)
    if regressor.target_mean_.shape != shape or regressor.target_deviation_.shape != shape:
        raise ValueError(f"targets of shape {regressor.target_mean_.shape} for {shape[0]} outputs")
    if targets["ndim"] == 1 and shape != (1,):
        raise ValueError(f"targets of one dimension for {shape[0]} outputs")
    if (regressor.target_deviation_ <= 0).any():
        raise ValueError(f"deviations of the targets {targets['deviation']}, expected numbers above 0")
    if regressor.target_range_ is not None and regressor.target_range_.shape != (2, *shape):
        raise ValueError(f"a range of targets of shape {regressor.target_range_.shape}, expected {(2, *shape)}")
