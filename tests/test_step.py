"""The primitives keep their contracts, and the step made of them is the algorithm."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends.cpu.ops import CpuOps
from gpuprop.backends.numpy.ops import NumpyOps
from gpuprop.core import step
from gpuprop.core.ops import Dropping, Ops, OutputLayer, Outputs
from gpuprop.core.parameters import Parameters
from gpuprop.core.plan import Backend
from gpuprop.core.rule import UpdateRule
from gpuprop.core.updates import Batch, Moment
from gpuprop.core.workspace import TrainingWorkspace
from gpuprop.maths.activations import get_activation
from gpuprop.maths.losses import get_loss
from gpuprop.maths.optimizers import get_optimizer
from tests.references.network import loss_and_gradients

DTYPES = ["float32", "float64"]
BACKENDS = [NumpyOps, CpuOps]


def primitives(cls: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_backends_have_the_same_primitives(backend: type) -> None:
    assert primitives(backend) == primitives(Backend)
    assert len(primitives(Backend)) == 17  # a closed set: a new primitive is a decision, not an accident


class Frozen:
    """Copies of arrays, to show that a primitive left them alone."""

    def __init__(self, *arrays: Any) -> None:
        self.pairs = [(array, array.copy()) for array in arrays]

    def check(self) -> None:
        for array, copy in self.pairs:
            np.testing.assert_array_equal(array, copy)


def poisoned(shape: Any, dtype: str) -> Any:
    return np.full(shape, np.nan, dtype)


@pytest.mark.parametrize("ops", [backend() for backend in BACKENDS], ids=lambda ops: type(ops).__name__)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 7, 33])
class TestPrimitivesWriteTheirOutputsAndNothingElse:
    def test_take_batch(self, ops: Ops, n: int, dtype: str) -> None:
        rng = np.random.default_rng(0)
        data = rng.integers(0, 256, (40, 5)).astype(np.uint8)
        order, out = rng.permutation(40).astype(np.int32), poisoned((n, 5), dtype)
        scaling = gpuprop.InputScaling([1, 2, 3, 4, 5], 0.5)
        frozen = Frozen(data, order)
        ops.take_batch(data, order, 3, scaling, out)
        np.testing.assert_allclose(out, (data[order[3 : 3 + n]] - np.arange(1.0, 6.0)) * 0.5)
        frozen.check()

    def test_drop(self, ops: Ops, n: int, dtype: str) -> None:
        a = np.random.default_rng(0).normal(size=(n, 7)).astype(dtype)
        mask, out, frozen = poisoned(a.shape, dtype), poisoned(a.shape, dtype), Frozen(a)
        ops.drop(a, Dropping(0.75, 5, 1, 2, 0), mask, out)
        assert set(np.unique(mask)) <= {0.0, 4.0}
        np.testing.assert_array_equal(out, a * mask)
        frozen.check()

    @pytest.mark.parametrize("name", ["tanh", "gelu"])
    def test_forward(self, ops: Ops, n: int, dtype: str, name: str) -> None:
        rng = np.random.default_rng(0)
        x, w, b = (rng.normal(size=shape).astype(dtype) for shape in [(n, 5), (5, 3), (3,)])
        z, out, frozen = poisoned((n, 3), dtype), poisoned((n, 3), dtype), Frozen(x, w, b)
        activation = get_activation(name)
        ops.forward(x, w, b, activation, z, out)
        np.testing.assert_allclose(z, x.astype(float) @ w + b, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(out, activation.function(z), rtol=32 * float(np.finfo(dtype).eps))
        alone = poisoned((n, 3), dtype)
        ops.forward(x, w, b, activation, None, alone)
        np.testing.assert_array_equal(alone, out)
        frozen.check()

    @pytest.mark.parametrize("weighted", [False, True])
    def test_output_delta(self, ops: Ops, n: int, dtype: str, weighted: bool) -> None:
        rng = np.random.default_rng(0)
        z, y = (rng.normal(size=(n, 3)).astype(dtype) for _ in range(2))
        weight = rng.random(n).astype(dtype)
        a, delta, totals = z.copy(), poisoned((n, 3), dtype), np.array([10.0, 20.0])
        frozen = Frozen(z, a, y, weight)
        layer = OutputLayer(get_activation("identity"), get_loss("squared_error"), "residual")
        ops.output_delta(Outputs(z, a, y, weight if weighted else None), layer, 4.0, delta, totals)
        w = weight[:, None] if weighted else 1.0
        np.testing.assert_allclose(delta, w * (z - y) / 4, rtol=1e-6)
        squares = float((w * (z.astype(float) - y) ** 2).sum())
        np.testing.assert_allclose(totals, [10 + squares / 2, 20 + squares], rtol=1e-6)
        frozen.check()

    def test_output_delta_of_a_batch_without_weight(self, ops: Ops, n: int, dtype: str) -> None:
        z, y, delta, totals = np.ones((n, 3), dtype), np.zeros((n, 3), dtype), poisoned((n, 3), dtype), np.zeros(2)
        layer = OutputLayer(get_activation("identity"), get_loss("squared_error"), "residual")
        ops.output_delta(Outputs(z, z, y, np.zeros(n, dtype)), layer, 0.0, delta, totals)
        assert not delta.any()
        assert not totals.any()

    def test_hidden_delta(self, ops: Ops, n: int, dtype: str) -> None:
        rng = np.random.default_rng(0)
        delta, w, a = (rng.normal(size=shape).astype(dtype) for shape in [(n, 3), (5, 3), (n, 5)])
        mask = rng.integers(0, 2, (n, 5)).astype(dtype) * 2
        out, frozen = poisoned((n, 5), dtype), Frozen(delta, w, a, mask)
        tanh = get_activation("tanh")
        ops.hidden_delta(delta, w, tanh, a, None, out)
        expected = (delta.astype(float) @ w.T.astype(float)) * (1 - a.astype(float) ** 2)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
        masked = poisoned((n, 5), dtype)
        ops.hidden_delta(delta, w, tanh, a, mask, masked)
        np.testing.assert_allclose(masked, out * mask, rtol=1e-6)
        frozen.check()

    def test_accumulate_gradient(self, ops: Ops, n: int, dtype: str) -> None:
        rng = np.random.default_rng(0)
        x, delta = rng.normal(size=(n, 5)).astype(dtype), rng.normal(size=(n, 3)).astype(dtype)
        wg, bg, frozen = poisoned((5, 3), dtype), poisoned(3, dtype), Frozen(x, delta)
        ops.accumulate_gradient(x, delta, wg, bg, accumulate=False)
        outer = sum(np.outer(x[i].astype(float), delta[i]) for i in range(n))
        np.testing.assert_allclose(wg, outer, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(bg, delta.sum(axis=0), rtol=1e-5, atol=1e-5)
        once = wg.copy()
        ops.accumulate_gradient(x, delta, wg, bg, accumulate=True)
        np.testing.assert_allclose(wg, 2 * once, rtol=1e-6)
        frozen.check()

    def test_add_penalty(self, ops: Ops, n: int, dtype: str) -> None:
        rng = np.random.default_rng(0)
        sizes = (n, 3, 2)
        parameters, gradients = (
            Parameters(rng.normal(size=Parameters.count(sizes)).astype(dtype), sizes) for _ in range(2)
        )
        before, frozen, totals = gradients.flat.copy(), Frozen(parameters.flat, *gradients.biases), np.zeros(2)
        ops.add_penalty(parameters, gradients, 0.25, 0.5, 3.0, totals)
        w = parameters.flat[: parameters.n_weights].astype(float)
        added = (gradients.flat - before)[: parameters.n_weights]
        np.testing.assert_allclose(added, 0.25 * np.sign(w) + 0.5 * w, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(totals, [3 * (0.25 * np.abs(w).sum() + 0.25 * (w**2).sum()), 0], rtol=1e-5)
        frozen.check()


def test_take_batch_of_targets_and_weights() -> None:
    ops = NumpyOps()
    out = np.empty(3, np.float32)
    ops.take_batch(np.arange(10, dtype=np.float32), np.array([9, 8, 7, 6], np.int32), 1, None, out)
    np.testing.assert_array_equal(out, [8, 7, 6])


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("max_norm", [None, 0.6])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_training_steps_agree_with_the_reference(optimizer: str, max_norm: float | None, clip: float | None) -> None:
    """Ten steps on ragged batches against per-sample loops and the optimizers' formulas."""
    rng = np.random.default_rng(0)
    net = gpuprop.Network((4, 7, 3), hidden_activation="tanh", dtype="float64", seed=0, l1=0.01, l2=0.02)
    X, y, weight = rng.normal(size=(17, 4)), rng.normal(size=(17, 3)), rng.random(17) + 0.1
    data = net.prepare(X, y, weight)
    rule_optimizer = get_optimizer(optimizer)
    n = net.n_parameters
    rule = UpdateRule(
        rule_optimizer, {slot: np.zeros(n) for slot in rule_optimizer.slots}, (np.zeros(n),), clip, max_norm
    )
    work = TrainingWorkspace(net.ops, net.spec, 5)
    order = rng.permutation(17).astype(np.int32)
    flat = net.parameters.copy()
    velocity, friction = np.zeros(n), 0.9 if optimizer == "momentum" else 0.0
    for index in range(10):
        start = (index % 4) * 5
        rows = order[start : start + 5]
        stop = start + len(rows)
        batch = Batch(data, order, start, stop, float(weight[rows].sum()))
        step.training_step(net.layers, work, batch, rule, Moment(0.05, index, 1.0))
        twin = Parameters(flat, net.layer_sizes)
        _, weight_grads, bias_grads = loss_and_gradients(
            twin.weights, twin.biases, ["tanh", "identity"], "squared_error", X[rows], y[rows], weight[rows], 0.01, 0.02
        )
        gradient = np.concatenate([g.ravel() for g in [*weight_grads, *bias_grads]])
        norm = np.sqrt((gradient**2).sum())
        if clip is not None and norm > clip:
            gradient *= clip / norm
        velocity = friction * velocity - 0.05 * gradient
        flat = flat + velocity
        if max_norm is not None:
            for w in Parameters(flat, net.layer_sizes).weights:
                norms = np.sqrt((w**2).sum(axis=0))
                w *= np.minimum(1.0, max_norm / norms)
        np.testing.assert_allclose(net.parameters, flat, rtol=1e-9, atol=1e-12)


def test_deltas_are_formed_with_the_weights_as_they_were() -> None:
    """The gradient of one step does not depend on the update: its first layer is the gradient at the old weights."""
    rng = np.random.default_rng(0)
    net = gpuprop.Network((4, 7, 3), hidden_activation="logistic", dtype="float64", seed=0)
    X, y = rng.normal(size=(5, 4)), rng.normal(size=(5, 3))
    before = [w.copy() for w in net.weights]
    expected = net.loss_and_gradients(X, y)[1]
    gpuprop.Trainer(net, optimizer="sgd", learning_rate=0.5, epochs=1, batch_size=5, shuffle=False).fit(X, y)
    for old, new, gradient in zip(before, net.weights, expected, strict=True):
        np.testing.assert_allclose(new, old - 0.5 * gradient, rtol=1e-12, atol=1e-15)
