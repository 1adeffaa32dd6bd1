"""Updates cut into shards on a GPU: near those of the host, and with equal bits for one process and for two."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gpuprop.measure.equivalence.tolerances import CURVE
from tests.mpi_harness import WORKER, command, environment, mpirun
from tests.mpi_worker import cases, digest, trained

pytestmark = pytest.mark.gpu

NAME = "digits, balanced, clipped, limited"


@pytest.mark.skipif(
    mpirun() is None or importlib.util.find_spec("mpi4py") is None,
    reason="needs mpirun and mpi4py: pip install 'gpuprop[mpi]' mpich",
)
def test_two_processes_on_devices_give_the_bits_of_one_and_the_host_s_numbers(tmp_path: Path) -> None:
    """Each process has a device of its own, and gradients meet on the host.

    Queues in a random order show a wait that is missing.
    """
    out = tmp_path / "out.json"
    env = environment() | {"VGPU_LAZY": "7"}
    done = subprocess.run(
        command(2, str(WORKER), "bits", str(out), f"cuda={NAME}"), env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    alone = trained(cases("cuda")[NAME], shards=8)
    assert json.loads(out.read_text()) == {f"cuda: {NAME}": digest(alone)}
    assert alone.plan_reason is not None
    assert alone.plan_reason.startswith("sharded: 8 shards")
    host = trained(cases("numpy")[NAME], shards=8)
    np.testing.assert_allclose(
        alone.history["train_loss"], host.history["train_loss"], rtol=CURVE[np.dtype(np.float32)]
    )
    # 66 updates in float32 differ by some roundings of parameters below 1.
    np.testing.assert_allclose(alone.network.host_parameters(), host.network.host_parameters(), rtol=0, atol=2e-6)
