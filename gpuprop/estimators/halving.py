"""Successive halving: all candidates train for some epochs, the best share of them goes on, and so forth.

A rung does not train anew, as in scikit-learn's ``HalvingGridSearchCV``: the trainings pause after its epochs, are
judged as they are, and those that stay go on. So the candidates of the last rung end as their own ``fit`` would have
ended, and what halving saves are the epochs that the others no longer make.

Sources: Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS 2016,
arXiv:1502.07943; Li and others, "Hyperband", JMLR 18 (2018), arXiv:1603.06560, for which training loss and epochs are
the first example.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.estimators.members import Job, Outcome, can_pause, network_estimator, pausing_fit
from gpuprop.estimators.parameters import max_epochs
from gpuprop.training.side_by_side import SideBySide
from gpuprop.training.signals import end_if_asked

__all__ = ["Rungs", "halved", "rungs_of"]

#: Returns the scores and times of a fit, under scikit-learn's names.
Evaluate = Callable[[Outcome], dict[str, Any]]


@dataclass(frozen=True)
class Rungs:
    """How a search by halving went.

    Attributes
    ----------
    rows : list of dict
        Scores and times of each fit, as it was when its candidate was judged last.
    errors : list of Exception
        Of the fits that ended with one.
    reached : ndarray of shape (n_candidates,)
        The rung at which each candidate was judged last, counted from 0.
    n_candidates : list of int
        The candidates of each rung.
    epochs : list of int
        The most epochs that a fit of each rung has made at its end.
    epochs_made, epochs_of_all : int
        The epochs of all fits together, and what they would be if every fit made those that it may make.
    """

    rows: list[dict[str, Any]]
    errors: list[Exception]
    reached: NDArray[np.intp]
    n_candidates: list[int]
    epochs: list[int]
    epochs_made: int
    epochs_of_all: int


def rungs_of(n_candidates: int, factor: int) -> list[int]:
    """Return how many candidates each rung has: all, then always the best of `factor`, down to at most `factor`.

    >>> rungs_of(20, 3)
    [20, 7, 3]
    """
    counts = [n_candidates]
    while counts[-1] > factor:
        counts.append(-(-counts[-1] // factor))
    return counts


def halved(jobs: Sequence[Sequence[Job]], evaluate: Sequence[Evaluate], factor: int) -> Rungs:
    """Train candidates rung by rung.

    Parameters
    ----------
    jobs : sequence of sequences of Job
        The fits of each candidate: one for each seed and fold.
    evaluate : sequence of callable
        For each fit of a candidate, what judges it.
    factor : int
        One of so many candidates goes on, and makes so many times as many epochs in all.

    Returns
    -------
    Rungs
    """
    every = [job for own in jobs for job in own]
    for job in every:
        if not can_pause(job.estimator):
            raise ValueError(
                f"halving: got {type(job.estimator).__name__}, expected MLPClassifier or MLPRegressor with a "
                "stochastic solver, or a pipeline without memory that ends with one; their fits can pause"
            )
    begin = time.perf_counter()
    most = [max_epochs(network_estimator(job.estimator)) for job in every]
    counts = rungs_of(len(jobs), factor)
    n_fits = len(evaluate)
    together = SideBySide([pausing_fit(job) for job in every])
    reached = np.zeros(len(jobs), np.intp)
    rows: list[dict[str, Any]] = [{}] * len(every)
    alive, epochs = list(range(len(jobs))), []
    for rung in range(len(counts)):
        last = rung == len(counts) - 1
        limits = [-(-one // factor ** (len(counts) - 1 - rung)) for one in most]
        epochs.append(max(limits[place] for candidate in alive for place in _fits(candidate, n_fits)))
        together.advance(None if last else limits)
        end_if_asked()
        seconds = (time.perf_counter() - begin) / len(every)
        for candidate in alive:
            reached[candidate] = rung
            for place, judge in zip(_fits(candidate, n_fits), evaluate, strict=True):
                rows[place] = judge(Outcome(every[place], together.outcomes[place], seconds))
        if not last:
            stay = _best(alive, rows, n_fits, counts[rung + 1])
            together.leave(place for one in alive if one not in stay for place in _fits(one, n_fits))
            alive = stay
    errors = [error for error in together.outcomes if error is not None]
    return Rungs(rows, errors, reached, counts, epochs, sum(together.epochs), sum(most))


def _fits(candidate: int, n_fits: int) -> range:
    """Return the places of a candidate's fits."""
    return range(candidate * n_fits, (candidate + 1) * n_fits)


def _best(alive: list[int], rows: list[dict[str, Any]], n_fits: int, count: int) -> list[int]:
    """Return the candidates of the best mean score, in their order; one with a fit that failed comes last."""
    means = {one: np.mean([rows[place]["test_scores"] for place in _fits(one, n_fits)]) for one in alive}
    ranked = sorted(alive, key=lambda one: (np.isnan(means[one]), -means[one], one))
    return sorted(ranked[:count])
