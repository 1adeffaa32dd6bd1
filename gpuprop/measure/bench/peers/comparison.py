"""Contenders take turns: updates, predictions, time to an accuracy, start, memory, size on the disk.

Each function returns the entries of a report. It raises `GpupropError` if contenders do not compute the same numbers.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from itertools import product
from pathlib import Path
from typing import Any

from gpuprop.errors import GpupropError
from gpuprop.measure.bench.peers import inference as predictions
from gpuprop.measure.bench.peers.configs import CONFIGS
from gpuprop.measure.bench.peers.libraries import LIBRARIES
from gpuprop.measure.bench.timing import Worker, take_turns

__all__ = [
    "SUBJECTS",
    "Choice",
    "accuracy",
    "calls",
    "inference",
    "install",
    "measure",
    "memory",
    "refuse_different_losses",
    "start",
    "training",
]

Entry = dict[str, Any]

WHOLE_TRAININGS = ("gpuprop", "sklearn", "torch", "torch-fused", "jax")


def training(contenders: Sequence[str], name: str, threads: int, rounds: int) -> list[Entry]:
    """Time an update of config `name`, averaged over epochs; raise if the loss of a contender differs."""
    able = [c for c in contenders if c != "gpuprop-estimator"]
    with _workers("training", able, name, threads) as workers:
        refuse_different_losses(workers, "numpy", CONFIGS[name].tolerance)
        timings = take_turns(workers, rounds)
    steps = CONFIGS[name].steps
    return [
        {
            "subject": "training",
            "config": name,
            "threads": threads,
            "contender": worker.name,
            "loss": worker.info["loss"],
            "microseconds": 1e6 * timings[worker.name].median / steps,
            "best": 1e6 * timings[worker.name].best / steps,
        }
        for worker in workers
    ]


def refuse_different_losses(workers: Sequence[Worker], reference: str, tolerance: float) -> None:
    """Raise unless every contender has the loss of the reference after one epoch, to a relative tolerance."""
    losses = {worker.name: float(worker.info["loss"]) for worker in workers if worker.info["loss"] is not None}
    expected = losses.get(reference, next(iter(losses.values())))
    for name, loss in losses.items():
        if not abs(loss - expected) <= tolerance * expected:
            raise GpupropError(
                f"{name} has loss {loss:.5f} after one epoch where {reference} has {expected:.5f}: these are not the "
                "same trainings, and their times are not compared"
            )


def calls(contenders: Sequence[str], name: str, threads: int, rounds: int) -> list[Entry]:
    """Time an update of config `name` by each way to ask for an epoch, in one process."""
    command = [sys.executable, "-m", "gpuprop.measure.bench.peers.calls", name, str(rounds)]
    return [
        {
            "subject": "calls",
            "config": name,
            "threads": threads,
            "contender": found["contender"],
            "call": found["call"],
            "microseconds": statistics.median(found["turns"]),
            "best": min(found["turns"]),
        }
        for found in json.loads(_ended(command, "calls", environment(threads)))
        if found["contender"] in contenders
    ]


def inference(contenders: Sequence[str], name: str, threads: int, rounds: int) -> list[Entry]:
    """Time the probabilities of the network of config `name` for every kind of inputs; raise if they are wrong."""
    entries = []
    with _workers("inference", [c for c in contenders if c in predictions.PREDICTORS], name, threads) as workers:
        for dtype, inputs, n_rows in predictions.cases():
            case = {"dtype": dtype, "inputs": inputs, "n_rows": n_rows}
            able = predictions.able([worker.name for worker in workers], dtype, inputs)
            chosen = [worker for worker in workers if worker.name in able]
            for worker in chosen:
                error = worker.ask("error", **case)
                if not error < 1e-4:
                    raise GpupropError(f"{worker.name}: its probabilities are off by {error:.1e}")
            timings = take_turns(chosen, rounds, predictions.TURN, **case)
            entries += [
                {
                    "subject": "inference",
                    "config": name,
                    "threads": threads,
                    "dtype": dtype,
                    "inputs": inputs,
                    "rows": n_rows,
                    "contender": worker.name,
                    "microseconds": 1e6 * timings[worker.name].median,
                }
                for worker in chosen
            ]
    return entries


def accuracy(contenders: Sequence[str], tell: Callable[[str], None]) -> list[Entry]:
    """Time config a on all of MNIST until the test accuracies are reached, five seeds, on one thread."""
    from gpuprop.measure.bench.peers.worker import MOST_EPOCHS, TARGETS

    entries = []
    for contender in (c for c in contenders if c in WHOLE_TRAININGS):
        tell(contender)
        seeds = [json.loads(line)["reached"] for line in _output("accuracy", contender).splitlines()]
        for index, target in enumerate(TARGETS):
            found = [reached[index] for reached in seeds]
            reached = [pair for pair in found if pair]
            entries.append(
                {
                    "subject": "accuracy",
                    "contender": contender,
                    "target": target,
                    "seeds": len(found),
                    "reached": len(reached),
                    "most_epochs": MOST_EPOCHS,
                    "seconds": statistics.median(pair[0] for pair in reached) if reached else None,
                    "epochs": statistics.median(pair[1] for pair in reached) if reached else None,
                }
            )
    return entries


def start(contenders: Sequence[str], rounds: int) -> list[Entry]:
    """Time ``import``, and a whole process that trains config a for one short epoch, with what is cached on disk."""
    names = [c for c in contenders if c in LIBRARIES]
    commands = {c: [sys.executable, "-c", f"import {', '.join(LIBRARIES[c])}"] for c in names}
    epochs = {c: _command("start", c) for c in names}
    seconds: dict[str, tuple[list[float], list[float]]] = {c: ([], []) for c in names}
    for turn in range(rounds + 1):
        for name in names:
            took = [_seconds(command) for command in (commands[name], epochs[name])]
            if turn:  # the first turn warms the disk's cache, and compiles what stays on disk
                for kept, one in zip(seconds[name], took, strict=True):
                    kept.append(one)
    return [
        {
            "subject": "start",
            "contender": name,
            "import_seconds": statistics.median(imports),
            "first_epoch_seconds": statistics.median(whole),
        }
        for name, (imports, whole) in seconds.items()
    ]


def memory(contenders: Sequence[str]) -> list[Entry]:
    """Read the peak memory of two epochs of config a on all of MNIST; gpuprop takes bytes, the others float32."""
    return [
        {"subject": "memory", "contender": contender, **json.loads(_output("memory", contender))}
        for contender in contenders
        if contender in WHOLE_TRAININGS
    ]


def install(contenders: Sequence[str]) -> list[Entry]:
    """Add up the files of each library and of everything it requires, without Python's compiled copies."""
    distributions = {"sklearn": ["scikit-learn"], "jax": ["jax", "optax"]}
    return [
        {"subject": "install", "contender": name, "bytes": _installed_size(distributions.get(name, [name]))}
        for name in contenders
        if name in LIBRARIES
    ]


