"""What the estimators' parameters mean: scikit-learn's names and values, translated into gpuprop's objects."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, TypeVar, cast

import numpy as np
from sklearn.base import _fit_context, is_classifier
from sklearn.utils._param_validation import Interval, InvalidParameterError, Options, StrOptions

from gpuprop.core.precision import PRECISIONS
from gpuprop.errors import unknown_name
from gpuprop.maths.activations import Activation, get_activation
from gpuprop.maths.losses import LOSSES, Loss, get_loss
from gpuprop.maths.optimizers import OPTIMIZERS, Optimizer
from gpuprop.maths.schedules import SCHEDULES, Schedule, get_schedule
from gpuprop.model.arguments import check_dropout
from gpuprop.training.checkpoint import Checkpoint

__all__ = [
    "CONSTRAINTS",
    "cannot_change",
    "check_class_weight",
    "check_parameters",
    "check_types",
    "fit_method",
    "hidden_activations",
    "hidden_layer_sizes",
    "max_epochs",
    "optimizer_of",
    "rate_rule",
    "regression_loss",
    "schedule_of",
    "set_parameters",
]

Method = TypeVar("Method", bound=Callable[..., Any])
T = TypeVar("T")

#: scikit-learn's three schedules, which look at losses, scores and `tol`: `gpuprop.estimators.convergence` has them.
RATE_RULES = ("constant", "invscaling", "adaptive")

#: The estimators' parameters that are hyperparameters of optimizers: those of momentum, and those of adam and its kin.
_HYPERPARAMETERS = (("momentum",), ("beta_1", "beta_2", "epsilon"))
_DECAYING = [name for name, kind in OPTIMIZERS.items() if "weight_decay" in (one.name for one in fields(kind))]

#: The type and range of every parameter, in scikit-learn's notation; names of solvers, schedules and activations are
#: looked up by the functions below, whose errors suggest the nearest known name.
CONSTRAINTS: dict[str, list[Any]] = {
    "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
    "activation": [str, Activation, list, tuple],
    "solver": [str, Optimizer],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
    "learning_rate": [str, Schedule],
    "learning_rate_init": [Interval(Real, 0, None, closed="neither"), None],
    "power_t": [Interval(Real, 0, None, closed="left")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": [Interval(Real, 0, None, closed="left")],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": [Interval(Real, 0, 1, closed="both")],
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="left")],
    "beta_1": [Interval(Real, 0, 1, closed="left")],
    "beta_2": [Interval(Real, 0, 1, closed="left")],
    "epsilon": [Interval(Real, 0, None, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
    "max_fun": [Interval(Integral, 1, None, closed="left")],
    "max_epochs": [Interval(Integral, 1, None, closed="left"), None],
    "l1": [Interval(Real, 0, None, closed="left")],
    "weight_decay": [Interval(Real, 0, None, closed="left"), None],
    "dropout": [Interval(Real, 0, 1, closed="left"), list, tuple],
    "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
    "device": [str],
    "dtype": [Options(object, {"float32", "float64", np.float32, np.float64}), np.dtype, None],
    "precision": [StrOptions(set(PRECISIONS))],
    "emulate": ["boolean"],
    "callbacks": [list, tuple, None],
    "order_random_state": ["random_state"],
    "n_threads": [Interval(Integral, 1, None, closed="left"), None],
    "plan": [str],
    "checkpoint": [str, os.PathLike, Checkpoint, None],
    "metrics": [str, list, tuple, dict, callable, None],
    "monitor": [str, None],
    "batch_norm": ["boolean"],
    "residual": ["boolean"],
}


def fit_method(method: Method) -> Method:
    """Validate the estimator's parameters before `method` runs, as scikit-learn does; a decorator."""
    decorated: Method = _fit_context(prefer_skip_nested_validation=True)(method)
    if method.__name__ != "partial_fit":
        return decorated

    @functools.wraps(method)
    def quick(self: Any, X: Any, *arguments: Any, **options: Any) -> Any:
        # scikit-learn validates no parameters for a fitted estimator, and takes 40 us to find out.
        fitted = "network_" in vars(self) and not getattr(self, "_skl_callbacks", None)
        return (method if fitted and type(X) is np.ndarray else decorated)(self, X, *arguments, **options)

    return cast("Method", quick)


def cannot_change(value: Any) -> bool:
    """Return whether a parameter's value stays what it is as long as it is the same object."""
    if type(value) is tuple:
        return all(map(cannot_change, value))
    return value is None or isinstance(value, (str, int, float))


def set_parameters(estimator: Any, arguments: dict[str, Any]) -> None:
    """Set every constructor argument as an attribute of its name, unchanged: all that scikit-learn allows there."""
    for name in estimator._get_param_names():
        setattr(estimator, name, arguments[name])


def hidden_layer_sizes(estimator: Any) -> tuple[int, ...]:
    """Return the sizes of the hidden layers; there may be none."""
    given = estimator.hidden_layer_sizes
    sizes = list(given) if hasattr(given, "__iter__") else [given]
    if any(not isinstance(size, Integral) or size <= 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}; use whole numbers such as (100,)")
    return tuple(int(size) for size in sizes)


