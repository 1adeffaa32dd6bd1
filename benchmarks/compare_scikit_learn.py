"""Train scikit-learn's estimators and gpuprop's side by side, and print the table of docs/scikit-learn.md.

    python benchmarks/compare_scikit_learn.py [--seeds 5] [--only digits,iris] [--device cpu]

Each data set is split once for each seed, with a quarter for testing. Both libraries get the same split, the same
parameters and the same `random_state`. The score is accuracy, or R2 for a regression; the time is that of `fit` alone,
and the libraries take turns. Both compute in the dtype of the data: float32 for MNIST and the texts, else float64.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse
from sklearn import neural_network
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import gpuprop

N_MNIST = 20_000


@dataclass(frozen=True)
class Task:
    """A data set, the estimator for it, and its parameters."""

    load: Callable[[int], tuple[Any, Any]]
    estimator: str = "MLPClassifier"
    parameters: dict[str, Any] = field(default_factory=dict)
    scale: bool = True


def mnist(seed: int) -> tuple[Any, Any]:
    (X, y), _ = gpuprop.datasets.load_mnist()
    rows = np.random.default_rng(seed).choice(len(X), N_MNIST, replace=False)
    return X[rows].reshape(N_MNIST, -1).astype(np.float32) / 255, y[rows]


def texts(seed: int, n_texts: int = 4000, n_words: int = 20_000, n_topics: int = 10) -> tuple[Any, Any]:
    """Draw word counts: Zipf's law for all words, and for each topic 200 words that it prefers."""
    rng = np.random.default_rng(seed)
    frequency = 1.0 / np.arange(1, n_words + 1)
    topics = rng.integers(0, n_topics, n_texts)
    preferred = [rng.choice(n_words, 200, replace=False) for _ in range(n_topics)]
    rows, columns = [], []
    for text, topic in enumerate(topics):
        words = rng.choice(n_words, 60, p=frequency / frequency.sum())
        own = rng.choice(preferred[topic], 8)
        rows.append(np.full(68, text))
        columns.append(np.concatenate([words, own]))
    counts = np.ones(68 * n_texts, np.float32)
    where = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_array((counts, where), shape=(n_texts, n_words)), topics


TASKS = {
    "digits": Task(lambda seed: load_digits(return_X_y=True), parameters={"max_iter": 60}),
    "iris": Task(lambda seed: load_iris(return_X_y=True), parameters={"max_iter": 400}),
    "breast cancer": Task(lambda seed: load_breast_cancer(return_X_y=True)),
    "diabetes": Task(
        lambda seed: load_diabetes(return_X_y=True),
        "MLPRegressor",
        {"learning_rate_init": 0.01, "alpha": 1.0, "early_stopping": True},
    ),
    "MNIST, 20,000 rows": Task(mnist, parameters={"max_iter": 5}, scale=False),
    "sparse texts": Task(texts, parameters={"hidden_layer_sizes": (32,), "max_iter": 3}, scale=False),
}


def run(task: Task, library: Any, seed: int, **options: Any) -> tuple[float, float]:
    """Return the test score and the seconds of the fit."""
    X, y = task.load(seed)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=seed)
    if task.scale:
        scaler = StandardScaler().fit(X_train)
        X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)
    model = getattr(library, task.estimator)(random_state=seed, **task.parameters, **options)
    begin = time.perf_counter()
    model.fit(X_train, y_train)
    return model.score(X_test, y_test), time.perf_counter() - begin


def compare(name: str, n_seeds: int, device: str) -> str:
    """Return one row of the table."""
    theirs, ours = [], []
    for seed in range(n_seeds):
        theirs.append(run(TASKS[name], neural_network, seed))
        ours.append(run(TASKS[name], gpuprop, seed, device=device))
    cells = []
    for results in (theirs, ours):
        scores, seconds = np.transpose(results)
        cells += [f"{scores.mean():.4f} ± {scores.std():.4f}", f"{np.median(seconds):.2f}"]
    speedup = np.median(np.transpose(theirs)[1] / np.transpose(ours)[1])
    return f"| {name} | {cells[0]} | {cells[2]} | {cells[1]} | {cells[3]} | {speedup:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default=",".join(TASKS), help="names of data sets, separated by commas")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    # Most of these trainings are cut short, and both libraries say so.
    warnings.simplefilter("ignore", ConvergenceWarning)
    print("| data | score, scikit-learn | score, gpuprop | s, scikit-learn | s, gpuprop | times as fast |")
    print("|---|---|---|---|---|---|")
    chosen = [name for name in TASKS if any(name.startswith(wanted.strip()) for wanted in arguments.only.split(","))]
    for name in chosen:
        print(compare(name, arguments.seeds, arguments.device), flush=True)


if __name__ == "__main__":
    main()
