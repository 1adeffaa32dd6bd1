"""The house: rooms in their order, imports that point downwards only, and interfaces that stay public.

All checks read the syntax trees of ``gpuprop`` and ``gpuprop_kernels`` and import nothing. An import counts wherever it
stands: at the top of a file, inside a function, under ``TYPE_CHECKING``, or as ``importlib.import_module`` with a
literal name. Each check is a function from the root of a checkout to a list of complaints, so that a small tree with a
planted fault can show that the check finds it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: From top to bottom. A file may import files of its own room and of the rooms below it. `arrays`, `errors`, `lazy`
#: and `version` are single files; the kernels are a package of their own below everything.
ROOMS = (
    "cli",
    "measure",
    "learn",
    "estimators",
    "training",
    "model",
    "backends",
    "core",
    "maths",
    "datasets",
    "arrays",
    "errors",
    "lazy",
    "version",
    "gpuprop_kernels",
)

#: These may import every room, and no room imports them.
PORCH = ("gpuprop", "gpuprop.__main__", "gpuprop._moved")

#: What backends and core must not even name in a comment: the rooms above them, and private parameters.
NOT_NAMED = re.compile(r"gpuprop\.(network|training|model|estimators|cli)|\._parameters")

MAX_PARAMETERS = 6

#: Private attributes of objects that belong to other libraries, each with the reason why no public name serves.
FOREIGN = {
    "_asdict": "the public method of every named tuple",
    "_replace": "the public method of every named tuple",
    "_cache": "Numba has no public way to put a cache of one's own on a dispatcher",
    "_source_stamp": "Numba has no public name for the stamp of the source that a cached function was compiled from",
    "_locator_classes": "Numba has no public way to name one more folder for compiled code",
    "_get_module_for_linking": "Numba has no public way to link one compiled library into another",
    "_best_coefs": "scikit-learn's MLP keeps the best weights of early stopping there",
    "_best_intercepts": "scikit-learn's MLP keeps the best biases of early stopping there",
    "_format_results": "scikit-learn's searches make cv_results_ with it",
    "_get_param_names": "scikit-learn's BaseEstimator lists constructor parameters with it",
    "_init_callback_context": "scikit-learn's protocol for callbacks, 1.9 and later",
    "_optimizer": "scikit-learn's MLP keeps its optimizer's state there, which `bench peers` sets up by hand",
    "_parameter_constraints": "scikit-learn's estimators declare there what their parameters may be",
    "_validate_params": "scikit-learn's check of parameters against that declaration",
}


@dataclass(frozen=True)
class File:
    """One file of the two packages, taken apart."""

    module: str
    path: Path
    tree: ast.Module
    is_package: bool

    @property
    def room(self) -> str:
        """The room, or the package's name for a file on the porch."""
        package, _, rest = self.module.partition(".")
        return rest.partition(".")[0] if package == "gpuprop" and self.module not in PORCH else package


@cache
def files(root: Path) -> dict[str, File]:
    """Return all files of both packages by the names of their modules."""
    found = {}
    for base, package in ((root, "gpuprop"), (root / "kernels", "gpuprop_kernels")):
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found[name] = File(name, path, ast.parse(path.read_text(encoding="utf-8")), is_package)
    return found


def imported_names(file: File) -> Iterator[tuple[str, int]]:
    """Yield what a file imports, as whole dotted names, with the line: ``gpuprop.core.step`` and names in it."""
    package = file.module if file.is_package else file.module.rpartition(".")[0]
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) + 1 - node.level]
                source = ".".join([*above, *([source] if source else [])])
            for alias in node.names:
                yield f"{source}.{alias.name}", node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            literal = node.args[0] if node.args else None
            if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                yield literal.value, node.lineno


def edges(found: dict[str, File]) -> dict[str, dict[str, int]]:
    """Return for each file the files that it imports, with the line of the first import of each."""
    result: dict[str, dict[str, int]] = {}
    for module, file in found.items():
        result[module] = {}
        for name, line in imported_names(file):
            target = name
            while target and target not in found:  # a function or a class: the module that defines it
                target = target.rpartition(".")[0]
            if target:
                result[module].setdefault(target, line)
    return result


def shown(root: Path, file: File, line: int) -> str:
    """Return ``gpuprop/core/step.py:42``."""
    return f"{file.path.relative_to(root).as_posix()}:{line}"


# --- the checks -------------------------------------------------------------------------------------------------


def without_a_room(root: Path) -> list[str]:
    """Files that lie in no room."""
    known = {*ROOMS, "gpuprop"}
    return [
        f"{module} lies in no room of {', '.join(ROOMS)}" for module, f in files(root).items() if f.room not in known
    ]


