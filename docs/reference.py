"""The reference: a page for every public name and every command, made from docstrings and from the parser.

`public_names` finds what is public: what ``gpuprop.__all__`` and the ``__all__`` of its public modules list. The site's
build (`conf.py`) calls `write_pages`, which writes the sources of the pages to ``docs/reference/``; git ignores that
folder. The tests ask `public_names` too, so that no name is without a page, an example and its errors.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

import gpuprop

__all__ = ["Name", "commands", "markdown_pages", "page_for", "page_of", "public_names", "write_pages"]

#: The headings of the reference, each with a sentence and with the modules whose names stand below it.
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Estimators": ("They follow scikit-learn's conventions.", ("gpuprop.estimators",)),
    "Networks and training": ("A network, and what trains, checks, stores and explains it.", ("gpuprop",)),
    "Callbacks": ("They watch a training, and may stop it.", ("gpuprop.callbacks",)),
    "Data": ("Built-in data sets and the readers of files.", ("gpuprop.datasets",)),
    "Activations": ("Each is a function with its derivative.", ("gpuprop.activations",)),
    "Losses": ("Each comes with its gradient and with the outputs on which it is defined.", ("gpuprop.losses",)),
    "Optimizers": ("They turn gradients into new parameters.", ("gpuprop.optimizers",)),
    "Schedules": ("They give each update its learning rate.", ("gpuprop.schedules",)),
    "Initializers": ("They draw the first weights.", ("gpuprop.initializers",)),
    "Traces": ("They show a computation number by number.", ("gpuprop.trace",)),
    "Plots": ("They draw what a training has recorded.", ("gpuprop.plots",)),
    "Devices": ("They say where a network can be computed.", ("gpuprop.backends",)),
    "Errors": ("Every error that the package raises on purpose is one of these, or a ValueError or TypeError.", ()),
}


@dataclass(frozen=True)
class Name:
    """A public name.

    Attributes
    ----------
    path : str
        The shortest name by which a user reaches it: ``gpuprop.Network``, ``gpuprop.optimizers.Adam``.
    value : object
    module : str
        The public module that lists it.
    kind : {"class", "exception", "function", "data"}
    """

    path: str
    value: Any
    module: str
    kind: str

    @property
    def doc(self) -> str:
        """Its docstring; for a constant the comment above or the string below its definition."""
        if self.kind != "data":
            return inspect.getdoc(self.value) or ""
        return _comment(self.module, self.path.rpartition(".")[2])

    @property
    def summary(self) -> str:
        """The first sentence."""
        paragraph = self.doc.partition("\n\n")[0].replace("\n", " ")
        return re.split(r"(?<=[^.]\.)\s+(?=[A-Z`])", paragraph)[0]


@cache
def public_names() -> list[Name]:
    """Return all public names in alphabetical order, each once, whatever modules list it."""
    modules = {"gpuprop": gpuprop}
    for name in gpuprop.__all__:
        value = getattr(gpuprop, name)
        if isinstance(value, ModuleType):
            modules[f"gpuprop.{name}"] = value
    found: list[Name] = []
    known: set[int] = set()
    for path, module in modules.items():
        for name in module.__all__:
            value = getattr(module, name)
            kind = _kind(value)
            if isinstance(value, ModuleType) or name == "__version__" or (kind != "data" and id(value) in known):
                continue
            known.add(id(value))
            found.append(Name(f"{path}.{name}", value, path, kind))
    return sorted(found, key=lambda one: one.path.lower())


def _kind(value: object) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isfunction(value) else "data"


def _comment(module: str, name: str) -> str:
    """Return what the source says of a constant: the ``#:`` comment above its definition, or the string below it."""
    public = getattr(gpuprop, module.rpartition(".")[2], gpuprop)
    file = Path(public.__file__)
    for source in sorted(file.parent.glob("*.py")) if file.name == "__init__.py" else [file]:
        text = source.read_text(encoding="utf-8")
        body = ast.parse(text).body
        for node, below in zip(body, [*body[1:], None], strict=True):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if not any(isinstance(target, ast.Name) and target.id == name for target in targets):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                return inspect.cleandoc(str(below.value.value))
            lines = text.splitlines()[: node.lineno - 1]
            comment = list(takewhile(lambda line: line.startswith("#:"), reversed(lines)))
            return "\n".join(line.removeprefix("#:").strip() for line in reversed(comment))
    return ""


