"""Work beside a test session: in processes that start when the cases are known, and whose results are looked at last.

A `Program` works on jobs: kernels compile, mutants meet their proofs. A `BackgroundRun` is another pytest, for cases
that need an interpreter started differently: Numba reads ``NUMBA_ENABLE_CUDASIM`` when it is imported. Either uses a
second core while the session runs its own tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q")


class BackgroundError(Exception):
    """The text of a case that failed in its process, or of the process."""


@cache
def collected(folder: Path, **environment: str) -> dict[str, list[str]]:
    """Return the names of the cases of each file in a folder, as a pytest with these environment variables lists them.

    All files at once, and once a session: to start a pytest takes longer than to collect a file.
    """
    command = [*PYTEST, "--collect-only", str(folder)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
    names: dict[str, list[str]] = {}
    for line in listed.stdout.splitlines():
        path, found, name = line.partition("::")
        if found:
            names.setdefault(Path(path).name, []).append(name)
    if listed.returncode or not names:
        raise RuntimeError(f"cannot collect {folder}:\n{listed.stdout}{listed.stderr}")
    return names


class _Beside:
    """A process with a folder of its own, and with its output kept for the case that asks why it failed."""

    def __init__(self) -> None:
        self._files = tempfile.TemporaryDirectory()
        self.folder = Path(self._files.name)
        self._output = (self.folder / "output").open("w+")

    def start(self, command: Sequence[str], environment: Mapping[str, str], stdin: IO[str] | None = None) -> None:
        # Nicer than the session, which is one process and would otherwise be what all wait for in the end. In a session
        # of its own Linux would weigh it as much as the whole of this one, however nice; in a group it can be ended.
        self._process = subprocess.Popen(
            command, stdin=stdin, stdout=self._output, stderr=subprocess.STDOUT, env=os.environ | dict(environment),
            cwd=Path(__file__).parent.parent, process_group=0, preexec_fn=lambda: os.nice(10),
        )  # fmt: skip

    def wait(self) -> int:
        return self._process.wait()

    def output(self) -> str:
        self._output.seek(0)
        return self._output.read()

    def close(self) -> None:
        """End the process and its children, if they still run, and remove its files."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()
        self._output.close()
        self._files.cleanup()


class Program(_Beside):
    """A module that runs as a program: jobs as JSON on its standard input, results as JSON in a file.

    Parameters
    ----------
    module : str
        Takes the file's name as its argument.
    jobs : sequence
        What JSON can write.
    """

    def __init__(self, module: str, jobs: Sequence[Any]) -> None:
        super().__init__()
        self._found, asked = self.folder / "results.json", self.folder / "jobs.json"
        asked.write_text(json.dumps(jobs), encoding="utf-8")
        # One thread each: it shares the processor with the session.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with asked.open() as stdin:
            self.start([sys.executable, "-m", module, str(self._found)], threads, stdin)

    def results(self) -> Any:
        """Wait for the end, and return what the program found."""
        if self.wait():
            raise BackgroundError(self.output())
        return json.loads(self._found.read_text(encoding="utf-8"))


class BackgroundRun(_Beside):
    """A pytest in a subprocess.

    Parameters
    ----------
    ids : sequence of str
        The cases to run, as ``path::name``.
    environment : mapping
        Environment variables beside this process's own.
    """

    def __init__(self, ids: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__()
        self._report = self.folder / "report.xml"
        self._outcomes: dict[tuple[str, str], str] | None = None
        # The cases go through a file: a command line has an end.
        arguments = self.folder / "cases"
        arguments.write_text("\n".join(ids), encoding="utf-8")
        self.start([*PYTEST, f"--junitxml={self._report}", "-o", "junit_family=xunit1", f"@{arguments}"], environment)

    def check(self, file: str, name: str) -> None:
        """Wait for the end of the run, and raise `BackgroundError` unless it says that this case passed."""
        if self._outcomes is None:
            self.wait()
            self._outcomes = dict(self._read())
        outcome = self._outcomes.get((file, name), "the subprocess did not report this case")
        if outcome:
            raise BackgroundError(outcome)

    def _read(self) -> Iterator[tuple[tuple[str, str], str]]:
        if not self._report.exists():
            raise BackgroundError(self.output())
        for case in ET.parse(self._report).iter("testcase"):
            bad = [node.text or "" for node in case if node.tag in ("failure", "error")]
            yield (Path(case.get("file", "")).name, case.get("name", "")), "\n".join(bad)
