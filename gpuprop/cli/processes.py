"""A command in several processes: ``mpirun -n 4 gpuprop train ...``. Rank 0 alone prints and writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuprop.cli.runs import Run
    from gpuprop.core.communicator import Communicator

__all__ = [
    "COMMUNICATORS",
    "complain",
    "follow_along",
    "processes_of",
    "quiet_but_for_rank_0",
    "started_by_mpirun",
]

#: The launchers of MPICH, Open MPI and PMIx tell each process its number by these.
_RANK_VARIABLES = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")

COMMUNICATORS = ("auto", "mpi", "none")
"""The values of ``--communicator``."""


def started_by_mpirun() -> bool:
    """Return whether a launcher of MPI has started this process."""
    return any(name in os.environ for name in _RANK_VARIABLES)


def _rank_by_launcher() -> int:
    found = next((os.environ[name] for name in _RANK_VARIABLES if name in os.environ), "0")
    return int(found) if found.isdigit() else 0


def processes_of(option: str) -> Communicator | None:
    """Return the processes that a command shares its training with, or None if it trains alone.

    Raises
    ------
    ValueError
        If the option has another value.
    CommunicatorError
        If ``mpirun`` has started the command and mpi4py is missing.
    """
    from gpuprop.errors import unknown_name
    from gpuprop.training.mpi import communicator_of

    if option not in COMMUNICATORS:
        raise unknown_name("communicator", option, COMMUNICATORS)
    shared = option == "mpi" or (option == "auto" and started_by_mpirun())
    return communicator_of("mpi" if shared else None)


@contextmanager
def quiet_but_for_rank_0(communicator: Communicator | None) -> Iterator[None]:
    """Let no process but that of rank 0 print results."""
    if communicator is None or communicator.rank == 0:
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def follow_along(run: Run) -> None:
    """Train in a process that is not of rank 0, which writes nothing.

    Raises
    ------
    KeyboardInterrupt, TrainingEnded
        If a signal has ended the training.
    """
    from gpuprop.training.signals import watching_signals

    with watching_signals():
        stopped = run.fit(None, ())
    if stopped is not None:
        raise stopped


def complain(line: str, *, everywhere: bool) -> None:
    """Print the last line of a command that has failed; of several processes that say the same, one prints it.

    Parameters
    ----------
    line : str
    everywhere : bool
        Whether every process ends for the same reason, so that nobody has to be told.
    """
    from gpuprop.errors import GpupropError
    from gpuprop.training.mpi import joined

    communicator = joined()
    if communicator is None:
        if _rank_by_launcher() == 0:
            print(line, file=sys.stderr, flush=True)
        return
    if not everywhere:
        communicator.fail(GpupropError(line))
    words = communicator.farewell(line)
    if words is None:  # some process has died
        words = [""] * communicator.size
        words[communicator.rank] = line
    elif communicator.rank > 0:
        communicator.farewell("")  # until rank 0 has printed
        return
    said = dict.fromkeys([words[0], *words])
    for text in filter(None, said):
        if text != words[0] and words[0] and words[0] in text:  # it ends because rank 0 does
            continue
        prefix = "" if text == words[0] else f"rank {words.index(text)}: "
        print(f"{prefix}{text}", file=sys.stderr, flush=True)
    if said and communicator.rank == 0:
        communicator.farewell("")
