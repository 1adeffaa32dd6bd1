"""Runs a learner's file, and says whether it solves an exercise or what the likely mistake is."""

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

#: Seconds that a file may run, including the time to load NumPy and the simulator on a busy machine.
TIME_LIMIT = 60.0


def check(exercise: Exercise, file: Path, *, time_limit: float = TIME_LIMIT) -> str | None:
    """Return None if the file solves the exercise, else one line that says what is wrong.

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
    if hole is not None:
        return f"the hole in line {hole} is still empty: put your formula in place of the ..."
    result = _run(exercise, file, time_limit)
    if isinstance(result, str):
        return result
    return judge(exercise, [[decode(part) for part in parts] for parts in result["answers"]])


def judge(exercise: Exercise, answers: list[list[NDArray[Any]]]) -> str | None:
    """Return None if the answer to each case is right, else the name of the mistake, or the first difference."""
    for case, found in zip(exercise.cases(), answers, strict=True):
        difference = _difference(exercise, found, _parts(exercise.right(*case)))
        if difference is not None:
            return _named_mistake(exercise, answers) or difference
    return None


def _hole(source: str) -> int | None:
    """Return the line of the first ``...`` in the code; None if there is none, or if this is not Python code."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None  # the run will report the error
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value is ...]
    return min(lines, default=None)


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
            return f"{file}: still running after {time_limit:g} seconds; does a loop never end?"
        if not found.exists():
            return f"{file}: the program ended with status {done.returncode} before {exercise.function} returned"
        result: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return _failure(exercise, file, result) or result


def _failure(exercise: Exercise, file: Path, result: dict[str, Any]) -> str | None:
    """Return a sentence on the failure that the runner reports, or None if it reports answers."""
    if "missing" in result:
        return f"{file}: defines no {exercise.function}; keep the function's name"
    if "error" not in result:
        return None
    what = f"{file}, line {result['line']}: {result['error']}: {result['message']}"
    if exercise.kernel and result["error"] == "IndexError":
        what += "; threads beyond the edge have no element: only threads whose row and column exist may write"
    elif result["error"] == "ValueError" and "matmul" in result["message"]:
        what += "; the shapes do not fit: which factor must be transposed?"
    return what


def _parts(answer: Any) -> list[NDArray[Any]]:
    return [np.asarray(part) for part in (answer if isinstance(answer, tuple) else (answer,))]


def _difference(exercise: Exercise, found: list[NDArray[Any]], right: list[NDArray[Any]]) -> str | None:
    """Return how one answer differs from the right one, or None if it does not."""
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
    return None


def _named_mistake(exercise: Exercise, answers: list[list[NDArray[Any]]]) -> str | None:
    """Return the mistake that gives these answers in every case for which it has an answer, or None."""
    for mistake in exercise.mistakes:
        agreements = []
        for case, found in zip(exercise.cases(), answers, strict=True):
            wrong = mistake.answer(*case)
            if wrong is not None:
                agreements.append(_same(exercise, found, _parts(wrong)))
        if agreements and all(agreements):
            return mistake.message
    return None


def _same(exercise: Exercise, found: list[NDArray[Any]], wrong: list[NDArray[Any]]) -> bool:
    return len(found) == len(wrong) and all(
        part.shape == other.shape
        and np.allclose(exercise.observe(part), exercise.observe(other), exercise.rtol, exercise.atol, equal_nan=True)
        for part, other in zip(found, wrong, strict=True)
    )
