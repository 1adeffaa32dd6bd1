"""The process of one contender: ``python -m gpuprop.measure.bench.peers.worker WHAT CONTENDER [CONFIG]``.

WHAT is "training" or "inference" (a warm process that answers requests, see `gpuprop.measure.bench.timing`), "accuracy"
(it prints a line of JSON for each seed), "start" or "memory" (a whole short training; "memory" prints a line of JSON).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpuprop.errors import GpupropError
from gpuprop.measure.bench.peers import inference
from gpuprop.measure.bench.peers.configs import CONFIGS, Array, cross_entropy, load, probabilities
from gpuprop.measure.bench.peers.contenders import Contender, Gpuprop
from gpuprop.measure.bench.peers.libraries import CONTENDERS
from gpuprop.measure.bench.timing import serve

__all__ = ["MOST_EPOCHS", "N_SEEDS", "TARGETS"]

TARGETS = (0.975, 0.98)
"""Test accuracies on MNIST at which a training's time is taken."""
MOST_EPOCHS = 20
"""Number of epochs after which the training of a seed is given up."""
N_SEEDS = 5


def training(name: str, config_name: str) -> None:
    """Train one epoch, whose loss is compared, and then as many as the requests ask for, which are timed."""
    config = CONFIGS[config_name]
    X, y = load(config)
    contender = CONTENDERS[name](config, X, y)
    contender.epochs(1)
    layers = contender.layers()
    serve(
        {"loss": cross_entropy(config, layers, X, y) if layers else None},
        {"run": lambda units: contender.epochs(units)},
    )


def accuracy(name: str, config_name: str) -> None:
    """Train on all of MNIST until the test accuracies are reached, seed by seed."""
    from gpuprop.datasets import load_mnist

    config = replace(CONFIGS[config_name], n_samples=60_000)
    contender = _as_users_run_it(name)(config, *load(config))
    X_bytes, y_test = load_mnist()[1]
    X_test = X_bytes / np.float32(255)
    contender.learn(0, 1, lambda _: True)  # whatever is compiled at first use is compiled now
    for seed in range(N_SEEDS):
        judge = Judge(lambda: probabilities(config, contender.layers(), X_test, np.float32).argmax(axis=1) == y_test)
        contender.learn(seed, MOST_EPOCHS, judge)
        print(json.dumps({"seed": seed, "reached": [judge.reached.get(target) for target in TARGETS]}), flush=True)


class Judge:
    """It notes the seconds and the epochs after which a training first reaches each target."""

    def __init__(self, right: Callable[[], Array]) -> None:
        self.right = right
        self.seconds, self.epochs = 0.0, 0
        self.reached: dict[float, tuple[float, int]] = {}

    def __call__(self, elapsed: float) -> bool:
        """Take the seconds of an epoch, and return whether all targets are reached."""
        self.seconds += elapsed
        self.epochs += 1
        share = self.right().mean()
        for target in TARGETS:
            if share >= target:
                self.reached.setdefault(target, (self.seconds, self.epochs))
        return len(self.reached) == len(TARGETS)


def start(name: str, config_name: str) -> None:
    """Train one short epoch; the whole process is timed from outside."""
    config = CONFIGS[config_name]
    _as_users_run_it(name)(config, *load(config)).epochs(1)


def memory(name: str, config_name: str) -> None:
    """Train two epochs on all of MNIST, and print the peak memory of the process."""
    config = replace(CONFIGS[config_name], n_samples=60_000)
    contender = _as_users_run_it(name)
    if issubclass(contender, Gpuprop):
        from gpuprop.datasets import load_mnist

        (X, y), _ = load_mnist()  # bytes, as they come
    else:
        X, y = load(config)
    contender(config, X, y).learn(0, 2, lambda _: False)
    print(json.dumps({"bytes": _peak(), "loaded": [m for m in ("sklearn", "torch", "jax") if m in sys.modules]}))


def _as_users_run_it(name: str) -> type[Contender]:
    """Return the contender; gpuprop itself chooses whether an epoch is one compiled call."""
    return Gpuprop if name == "gpuprop" else CONTENDERS[name]


def _peak() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, where ru_maxrss would count the parent process too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        raise GpupropError("this operating system does not tell a process its peak memory") from None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    functions = {f.__name__: f for f in (training, accuracy, start, memory)} | {"inference": inference.work}
    functions[sys.argv[1]](*sys.argv[2:])
