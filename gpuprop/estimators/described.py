"""What a model file says of a fitted estimator beside its network: parameters, labels and records, as plain JSON.

A file holds neither callbacks nor a ``RandomState``, and not how and where the updates were made: device, number of
threads, plan and checkpoints, nor functions among the metrics. These parameters have their defaults again in the
estimator that is read.
`gpuprop.estimators.restored` builds estimators from descriptions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier

from gpuprop.estimators.parameters import check_parameters, check_types
from gpuprop.estimators.plain_values import plain, revived
from gpuprop.model.forms import FLAG, FLOAT, NONE, SCALAR, TEXT, Either, Fields, Form, Items, Named, Whole
from gpuprop.model.refusals import shown

__all__ = [
    "DESCRIBED",
    "HISTORY",
    "LABELS",
    "RECORDS",
    "check_history",
    "check_records",
    "describe",
    "describe_ensemble",
    "described_labels",
    "described_parameters",
    "kept_history",
    "kind_of",
    "restore_records",
    "restored_labels",
]

HISTORY = Named(Items(SCALAR))
#: Fitted attributes that a file holds where an estimator has them, and what they may be.
RECORDS = {
    "n_iter_": Whole(0),
    "t_": Whole(0),
    "loss_": FLOAT,
    "best_loss_": Either(FLOAT, NONE),
    "loss_curve_": Items(FLOAT),
    "validation_scores_": Either(Items(FLOAT), NONE),
    "best_validation_score_": Either(FLOAT, NONE),
    "history_": HISTORY,
    "_no_improvement_count": Whole(0),
}
#: The records that epochs need; an estimator has all of them, or none.
_OF_EPOCHS = ("best_loss_", "loss_curve_", "validation_scores_", "best_validation_score_", "_no_improvement_count")
LABELS = Fields({"dtype": TEXT, "values": Items(Either(TEXT, FLOAT, FLAG)), "several": FLAG})
#: What a file may say of a classifier or a regressor, once its values are revived, see `plain_values`.
_ABOUT: dict[str, Form] = {"parameters": Named(), "records": Fields({"n_iter_": Whole(0), "t_": Whole(0)}, RECORDS)}
_NAMES: dict[str, Form] = {"feature_names": Items(TEXT)}
DESCRIBED = {
    "classifier": Fields({**_ABOUT, "labels": LABELS}, _NAMES),
    "regressor": Fields(_ABOUT, _NAMES),
    "ensemble": Fields({"parameters": Named(), "estimator": Named()}, _NAMES),
}
#: The most epochs of which a file holds the records: the last ones.
MOST_EPOCHS = 10_000
#: Parameters that a file does not hold; it describes the `estimator` of an ensemble separately.
_NOT_STORED = ("callbacks", "device", "emulate", "n_threads", "plan", "checkpoint", "estimator")
_LABEL_DTYPES = r"(int|uint)(8|16|32|64)|float(16|32|64)|bool|object|str"


def kind_of(estimator: Any) -> str:
    """Return the kind of file that holds `estimator`: "classifier" or "regressor"."""
    return "classifier" if is_classifier(estimator) else "regressor"


def describe(estimator: Any) -> dict[str, Any]:
    """Return everything of a fitted `MLPClassifier` or `MLPRegressor` but its network, as JSON values.

    Raises
    ------
    ValueError
        If a parameter is wrong, or a parameter or a label is of a type that a file cannot hold.
    """
    check_parameters(estimator)
    parameters = described_parameters(estimator)
    records = {name: getattr(estimator, name) for name in RECORDS if hasattr(estimator, name)}
    if "history_" in records:
        records["history_"] = kept_history(records["history_"])
    described: dict[str, Any] = {"parameters": parameters}
    described["records"] = {name: plain(name, _last(value)) for name, value in records.items()}
    if hasattr(estimator, "feature_names_in_"):
        described["feature_names"] = [str(name) for name in estimator.feature_names_in_]
    if is_classifier(estimator):
        described["labels"] = described_labels(estimator.classes_, several=estimator.is_multilabel)
    return described


def describe_ensemble(ensemble: Any) -> dict[str, Any]:
    """Return the parameters of a fitted `MLPEnsemble`, and those of its `estimator`, as JSON values."""
    check_types(ensemble)
    check_parameters(ensemble.estimator)
    described: dict[str, Any] = {
        "parameters": described_parameters(ensemble),
        "estimator": described_parameters(ensemble.estimator),
    }
    if hasattr(ensemble, "feature_names_in_"):
        described["feature_names"] = [str(name) for name in ensemble.feature_names_in_]
    return described


def kept_history(history: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file holds of a history: no times, so that equal runs give equal bytes, and the last epochs."""
    return {column: _last(rows) for column, rows in history.items() if column != "seconds"}