#: Each subject that can be measured, and what the command calls it.
SUBJECTS = {
    "training": "microseconds an update",
    "inference": "1 to 10,000 rows, in every layout",
    "calls": "an epoch by partial_fit and its like, beside one within a long fit",
    "accuracy": "seconds to 97.5 and 98 % on MNIST, five seeds",
    "start": "import, and a process to the end of its first epoch",
    "memory": "peak of a training on MNIST",
    "install": "size on the disk with all requirements",
}


@dataclass(frozen=True)
class Choice:
    """The comparisons that are wanted.

    Attributes
    ----------
    contenders, configs, subjects : sequence of str
    threads : sequence of int or None
        Numbers of threads of every contender; None stands for all that were measured.
    """

    contenders: Sequence[str]
    configs: Sequence[str]
    subjects: Sequence[str]
    threads: Sequence[int] | None

    def has(self, entry: Entry) -> bool:
        """Return whether an entry of a report is wanted; not every subject has configs or numbers of threads."""
        return (
            entry["contender"] in self.contenders
            and entry["subject"] in self.subjects
            and ("config" not in entry or entry["config"] in self.configs)
            and (self.threads is None or "threads" not in entry or entry["threads"] in self.threads)
        )


def measure(chosen: Choice, rounds: int, tell: Callable[[str], None]) -> tuple[list[Entry], list[str]]:
    """Make the comparisons, trainings first.

    Parameters
    ----------
    chosen : Choice
        With numbers of threads.
    rounds : int
        Turns of each contender.
    tell : callable
        It gets a line before each comparison, and one after a comparison that was refused.

    Returns
    -------
    entries : list of dict
    refused : list of str
        A line for each comparison whose contenders do not compute the same numbers.
    """
    functions: dict[str, Callable[[], list[Entry]]] = {}
    for subject, compare in (("training", training), ("calls", calls), ("inference", inference)):
        names = [name for name in chosen.configs if subject != "inference" or name in "abcd"]
        for name, count in product(names if subject in chosen.subjects else (), chosen.threads or [1]):
            threads = f"{count} thread{'s' if count > 1 else ''}"
            training_of = f"{name}: {CONFIGS[name]}, {threads}"
            what = training_of if subject == "training" else f"{subject}, {name}, {threads}: {SUBJECTS[subject]}"
            functions[what] = partial(compare, chosen.contenders, name, count, rounds)
    others: dict[str, Callable[[], list[Entry]]] = {
        "accuracy": lambda: accuracy(chosen.contenders, lambda name: tell(f"    {name}")),
        "start": lambda: start(chosen.contenders, min(rounds, 5)),
        "memory": lambda: memory(chosen.contenders),
        "install": lambda: install(chosen.contenders),
    }
    functions |= {
        f"{subject}: {SUBJECTS[subject]}": others[subject] for subject in chosen.subjects if subject in others
    }
    entries: list[Entry] = []
    refused: list[str] = []
    for what, function in functions.items():
        tell(f"  {what} ...")
        try:
            entries += function()
        except GpupropError as error:
            refused.append(f"{what}: {error}")
            tell(f"  refused: {error}")
    return entries, refused


