"""Hidden delta: ``d = (d_next W^T) * f'(a)``, with the column sums that are the biases' gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.measure.bench.kernels.base import RELU, Kernel, on_host
from gpuprop.measure.bench.measure import Contender
from gpuprop.measure.bench.roofline import Work
from gpuprop.measure.equivalence import tolerances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda.ops import CudaOps
    from gpuprop.core.ops import Ops

__all__ = ["Delta"]


class Delta(Kernel):
    """Inputs are the units of the layer, outputs those of the layer above."""

    name = "delta"
    formula = "d = (d_next W^T) * relu'(a), column sums"
    rounds_operands = True
    shapes = ((128, 512, 128), (256, 512, 512), (1024, 1024, 1024))

    def _operands(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        return {
            "next": self._normal(rng, self.n, self.n_out),
            "w": self._normal(rng, self.n_in, self.n_out),
            "a": np.maximum(self._normal(rng, self.n, self.n_in), 0),
        }

    @property
    def work(self) -> Work:
        n, k, m = self.shape
        return Work(2.0 * n * k * m, self._bytes(n * m, k * m, n * k, n * k))

    def expected(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        following, w, a = (self.host[name].astype(np.float64) for name in ("next", "w", "a"))
        bound = tolerances.product_bound(np.abs(following) @ np.abs(w).T, self.n_out, self.dtype, self.precision)
        return {"d": ((following @ w.T) * (a > 0), bound)}

    def primitive(self, ops: Ops) -> Contender:
        following, w, a = (ops.asarray(self.host[name], self.dtype) for name in ("next", "w", "a"))
        d = ops.empty((self.n, self.n_in), self.dtype)
        return Contender(
            "gpuprop", lambda: ops.hidden_delta(following, w, RELU, a, None, d), lambda: {"d": ops.to_numpy(d)}
        )

    def launch(self, ops: CudaOps) -> Contender:
        from gpuprop.backends.cuda.translation import kernel_activation
        from gpuprop_kernels import launch

        following, w, a = (ops.flat(ops.asarray(self.host[name], self.dtype)) for name in ("next", "w", "a"))
        d, tile = ops.empty((self.n, self.n_in), self.dtype), ops.tile(self.n, self.n_in, self.dtype)
        out, sums = ops.flat(d), ops.flat(ops.empty((launch.blocks(self.n, tile.rows), self.n_in), self.dtype))
        batch = ops.batch(self.n, ops.constant(np.arange(self.n), np.int32))
        activation = kernel_activation(RELU)
        return Contender(
            "gpuprop",
            lambda: launch.hidden_delta(
                following, w, a, out, sums, batch, activation=activation, n_units=self.n_in, n_next=self.n_out,
                tile=tile,
            ),
            lambda: {"d": ops.to_numpy(d)},
            capturable=True,
        )  # fmt: skip

    def composed(self, xp: Any) -> Contender:
        following, w, a = (xp.asarray(self.host[name]) for name in ("next", "w", "a"))
        d = sums = a

        def run() -> None:
            nonlocal d, sums
            d = (following @ w.T) * (a > 0)
            sums = d.sum(axis=0)

        return Contender(f"{xp.__name__} calls", run, lambda: on_host(d=d))

    def product(self, xp: Any) -> Contender | None:
        following, w = (xp.asarray(self.host[name]) for name in ("next", "w"))
        error = xp.empty((self.n, self.n_in), self.dtype)
        return Contender(f"{xp.__name__} product alone", lambda: xp.matmul(following, w.T, out=error), dict)
