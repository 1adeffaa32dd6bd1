"""The short form of `tests.fuzz_files`: a few hundred files of all kinds, in this process."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from gpuprop import datasets
from tests.fuzz_data import DATA, LIMIT
from tests.fuzz_files import Fuzzer


def test_no_file_crashes_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*LIMIT)
    fuzzer = Fuzzer(tmp_path, seed=1)
    counts: Counter[str] = Counter()
    for index in range(200):
        try:
            kind, outcome = fuzzer.one(index)
        except Exception as error:
            error.add_note(f"repeat it: python tests/fuzz_files.py --seed 1 --first {index} --files 1")
            raise
        counts[f"{kind.partition(':')[0]}, {outcome}"] += 1
    for expected in ("model, edited, worked", "model, edited, refused", "model, damaged, refused", "data, read"):
        assert counts[expected] >= 5, counts  # the files are neither all sound nor all broken


def test_the_valid_files_are_read(tmp_path: Path) -> None:
    """What is refused above is refused for its mutations."""
    for name, content in DATA.items():
        path = tmp_path / name
        path.write_bytes(content)
        if name.startswith("bomb"):
            continue
        if path.suffix == ".parquet" or content is DATA["a.csv"] or name == "a.txt":
            assert len(datasets.read_table(path, target="paid").frame) == 8
        else:
            assert len(datasets.load_features(path)) == 8
