"""Timing programs against each other on a machine that is not quiet: warm processes that take turns.

Each contender is a process of its own, started once and warmed up. It reads requests from its standard input and
answers with lines of JSON. The contenders take turns, A B C A B C, so that other work on the machine slows all of them
down. Reports show the median, the best turn, and ratios of medians of the same run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, cast

from gpuprop.errors import GpupropError

__all__ = ["Timings", "Worker", "serve", "take_turns"]

#: Seconds that one turn should usually take: long compared with the grain of the clock and of the scheduler.
TURN = 0.25


class Worker:
    """A contender in a warm process.

    Parameters
    ----------
    name : str
    command : sequence of str
        Starts the process; it calls `serve`.
    environment : mapping of str to str

    Raises
    ------
    GpupropError
        If the process ends before it is ready; the message quotes the last line of its standard error.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(environment),
        )
        # Both are pipes, as asked for above.
        self._requests = cast("IO[str]", self._process.stdin)
        self._answers = cast("IO[str]", self._process.stdout)
        self.info = self._answer()

    def ask(self, request: str, **arguments: Any) -> Any:
        """Send a request and return the answer."""
        self._requests.write(json.dumps({"request": request, **arguments}) + "\n")
        self._requests.flush()
        return self._answer()

    def _answer(self) -> Any:
        line = self._answers.readline()
        if not line:
            _, errors = self._process.communicate()
            last = (errors.strip().splitlines() or ["it said nothing"])[-1]
            raise GpupropError(f"{self.name}: the process ended with code {self._process.returncode}: {last}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve(info: Any, answers: Mapping[str, Callable[..., Any]]) -> None:
    """Be a worker: write `info`, then answer requests by name until the standard input ends."""
    print(json.dumps(info), flush=True)
    for line in sys.stdin:
        arguments = json.loads(line)
        print(json.dumps(answers[arguments.pop("request")](**arguments)), flush=True)


@dataclass
class Timings:
    """Seconds of one contender, one number a turn.

    Attributes
    ----------
    seconds : list of float
        Of one unit of work, e.g. an epoch.
    """

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median turn."""
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        """The fastest turn, the one that other work on the machine disturbed least."""
        return min(self.seconds)


def take_turns(workers: Sequence[Worker], rounds: int, turn: float = TURN, **arguments: Any) -> dict[str, Timings]:
    """Time all workers `rounds` times each, alternating.

    A worker answers the request ``run``, which has ``units`` and further `arguments`, with the seconds that a unit
    took. The number of units in a turn, which takes about `turn` seconds, is found first.
    """
    units = {}
    for worker in workers:
        seconds = worker.ask("run", units=1, **arguments)  # warm-up
        seconds = worker.ask("run", units=max(1, min(10, round(turn / max(seconds, 1e-4)))), **arguments)
        units[worker.name] = max(1, round(turn / max(seconds, 1e-5)))
    timings = {worker.name: Timings() for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            timings[worker.name].seconds.append(worker.ask("run", units=units[worker.name], **arguments))
    return timings
