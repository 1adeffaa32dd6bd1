"""What the processes of `mpirun` do in tests; rank 0 writes what came out.

mpirun -n 4 python tests/mpi_worker.py bits OUT.json numpy cpu
mpirun -n 2 python tests/mpi_worker.py killed FOLDER
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import gpuprop

Case = tuple[dict[str, Any], dict[str, Any], tuple[Any, ...]]


def cases(device: str) -> dict[str, Case]:
    """Return trainings by their names: arguments of the network and of the trainer, and data."""
    rng = np.random.default_rng(7)
    digits = gpuprop.datasets.load("digits")
    X, y = digits.X[:700], digits.y[:700]
    mnist = gpuprop.datasets.load("mnist")
    inputs = rng.normal(size=(331, 7))
    targets = np.stack([np.sin(inputs[:, 0]) + inputs[:, 1], inputs[:, 2] * inputs[:, 3], inputs[:, 4]], axis=1)
    weight = rng.uniform(0.0, 2.0, len(inputs))
    balanced = len(y) / (10 * np.bincount(y)[y])
    crossed = {"loss": "categorical_cross_entropy", "device": device}
    squared = {"loss": "squared_error", "device": device, "dtype": "float64"}
    return {
        "digits, dropout, early stopping": (
            {"layer_sizes": (64, 40, 30, 10), "dropout": (0.1, 0.2, 0.2), "hidden_activation": "tanh", **crossed},
            {"validation": 0.2, "early_stopping": 1, "batch_size": 50, "epochs": 8},
            (X, y),
        ),
        "digits, balanced, clipped, limited": (
            {"layer_sizes": (64, 33, 10), "l1": 1e-4, "l2": 1e-3, **crossed},
            {"clip_norm": 0.5, "max_norm": 1.5, "optimizer": "momentum", "schedule": "one-cycle", "batch_size": 33},
            (X, y, balanced),
        ),
        "regression, weights": (
            {"layer_sizes": (7, 19, 3), **squared},
            {
                "validation": 0.1,
                "keep_best": "validation_r2",
                "metrics": ["neg_mean_absolute_error"],
                "batch_size": 5,
                "weight_decay": 0.01,
            },
            (inputs, targets, weight),
        ),
        "accumulated, uneven, drop_last": (
            {"layer_sizes": (7, 5, 3), **squared},
            {"accumulation_steps": 3, "batch_size": 7, "drop_last": True, "optimizer": "sgd"},
            (inputs, targets),
        ),
        "mnist": (
            {"layer_sizes": (784, 40, 10), "input_scaling": gpuprop.InputScaling.divide(255), **crossed},
            {"batch_size": 100, "validation": (mnist.X[2000:2500], mnist.y[2000:2500]), "epochs": 1},
            (mnist.X[:2000], mnist.y[:2000]),
        ),
    }


def trained(case: Case, **how: Any) -> gpuprop.Trainer:
    """Return the trainer of a case after its training."""
    network, options, data = case
    trainer = gpuprop.Trainer(gpuprop.Network(seed=3, **network), **{"epochs": 3, **options, **how})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of classes that are never predicted
        return trainer.fit(*data)


def digest(trainer: gpuprop.Trainer) -> str:
    """Return the SHA-256 of parameters and history, but for the seconds."""
    history = {name: column for name, column in trainer.history.items() if name != "seconds"}
    return hashlib.sha256(trainer.network.host_parameters().tobytes() + json.dumps(history).encode()).hexdigest()


def bits(out: str, *devices: str) -> None:
    """Write the digests that every process has of the cases of each "DEVICE", "DEVICE:FIRST CASES" or "DEVICE=CASE"."""
    found = {}
    for one in devices:
        device, _, wanted = one.partition("=")
        device, _, number = device.partition(":")
        for name, case in list(cases(device).items())[: int(number or 99)]:
            if wanted not in ("", name):
                continue
            trainer = trained(case, communicator="mpi")
            digests = _gathered(digest(trainer))
            assert len(set(digests)) == 1, (name, digests)
            found[f"{device}: {name}"] = digests[0]
    _write(out, found)


def diverging(out: str) -> None:
    """Write the error with which a training ends in each process, and that a later one is not hindered."""
    network, options, data = cases("numpy")["regression, weights"]
    case: Case = (network, {**options, "optimizer": "sgd", "learning_rate": 1e6, "epochs": 20}, data)
    try:
        trained(case, communicator="mpi")
        message = "no error"
    except gpuprop.NonFiniteLossError as error:
        message = str(error)
    later = trained(cases("numpy")["regression, weights"], communicator="mpi")
    _write(out, {"messages": _gathered(message), "later": digest(later)})


def other_data(out: str) -> None:
    """Write the error of processes of which the last has other data and another batch size."""
    from mpi4py import MPI

    last = MPI.COMM_WORLD.rank == MPI.COMM_WORLD.size - 1
    network, options, (X, y, weight) = cases("numpy")["regression, weights"]
    case: Case = (network, {**options, "batch_size": 6 if last else 5}, (X + last, y, weight))
    message = "no error"
    try:
        trained(case, communicator="mpi")
    except gpuprop.CommunicatorError as error:
        message = str(error)
    _write(out, {"messages": MPI.COMM_WORLD.allgather(message)})


class Breaking(gpuprop.Callback):
    """A callback that fails in the second epoch, and counts how often it was called."""

    calls = 0

    def on_epoch_end(self, trainer: gpuprop.Trainer, epoch: int, record: Mapping[str, float | None]) -> None:
        """Count, and fail."""
        Breaking.calls += 1
        if epoch == 2:
            raise ZeroDivisionError("a callback has failed")


def failing(folder: str) -> None:
    """Train with a callback that fails in rank 0; each process writes its error to a file of its own."""
    from mpi4py import MPI

    message = "no error"
    try:
        trained(cases("numpy")["regression, weights"], communicator="mpi", callbacks=[Breaking()])
    except Exception as error:
        message = f"{type(error).__name__}: {error} ({Breaking.calls} calls)"
    (Path(folder) / f"rank-{MPI.COMM_WORLD.rank}.txt").write_text(message)


def killed(folder: str) -> None:
    """Train with a checkpoint every few updates, going on from the last; each process says which it is."""
    from mpi4py import MPI

    place = Path(folder)
    (place / f"{MPI.COMM_WORLD.rank}.pid").write_text(str(os.getpid()))
    checkpoint = gpuprop.Checkpoint(place / "checkpoints", "7 updates")
    network, options, data = cases("numpy")["digits, dropout, early stopping"]
    options = {**options, "epochs": 5, "early_stopping": 4, "metrics": (), "checkpoint": checkpoint}
    trainer = gpuprop.Trainer(gpuprop.Network(seed=3, **network), communicator="mpi", callbacks=[Slow()], **options)
    trainer.fit(*data, resume_from="auto")
    if MPI.COMM_WORLD.rank == 0:
        _write(str(place / "done.json"), {"digest": digest(trainer)})


class Slow(gpuprop.Callback):
    """A callback that leaves the one who kills some time."""

    def on_step_end(self, trainer: gpuprop.Trainer, epoch: int, step: int) -> None:
        """Sleep a little."""
        time.sleep(0.02)


def _gathered(value: Any) -> list[Any]:
    from mpi4py import MPI

    return list(MPI.COMM_WORLD.allgather(value))


def _write(out: str, found: dict[str, Any]) -> None:
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 0:
        Path(f"{out}.part").write_text(json.dumps(found))
        Path(f"{out}.part").replace(out)


if __name__ == "__main__":
    {one.__name__: one for one in (bits, diverging, other_data, failing, killed)}[sys.argv[1]](*sys.argv[2:])
