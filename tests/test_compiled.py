"""The machine code of the kernels, for GPUs that this machine does not have: no spills, wide loads, bounds kept.

A representative sum, not the product: every kernel at every tile for sm_86 and sm_90 with one activation, every
activation, the other architectures and float64 at one tile. ``benchmarks/sass_report.py --all`` does the rest.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from gpuprop.bench import sass
from tests import sass_bounds

if TYPE_CHECKING:
    from gpuprop.bench.variants import Variant

MISSING = "the simulator is on" if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" else sass.missing_tools()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"compiling without a GPU: {MISSING}")

TILES = ("128x128_8x8", "64x64_8x4", "64x64_4x4", "32x32_4x4")
OPTIONS = ("relu", "relu bytes", "store dense", "store bytes tallied", "slab bytes", "adam bytes", "softmax")
OTHERS = [capability for capability in sass.ARCHITECTURES if capability not in ((8, 6), (9, 0))]


def variants(tile: str, options: tuple[str, ...], activation: str = "relu", dtype: str = "float32") -> list[Variant]:
    """Return the kernels of a tile that have one of these options."""
    from gpuprop.bench.variants import product_variants

    return [v for v in product_variants(tile, dtype, activation) if v.option in options]


def judge(variant: Variant, capability: tuple[int, int]) -> None:
    """Compile one kernel and hold it to the bounds."""
    report = sass.analyse(variant.name, variant.kernel, variant.signature, variant.threads, capability)
    where = f"{variant.name} for sm_{capability[0]}{capability[1]}"
    assert report.spilled == 0, f"{where} spills {report.spilled} bytes"
    assert report.local == 0, f"{where} has {report.local} accesses to local memory"
    if variant.dtype == "float32":
        assert report.float64 == 0, f"{where} has {report.float64} float64 instructions"
    if not variant.tile:
        return
    shared, global_ = report.loads("LDS"), report.loads("LDG")
    assert shared, f"{where}: no loads from shared memory found"
    assert all("128" in op for op in shared), f"{where}: narrow loads from shared memory {shared}"
    wide = sum(n for op, n in global_.items() if "128" in op)
    assert wide, f"{where}: narrow loads from global memory {global_}"
    if "gathering" not in variant.family:
        assert wide == sum(global_.values()), f"{where}: narrow loads from global memory {global_}"
    if variant.dtype == "float32":
        bound = sass_bounds.FMA_FRACTION[variant.family, variant.tile]
        bound = sass_bounds.EXCEPTIONS.get((variant.family, variant.tile, capability), bound)
        assert report.occupancy >= sass_bounds.BLOCKS[variant.tile], f"{where}: {report.occupancy} blocks fit"
    else:
        bound = 0.0 if "gathering" in variant.family else sass_bounds.FLOAT64_FRACTION
    print(f"{where}: FMA {report.fma_fraction:.3f}, bound {bound}; {report.registers} registers")
    assert report.fma_fraction >= bound, f"{where}: FMA share {report.fma_fraction:.4f} is below {bound}"


@pytest.mark.parametrize("capability", [(8, 6), (9, 0)], ids=str)
@pytest.mark.parametrize("tile", TILES)
def test_tile(tile: str, capability: tuple[int, int]) -> None:
    for variant in variants(tile, OPTIONS):
        judge(variant, capability)


@pytest.mark.parametrize("capability", OTHERS, ids=str)
def test_architecture(capability: tuple[int, int]) -> None:
    for variant in variants("64x64_8x4", ("relu", "slab bytes", "adam bytes")):
        judge(variant, capability)


@pytest.mark.parametrize("name", ["identity", "logistic", "tanh", "leaky_relu", "elu", "softplus", "gelu", "silu"])
def test_activation(name: str) -> None:
    for variant in variants("128x128_8x8", (name,), name):
        judge(variant, (8, 6))


def test_dropout() -> None:
    for variant in variants("128x128_8x8", ("relu dropout",)):
        judge(variant, (8, 6))


def test_float64() -> None:
    for variant in variants("64x64_4x4", ("relu", "relu bytes", "store dense", "adam bytes"), dtype="float64"):
        judge(variant, (9, 0))


def test_other_kernels() -> None:
    from gpuprop.bench.variants import flat_variants

    for variant in flat_variants("float32"):
        judge(variant, (8, 6))


def test_a_float64_constant_is_found() -> None:
    # The proof itself: a kernel with a bare literal must be seen to compute in float64.
    import numba

    from gpuprop_kernels.target import i32, kernel, ld1, st1, thread

    @kernel(32)
    def halve(values: Any) -> None:
        i = i32(thread())
        st1(values, i, ld1(values, i) * 0.1)

    report = sass.analyse("halve", halve, (numba.float32[::1],), 32, (9, 0))
    assert report.float64 > 0
