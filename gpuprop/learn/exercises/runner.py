"""Run a learner's file in its own process: ``python -m gpuprop.learn.exercises.runner FILE FUNCTION CASES ANSWERS``.

CASES and ANSWERS are JSON files. What the learner's file prints goes to the terminal. `checking` judges the answers.
"""

from __future__ import annotations

import json
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["decode", "encode"]


def encode(value: Any) -> Any:
    """Return a JSON value for an array, a number or a generator."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "shape": value.shape}
    if hasattr(value, "seed"):
        return {"generator": value.seed}
    return value


def decode(value: Any) -> Any:
    """Return the value that `encode` was given; a generator is made anew from its seed."""
    if isinstance(value, dict) and "array" in value:
        return np.array(value["array"], np.float64).reshape(value["shape"])
    if isinstance(value, dict):
        return np.random.default_rng(value["generator"])
    return value


def _answer(function: Any, arguments: list[Any], kernel: list[int] | None) -> list[Any]:
    """Call the function; return its arrays."""
    if kernel is None:
        found = function(*arguments)
    else:
        found = arguments[-1]
        blocks = tuple(-(-size // block) for size, block in zip(found.shape, kernel, strict=True))
        function[blocks[::-1], tuple(kernel[::-1])](*arguments)  # x counts along a row
    parts = found if isinstance(found, tuple) else (found,)
    return [encode(np.asarray(part, dtype=np.float64)) for part in parts]


def _line_of(error: BaseException, file: str) -> int:
    """Return the last line of the learner's file in the traceback of an error; 0 if it has none."""
    if isinstance(error, SyntaxError):
        return error.lineno or 0
    return max(
        (frame.lineno or 0 for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file), default=0
    )


def main(file: str, function: str, cases: str, answers: str) -> None:
    """Load the file, call the function once for each case, and write its answers or how it fails."""
    task = json.loads(Path(cases).read_text(encoding="utf-8"))
    result: dict[str, Any]
    try:
        loader = SourceFileLoader("exercise", file)
        module = ModuleType(loader.name)
        module.__file__ = file
        loader.exec_module(module)
        defined = getattr(module, function, None)
        if defined is None:
            result = {"missing": function}
        else:
            calls = ([decode(argument) for argument in case] for case in task["cases"])
            result = {"answers": [_answer(defined, call, task["kernel"]) for call in calls]}
    except Exception as error:
        result = {"error": type(error).__name__, "message": str(error), "line": _line_of(error, file)}
    Path(answers).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
