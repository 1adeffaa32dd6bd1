"""What a session starts before its first test: the compilation of kernels, whose results it looks at last."""

from __future__ import annotations

import pytest

from gpuprop.bench.variants import Selection
from tests.compilation import Compilation

COMPILATION = pytest.StashKey[Compilation]()


def _selection(item: pytest.Item) -> Selection | None:
    """Return which kernels a case of `test_compiled` looks at; None for other tests, and where it will be skipped."""
    callspec = getattr(item, "callspec", None)
    found = callspec.params.get("selection") if callspec else None
    return None if any(mark.args[0] for mark in item.iter_markers("skipif")) else found


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look at compiled kernels last: they compile meanwhile."""
    items.sort(key=lambda item: _selection(item) is not None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start to compile as soon as the selected cases are known."""
    selections = [selection for item in session.items if (selection := _selection(item)) is not None]
    if selections and not session.config.option.collectonly:
        session.stash[COMPILATION] = Compilation(selections)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the compilation where the session ends before it."""
    if COMPILATION in session.stash:
        session.stash[COMPILATION].close()


@pytest.fixture
def compilation(request: pytest.FixtureRequest) -> Compilation:
    """The kernels that compile in the background."""
    return request.session.stash[COMPILATION]
