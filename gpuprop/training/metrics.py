"""Metrics by name: what scikit-learn's scorers, or your own functions, say of the validation rows after an epoch."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.errors import unknown_name
from gpuprop.model import evaluation
from gpuprop.training.sharding import sharded_loss_and_score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.communicator import Sharding
    from gpuprop.core.data import TrainingData
    from gpuprop.model.network import Network
    from gpuprop.training.answers import Answers

    Array = NDArray[Any]

__all__ = ["Metric", "Metrics", "ValidationScores", "falls", "measured", "monitored"]

PREFIX = "validation_"
#: Functions whose names end so are to be minimised: the convention of ``sklearn.metrics``.
_FALLING = ("_loss", "_error", "_deviance")
_LOSSES = ("validation_loss", "train_loss")


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes
    ----------
    name : str
        The history's column is ``validation_`` and this name.
    scorer : callable
        ``scorer(estimator, X, y, sample_weight) -> float``.
    falls : bool
        Whether lower values are better.
    """

    name: str
    scorer: Callable[[Any, Any, Any, Any], float]
    falls: bool = False

    @property
    def column(self) -> str:
        """The column of the history."""
        return PREFIX + self.name


class Metrics(Mapping[str, Metric]):
    """The metrics of a training, by their names.

    Parameters
    ----------
    given : str, callable, sequence or mapping of these
        See `gpuprop.Trainer`.
    network : Network
        Each metric must fit what it answers.
    also : str or None, default=None
        The name of a scorer, or a column of the history, that is to be monitored, and so to be computed.

    Raises
    ------
    ValueError
        If there is no such scorer, or it does not fit the network's task; the message says why.
    TypeError
        If a metric is neither a name nor a function.
    """

    def __init__(self, given: Any, network: Network, also: str | None = None) -> None:
        own = "accuracy" if network.is_classifier else "r2"
        found = [_metric(name, one) for name, one in _named(given) if not (isinstance(one, str) and one == own)]
        bare = "loss" if also is None else also.removeprefix(PREFIX)
        if bare not in ("loss", own, *(metric.name for metric in found)) and not bare.startswith("train_"):
            from sklearn.metrics import get_scorer_names

            found += [_metric(bare, bare)] if bare in get_scorer_names() else []
        self._metrics = {metric.name: metric for metric in found}
        for metric in found:
            _check_fit(metric, network)

    def __getitem__(self, name: str) -> Metric:
        return self._metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)

    def __repr__(self) -> str:
        return f"Metrics({', '.join(self)})"

    @property
    def columns(self) -> list[str]:
        """The columns of the history."""
        return [metric.column for metric in self.values()]


def falls(column: str, metrics: Mapping[str, Metric]) -> bool:
    """Return whether lower values of a column of the history are better."""
    metric = metrics.get(column.removeprefix(PREFIX))
    return column in _LOSSES if metric is None else metric.falls


def monitored(name: str, metrics: Mapping[str, Metric], own: str, *, validated: bool) -> str:
    """Return the column of the history that ``monitor=name`` means.

    Parameters
    ----------
    name : str
        A column, or the name of a metric, of "loss" or of the network's own score.
    metrics : mapping of str to Metric
    own : {"accuracy", "r2"}
    validated : bool
        Whether there are validation data.

    Raises
    ------
    ValueError
        If the history has no such column, or it will hold nothing, because there are no validation data.
    """
    columns = [f"{part}_{figure}" for part in ("validation", "train") for figure in ("loss", own)]
    columns += [metric.column for metric in metrics.values()]
    column = name if name in columns else PREFIX + name
    if column not in columns:
        raise unknown_name("monitor", name, [*columns, *metrics])
    if column.startswith(PREFIX) and not validated:
        raise ValueError(f"monitor={name!r} needs validation data; pass validation=, or monitor a column of train")
    return column


