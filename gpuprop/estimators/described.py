"""What a model file says of an estimator beside its network: parameters, labels and records, as plain JSON.

`gpuprop.estimators.stored_models` writes and reads the files. Nothing in them is executed: parameters are numbers,
texts and lists of these, and the optimizers and schedules of gpuprop by name. What a file cannot hold is left at its
default: callbacks, and a ``RandomState``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import LabelBinarizer

from gpuprop.estimators.base import BaseMLP
from gpuprop.estimators.classifier import MLPClassifier
from gpuprop.estimators.regressor import MLPRegressor
from gpuprop.maths.activations import Activation
from gpuprop.maths.optimizers import OPTIMIZERS, Optimizer
from gpuprop.maths.schedules import SCHEDULES, Schedule
from gpuprop.model.network import Network

if TYPE_CHECKING:
    from gpuprop.estimators.ensemble import MLPEnsemble

__all__ = [
    "KINDS",
    "describe",
    "describe_ensemble",
    "kind_of",
    "restore",
    "restore_ensemble",
    "restore_records",
]

#: The kinds of model file that hold an estimator.
KINDS: dict[str, type[BaseMLP]] = {"classifier": MLPClassifier, "regressor": MLPRegressor}

#: Fitted attributes that a file holds where they are; all are numbers, or lists of numbers.
RECORDS = (
    "n_iter_",
    "t_",
    "loss_",
    "best_loss_",
    "loss_curve_",
    "validation_scores_",
    "best_validation_score_",
    "history_",
    "_no_improvement_count",
)
#: Parameters that a file does not hold; what the members of an ensemble are copies of is described apart.
_NOT_STORED = ("callbacks", "device", "n_threads", "estimator")
_LABEL_DTYPES = r"(int|uint)(8|16|32|64)|float(32|64)|bool|object|str"


def kind_of(estimator: object) -> str:
    """Return the kind of file that holds `estimator`."""
    return next(kind for kind, own in KINDS.items() if isinstance(estimator, own))


def describe(estimator: Any) -> dict[str, Any]:
    """Return everything of a fitted estimator but its network, as JSON values.

    Raises
    ------
    ValueError
        If a parameter or a label is of a type that a file cannot hold.
    """
    parameters = _parameters(estimator)
    records = {name: getattr(estimator, name) for name in RECORDS if hasattr(estimator, name)}
    if "history_" in records:
        # No times in a file: equal runs give equal bytes.
        records["history_"] = {column: rows for column, rows in records["history_"].items() if column != "seconds"}
    described: dict[str, Any] = {"parameters": parameters}
    described["records"] = {name: _plain(name, value) for name, value in records.items()}
    if hasattr(estimator, "feature_names_in_"):
        described["feature_names"] = [str(name) for name in estimator.feature_names_in_]
    if isinstance(estimator, MLPClassifier):
        described["labels"] = _plain_labels(estimator)
    return described


def _parameters(estimator: Any) -> dict[str, Any]:
    """Return the parameters of an estimator as JSON values."""
    return {
        name: _plain(name, value)
        for name, value in estimator.get_params(deep=False).items()
        if name not in _NOT_STORED and not isinstance(value, np.random.RandomState)
    }


def describe_ensemble(ensemble: MLPEnsemble) -> dict[str, Any]:
    """Return the parameters of a fitted ensemble, and of what its members are copies of, as JSON values."""
    described: dict[str, Any] = {"parameters": _parameters(ensemble), "estimator": _parameters(ensemble.estimator)}
    if hasattr(ensemble, "feature_names_in_"):
        described["feature_names"] = [str(name) for name in ensemble.feature_names_in_]
    return described


def restore_ensemble(
    members: Sequence[Any], described: Mapping[str, Any], activations: Mapping[str, Activation]
) -> MLPEnsemble:
    """Return the ensemble that `describe_ensemble` described, with these members; errors as of `restore`."""
    from gpuprop.estimators.ensemble import MLPEnsemble

    first = members[0]
    if type(first) not in KINDS.values() or any(type(member) is not type(first) for member in members):
        raise ValueError("the members are not all classifiers, or all regressors")
    if any(member.network_.layer_sizes != first.network_.layer_sizes for member in members):
        raise ValueError("the members have different layers")
    own, inner = (
        {name: _revived(value, activations) for name, value in described[part].items()}
        for part in ("parameters", "estimator")
    )
    ensemble = MLPEnsemble(type(first)(**inner, device=first.device), **own)
    ensemble.estimators_ = list(members)
    ensemble.n_features_in_ = first.n_features_in_
    if isinstance(first, MLPClassifier):
        if any(not np.array_equal(member.classes_, first.classes_) for member in members):
            raise ValueError("the members have different classes")
        ensemble.classes_ = first.classes_
    if "feature_names" in described:
        ensemble.feature_names_in_ = np.array([str(name) for name in described["feature_names"]], dtype=object)
    return ensemble


def restore(
    kind: str, network: Network, described: Mapping[str, Any], activations: Mapping[str, Activation]
) -> BaseMLP:
    """Return the estimator that `describe` described, around `network`.

    Raises
    ------
    TypeError, ValueError, LookupError, AttributeError
        If the description is not one.
    """
    parameters = {name: _revived(value, activations) for name, value in described["parameters"].items()}
    estimator = KINDS[kind](**parameters, device=network.device_)
    if isinstance(estimator, MLPClassifier):
        _restore_labels(estimator, described["labels"])
        n_outputs, n_labels = network.layer_sizes[-1], len(estimator.classes_)
        if n_labels != n_outputs and not (n_outputs == 1 and n_labels <= 2):
            raise ValueError(f"{n_labels} labels for {n_outputs} outputs")
    records = {name: _revived(value, {}) for name, value in described["records"].items()}
    unknown = set(records) - set(RECORDS)
    if unknown:
        raise ValueError(f"unknown record {sorted(unknown)[0]!r}")
    estimator.network_ = network
    restore_records(estimator, records)
    if "feature_names" in described:
        estimator.feature_names_in_ = np.array([str(name) for name in described["feature_names"]], dtype=object)
    return estimator


def restore_records(estimator: BaseMLP, records: Mapping[str, Any]) -> None:
    """Set the fitted attributes of an estimator whose ``network_`` is in place."""
    network: Network = estimator.network_
    estimator.n_features_in_ = network.layer_sizes[0]
    estimator._set_network(network)
    for name, value in records.items():
        setattr(estimator, name, list(value) if isinstance(value, tuple) else value)
    if hasattr(estimator, "loss_curve_"):
        epochs = range(1, len(estimator.loss_curve_) + 1)
        history = records.get("history_") or {"epoch": epochs, "train_loss": estimator.loss_curve_}
        estimator.history_ = {column: list(rows) for column, rows in history.items()}


# --- labels --------------------------------------------------------------------------------------------------------


def _plain_labels(classifier: MLPClassifier) -> dict[str, Any]:
    classes: NDArray[Any] = classifier.classes_
    values = classes.tolist()
    if not all(isinstance(label, (str, int, float, bool)) for label in values):
        raise ValueError(
            f"classes_: got labels {values[:3]}, expected text, numbers or booleans; a file holds no others"
        )
    dtype = "str" if classes.dtype.kind == "U" else classes.dtype.name
    several = str(classifier._label_binarizer.y_type_).startswith("multilabel")
    return {"dtype": dtype, "values": [_plain("classes_", label) for label in values], "several": several}


def _restore_labels(classifier: MLPClassifier, labels: Mapping[str, Any]) -> None:
    dtype, values = labels["dtype"], [_revived(value, {}) for value in labels["values"]]
    if not re.fullmatch(_LABEL_DTYPES, dtype) or any(not isinstance(v, (str, int, float, bool)) for v in values):
        raise ValueError(f"labels of dtype {dtype!r}, expected text, numbers or booleans")
    classes = np.array(values, dtype=dtype)
    example = np.array([[0] * len(values), [1] * len(values)]) if labels["several"] else classes
    classifier._label_binarizer = LabelBinarizer().fit(example)
    classifier.classes_ = classifier._label_binarizer.classes_


# --- values --------------------------------------------------------------------------------------------------------


def _plain(name: str, value: Any) -> Any:
    """Return `value` as JSON; what JSON lacks becomes an object with a single key that says what it is."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(name, one) for one in value]
    if isinstance(value, dict):
        return {"items": [[_plain(name, key), _plain(name, one)] for key, one in value.items()]}
    if isinstance(value, (np.dtype, type)) and name == "dtype":
        return np.dtype(value).name
    if isinstance(value, Activation):
        return {"activation": value.name}
    for kind, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        if type(value) in known.values():
            settings = {field.name: _plain(name, getattr(value, field.name)) for field in fields(value)}
            return {kind: [value.name, settings]}
    raise ValueError(
        f"{name}: got {value!r}, expected numbers, texts, lists, or gpuprop's own objects; a file holds no others"
    )


def _revived(value: Any, activations: Mapping[str, Activation]) -> Any:
    """Return what `_plain` described; lists come back as tuples."""
    if isinstance(value, list):
        return tuple(_revived(one, activations) for one in value)
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "items":
        return {_revived(key, activations): _revived(one, activations) for key, one in content}
    makers: dict[str, Callable[[Any], Any]] = {
        "float": float,
        "activation": lambda name: activations.get(name, name),
        "optimizer": lambda pair: _known(OPTIMIZERS, pair),
        "schedule": lambda pair: _known(SCHEDULES, pair),
    }
    return makers[kind](content)


def _known(registry: Mapping[str, type[Optimizer] | type[Schedule]], pair: Any) -> Any:
    name, settings = pair
    return registry[name](**{field: _revived(value, {}) for field, value in settings.items()})
