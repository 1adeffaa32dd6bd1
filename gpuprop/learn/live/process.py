"""Which process writes a run, and whether it still lives.

A process is known by its number and by the moment of its start, because the system gives numbers again. Both mean
something only in one boot of one machine, and there in one space of process numbers (a container has its own). A run
that was written elsewhere is judged by its heartbeat: the time at which it last touched its file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["BEAT_SECONDS", "SILENCE_SECONDS", "is_alive", "this_process"]

BEAT_SECONDS = 5.0
SILENCE_SECONDS = 60.0
"""After so long without a heartbeat, a run is dead if its process cannot be looked up."""

_PROC = Path("/proc")
_ENDED = ("Z", "X")
"""The states of a process that has ended, and of which only the entry in the table is left."""


def this_process() -> dict[str, Any]:
    """Return what identifies this process: "pid", "started" and "machine"; the latter two are None without /proc."""
    return {"pid": os.getpid(), "started": _start_of(os.getpid()), "machine": _machine()}


def is_alive(process: Mapping[str, Any], silent: float) -> bool:
    """Return whether the process of a run lives.

    Parameters
    ----------
    process : mapping
        What `this_process` returned in that process; if it is incomplete, the heartbeat alone decides.
    silent : float
        Seconds since the last heartbeat.
    """
    pid, started, machine = process.get("pid"), process.get("started"), process.get("machine")
    if isinstance(pid, int) and started is not None and machine is not None and machine == _machine():
        return bool(_start_of(pid) == started)
    return silent < SILENCE_SECONDS


def _start_of(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the boot, or None if there is no such process."""
    if sys.platform != "linux":
        return None
    try:
        # The second field is the name of the program, in parentheses; it may contain blanks and parentheses itself.
        state, *fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return None if state in _ENDED else int(fields[18])
    except (OSError, ValueError, IndexError):
        return None


def _machine() -> str | None:
    """Return what names this boot of this machine and its space of process numbers, or None where it is unknown."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return None
