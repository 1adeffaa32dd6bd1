"""The machine code of the kernels, for GPUs that this machine does not have: no spills, wide loads, bounds kept.

A representative sum, not the product: every kernel at every tile for sm_86 and sm_90 with one activation; every
activation, the other architectures and float64 at one tile. ``benchmarks/sass_report.py --all`` does the rest. All of
it compiles in the background while the session runs its other tests (`tests.conftest`).
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from gpuprop.maths.activations import ACTIVATIONS
from gpuprop.measure.bench import sass
from gpuprop.measure.bench.sass import ARCHITECTURES
from gpuprop.measure.bench.sass_batch import reports_from_json
from gpuprop.measure.bench.variants import Selection, Variant
from tests.sass_bounds import violations

MISSING = "the simulator is on" if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" else sass.missing_tools()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"compiling without a GPU: {MISSING}")


def _tensor_tiles() -> Any:
    """Return the tiles of tensor cores by precision; without a compiler the kernels cannot be imported."""
    from gpuprop_kernels.shapes import TENSOR_TILES

    return TENSOR_TILES.values()


TILES = ("128x128_8x8", "64x64_8x4", "64x64_4x4", "32x32_4x4")
OPTIONS = (
    "relu", "relu bytes", "store dense", "store bytes tallied", "slab bytes", "adam dense", "adam bytes", "softmax",
    "softmax bytes"
)  # fmt: skip
MAIN = ((8, 6), (9, 0))
OTHERS = tuple(capability for capability in ARCHITECTURES if capability not in MAIN)
KERNELS = ("relu", "relu bytes", "softmax", "store dense", "slab bytes", "adam bytes")
"""An option for each kernel: forward and delta, gathering, wide output, gradients, with the optimizer."""

BLOCK = ("one network adam relu", "one network adamw gelu with everything")
TENSOR_OPTIONS = ("relu", "relu bytes", "adam bytes", "store dense")
TENSOR_OTHERS = ((8, 6), (8, 9), (10, 0), (12, 0))
TENSOR_NAMED = {} if MISSING else {tile.name: tile.rows == 128 for tiles in _tensor_tiles() for tile in tiles[:-1]}
"""The tiles of tensor cores, and whether each is a large one."""

CASES = {
    **{tile: Selection(tile, MAIN, OPTIONS) for tile in TILES},
    "other architectures": Selection("64x64_8x4", OTHERS, ("relu", "slab bytes", "adam bytes")),
    **{name: Selection("128x128_8x8", ((8, 6),), (name,), name) for name in ACTIVATIONS if name != "relu"},
    "dropout": Selection("128x128_8x8", ((8, 6),), ("relu dropout",)),
    "float64": Selection("64x64_4x4", ((9, 0),), ("relu", "relu bytes", "store dense", "adam bytes"), dtype="float64"),
    "several networks": Selection("64x64_8x4", MAIN, ("relu together", "adam together")),
    "one block, one network": Selection("", ARCHITECTURES, BLOCK),
    "one block, one network, float64": Selection("", ((8, 6),), BLOCK, dtype="float64"),
    **{
        f"tensor cores {name}": Selection(name, ((8, 0), (9, 0)) if large else ((8, 0),), TENSOR_OPTIONS[not large :])
        for name, large in TENSOR_NAMED.items()
    },
    **{
        f"tensor cores {name}, other architectures": Selection(name, TENSOR_OTHERS, ("relu",))
        for name, large in TENSOR_NAMED.items()
        if large
    },
    "without a tile": Selection("", ((8, 6),)),
}


@pytest.mark.parametrize("selection", CASES.values(), ids=CASES)
def test_machine_code(selection: Selection, compiled: Any) -> None:
    reports = [report for report in reports_from_json(compiled) if selection.has(report)]
    assert {report.capability for report in reports} == set(selection.capabilities)
    for report in reports:
        print(f"{report.name}: FMA {report.fma_fraction:.4f}, {report.registers} registers, {report.occupancy} blocks")
    assert not [violation for report in reports for violation in violations(report)]


def test_a_float64_constant_is_found() -> None:
    # The proof itself: a kernel with a bare literal must be seen to compute in float64.
    import numba

    from gpuprop_kernels.target import i32, kernel, ld1, st1, thread

    @kernel(32)
    def halve(values: Any) -> None:
        i = i32(thread())
        st1(values, i, ld1(values, i) * 0.1)

    (report,) = sass.analyse([(Variant("halve", "", "", "float32", 32, halve, (numba.float32[::1],)), (9, 0))])
    assert report.float64 > 0
    assert violations(report)
