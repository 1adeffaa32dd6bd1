"""Trainings of several processes of which one is killed again and again, compared with one that was left alone.

Run it from the root of a checkout::

    python tests/mpi_harness.py --kills 20

``kill -9`` ends a process at a random moment: each rank of two processes and of four in turn, rank 0 too. The launcher
is told to leave the others alone, so that they have to find out by themselves: they must end within the time-out. The
newest checkpoint must be readable, and the next number of processes goes on from it. At the end parameters and history
must have the bits of a training that nobody has killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

WORKER = Path(__file__).resolve().parent / "mpi_worker.py"
TIMEOUT = 5.0
"""Seconds after which a process gives up waiting for the others."""
_GRACE = 60.0
"""Seconds that a busy machine may take beyond that."""


def mpirun() -> str | None:
    """Return the mpirun of this environment, or of the machine."""
    beside = Path(sys.executable).parent / "mpirun"
    return str(beside) if beside.exists() else shutil.which("mpirun")


def command(n: int, *arguments: str, alone: bool = False) -> list[str]:
    """Return the command line of `n` processes of a Python program; `alone` has the launcher end none of them."""
    launcher = mpirun()
    assert launcher is not None, "the caller has looked"
    return [launcher, *(["-disable-auto-cleanup"] if alone else []), "-n", str(n), sys.executable, *arguments]


def environment(timeout: float = 300.0) -> dict[str, str]:
    """Return the environment of processes that share the processors of this machine."""
    # Without its bytecode each process would parse the same sources anew.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return inherited | {"GPUPROP_MPI_TIMEOUT": str(timeout), "OPENBLAS_NUM_THREADS": "1"}


def undisturbed(folder: Path) -> str:
    """Return the digest of a training of one process."""
    folder.mkdir()
    done = command(1, str(WORKER), "killed", str(folder))
    subprocess.run(done, check=True, env=environment(), capture_output=True)
    return str(json.loads((folder / "done.json").read_text())["digest"])


#: How many processes train, and the rank of the one that is killed: neighbours differ in both.
TURNS = ((2, 0), (4, 1), (2, 1), (4, 0), (4, 2), (4, 3))


def one_kill(folder: Path, turn: tuple[int, int], rng: random.Random) -> bool:
    """Let some processes train, kill one, and wait until all have ended; return whether they were done before.

    Raises
    ------
    AssertionError
        If they do not end, or if the checkpoint cannot be read afterwards.
    """
    import gpuprop
    from gpuprop.training.checkpoint import newest

    n, rank = turn
    for left in folder.glob("*.pid"):
        left.unlink()
    arguments = command(n, str(WORKER), "killed", str(folder), alone=True)
    began = time.monotonic()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(arguments, env=environment(TIMEOUT), stdout=log, stderr=log, start_new_session=True)
    pid = folder / f"{rank}.pid"
    while not (pid.exists() and pid.read_text()) and process.poll() is None and time.monotonic() < began + _GRACE:
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 3.0))
    victims = [int(one.read_text() or 0) for one in folder.glob("*.pid")]
    with suppress(OSError):
        os.kill(int(pid.read_text()), signal.SIGKILL)
    # The launcher without clean-up waits for its processes, or not: what counts is that they have gone.
    deadline = time.monotonic() + TIMEOUT + _GRACE
    try:
        while any(_alive(one) for one in victims if one):
            assert time.monotonic() < deadline, f"processes hang after rank {rank} of {n} was killed"
            time.sleep(0.05)
    finally:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if (folder / "done.json").exists():
        return True
    if any((folder / "checkpoints").glob("checkpoint-*")):
        stored = newest(folder / "checkpoints")
        assert stored is not None, "a checkpoint that was there is gone"
        assert not stored.skipped, stored.skipped
        gpuprop.load(stored.path)
    return False


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def main(kills: int, seed: int) -> None:
    """Kill so many times, and compare each training that got to its end.

    Raises
    ------
    AssertionError
        If a training has other bits than the undisturbed one.
    """
    rng, made, trainings = random.Random(seed), 0, 0
    killed: Counter[tuple[int, int]] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        expected = undisturbed(Path(temporary) / "undisturbed")
        while made < kills or trainings == 0:
            folder = Path(temporary) / f"killed-{trainings}"
            folder.mkdir()
            while not (folder / "done.json").exists():
                turn = TURNS[made % len(TURNS)]
                was_killed = not one_kill(folder, turn, rng)
                made, killed[turn] = made + was_killed, killed[turn] + was_killed
                if made >= kills and not (folder / "done.json").exists():  # the rest is left alone
                    n = rng.choice((1, 2, 4))
                    last = command(n, str(WORKER), "killed", str(folder))
                    subprocess.run(last, check=True, env=environment(), capture_output=True)
            found = json.loads((folder / "done.json").read_text())["digest"]
            assert found == expected, f"training {trainings} has other bits than the undisturbed one"
            trainings += 1
    print("kills:", *(f"{count} x rank {rank} of {n}" for (n, rank), count in sorted(killed.items())), sep="\n  ")
    print(f"{made} kills in {trainings} trainings: all ended in time, and all have the bits of the undisturbed one")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    main(given.kills, given.seed)
