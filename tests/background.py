"""Test cases that run in a process of their own, beside the session that reports them.

Some cases need an interpreter started differently: Numba reads ``NUMBA_ENABLE_CUDASIM`` when it is imported. One
subprocess runs all such cases of a session. It starts when collection has ended, so that it uses a second core while
the session runs its own tests, and the session reports its cases last, each under its own name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q")


class BackgroundError(Exception):
    """The text of a case that failed in the subprocess."""


def collect(path: Path, environment: Mapping[str, str]) -> list[str]:
    """Return the names of a file's cases as a pytest with these environment variables lists them."""
    command = [*PYTEST, "--collect-only", str(path)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | dict(environment))
    prefix = f"{path.name}::"
    names = [line.split(prefix, 1)[1] for line in listed.stdout.splitlines() if prefix in line]
    if listed.returncode or not names:
        raise RuntimeError(f"cannot collect {path}:\n{listed.stdout}{listed.stderr}")
    return names


class BackgroundRun:
    """A pytest in a subprocess.

    Parameters
    ----------
    ids : sequence of str
        The cases to run, as ``path::name``.
    environment : mapping
        Environment variables beside this process's own.
    """

    def __init__(self, ids: Sequence[str], environment: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._report = Path(self._folder.name) / "report.xml"
        self._output = (Path(self._folder.name) / "output").open("w+")
        self._outcomes: dict[tuple[str, str], str] | None = None
        # The cases go through a file: a command line has an end.
        arguments = Path(self._folder.name) / "cases"
        arguments.write_text("\n".join(ids), encoding="utf-8")
        command = [*PYTEST, f"--junitxml={self._report}", "-o", "junit_family=xunit1", f"@{arguments}"]
        self._process = subprocess.Popen(
            command, stdout=self._output, stderr=subprocess.STDOUT, env=os.environ | dict(environment)
        )

    def check(self, file: str, name: str) -> None:
        """Wait for the end of the run, and raise `BackgroundError` unless it says that this case passed."""
        if self._outcomes is None:
            self._process.wait()
            self._outcomes = dict(self._read())
        outcome = self._outcomes.get((file, name), "the subprocess did not report this case")
        if outcome:
            raise BackgroundError(outcome)

    def close(self) -> None:
        """End the subprocess, if it still runs, and remove its files."""
        self._process.kill()
        self._process.wait()
        self._output.close()
        self._folder.cleanup()

    def _read(self) -> Iterator[tuple[tuple[str, str], str]]:
        if not self._report.exists():
            self._output.seek(0)
            raise BackgroundError(self._output.read())
        for case in ET.parse(self._report).iter("testcase"):
            bad = [node.text or "" for node in case if node.tag in ("failure", "error")]
            yield (Path(case.get("file", "")).name, case.get("name", "")), "\n".join(bad)
