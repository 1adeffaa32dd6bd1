"""Figures of the CUDA kernels that need no GPU: launches, operations, bytes, floors by data sheet, machine code.

Nothing here is a measured time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpuprop.errors import GpupropError
from gpuprop.maths.optimizers import Adam
from gpuprop.measure.bench.roofline import DEVICES, Work, step_work

if TYPE_CHECKING:
    from gpuprop.measure.bench.kernels import Kernel
    from gpuprop.measure.bench.variants import Variant
    from gpuprop.measure.bench.whole_updates import Config

__all__ = ["MODEL", "kernel_entries", "machine_code", "step_entries"]

MODEL = (
    "floors by arithmetic, not times: the larger of operations / peak and bytes / bandwidth, with each GPU's peak and "
    "bandwidth by its data sheet; no GPU took part"
)


def _entry(work: Work, launches: int, dtype: str) -> dict[str, Any]:
    floors = {roof.name: roof.floor(work, dtype) * 1e6 for roof in DEVICES}
    return {"launches": launches, "flops": work.flops, "bytes": work.bytes, "floor_microseconds": floors}


def kernel_entries(chosen: Sequence[Kernel]) -> list[dict[str, Any]]:
    """Return operations, bytes and floors of each kernel, which is one launch."""
    return [
        {"kernel": one.name, "formula": one.formula, "shape": list(one.shape), "dtype": one.dtype.name}
        | _entry(one.work, 1, one.dtype.name)
        for one in chosen
    ]


def step_entries(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """Return launches, operations, bytes and floors of one update of each network, in float32 with Adam."""
    return [
        {"config": one.name, "sizes": list(one.sizes), "batch_size": one.batch_size}
        | _entry(step_work(one.sizes, one.batch_size, 4, len(Adam().slots)), one.launches, "float32")
        for one in configs
    ]


# Family in `gpuprop.measure.bench.variants`: name of the kernel here.
_FAMILIES = {
    "forward gathering": "gather", "forward": "forward", "head": "head", "wide": "wide", "rows": "rows",
    "delta": "delta", "gradient": "gradient", "update": "update", "limit norm": "max_norm",
}  # fmt: skip


def machine_code(names: Sequence[str], dtype: str, capability: tuple[int, int]) -> list[dict[str, Any]]:
    """Compile each kernel for an architecture, and return the figures of the machine code.

    Raises
    ------
    GpupropError
        If the compilers are not installed.
    """
    from gpuprop.measure.bench import sass

    missing = sass.missing_tools()
    if missing:
        raise GpupropError(f"{missing}; machine code needs pip install 'gpuprop[test]'")
    from gpuprop.measure.bench.variants import flat_variants, product_variants

    tile = "64x64_8x4" if dtype == "float32" and capability >= (8, 6) else "64x64_4x4"
    chosen: dict[str, Variant] = {}
    for variant in (*product_variants(tile, dtype), *flat_variants(dtype)):
        name = _FAMILIES.get(variant.family)
        measured = variant.family != "update" or variant.option == "adam"
        if name in names and measured:
            chosen.setdefault(str(name), variant)
    reports = sass.analyse([(variant, capability) for variant in chosen.values()])
    return [
        {
            "kernel": name,
            "variant": report.name,
            "registers": report.registers,
            "shared_bytes": report.shared,
            "spilled_bytes": report.spilled,
            "blocks_per_multiprocessor": report.occupancy,
            "fma_fraction": report.fma_fraction,
        }
        for name, report in zip(chosen, reports, strict=True)
    ]
