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
and names the mistake if it is a common one. The exit status is 0 if the solution is right. --hint says the step that
is easily missed; --solution prints the file with its holes filled.

\b
Examples:
  gpuprop exercise
  gpuprop exercise 1
  gpuprop exercise 3 --out hidden_delta.py
  gpuprop exercise 3 --check hidden_delta.py
  gpuprop exercise 3 --hint
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
    hint: Annotated[bool, typer.Option("--hint", help="Print a hint.")] = False,
    solution: Annotated[bool, typer.Option("--solution", help="Print a solution.")] = False,
) -> None:
    """List, write, check or help."""
    from gpuprop.errors import GpupropError
    from gpuprop.learn.exercises import EXERCISES
    from gpuprop.learn.exercises import check as judge

    wanted = {"--out": out is not None, "--check": check is not None, "--hint": hint, "--solution": solution}
    given = [name for name, is_given in wanted.items() if is_given]
    if number is None:
        if given:
            raise OptionError(f"got {given[0]} without N, expected the number of an exercise")
        for count, task in enumerate(EXERCISES, start=1):
            print(f"{count}  {task.title}")
        print("\ngpuprop exercise N --out FILE writes one, gpuprop exercise N --check FILE checks it.")
        return
    if not 1 <= number <= len(EXERCISES):
        raise OptionError(f"got exercise {number}, expected 1 to {len(EXERCISES)}")
    if len(given) > 1:
        raise OptionError(f"got {' and '.join(given)}, expected one of them")
    task = EXERCISES[number - 1]
    if check is not None:
        complaint = judge(task, check)
        if complaint:
            raise GpupropError(complaint)
        print(f"right: {task.function} agrees with {task.against}")
    elif hint or solution:
        from gpuprop.learn.exercises import unfolding

        print(unfolding.hint(task) if hint else unfolding.solution(task), end="\n" if hint else "")
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
