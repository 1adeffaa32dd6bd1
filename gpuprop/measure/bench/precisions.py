"""Whether a precision can be faster than float32: a model of a GPU's data sheet. Nothing here is a measured time.

A product of (n, k) by (k, m) matrices takes, by this model::

    launch + max(passes 2 n k m / (rate share), bytes / bandwidth)

    passes  products of a precision: 3 for tf32x3, 1 for the others
    rate    of fused multiply-adds for float32, of tensor cores for tf32 (tf32x3 too) and bf16
    share   of the multiprocessors that have a block of 64 x 64 results to compute, at most 1
    bytes   of operands and result, all in float32: operands are rounded on the way to the multiplication
    launch  2 microseconds, an assumption, the same for all precisions: small products gain less

It leaves out what a kernel does besides: the conversion of operands, the additions of tf32x3 outside the tensor cores,
and that ``mma.sync``, the instruction of our kernels, does not reach the data sheet's rate from compute capability 9.0
on, where others exist. So the ratio of two times is what a precision can gain at most. Only a measurement says more:
``gpuprop bench kernels --precision all``.

The rates of a GPU that is here follow from what it says of itself (compute capability, multiprocessors, clocks, width
of its memory's bus), and never from its name: `PER_CLOCK`. Some compute capabilities have parts of two rates; the table
has the lower one, so that the model promises nothing that a part lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpuprop.core.precision import PRECISIONS
from gpuprop.measure.bench.roofline import DEVICES, Roof
from gpuprop.measure.machine import as_cuda

if TYPE_CHECKING:
    from gpuprop.core.ops import Ops
    from gpuprop.measure.bench.kernels import Kernel

__all__ = ["LAUNCH", "PER_CLOCK", "Gain", "entries", "gain", "product_seconds", "queried_roof", "roof_of", "table"]

LAUNCH = 2e-6
_BLOCK = 64
_PASSES = {"float32": 1, "tf32x3": 3, "tf32": 1, "bf16": 1}
_UNITS = {"float32": "float32", "tf32x3": "tf32", "tf32": "tf32", "bf16": "bf16"}

PER_CLOCK: dict[tuple[int, int], dict[str, int]] = {
    # Multiply-adds of a multiprocessor in a clock. float32: CUDA C++ Programming Guide, "Arithmetic Instructions". tf32
    # and bf16 are dense, with float32 sums: the rate in the source / (2 x multiprocessors x boost clock).
    (7, 5): {"float32": 64},
    (8, 0): {"float32": 64, "tf32": 512, "bf16": 1024},  # NVIDIA A100 Tensor Core GPU architecture whitepaper
    (8, 6): {"float32": 128, "tf32": 128, "bf16": 256},  # GA102 whitepaper, GeForce parts; the RTX A6000 has twice that
    (8, 9): {"float32": 128, "tf32": 128, "bf16": 256},  # Ada whitepaper, RTX 4090; the L4 and the L40S have twice that
    (9, 0): {"float32": 128, "tf32": 1024, "bf16": 2048},  # NVIDIA H100 Tensor Core GPU architecture whitepaper
    (12, 0): {"float32": 128, "tf32": 128, "bf16": 256},  # NVIDIA RTX Blackwell whitepaper, RTX 5090
}
"""By compute capability; the precisions of one that is not here are unknown to the model."""


@dataclass(frozen=True)
class Gain:
    """What a precision can gain over float32 for one product on one device.

    Attributes
    ----------
    device : str
    shape : tuple of int
        (n, k, m).
    precision : str
    at_most : float or None
        float32's time by the model over the precision's; None where the device has no such rate.
    reason : str
        One sentence.
    """

    device: str
    shape: tuple[int, int, int]
    precision: str
    at_most: float | None
    reason: str

    @property
    def can_be_faster(self) -> bool:
        """Whether the model leaves the precision a gain."""
        return self.at_most is not None and self.at_most > 1


def queried_roof(name: str, capability: tuple[int, int], attributes: Mapping[str, int]) -> Roof | None:
    """Return the rates of a GPU by what its driver says of it; None for a compute capability without known rates.

    Parameters
    ----------
    name : str
        For messages only.
    capability : tuple of int
    attributes : mapping of str to int
        "MultiProcessorCount", "ClockRate" and "MemoryClockRate" in kHz, and "GlobalMemoryBusWidth" in bits, as CUDA
        names them. Memory moves data twice in a clock.
    """
    per_clock = PER_CLOCK.get(capability)
    if per_clock is None:
        return None
    units, clock = attributes["MultiProcessorCount"], attributes["ClockRate"] * 1e3
    rates = {kind: 2.0 * number * units * clock for kind, number in per_clock.items()}
    bandwidth = 2.0 * attributes["MemoryClockRate"] * 1e3 * attributes["GlobalMemoryBusWidth"] / 8
    said = f"compute capability {capability[0]}.{capability[1]}, and the clocks that the driver names"
    return Roof(name, rates, bandwidth, said, units)


def roof_of(ops: Ops) -> Roof | None:
    """Return `queried_roof` of a backend's device; None for any other than a GPU, and for one that names no clocks."""
    cuda = as_cuda(ops)
    if cuda is None or ops.device == "cuda-sim":
        return None
    attributes = cuda.runtime.xp.cuda.Device(int(ops.device.partition(":")[2])).attributes
    known = all(attributes.get(name) for name in ("ClockRate", "MemoryClockRate", "GlobalMemoryBusWidth"))
    return queried_roof(ops.device, cuda.runtime.capability, attributes) if known else None


