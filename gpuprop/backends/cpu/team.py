"""Threads that make each update together: who does what, and how they wait for one another.

An update has three parts. All threads finish their share of a part before any thread begins the next one (`meet`):

    rows gathered, weights transposed | outputs, losses and deltas of rows | gradients and updates of weights

The threads share rows in whole tiles and weights in whole pieces, and sums over either are added in one fixed order
afterwards. So the results are bit for bit the same with any number of threads, and the number may be chosen by timing.

A waiting thread spins for some tens of microseconds, about as long as its processor would take to switch to another
thread, and then sleeps between looks.
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
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import NDArray

from gpuprop.backends.cpu.compiling import joined, spliced

__all__ = ["CAN_WAIT", "Team", "meet", "share", "team_of", "together"]

Array = NDArray[Any]

#: The counts of two threads are this many numbers apart, so that each has a cache line of its own.
_APART = 16
#: How often a waiting thread looks before its first sleep; a look takes some ten cycles. A sleep takes a hundred
#: microseconds and more, a quarter of an update of 784-128-10: with 10,000 looks two threads took 590 microseconds for
#: it on an EPYC with AVX2, where one takes 435; with 60,000 they take 260.
_LOOKS = 60_000
#: Every so many looks the thread tells its core that it only waits. A hypervisor takes the processor from a thread that
#: says so all the time: with two threads a product of 200 microseconds took 300.
_LOOKS_APART = 64
#: The length of a sleep in microseconds.
_SLEEP = 50

# The instruction that tells a core that its thread is only waiting: LLVM's name for it, and its arguments.
_X86_PAUSE, _ARM_PAUSE = ("llvm.x86.sse2.pause", ()), ("llvm.aarch64.hint", (1,))
_PAUSE = {"x86_64": _X86_PAUSE, "amd64": _X86_PAUSE, "aarch64": _ARM_PAUSE, "arm64": _ARM_PAUSE}.get(
    platform.machine().lower()
)

# LLVM knows the symbols of this process once Numba has prepared to compile for it.
_ = cpu_target.target_context
CAN_WAIT = llvm.address_of_symbol("usleep") is not None
"""Whether compiled code can sleep on this system. Where it cannot (Windows), a team has one thread."""


class Team(NamedTuple):
    """One thread of a team (`thread` counts from 0), and how often each thread has arrived at a `meet`.

    The last number of `arrived`, behind the counts, is not zero if a thread has failed.
    """

    thread: int
    n_threads: int
    arrived: Array


def team_of(n_threads: int) -> list[Team]:
    """Return the members of a team of `n_threads` threads."""
    arrived = np.zeros((n_threads + 1) * _APART, np.int64)
    return [Team(thread, n_threads, arrived) for thread in range(n_threads)]


def together(call: Callable[[Team], None], teams: list[Team]) -> None:
    """Call a function once for each member of a team, at the same time; this thread makes the first call.

    If a member raises an exception, the others stop waiting for it, and it is raised here when all have ended.
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
    except BaseException:  # a thread could not be started; those that were must not wait for it
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
    """Return this thread's share of `n` things: the index of its first, and the index behind its last."""
    return n * team.thread // team.n_threads, n * (team.thread + 1) // team.n_threads


@spliced
def meet(team: Team) -> None:
    """Wait until all threads have arrived here as often as this one."""
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
            if looks >= _LOOKS:
                _sleep()
            elif looks % _LOOKS_APART == 0:
                _pause()


@intrinsic
def _read(context, array, place):  # type: ignore[no-untyped-def]
    """Read a count that another thread may be writing; everything written before that count is then visible too."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.load_atomic(builder.gep(whole.data, [arguments[1]]), "acquire", 8)

    return types.int64(array, types.intp), build


@intrinsic
def _write(context, array, place, count):  # type: ignore[no-untyped-def]
    """Write a count; a thread that reads it also sees everything that this thread wrote before."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole = context.make_array(signature.args[0])(context, builder, arguments[0])
        builder.store_atomic(arguments[2], builder.gep(whole.data, [arguments[1]]), "release", 8)
        return context.get_dummy_value()

    return types.none(array, types.intp, types.int64), build


@intrinsic
def _pause(context):  # type: ignore[no-untyped-def]
    """Let the core's other hardware thread run for a moment."""

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
    """Give the processor to other threads for `_SLEEP` microseconds."""

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = ir.IntType(32)
        if CAN_WAIT:
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(number, [number]), "usleep")
            builder.call(function, [number(_SLEEP)])
        return context.get_dummy_value()

    return types.none(), build
