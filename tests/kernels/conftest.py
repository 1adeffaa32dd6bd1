"""How the kernel tests run: in the simulator at once, or in a subprocess that a plain ``pytest`` reports on.

Numba reads ``NUMBA_ENABLE_CUDASIM`` when it is imported, so that the variable cannot be set in a session that has
imported Numba. Without it, the cases here run in the background (`tests.background`), in a process that has it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.background import BackgroundRun, collected

DIRECT = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or os.environ.get("GPUPROP_TEST_DEVICE") == "cuda"
SIMULATED = {"NUMBA_ENABLE_CUDASIM": "1"}
# Test grids are small on purpose; Numba reads the variable when it is imported.
os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")
if DIRECT:
    # The simulator polls its threads: handing over sooner than every 5 ms takes a third off the time of a block.
    sys.setswitchinterval(5e-4)

_RUN = pytest.StashKey[BackgroundRun]()


class SimulatedFile(pytest.File):
    """The cases of one file."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the cases that a subprocess lists."""
        for name in collected(self.path.parent, **SIMULATED)[self.path.name]:
            yield SimulatedCase.from_parent(self, name=name)


class SimulatedCase(pytest.Item):
    """One case, run by the subprocess together with all others that were selected."""

    def runtest(self) -> None:
        """Look the outcome up."""
        self.session.stash[_RUN].check(self.path.name, self.name)

    def repr_failure(self, excinfo: Any, style: Any = None) -> str:
        """Return the subprocess's own report."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return what stands in the header of a failure."""
        return self.path, None, self.name


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Any:
    """Collect the files here by a subprocess, unless this session simulates (or has a device) itself."""
    if DIRECT or not module_path.name.startswith("test_"):
        return None
    return SimulatedFile.from_parent(parent, path=module_path)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Report the simulated cases last: they run meanwhile."""
    items.sort(key=lambda item: isinstance(item, SimulatedCase))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the subprocess as soon as the selected cases are known."""
    ids = [f"{case.path}::{case.name}" for case in session.items if isinstance(case, SimulatedCase)]
    if ids and not session.config.option.collectonly:
        session.stash[_RUN] = BackgroundRun(ids, SIMULATED)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the subprocess where the session ends before it."""
    if _RUN in session.stash:
        session.stash[_RUN].close()


@pytest.fixture(autouse=DIRECT)
def _in_launches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the small networks that test the other kernels out of blocks of their own, which `test_block` tests."""
    if request.path.name != "test_block.py":
        monkeypatch.setattr("gpuprop_kernels.block_layout.PRODUCTS_OF_A_LAUNCH", 0)


CHECKED = os.environ.get("GPUPROP_TEST_DEVICE") == "cuda" and bool(os.environ.get("VGPU_CHECK"))
"""Whether a virtual GPU looks for memory errors and races. It only says on stderr what it finds."""


@pytest.fixture(autouse=CHECKED)
def _finished() -> Iterator[None]:
    """Run what still waits in a stream before the test is over: what is found in it is said now."""
    yield
    import cupy

    cupy.cuda.runtime.deviceSynchronize()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test in which the checker had something to say."""
    report = yield
    said = "".join(text for title, text in report.sections if title == f"Captured stderr {report.when}")
    found = [line for line in said.splitlines() if line.startswith("vgpu-check")]
    if CHECKED and found and report.passed:
        report.outcome, report.longrepr = "failed", "\n".join(found)
    return report


@pytest.fixture
def shuffled_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the simulator's blocks, and start their threads, in a random order."""
    if os.environ.get("GPUPROP_TEST_DEVICE") == "cuda":
        return
    import numpy as np
    from numba.cuda.simulator import kernel

    rng = np.random.default_rng(11)

    class Shuffling:
        """NumPy with an ndindex out of order."""

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

        @staticmethod
        def ndindex(*shape: int) -> Any:
            points = list(np.ndindex(*shape))
            rng.shuffle(points)
            return [tuple(int(i) for i in point) for point in points]

    monkeypatch.setattr(kernel, "np", Shuffling())
