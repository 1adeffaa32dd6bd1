"""Every public name has a page of the reference, says what it is, shows an example that runs, and names its errors."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.example_tools import EXAMPLES

ROOT = EXAMPLES.parent
DOCS = ROOT / "docs"


def script(name: str) -> ModuleType:
    """Return ``docs/<name>.py`` as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


REFERENCE = script("reference")
NAMES: list[Any] = REFERENCE.public_names()
OBJECTS = [name for name in NAMES if name.kind != "data"]

#: These take what they are given, compute or hold it, and raise nothing on purpose.
RAISE_NOTHING = {
    "gpuprop.Callback",
    "gpuprop.backends.Availability",
    "gpuprop.backends.Choice",
    "gpuprop.backends.availability",
    "gpuprop.callbacks.ProgressBar",
    "gpuprop.datasets.Dataset",
    "gpuprop.datasets.RawTable",
    "gpuprop.datasets.is_stored",
    "gpuprop.datasets.is_table",
    "gpuprop.datasets.load_digits",
    "gpuprop.datasets.short_name",
    "gpuprop.initializers.default_initializer",
    "gpuprop.losses.Loss",
    "gpuprop.losses.output_delta",
    "gpuprop.losses.penalty",
    "gpuprop.losses.score",
    "gpuprop.losses.smoothed_labels",
    "gpuprop.optimizers.Optimizer",
    "gpuprop.optimizers.SGD",
    "gpuprop.optimizers.clip_by_norm",
    "gpuprop.optimizers.limit_incoming_norm",
    "gpuprop.schedules.Constant",
    "gpuprop.schedules.FlatCosine",
    "gpuprop.schedules.Position",
    "gpuprop.schedules.Schedule",
    "gpuprop.trace.ScalarTrace",
    "gpuprop.trace.Section",
    "gpuprop.trace.Term",
    "gpuprop.trace.Trace",
    "gpuprop.trace.worked_example",
}


def test_every_name_has_a_page() -> None:
    """Two pages differ in more than capitals, for disks that do not tell them apart; the index names all of them."""
    pages = REFERENCE.pages()
    assert len({page.lower() for page in pages}) == len(pages)
    assert {REFERENCE.page_of(name) for name in NAMES} <= set(pages)
    listed = re.findall(r":doc:`[^`]*<([^`>]+)>`", pages["index"])
    assert set(listed) == set(pages) - {page for page in pages if page.startswith("group-")} - {"index"} | {
        "formulas",
        "../formats",
    }


def test_every_command_has_a_page_with_every_option() -> None:
    pages = REFERENCE.pages()
    for name, command in REFERENCE.commands().items():
        page = pages["-".join(["gpuprop", *name.split()])]
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                assert f".. option:: {parameter.opts[0]}" in page, (name, parameter.opts)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.path)
def test_it_says_what_it_is(name: Any) -> None:
    assert name.doc
    assert name.summary.endswith((".", ":", "`", ")", "]")), name.summary


@pytest.mark.parametrize("name", OBJECTS, ids=lambda name: name.path)
def test_its_example_runs(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUPROP_DEVICE", "" if "Unavailable" in name.path else "numpy")  # which compiles nothing
    tests = doctest.DocTestFinder(recurse=False).find(name.value, name.path, globs={})
    assert any(test.examples for test in tests), "has no example"
    printed: list[str] = []
    for test in tests:
        doctest.DocTestRunner(verbose=False).run(test, out=printed.append)
    assert "".join(printed) == ""


@pytest.mark.parametrize("name", [name for name in OBJECTS if name.kind != "exception"], ids=lambda name: name.path)
def test_it_names_its_errors(name: Any) -> None:
    has_section = re.search(r"^Raises\n------$", name.doc, re.M) is not None
    assert has_section != (name.path in RAISE_NOTHING)


def test_public_methods_say_what_they_do() -> None:
    for name in OBJECTS:
        if name.kind == "class":
            for sort, member in REFERENCE.members(name.value):
                value = inspect.getattr_static(name.value, member)
                documented = value.fget if isinstance(value, property) else getattr(name.value, member)
                assert sort == "property" or inspect.getdoc(documented), f"{name.path}.{member}"
