"""``gpuprop exercise``: eight tasks with a hole each; it checks solutions, and names the likely mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpuprop.cli.console import mark_saved
from gpuprop.cli.options import OptionError

__all__ = ["register"]

_HELP = """Learn by filling holes: eight small functions of backpropagation, each with a piece missing.

Without N the exercises are listed. --check runs your file, compares its numbers with finite differences or a reference,
and names the mistake if it is a common one. The exit status is 0 if the solution is right.

\b
Examples:
  gpuprop exercise
  gpuprop exercise 1
  gpuprop exercise 3 --out hidden_delta.py
  gpuprop exercise 3 --check hidden_delta.py
"""


def register(app: typer.Typer) -> None:
    """Add the command ``exercise``."""
    app.command("exercise", help=_HELP, short_help="Fill holes in small functions; your solutions are checked.")(
        exercise
    )


def exercise(
    number: Annotated[int | None, typer.Argument(metavar="[N]", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the task to this file; an existing file is not replaced.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Check your solution in this file.")
    ] = None,
) -> None:
    """List, write or check."""
    from gpuprop.errors import GpupropError
    from gpuprop.learn.exercises import EXERCISES
    from gpuprop.learn.exercises import check as judge

    if number is None:
        if out is not None or check is not None:
            raise OptionError("got --out or --check without N, expected the number of an exercise")
        for count, task in enumerate(EXERCISES, start=1):
            print(f"{count}  {task.title}")
        print("\ngpuprop exercise N --out FILE writes one, gpuprop exercise N --check FILE checks it.")
        return
    if not 1 <= number <= len(EXERCISES):
        raise OptionError(f"got exercise {number}, expected 1 to {len(EXERCISES)}")
    if out is not None and check is not None:
        raise OptionError("got --out and --check, expected one of them")
    task = EXERCISES[number - 1]
    if check is not None:
        complaint = judge(task, check)
        if complaint:
            raise GpupropError(complaint)
        print(f"right: {task.function} agrees with {task.against}")
    elif out is None:
        print(task.template, end="")
    else:
        _write(out, task.template)
        print(f"{out}: {task.title}; fill the hole, then: gpuprop exercise {number} --check {out}")


def _write(path: Path, text: str) -> None:
    """Write a new file; a solution that a learner has begun is never overwritten."""
    from gpuprop.errors import GpupropError

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        mark_saved()
    except FileExistsError as error:
        raise GpupropError(f"{path}: exists already; choose another --out, or check it with --check {path}") from error
