"""Data sets larger than a device: on a virtual GPU with little memory, whose streams really are asynchronous."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop
import gpuprop_kernels

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


SEND = """
import numpy as np
from gpuprop.backends import get_ops
ops = get_ops("cuda")
stream = ops.runtime
pinned = [stream.pinned((4,), np.float32) for _ in range(40)]
buffers, seen, then = ([ops.empty((4,), np.float32) for _ in pinned] for _ in range(3))
for place, rows in enumerate(pinned):
    rows[:] = place + 1
stream.synchronize()
stream.send(list(zip(pinned, buffers)), stream.mark())
with stream.active():
    for buffer, out in zip(buffers[::-1], seen[::-1]):
        out[...] = buffer
    stream.synchronize()
    for buffer, out in zip(buffers, then):
        out[...] = buffer
copied = stream.send(list(zip(pinned[::-1], buffers))[::-1], stream.mark())
copied.synchronize()
stream.synchronize()
print(all((stream.to_numpy(out) == place + 1).all() for place, out in enumerate(seen)))
print(all((stream.to_numpy(out) == place + 1).all() for place, out in enumerate(then)))
print(all((stream.to_numpy(out) == 40 - place).all() for place, out in enumerate(buffers)))
"""

REUSE = """
import numpy as np
from gpuprop.backends import get_ops
from gpuprop.backends.cuda.streaming import RowStream
ops = get_ops("cuda")
host = np.arange(48, dtype=np.float32).reshape(12, 4)
columns = [host, host, host[:, 0].copy()]
stream = RowStream(ops, columns, 2)
stream.begin(np.arange(12, dtype=np.int32), None)
found = []
for chunk in range(6):
    stream.fetch(chunk)
    with ops.active():
        out = ops.empty((2, 4), np.float32)
        out[...] = stream.buffers[chunk % 2][0]
    found.append(out)
    stream.leave(chunk)
print(all((ops.to_numpy(out) == host[2 * chunk : 2 * chunk + 2]).all() for chunk, out in enumerate(found)))
"""


def run(script: str = TRAIN, **environment: str) -> list[str]:
    """Return what a script prints, in a process that imports what this one does."""
    command = [sys.executable, "-W", "error", "-c", script]
    first = [str(Path(str(module.__file__)).parent.parent) for module in (gpuprop, gpuprop_kernels)]
    everything = {**os.environ, "PYTHONPATH": os.pathsep.join([*first, *sys.path]), **environment}
    done = subprocess.run(command, env=everything, cwd=first[0], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_updates_wait_for_their_rows_and_copies_for_their_buffer(counts: Any) -> None:
    # Forty copies, the last of which is read first: without the wait it would have to win forty tosses of a coin.
    assert run(SEND, VGPU_LAZY="5") == ["True"] * 3


def test_the_host_waits_before_it_overwrites_what_is_copied(counts: Any) -> None:
    assert [run(REUSE, VGPU_LAZY=seed) for seed in "123"] == [["True"]] * 3


def test_a_data_set_larger_than_the_device_gives_the_bits_of_a_resident_run(counts: Any) -> None:
    kind, resident, evaluated = run()
    assert kind == "ndarray"
    # 12.5 MiB of data, 10 MiB of memory; queues in a random order show a buffer that is overwritten too early.
    kind, streamed, found = run(VGPU_MEM_BYTES=str(10 * 2**20), VGPU_LAZY="3")
    assert kind == "HostRows"
    assert streamed == resident
    np.testing.assert_allclose([float(x) for x in found.split()], [float(x) for x in evaluated.split()], rtol=1e-6)