def members(kind: type) -> Iterator[tuple[str, str]]:
    """Yield the public methods and properties of a class that gpuprop defines: ``("method", "fit")``."""
    for name in dir(kind):
        owner = next((base for base in kind.__mro__ if name in vars(base)), None)
        if name.startswith("_") or owner is None or not owner.__module__.startswith("gpuprop"):
            continue
        value = inspect.getattr_static(kind, name)
        if isinstance(value, property) or type(value).__name__ == "cached_property":
            yield "property", name
        elif inspect.isroutine(getattr(kind, name)) and getattr(kind, name).__module__.startswith("gpuprop"):
            yield "method", name


def grouped() -> dict[str, list[Name]]:
    """Return the names below each heading."""
    estimators = set(gpuprop.estimators.__all__)
    found: dict[str, list[Name]] = {heading: [] for heading in GROUPS}
    for name in public_names():
        if name.kind == "exception":
            heading = "Errors"
        elif name.path.rpartition(".")[2] in estimators and name.module == "gpuprop":
            heading = "Estimators"
        elif name.path == "gpuprop.Activation":
            heading = "Activations"
        elif name.path == "gpuprop.Callback":
            heading = "Callbacks"
        else:
            heading = next(heading for heading, (_, modules) in GROUPS.items() if name.module in modules)
        found[heading].append(name)
    return found


# --- commands --------------------------------------------------------------------------------------------------


@cache
def commands() -> dict[str, Any]:
    """Return the commands of ``gpuprop`` by name, as the parser has them."""
    import typer

    from gpuprop.cli import application

    def below(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            yield prefix + name, command
            if hasattr(command, "commands"):
                yield from below(f"{prefix}{name} ", command)

    return dict(below("", typer.main.get_command(application())))


def _command_parts(name: str, command: Any) -> tuple[str, str, dict[str, list[tuple[str, str]]]]:
    """Return what a command does, its examples, and its options below their headings."""
    text = inspect.cleandoc(command.help or "")
    what, _, examples = text.partition("\b\nExamples:\n")
    examples, _, more = examples.partition("\n\n")
    what = f"{what.strip()}\n\n{more}"
    groups = getattr(command, "groups", {})
    headings = {parameter: heading for heading, names in groups.items() for parameter in names}
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], **{heading: [] for heading in groups}}
    with command.make_context(name, [], resilient_parsing=True) as context:
        for parameter in command.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None:
                is_argument = parameter.param_type_name == "argument"
                heading = "Arguments" if is_argument else headings.get(str(parameter.name), "Options")
                sections.setdefault(heading, []).append((record[0], " ".join(record[1].split())))
    sections = {heading: rows for heading, rows in sections.items() if rows}
    return what.strip(), textwrap.dedent(examples).strip(), sections


def _page_of(name: str) -> str:
    """Return the name of a command's page: ``gpuprop-bench-peers``."""
    return "-".join(["gpuprop", *name.split()])


def _escaped(text: str) -> str:
    """Return plain text with what reStructuredText would take as markup escaped."""
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def _command_page(name: str, command: Any) -> str:
    what, examples, sections = _command_parts(name, command)
    title = f"gpuprop {name}"
    lines = [title, "=" * len(title), "", ".. program:: " + title, ""]
    for paragraph in what.split("\n\n"):
        as_it_stands = paragraph.startswith("\b")
        rows = paragraph.splitlines()
        lines += (
            ["::", "", *(f"   {row}" for row in rows[1:])] if as_it_stands else [_escaped(row.strip()) for row in rows]
        )
        lines += [""]
    if examples:
        lines += ["Examples", "--------", "", ".. code-block:: sh", ""]
        lines += [f"   {line}" for line in examples.splitlines()] + [""]
    for heading, rows in sections.items():
        lines += [heading, "-" * len(heading), ""]
        for option, text in rows:
            if option.startswith("-"):
                lines += [f".. option:: {option}", "", f"   {_escaped(text)}", ""]
            else:
                shown = re.sub(r" <\w+>$", "", option)
                lines += [f"``{shown}``", f"   {_escaped(text) or 'The text above says what it is.'}", ""]
    return "\n".join(lines)


# --- writing ---------------------------------------------------------------------------------------------------


