"""Options that several commands have, the parsers of their short forms, and the error for wrong options."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from gpuprop.errors import GpupropError

__all__ = [
    "Arrays",
    "Device",
    "Header",
    "Json",
    "Labels",
    "MissingValues",
    "OptionError",
    "Target",
    "check_task",
    "check_test_fraction",
    "check_test_parts",
    "known_names",
    "one_of",
    "parse_activation",
    "parse_arrays",
    "parse_dropout",
    "parse_hidden",
    "parse_list",
    "parse_rate",
    "parse_scale",
    "wrong_options",
]


def one_of(names: Iterable[str]) -> str:
    """Return "a, b or c" for a help text."""
    *others, last = names
    return f"{', '.join(others)} or {last}"


DEVICE_HELP = "auto, cpu, numpy, cuda, cuda:N or cuda-sim; the variable GPUPROP_DEVICE overrides it."

Device = Annotated[str, typer.Option("--device", metavar="NAME", help=DEVICE_HELP)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="NAME|INDEX",
        help="The target column of a table or NPY file.  [default: the model's or OpenML's; else the column named "
        "y, target, label or class; where columns have no names, the last]",
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels", metavar="FILE", help="The labels of an IDX file.  [default: the file beside it, found by its name]"
    ),
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        help="Whether a CSV file starts with a line of names.  [default: what line 1 and the lines below it tell]",
    ),
]


class OptionError(typer.BadParameter):
    """A wrong option, or options that contradict each other; the exit status is 2."""

    def format_message(self) -> str:
        """Return the message as it is: it already names the value."""
        return self.message


MissingValues = Annotated[
    str | None,
    typer.Option(
        "--na",
        metavar="TEXT,...",
        help='What stands for a missing value in a table, such as "?,-"; empty cells, NA, NaN and null always do.',
    ),
]
Arrays = Annotated[
    str | None,
    typer.Option(
        "--arrays", metavar="X=NAME,y=NAME", help="The arrays of an NPZ file.  [default: found by the usual names]"
    ),
]


@contextmanager
def wrong_options() -> Iterator[None]:
    """Turn the ValueError or TypeError of a wrong value into an `OptionError`; gpuprop's own errors pass."""
    try:
        yield
    except GpupropError:
        raise
    except (ValueError, TypeError) as error:
        raise OptionError(str(error)) from error


def check_test_fraction(fraction: float | None) -> None:
    """Refuse a share of rows that holds out none of them or all of them."""
    if fraction is not None and not 0 < fraction < 1:
        raise OptionError(f"--test-fraction: got {fraction}, expected a number above 0 and below 1")


def check_task(task: str) -> None:
    """Refuse a task that does not exist."""
    from gpuprop.datasets.dataset import TASKS
    from gpuprop.errors import unknown_name

    with wrong_options():
        if task not in TASKS:
            raise unknown_name("task", task, TASKS)


def check_test_parts(test: str | None, fraction: float | None) -> None:
    """Refuse two test parts, and a share that is none."""
    check_test_fraction(fraction)
    if test is not None and fraction is not None:
        raise OptionError(
            "got --test and --test-fraction, expected one of them: a test file leaves nothing to hold out"
        )


def known_names(option: str, names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the names, without spaces around them; one that is not known is an `OptionError`."""
    stripped, allowed = [name.strip() for name in names], list(known)
    for name in stripped:
        if name not in allowed:
            raise OptionError(f"got {option} {name!r}, expected one or more of {', '.join(allowed)}")
    return stripped


def parse_list(text: str | None) -> tuple[str, ...]:
    """``'a, b,"c, d"'`` -> ("a", "b", "c, d"): names between commas, as in a line of a CSV file."""
    if not text:
        return ()
    (fields,) = csv.reader([text], skipinitialspace=True)
    return tuple(field.strip() for field in fields if field.strip())


def parse_arrays(text: str | None) -> dict[str, str]:
    """``"X=images,y=labels"`` -> {"X": "images", "y": "labels"}."""
    if text is None:
        return {}
    pairs = {part.partition("=")[0].strip(): part.partition("=")[2].strip() for part in text.split(",")}
    if not set(pairs) <= {"X", "y"} or not all(pairs.values()):
        raise OptionError(f"--arrays: got {text!r}, expected X=NAME,y=NAME: the names of arrays in the NPZ file")
    return pairs


def parse_hidden(text: str) -> tuple[int, ...]:
    """``"128,64"`` -> (128, 64); ``"256x3"`` -> (256, 256, 256); ``"none"`` -> ()."""
    if text.strip().lower() == "none":
        return ()
    pairs = [_numbers(part.replace("x", ",", 1), int) for part in text.lower().split(",")]
    sizes = tuple(pair[0] for pair in pairs for _ in range(pair[1] if len(pair) == 2 else len(pair)))
    if not all(pairs) or min((number for pair in pairs for number in pair), default=0) < 1:
        raise typer.BadParameter(f"got {text!r}, expected sizes of 1 or more such as 128 or 128,64 or 256x3, or none")
    return sizes


def parse_dropout(text: str) -> tuple[float, ...]:
    """``"0.5"`` -> (0.0, 0.5), ``"0.2,0.5"`` -> (0.2, 0.5): the rates of the input and of the hidden layers."""
    rates = _numbers(text, float)
    if len(rates) not in (1, 2) or not all(0 <= rate < 1 for rate in rates):
        raise typer.BadParameter(
            f"got {text!r}, expected HIDDEN or INPUT,HIDDEN, each at least 0 and below 1, such as 0.5 or 0.2,0.5"
        )
    return rates if len(rates) == 2 else (0.0, *rates)


def parse_rate(text: str) -> float | str:
    """``"0.01"`` -> 0.01; ``"find"`` stays."""
    if text.strip().lower() == "find":
        return "find"
    numbers = _numbers(text, float)
    if len(numbers) != 1:
        raise typer.BadParameter(f"got {text!r}, expected a number such as 0.01, or find")
    return float(numbers[0])


def parse_activation(text: str) -> tuple[str, ...]:
    """``"relu"`` -> ("relu",), ``"relu,tanh"`` -> ("relu", "tanh")."""
    return tuple(name.strip() for name in text.split(","))


def parse_scale(text: str) -> str:
    """Check ``"standard"``, ``"none"`` or ``"divide:NUMBER"``."""
    kind, _, by = text.partition(":")
    if text in ("standard", "none"):
        return text
    numbers = _numbers(by, float)
    if kind == "divide" and len(numbers) == 1 and 0 < abs(numbers[0]) < float("inf"):
        return text
    raise typer.BadParameter(f"got {text!r}, expected standard, none or divide:NUMBER such as divide:255")


def _numbers(text: str, kind: type[Any]) -> tuple[Any, ...]:
    """Return comma-separated numbers, or an empty tuple if a part is not a number."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        return ()