def product_seconds(roof: Roof, shape: tuple[int, int, int], precision: str) -> float | None:
    """Return what a product takes by the model, or None if the device has no rate for the precision.

    Examples
    --------
    >>> from gpuprop.measure.bench.roofline import DEVICES
    >>> a100 = DEVICES[1]
    >>> plain, threefold = (product_seconds(a100, (4096, 4096, 4096), name) for name in ("float32", "tf32x3"))
    >>> round(plain / threefold, 2)
    2.67
    """
    rate = roof.flops.get(_UNITS[precision])
    if rate is None:
        return None
    n, k, m = shape
    blocks = -(-n // _BLOCK) * -(-m // _BLOCK)
    share = min(1.0, blocks / roof.multiprocessors)
    multiplied = _PASSES[precision] * 2.0 * n * k * m / (rate * share)
    return LAUNCH + max(multiplied, 4.0 * (n * k + k * m + n * m) / roof.bandwidth)


def gain(roof: Roof, shape: tuple[int, int, int], precision: str) -> Gain:
    """Return what a precision can gain at most for a product, with the reason."""
    own, plain = product_seconds(roof, shape, precision), product_seconds(roof, shape, "float32")
    assert plain is not None, "every device has a rate for float32"
    if own is None:
        return Gain(roof.name, shape, precision, None, "it has no tensor cores for it, or no rate of them is known")
    ratio, faster = plain / own, roof.flops[_UNITS[precision]] / _PASSES[precision] / roof.flops["float32"]
    passes = "" if _PASSES[precision] == 1 else f" in {_PASSES[precision]} passes"
    rates = f"its tensor cores{passes} multiply {faster:.2g} times as fast as its float32 units"
    if ratio > 1:
        return Gain(roof.name, shape, precision, ratio, f"at most {ratio:.2f} times as fast: {rates}")
    return Gain(roof.name, shape, precision, ratio, f"not faster: {rates}")


def entries(chosen: Sequence[Kernel], precisions: Sequence[str], roof: Roof | None) -> list[dict[str, Any]]:
    """Return the gains of all precisions for each kernel, on a device or, without one, on those of data sheets."""
    roofs = DEVICES if roof is None else (roof,)
    found = [
        gain(one, kernel.shape, precision)
        for kernel in chosen
        if kernel.rounds_operands
        for one in roofs
        for precision in PRECISIONS[1:]
        if precision in precisions
    ]
    unique = dict.fromkeys(found)
    return [
        {"device": g.device, "shape": list(g.shape), "precision": g.precision, "at_most": g.at_most, "reason": g.reason}
        for g in unique
    ]


def table(gains: Sequence[dict[str, Any]]) -> tuple[tuple[str, ...], list[list[str]], tuple[int, ...]]:
    """Return headers, rows and right-aligned columns of a table."""
    rows = [[g["device"], "x".join(map(str, g["shape"])), g["precision"], g["reason"]] for g in gains]
    return ("device", "n x k x m", "precision", "by the model of its data sheet"), rows, (1,)
