"""How the time of an update depends on the number of processes: measured here, and modelled for machines on a network.

``python -m gpuprop.measure.bench.scaling SETTINGS``, which ``mpirun`` starts, measures: the time of an update, and the
share of it in which gradients are added. `modelled` says what other machines and networks would make of it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from gpuprop.errors import GpupropError

__all__ = ["NETWORKS", "Network", "Settings", "Timing", "break_even", "measured", "modelled", "mpirun", "scaled"]


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes
    ----------
    layer_sizes : tuple of int
    batch_size : int
        Rows of an update.
    device : str
    seconds : float
        About how long the updates are repeated.
    """

    layer_sizes: tuple[int, ...]
    batch_size: int
    device: str = "cpu"
    seconds: float = 2.0

    @property
    def n_parameters(self) -> int:
        """Weights and biases."""
        return sum(a * b + b for a, b in pairwise(self.layer_sizes))


class Timing(NamedTuple):
    """Medians over the updates of rank 0, in seconds.

    Attributes
    ----------
    update : float
        A whole update.
    adding : float
        The part of it in which the gradients of the processes are added.
    """

    update: float
    adding: float


class Network(NamedTuple):
    """What connects machines.

    Attributes
    ----------
    name : str
    bytes_per_second : float
        That a machine sends, and receives at the same time.
    latency : float
        Seconds until a message arrives.
    """

    name: str
    bytes_per_second: float
    latency: float


NETWORKS = (
    Network("1 Gbit/s", 0.117e9, 50e-6),
    Network("10 Gbit/s", 1.17e9, 20e-6),
    Network("100 Gbit/s", 11.7e9, 5e-6),
)
"""Bandwidths less headers, with usual latencies of TCP (the first two) and of RDMA."""


def modelled(seconds: float, own: float, n_bytes: int, machines: int, network: Network) -> float:
    """Return the seconds of an update on several machines.

    ``seconds / p + own + 2 ((p - 1) / p * bytes / bandwidth + log2(p) * latency)``: the gradient's shards take a p-th
    each, every machine makes the whole update of its copy of the parameters, and each of the two collectives sends all
    but a p-th of the gradient, and needs as many messages one after the other as the best algorithms do. The model
    leaves out that machines wait for the slowest one, and that sending and computing could overlap.

    Parameters
    ----------
    seconds : float
        Of forming the gradient on one machine.
    own : float
        Of what every machine does for itself: the optimizer's update.
    n_bytes : int
        Of the gradient.
    machines : int
    network : Network

    Examples
    --------
    >>> from gpuprop.measure.bench.scaling import Network, modelled
    >>> modelled(0.8, 0.01, 10**9, machines=2, network=Network("fast", 1e10, 1e-3))
    0.512
    """
    if machines == 1:
        return seconds + own
    sent = (machines - 1) / machines * n_bytes / network.bytes_per_second
    return round(seconds / machines + own + 2 * (sent + math.log2(machines) * network.latency), 12)


def break_even(
    seconds_per_row: float, own: float, n_bytes: int, machines: int, network: Network, *, share: float = 0.5
) -> int | None:
    """Return the smallest power of two of rows in an update at which machines are worth at least that share of them.

    None if there is none up to 2^24 rows.
    """
    for power in range(25):
        rows = 1 << power
        alone = modelled(rows * seconds_per_row, own, n_bytes, 1, network)
        if alone / modelled(rows * seconds_per_row, own, n_bytes, machines, network) >= share * machines:
            return rows
    return None


def mpirun() -> str:
    """Return the path of mpirun.

    Raises
    ------
    GpupropError
        If there is none.
    """
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        raise GpupropError("there is no mpirun: pip install mpich 'gpuprop[mpi]', or take the system's")
    return found


def measured(settings: Settings, processes: int) -> Timing:
    """Measure how long an update takes that so many processes of this machine share.

    Raises
    ------
    GpupropError
        If the processes fail; the message has their last line.
    """
    command = [mpirun(), "-n", str(processes), sys.executable, "-m", __name__, json.dumps(asdict(settings))]
    done = subprocess.run(
        command, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise GpupropError(f"{processes} processes failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return Timing(*json.loads(done.stdout.splitlines()[-1]))


def scaled(settings: Settings, processes: Sequence[int]) -> tuple[dict[int, Timing], dict[int, Timing]]:
    """Measure strong scaling, with the same rows in an update, and weak scaling, with as many more as processes."""
    strong = {n: measured(settings, n) for n in processes}
    weak = {
        n: strong[n] if n == 1 else measured(Settings(**{**asdict(settings), "batch_size": n * settings.batch_size}), n)
        for n in processes
    }
    return strong, weak


def _measure(settings: Settings) -> Timing:
    """Train in this process and its siblings, and time each update; zeros but for rank 0."""
    from gpuprop.model.network import Network as Trained
    from gpuprop.training.callbacks.base import Callback
    from gpuprop.training.mpi import mpi_communicator
    from gpuprop.training.trainer import Trainer

    class Watch(Callback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, trainer: Any, epoch: int, step: int) -> None:
            self.ends.append(time.perf_counter())
            if self.ends[-1] - self.ends[0] > settings.seconds:
                trainer.stop_training()

    class Timed:
        """The processes, with a clock around their sums."""

        def __init__(self) -> None:
            self._processes = mpi_communicator()
            self.rank, self.size = self._processes.rank, self._processes.size
            self.gather, self.broadcast = self._processes.gather, self._processes.broadcast
            self.fail = self._processes.fail
            self.took: list[float] = []

        def sum_gradients(self, flat: Any) -> None:
            begin = time.perf_counter()
            self._processes.sum_gradients(flat)
            self.took.append(time.perf_counter() - begin)

    rng, sizes = np.random.default_rng(0), settings.layer_sizes
    X = rng.normal(size=(4 * settings.batch_size, sizes[0])).astype(np.float32)
    y = rng.integers(0, sizes[-1], len(X))
    network = Trained(sizes, loss="categorical_cross_entropy", device=settings.device, seed=0)
    watch, processes = Watch(), Timed()
    trainer = Trainer(
        network,
        batch_size=settings.batch_size,
        epochs=100_000,
        communicator=processes,
        shards=max(8, processes.size),
        callbacks=[watch],
    )
    trainer.fit(X, y)
    if processes.rank > 0:  # callbacks are called in rank 0 alone
        return Timing(0.0, 0.0)
    updates = np.diff(watch.ends)[2:]
    return Timing(float(median(updates)), float(median(processes.took[3:])) if processes.size > 1 else 0.0)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    found = _measure(Settings(**{**given, "layer_sizes": tuple(given["layer_sizes"])}))
    if found.update:
        print(json.dumps(found))
