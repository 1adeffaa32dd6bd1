"""Trainings that are killed at random moments until they are done, compared with one that was left alone.

Run it from the root of a checkout::

    python tests/kill_harness.py --kills 1000
    python tests/kill_harness.py --kills 20 --mnist

A process trains digits in NumPy, or MNIST by the fused loops, with a checkpoint every few updates. It is ended again
and again: by SIGKILL, SIGTERM, SIGHUP, SIGUSR1 or SIGINT after a random time, by SIGSTOP and SIGKILL, or by itself in
the saving of a checkpoint: within a write, before or after a flush, a rename or a removal. Some of these calls fail as
on a full or a broken disk instead. Each time another process goes on from the folder, until the training is done. Model
and history must then have the bytes of an undisturbed run, a checkpoint that was there must be found again, and its
model must load.

The environment variable ``GPUPROP_TEST_FAULT`` says where saving ends: "CALL:NUMBER:WHAT", for the calls "write",
"fsync", "replace" and "unlink", and for what happens there "kill", "after" (kill after it), "ENOSPC" or "EIO". With
``GPUPROP_TEST_QUICK`` nothing is flushed to the disk, which only shows when the machine loses its power.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FAULT, QUICK = "GPUPROP_TEST_FAULT", "GPUPROP_TEST_QUICK"
CALLS, WHATS = ("write", "fsync", "replace", "unlink"), ("kill", "after", "ENOSPC", "EIO")
SIGNALS = ("KILL", "TERM", "HUP", "USR1", "INT", "STOP")
MODEL, HISTORY, CHECKPOINTS = "model.safetensors", "history.json", "checkpoints"
EVERY = 10
"""Updates between two checkpoints; on MNIST ten times as many."""
DIGITS, MNIST = (0, 1, 2), 3
"""The kinds of trainings."""


@dataclass
class Counts:
    """What the harness has seen."""

    trainings: int = 0
    kills: int = 0
    resumed: int = 0
    equal: int = 0
    lost: int = 0
    ends: dict[str, int] = field(default_factory=dict)


# --- the training ------------------------------------------------------------------------------------------------


def train(folder: Path, kind: int) -> None:
    """Train, from the newest checkpoint in the folder if there is one, and write model and history."""
    trainer, X, y = _mnist(folder) if kind == MNIST else _digits(folder, kind)
    trainer.fit(X, y, resume_from="auto")
    os.environ.pop(FAULT, None)
    history = {name: column for name, column in trainer.history.items() if name != "seconds"}
    trainer.network.save(folder / MODEL)
    beside = folder / f".{HISTORY}"
    beside.write_text(json.dumps(history))
    beside.replace(folder / HISTORY)


def _digits(folder: Path, kind: int) -> tuple[Any, Any, Any]:
    """Return one of three short trainings on digits, and its data."""
    import gpuprop

    data = gpuprop.datasets.load("digits")
    X, y = data.X[:600], data.y[:600]
    network = gpuprop.Network(
        (64, 16, 10), loss="categorical_cross_entropy", device="numpy", seed=kind, dropout=0.1 * (kind % 2)
    )
    options: list[dict[str, Any]] = [
        {"validation": 0.2, "early_stopping": 4, "schedule": "cosine"},
        {"optimizer": "momentum", "validation": 0.1, "keep_best": "validation_accuracy", "schedule": "adaptive"},
        {"scaling_layer": True, "weight_decay": 0.01, "callbacks": [gpuprop.callbacks.UnitActivity(X[:50])]},
    ]
    kept = gpuprop.Checkpoint(folder / CHECKPOINTS, f"{EVERY} updates")
    return gpuprop.Trainer(network, epochs=8, batch_size=32, checkpoint=kept, **options[kind]), X, y


def _mnist(folder: Path) -> tuple[Any, Any, Any]:
    """Return a training on MNIST by the fused loops, and its data."""
    import gpuprop

    data = gpuprop.datasets.load("mnist")
    scaling = gpuprop.InputScaling.divide(255)
    network = gpuprop.Network(
        (784, 64, 10), loss="categorical_cross_entropy", input_scaling=scaling, device="cpu", seed=0
    )
    kept = gpuprop.Checkpoint(folder / CHECKPOINTS, f"{10 * EVERY} updates")
    options: dict[str, Any] = {"validation": 0.1, "early_stopping": 2, "plan": "fused"}
    return gpuprop.Trainer(network, epochs=5, batch_size=128, checkpoint=kept, **options), data.X, data.y


# --- faults ------------------------------------------------------------------------------------------------------


class _Cut:
    """A file whose writes are made in two halves, with a fault point between them."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, content: bytes) -> int:
        half = len(content) // 2
        self._file.write(content[:half])
        self._file.flush()
        _at("write", lambda: None)
        return half + int(self._file.write(content[half:]))

    def __enter__(self) -> _Cut:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


#: Calls so far in this process; only the children of the harness have faults.
_seen: Counter[str] = Counter()