def _name_page(name: Name) -> str:
    lines = [name.path, "=" * len(name.path), "", ".. currentmodule:: " + name.module, ""]
    if name.kind == "data":
        lines += [f".. py:data:: {name.path}", "", *(f"   {line}" for line in name.doc.splitlines()), ""]
        return "\n".join([*lines, *(f"   {line}" for line in _shown(name.value)), ""])
    kind = {"class": "class", "exception": "exception", "function": "function"}[name.kind]
    lines += [f".. auto{kind}:: {name.path}", "", *_whereabouts(name)]
    if name.kind != "class":
        return "\n".join(lines)
    own = list(members(name.value))
    for heading, sort in (("Properties", "property"), ("Methods", "method")):
        found = [member for one, member in own if one == sort]
        if found:
            lines += [heading, "-" * len(heading), ""]
            for member in found:
                lines += [f".. auto{sort}:: {name.path}.{member}", ""]
    return "\n".join(lines)


def _whereabouts(name: Name) -> list[str]:
    """Return where a name is in the source, and which pages show it at work."""
    value = inspect.unwrap(name.value)
    file = inspect.getsourcefile(value)
    assert file is not None
    path = Path(file).resolve().relative_to(Path(__file__).resolve().parent.parent).as_posix()
    line = inspect.getsourcelines(value)[1]
    said = [f"Source: `{path}, line {line} <source:{path}#L{line}>`__"]
    if pages := pages_with(name):
        said += ["", "Shown at work: " + ", ".join(f":doc:`/{page}`" for page in pages)]
    return [*said, ""]


def pages_with(name: Name) -> list[str]:
    """Return the pages, without their endings, whose programs use a name: at most five, those of the guide first."""
    docs = Path(__file__).parent
    pattern = re.compile(rf"\b{re.escape(name.path)}\b" if "." in name.path.removeprefix("gpuprop.") else _use(name))
    found = []
    for page in [*sorted(docs.glob("guide/*.md")), *sorted(docs.glob("*.md"))]:
        programs = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        if page.name != "README.md" and any(pattern.search(program) for program in programs):
            found.append(page.relative_to(docs).with_suffix("").as_posix())
    return found[:5]


def _use(name: Name) -> str:
    """Return a pattern of a name of ``gpuprop`` itself: with the package before it, or a class by its name alone."""
    short = _short(name.path)
    return rf"\b{short}\b" if name.kind == "class" else rf"\bgpuprop\.{short}\b"


@cache
def _names_by_text() -> dict[str, str]:
    """Return the page of each way in which prose writes a name: in full, below its module, a class by its own name."""
    found: dict[str, list[str]] = {}
    for name in public_names():
        below = name.path.removeprefix("gpuprop.")
        texts = {name.path, *([below] if "." in below or name.kind in {"class", "exception"} else [])}
        if name.kind in {"class", "exception"}:
            texts.add(_short(name.path))
        for text in texts:
            found.setdefault(text, []).append(page_of(name))
    return {text: pages[0] for text, pages in found.items() if len(pages) == 1}


