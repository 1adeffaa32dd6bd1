"""What docs/scaling.md says can be typed in, and works; and the model of `gpuprop bench scale`."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.__main__ import main
from gpuprop.measure.bench.scaling import NETWORKS, Network, break_even, modelled
from tests.mpi_harness import environment, mpirun

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
in_a_checkout = pytest.mark.skipif(not PAGE.exists(), reason="only a checkout has the pages")
needs_mpi = pytest.mark.skipif(
    mpirun() is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs mpirun and mpi4py: pip install 'gpuprop[mpi]' mpich",
)


def _folder(place: Path) -> None:
    rng = np.random.default_rng(0)
    place.mkdir()
    for part in range(12):
        X = rng.normal(2.0, 3.0, (100, 4))
        np.savez(place / f"{part:02d}.npz", X=X, y=(X[:, 0] > X[:, 1]).astype(int))


@in_a_checkout
@needs_mpi
def test_its_programs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, on_disk, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "script.py").write_text(alone)
    launcher = mpirun()
    assert launcher is not None
    command = [launcher, "-n", "2", sys.executable, "script.py"]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    assert (tmp_path / "network.safetensors").exists()
    monkeypatch.chdir(tmp_path)
    _folder(tmp_path / "parts")
    names: dict[str, Any] = {"gpuprop": gpuprop}
    exec(on_disk, names)
    assert names["network"].evaluate(*names["rows"].read(0))[1] > 0.9


@in_a_checkout
@needs_mpi
def test_its_commands_run(tmp_path: Path) -> None:
    _folder(tmp_path / "parts")
    commands = re.findall(r"^    ((?:mpirun|gpuprop) .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(commands) == 5
    beside = Path(sys.executable).parent
    for command in commands:
        if "bench" in command:
            continue  # see below: what it measures takes a while
        typed = " ".join(str(beside / word) if (beside / word).exists() else word for word in command.split())
        subprocess.run(typed, shell=True, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    models = [(tmp_path / f"digits-{n}" / "model.safetensors").read_bytes() for n in (1, 2)]
    assert models[0] == models[1]


@needs_mpi
def test_bench_scale_measures_and_models(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--layers", "20,8,3", "--batch-size", "64", "--device", "numpy", "--seconds", "0.05"]
    assert main(["bench", "scale", *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["strong"]) == {"1", "2"}
    assert found["strong"]["1"]["adding"] == 0 < found["strong"]["2"]["adding"] < found["strong"]["2"]["update"]
    assert set(found["rows_of_an_update_from_which_machines_are_half_used"]) == {one.name for one in NETWORKS}
    assert main(["bench", "scale", "--processes", "3"]) != 0


def test_the_model_by_hand() -> None:
    network = Network("one byte a second", 1.0, 0.5)
    assert modelled(8.0, 1.0, 12, 1, network) == 9.0
    # 8 / 4 + 1 + 2 * (3/4 * 12 bytes / 1 + 2 * 0.5)
    assert modelled(8.0, 1.0, 12, 4, network) == 23.0
    # Two machines: rows / 2 + 2 * (6 + 0.5) <= rows / 1 means 26 rows.
    assert break_even(1.0, 0.0, 12, 2, network) == 32
    assert break_even(1e-12, 0.0, 10**12, 64, network) is None
