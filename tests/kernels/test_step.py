"""Whole training steps through the launchers, against the oracle: 2L + 1 launches, every parameter after each step."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from gpuprop.measure.equivalence import oracle, tolerances
from gpuprop_kernels import launch
from gpuprop_kernels.activations import Activation
from gpuprop_kernels.dropout import mask_constants
from gpuprop_kernels.gradient import GradientJob, job_table
from gpuprop_kernels.head import SMALL_HEAD
from gpuprop_kernels.launch import blocks, padded
from gpuprop_kernels.optimizers import update_scalars
from gpuprop_kernels.tile import SMALL
from tests.kernels import support as s

SIZES = (13, 9, 7, 3)
BATCH, SAMPLES = 12, 31
SEED, RATES = 77, (0.0, 0.3, 0.2)
HIDDEN = [Activation("tanh"), Activation("silu")]


class Device:
    """One network with two hidden layers, its data and its workspace."""

    def __init__(self, dtype: Any) -> None:
        rng = np.random.default_rng(20)
        self.dtype = np.dtype(dtype)
        self.data = rng.integers(0, 256, (SAMPLES, SIZES[0])).astype(np.uint8)
        self.y = np.eye(3)[rng.integers(0, 3, SAMPLES)]
        self.sample_weight = rng.uniform(0.5, 2, SAMPLES).astype(dtype)
        pairs = list(itertools.pairwise(SIZES))
        self.weights = [(rng.standard_normal(shape) / np.sqrt(shape[0])).astype(dtype) for shape in pairs]
        self.biases = [(rng.standard_normal(m) * 0.1).astype(dtype) for m in SIZES[1:]]
        self.order = rng.permutation(SAMPLES).astype(np.int32)
        flat = [s.download(s.matrix(w)) for w in self.weights] + [s.download(s.vector(b)) for b in self.biases]
        self.at = np.cumsum([0] + [len(part) for part in flat]).tolist()
        self.parameters = s.upload(np.concatenate(flat))
        self.state = s.upload(np.zeros(2 * self.at[-1], dtype))
        # Workspace: activations, net input of the silu layer, deltas, column sums; all NaN.
        tiles, heads = blocks(BATCH, SMALL.rows), blocks(BATCH, SMALL_HEAD.rows)
        lengths = {
            "a1": BATCH * padded(9), "a2": BATCH * padded(7), "z2": BATCH * padded(7), "d1": BATCH * padded(9),
            "d2": BATCH * padded(7), "d3": BATCH * padded(3), "sums1": tiles * padded(9), "sums2": heads * padded(7),
            "sums3": heads * padded(3),
        }  # fmt: skip
        starts = np.cumsum([0, *lengths.values()]).tolist()
        self.workspace = s.upload(np.full(starts[-1], np.nan, dtype))
        self.offset = dict(zip(lengths, starts, strict=False))
        self.view = {name: self.workspace[self.offset[name] :][:n] for name, n in lengths.items()}
        o, at = self.offset, self.at
        jobs = [
            GradientJob(13, 9, 0, o["d1"], o["sums1"], tiles, at[0], at[3], gathered=True),
            GradientJob(9, 7, o["a1"], o["d2"], o["sums2"], heads, at[1], at[4]),
            GradientJob(7, 3, o["a2"], o["d3"], o["sums3"], heads, at[2], at[5]),
        ]
        table, self.n_blocks = job_table(jobs, SMALL)
        self.table, self.n_jobs, self.heads = s.upload(table), len(table) // 12, heads

    def step(self, slot: int, schedule: Any, scalars: Any, losses: Any) -> None:
        """Train one step: 2 L + 1 = 5 launches."""
        v, at, p = self.view, self.at, self.parameters
        w = [p[at[i] : at[i + 1]] for i in range(3)]
        b = [p[at[3 + i] : at[4 + i]] for i in range(3)]
        batch = launch.Batch(schedule, slot, BATCH, s.upload(self.order))
        rows = s.data_rows(self.data, "bytes", np.zeros(1, self.dtype), np.array([1 / 256], self.dtype))
        drop = [
            launch.Dropout(*(s.upload(a) for a in mask_constants(rate, SEED, layer, self.dtype)))
            for layer, rate in enumerate(RATES)
        ]
        launch.forward_layer(
            rows, w[0], b[0], v["a1"], batch, activation=HIDDEN[0], n_in=13, n_out=9, tile=SMALL, dropout=drop[1]
        )
        launch.forward_layer(
            v["a1"], w[1], b[1], v["a2"], batch, activation=HIDDEN[1], n_in=9, n_out=7, tile=SMALL, z=v["z2"],
            dropout=drop[2],
        )  # fmt: skip
        launch.output_head(
            v["a2"], w[2], b[2], s.upload(self.y.astype(self.dtype)), s.upload(self.sample_weight[self.order]), v["d3"],
            v["sums3"], losses, v["z2"], v["d2"], v["sums2"], scalars, batch, output=Activation("softmax"),
            loss="categorical_cross_entropy", metric="class", hidden=HIDDEN[1], n_in=7, n_out=3, targets_ld=3,
            shape=SMALL_HEAD, dropout=drop[2],
        )  # fmt: skip
        launch.hidden_delta(
            v["d2"], w[1], v["a1"], v["d1"], v["sums1"], batch, activation=HIDDEN[0], n_units=9, n_next=7, tile=SMALL,
            dropout=drop[1],
        )  # fmt: skip
        launch.accumulate_gradients(
            rows, self.workspace, p, self.state, self.table, scalars, batch, mode="adam", tile=SMALL,
            n_jobs=self.n_jobs, n_blocks=self.n_blocks,
            penalties=s.poison(2 * self.n_blocks, self.dtype),
        )  # fmt: skip

    def train(self) -> tuple[Any, Any]:
        """Run one epoch of three steps, the last one ragged; return losses per step and the parameters after it."""
        starts = [0, BATCH, 2 * BATCH]
        counts = [min(BATCH, SAMPLES - start) for start in starts]
        schedule = s.upload(
            np.array([[a, n, t, 0] for t, (a, n) in enumerate(zip(starts, counts, strict=True))], np.int32)
        )
        weight = [self.sample_weight[self.order[a : a + n]].sum() for a, n in zip(starts, counts, strict=True)]
        table = [
            update_scalars("adam", 0.01, t + 1, (0.9, 0.999, 1e-8), inverse_weight=1 / weight[t], penalty=(0.001, 0.01))
            for t in range(3)
        ]
        scalars = s.upload(np.concatenate(table).astype(self.dtype))
        losses = s.upload(np.full(3 * self.heads * 2, np.nan, self.dtype))
        for slot in range(3):
            self.step(slot, schedule, scalars, losses)
        per_step = s.download(losses).reshape(3, -1, 2).astype(np.float64).sum(axis=1)
        return per_step / np.array(weight)[:, None], s.download(self.parameters)


def reference(device: Device) -> tuple[list[float], Any]:
    """Train the same three steps with the oracle."""
    w, b = [m.astype(np.float64) for m in device.weights], [v.astype(np.float64) for v in device.biases]
    shapes = [part.shape for part in w + b]
    n_weights = sum(part.size for part in w)
    state = oracle.optimizer_state("adam", sum(part.size for part in w + b))
    losses = []
    for step in range(3):
        index = device.order[step * BATCH : (step + 1) * BATCH]
        masks = [None, *(oracle.dropout_mask(len(index), SIZES[i], 1 - RATES[i], SEED, i, step) for i in (1, 2))]
        penalties = {"l1": 0.001, "l2": 0.01}
        run = oracle.forward_backward(
            device.data[index] / 256.0, device.y[index], w, b, ["tanh", "silu", "softmax"], "categorical_cross_entropy",
            sample_weight=device.sample_weight[index], masks=masks, **penalties,
        )  # fmt: skip
        losses.append(run.loss - sum(0.005 * float((m * m).sum()) + 0.001 * float(np.abs(m).sum()) for m in w))
        flat = np.concatenate([part.reshape(-1) for part in w + b])
        grads = np.concatenate([part.reshape(-1) for part in run.weight_grads + run.bias_grads])
        flat = oracle.optimize("adam", flat, grads, state, 0.01, step + 1, n_weights)
        cuts = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
        parts = [part.reshape(shape) for part, shape in zip(np.split(flat, cuts), shapes, strict=True)]
        w, b = parts[:3], parts[3:]
    return losses, w + b


@pytest.mark.parametrize("dtype", s.DTYPES, ids=s.case_name)
def test_three_steps(dtype: Any, shuffled_blocks: None) -> None:
    device = Device(dtype)
    losses, parameters = device.train()
    expected_losses, parts = reference(device)
    s.check(losses[:, 0], expected_losses, 64 * tolerances.unit(dtype) * np.abs(expected_losses), "losses")
    for index, part in enumerate(parts):
        block = parameters[device.at[index] : device.at[index + 1]].reshape(-1, padded(part.shape[-1]))
        assert (block[:, part.shape[-1] :] == 0).all(), "padding of the parameters must stay zero"
        # Adam divides by the gradient's own size: where a gradient is nearly zero its rounding error moves a parameter
        # by a share of the rate, so that the bound is absolute.
        bound = np.full(part.size, 64 * tolerances.unit(dtype))
        s.check(block[:, : part.shape[-1]].reshape(-1), part.reshape(-1), bound, f"parameters {index}")


def test_same_bits_twice_and_in_any_order(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    in_order = Device(np.float32).train()
    request.getfixturevalue("shuffled_blocks")
    shuffled = Device(np.float32).train()
    assert in_order[0].tobytes() == shuffled[0].tobytes()
    assert in_order[1].tobytes() == shuffled[1].tobytes()
