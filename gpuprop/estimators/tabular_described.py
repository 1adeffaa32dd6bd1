"""What a model file says of an estimator for tables beside its networks; `tabular_restored` builds it again.

The file is that of an ensemble, of the kind "tabular-classifier" or "tabular-regressor". Its columns are the plain
values of `gpuprop.estimators.columns.Columns.to_plain`: names, kinds, values and scaling.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sklearn.base import is_classifier

from gpuprop.estimators.described import described_labels, described_parameters, kept_history
from gpuprop.estimators.plain_values import plain
from gpuprop.model.stored_network import save_networks

__all__ = ["TABULAR_KINDS", "save_tabular"]

#: The kinds of model file that hold an estimator for tables: of a classifier, and of a regressor.
TABULAR_KINDS = ("tabular-classifier", "tabular-regressor")


def save_tabular(estimator: Any, path: str | Path) -> None:
    """Write a fitted `TabularClassifier` or `TabularRegressor` to a file; see its ``save``."""
    kind = TABULAR_KINDS[0 if is_classifier(estimator) else 1]
    save_networks(estimator.networks_, path, kind=kind, ensemble=_described(estimator))


def _described(estimator: Any) -> dict[str, Any]:
    described: dict[str, Any] = {
        "parameters": described_parameters(estimator),
        "columns": estimator.columns_.to_plain(),
        "n_features": estimator.n_features_in_,
        "history": plain("history_", kept_history(estimator.history_)),
        "best_epochs": estimator.best_epochs_,
    }
    if hasattr(estimator, "feature_names_in_"):
        described["feature_names"] = [str(name) for name in estimator.feature_names_in_]
    if is_classifier(estimator):
        described["labels"] = described_labels(estimator.classes_)
    else:
        described["targets"] = {
            "ndim": estimator.target_ndim_,
            "mean": estimator.target_mean_.tolist(),
            "deviation": estimator.target_deviation_.tolist(),
            "range": None if estimator.target_range_ is None else estimator.target_range_.tolist(),
        }
    return described
