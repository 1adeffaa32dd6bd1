"""The output layer: the fused head for up to 16 classes, the wide output, and loss and delta of given net inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.ops import OutputLayer, Outputs
from gpuprop.core.parameters import Parameters
from gpuprop.maths.activations import get_activation
from gpuprop.maths.losses import get_loss
from gpuprop.measure.bench.kernels.base import RELU, Kernel, on_host, one_hot
from gpuprop.measure.bench.measure import Contender
from gpuprop.measure.bench.roofline import Work
from gpuprop.measure.equivalence import oracle, tolerances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda.ops import CudaOps
    from gpuprop.core.ops import Ops

__all__ = ["Head", "Rows", "Wide"]

SOFTMAX = get_activation("softmax", output=True)
CROSS_ENTROPY = get_loss("categorical_cross_entropy")
OUTPUT = OutputLayer(SOFTMAX, CROSS_ENTROPY, "class")


def _bound(dtype: np.dtype[Any], expected: NDArray[Any]) -> NDArray[Any]:
    """Return the bound on deltas, by the largest of them: all come from exponentials of the same order."""
    return tolerances.elementwise_bound("pass", 0 * expected, dtype, scale=float(np.abs(expected).max()))


class Head(Kernel):
    """Last layer, softmax, cross-entropy, its delta, and the delta of the last hidden layer (relu)."""

    name = "head"
    formula = "softmax(x W + b), loss, d, (d W^T) * relu'(x)"
    shapes = ((128, 128, 10), (256, 512, 10), (1024, 1024, 10))

    def _operands(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        return {
            "x": np.maximum(self._normal(rng, self.n, self.n_in), 0),
            "w": self._normal(rng, self.n_in, self.n_out) / self.dtype.type(self.n_in**0.5),
            "b": self._normal(rng, self.n_out),
            "y": one_hot(rng, self.n, self.n_out, self.dtype),
        }

    @property
    def work(self) -> Work:
        n, k, m = self.shape
        return Work(4.0 * n * k * m, self._bytes(2 * n * k, k * m, m, 2 * n * m))

    def expected(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        x, w, b, y = (self.host[name].astype(np.float64) for name in ("x", "w", "b", "y"))
        d = oracle.output_delta(CROSS_ENTROPY.name, "softmax", x @ w + b, y)
        hidden = (d @ w.T) * (x > 0)
        return {"d": (d, _bound(self.dtype, d)), "hidden": (hidden, _bound(self.dtype, hidden))}

    def _layer(self, ops: Ops) -> Parameters:
        flat = np.concatenate([self.host["w"].ravel(), self.host["b"]])
        return Parameters.on_device(ops, flat, (self.n_in, self.n_out))

    def primitive(self, ops: Ops) -> Contender:
        (x, y), layer = (ops.asarray(self.host[name], self.dtype) for name in ("x", "y")), self._layer(ops)
        z, a, d = (ops.empty((self.n, self.n_out), self.dtype) for _ in range(3))
        hidden, totals = ops.empty((self.n, self.n_in), self.dtype), ops.asarray(np.zeros(2), np.float64)

        def run() -> None:
            ops.forward(x, layer.weights[0], layer.biases[0], SOFTMAX, z, a)
            ops.output_delta(Outputs(z, a, y, None), OUTPUT, float(self.n), d, totals)
            ops.hidden_delta(d, layer.weights[0], RELU, x, None, hidden)

        return Contender("gpuprop", run, lambda: {"d": ops.to_numpy(d), "hidden": ops.to_numpy(hidden)})

    def launch(self, ops: CudaOps) -> Contender:
        from gpuprop.backends.cuda.translation import kernel_activation
        from gpuprop_kernels import launch
        from gpuprop_kernels.optimizers import update_scalars

        x, y = (ops.flat(ops.asarray(self.host[name], self.dtype)) for name in ("x", "y"))
        flat, n_weights = self._layer(ops).flat, self.n_in * launch.padded(self.n_out)
        w, b, shape = ops.flat(flat[:n_weights]), ops.flat(flat[n_weights:]), launch.head_rows()
        n_blocks = launch.blocks(self.n, shape.rows)
        d, hidden = ops.empty((self.n, self.n_out), self.dtype), ops.empty((self.n, self.n_in), self.dtype)
        d_out, hidden_out = ops.flat(d), ops.flat(hidden)
        sums, hidden_sums = (ops.flat(ops.empty((n_blocks, m), self.dtype)) for m in (self.n_out, self.n_in))
        losses = ops.flat(ops.empty(2 * n_blocks, self.dtype))
        scalars = ops.constant(update_scalars("sgd", 0.0, 1, inverse_weight=1 / self.n), self.dtype)
        batch = ops.batch(self.n, ops.constant(np.arange(self.n), np.int32))
        softmax, relu = kernel_activation(SOFTMAX), kernel_activation(RELU)
        return Contender(
            "gpuprop",
            lambda: launch.output_head(
                x, w, b, y, None, d_out, sums, losses, x, hidden_out, hidden_sums, scalars, batch, output=softmax,
                loss=CROSS_ENTROPY.name, metric="class", hidden=relu, n_in=self.n_in, n_out=self.n_out,
                targets_ld=launch.padded(self.n_out), shape=shape,
            ),
            lambda: {"d": ops.to_numpy(d), "hidden": ops.to_numpy(hidden)},
            capturable=True,
        )  # fmt: skip

    def composed(self, xp: Any) -> Contender:
        x, w, b, y = (xp.asarray(self.host[name]) for name in ("x", "w", "b", "y"))
        d = hidden = loss = x

        def run() -> None:
            nonlocal d, hidden, loss
            d, loss = _softmax_delta(xp, x @ w + b, y)
            hidden = (d @ w.T) * (x > 0)

        return Contender(f"{xp.__name__} calls", run, lambda: on_host(d=d, hidden=hidden))


class Wide(Head):
    """Last layer, softmax, cross-entropy and delta, for any number of classes; the hidden delta is another launch."""

    name = "wide"
    formula = "softmax(x W + b), loss, d"
    shapes = ((128, 128, 100), (256, 512, 100), (1024, 1024, 1000))

    @property
    def work(self) -> Work:
        n, k, m = self.shape
        return Work(2.0 * n * k * m, self._bytes(n * k, k * m, m, 2 * n * m))

    def expected(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        return {"d": super().expected()["d"]}

    def primitive(self, ops: Ops) -> Contender:
        (x, y), layer = (ops.asarray(self.host[name], self.dtype) for name in ("x", "y")), self._layer(ops)
        z, a, d = (ops.empty((self.n, self.n_out), self.dtype) for _ in range(3))
        totals = ops.asarray(np.zeros(2), np.float64)

        def run() -> None:
            ops.forward(x, layer.weights[0], layer.biases[0], SOFTMAX, z, a)
            ops.output_delta(Outputs(z, a, y, None), OUTPUT, float(self.n), d, totals)

        return Contender("gpuprop", run, lambda: {"d": ops.to_numpy(d)})

    def launch(self, ops: CudaOps) -> Contender:
        from gpuprop.backends.cuda.translation import kernel_activation
        from gpuprop_kernels import launch
        from gpuprop_kernels.optimizers import update_scalars

        x, y = (ops.flat(ops.asarray(self.host[name], self.dtype)) for name in ("x", "y"))
        flat, n_weights = self._layer(ops).flat, self.n_in * launch.padded(self.n_out)
        w, b, tile = ops.flat(flat[:n_weights]), ops.flat(flat[n_weights:]), ops.tile(self.n, self.n_out, self.dtype)
        n_blocks = launch.blocks(self.n, tile.rows)
        d = ops.empty((self.n, self.n_out), self.dtype)
        z, out = ops.flat(ops.empty((self.n, self.n_out), self.dtype)), ops.flat(d)
        sums, losses = (ops.flat(ops.empty((n_blocks, m), self.dtype)) for m in (self.n_out, 4))
        counts = ops.flat(ops.asarray(np.zeros(n_blocks), np.uint32))
        scalars = ops.constant(update_scalars("sgd", 0.0, 1, inverse_weight=1 / self.n), self.dtype)
        batch = ops.batch(self.n, ops.constant(np.arange(self.n), np.int32))
        softmax = kernel_activation(SOFTMAX)
        return Contender(
            "gpuprop",
            lambda: launch.wide_output(
                x, w, b, z, y, None, out, sums, losses, counts, scalars, batch, output=softmax,
                loss=CROSS_ENTROPY.name, metric="class", n_in=self.n_in, n_out=self.n_out,
                targets_ld=launch.padded(self.n_out), tile=tile,
            ),
            lambda: {"d": ops.to_numpy(d)},
            capturable=True,
        )  # fmt: skip

    def composed(self, xp: Any) -> Contender:
        x, w, b, y = (xp.asarray(self.host[name]) for name in ("x", "w", "b", "y"))
        d = loss = x

        def run() -> None:
            nonlocal d, loss
            d, loss = _softmax_delta(xp, x @ w + b, y)

        return Contender(f"{xp.__name__} calls", run, lambda: on_host(d=d))


class Rows(Kernel):
    """Loss and delta from net inputs, for more classes than the fused head can take."""

    name = "rows"
    formula = "softmax(z), loss, d"
    shapes = ((128, 1, 100), (1024, 1, 1000))

    def _operands(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        return {"z": self._normal(rng, self.n, self.n_out), "y": one_hot(rng, self.n, self.n_out, self.dtype)}

    @property
    def work(self) -> Work:
        return Work(8.0 * self.n * self.n_out, self._bytes(3 * self.n * self.n_out))

    def expected(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        z, y = (self.host[name].astype(np.float64) for name in ("z", "y"))
        d = oracle.output_delta(CROSS_ENTROPY.name, "softmax", z, y)
        return {"d": (d, _bound(self.dtype, d))}

    def primitive(self, ops: Ops) -> Contender:
        z, y = (ops.asarray(self.host[name], self.dtype) for name in ("z", "y"))
        a = ops.asarray(oracle.activate("softmax", self.host["z"].astype(np.float64)), self.dtype)
        d, totals = ops.empty((self.n, self.n_out), self.dtype), ops.asarray(np.zeros(2), np.float64)
        return Contender(
            "gpuprop",
            lambda: ops.output_delta(Outputs(z, a, y, None), OUTPUT, float(self.n), d, totals),
            lambda: {"d": ops.to_numpy(d)},
        )

    def launch(self, ops: CudaOps) -> Contender:
        from gpuprop.backends.cuda.translation import kernel_activation
        from gpuprop_kernels import launch
        from gpuprop_kernels.optimizers import update_scalars

        z, y = (ops.flat(ops.asarray(self.host[name], self.dtype)) for name in ("z", "y"))
        d = ops.empty((self.n, self.n_out), self.dtype)
        out, losses = ops.flat(d), ops.flat(ops.empty(2 * self.n, self.dtype))
        scalars = ops.constant(update_scalars("sgd", 0.0, 1, inverse_weight=1 / self.n), self.dtype)
        batch = ops.batch(self.n, ops.constant(np.arange(self.n), np.int32))
        softmax = kernel_activation(SOFTMAX)
        return Contender(
            "gpuprop",
            lambda: launch.loss_rows(
                z, y, None, out, losses, scalars, batch, output=softmax, loss=CROSS_ENTROPY.name, metric="class",
                n_out=self.n_out, targets_ld=launch.padded(self.n_out),
            ),
            lambda: {"d": ops.to_numpy(d)},
            capturable=True,
        )  # fmt: skip

    def composed(self, xp: Any) -> Contender:
        z, y = (xp.asarray(self.host[name]) for name in ("z", "y"))
        d = loss = z

        def run() -> None:
            nonlocal d, loss
            d, loss = _softmax_delta(xp, z, y)

        return Contender(f"{xp.__name__} calls", run, lambda: on_host(d=d))


def _softmax_delta(xp: Any, z: Any, y: Any) -> tuple[Any, Any]:
    """Return delta and loss, written in the straightforward way."""
    shifted = z - z.max(axis=1, keepdims=True)
    e = xp.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    loss = -(y * (shifted - xp.log(total))).sum()
    return (e / total - y) / z.dtype.type(len(z)), loss
