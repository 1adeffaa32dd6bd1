"""Threads that make each update together: who does what, and how they wait for one another.

An update has three parts, and everybody has done his share of one before anybody begins the next (`meet`):

    rows gathered, weights transposed | outputs, losses and deltas of rows | gradients and updates of weights

Rows are shared in whole tiles, weights in whole pieces, and sums over either are added in one order afterwards. So the
results are the same bits whatever the number of threads, which may then be chosen by a clock.

Waiting is bounded: a thread looks for some tens of microseconds, as long as its processor would take to change to
another thread, and then sleeps between looks.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from gpuprop.backends.cpu.compiling import joined, spliced

__all__ = ["CAN_WAIT", "Team", "meet", "share", "team_of", "together"]

Array = NDArray[Any]

#: Numbers from one thread's count to the next: each is in a line of the cache of its own.
_APART = 16
#: Looks before the first sleep; each takes 40 to 140 cycles.
_LOOKS = 1_000
#: Microseconds of a sleep.
_SLEEP = 50

# What tells a core that a thread only waits, as functions of LLVM and their arguments.
_X86_PAUSE, _ARM_PAUSE = ("llvm.x86.sse2.pause", ()), ("llvm.aarch64.hint", (1,))
_PAUSE = {"x86_64": _X86_PAUSE, "amd64": _X86_PAUSE, "aarch64": _ARM_PAUSE, "arm64": _ARM_PAUSE}.get(
    platform.machine().lower()
)

CAN_WAIT = llvm.address_of_symbol("usleep") is not None
"""Whether compiled code can sleep here; elsewhere (Windows) a team is one thread."""


class Team(NamedTuple):
    """One of several threads, from 0, and how often each of them has arrived at a `meet`.

    Behind the counts is a number that is not zero when one of them has failed.
    """

    thread: int
    n_threads: int
    arrived: Array


def team_of(n_threads: int) -> list[Team]:
    """Return what each of so many threads is to know."""
    arrived = np.zeros((n_threads + 1) * _APART, np.int64)
    return [Team(thread, n_threads, arrived) for thread in range(n_threads)]


def together(call: Callable[[Team], None], teams: list[Team]) -> None:
    """Call a function once for each member of a team, at the same time; the first call is made by this thread.

    An exception of one of them is raised here when all have ended; the others do not wait for one that has failed.
    """
    failures: list[BaseException] = []
    arrived = teams[0].arrived
    arrived[...] = 0

    def guarded(team: Team) -> None:
        try:
            call(team)
        except BaseException as failure:
            failures.append(failure)
            arrived[-_APART] = 1

    helpers = [threading.Thread(target=guarded, args=(team,), daemon=True) for team in teams[1:]]
    try:
        for helper in helpers:
            helper.start()
        guarded(teams[0])
    except BaseException:  # no thread can be started: those that were must not wait for it
        arrived[-_APART] = 1
        raise
    finally:
        for helper in helpers:
            if helper.ident is not None:
                helper.join()
    if failures:
        raise failures[0]


@spliced
def share(n: int, team: Team) -> tuple[int, int]:
    """Return the first of `n` things that are this thread's, and the first that is not."""
    return n * team.thread // team.n_threads, n * (team.thread + 1) // team.n_threads


@spliced
def meet(team: Team) -> None:
    """Wait until all threads have come here as often as this one."""
    if team.n_threads > 1:
        _meet(team.thread, team.n_threads, team.arrived)


@joined
def _meet(thread: int, n_threads: int, arrived: Array) -> None:
    count = _read(arrived, thread * _APART) + 1
    _write(arrived, thread * _APART, count)
    for other in range(n_threads):
        looks = 0
        while _read(arrived, other * _APART) < count and _read(arrived, n_threads * _APART) == 0:
            looks += 1
            if looks < _LOOKS:
                _pause()
            else:
                _sleep()


@intrinsic
def _read(context, array, place):  # type: ignore[no-untyped-def]
    """Read a count that another thread may be writing; what was written before it is then seen too."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.load_atomic(builder.gep(whole.data, [arguments[1]]), "acquire", 8)

    return types.int64(array, types.intp), build


@intrinsic
def _write(context, array, place, count):  # type: ignore[no-untyped-def]
    """Write a count after everything that was written before."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole = context.make_array(signature.args[0])(context, builder, arguments[0])
        builder.store_atomic(arguments[2], builder.gep(whole.data, [arguments[1]]), "release", 8)
        return context.get_dummy_value()

    return types.none(array, types.intp, types.int64), build


@intrinsic
def _pause(context):  # type: ignore[no-untyped-def]
    """Leave the core to its other thread for a moment."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _PAUSE is not None:
            name, numbers = _PAUSE
            kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)] * len(numbers))
            function = cgutils.get_or_insert_function(builder.module, kind, name)
            builder.call(function, [ir.IntType(32)(number) for number in numbers])
        return context.get_dummy_value()

    return types.none(), build


@intrinsic
def _sleep(context):  # type: ignore[no-untyped-def]
    """Leave the processor to others."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = ir.IntType(32)
        if CAN_WAIT:
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(number, [number]), "usleep")
            builder.call(function, [number(_SLEEP)])
        return context.get_dummy_value()

    return types.none(), build
