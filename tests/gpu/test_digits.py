"""One command in the simulator and on a GPU: the same model. The simulated run takes minutes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.equivalence import tolerances

pytestmark = pytest.mark.gpu


def train(device: str, out: Path) -> Any:
    command = ["train", "digits", "--device", device, "--epochs", "1", "--hidden", "8", "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run(
        [sys.executable, "-m", "gpuprop", *command], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return gpuprop.load(out / "model.safetensors", "numpy").host_parameters()


def test_the_simulator_and_a_gpu_train_the_same_digits(tmp_path: Path) -> None:
    simulated, found = (train(device, tmp_path / device) for device in ("cuda-sim", "cuda"))
    np.testing.assert_allclose(found, simulated, rtol=0, atol=tolerances.CURVE[np.dtype("float32")])