@dataclass
class ValidationScores:
    """The metrics of the validation rows, from one forward pass that also gives their loss.

    Attributes
    ----------
    metrics : mapping of str to Metric
    data : TrainingData
        As ``Network.prepare`` returns them.
    units : tuple (mean, deviation) or None
        Where a regression is trained on standardised targets: what brings targets and outputs back to their units.
    sharding : Sharding or None
        How several processes divide the rows among themselves.
    """

    metrics: Mapping[str, Metric]
    data: TrainingData
    units: tuple[Array, Array] | None = None
    sharding: Sharding | None = None
    _truth: Array | None = field(default=None, init=False, repr=False)
    _outputs: Array | None = field(default=None, init=False, repr=False)
    _silent: set[str] = field(default_factory=set, init=False, repr=False)

    def evaluate(self, network: Network, penalty_factor: float) -> tuple[float, float, dict[str, float | None]]:
        """Return loss, accuracy or R2, and the metrics by their columns; None where a metric is not defined."""
        if not self.metrics:
            return (*self._loss_and_score(network, penalty_factor, None), {})
        if self._truth is None or self._outputs is None:
            targets = network.ops.to_numpy(self.data.targets)
            self._truth = _truth(targets, self.data.metric)
            self._outputs = np.empty(targets.shape, network.dtype)
        loss, score = self._loss_and_score(network, penalty_factor, self._outputs)
        answers = _answers(network, self.data.metric, self._in_units(self._outputs))
        truth = self._truth if self.data.metric != "residual" else self._in_units(self._truth)
        weight = self.data.sample_weight
        weight = None if weight is None else network.ops.to_numpy(weight)
        return loss, score, {m.column: self._figure(m, answers, truth, weight) for m in self.metrics.values()}

    def _loss_and_score(self, network: Network, penalty_factor: float, outputs: Array | None) -> tuple[float, float]:
        if self.sharding is None and outputs is None:
            return network.evaluate_data(self.data, penalty_factor)
        if self.sharding is None:
            return evaluation.loss_and_score(network.layers, self.data, None, penalty_factor, outputs=outputs)
        return sharded_loss_and_score(network.layers, self.data, self.sharding, penalty_factor, outputs)

    def _in_units(self, values: Array) -> Array:
        if self.units is None:
            return values
        mean, deviation = self.units
        return np.asarray(values * deviation + mean)

    def _figure(self, metric: Metric, answers: Answers, truth: Array, weight: Array | None) -> float | None:
        """Return a metric, or None where it is not defined, with one warning in a training."""
        try:
            figure = _measured(metric, answers, truth, weight)
            reason = "it is not finite"
        except ValueError as error:  # some class has no row here, say
            figure, reason = math.nan, " ".join(str(error).split())
        if math.isfinite(figure):
            return figure
        if metric.name not in self._silent:
            self._silent.add(metric.name)
            warnings.warn(
                f"{metric.column} is left empty where {metric.name} is not defined: {reason}",
                RuntimeWarning,
                stacklevel=2,
            )
        return None


def measured(
    network: Network, metrics: Mapping[str, Metric], X: Any, y: Any, *, units: tuple[Array, Array] | None = None
) -> dict[str, float | None]:
    """Return metrics of a data set by their names; None where a metric is not defined.

    Parameters
    ----------
    network : Network
    metrics : mapping of str to Metric
    X, y : array_like
        As for ``Network.evaluate``.
    units : tuple (mean, deviation) or None
        See `ValidationScores`.
    """
    if not metrics:
        return {}
    figures = ValidationScores(metrics, network.prepare(X, y), units).evaluate(network, 1.0)[2]
    return {name: figures[metric.column] for name, metric in metrics.items()}


def _named(given: Any) -> list[tuple[str | None, Any]]:
    if given is None or (isinstance(given, Sized) and not len(given)):
        return []
    if isinstance(given, Mapping):
        return list(given.items())
    if isinstance(given, str) or callable(given):
        given = [given]
    if not isinstance(given, Sequence):
        raise TypeError(f"metrics: got {given!r}, expected names of scikit-learn's scorers, or functions")
    return [(None, one) for one in given]


def _metric(name: str | None, given: Any) -> Metric:
    from sklearn.metrics import get_scorer, get_scorer_names

    if isinstance(given, Metric):
        return given
    if isinstance(given, str):
        known = get_scorer_names()
        if given not in known:
            raise unknown_name("metric", given, known)
        return Metric(name or given, _Weighted(get_scorer(given)))
    if not callable(given):
        raise TypeError(f"metrics: got {given!r}, expected a name of a scikit-learn scorer, or a function")
    takes = [
        one for one in inspect.signature(given).parameters.values() if one.kind in (0, 1) and one.default is one.empty
    ]
    name = name or str(getattr(given, "__name__", "<lambda>"))
    if not name.isidentifier():
        raise ValueError(f"metrics: {given!r} has no name; give it one: metrics={{'name': function}}")
    if len(takes) == 3:
        return Metric(name, _Weighted(given))
    if len(takes) != 2:
        raise TypeError(
            f"metrics: {name} takes {len(takes)} arguments, expected a function of (y, predicted), or one of "
            "(estimator, X, y) as scikit-learn's scorers are"
        )
    return Metric(name, _OfPredictions(given), name.endswith(_FALLING) and not name.startswith("neg_"))


