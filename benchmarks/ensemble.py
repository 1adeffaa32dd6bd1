"""Ten networks trained together, compared with one: and the ratio of their times.

    python benchmarks/ensemble.py [--networks 10] [--dtype float32] [--rounds 7]

Networks of 784-64-10, Adam, batches of 32 rows of MNIST in an order that all share, one thread. An epoch has 100
updates: longer trainings go to the fused tier, where networks share nothing but the taking of a batch. First each of
the ten is compared with the same network trained alone. Then one network and ten take turns; the medians and their
ratio are printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402  (the number of threads is read at import)
from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402

import gpuprop  # noqa: E402
from gpuprop.measure.equivalence.tolerances import CURVE  # noqa: E402


def seconds_of(model: gpuprop.MLPClassifier | gpuprop.MLPEnsemble, X: np.ndarray, y: np.ndarray) -> float:
    begin = time.perf_counter()
    model.fit(X, y)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=10)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)

    (X, y), _ = gpuprop.datasets.load_mnist()
    X, y = (X[:3200] / 255).astype(options.dtype), y[:3200]
    one = gpuprop.MLPClassifier((64,), batch_size=32, max_iter=options.epochs, random_state=0, device="cpu")
    ten = gpuprop.MLPEnsemble(one, options.networks, random_state=0).fit(X, y)
    for member in ten.estimators_:
        alone = clone(member).fit(X, y)
        np.testing.assert_allclose(member.loss_curve_, alone.loss_curve_, rtol=CURVE[X.dtype])

    times: dict[str, list[float]] = {"one": [], "together": []}
    for _ in range(options.rounds):
        times["one"].append(seconds_of(clone(one), X, y))
        times["together"].append(seconds_of(clone(ten), X, y))
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in medians.items():
        print(f"{name:9s} {seconds * 1e3:8.1f} ms   {seconds / options.epochs / 100 * 1e6:8.1f} us an update")
    print(f"{options.networks} networks together take {medians['together'] / medians['one']:.2f} times as long as one")


if __name__ == "__main__":
    main()
