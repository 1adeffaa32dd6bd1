"""How ``--help`` is laid out: options in groups, words whole, and examples that fit the terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from typer.core import TyperCommand

__all__ = ["HelpPage", "in_groups"]

_WIDE = 80
"""From so many columns on, an option and what it does stand side by side; below, the text begins a line of its own."""


class HelpPage(TyperCommand):
    """A command whose help breaks lines between words only, at any width of the terminal."""

    #: The names of the parameters below each heading; parameters that no heading names come under "Options".
    groups: ClassVar[Mapping[str, Sequence[str]]] = {}

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options of each group."""
        heading_of = {name: heading for heading, names in self.groups.items() for name in names}
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], **{heading: [] for heading in self.groups}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                is_argument = parameter.param_type_name == "argument"
                heading = "Arguments" if is_argument else heading_of.get(str(parameter.name), "Options")
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    _write_definitions(formatter, records)

    def get_help(self, ctx: Any) -> str:
        """Return the page; lines of examples that are too long go on after a backslash, as a shell reads them."""
        width = shutil.get_terminal_size().columns
        return "\n".join(part for line in super().get_help(ctx).splitlines() for part in _folded(line, width))


def in_groups(groups: Mapping[str, Sequence[str]]) -> type[HelpPage]:
    """Return the class of a command whose options stand below these headings; each has the names of parameters."""
    return type("GroupedHelpPage", (HelpPage,), {"groups": groups})


def _write_definitions(formatter: Any, records: Sequence[tuple[str, str]]) -> None:
    """Write options and what they do, in two columns or, on a narrow terminal, one below the other."""
    indent = " " * formatter.current_indent
    side_by_side = formatter.width + 2 >= _WIDE
    first = min(30, max(len(name) for name, _ in records)) + 2 if side_by_side else 4
    room = max(20, formatter.width - first - 2)
    for name, text in records:
        lines = textwrap.wrap(" ".join(text.split()), room, break_on_hyphens=False, break_long_words=False)
        if lines and side_by_side and len(name) + 2 <= first:
            formatter.write(f"{indent}{name.ljust(first)}{lines.pop(0)}\n")
        else:
            formatter.write(f"{indent}{name}\n")
        for line in lines:
            formatter.write(f"{indent}{' ' * first}{line}\n")


def _folded(line: str, width: int) -> list[str]:
    """Return a line in pieces that fit; all but the last end with a backslash."""
    if len(line) <= width or not line.lstrip().startswith("gpuprop "):
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    pieces = textwrap.wrap(
        line.strip(),
        max(20, width - 2),
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return [f"{piece} \\" for piece in pieces[:-1]] + pieces[-1:]
