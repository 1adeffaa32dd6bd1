"""Fuzz the files that gpuprop reads, by kind, with a watchdog for memory and time::

    python tests/fuzz_files.py --files 10000

Half of the files are models, edited and hashed again (`tests.fuzz_models`), and models with changed bytes; the others
hold data (`tests.fuzz_data`). File i of a seed is the same in every run, so that ``--first i --files 1`` repeats it.
Processes of their own read the files; one that hangs, dies, takes a quarter of a gigabyte more memory, or needs ten
seconds of processor time for a file is reported like an error of the wrong kind. The exit status is 1 if there was any.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import IO

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from gpuprop.errors import ModelFileError
from gpuprop.model.container import write_file
from tests.fuzz_data import DATA, LIMIT, mutated, read
from tests.fuzz_models import MODELS, Model, check_message, edited, model_of, use

__all__ = ["Fuzzer"]

MOST_SECONDS = 10.0
MOST_GROWTH = 2**28
SILENCE = 300
"""Seconds of the clock without a word after which a process is taken for hung."""


class Fuzzer:
    """Makes and reads files.

    Parameters
    ----------
    folder : path
        Where the files are.
    seed : int
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self._models: dict[str, Model] = {}

    def model(self, kind: str) -> Model:
        """Return a valid model, which is made once."""
        if kind not in self._models:
            self._models[kind] = model_of(kind, self.folder)
        return self._models[kind]

    def one(self, index: int) -> tuple[str, str]:
        """Make and read one file; return its kind and what became of it."""
        random = Random(f"{self.seed}-{index}")
        make = random.choice((self._edited_model, self._edited_model, self._damaged_model, self._data, self._data))
        return make(random)

    def _edited_model(self, random: Random) -> tuple[str, str]:
        kind, other = random.choice(list(MODELS)), random.choice(list(MODELS))
        tensors, metadata = edited(random, self.model(kind), self.model(other))
        return f"model, edited: {kind}", use(self.folder / "edited.safetensors", tensors, metadata, self.model(kind))

    def _damaged_model(self, random: Random) -> tuple[str, str]:
        """Change bytes that the file's hash covers: no such file is read."""
        import gpuprop

        kind, path = random.choice(list(MODELS)), self.folder / "damaged.safetensors"
        write_file(path, self.model(kind).tensors, self.model(kind).metadata)
        content = bytearray(path.read_bytes())
        at = random.randrange(len(content))
        content[at : at + random.randint(1, 8)] = random.randbytes(random.randint(0, 8))
        changed = bytes(content) != path.read_bytes()
        path.write_bytes(content)
        try:
            gpuprop.load(path, device="numpy")
        except ModelFileError as error:
            check_message(error)
            return "model, damaged", "refused"
        assert not changed, "altered content was accepted"
        return "model, damaged", "worked"

    def _data(self, random: Random) -> tuple[str, str]:
        kind = random.choice(list(DATA))
        name, content = mutated(random, kind)
        path = self.folder / name
        path.write_bytes(content)
        try:
            return f"data: {kind}", read(random, path)
        finally:
            path.unlink()  # else it would be the labels of other images


def watched(run: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """Run, and return as "crashed" what raised, or took too much memory or time."""
    memory, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        kind, outcome = run()
    except Exception:
        return "?", f"crashed: {traceback.format_exc()}"
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory)
    if grown > MOST_GROWTH:
        return kind, f"crashed: took {grown >> 20} MiB more"
    if time.process_time() - begin > MOST_SECONDS:
        return kind, f"crashed: took {time.process_time() - begin:.0f} s"
    return kind, outcome


def work(seed: int, first: int, files: int) -> None:
    """Read files, and print a line of JSON before and after each."""
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), seed)
        for kind in MODELS:
            fuzzer.model(kind)
        for index in range(first, first + files):
            print(json.dumps([index, None, "begun"]), flush=True)
            kind, outcome = watched(partial(fuzzer.one, index))
            print(json.dumps([index, kind, outcome]), flush=True)


def outcomes(seed: int, first: int, files: int) -> Iterator[tuple[int, str, str]]:
    """Let processes read files; yield index, kind and outcome of each. A new process takes a dead one's place."""
    index, end = first, first + files
    while index < end:
        options = {"--seed": seed, "--first": index, "--files": end - index}
        command = [sys.executable, __file__, "--work", *(str(part) for pair in options.items() for part in pair)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, **dict([LIMIT])}
        ) as process:
            assert process.stdout is not None
            for line in _lines(process, process.stdout):
                index, kind, outcome = json.loads(line)
                if outcome != "begun":
                    yield index, kind, outcome
                    index += 1
        if index < end:
            yield index, "?", f"crashed: the process hung, or died with status {process.returncode}"
            index += 1


def _lines(process: subprocess.Popen[str], stream: IO[str]) -> Iterator[str]:
    """Yield the lines of a process, which is killed when it is silent for too long."""
    while True:
        watchdog = threading.Timer(SILENCE, process.kill)
        watchdog.start()
        line = stream.readline()
        watchdog.cancel()
        if not line:
            return
        yield line


def main() -> int:
    """Read the options, fuzz, and print what became of the files, a line for each kind."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(",")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.seed, options.first, options.files)
        return 0
    counts: dict[str, Counter[str]] = {}
    for index, kind, outcome in outcomes(options.seed, options.first, options.files):
        name = outcome.partition(":")[0]
        counts.setdefault(kind, Counter())[name] += 1
        if name == "crashed":
            print(f"file {index} of seed {options.seed}, {kind}: {outcome}", flush=True)
    for kind, own in (*sorted(counts.items()), ("all", sum(counts.values(), Counter()))):
        figures = ", ".join(f"{name} {own[name]}" for name in ("refused", "worked", "told", "read", "crashed"))
        print(f"{kind:<34} {own.total():>6} files: {figures}")
    return int(any(own["crashed"] for own in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