def hidden_activations(estimator: Any, n_hidden: int) -> list[Activation]:
    """Return the activation of each hidden layer."""
    given = estimator.activation
    names = list(given) if isinstance(given, (list, tuple)) else [given] * n_hidden
    if len(names) != n_hidden:
        raise InvalidParameterError(
            f"The 'activation' parameter: got {len(names)} activations, expected one for each of the {n_hidden} hidden "
            "layers, or a single one"
        )
    if not n_hidden and not isinstance(given, (list, tuple)):
        _named("activation", get_activation, given)  # a wrong name is wrong without hidden layers too
    return [_named("activation", get_activation, name) for name in names]


def max_epochs(estimator: Any) -> int:
    """Return the most epochs of a fit: `max_epochs`, or `max_iter` where that is None."""
    if estimator.max_epochs is None:
        return int(estimator.max_iter)
    default = inspect.signature(type(estimator)).parameters["max_iter"].default
    if estimator.max_iter != default:
        raise ValueError(
            f"got max_iter={estimator.max_iter} and max_epochs={estimator.max_epochs}, which are two names of one "
            "thing; set only one"
        )
    return int(estimator.max_epochs)


def optimizer_of(estimator: Any) -> Optimizer:
    """Return the optimizer that a stochastic `solver` stands for, with the estimator's hyperparameters.

    scikit-learn's "sgd" has momentum; plain gradient descent is ``momentum=0`` or ``optimizers.SGD()``.
    """
    decay = estimator.weight_decay
    solver = "adamw" if estimator.solver == "adam" and decay is not None else estimator.solver
    if decay is not None and solver not in _DECAYING:
        raise InvalidParameterError(
            f"The 'weight_decay' parameter needs solver 'adam' or {' or '.join(map(repr, _DECAYING))}, got "
            f"{estimator.solver!r}; use alpha for a penalty with any solver"
        )
    if isinstance(solver, Optimizer):
        return solver
    if solver == "sgd":
        solver = "nesterov" if estimator.nesterovs_momentum else "momentum"
    kind = _named("solver", _optimizer_kind, solver)
    names = {one.name for one in fields(kind)}
    shared = [name for group in _HYPERPARAMETERS if names.issuperset(group) for name in group]
    settings: dict[str, float] = {name: getattr(estimator, name) for name in shared}
    if decay is not None:
        settings["weight_decay"] = decay
    return kind(**settings)


def _optimizer_kind(name: str) -> type[Optimizer]:
    if name not in OPTIMIZERS:
        raise unknown_name("solver", name, [*OPTIMIZERS, "lbfgs"])
    return OPTIMIZERS[name]


def regression_loss(estimator: Any) -> Loss:
    """Return the loss of a regression."""
    loss = _named("loss", get_loss, estimator.loss)
    if loss.classification:
        known = ", ".join(repr(one.name) for one in LOSSES.values() if not one.classification)
        raise InvalidParameterError(f"The 'loss' parameter: got {loss.name!r}, expected a loss for regression: {known}")
    return loss


def rate_rule(estimator: Any) -> str:
    """Return which of scikit-learn's schedules applies; as there, adam has none of them."""
    given = estimator.learning_rate
    return given if isinstance(given, str) and given in RATE_RULES and estimator.solver != "adam" else "constant"


def schedule_of(estimator: Any) -> Schedule | None:
    """Return the schedule where it is one of gpuprop's; None for scikit-learn's three, see `rate_rule`."""
    given = estimator.learning_rate
    if isinstance(given, str) and given in RATE_RULES:
        return None
    if isinstance(given, str) and given.lower().replace("-", "_") not in (*SCHEDULES, "warm_up", "onecycle"):
        raise InvalidParameterError(f"The 'learning_rate' parameter: {unknown_name('schedule', given, SCHEDULES)}")
    return get_schedule(given)


def check_parameters(estimator: Any) -> None:
    """Raise ``TypeError`` or ``ValueError`` for parameters of an estimator with which a fit could not begin."""
    check_types(estimator)
    hidden = hidden_layer_sizes(estimator)
    hidden_activations(estimator, len(hidden))
    check_dropout(estimator.dropout, len(hidden) + 1)
    max_epochs(estimator)
    schedule_of(estimator)
    if estimator.solver != "lbfgs":
        optimizer_of(estimator)
    if is_classifier(estimator):
        check_class_weight(estimator.class_weight)
    else:
        regression_loss(estimator)


def check_types(estimator: Any) -> None:
    """Raise ``ValueError`` for a parameter of a wrong type or range; here True is no number, as scikit-learn has it."""
    estimator._validate_params()
    for name, constraints in estimator._parameter_constraints.items():
        if isinstance(getattr(estimator, name), bool) and not {"boolean", "verbose"} & {
            one for one in constraints if isinstance(one, str)
        }:
            raise InvalidParameterError(f"The {name!r} parameter: got {getattr(estimator, name)}, which is no number")


def check_class_weight(weight: Any) -> None:
    """Raise ``ValueError`` for weights of classes that are no numbers."""
    if isinstance(weight, dict) and not all(isinstance(one, Real) and float(one) >= 0 for one in weight.values()):
        raise ValueError(f"class_weight: got {weight!r:.60}, expected a number of at least 0 for each class")


def _named(parameter: str, look_up: Callable[[Any], T], name: Any) -> T:
    """Look `name` up; a failure is scikit-learn's error for a wrong parameter, with the nearest known name."""
    try:
        return look_up(name)
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"The {parameter!r} parameter: {error}") from None
