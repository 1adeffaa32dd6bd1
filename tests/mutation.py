"""Plant a defect in a copy of the sources, and run the proof that must find it.

Each mutant meets its proof in a process of its own, forked from one that has imported the libraries already: half a
second for a mutant instead of three. ``python -m tests.mutation OUTCOMES < MUTANTS`` reads mutants as JSON and writes
what became of each: "killed", "survived", or what went wrong.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGES = {"gpuprop": ROOT / "gpuprop", "gpuprop_kernels": ROOT / "kernels" / "gpuprop_kernels"}

FINDS = ("AssertionError", "IndexError", "RuntimeWarning")
"""How a simulated proof finds a defect: a wrong number, an access outside of an array or across its alignment, or an
overflow, which NumPy warns of."""


@dataclass(frozen=True)
class Mutant:
    """A defect and the proof that must find it.

    Parameters
    ----------
    name : str
    file : str
        Package and path in it.
    old, new : str
        What is replaced by what; `old` must occur once.
    proof : str
        "simulator", "compilation", "race detector" or "lazy streams".
    case : str
        The test's id; for the compilation a selection: tile, activation and option, separated by "/".
    """

    name: str
    file: str
    old: str
    new: str
    proof: str
    case: str

    def as_json(self) -> dict[str, str]:
        """Return a form that JSON can write."""
        return asdict(self)


def plant(mutant: Mutant, folder: Path) -> None:
    """Make a copy of the mutant's package in `folder`, with the defect in it; all other files are links."""
    package, _, path = mutant.file.partition("/")
    shutil.copytree(PACKAGES[package], folder / package, copy_function=os.symlink)
    target = folder / package / path
    text = target.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} holds the text to replace {text.count(mutant.old)} times, expected once")
    target.unlink()
    target.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")


def by_test(case: str) -> str:
    """Run one test of the kernels."""
    import pytest

    seen: list[str] = []

    class Recorder:
        """Remembers what a test failed of."""

        @staticmethod
        def pytest_exception_interact(call: Any) -> None:
            seen.append(call.excinfo.type.__name__)

    # What a race detector says must not be captured: a race that gives the right numbers fails no test.
    options = ["-x", "-q", "--tb=short", "--capture=no", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    code = pytest.main([*options, case], plugins=[Recorder()])
    if code == pytest.ExitCode.OK:
        return "survived"
    return "killed" if code == pytest.ExitCode.TESTS_FAILED and seen[0] in FINDS else f"{code!r} {seen}"


def by_compilation(case: str) -> str:
    """Compile one kernel for sm_86 and hold it to its bounds."""
    from gpuprop.measure.bench import sass
    from gpuprop.measure.bench.variants import Selection
    from tests.sass_bounds import violations

    tile, activation, option = case.split("/")
    (variant,) = Selection(tile, ((8, 6),), (option,), activation).variants()[:1]
    (report,) = sass.analyse([(variant, (8, 6))])
    return "killed" if violations(report) else "survived"


def meet(mutant: Mutant, answer: Connection) -> None:
    """Plant a defect and run its proof; for a process of its own."""
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory() as folder, said(Path(folder) / "said") as output:
        sys.path.insert(0, folder)
        try:
            plant(mutant, Path(folder))
            # At once: pytest puts the checkout before the copy on the path.
            importlib.import_module(mutant.file.partition("/")[0])
            outcome = (by_compilation if mutant.proof == "compilation" else by_test)(mutant.case)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        text = output()
        if mutant.proof == "race detector" and "vgpu-check" in text:
            outcome = "killed"
        answer.send(outcome if outcome in ("killed", "survived") else f"{outcome}\n{text}")


@contextmanager
def said(path: Path) -> Iterator[Any]:
    """Send all output to a file; gives a function that reads it."""
    kept = [os.dup(1), os.dup(2)]
    with path.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: (sys.stdout.flush(), path.read_text(errors="replace"))[1]
        finally:
            sys.stdout.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)


def meet_all(mutants: list[Mutant], environment: Mapping[str, str], answer: Connection) -> None:
    """Import what all proofs of a kind need, then fork for each mutant; for a process of its own."""
    os.environ.update(environment)
    import numba.cuda
    import numpy as np
    import pytest  # noqa: F401

    assert np.dtype(str(numba.float32)).itemsize == 4
    context = multiprocessing.get_context("fork")
    outcomes = {}
    for mutant in mutants:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=meet, args=(mutant, sender))
        process.start()
        sender.close()
        try:
            outcomes[mutant.name] = receiver.recv()
        except EOFError:
            outcomes[mutant.name] = "the process died"
        process.join()
    answer.send(outcomes)


ENVIRONMENTS = {
    "simulator": {"NUMBA_ENABLE_CUDASIM": "1", "GPUPROP_DEVICE": "numpy"},
    "compilation": {},
    "race detector": {"NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS": "0"},
    "lazy streams": {},
}


def main() -> None:
    """Let the mutants on the standard input meet their proofs."""
    mutants = [Mutant(**row) for row in json.load(sys.stdin)]
    context = multiprocessing.get_context("fork")
    outcomes: dict[str, str] = {}
    for proof, environment in ENVIRONMENTS.items():
        of_proof = [mutant for mutant in mutants if mutant.proof == proof]
        if not of_proof:
            continue
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=meet_all, args=(of_proof, environment, sender))
        process.start()
        sender.close()
        outcomes |= receiver.recv()
        process.join()
    Path(sys.argv[1]).write_text(json.dumps(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main()
