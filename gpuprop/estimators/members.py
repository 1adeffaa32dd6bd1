"""Fitting several estimators at once: where it is possible they train together, see `gpuprop.training.side_by_side`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sklearn.pipeline import Pipeline

from gpuprop.estimators.base import BaseMLP
from gpuprop.estimators.kept_fits import keeps_fits
from gpuprop.estimators.scikit_learn_callbacks import EpochTasks
from gpuprop.training.side_by_side import train_together
from gpuprop.training.signals import watching_signals

if TYPE_CHECKING:
    from gpuprop.core.updates import PausingFit

__all__ = ["MOST_TOGETHER", "Job", "Outcome", "can_pause", "fit_together", "network_estimator", "pausing_fit"]

#: The most fits at the same time; each holds a network and the arrays of its optimizer.
MOST_TOGETHER = 64


@dataclass(frozen=True)
class Job:
    """An estimator, and the arguments of its ``fit``."""

    estimator: Any
    X: Any
    y: Any
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a fit ended: the exception that ended it, or None, and its share of the time of all fits in seconds."""

    job: Job
    error: Exception | None
    seconds: float


def fit_together(jobs: Iterable[Job]) -> Iterator[Outcome]:
    """Fit estimators, up to `MOST_TOGETHER` at a time, and yield their outcomes in order.

    `gpuprop.MLPClassifier` and `gpuprop.MLPRegressor` make their updates together where it is possible, also as the
    last step of a pipeline. For every other estimator the function calls ``fit``.
    """
    remaining = iter(jobs)
    while some := list(itertools.islice(remaining, MOST_TOGETHER)):
        begin = time.perf_counter()
        with watching_signals(interrupts_only=not any(keeps_fits(job.estimator) for job in some)):
            errors = train_together([pausing_fit(job) for job in some])
        seconds = (time.perf_counter() - begin) / len(some)
        yield from (Outcome(job, error, seconds) for job, error in zip(some, errors, strict=True))


def network_estimator(estimator: Any) -> BaseMLP | None:
    """Return the estimator itself, or the last step of a pipeline, whose fit can pause; None if there is none."""
    if isinstance(estimator, Pipeline) and estimator.memory is None:
        estimator = estimator[-1]
    return estimator if isinstance(estimator, BaseMLP) and not EpochTasks.wanted(estimator) else None


def can_pause(estimator: Any) -> bool:
    """Return whether `pausing_fit` pauses for this estimator."""
    found = network_estimator(estimator)
    return found is not None and found.solver != "lbfgs"


def pausing_fit(job: Job) -> PausingFit:
    """Fit the estimator; if it is one of gpuprop's, pause before the updates of each epoch."""
    estimator, X = network_estimator(job.estimator), job.X
    if estimator is None:
        job.estimator.fit(job.X, job.y, **job.options)
        return
    if estimator is not job.estimator and len(job.estimator) > 1:
        X = job.estimator[:-1].fit_transform(X, job.y)
    estimator._validate_params()
    yield from estimator.training(X, job.y, **job.options)
