"""Update: Adam on the flat buffer of all parameters; and the limit on the incoming weights of each unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.parameters import Parameters
from gpuprop.core.rule import UpdateRule
from gpuprop.maths.optimizers import Adam, limit_incoming_norm
from gpuprop.measure.bench.kernels.base import Kernel, on_host
from gpuprop.measure.bench.measure import Contender
from gpuprop.measure.bench.roofline import Work
from gpuprop.measure.equivalence import oracle, tolerances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda.ops import CudaOps
    from gpuprop.core.ops import Ops

__all__ = ["MaxNorm", "Update"]

RATE = 1e-3


class Update(Kernel):
    """A layer's parameters, their gradients and two moments."""

    name = "update"
    formula = "Adam: m, v, p from p, g, m, v"
    cold = True

    @property
    def _sizes(self) -> tuple[int, int]:
        return self.n_in, self.n_out

    def _operands(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        count = Parameters.count(self._sizes)
        return {name: self._normal(rng, count) for name in ("p", "g")}

    @property
    def work(self) -> Work:
        count = Parameters.count(self._sizes)
        return Work(12.0 * count, self._bytes(7 * count))

    def expected(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        p, g = (self.host[name].astype(np.float64) for name in ("p", "g"))
        p = oracle.optimize("adam", p, g, oracle.optimizer_state("adam", p.size), RATE, 1, p.size)
        return {"p": (p, tolerances.elementwise_bound("optimizer", p, self.dtype, scale=1.0))}

    def _on_device(self, ops: Ops) -> tuple[Parameters, Parameters]:
        p, g = (Parameters.on_device(ops, self.host[name].copy(), self._sizes) for name in ("p", "g"))
        return p, g

    def primitive(self, ops: Ops) -> Contender:
        adam, (p, g) = Adam(), self._on_device(ops)
        state = {slot: ops.asarray(np.zeros(p.flat.size), self.dtype) for slot in adam.slots}
        scratch = tuple(ops.asarray(np.zeros(p.flat.size), self.dtype) for _ in range(max(1, adam.scratch_arrays)))
        return Contender(
            "gpuprop",
            lambda: ops.update(p, g, UpdateRule(adam, state, scratch), RATE, 1),
            lambda: {"p": p.to_host(ops)},
        )

    def launch(self, ops: CudaOps) -> Contender:
        from gpuprop.backends.cuda.translation import slot_scalars
        from gpuprop_kernels import launch

        p, g = self._on_device(ops)
        state = ops.flat(ops.asarray(np.zeros(2 * p.flat.size + 4), self.dtype))
        parameters, gradients = ops.flat(p.flat), ops.flat(g.flat)
        scalars, batch = ops.constant(slot_scalars(Adam(), RATE, 1, 1.0), self.dtype), ops.whole_batch(1)
        return Contender(
            "gpuprop",
            lambda: launch.update_parameters(
                parameters, state, gradients, scalars, batch, optimizer="adam", n_weights=p.n_weights
            ),
            lambda: {"p": p.to_host(ops)},
            capturable=True,
        )  # fmt: skip

    def composed(self, xp: Any) -> Contender:
        p, g = (xp.array(self.host[name]) for name in ("p", "g"))
        m, v = xp.zeros_like(p), xp.zeros_like(p)
        adam = Adam()
        number: Any = self.dtype.type
        rate = number(RATE * (1 - adam.beta_2) ** 0.5 / (1 - adam.beta_1))
        b1, b2, one, epsilon = number(adam.beta_1), number(adam.beta_2), number(1), number(adam.epsilon)

        def run() -> None:
            nonlocal p, m, v
            m = b1 * m + (one - b1) * g
            v = b2 * v + (one - b2) * g**2
            p = p - rate * m / (xp.sqrt(v) + epsilon)

        return Contender(f"{xp.__name__} calls", run, lambda: on_host(p=p))


class MaxNorm(Kernel):
    """The weights of a layer; most of their columns are longer than the limit."""

    name = "max_norm"
    formula = "W[:, j] *= min(1, limit / |W[:, j]|)"
    cold = True

    LIMIT = 1.0

    def _operands(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        scale = np.linspace(0, 3, self.n_out, dtype=self.dtype) / self.dtype.type(self.n_in**0.5)
        return {"w": self._normal(rng, self.n_in, self.n_out) * scale}

    @property
    def work(self) -> Work:
        return Work(3.0 * self.n_in * self.n_out, self._bytes(3 * self.n_in * self.n_out))

    def expected(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        w = oracle.limit_incoming_norm(self.host["w"].astype(np.float64), self.LIMIT)
        return {"w": (w, 3 * tolerances.elementwise_bound("optimizer", w, self.dtype))}

    def primitive(self, ops: Ops) -> Contender:
        w = ops.asarray(self.host["w"].copy(), self.dtype)
        return Contender("gpuprop", lambda: limit_incoming_norm(w, self.LIMIT), lambda: {"w": ops.to_numpy(w)})

    def launch(self, ops: CudaOps) -> Contender:
        from gpuprop_kernels import launch

        w = ops.asarray(self.host["w"], self.dtype)
        flat, batch = ops.flat(w), ops.whole_batch(1)
        return Contender(
            "gpuprop",
            lambda: launch.limit_incoming_norm(flat, 0, self.LIMIT, batch, n_in=self.n_in, n_out=self.n_out),
            lambda: {"w": ops.to_numpy(w)},
            capturable=True,
        )

    def composed(self, xp: Any) -> Contender:
        w = xp.array(self.host["w"])
        limit = xp.asarray(self.LIMIT, self.dtype)

        def run() -> None:
            nonlocal w
            norms = xp.sqrt((w * w).sum(axis=0))
            w = w * xp.minimum(1, limit / xp.maximum(norms, limit))

        return Contender(f"{xp.__name__} calls", run, lambda: on_host(w=w))
