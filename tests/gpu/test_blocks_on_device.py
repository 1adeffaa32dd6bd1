"""Batch normalisation and residual layers on a GPU: by primitives, to the numbers of plain NumPy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuprop

pytestmark = pytest.mark.gpu
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(37, 5)), RNG.integers(0, 3, 37)


def compare(options: dict[str, Any], dtype: str, bound: float) -> None:
    """Train on both devices, and require the same numbers."""
    for activation in ("relu", "gelu"):
        shape: dict[str, Any] = {"loss": "categorical_cross_entropy", "dropout": 0.2, "hidden_activation": activation}
        nets = [
            gpuprop.Network((5, 7, 7, 7, 3), seed=0, device=device, dtype=dtype, **shape, **options)
            for device in ("numpy", "cuda")
        ]
        trainers = [
            gpuprop.Trainer(net, optimizer="momentum", epochs=2, batch_size=10, validation=0.2, clip_norm=1.0).fit(X, Y)
            for net in nets
        ]
        assert "steps" in str(trainers[1].plan_reason)
        assert "batch normalisation or residual layers" in str(trainers[1].plan_reason)
        plain, ours = (net.host_parameters() for net in nets)
        np.testing.assert_allclose(ours, plain, rtol=bound, atol=bound)
        np.testing.assert_allclose(nets[1].forward(X), nets[0].forward(X), rtol=2 * bound, atol=2 * bound)


@pytest.mark.parametrize("options", [{"batch_norm": True}, {"residual": True}, {"batch_norm": True, "residual": True}])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 2e-6), ("float64", 1e-14)])
def test_a_training_is_that_of_plain_numpy(options: dict[str, Any], dtype: str, bound: float) -> None:
    """Each case has a process of its own, in which no kernels of another dtype are loaded."""
    code = f"from tests.gpu.test_blocks_on_device import compare; compare({options!r}, {dtype!r}, {bound!r})"
    root = Path(__file__).parent.parent.parent
    made = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=root, text=True, stderr=subprocess.PIPE)
    assert made.returncode == 0, made.stderr
