"""The compilation of kernels in the background of a test session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gpuprop.bench.sass import Report
from gpuprop.bench.sass_batch import read_reports
from gpuprop.bench.variants import Selection


class Compilation:
    """A subprocess that compiles kernels.

    Parameters
    ----------
    selections : sequence of Selection
    """

    def __init__(self, selections: Sequence[Selection]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "reports.json"
        self._output = (Path(self._folder.name) / "output").open("w+")
        wanted = Path(self._folder.name) / "selections.json"
        wanted.write_text(json.dumps([selection.as_json() for selection in selections]))
        with wanted.open() as stdin:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gpuprop.bench.sass_batch", str(self._path)],
                stdin=stdin, stdout=self._output, stderr=subprocess.STDOUT, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        self._reports: list[Report] | None = None

    def reports(self, selection: Selection) -> list[Report]:
        """Wait for the end of the compilation, and return the reports on the selected kernels."""
        if self._reports is None:
            if self._process.wait():
                self._output.seek(0)
                raise RuntimeError(self._output.read())
            self._reports = read_reports(self._path)
        return [report for report in self._reports if selection.has(report)]

    def close(self) -> None:
        """End the subprocess, if it still runs, and remove its files."""
        self._process.terminate()
        self._process.wait()
        self._output.close()
        self._folder.cleanup()
