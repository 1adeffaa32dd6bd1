"""search: scikit-learn's grid and random search, with the networks trained together, and successive halving."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, ParameterGrid, ParameterSampler, RandomizedSearchCV, check_cv
from sklearn.utils import _safe_indexing, indexable

from gpuprop.backends.threads import limited_blas
from gpuprop.errors import check_integer
from gpuprop.estimators.halving import Rungs, halved
from gpuprop.estimators.kept_fits import keeps_fits
from gpuprop.estimators.members import Job, Outcome, fit_together
from gpuprop.training.signals import end_if_asked, watching_signals

__all__ = ["search"]


def search(
    estimator: Any,
    param_grid: Any,
    X: Any,
    y: Any,
    *,
    cv: Any = 5,
    seeds: Sequence[int | None] = (None,),
    scoring: Any = None,
    refit: Any = True,
    n_iter: int | None = None,
    random_state: Any = None,
    halving: bool = False,
    factor: int = 3,
) -> GridSearchCV | RandomizedSearchCV:
    """Find the best parameters by cross-validation, training candidates together.

    Candidates of one shape train together, in all folds and with all seeds, and the rest one after the other. Each
    becomes the network that its own ``fit`` would have given. See `gpuprop.training.side_by_side`.

    Under ``joblib.parallel_config`` with several workers, such as those of Dask, each worker trains a share of
    the candidates of a fold together, and a share whose worker is lost is trained elsewhere.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor, or a pipeline that ends with one
        Any other estimator works too; its fits run one after the other. If its `checkpoint` names a folder, a search
        that was killed and is made again goes on where it stood: fits that were finished are not repeated.
    param_grid : dict or list of dicts
        As for scikit-learn's ``GridSearchCV``; with `n_iter`, as ``param_distributions`` of its
        ``RandomizedSearchCV``: lists, or distributions such as those of scipy.stats.
    X : array_like, sparse matrix or data frame of shape (n_samples, n_features)
    y : array_like of shape (n_samples,) or (n_samples, n_outputs)
    cv : int, splitter or iterable, default=5
    seeds : sequence of int or None, default=(None,)
        Each candidate trains with each of them as `random_state`; None keeps the estimator's own.
    scoring : str, callable, list, dict or None, default=None
        None takes the estimator's ``score``.
    refit : bool, str or callable, default=True
        Whether to fit the best candidate to all rows, with the first seed. With several scores: the name of the score
        that decides.
    n_iter : int or None, default=None
        How many candidates to draw from `param_grid`; None tries all.
    random_state : int, RandomState or None, default=None
        What they are drawn with.
    halving : bool, default=False
        Whether only the best candidates train to their ends: all make some epochs, one of `factor` goes on and makes
        `factor` times as many epochs in all, and so forth. The trainings go on where they were, so that the last ones
        end as their own ``fit``. It needs a single score, holds all networks in memory, and trains in this process. See
        `gpuprop.estimators.halving`.
    factor : int, default=3
        Of halving.

    Returns
    -------
    GridSearchCV or RandomizedSearchCV
        Fitted: it has ``cv_results_, best_params_, best_score_, best_index_, best_estimator_, n_splits_, scorer_``,
        and the methods of the best estimator. With several seeds ``cv_results_`` has the splits once for each seed.
        ``mean_fit_time`` is a fit's share of the time of all fits. By halving a candidate has the scores of the rung
        that it reached, ``cv_results_["rung"]``; those of later rungs rank first. ``n_candidates_`` and ``n_epochs_``
        tell of each rung, and ``epochs_made_`` and ``epochs_of_all_`` the epochs that were made and that a search of
        all would have made.

    Warns
    -----
    FitFailedWarning
        If some fits ended with an error; their score is NaN.

    Raises
    ------
    KeyboardInterrupt, TrainingEnded
        If Ctrl-C, or with checkpoints another signal, ends the search.
    ValueError
        If every fit ended with an error, there are no candidates, splits or seeds, or halving cannot serve.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> import gpuprop
    >>> X, y = load_iris(return_X_y=True)
    >>> model = gpuprop.MLPClassifier((16,), learning_rate_init=0.02, tol=0.01, random_state=0)
    >>> found = gpuprop.search(model, {"alpha": [0.01, 1.0]}, X, y, cv=3)
    >>> len(found.cv_results_["params"]), found.n_splits_
    (2, 3)
    >>> halved = gpuprop.search(model, {"alpha": [0.01, 0.1, 1.0, 10.0]}, X, y, cv=3, halving=True)
    >>> halved.n_candidates_, halved.epochs_made_ < halved.epochs_of_all_
    ([4, 2], True)
    """
    options = {"cv": cv, "scoring": scoring, "refit": refit}
    if n_iter is None:
        result = GridSearchCV(estimator, param_grid, **options)
        candidates = list(ParameterGrid(param_grid))
    else:
        n_iter = check_integer("n_iter", n_iter, 1)
        result = RandomizedSearchCV(estimator, param_grid, n_iter=n_iter, random_state=random_state, **options)
        candidates = list(ParameterSampler(param_grid, n_iter, random_state=random_state))
    factor = check_integer("factor", factor, 2)
    scorer = check_scoring(estimator, scoring)
    X, y = indexable(X, y)
    splits = list(check_cv(cv, y, classifier=is_classifier(estimator)).split(X, y))
    seeds = list(seeds)
    if not (splits and seeds and candidates):
        raise ValueError(
            f"got {len(candidates)} candidates, {len(splits)} splits and {len(seeds)} seeds, expected some of each"
        )

    shape = (len(candidates), len(seeds), len(splits))
    n_workers = 1 if keeps_fits(estimator) else workers()
    jobs = _jobs(estimator, candidates, seeds, X, y, [train for train, _ in splits])
    rungs = None
    with watching_signals(interrupts_only=not keeps_fits(estimator)):
        if n_workers > 1 and not halving:  # each worker cuts the rows of its folds
            rows, errors = _scored_by_workers(estimator, candidates, seeds, (X, y, splits), scorer, n_workers)
        else:
            test_sets = [(_safe_indexing(X, test), _safe_indexing(y, test)) for _, test in splits]
            if halving:
                rungs = _rungs(list(jobs), shape, scorer, test_sets, factor)
                rows, errors = rungs.rows, rungs.errors
            else:
                rows, errors = _scored(jobs, shape, scorer, test_sets)
    _report(errors, len(rows))
    _fill_in_scores(rows)
    result.n_splits_ = len(splits) * len(seeds)
    result.cv_results_ = result._format_results(candidates, result.n_splits_, rows)
    result.multimetric_ = isinstance(rows[0]["test_scores"], dict)
    result.scorer_ = scorer
    if rungs is not None:
        _rank_by_rung(result, rungs)
    _choose(result)
    if refit:
        begin = time.perf_counter()
        with watching_signals(interrupts_only=not keeps_fits(estimator)):
            result.best_estimator_ = _candidate(estimator, result.best_params_, seeds[0]).fit(X, y)
            end_if_asked()
        result.refit_time_ = time.perf_counter() - begin
        if hasattr(result.best_estimator_, "feature_names_in_"):
            result.feature_names_in_ = result.best_estimator_.feature_names_in_
    return result


def _jobs(
    estimator: Any, candidates: list[dict[str, Any]], seeds: list[int | None], X: Any, y: Any, trains: list[Any]
) -> Iterator[Job]:
    for train in trains:
        X_train, y_train = _safe_indexing(X, train), _safe_indexing(y, train)
        for parameters in candidates:
            for seed in seeds:
                yield Job(_candidate(estimator, parameters, seed), X_train, y_train)


def _candidate(estimator: Any, parameters: dict[str, Any], seed: int | None) -> Any:
    """Return a copy of the estimator with these parameters and this seed."""
    own = clone(estimator).set_params(**clone(parameters, safe=False))
    if seed is None:
        return own
    names = [name for name in own.get_params() if name == "random_state" or name.endswith("__random_state")]
    return own.set_params(**dict.fromkeys(names, seed))


def _scored(
    jobs: Iterable[Job], shape: tuple[int, int, int], scorer: Any, test_sets: list[tuple[Any, Any]]
) -> tuple[list[dict[str, Any]], list[Exception]]:
    """Make all fits; return scores and times of each, and what went wrong.

    The fits run fold by fold, so that all fits of a fold share one copy of its rows. The results are in the order
    candidate, seed, fold; `shape` counts these.
    """
    n_candidates, n_seeds, n_folds = shape
    rows: list[dict[str, Any]] = [{}] * (n_candidates * n_seeds * n_folds)
    errors = []
    order = np.ndindex(n_folds, n_candidates, n_seeds)
    for (fold, candidate, seed), outcome in zip(order, fit_together(jobs), strict=True):
        end_if_asked()  # an interrupted fit ends well for its estimator, but its score would mislead
        rows[(candidate * n_seeds + seed) * n_folds + fold] = _evaluated(outcome, scorer, *test_sets[fold])
        errors += [] if outcome.error is None else [outcome.error]
    return rows, errors


def _rungs(
    jobs: list[Job], shape: tuple[int, int, int], scorer: Any, test_sets: list[tuple[Any, Any]], factor: int
) -> Rungs:
    """Train by halving; `jobs` go fold by fold, the result is in the order candidate, seed, fold."""
    if isinstance(scorer, dict) or type(scorer).__name__ == "_MultimetricScorer":
        raise ValueError("halving: got several scores, expected one, by which candidates stay or leave")
    n_candidates, n_seeds, n_folds = shape
    places = np.arange(len(jobs)).reshape(n_folds, n_candidates, n_seeds).transpose(1, 2, 0).reshape(n_candidates, -1)
    evaluate = [partial(_judged, scorer, test_sets[fold]) for _ in range(n_seeds) for fold in range(n_folds)]
    return halved([[jobs[place] for place in own] for own in places], evaluate, factor)


def _judged(scorer: Any, test_set: tuple[Any, Any], outcome: Outcome) -> dict[str, Any]:
    return _evaluated(outcome, scorer, *test_set)


def _rank_by_rung(result: Any, rungs: Rungs) -> None:
    """Rank candidates of later rungs first, and write down how the search went."""
    results = result.cv_results_
    rank = results["rank_test_score"]
    order = np.lexsort((rank, -rungs.reached))
    levels = list(zip(-rungs.reached[order], rank[order], strict=True))
    results["rank_test_score"] = np.empty_like(rank)
    results["rank_test_score"][order] = [1 + levels.index(level) for level in levels]
    results["rung"] = rungs.reached
    result.n_candidates_, result.n_epochs_ = rungs.n_candidates, rungs.epochs
    result.epochs_made_, result.epochs_of_all_ = rungs.epochs_made, rungs.epochs_of_all


def _scored_by_workers(
    estimator: Any,
    candidates: list[dict[str, Any]],
    seeds: list[int | None],
    data: tuple[Any, Any, list[Any]],
    scorer: Any,
    n_workers: int,
) -> tuple[list[dict[str, Any]], list[Exception]]:
    """Do as `_scored`, by the workers of joblib: each task is a share of the candidates and seeds of a fold."""
    X, y, splits = data
    pairs = [(candidate, seed) for candidate in range(len(candidates)) for seed in range(len(seeds))]
    n_shares = min(len(pairs), -(-n_workers // len(splits)))
    shares = [pairs[len(pairs) * i // n_shares : len(pairs) * (i + 1) // n_shares] for i in range(n_shares)]
    tasks = [(fold, share) for fold in range(len(splits)) for share in shares]
    threads = max(1, (os.cpu_count() or 1) // n_workers)
    # The same objects each time: joblib's backends send data once to each worker.
    found = joblib.Parallel(n_jobs=n_workers)(
        joblib.delayed(_share_scored)(
            [_candidate(estimator, candidates[candidate], seeds[seed]) for candidate, seed in share],
            X, y, splits[fold], scorer, threads,
        )
        for fold, share in tasks
    )  # fmt: skip
    rows: list[dict[str, Any]] = [{}] * (len(pairs) * len(splits))
    errors: list[Exception] = []
    for (fold, share), outcomes in zip(tasks, found, strict=True):
        for (candidate, seed), (row, error) in zip(share, outcomes, strict=True):
            rows[(candidate * len(seeds) + seed) * len(splits) + fold] = row
            errors += [] if error is None else [error]
    return rows, errors


def _share_scored(
    estimators: list[Any], X: Any, y: Any, split: Any, scorer: Any, n_threads: int
) -> list[tuple[dict[str, Any], Exception | None]]:
    """Train some candidates of a fold together, and return scores and times, and what went wrong."""
    train, test = split
    X_train, y_train = _safe_indexing(X, train), _safe_indexing(y, train)
    held_out = _safe_indexing(X, test), _safe_indexing(y, test)
    with limited_blas(n_threads):
        outcomes = fit_together(Job(one, X_train, y_train) for one in estimators)
        return [(_evaluated(outcome, scorer, *held_out), outcome.error) for outcome in outcomes]


def workers() -> int:
    """Return the number of workers that ``joblib.parallel_config`` names; 1 without one."""
    return int(joblib.effective_n_jobs(joblib.Parallel().n_jobs))


def _evaluated(outcome: Outcome, scorer: Any, X: Any, y: Any) -> dict[str, Any]:
    """Return the scores and times of a fit, under scikit-learn's names."""
    begin = time.perf_counter()
    scores = np.nan if outcome.error is not None else scorer(outcome.job.estimator, X, y)
    return {
        "test_scores": scores,
        "n_test_samples": len(y),
        "fit_time": outcome.seconds,
        "score_time": time.perf_counter() - begin,
    }


