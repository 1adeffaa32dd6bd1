"""gpuprop on the CPU against its peers: the same network, data, order and initial weights, microseconds a step.

    gpuprop bench peers                       # all configs, all contenders that are installed
    gpuprop bench peers --quick               # fewer rounds and configs, within five minutes
    gpuprop bench peers a e1 --contenders gpuprop,jax --threads 1 --json FILE

Contenders: gpuprop (device "cpu"), gpuprop-dense (zeros of the inputs not skipped), gpuprop-steps (one primitive at a
time), gpuprop-numpy (device "numpy"), numpy (a straightforward script), sklearn, torch, torch-fused (fused optimizer),
jax (scan over the epoch), and floor: no training, but its dense multiplications at the speed of the register tile.
All in float32. Every contender trains from the same weights through the same batches, and its loss after an epoch must
be that of the plain script to one part in a hundred, or the comparison is refused.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gpuprop.bench.contenders import CONFIGS, CONTENDERS, NEEDS, Config, cross_entropy, load
from gpuprop.bench.timing import Worker, serve, take_turns
from gpuprop.errors import GpupropError

__all__ = ["main", "refuse_different_losses"]


# --- the comparison --------------------------------------------------------------------------------------------------


def work(name: str, config: Config) -> None:
    """Be the process of one contender; its first epoch is judged, and what follows is timed."""
    X, y = load(config)
    contender = CONTENDERS[name](config, X, y)
    contender.epochs(1)
    layers = contender.layers()
    loss = cross_entropy(config, layers, X, y) if layers else None
    serve({"loss": loss}, {"run": lambda units: contender.epochs(units)})


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a contender: a fixed number of threads, and BLAS's own choice of kernels."""
    count = str(threads)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS")}
    variables |= {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    if threads == 1:
        variables["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        variables["NPROC"] = "1"
    return variables


def refuse_different_losses(workers: list[Worker], reference: str) -> None:
    """Raise unless every contender has the loss of the reference after one epoch, to three parts in a thousand."""
    losses = {worker.name: float(worker.info["loss"]) for worker in workers if worker.info["loss"] is not None}
    expected = losses.get(reference, next(iter(losses.values())))
    for name, loss in losses.items():
        if not abs(loss - expected) <= 0.003 * expected:
            raise GpupropError(
                f"{name} has loss {loss:.5f} after one epoch where {reference} has {expected:.5f}: these are not the "
                "same trainings, and their times are not compared"
            )


def compare(name: str, contenders: list[str], rounds: int, threads: int) -> dict[str, Any]:
    """Time the contenders on one config and print its table."""
    config = CONFIGS[name]
    workers: list[Worker] = []
    try:
        for contender in contenders:
            command = [sys.executable, "-m", "gpuprop.bench.peers", "--worker", contender, name]
            workers.append(Worker(contender, command, environment(threads)))
        refuse_different_losses(workers, "numpy")
        timings = take_turns(workers, rounds)
    finally:
        for worker in workers:
            worker.close()
    own = timings[contenders[0]].median
    threads_text = f"{threads} thread{'s' if threads > 1 else ''}"
    print(f"\n{name}: {'-'.join(map(str, config.sizes))} {config.activation} {config.optimizer}, "
          f"batch {config.batch_size}, {threads_text}, {rounds} rounds")  # fmt: skip
    print(f"{'':14} {'us/step':>10} {'best':>10} {'ratio to ' + contenders[0]:>18}   loss")
    rows = {}
    for worker in workers:
        timing, loss = timings[worker.name], worker.info["loss"]
        median, best = (1e6 * seconds / config.steps for seconds in (timing.median, timing.best))
        print(f"{worker.name:14} {median:10.1f} {best:10.1f} {timing.median / own:18.2f}   {loss or 0:.5f}", flush=True)
        rows[worker.name] = {"microseconds": median, "best": best, "ratio": timing.median / own, "loss": loss}
    return {"config": asdict(config), "threads": threads, "rounds": rounds, "contenders": rows}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments (None: of the command line), and compare."""
    parser = argparse.ArgumentParser(
        prog="gpuprop bench peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="*", choices=[[], *CONFIGS], help=f"of {', '.join(CONFIGS)}; default all")
    parser.add_argument("--contenders", help="comma-separated; the first is what the others are compared with")
    parser.add_argument("--rounds", type=int, default=11, help="turns of each contender (11)")
    parser.add_argument("--threads", type=int, default=1, help="threads of every contender (1)")
    parser.add_argument("--quick", action="store_true", help="5 rounds of a, c, e1 and e32")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--worker", nargs=2, metavar=("CONTENDER", "CONFIG"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.worker[0], CONFIGS[options.worker[1]])
        return
    installed = [name for name in CONTENDERS if importlib.util.find_spec(NEEDS.get(name, "numpy"))]
    contenders = options.contenders.split(",") if options.contenders else installed
    unknown = sorted(set(contenders) - set(CONTENDERS))
    if unknown:
        parser.error(f"unknown contender {unknown[0]!r} (known: {', '.join(CONTENDERS)})")
    configs = options.configs or (["a", "c", "e1", "e32"] if options.quick else list(CONFIGS))
    rounds = 5 if options.quick else options.rounds
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, NumPy {np.__version__}; "
          f"missing: {', '.join(sorted(set(CONTENDERS) - set(installed))) or 'nobody'}")  # fmt: skip
    results = {}
    for name in configs:
        small = CONFIGS[name].sizes[0] == 64
        chosen = [c for c in contenders if small or c != "gpuprop-steps" or options.contenders]
        try:
            results[name] = compare(name, chosen, rounds, options.threads)
        except GpupropError as error:
            print(f"\n{name}: refused: {error}", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
