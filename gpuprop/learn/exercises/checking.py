"""Runs a file against an exercise, and says whether it is right or what the likely mistake is."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop.errors import GpupropError
from gpuprop.learn.exercises.exercise import Exercise
from gpuprop.learn.exercises.runner import decode, encode
from gpuprop.learn.exercises.updates import BLOCK

__all__ = ["TIME_LIMIT", "check", "judge"]

#: Seconds that a file may run; loading NumPy and the simulator on a busy machine included.
TIME_LIMIT = 60.0


def check(exercise: Exercise, file: Path, *, time_limit: float = TIME_LIMIT) -> str:
    """Return ``""`` if the file solves the exercise, else one line that says what is wrong.

    Parameters
    ----------
    exercise : Exercise
    file : Path
        A Python file that defines ``exercise.function``. It runs in a process of its own, with the rights of the user.
    time_limit : float, default=60
        Seconds.

    Raises
    ------
    GpupropError
        If the file cannot be read.
    """
    try:
        source = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GpupropError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    hole = _hole(source)
    if hole:
        return f"the hole in line {hole} is still empty: put your formula in place of the ..."
    result = _run(exercise, file, time_limit)
    if isinstance(result, str):
        return result
    return judge(exercise, [[decode(part) for part in parts] for parts in result["answers"]])


def judge(exercise: Exercise, answers: list[list[NDArray[Any]]]) -> str:
    """Return ``""`` if the arrays that were answered to each case are right, else the mistake, or the difference."""
    complaint = ""
    for case, found in zip(exercise.cases(), answers, strict=True):
        complaint = complaint or _compare(exercise, found, _parts(exercise.right(*case)))
    return complaint and (_named(exercise, answers) or complaint)


def _hole(source: str) -> int:
    """The line of the first ``...`` in the code; 0 where there is none, or where the code is none."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return 0  # running it will say more
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value is ...]
    return min(lines, default=0)


def _run(exercise: Exercise, file: Path, time_limit: float) -> dict[str, Any] | str:
    """Return the answers to all cases, or what went wrong."""
    cases = {
        "cases": [[encode(argument) for argument in case] for case in exercise.cases()],
        "kernel": BLOCK if exercise.kernel else None,
    }
    environment = os.environ | ({"NUMBA_ENABLE_CUDASIM": "1"} if exercise.kernel else {})
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "cases.json", Path(folder) / "answers.json"
        given.write_text(json.dumps(cases), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "gpuprop.learn.exercises.runner",
            str(file),
            exercise.function,
            str(given),
            str(found),
        ]
        try:
            done = subprocess.run(command, env=environment, timeout=time_limit, check=False)
        except subprocess.TimeoutExpired:
            return f"{file}: still running after {time_limit:g} seconds; is there a loop without an end?"
        if not found.exists():
            return f"{file}: the program ended with status {done.returncode} before {exercise.function} had answered"
        result: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return _failure(exercise, file, result) or result


def _failure(exercise: Exercise, file: Path, result: dict[str, Any]) -> str:
    """Put what the runner reports in words; nothing if there are answers."""
    if "missing" in result:
        return f"{file}: defines no {exercise.function}; keep the function's name"
    if "error" not in result:
        return ""
    what = f"{file}, line {result['line']}: {result['error']}: {result['message']}"
    if exercise.kernel and result["error"] == "IndexError":
        what += "; threads beyond the edge have no element: let only those work whose row and column exist"
    elif result["error"] == "ValueError" and "matmul" in result["message"]:
        what += "; the shapes do not fit: which factor is to be transposed?"
    return what


def _parts(answer: Any) -> list[NDArray[Any]]:
    return [np.asarray(part) for part in (answer if isinstance(answer, tuple) else (answer,))]


def _compare(exercise: Exercise, found: list[NDArray[Any]], right: list[NDArray[Any]]) -> str:
    """Say how one answer differs from the right one."""
    if len(found) != len(right):
        return f"{exercise.function} returns {len(found)} arrays, expected {len(right)}"
    for part, expected in zip(found, right, strict=True):
        observed = exercise.observe(part)
        if observed.shape != expected.shape:
            return f"{exercise.function} returns shape {part.shape}, expected {expected.shape}"
        if not np.allclose(observed, expected, exercise.rtol, exercise.atol):
            at = tuple(int(i) for i in np.argwhere(~np.isclose(observed, expected, exercise.rtol, exercise.atol))[0])
            return (
                f"{exercise.function} is not right yet: got {observed[at]:.9g}, expected {expected[at]:.9g} (at {at})"
            )
    return ""


def _named(exercise: Exercise, answers: list[list[NDArray[Any]]]) -> str:
    """Return the mistake whose numbers these are, in every case where it has any."""
    for mistake in exercise.mistakes:
        agreements = []
        for case, found in zip(exercise.cases(), answers, strict=True):
            wrong = mistake.answer(*case)
            if wrong is not None:
                agreements.append(_same(exercise, found, _parts(wrong)))
        if agreements and all(agreements):
            return mistake.message
    return ""


def _same(exercise: Exercise, found: list[NDArray[Any]], wrong: list[NDArray[Any]]) -> bool:
    return len(found) == len(wrong) and all(
        part.shape == other.shape
        and np.allclose(exercise.observe(part), exercise.observe(other), exercise.rtol, exercise.atol, equal_nan=True)
        for part, other in zip(found, wrong, strict=True)
    )
