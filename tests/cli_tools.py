"""What the tests of the command line share: small data sets as files, and runs in this process."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpuprop.__main__ import main
from gpuprop.model.container import CHECKPOINTS
from gpuprop.training.run_manifest import MANIFEST, Manifest, stored_runs

SPECIES = ("sedge", "rush", "grass")


@dataclass
class Result:
    """Exit status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.splitlines()[-1]


class Cli:
    """Runs commands in this process; `run` expects success, `fail` one line of complaint."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Result:
        self._capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return Result(status, captured.out, captured.err)

    def run(self, *arguments: object) -> Result:
        result = self(*arguments)
        assert (result.status, result.err) == (0, "")
        return result

    def fail(self, *arguments: object) -> Result:
        result = self(*arguments)
        assert result.status != 0
        assert_one_complaint(result.err)
        return result


def assert_one_complaint(stderr: str) -> None:
    """Assert that `stderr` is one line in the promised form, and that nothing technical shines through."""
    # What is being compiled is said as it begins, and no complaint.
    stderr = "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith("compiling "))
    assert stderr.startswith("gpuprop: error: ")
    assert stderr.count("\n") == 1
    assert stderr.endswith("\n")
    assert "Traceback" not in stderr
    assert "unexpected" not in stderr.split("error: ")[1].split()[:1]


def write_csv(path: Path, names: list[str], columns: list[Any]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))
    return path


def plants(n_rows: int = 60, n_classes: int = 3, seed: int = 0) -> tuple[NDArray[Any], list[str]]:
    """Return clusters that are easily told apart, and the names of their classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows) % n_classes
    centres = np.array([[0.0, 5.0], [40.0, 6.0], [20.0, 9.0]])
    X = centres[y] + rng.normal(size=(n_rows, 2)) * [2.0, 0.2]
    return X, [SPECIES[i] for i in y]


def write_plants(path: Path, **options: int) -> Path:
    X, labels = plants(**options)
    return write_csv(path, ["height", "width", "label"], [X[:, 0].tolist(), X[:, 1].tolist(), labels])


def save_plants(path: Path, **options: int) -> Path:
    """Write the same rows as arrays in an NPZ file, which a network is trained on by the recipes for arrays."""
    X, labels = plants(**options)
    np.savez(path, X=X, y=np.array(labels))
    return path


def save_prices(path: Path, **options: int) -> Path:
    """Write the rows of `write_prices` as arrays in an NPZ file."""
    X, y = prices(**options)
    np.savez(path, X=X, y=y)
    return path


def prices(n_rows: int = 80, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a regression whose targets are far from 0 and large."""
    X = np.random.default_rng(seed).normal(size=(n_rows, 2))
    return X, 30_000.0 * X[:, 0] - 9_000.0 * X[:, 1] + 250_000.0


def write_prices(path: Path, n_rows: int = 80, seed: int = 0) -> Path:
    X, y = prices(n_rows, seed)
    return write_csv(path, ["area", "age", "y"], [X[:, 0].tolist(), X[:, 1].tolist(), y.tolist()])


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder`, hidden ones too."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def files_of_run(folder: Path) -> list[str]:
    """Return the names of the files in the folder of a finished run, but for its manifest and what a resume needs."""
    manifest = Manifest.read(folder)
    assert manifest is not None
    assert manifest.holds(folder)
    assert [stored.run for stored in stored_runs(folder)] == [manifest.run]
    return sorted(name for name in contents(folder) if name != MANIFEST and not name.startswith(CHECKPOINTS))
