"""Forward: ``a = relu(x W + b)`` of a hidden layer, and of the first one, which gathers and scales rows of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.parameters import Parameters
from gpuprop.maths.scaling import InputScaling
from gpuprop.measure.bench.kernels.base import RELU, Kernel, on_host
from gpuprop.measure.bench.measure import Contender
from gpuprop.measure.bench.roofline import Work
from gpuprop.measure.equivalence import tolerances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda.ops import CudaOps
    from gpuprop.core.ops import Ops

__all__ = ["Forward", "Gather"]

SAMPLES = 10_000
PIXELS = InputScaling.divide(255)


class Forward(Kernel):
    """A hidden layer."""

    name = "forward"
    formula = "a = relu(x W + b)"
    rounds_operands = True

    def _operands(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        w = self._normal(rng, self.n_in, self.n_out) / self.dtype.type(self.n_in**0.5)
        return {"x": self._normal(rng, self.n, self.n_in), "w": w, "b": self._normal(rng, self.n_out)}

    @property
    def work(self) -> Work:
        n, k, m = self.shape
        return Work(2.0 * n * k * m, self._bytes(n * k, k * m, m, n * m))

    def _rows(self) -> NDArray[np.float64]:
        return np.asarray(self.host["x"], np.float64)

    def expected(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        x, w, b = self._rows(), self.host["w"].astype(np.float64), self.host["b"].astype(np.float64)
        bound = tolerances.product_bound(np.abs(x) @ np.abs(w) + np.abs(b), self.n_in, self.dtype, self.precision)
        return {"a": (np.maximum(x @ w + b, 0), bound)}

    def _layer(self, ops: Ops) -> Parameters:
        flat = np.concatenate([self.host["w"].ravel(), self.host["b"]])
        return Parameters.on_device(ops, flat, (self.n_in, self.n_out))

    def primitive(self, ops: Ops) -> Contender:
        x, layer = ops.asarray(self.host["x"], self.dtype), self._layer(ops)
        a = ops.empty((self.n, self.n_out), self.dtype)
        return Contender(
            "gpuprop",
            lambda: ops.forward(x, layer.weights[0], layer.biases[0], RELU, None, a),
            lambda: {"a": ops.to_numpy(a)},
        )

    def _inputs(self, ops: CudaOps) -> tuple[Any, Any]:
        """Return the inputs of the kernel, and the order of their rows."""
        x = ops.flat(ops.asarray(self.host["x"], self.dtype))
        return x, ops.constant(np.arange(self.n), np.int32)

    def launch(self, ops: CudaOps) -> Contender:
        from gpuprop.backends.cuda.translation import kernel_activation
        from gpuprop_kernels import launch

        (x, order), flat = self._inputs(ops), self._layer(ops).flat
        n_weights = self.n_in * launch.padded(self.n_out)
        w, b = ops.flat(flat[:n_weights]), ops.flat(flat[n_weights:])
        a, batch = ops.empty((self.n, self.n_out), self.dtype), ops.batch(self.n, order)
        tile, activation, out = ops.tile(self.n, self.n_out, self.dtype), kernel_activation(RELU), ops.flat(a)
        return Contender(
            "gpuprop",
            lambda: launch.forward_layer(
                x, w, b, out, batch, activation=activation, n_in=self.n_in, n_out=self.n_out, tile=tile
            ),
            lambda: {"a": ops.to_numpy(a)},
            capturable=True,
        )

    def composed(self, xp: Any) -> Contender:
        x, w, b, a = (xp.asarray(self.host[name]) for name in ("x", "w", "b", "w"))

        def run() -> None:
            nonlocal a
            a = xp.maximum(x @ w + b, 0)

        return Contender(f"{xp.__name__} calls", run, lambda: on_host(a=a))

    def product(self, xp: Any) -> Contender | None:
        x, w = xp.asarray(self._rows().astype(self.dtype)), xp.asarray(self.host["w"])
        z = xp.empty((self.n, self.n_out), self.dtype)
        return Contender(f"{xp.__name__} product alone", lambda: xp.matmul(x, w, out=z), dict)


class Gather(Forward):
    """The first layer."""

    name = "gather"
    formula = "a = relu((data[order] / 255) W + b), data uint8"
    shapes = ((128, 784, 128), (256, 784, 512), (1024, 784, 1024))

    def _operands(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        operands = super()._operands(rng)
        operands["data"] = rng.integers(0, 256, (SAMPLES, self.n_in)).astype(np.uint8)
        operands["order"] = rng.permutation(SAMPLES)[: self.n].astype(np.int32)
        return operands

    @property
    def work(self) -> Work:
        n, k, m = self.shape
        return Work(2.0 * n * k * m, n * k + self._bytes(k * m, m, n * m))

    def _rows(self) -> NDArray[np.float64]:
        return np.asarray(self.host["data"][self.host["order"]] / 255.0)

    def primitive(self, ops: Ops) -> Contender:
        data, order = ops.asarray(self.host["data"], np.uint8), ops.asarray(self.host["order"], np.int32)
        layer = self._layer(ops)
        x, a = (ops.empty((self.n, width), self.dtype) for width in (self.n_in, self.n_out))

        def run() -> None:
            ops.take_batch(data, order, 0, PIXELS, x)
            ops.forward(x, layer.weights[0], layer.biases[0], RELU, None, a)

        return Contender("gpuprop", run, lambda: {"a": ops.to_numpy(a)})

    def _inputs(self, ops: CudaOps) -> tuple[Any, Any]:
        data = ops.asarray(self.host["data"], np.uint8)
        return ops.rows(data, PIXELS, self.dtype), ops.constant(self.host["order"], np.int32)

    def composed(self, xp: Any) -> Contender:
        data, order, w, b, a = (xp.asarray(self.host[name]) for name in ("data", "order", "w", "b", "w"))
        scale = xp.asarray(1 / 255, self.dtype)

        def run() -> None:
            nonlocal a
            a = xp.maximum((data[order].astype(self.dtype) * scale) @ w + b, 0)

        return Contender(f"{xp.__name__} calls", run, lambda: on_host(a=a))
