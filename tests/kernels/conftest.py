"""How the kernel tests run: in the simulator at once, or in a subprocess that a plain ``pytest`` reports on.

Numba reads ``NUMBA_ENABLE_CUDASIM`` when it is imported, so that the variable cannot be set in a session that has
imported Numba. Without it, this file collects the cases by a subprocess that has it, runs the selected ones in one
more, and reports each under its own name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DIRECT = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" or os.environ.get("GPUPROP_TEST_DEVICE") == "cuda"
# Test grids are small on purpose; Numba reads the variable when it is imported.
os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")
if DIRECT:
    # The simulator polls its threads: handing over sooner than every 5 ms takes a third off the time of a block.
    sys.setswitchinterval(5e-4)


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with the simulator on."""
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


class SimulatedFile(pytest.File):
    """The cases of one file."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a case for each line that the subprocess lists."""
        listed = simulate("--collect-only", "-q", str(self.path))
        prefix = f"{self.path.name}::"
        names = [line.split(prefix, 1)[1] for line in listed.stdout.splitlines() if prefix in line]
        if listed.returncode or not names:
            raise RuntimeError(f"cannot collect {self.path}:\n{listed.stdout}{listed.stderr}")
        for name in names:
            yield SimulatedCase.from_parent(self, name=name)


class SimulatedCase(pytest.Item):
    """One case, run by the subprocess together with all others that were selected."""

    def runtest(self) -> None:
        """Look the outcome up; the first case of the session runs them all."""
        outcome = _outcomes(self.session).get((self.path.name, self.name), "the simulated run did not report it")
        if outcome:
            raise SimulatedError(outcome)

    def repr_failure(self, excinfo: Any, style: Any = None) -> str:
        """Return the subprocess's own report."""
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return what stands in the header of a failure."""
        return self.path, None, self.name


class SimulatedError(Exception):
    """The text of a case that failed in the subprocess."""


_KEY = pytest.StashKey[dict[tuple[str, str], str]]()


def _outcomes(session: pytest.Session) -> dict[tuple[str, str], str]:
    """Return the failure text of each simulated case of the session, empty where it passed."""
    if _KEY not in session.stash:
        cases = [item for item in session.items if isinstance(item, SimulatedCase)]
        ids = [f"{case.path}::{case.name}" for case in cases]
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            done = simulate("-q", f"--junitxml={report}", "-o", "junit_family=xunit1", *ids)
            if not report.exists():
                raise SimulatedError(done.stdout + done.stderr)
            session.stash[_KEY] = dict(_read(report))
    return session.stash[_KEY]


def _read(report: Path) -> Iterator[tuple[tuple[str, str], str]]:
    for case in ET.parse(report).iter("testcase"):
        bad = [node.text or "" for node in case if node.tag in ("failure", "error")]
        yield (Path(case.get("file", "")).name, case.get("name", "")), "\n".join(bad)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Any:
    """Collect the files here by a subprocess, unless this session simulates (or has a device) itself."""
    if DIRECT or not module_path.name.startswith("test_"):
        return None
    return SimulatedFile.from_parent(parent, path=module_path)


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
