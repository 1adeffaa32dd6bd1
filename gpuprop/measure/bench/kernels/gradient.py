"""Gradients: ``gW = a^T d`` and ``gb = sum d``, outer products accumulated over the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.parameters import Parameters
from gpuprop.measure.bench.kernels.base import Kernel, on_host
from gpuprop.measure.bench.measure import Contender
from gpuprop.measure.bench.roofline import Work
from gpuprop.measure.equivalence import tolerances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda.ops import CudaOps
    from gpuprop.core.ops import Ops

__all__ = ["Gradient"]


class Gradient(Kernel):
    """One layer; a training's launch takes all layers at once."""

    name = "gradient"
    formula = "gW = a^T d, gb = sum d"
    rounds_operands = True

    def _operands(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        return {"a": self._normal(rng, self.n, self.n_in), "d": self._normal(rng, self.n, self.n_out)}

    @property
    def work(self) -> Work:
        n, k, m = self.shape
        return Work(2.0 * n * k * m, self._bytes(n * k, n * m, k * m, m))

    def expected(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        a, d = (self.host[name].astype(np.float64) for name in ("a", "d"))
        of_weights = tolerances.product_bound(np.abs(a).T @ np.abs(d), self.n, self.dtype, self.precision)
        return {
            "gW": (a.T @ d, of_weights),
            "gb": (d.sum(axis=0), tolerances.product_bound(np.abs(d).sum(axis=0), self.n, self.dtype)),
        }

    def _gradients(self, ops: Ops) -> Parameters:
        sizes = (self.n_in, self.n_out)
        return Parameters.on_device(ops, np.zeros(Parameters.count(sizes), self.dtype), sizes)

    @staticmethod
    def _read(ops: Ops, gradients: Parameters) -> dict[str, NDArray[Any]]:
        host = Parameters(gradients.to_host(ops), gradients.layer_sizes)
        return {"gW": host.weights[0], "gb": host.biases[0]}

    def primitive(self, ops: Ops) -> Contender:
        a, d = (ops.asarray(self.host[name], self.dtype) for name in ("a", "d"))
        out = self._gradients(ops)
        return Contender(
            "gpuprop",
            lambda: ops.accumulate_gradient(a, d, out.weights[0], out.biases[0], accumulate=False),
            lambda: self._read(ops, out),
        )

    def launch(self, ops: CudaOps) -> Contender:
        from gpuprop_kernels import launch
        from gpuprop_kernels.gradient import GradientJob, job_table
        from gpuprop_kernels.optimizers import SCALARS

        # Activations and deltas are in one workspace, as in a training. The kernel adds up column sums of blocks to the
        # gradient of the biases; here each row of d is a block of its own.
        a, d = (np.pad(self.host[name], ((0, 0), (0, -self.host[name].shape[1] % 8))).ravel() for name in ("a", "d"))
        workspace = ops.flat(ops.asarray(np.concatenate([a, d]), self.dtype))
        n_weights = self.n_in * launch.padded(self.n_out)
        job = GradientJob(self.n_in, self.n_out, 0, a.size, a.size, self.n, 0, n_weights)
        tile = ops.tile(self.n_in, self.n_out, self.dtype)
        table, n_blocks = job_table([job], tile)
        jobs, scalars = ops.constant(table, np.int32), ops.constant(np.zeros(SCALARS), self.dtype)
        result = self._gradients(ops)
        out, batch = ops.flat(result.flat), ops.batch(self.n, ops.constant(np.arange(self.n), np.int32))
        return Contender(
            "gpuprop",
            lambda: launch.accumulate_gradients(
                None, workspace, out, out, jobs, scalars, batch, mode="store", tile=tile, n_jobs=2, n_blocks=n_blocks
            ),
            lambda: self._read(ops, result),
            capturable=True,
        )

    def composed(self, xp: Any) -> Contender:
        a, d = (xp.asarray(self.host[name]) for name in ("a", "d"))
        weights = biases = a

        def run() -> None:
            nonlocal weights, biases
            weights, biases = a.T @ d, d.sum(axis=0)

        return Contender(f"{xp.__name__} calls", run, lambda: on_host(gW=weights, gb=biases))

    def product(self, xp: Any) -> Contender | None:
        a, d = (xp.asarray(self.host[name]) for name in ("a", "d"))
        out = xp.empty((self.n_in, self.n_out), self.dtype)
        return Contender(f"{xp.__name__} product alone", lambda: xp.matmul(a.T, d, out=out), dict)
