"""What an epoch costs by the way that it is asked for: within a long fit, or by a call of its own.

``python -m gpuprop.measure.bench.peers.calls CONFIG ROUNDS`` prints a line of JSON: for each contender and way the
microseconds an update, one number a turn. All ways take turns in one process. The loops are compiled before.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpuprop.measure.bench.peers.configs import CONFIGS, Array, Config, initial, load
from gpuprop.measure.bench.peers.contenders import classifier
from gpuprop.measure.bench.timing import TURN
from gpuprop.training.callbacks import Callback

__all__ = ["WAYS", "ways_of"]

WAYS = {
    "fit": "an epoch within a long fit",
    "partial_fit": "partial_fit",
    "warm_start": "fit with warm_start and max_iter=1",
    "Trainer": "an epoch within a long Trainer.fit",
    "Trainer.training": "Trainer.training with epochs=1",
}
"""Each way to ask for an epoch; the first and the fourth are what those after them are compared with."""


class _Clock(Callback):
    """The moments at which epochs end."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_epoch_end(self, trainer: Any, epoch: int, record: Mapping[str, Any]) -> None:
        self.moments.append(time.perf_counter())

    def seconds(self) -> float:
        """Return the mean time from one epoch's end to the next's."""
        return (self.moments[-1] - self.moments[0]) / (len(self.moments) - 1)


def _repeated(count: int, call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count


def ways_of(
    config: Config, X: Array, y: Array, count: int, plan: str = "fused"
) -> dict[tuple[str, str], Callable[[], float]]:
    """Return a function for each contender and way: it trains so many epochs, and returns the seconds of one."""
    import gpuprop.estimators
    from gpuprop.model.network import Network
    from gpuprop.training.trainer import Trainer

    classes = np.arange(config.sizes[-1])

    def estimator(**options: Any) -> Any:
        return classifier(gpuprop.estimators, config, tol=0.0, plan=plan, n_iter_no_change=np.inf, **options)

    def trainer(epochs: int, *callbacks: Callback) -> Trainer:
        network = Network(
            config.sizes, hidden_activation=config.activation, loss="categorical_cross_entropy", device="cpu", seed=0
        )
        for own, (weights, _) in zip(network.weights, initial(config), strict=True):
            own[...] = weights
        return Trainer(
            network, optimizer=config.optimizer, learning_rate=config.learning_rate, batch_size=config.batch_size,
            epochs=epochs, plan=plan, callbacks=callbacks,
        )  # fmt: skip

    def long_fit() -> float:
        clock = _Clock()
        estimator(max_iter=count + 1, callbacks=[clock]).fit(X, y)
        return clock.seconds()

    def long_training() -> float:
        clock = _Clock()
        trainer(count + 1, clock).fit(X, y)
        return clock.seconds()

    partial, warm, one = estimator(), estimator(max_iter=1, warm_start=True), trainer(1)
    ways: dict[tuple[str, str], Callable[[], float]] = {
        ("gpuprop", "fit"): long_fit,
        ("gpuprop", "partial_fit"): lambda: _repeated(count, lambda: partial.partial_fit(X, y, classes=classes)),
        ("gpuprop", "warm_start"): lambda: _repeated(count, lambda: warm.fit(X, y)),
        ("gpuprop", "Trainer"): long_training,
        ("gpuprop", "Trainer.training"): lambda: _repeated(count, lambda: list(one.training(X, y))),
    }
    return ways | _scikit_learn(config, X, y, count)


def _scikit_learn(config: Config, X: Array, y: Array, count: int) -> dict[tuple[str, str], Callable[[], float]]:
    import sklearn.neural_network

    def estimator(**options: Any) -> Any:
        return classifier(sklearn.neural_network, config, tol=0.0, n_iter_no_change=10**9, **options)

    partial, warm, epochs = estimator(), estimator(max_iter=1, warm_start=True), max(2, min(count, 5))
    long, classes = estimator(max_iter=epochs), np.arange(config.sizes[-1])
    return {
        ("sklearn", "fit"): lambda: _repeated(1, lambda: long.fit(X, y)) / epochs,
        ("sklearn", "partial_fit"): lambda: _repeated(epochs, lambda: partial.partial_fit(X, y, classes=classes)),
        ("sklearn", "warm_start"): lambda: _repeated(epochs, lambda: warm.fit(X, y)),
    }


def _main(name: str, rounds: str) -> None:
    warnings.simplefilter("ignore")  # scikit-learn warns that no fit has converged
    config = CONFIGS[name]
    X, y = load(config)
    count = max(3, int(TURN / ways_of(config, X, y, 2)["gpuprop", "Trainer"]()))
    ways = ways_of(config, X, y, count)
    found: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
    for turn in range(int(rounds) + 1):
        for way, run in ways.items():
            seconds = run()
            if turn:  # the first turn compiles what is missing
                found[way].append(1e6 * seconds / config.steps)
    print(json.dumps([{"contender": c, "call": way, "turns": turns} for (c, way), turns in found.items()]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
