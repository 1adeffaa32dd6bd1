"""Work in a process beside the test session: it starts when the cases are known, and the cases look at it last."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Beside:
    """A module that runs as a program: jobs as JSON on its standard input, results as JSON in a file.

    Parameters
    ----------
    module : str
        Takes the file's name as its argument.
    jobs : sequence
        What JSON can write.
    """

    def __init__(self, module: str, jobs: Sequence[Any]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "results.json"
        self._output = (Path(self._folder.name) / "output").open("w+")
        asked = Path(self._folder.name) / "jobs.json"
        asked.write_text(json.dumps(jobs), encoding="utf-8")
        # One thread each: it shares the processor with the session.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with asked.open() as stdin:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(self._path)], stdin=stdin, stdout=self._output,
                stderr=subprocess.STDOUT, env=environment, cwd=Path(__file__).parent.parent, start_new_session=True,
            )  # fmt: skip

    def results(self) -> Any:
        """Wait for the end, and return what the program found."""
        if self._process.wait():
            self._output.seek(0)
            raise RuntimeError(self._output.read())
        return json.loads(self._path.read_text(encoding="utf-8"))

    def close(self) -> None:
        """End the program and its children, if they still run, and remove its files."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()
        self._output.close()
        self._folder.cleanup()