def _report(errors: list[Exception], n_fits: int) -> None:
    if not errors:
        return
    said = f"{type(errors[0]).__name__}: {errors[0]}"
    if len(errors) == n_fits:
        raise ValueError(f"all {n_fits} fits failed, the first with {said}") from errors[0]
    warnings.warn(
        f"{len(errors)} of {n_fits} fits failed, their scores are NaN; the first with {said}",
        FitFailedWarning,
        stacklevel=3,
    )


def _fill_in_scores(rows: list[dict[str, Any]]) -> None:
    """With several scores, give each fit that failed a NaN for every score."""
    names = next((list(row["test_scores"]) for row in rows if isinstance(row["test_scores"], dict)), None)
    for row in rows:
        if names is not None and not isinstance(row["test_scores"], dict):
            row["test_scores"] = dict.fromkeys(names, np.nan)


def _choose(result: Any) -> None:
    """Set the attributes that name the best candidate, if `refit` or a single score says which one it is."""
    results, refit = result.cv_results_, result.refit
    several = result.multimetric_
    if several and refit and not callable(refit) and f"rank_test_{refit}" not in results:
        known = ", ".join(name.removeprefix("rank_test_") for name in results if name.startswith("rank_test_"))
        raise ValueError(f"refit: got {refit!r}, expected False or the score that decides, one of {known}")
    if several and not refit:
        return
    metric = refit if several else "score"
    result.best_index_ = int(refit(results) if callable(refit) else results[f"rank_test_{metric}"].argmin())
    result.best_params_ = results["params"][result.best_index_]
    if not callable(refit):
        result.best_score_ = results[f"mean_test_{metric}"][result.best_index_]