def upward_imports(root: Path) -> list[str]:
    """Imports from a room above, from the porch, and from gpuprop in the kernels."""
    found = files(root)
    complaints = []
    for module, targets in edges(found).items():
        file = found[module]
        if module in PORCH or file.room not in ROOMS:
            continue
        for target, line in targets.items():
            place, room = shown(root, file, line), found[target].room
            if target in PORCH:
                complaints.append(f"{place}: {module} imports {target}; no room imports the porch")
            elif room in ROOMS and ROOMS.index(room) < ROOMS.index(file.room):
                complaints.append(f"{place}: {module} imports {target}; {file.room} lies below {room}")
    return complaints


def kernels_that_import_gpuprop(root: Path) -> list[str]:
    """Imports of gpuprop in gpuprop_kernels, whether the module exists or not."""
    return [
        f"{shown(root, file, line)}: {module} imports {name}"
        for module, file in files(root).items()
        if file.room == "gpuprop_kernels"
        for name, line in imported_names(file)
        if name.split(".")[0] == "gpuprop"
    ]


def circles(root: Path) -> list[str]:
    """Circles of files, one for each group of files that reach each other: ``a -> b -> a``."""
    graph = {module: sorted(targets) for module, targets in edges(files(root)).items()}
    reach = {module: reachable(graph, module) for module in graph}
    complaints, told = [], set[str]()
    for module in sorted(graph):
        if module in reach[module] and module not in told:
            told |= {other for other in reach[module] if module in reach[other]}
            complaints.append(" -> ".join(shortest_circle(graph, module)))
    return complaints


def reachable(graph: dict[str, list[str]], start: str) -> set[str]:
    """Return all files that `start` imports, directly or through others."""
    seen: set[str] = set()
    open_files = list(graph[start])
    while open_files:
        module = open_files.pop()
        if module not in seen:
            seen.add(module)
            open_files += graph[module]
    return seen


def shortest_circle(graph: dict[str, list[str]], start: str) -> list[str]:
    """Return a shortest way from a file back to itself."""
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:  # grows while it is read: breadth first
        for target in graph[way[-1]]:
            if target == start:
                return [*way, start]
            if target not in seen:
                seen.add(target)
                ways.append([*way, target])
    raise AssertionError(f"{start} lies on no circle")


