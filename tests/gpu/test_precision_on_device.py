"""Precisions on a CUDA device: tensor cores or a refusal by name, and emulation in devices without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends.cuda.emulated import EmulatingOps
from gpuprop.backends.devices import get_ops
from gpuprop.core.precision import PRECISIONS, UNIT_ROUNDOFF
from gpuprop.errors import BackendUnavailableError, PlanError


@pytest.fixture
def emulating() -> EmulatingOps:
    """The device as one whose compute capability is too low for tensor cores."""
    ops: Any = get_ops("cuda")
    return EmulatingOps(ops.runtime)


def test_a_device_without_tensor_cores_refuses_by_name(emulating: EmulatingOps) -> None:
    with pytest.raises(
        BackendUnavailableError, match="precision 'tf32': the device 'cuda:0' has no instruction for it"
    ):
        emulating.in_precision("tf32")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_emulated_training_is_that_of_the_cpu(emulating: EmulatingOps, precision: str) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((70, 9)).astype(np.float32), rng.integers(0, 3, 70)
    found = []
    for ops in (emulating, get_ops("cpu")):
        net = gpuprop.Network((9, 33, 17, 3), loss="categorical_cross_entropy", seed=1, device="cpu")
        net = net.copy(precision=precision).copy_to(ops)
        assert net.ops.precision == precision
        trainer = gpuprop.Trainer(net, epochs=2, batch_size=32, plan="steps").fit(X, y)
        found.append((net.host_parameters(), net.forward(X), trainer.history["train_loss"]))
    # Numbers beside a tie round to the other side where the devices' sums differ in their last bit.
    tolerance = 1e-4 if precision in ("float32", "tf32x3") else 8 * UNIT_ROUNDOFF[precision]
    for own, other in zip(*found, strict=True):
        np.testing.assert_allclose(own, other, rtol=tolerance, atol=tolerance)
    if precision != "float32":
        with pytest.raises(PlanError, match=f"emulating {precision}' offers steps"):
            gpuprop.Trainer(net.copy_to(emulating), epochs=1, plan="graph").fit(X, y)


def test_gradients_accumulate_and_biases_are_not_rounded(emulating: EmulatingOps) -> None:
    ops = emulating.in_precision("bf16", emulate=True)
    delta = np.random.default_rng(1).standard_normal((40, 5)).astype(np.float32)
    x, d = ops.asarray(np.ones((40, 6)), np.float32), ops.asarray(delta, np.float32)
    weights, biases = ops.empty((6, 5), np.float32), ops.empty((5,), np.float32)
    for accumulate in (False, True):
        ops.accumulate_gradient(x, d, weights, biases, accumulate=accumulate)
    np.testing.assert_allclose(ops.to_numpy(biases), 2 * delta.sum(axis=0), rtol=1e-5, atol=1e-5)
    assert np.abs(ops.to_numpy(weights)[0] - ops.to_numpy(biases)).max() > 1e-4
