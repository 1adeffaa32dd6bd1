"""Fitting several estimators at once: those that can be are trained together, see `gpuprop.training.side_by_side`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sklearn.pipeline import Pipeline

from gpuprop.estimators.base import BaseMLP
from gpuprop.estimators.scikit_learn_callbacks import EpochTasks
from gpuprop.training.side_by_side import train_together

if TYPE_CHECKING:
    from gpuprop.core.updates import PausingFit

__all__ = ["MOST_TOGETHER", "Job", "Outcome", "fit_together"]

#: Fits that are under way at the same time, each with its network and its memory of the optimizer.
MOST_TOGETHER = 64


@dataclass(frozen=True)
class Job:
    """An estimator, and what its ``fit`` is to be called with."""

    estimator: Any
    X: Any
    y: Any
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a fit ended: the exception that ended it, or None; and its share of the seconds that all took."""

    job: Job
    error: Exception | None
    seconds: float


def fit_together(jobs: Iterable[Job]) -> Iterator[Outcome]:
    """Fit estimators, as many at a time as is wise, and yield their outcomes in order.

    What `gpuprop.MLPClassifier` and `gpuprop.MLPRegressor` leave to their networks is done together where it can be,
    also where they are the last step of a pipeline; every other estimator has its ``fit`` called.
    """
    remaining = iter(jobs)
    while some := list(itertools.islice(remaining, MOST_TOGETHER)):
        begin = time.perf_counter()
        errors = train_together([_training(job) for job in some])
        seconds = (time.perf_counter() - begin) / len(some)
        yield from (Outcome(job, error, seconds) for job, error in zip(some, errors, strict=True))


def _training(job: Job) -> PausingFit:
    """Do what ``fit`` does, pausing before the updates of each epoch where the estimator can."""
    estimator, X = job.estimator, job.X
    if isinstance(estimator, Pipeline) and isinstance(estimator[-1], BaseMLP) and estimator.memory is None:
        if len(estimator) > 1:
            X = estimator[:-1].fit_transform(X, job.y)
        estimator = estimator[-1]
    if not isinstance(estimator, BaseMLP) or EpochTasks.wanted(estimator):
        job.estimator.fit(job.X, job.y, **job.options)
        return
    estimator._validate_params()
    yield from estimator._training(X, job.y, **job.options)