def _last(record: Any) -> Any:
    """Return the end of a record of very many epochs, which would not fit into a file's metadata."""
    return record[-MOST_EPOCHS:] if isinstance(record, (list, tuple)) else record


def described_parameters(estimator: Any) -> dict[str, Any]:
    """Return the parameters of an estimator as JSON values."""
    own = estimator.get_params(deep=False)
    metrics = own.get("metrics")
    named = isinstance(metrics, str | None) or (
        isinstance(metrics, list | tuple) and all(isinstance(m, str) for m in metrics)
    )
    left_out = (*_NOT_STORED, *(() if named else ("metrics", "monitor")))
    return {
        name: plain(name, value)
        for name, value in own.items()
        if name not in left_out and not isinstance(value, np.random.RandomState)
    }


def described_labels(classes: NDArray[Any], *, several: bool = False) -> dict[str, Any]:
    """Return labels as JSON values, from which `restored_labels` makes equal ones.

    Raises
    ------
    ValueError
        If a file cannot hold them.
    """
    dtype = "str" if classes.dtype.kind == "U" else classes.dtype.name
    values = classes.tolist()
    try:
        described = {"dtype": dtype, "values": [plain("classes_", label) for label in values], "several": several}
        same = restored_labels(described).tolist() == values
    except (TypeError, ValueError):
        same = False
    if not same:
        shown = ", ".join(map(repr, values[:3]))
        raise ValueError(
            f"classes_: got labels {shown} of dtype {classes.dtype}, expected text, numbers or booleans; "
            "a file holds no others"
        )
    return described


def restored_labels(described: Mapping[str, Any]) -> NDArray[Any]:
    """Return the labels that `described_labels` described; the values may have been revived.

    Raises
    ------
    TypeError, ValueError, LookupError
        If the description is not one.
    """
    dtype, values = described["dtype"], [revived(value) for value in described["values"]]
    if not re.fullmatch(_LABEL_DTYPES, dtype) or any(not isinstance(v, (str, int, float, bool)) for v in values):
        raise ValueError(f"labels of dtype {dtype!r}, expected text, numbers or booleans")
    labels = np.array(values, dtype=dtype)
    if labels.tolist() != values or np.unique(labels).tolist() != values:
        raise ValueError(f"labels {shown(values)}, expected different {dtype} in their order")
    return labels


def check_records(records: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for records of a file that an estimator could not go on with."""
    of_epochs = [name for name in _OF_EPOCHS if name in records]
    if of_epochs and len(of_epochs) < len(_OF_EPOCHS):
        raise ValueError(f"records of {', '.join(of_epochs)} only, expected all of {', '.join(_OF_EPOCHS)}, or none")
    check_history(records.get("history_", {}))
    if of_epochs:
        by_score = records["validation_scores_"] is not None
        if (records["best_validation_score_"] is not None) != by_score or (records["best_loss_"] is None) != by_score:
            raise ValueError("records of the best score and of the best loss, expected those of one of them")


def check_history(history: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for a history without epochs, or whose columns have different lengths."""
    if history and "epoch" not in history:
        raise ValueError(f"a history with the columns {shown(list(history))}, expected a column 'epoch'")
    lengths = {column: len(rows) for column, rows in history.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"a history with columns of {lengths}, expected equal lengths")


def restore_records(estimator: Any, records: Mapping[str, Any]) -> None:
    """Set fitted attributes of an estimator that has its network already."""
    for name, value in records.items():
        setattr(estimator, name, list(value) if isinstance(value, tuple) else value)
    if hasattr(estimator, "loss_curve_"):
        epochs = range(1, len(estimator.loss_curve_) + 1)
        history = records.get("history_") or {"epoch": epochs, "train_loss": estimator.loss_curve_}
        estimator.history_ = {column: list(rows) for column, rows in history.items()}
