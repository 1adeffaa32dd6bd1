"""Kernel by kernel: gpuprop's own way against the same mathematics composed of library calls, and the device's roof.

On a GPU the contenders are a launch of the kernel, CuPy's calls, and cuBLAS's multiplication alone; on the CPU they are
the primitive of ``device="cpu"``, NumPy's calls, and BLAS's multiplication alone. Each must give the right numbers
before it is timed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.errors import GpupropError
from gpuprop.measure.bench.clocks import clock, namespace
from gpuprop.measure.bench.kernels.base import Kernel, Shape
from gpuprop.measure.bench.kernels.delta import Delta
from gpuprop.measure.bench.kernels.forward import Forward, Gather
from gpuprop.measure.bench.kernels.gradient import Gradient
from gpuprop.measure.bench.kernels.output import Head, Rows, Wide
from gpuprop.measure.bench.kernels.update import MaxNorm, Update
from gpuprop.measure.bench.measure import Contender, Spread, take_turns
from gpuprop.measure.bench.roofline import measure_roof, rates
from gpuprop.measure.equivalence import tolerances
from gpuprop.measure.machine import as_cuda

if TYPE_CHECKING:
    from gpuprop.core.ops import Ops
    from gpuprop.core.plan import Backend
    from gpuprop.measure.bench.measure import Clock
    from gpuprop.measure.bench.roofline import Roof

__all__ = ["KERNELS", "Kernel", "Result", "contenders_of", "kernels", "measure", "validate"]

KERNELS: dict[str, type[Kernel]] = {
    kernel.name: kernel for kernel in (Gather, Forward, Head, Wide, Rows, Delta, Gradient, Update, MaxNorm)
}
"""In the order of the algorithm."""


ON_CPU = {"size": 2048, "copied": 2**26}
ON_GPU = {"size": 4096, "copied": 2**29}
"""Sizes of the product and of the copy that measure the roof: rows of the matrices, and bytes."""


@dataclass(frozen=True)
class Result:
    """One contender on one kernel.

    Attributes
    ----------
    kernel : Kernel
    contender : str
    share : float or None
        Share of the error bound that the result used, at most 1; None for a multiplication alone, which is not the
        whole kernel.
    seconds : Spread or None
        None where times do not count.
    """

    kernel: Kernel
    contender: str
    share: float | None
    seconds: Spread | None

    def entry(self, roof: Roof | None) -> dict[str, Any]:
        """Return the result as JSON values."""
        kernel, spread = self.kernel, self.seconds
        found: dict[str, Any] = {
            "kernel": kernel.name,
            "formula": kernel.formula,
            "shape": list(kernel.shape),
            "dtype": kernel.dtype.name,
            "precision": kernel.precision,
            "contender": self.contender,
            "flops": kernel.work.flops,
            "bytes": kernel.work.bytes,
            "share_of_bound": self.share,
        }
        if spread is None or roof is None:
            return found
        gflops, gigabytes = rates(kernel.work, spread)
        return found | {
            "microseconds": {"p20": spread.p20 * 1e6, "p50": spread.p50 * 1e6, "p80": spread.p80 * 1e6},
            "samples": spread.samples,
            "gflop_per_s": gflops,
            "gb_per_s": gigabytes,
            "share_of_roof": roof.floor(kernel.work, kernel.dtype) / spread.p50,
        }


def kernels(names: Sequence[str], shapes: Sequence[Shape], dtype: str) -> Iterator[Kernel]:
    """Yield the kernels of these names, each at its own shapes where none are given."""
    for name in names:
        for shape in shapes or KERNELS[name].shapes:
            if name == "head" and shape[2] > 16:
                raise ValueError(f"kernel 'head': got {shape[2]} outputs, expected at most 16; use kernel 'wide'")
            yield KERNELS[name](shape, dtype)


def contenders_of(kernel: Kernel, ops: Ops) -> list[Contender]:
    """Return the ways to compute a kernel on a device."""
    cuda, xp = as_cuda(ops), namespace(ops)
    with ops.active():
        own = kernel.launch(cuda) if cuda else kernel.primitive(ops)
        found = [own, kernel.composed(xp), kernel.product(xp)]
    return [contender for contender in found if contender is not None]


def validate(kernel: Kernel, contender: Contender, ops: Ops) -> float | None:
    """Run a contender once, and return the share of the error bound that it uses.

    Raises
    ------
    GpupropError
        If the error of a number exceeds its bound.
    """
    with ops.active():
        contender.run()
        ops.synchronize()
        results = contender.read()
    if not results:
        return None
    share = max(tolerances.used(results[name], *expected) for name, expected in kernel.expected().items())
    if share > 1:
        shape = "x".join(map(str, kernel.shape))
        raise GpupropError(
            f"{kernel.name} {shape}, {contender.name}: the error is {share:.3g} times its bound; nothing was timed; "
            "run gpuprop selfcheck"
        )
    return share


def measure(
    chosen: Sequence[Kernel],
    ops: Backend,
    *,
    rounds: int,
    timed: bool,
    precisions: Sequence[str] = (),
) -> tuple[Roof | None, Iterator[list[Result]]]:
    """Return the device's roof, and an iterator over the results of each kernel; times only if they are `timed`.

    Products of float32 are measured in all the `precisions`, too, in turns with the others. A CPU emulates them.

    Raises
    ------
    BackendUnavailableError
        If a GPU has no instruction for one of the precisions.
    """
    rounding = {name: ops.in_precision(name, emulate=ops.on_host) for name in precisions if name != "float32"}
    taker = clock(ops)
    roof = None
    if timed and chosen:
        with ops.active():
            roof = measure_roof(namespace(ops), taker, chosen[0].dtype, **(ON_GPU if as_cuda(ops) else ON_CPU))
    return roof, (_results(kernel, ops, rounding, taker, rounds if timed else 0) for kernel in chosen)


def _results(kernel: Kernel, ops: Ops, rounding: Mapping[str, Ops], taker: Clock, rounds: int) -> list[Result]:
    contenders = [(kernel, contender, ops) for contender in contenders_of(kernel, ops)]
    if kernel.rounds_operands and kernel.dtype == np.float32:
        for name, own in rounding.items():
            twin = kernel.in_precision(name)
            contender = contenders_of(twin, own)[0]
            contenders.append((twin, replace(contender, name=f"{contender.name} {name}"), own))
    shares = [validate(*one) for one in contenders]
    spreads: dict[str, Spread] = {}
    if rounds:
        with ops.active():
            spreads = take_turns(taker, [contender for _, contender, _ in contenders], rounds, cold=kernel.cold)
    return [
        Result(one, contender.name, share, spreads.get(contender.name))
        for (one, contender, _), share in zip(contenders, shares, strict=True)
    ]
