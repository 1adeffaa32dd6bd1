"""What a session does beside its own tests: kernels compile, and mutants of them meet their proofs.

Both take minutes and need processes of their own. They start as soon as the selected cases are known, and their cases
are reported last. A session that selects none of them starts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from tests.background import Program

MODULES = {"selection": "gpuprop.measure.bench.sass_batch", "mutant": "tests.mutation"}
"""The program that works on the jobs which cases have under this parameter."""

_BESIDE = pytest.StashKey[dict[str, Program]]()
_ONE_THREAD = pytest.StashKey[Any]()


def _job(item: pytest.Item) -> tuple[str, Any] | None:
    """Return the parameter and the job of a case that looks at one of these programs, unless it will be skipped."""
    params = getattr(item, "callspec", None) and item.callspec.params  # type: ignore[attr-defined]
    found = next(((name, params[name].as_json()) for name in MODULES if params and name in params), None)
    if found is None or any(all(mark.args) for mark in item.iter_markers("skipif")):
        return None
    return found


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look at their results last: they work meanwhile."""
    items.sort(key=lambda item: _job(item) is not None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the programs that have work."""
    jobs: dict[str, list[Any]] = {}
    for name, job in filter(None, map(_job, session.items)):
        jobs.setdefault(name, []).append(job)
    started = {} if session.config.option.collectonly else {name: Program(MODULES[name], jobs[name]) for name in jobs}
    session.stash[_BESIDE] = started
    if started:
        # They leave no core for a second thread of BLAS, on which the first would wait, spinning: the README's ten
        # lines took 21 seconds of processor time so, and take 6.
        session.stash[_ONE_THREAD] = threadpool_limits(1, "blas")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End what still runs."""
    for program in session.stash.get(_BESIDE, {}).values():
        program.close()


@pytest.fixture
def all_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """BLAS with as many threads as it has by itself, whatever runs beside this session."""
    stash = request.session.stash
    if _ONE_THREAD in stash:
        stash[_ONE_THREAD].restore_original_limits()
    yield
    if _ONE_THREAD in stash:
        stash[_ONE_THREAD] = threadpool_limits(1, "blas")


@pytest.fixture(scope="session")
def compiled(request: pytest.FixtureRequest) -> Any:
    """The reports on all kernels that this session compiles."""
    return request.session.stash[_BESIDE]["selection"].results()


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> Any:
    """What became of each of this session's mutants."""
    return request.session.stash[_BESIDE]["mutant"].results()
