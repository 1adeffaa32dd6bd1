"""Data sets larger than a device: on a virtual GPU with little memory, whose streams really are asynchronous."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.gpu

TRAIN = """
import hashlib, numpy as np, gpuprop
rng = np.random.default_rng(0)
X, y = rng.integers(0, 256, (800, 16384), np.uint8), rng.integers(0, 3, 800)
scaling = gpuprop.InputScaling.divide(255)
network = gpuprop.Network((16384, 4, 3), loss="categorical_cross_entropy", input_scaling=scaling, seed=0, device="cuda")
trainer = gpuprop.Trainer(network, batch_size=40, epochs=2).fit(X, y)
print(type(network.prepare(X, y).inputs).__name__)
print(hashlib.sha256(network.host_parameters().tobytes()).hexdigest(), trainer.history["train_loss"])
print(*network.evaluate(X, y))
"""


def run(**environment: str) -> list[str]:
    """Return how the data lie, the numbers of a training, and loss and accuracy after it."""
    command = [sys.executable, "-W", "error", "-c", TRAIN]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_data_set_larger_than_the_device_gives_the_bits_of_a_resident_run(counts: Any) -> None:
    kind, resident, evaluated = run()
    assert kind == "ndarray"
    # 12.5 MiB of data, 10 MiB of memory; queues in a random order show a buffer that is overwritten too early.
    kind, streamed, found = run(VGPU_MEM_BYTES=str(10 * 2**20), VGPU_LAZY="3")
    assert kind == "HostRows"
    assert streamed == resident
    np.testing.assert_allclose([float(x) for x in found.split()], [float(x) for x in evaluated.split()], rtol=1e-6)
