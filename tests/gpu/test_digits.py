"""One command in the simulator and on a GPU: the same model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.measure.equivalence import tolerances

pytestmark = pytest.mark.gpu


ROWS = 300
"""Digits that both are given: enough for batches of 32 and a ragged one, and few, for the simulator is slow."""


def train(device: str, data: Path, out: Path) -> Any:
    command = ["train", str(data), "--device", device, "--scale", "divide:16", "--epochs", "1", "--hidden", "8"]
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run(
        [sys.executable, "-m", "gpuprop", *command, "--out", out],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return gpuprop.load(out / "model.safetensors", "numpy").host_parameters()


def test_the_simulator_and_a_gpu_train_the_same_digits(tmp_path: Path) -> None:
    X, y = gpuprop.datasets.load_digits()
    np.savez(tmp_path / "digits.npz", X=X[:ROWS], y=y[:ROWS])
    simulated, found = (train(device, tmp_path / "digits.npz", tmp_path / device) for device in ("cuda-sim", "cuda"))
    np.testing.assert_allclose(found, simulated, rtol=0, atol=tolerances.CURVE[np.dtype("float32")])