# --- processes -------------------------------------------------------------------------------------------------------


def _command(what: str, contender: str, config: str = "a") -> list[str]:
    return [sys.executable, "-m", "gpuprop.measure.bench.peers.worker", what, contender, config]


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a contender: a fixed number of threads, and BLAS's own choice of kernels."""
    count = str(threads)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS")}
    variables |= {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    if threads == 1:
        variables["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        variables["NPROC"] = "1"
    return variables


@contextmanager
def _workers(what: str, contenders: Sequence[str], config: str, threads: int) -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    try:
        for contender in contenders:
            worker = Worker(contender, _command(what, contender, config), environment(threads))
            workers.append(worker)  # one by one, so that those that have started are ended even if the next one fails
        yield workers
    finally:
        for worker in workers:
            worker.close()


def _output(what: str, contender: str) -> str:
    return _ended(_command(what, contender), contender, environment(1))


def _ended(command: Sequence[str], name: str, variables: dict[str, str]) -> str:
    """Run a process to its end, and return what it has printed."""
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise GpupropError(f"{name}: the process ended with code {done.returncode}: {last}")
    return done.stdout


def _seconds(command: Sequence[str]) -> float:
    begin = time.perf_counter()
    done = subprocess.run(command, env=environment(1), capture_output=True, text=True, check=False)
    if done.returncode:
        raise GpupropError(f"{' '.join(command[1:])}: {(done.stderr.strip().splitlines() or ['it failed'])[-1]}")
    return time.perf_counter() - begin


# --- size on the disk ------------------------------------------------------------------------------------------------


def _installed_size(names: Sequence[str]) -> int:
    """Return the bytes of these distributions and of all their requirements that are installed."""
    pending, seen, size = list(names), set(), 0
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            if name in names:
                raise GpupropError(f"{name} is not installed as a package, so its size is not known") from None
            continue  # required on other platforms only
        size += _gpuprop_size() if name == "gpuprop" else _size_of_files(distribution)
        wanted = [text for text in distribution.requires or [] if "extra ==" not in text]
        pending += [match[0] for text in wanted if (match := re.match(r"[\w.-]+", text))]
    return size


def _size_of_files(distribution: metadata.Distribution) -> int:
    paths = [Path(str(path.locate())) for path in distribution.files or []]
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file())


def _gpuprop_size() -> int:
    """Return the bytes of this package's own folders, which an editable installation does not list."""
    folders = [Path(spec.origin).parent for name in ("gpuprop", "gpuprop_kernels")
               if (spec := util.find_spec(name)) and spec.origin]  # fmt: skip
    return sum(p.stat().st_size for folder in folders for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc")