def page_for(text: str) -> str | None:
    """Return the page that explains what prose writes as code, or None.

    That may be a name (``gpuprop.load(path)``, ``TabularClassifier``) or a command (``gpuprop train mnist``).
    """
    if text.startswith("gpuprop "):
        words = text.split()[1:]
        known = commands()
        found = [" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known]
        return _page_of(found[0]) if found else None
    return _names_by_text().get(text.partition("(")[0])


def _shown(value: object) -> list[str]:
    """Return a constant's value: a list of names, or the literal."""
    if isinstance(value, (tuple, dict)):
        return [f"Names: {', '.join(f'``{one}``' for one in value)}."]
    if isinstance(value, (str, int, float)):
        return [f"Value: ``{value!r}``."]
    return []


def pages() -> dict[str, str]:
    """Return the sources of all pages of the reference by their names."""
    found = {"index": _index(), **_group_pages()}
    for name in public_names():
        found[page_of(name)] = _name_page(name)
    for name, command in commands().items():
        found[_page_of(name)] = _command_page(name, command)
    return found


def _index() -> str:
    lines = ["Reference", "=========", ""]
    lines += [
        "Every public name, every command and every file format has a page. The pages are made from the docstrings and",
        "from the parser of the command line, so they say what the installed version does. The formulas of all",
        "activations and losses stand on :doc:`a page of their own <formulas>`, and so do the",
        ":doc:`files that gpuprop reads and writes <../formats>`.",
        "",
    ]
    for heading, names in grouped().items():
        lines += [heading, "-" * len(heading), "", *_group(heading, names), ""]
    lines += ["The command line", "----------------", "", *_command_group(), ""]
    lines += [".. toctree::", "   :hidden:", "", *(f"   {_group_page(heading)}" for heading in grouped())]
    return "\n".join([*lines, "   group-commands", "   formulas", "   ../formats", ""])


def _group_page(heading: str) -> str:
    return "group-" + heading.lower().replace(" ", "-")


def _group(heading: str, names: list[Name]) -> list[str]:
    """Return the sentence and the table of a group."""
    lines = [GROUPS[heading][0], "", ".. list-table::", "   :widths: 35 65", ""]
    for name in names:
        lines += [f"   * - :doc:`{_short(name.path)} <{page_of(name)}>`", f"     - {name.summary}"]
    return lines


def _command_group() -> list[str]:
    lines = ["``gpuprop COMMAND --help`` prints what these pages say.", "", ".. list-table::", "   :widths: 35 65", ""]
    for name, command in commands().items():
        lines += [f"   * - :doc:`gpuprop {name} <{_page_of(name)}>`"]
        lines += [f"     - {_escaped(command.short_help or _first_sentence(command.help or ''))}"]
    return lines


def _group_pages() -> dict[str, str]:
    """Return a page for each group, below which the pages of its names hang."""
    found = {}
    for heading, names in grouped().items():
        lines = [heading, "=" * len(heading), "", *_group(heading, names), "", ".. toctree::", "   :hidden:", ""]
        lines += [f"   {_short(name.path)} <{page_of(name)}>" for name in names]
        found[_group_page(heading)] = "\n".join([*lines, ""])
    lines = ["The command line", "================", "", *_command_group(), "", ".. toctree::", "   :hidden:", ""]
    found["group-commands"] = "\n".join([*lines, *(f"   {_page_of(name)}" for name in commands()), ""])
    return found


def _short(path: str) -> str:
    return path.rpartition(".")[2]


def page_of(name: Name) -> str:
    """Return the name of a page; two names that differ in capitals only do so in more, as not every disk tells them."""
    twins = [one.path for one in public_names() if one.path.lower() == name.path.lower()]
    return f"{name.path}-function" if len(twins) > 1 and name.kind == "function" else name.path


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.:])\s", inspect.cleandoc(text).replace("\n", " "))[0]


def write_pages(folder: Path, formulas: str) -> None:
    """Write the sources of all pages to a folder, that of the formulas too; what has not changed stays as it is."""
    folder.mkdir(exist_ok=True)
    found = {**{f"{name}.rst": text for name, text in pages().items()}, "formulas.md": formulas}
    for old in folder.iterdir():
        if old.name not in found:
            old.unlink()
    for file, text in found.items():
        place = folder / file
        if not place.exists() or place.read_text(encoding="utf-8") != text:
            place.write_text(text, encoding="utf-8")


def markdown_pages() -> dict[str, str]:
    """Return the reference as plain Markdown by the pages' names, for readers that are programs."""
    found = {}
    for name in public_names():
        text = f"# {name.path}\n\n"
        if name.kind != "data":
            text += f"```python\n{_signature(name.path, name.value)}\n```\n\n"
        text += f"{name.doc}\n"
        if name.kind == "class":
            for sort, member in members(name.value):
                value = inspect.getattr_static(name.value, member)
                shown = member if sort == "property" else _signature(member, getattr(name.value, member))
                doc = inspect.getdoc(value.fget if isinstance(value, property) else getattr(name.value, member))
                text += f"\n## {member}\n\n```python\n{shown}\n```\n\n{doc or ''}\n"
        found[page_of(name)] = text
    for name, command in commands().items():
        what, examples, sections = _command_parts(name, command)
        text = f"# gpuprop {name}\n\n{what}\n"
        if examples:
            text += f"\n## Examples\n\n```sh\n{examples}\n```\n"
        for heading, rows in sections.items():
            text += f"\n## {heading}\n\n" + "".join(f"- `{option}`: {said}\n" for option, said in rows)
        found[_page_of(name)] = text
    index = "# Reference\n"
    for heading, names in grouped().items():
        index += f"\n## {heading}\n\n" + "".join(f"- [{one.path}]({page_of(one)}.md): {one.summary}\n" for one in names)
    index += "\n## The command line\n\n" + "".join(f"- [gpuprop {name}]({_page_of(name)}.md)\n" for name in commands())
    found["index"] = index
    return found


def _signature(name: str, value: Any) -> str:
    try:
        return f"{name}{inspect.signature(value)}"
    except (TypeError, ValueError):
        return name