def _at(call: str, make: Any) -> Any:
    """Make a call, and do what the environment variable says of it."""
    _seen[call] += 1
    wanted, number, what = (os.environ.get(FAULT) or "none:0:none").split(":")
    here = wanted == call and int(number) == _seen[call]
    if here and what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if here and what in ("ENOSPC", "EIO"):
        raise OSError(getattr(errno, what), os.strerror(getattr(errno, what)))
    result = make()
    if here and what == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def install_faults() -> None:
    """Put fault points around the calls that change a folder."""
    fsync, replace, unlink, open_path = os.fsync, Path.replace, Path.unlink, Path.open

    def cut(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = open_path(self, mode, *arguments, **options)
        return _Cut(file) if "x" in mode or "w" in mode else file

    def flush(handle: int) -> None:
        _at("fsync", lambda: None if os.environ.get(QUICK) else fsync(handle))

    patched: Any = Path
    setattr(os, "fsync", flush)  # noqa: B010  # mypy takes an assignment for an error
    patched.replace = lambda self, target: _at("replace", lambda: replace(self, target))
    patched.unlink = lambda self, missing_ok=False: _at("unlink", lambda: unlink(self, missing_ok))
    patched.open = cut


# --- the harness -------------------------------------------------------------------------------------------------


def child(folder: Path, kind: int, fault: str) -> int:
    """Begin a training in a process of its own, and return the number of the process."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.environ[FAULT] = fault
        _seen.clear()
        sys.stderr = (folder / "stderr.txt").open("a")
        warnings.simplefilter("ignore")
        train(folder, kind)
        status = 0
    except KeyboardInterrupt:
        status = 130
    except BaseException as error:
        asked = getattr(error, "signal", None)
        status = 128 + asked if asked is not None else 1
        if asked is None:
            import traceback

            traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def end_at_random(process: int, rng: random.Random, longest: float) -> str:
    """Wait for a random time, end the process by a random signal, and return how it ended."""
    name = rng.choice(SIGNALS)
    time.sleep(rng.random() * longest)
    os.kill(process, getattr(signal, f"SIG{name}"))
    if name == "STOP":
        time.sleep(0.005)
        os.kill(process, signal.SIGKILL)
    return ended(process, name)


def ended(process: int, name: str) -> str:
    """Wait for a process, and return how it ended."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code == 1:
        return "error"
    return "done" if code == 0 else name


def check_folder(folder: Path, before: int) -> int:
    """Return how many updates the newest checkpoint stands for, and check that its model loads."""
    import gpuprop
    from gpuprop.training.checkpoint import newest

    found = newest(folder / CHECKPOINTS)
    if found is None:
        done = -1
    else:
        within = found.progress.within
        done = found.progress.steps_done + (0 if within is None else within.position)
        gpuprop.load(found.path)
    if done < before:
        raise AssertionError(f"{folder}: a checkpoint of update {before} was there, now it is {done}")
    return done


def kill_until_done(folder: Path, kind: int, rng: random.Random, longest: float, counts: Counts) -> None:
    """Kill a training until it is done."""
    done = -1
    while not (folder / HISTORY).exists():
        fault, name = "", ""
        if rng.random() < 0.4:
            fault = name = f"{rng.choice(CALLS)}:{rng.randint(1, 4)}:{rng.choice(WHATS)}"
        counts.resumed += done >= 0
        process = child(folder, kind, fault)
        end = ended(process, name) if fault else end_at_random(process, rng, longest)
        counts.kills += end not in ("done", "error")
        counts.ends[end] = counts.ends.get(end, 0) + 1
        if end == "error":
            raise AssertionError((folder / "stderr.txt").read_text())
        done = check_folder(folder, done)


def run_here(folder: Path, kills: int, seed: int, kinds: tuple[int, ...] = DIGITS) -> Counts:
    """Do as `run`, in this process, which should have one thread only: it forks."""
    rng, counts = random.Random(seed), Counts()
    expected: dict[int, list[bytes]] = {}
    longest = 0.0
    for kind in (kinds[0], *kinds):  # the first one also imports and compiles what all others need
        alone = folder / f"alone-{kind}"
        shutil.rmtree(alone, ignore_errors=True)
        alone.mkdir()
        began = time.monotonic()
        train(alone, kind)
        longest = max(longest, time.monotonic() - began) if expected else 0.0
        expected[kind] = [(alone / name).read_bytes() for name in (MODEL, HISTORY)]
    number = 0
    install_faults()
    while counts.kills < kills:
        own, kind = folder / f"killed-{number}", kinds[number % len(kinds)]
        own.mkdir()
        try:
            kill_until_done(own, kind, rng, longest, counts)
            equal = [(own / name).read_bytes() for name in (MODEL, HISTORY)] == expected[kind]
            if not equal:
                raise AssertionError(f"{own}: the files of training {number} are not those of an undisturbed one")
            counts.equal += 1
        except AssertionError as fault:
            print(fault, file=sys.stderr)
            counts.lost += 1
        counts.trainings += 1
        shutil.rmtree(own)
        number += 1
    return counts


def run(folder: Path, *, kills: int, seed: int) -> Counts:
    """Kill trainings in a folder until so many processes have been killed, and count what became of them.

    The harness is a process of its own, and nothing is flushed to the disk.
    """
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
    environment = {**os.environ, **threads, QUICK: "1"}
    command = [sys.executable, __file__, "--kills", str(kills), "--seed", str(seed), "--folder", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode not in (0, 1) or not done.stdout:
        raise AssertionError(done.stderr)
    counts = Counts(**json.loads(done.stdout))
    if counts.lost:
        print(done.stderr)
    return counts


def main() -> int:
    """Run the harness by itself."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=60, help="how many processes to kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to train; a temporary folder by default")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--mnist", action="store_true", help="train MNIST by the fused loops")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        kinds = (MNIST,) if given.mnist else DIGITS
        counts = run_here(given.folder or Path(temporary), given.kills, given.seed, kinds)
    print(json.dumps(asdict(counts), indent=None if given.json else 2))
    return 1 if counts.lost else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.exit(main())