def rooms_named_below(root: Path) -> list[str]:
    """Lines of backends and core that name a room above them, or private parameters."""
    return [
        f"{path.relative_to(root).as_posix()}:{number}: {line.strip()}"
        for room in ("backends", "core")
        for path in sorted((root / "gpuprop" / room).rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if NOT_NAMED.search(line)
    ]


def is_private(name: str) -> bool:
    """Return whether a name starts with one underscore."""
    return name.startswith("_") and not name.startswith("__")


def own_private_names(tree: ast.Module) -> set[str]:
    """Return the private attributes and methods that the classes of a file define."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(inner.name)
                targets = inner.targets if isinstance(inner, ast.Assign) else [getattr(inner, "target", None)]
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own(node.value):
            found.add(node.attr)
    return {name for name in found if is_private(name)}


def is_own(owner: ast.expr) -> bool:
    """Return whether an expression is ``self``, ``cls`` or ``super()``."""
    return ast.unparse(owner) in ("self", "cls", "super()")


def private_names_across_modules(root: Path) -> list[str]:
    """Private attributes of objects of other files, and imports of private names of gpuprop."""
    complaints = []
    for file in files(root).values():
        if file.module.split(".")[0] != "gpuprop":
            continue
        own = own_private_names(file.tree)
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node.value):
                if node.attr not in own and node.attr not in FOREIGN:
                    complaints.append(f"{shown(root, file, node.lineno)}: {ast.unparse(node)}")
            elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "gpuprop"):
                complaints += [
                    f"{shown(root, file, node.lineno)}: from {node.module} import {alias.name}"
                    for alias in node.names
                    if is_private(alias.name) and file.module not in PORCH
                ]
    return complaints


def crowded_functions(root: Path) -> list[str]:
    """Functions and methods of core with more than six parameters, ``self`` and ``cls`` not counted."""
    complaints = []
    for file in files(root).values():
        if file.room != "core":
            continue
        for node in ast.walk(file.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            takes = node.args
            names = [a.arg for a in (*takes.posonlyargs, *takes.args, *takes.kwonlyargs)]
            names += [a.arg for a in (takes.vararg, takes.kwarg) if a is not None]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > MAX_PARAMETERS:
                complaints.append(
                    f"{shown(root, file, node.lineno)}: {node.name} takes {count} parameters, "
                    f"expected at most {MAX_PARAMETERS}; put some of them into a record"
                )
    return complaints


def questions_about_backends(root: Path) -> list[str]:
    """Calls outside backends that ask which backend an object is, or what it can do."""
    complaints = []
    for file in files(root).values():
        if file.room in ("backends", "gpuprop_kernels"):
            continue
        for node in ast.walk(file.tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) >= 2):
                continue
            subject, second = ast.unparse(node.args[0]), ast.unparse(node.args[1])
            asks_kind = node.func.id == "isinstance" and re.search(r"\b(Numpy|Cpu|Cuda)Ops\b", second)
            asks_ability = node.func.id in ("hasattr", "getattr") and re.search(r"(ops|plan|backend)$", subject)
            if asks_kind or asks_ability:
                complaints.append(f"{shown(root, file, node.lineno)}: {ast.unparse(node)}")
    return complaints


CHECKS: tuple[Callable[[Path], list[str]], ...] = (
    without_a_room,
    upward_imports,
    kernels_that_import_gpuprop,
    circles,
    rooms_named_below,
    private_names_across_modules,
    crowded_functions,
    questions_about_backends,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house(check: Callable[[Path], list[str]]) -> None:
    complaints = check(ROOT)
    assert not complaints, "\n".join(["", *complaints])


def test_all_rooms_are_there() -> None:
    found = files(ROOT)
    assert {file.room for file in found.values()} == {*ROOMS, "gpuprop"}
    assert set(PORCH) <= set(found)
    # The tree of imports is the real one: the command line reaches every room.
    reached = {found[module].room for module in reachable({m: list(t) for m, t in edges(found).items()}, "gpuprop.cli")}
    assert reached == {*ROOMS}


def test_contributing_lists_the_rooms_in_their_order() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = [line for line in text.splitlines() if re.match(r"\d+\. ", line)]
    names = [name for line in listed for name in re.findall(r"`(?:gpuprop|kernels)/(\w+)(?:/|\.py)`", line)]
    assert tuple(names) == ROOMS


def test_the_list_of_foreign_names_has_no_idle_entry() -> None:
    used = {
        node.attr
        for file in files(ROOT).values()
        for node in ast.walk(file.tree)
        if isinstance(node, ast.Attribute) and not is_own(node.value)
    }
    assert set(FOREIGN) <= used


# --- the checks find what they are for --------------------------------------------------------------------------

#: A house without a fault: it has each kind of import, and what the checks must leave alone.
SOUND = {
    "gpuprop/__init__.py": "from gpuprop.cli import main\nfrom gpuprop._moved import _find\n",
    "gpuprop/_moved.py": "def _find(): ...\n",
    "gpuprop/errors.py": "class GpupropError(Exception): ...\n",
    "gpuprop/cli/__init__.py": "from gpuprop.model.network import Network\ndef main():\n    import gpuprop.core.step\n",
    "gpuprop/model/__init__.py": "",
    "gpuprop/model/network.py": (
        "from typing import TYPE_CHECKING\n"
        "from gpuprop.core import step\n"
        "if TYPE_CHECKING:\n    from gpuprop.errors import GpupropError\n"
        "class Network:\n"
        "    _count = 0\n"
        "    def __init__(self): self._rows = super()._rows\n"
        "    def same(self, other): return self._rows == other._rows and other._count == 0\n"
        "def renamed(row): return row._replace(x=getattr(row, 'ops', None))\n"
    ),
    "gpuprop/core/__init__.py": "",
    "gpuprop/core/step.py": "class Step:\n    def one(self, a, b, c, d, *, e, f): ...\n",
    "gpuprop/backends/__init__.py": "def f(ops): return isinstance(ops, CudaOps) or hasattr(ops, 'graph')\n",
    "kernels/gpuprop_kernels/__init__.py": "import gpuprop_kernels.tile\n",
    "kernels/gpuprop_kernels/tile.py": "",
}

STEP, NETWORK, KERNEL = "gpuprop/core/step.py", "gpuprop/model/network.py", "kernels/gpuprop_kernels/tile.py"

#: A check, files that replace or join those of the sound house, and a part of the complaint that must come.
PLANTED: list[tuple[Callable[[Path], list[str]], dict[str, str], str]] = [
    (without_a_room, {"gpuprop/attic/old.py": ""}, "gpuprop.attic.old lies in no room"),
    (without_a_room, {"gpuprop/helpers.py": ""}, "gpuprop.helpers lies in no room"),
    (upward_imports, {STEP: "from gpuprop.model.network import Network"}, "core lies below model"),
    (upward_imports, {STEP: "import gpuprop.model.network"}, "step.py:1: gpuprop.core.step imports gpuprop.model"),
    (upward_imports, {STEP: "from gpuprop.model import network"}, "imports gpuprop.model.network"),
    (upward_imports, {STEP: "from ..model import network"}, "imports gpuprop.model.network"),
    (upward_imports, {STEP: "def f():\n    from gpuprop.model.network import Network"}, "step.py:2"),
    (upward_imports, {STEP: "if TYPE_CHECKING:\n    from gpuprop.model.network import Network"}, "step.py:2"),
    (upward_imports, {STEP: "import importlib\nimportlib.import_module('gpuprop.model.network')"}, "step.py:2"),
    (upward_imports, {STEP: "def f():\n    return import_module('gpuprop.cli')"}, "core lies below cli"),
    (upward_imports, {"gpuprop/errors.py": "from gpuprop.core import step"}, "errors lies below core"),
    (upward_imports, {NETWORK: "from gpuprop import Trainer"}, "no room imports the porch"),
    (upward_imports, {NETWORK: "import gpuprop"}, "no room imports the porch"),
    (upward_imports, {NETWORK: "from gpuprop._moved import MOVED"}, "no room imports the porch"),
    (kernels_that_import_gpuprop, {KERNEL: "from gpuprop.errors import GpupropError"}, "tile.py:1"),
    (kernels_that_import_gpuprop, {KERNEL: "def f():\n    import gpuprop.gone"}, "imports gpuprop.gone"),
    (
        circles,
        {"gpuprop/core/a.py": "from .b import x", "gpuprop/core/b.py": "def f():\n    from gpuprop.core import a"},
        "gpuprop.core.a -> gpuprop.core.b -> gpuprop.core.a",
    ),
    (
        circles,
        {
            "gpuprop/core/a.py": "if TYPE_CHECKING:\n    from gpuprop.core.b import x",
            "gpuprop/core/b.py": "from .c import x",
            "gpuprop/core/c.py": "import_module('gpuprop.core.a')",
        },
        "gpuprop.core.a -> gpuprop.core.b -> gpuprop.core.c -> gpuprop.core.a",
    ),
    (
        circles,
        {"gpuprop/core/__init__.py": "from gpuprop.core.step import Step", STEP: "from gpuprop.core import Step"},
        "gpuprop.core -> gpuprop.core.step -> gpuprop.core",
    ),
    (
        circles,
        {"gpuprop/core/spec.py": "import gpuprop.model.network", NETWORK: "import gpuprop.core.spec"},
        "gpuprop.core.spec -> gpuprop.model.network -> gpuprop.core.spec",
    ),
    (circles, {KERNEL: "import gpuprop_kernels"}, "gpuprop_kernels -> gpuprop_kernels.tile -> gpuprop_kernels"),
    (rooms_named_below, {STEP: "# see gpuprop.network.Network"}, "step.py:1: # see gpuprop.network.Network"),
    (rooms_named_below, {"gpuprop/backends/cpu/ops.py": "x = net._parameters"}, "ops.py:1: x = net._parameters"),
    (private_names_across_modules, {STEP: "def f(network): return network._rows"}, "step.py:1: network._rows"),
    (private_names_across_modules, {STEP: "def f(network): network._rows = 1"}, "step.py:1: network._rows"),
    (private_names_across_modules, {STEP: "_rows = 1\ndef f(x): return x._rows"}, "step.py:2: x._rows"),
    (private_names_across_modules, {NETWORK: "from gpuprop.core.step import _one"}, "import _one"),
    (private_names_across_modules, {STEP: "from ..errors import _fault"}, "import _fault"),
    (crowded_functions, {STEP: "def f(a, b, c, d, e, f, g): ..."}, "f takes 7 parameters"),
    (crowded_functions, {STEP: "class A:\n    def f(self, a, b, c, /, d, *e, f, **g): ..."}, "f takes 7 parameters"),
    (questions_about_backends, {NETWORK: "x = isinstance(ops, CpuOps)"}, "isinstance(ops, CpuOps)"),
    (questions_about_backends, {NETWORK: "x = isinstance(o, (NumpyOps, a.CudaOps))"}, "a.CudaOps"),
    (questions_about_backends, {STEP: "x = hasattr(self.network.ops, 'update')"}, "self.network.ops"),
    (questions_about_backends, {STEP: "x = getattr(backend, 'fused', None)"}, "getattr(backend"),
    (questions_about_backends, {STEP: "x = hasattr(self._plan, 'state')"}, "self._plan"),
]  # fmt: skip


def build(root: Path, contents: dict[str, str]) -> Path:
    """Write a small house."""
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_sound_house_has_no_complaints(check: Callable[[Path], list[str]], tmp_path: Path) -> None:
    assert check(build(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("check", "contents", "complaint"),
    PLANTED,
    ids=[f"{check.__name__}-{number}" for number, (check, _, _) in enumerate(PLANTED)],
)
def test_a_planted_fault_is_found(
    check: Callable[[Path], list[str]], contents: dict[str, str], complaint: str, tmp_path: Path
) -> None:
    complaints = check(build(tmp_path, SOUND | contents))
    assert len(complaints) == 1
    assert complaint in complaints[0]
