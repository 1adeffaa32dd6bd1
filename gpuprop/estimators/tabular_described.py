"""What a model file says of an estimator for tables beside its networks; `tabular_restored` builds it again.

The file is that of an ensemble, of the kind "tabular-classifier" or "tabular-regressor". Its columns are the plain
values of `gpuprop.estimators.columns.Columns.to_plain`: names, kinds, values and scaling.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sklearn.base import is_classifier

from gpuprop.estimators.columns import COLUMNS
from gpuprop.estimators.described import HISTORY, LABELS, described_labels, described_parameters, kept_history
from gpuprop.estimators.parameters import check_class_weight, check_types
from gpuprop.estimators.plain_values import plain, revived
from gpuprop.model.forms import FLAG, NONE, SCALAR, TEXT, Either, Fields, Form, Items, Named, Real, Whole
from gpuprop.model.stored_network import save_networks

__all__ = ["LISTS", "TABULAR", "TABULAR_KINDS", "check_table_parameters", "save_tabular"]

_SELECTED = Either(NONE, TEXT, Items(Either(TEXT, Whole(), FLAG)))
#: Those of the parameters that scikit-learn's constraints do not look into.
LISTS = {
    "categorical_features": _SELECTED,
    "numeric_features": _SELECTED,
    "date_features": _SELECTED,
    "drop": _SELECTED,
    "missing_values": Items(SCALAR),
}
_ABOUT: dict[str, Form] = {
    "parameters": Named(),
    "columns": COLUMNS,
    "n_features": Whole(1),
    "history": HISTORY,
    "best_epochs": Items(Whole(0)),
}
_NAMES: dict[str, Form] = {"feature_names": Items(TEXT)}
_TARGETS = Fields(
    {
        "ndim": Whole(1, 2),
        "mean": Items(Real()),
        "deviation": Items(Real()),
        "range": Either(NONE, Items(Items(Real()), 2, 2)),
    }
)
#: The kinds of model file that hold an estimator for tables: of a classifier, and of a regressor.
TABULAR_KINDS = ("tabular-classifier", "tabular-regressor")
#: What a file may say of each, once its values are revived, see `gpuprop.estimators.plain_values`.
TABULAR = {
    "tabular-classifier": Fields({**_ABOUT, "labels": LABELS}, _NAMES),
    "tabular-regressor": Fields({**_ABOUT, "targets": _TARGETS}, _NAMES),
}


def save_tabular(estimator: Any, path: str | Path) -> None:
    """Write a fitted `TabularClassifier` or `TabularRegressor` to a file; see its ``save``."""
    kind = TABULAR_KINDS[0 if is_classifier(estimator) else 1]
    save_networks(estimator.networks_, path, kind=kind, ensemble=_described(estimator))


def check_table_parameters(estimator: Any, described: Mapping[str, Any]) -> None:
    """Raise ``TypeError`` or ``ValueError`` for parameters, and their descriptions, with which no fit could begin."""
    check_types(estimator)
    estimator.preset_in_use()
    for name, form in LISTS.items():
        form.check(described.get(name, ()), name)
    if is_classifier(estimator):
        check_class_weight(estimator.class_weight)


def _described(estimator: Any) -> dict[str, Any]:
    parameters = described_parameters(estimator)
    check_table_parameters(estimator, {name: revived(value) for name, value in parameters.items()})
    described: dict[str, Any] = {
        "parameters": parameters,
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
