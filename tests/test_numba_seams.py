"""Where the compiled loops lean on classes that Numba does not promise: on every Numba both must be in effect.

CI runs this file on the oldest Numba that gpuprop allows, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop

pytest.importorskip("numba", reason="without Numba there are no compiled loops")

from gpuprop.backends.cpu import compiling

TWO_FACTORIES = """
import sys
import tempfile
import numpy as np

def refuse(*arguments, **options):
    raise PermissionError("no folder can be written")

if "read-only" in sys.argv:
    tempfile.TemporaryFile = refuse  # by which Numba finds that out

from gpuprop.backends.cpu.compiling import compiled, spliced

def adder(by):
    @spliced
    def add(x):
        return x + by
    return add

def loop_of(function):
    @compiled
    def loop(values):
        for i in range(values.size):
            values[i] = function(values[i])
    return loop

values = np.zeros(3)
loops = [loop_of(adder(by)) for by in (1.0, 10.0)]
for loop in loops:
    loop(values)
print(values[0], [sum(loop.stats.cache_hits.values()) for loop in loops])
"""


def test_a_loop_made_for_a_function_is_found_by_the_next_process(tmp_path: Path) -> None:
    """Numba's own cache would compile both loops anew: the bytes of what they close over differ in each process.

    What lies beside the module is found by processes that keep their code elsewhere, or nowhere.
    """
    (tmp_path / "program.py").write_text(TWO_FACTORIES)
    path = os.pathsep.join([str(Path(gpuprop.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "NUMBA_CACHE_DIR": "", "PYTHONPATH": path}
    elsewhere = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    found = []
    for variables, argument in (({}, ""), ({}, ""), (elsewhere, ""), ({}, "read-only")):
        done = subprocess.run(
            [sys.executable, "-W", "error", "program.py", argument],
            cwd=tmp_path, env=environment | variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.strip())
    assert found == ["11.0 [0, 0]", *["11.0 [1, 1]"] * 3]
    assert not list((tmp_path / "cache").rglob("*.nbc"))


def test_scipy_is_not_imported_to_compile_or_load_a_loop() -> None:
    code = (
        "import sys; import numpy as np; from gpuprop.backends.cpu import loops; loops.scale(np.ones(3), 2.0);"
        "assert 'scipy.linalg' not in sys.modules;"
        "import numba; dot = numba.njit(lambda a, b: np.dot(a, b)); assert dot(np.ones(3), np.ones(3)) == 3.0"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


PIECES = """
import sys
import numpy as np
from gpuprop.backends.cpu.compiling import compiled, joined, spliced

def pieces():
    def scale(by):
        @spliced
        def times(x):
            return by * x
        return times

    double = scale(2.0)

    @joined
    def double_and_add(x, y):
        return double(x) + y

    return double, double_and_add

def loop_of(piece, by):
    @compiled
    def loop(values):
        for i in range(values.size):
            values[i] = piece(values[i], by)
    return loop

values = np.arange(3.0)
inner, piece = pieces()
loop_of(piece, float(sys.argv[1]))(values)
print(*values, [sum(one.stats.cache_hits.values()) for one in (inner, piece)], len(inner.overloads))
"""


def test_a_piece_is_found_by_the_next_process_for_another_loop(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PIECES)
    path = os.pathsep.join([str(Path(gpuprop.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": path}
    found = []
    for added in ("5", "7", "7"):
        command = [sys.executable, "-W", "error", "program.py", added]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.strip())
    # What the second process finds has its own piece in it; the third finds the loop, and looks for no piece.
    assert found == ["5.0 7.0 9.0 [0, 0] 1", "7.0 9.0 11.0 [0, 1] 0", "7.0 9.0 11.0 [0, 0] 0"]


def test_a_joined_function_has_no_machine_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optimised and becomes machine code once, as a part of the function that calls it."""
    monkeypatch.setattr(compiling, "_CACHE", None)  # an earlier run may have kept the loop

    @compiling.joined
    def triple(x: Any) -> Any:
        return 3 * x

    @compiling.compiled
    def loop(values: Any) -> None:
        for i in range(values.size):
            values[i] = triple(values[i])

    values = np.arange(4.0)
    loop(values)
    np.testing.assert_array_equal(values, [0, 3, 6, 9])
    inner: Any = triple
    (piece,) = inner.overloads.values()
    assert piece.library.get_pointer_to_function("any name") == 0
    outer: Any = loop
    (whole,) = outer.overloads.values()
    assert whole.library.get_pointer_to_function(whole.fndesc.llvm_func_name) != 0