@dataclass(frozen=True)
class _Weighted:
    """A scorer that gets the sample weights if it takes them."""

    scorer: Callable[..., Any]

    def __call__(self, estimator: Any, X: Any, y: Any, weight: Any) -> float:
        if weight is None:
            return float(self.scorer(estimator, X, y))
        try:
            return float(self.scorer(estimator, X, y, sample_weight=weight))
        except TypeError:  # a metric without weights
            return float(self.scorer(estimator, X, y))


@dataclass(frozen=True)
class _OfPredictions:
    """The scorer of a function of true and predicted values, which gets the sample weights if it takes them."""

    function: Callable[..., Any]

    def __call__(self, estimator: Any, X: Any, y: Any, weight: Any) -> float:
        weighted = weight is not None and "sample_weight" in inspect.signature(self.function).parameters
        options = {"sample_weight": weight} if weighted else {}
        return float(self.function(y, estimator.predict(X), **options))


def _truth(targets: Array, kind: str) -> Array:
    """Return targets as scikit-learn's metrics take them: class indices, 0 and 1, or values."""
    if kind == "class":
        return np.asarray(targets.argmax(axis=1))
    values = (targets > 0.5).astype(np.int64) if kind == "labels" else targets
    return values[:, 0] if values.shape[1] == 1 else values


def _answers(network: Network, kind: str, outputs: Array) -> Answers:
    from gpuprop.training.answers import AnswersOfClassifier, AnswersOfRegression

    outputs = outputs.astype(np.float64)
    if kind == "residual":
        return AnswersOfRegression(_truth(outputs, kind))
    return AnswersOfClassifier(
        outputs, single=kind == "class", probable=network.output_activation.name in ("softmax", "logistic")
    )


def _measured(metric: Metric, answers: Answers, truth: Array, weight: Array | None) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class that is never predicted, say, would be told of after each epoch
        return metric.scorer(answers, np.arange(len(truth))[:, None], truth, weight)


def _check_fit(metric: Metric, network: Network) -> None:
    """Refuse a metric that cannot be computed for the answers of such a network."""
    if network.layer_sizes[-1] == 1 and network.metric == "class":
        return  # a single class
    fault = _fault(metric, network)
    if fault is None:
        return
    from sklearn.metrics import get_scorer, get_scorer_names

    others = [name for name in get_scorer_names() if name.startswith(f"{metric.name}_")]
    others = [name for name in others if _fault(replace(metric, scorer=_Weighted(get_scorer(name))), network) is None]
    hint = f"; {' or '.join(map(repr, others))} would" if others else ""
    n_outputs = network.layer_sizes[-1]
    what = f"{max(2, n_outputs)} classes" if network.is_classifier else "a regression"
    if network.metric == "labels" and n_outputs > 1:
        what = f"{n_outputs} labels"
    raise ValueError(f"metrics: {metric.name!r} does not fit a network for {what}: {fault}{hint}")


def _fault(metric: Metric, network: Network) -> str | None:
    """Return why a metric cannot be computed for made-up answers of such a network, or None."""
    n_outputs, kind = network.layer_sizes[-1], network.metric
    n_rows = 2 * max(2, n_outputs)
    outputs = np.random.default_rng(0).uniform(0.1, 0.9, (n_rows, n_outputs))
    truth: Array = outputs[::-1]
    if kind == "class":
        outputs /= outputs.sum(axis=1, keepdims=True)
        truth = np.arange(n_rows) % n_outputs
    elif kind == "labels":
        truth = np.arange(n_rows)[:, None] % 2 == np.arange(n_outputs) % 2
    if kind != "class":
        truth = _truth(truth.astype(np.float64), kind)
    try:
        _measured(metric, _answers(network, kind, outputs), truth, None)
    except Exception as error:  # whatever a function of the user's raises
        return " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return None
