"""What one step costs, counted by a virtual GPU: launches, copies and waits, and how each kernel reaches memory.

Sectors of global memory and bank conflicts of shared memory are counted by instrumented kernels, ``VGPU_COUNT=1``;
without them these tests are skipped. ``-s`` prints the tables.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import gpuprop
from gpuprop.backends import get_ops
from gpuprop.core.precision import PRECISIONS
from gpuprop.measure.equivalence import tolerances

# Without numba-cuda these cannot be imported, and the tests are skipped by their fixture.
if TYPE_CHECKING or find_spec("numba_cuda"):
    from gpuprop.backends.cuda.kernel_plan import CudaPlan
    from gpuprop_kernels import launch
    from gpuprop_kernels.shapes import FULL, NO_OPTIMIZER, TENSOR_TILES, TILES

pytestmark = pytest.mark.gpu

COUNTS_MEMORY = os.environ.get("VGPU_COUNT") == "1"
instrumented = pytest.mark.skipif(not COUNTS_MEMORY, reason="needs a virtual GPU with VGPU_COUNT=1")

BATCH = 128
PIXELS = gpuprop.InputScaling.divide(255)
BY_COLUMN = gpuprop.InputScaling(np.linspace(1, 9, 128), np.linspace(0.001, 0.01, 128))
BOUNDS = {
    ("global", "load"): 1.05, ("global", "store"): 1.05, ("shared", "load"): 1.0, ("shared", "store"): 1.5
}  # fmt: skip
"""Sectors of global memory, cycles of shared memory, each as a multiple of the fewest possible."""
KERNELS = {
    "multiply_bias_activate": "forward", "output_loss_delta": "head", "multiply_loss_delta": "wide",
    "multiply_differentiate": "delta", "multiply_accumulate": "gradient", "update_parameters": "update",
    "sum_slabs": "slabs",
}  # fmt: skip


def step(
    sizes: tuple[int, ...], counts: Any, monkeypatch: pytest.MonkeyPatch, *, batch: int = BATCH,
    data_type: Any = np.uint8, scaling: gpuprop.InputScaling = PIXELS, precision: str = "float32", **how: Any
) -> dict[str, Any]:  # fmt: skip
    """Train two epochs of one update each; return the counts of the second."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (batch, sizes[0])).astype(data_type), np.arange(batch) % sizes[-1]
    measured: list[dict[str, Any]] = []
    inner = CudaPlan._launch

    def counting(self: CudaPlan, first: int, last: int) -> None:
        with counts.measure() as found:
            inner(self, first, last)
        measured.append(found)

    with monkeypatch.context() as patch:
        patch.setattr(CudaPlan, "_launch", counting)
        net = gpuprop.Network(
            sizes, device="cuda", loss="categorical_cross_entropy", seed=0, input_scaling=scaling, precision=precision
        )
        gpuprop.Trainer(net, epochs=2, batch_size=batch, shuffle=False, **how).fit(X, y)
    return measured[-1]


def short(name: str) -> str:
    """Return what a compiled kernel is called here."""
    return next(title for part, title in KERNELS.items() if part in name)


def check_memory(counted: dict[str, Any], title: str) -> None:
    """Hold every kernel to whole sectors of global memory and to shared memory without conflicts."""
    print(f"\n{title}\n{'kernel':10}{'loads':>8}{'stores':>8}{'shared loads':>14}{'shared stores':>15}   (1 is ideal)")
    worst: dict[tuple[str, ...], float] = {}
    for name, kernel in counted["kernels"].items():
        memory, title = kernel["memory"], short(name)
        share = {
            (space, access): memory[f"{space}_{access}_{unit}"] / max(1, memory[f"{space}_{access}_{unit}_ideal"])
            for space, unit in (("global", "sectors"), ("shared", "ways"))
            for access in ("load", "store")
        }
        values = "".join(f"{value:{width}.3f}" for value, width in zip(share.values(), (8, 8, 14, 15), strict=True))
        print(f"{title:10}{values}")
        worst |= {(title, *what): value for what, value in share.items() if value > BOUNDS[what]}
    assert not worst


@pytest.mark.parametrize(
    ("sizes", "launches"),
    [((784, 128, 10), 3), ((784, 512, 512, 10), 5), ((784, 1024, 1024, 1024, 10), 7)],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_step(sizes: tuple[int, ...], launches: int, counts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    totals = (counted := step(sizes, counts, monkeypatch))["totals"]
    copies = sum(totals[f"{kind}_count"] for kind in ("h2d", "d2h", "d2d", "h2h"))
    allocations = sum(totals[name] for name in ("allocs", "async_allocs", "host_allocs"))
    line = f"launches {totals['launches']}, copies {copies}, syncs {totals['syncs']}, allocations {allocations}"
    if COUNTS_MEMORY:
        moved = sum(
            32 * kernel["memory"][f"global_{access}_sectors"]
            for kernel in counted["kernels"].values()
            for access in ("load", "store")
        )
        line += f", {moved / 2**20:.1f} MiB in sectors of global memory"
    n_parameters = sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))
    print(f"\n{'-'.join(map(str, sizes))}, batch {BATCH}, {n_parameters:,} parameters, adam: {line}")
    assert (totals["launches"], copies, totals["syncs"], allocations) == (launches, 0, 0, 0)


@instrumented
@pytest.mark.parametrize("tile", ["128x128_8x8", "64x64_8x4", "64x64_4x4", "32x32_4x4"])
def test_memory_of_a_tile(tile: str, counts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(rows: int, columns: int, *device: Any, optimizer: bool = False, **other: Any) -> Any:
        return TILES["64x64_8x4" if optimizer and tile in NO_OPTIMIZER else tile]

    monkeypatch.setattr(launch, "choose_tile", choose)
    floats: dict[str, Any] = {"data_type": np.float32}
    check_memory(step((128, 128, 128, 16), counts, monkeypatch, **floats), f"{tile}, fused update")
    check_memory(step((128, 128, 32), counts, monkeypatch, clip_norm=1.0), f"{tile}, bytes, clipped")
    check_memory(step((128, 32), counts, monkeypatch), f"{tile}, bytes, no hidden layer")
    check_memory(step((128, 128, 32), counts, monkeypatch, scaling=BY_COLUMN), f"{tile}, bytes by column")


@instrumented
@pytest.mark.parametrize("place", range(3), ids=["large", "middle", "small"])
@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_memory_of_tensor_cores(precision: str, place: int, counts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(
        rows: int, columns: int, *device: Any, optimizer: bool = False, needs_registers: bool = False, **_: Any
    ) -> Any:
        tiles = TENSOR_TILES[precision]
        tile = tiles[place]
        full = (optimizer and tile.shape in NO_OPTIMIZER) or (needs_registers and tile.name in FULL)
        return tiles[1] if full else tile

    monkeypatch.setattr(launch, "choose_tile", choose)
    floats: dict[str, Any] = {"data_type": np.float32, "precision": precision}
    title = TENSOR_TILES[precision][place].name
    check_memory(step((128, 128, 128, 16), counts, monkeypatch, **floats), f"{title}, fused update")
    check_memory(step((128, 128, 128, 32), counts, monkeypatch, **floats, clip_norm=1.0), f"{title}, clipped")
    if (precision, place) != ("tf32x3", 2):  # whose two slices fetch half a sector of bytes each, twice
        bytes_: dict[str, Any] = {"precision": precision}
        check_memory(step((128, 32), counts, monkeypatch, **bytes_), f"{title}, bytes, no hidden layer")
        by_column = step((128, 128, 32), counts, monkeypatch, scaling=BY_COLUMN, **bytes_)
        check_memory(by_column, f"{title}, bytes by column")


@instrumented
def test_memory_of_a_step(counts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check_memory(step((784, 128, 10), counts, monkeypatch), "784-128-10")


@instrumented
def test_instructions_of_a_step(counts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (784, 128, 10)
    classes = {
        "fma": ("fma_f32",), "float": ("add_f32", "mul_f32", "other_f32", "sfu"), "integer": ("int", "cvt", "setp"),
        "moves": ("mov",), "branches": ("branch", "barrier", "call"),
    }  # fmt: skip
    kernels = step(sizes, counts, monkeypatch)["kernels"]
    print(f"\nexecuted PTX, {'-'.join(map(str, sizes))}\n{'kernel':10}{'millions':>9}", *(f"{c:>9}" for c in classes))
    for name, kernel in kernels.items():
        mix = kernel["instructions"]
        shares = [sum(mix.get(each, 0) for each in names) / sum(mix.values()) for names in classes.values()]
        print(f"{short(name):10}{sum(mix.values()) / 1e6:9.1f}", *(f"{100 * share:8.1f}%" for share in shares))
        assert not any(count for each, count in mix.items() if each.endswith("f64"))
    # The products of a step are known; tiles that reach past a matrix add some.
    multiplied = sum(kernel["instructions"].get("fma_f32", 0) for kernel in kernels.values())
    products = BATCH * sum((3 if layer else 2) * n_in * n_out for layer, (n_in, n_out) in enumerate(pairwise(sizes)))
    print(f"multiply-adds: {multiplied / products:.3f} of the formulas'")
    assert 1 <= multiplied / products < 1.2


def test_a_large_batch_of_few_parameters_is_split(counts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu: Any = get_ops("cuda")
    monkeypatch.setattr(gpu.runtime, "multiprocessors", 40)
    sizes, how = (20, 33, 10), dict[str, Any](batch=1024)
    assert step(sizes, counts, monkeypatch, **how)["totals"]["launches"] == 4
    assert step(sizes, counts, monkeypatch, clip_norm=1.0, **how)["totals"]["launches"] == 5
    rng = np.random.default_rng(1)
    y = rng.integers(0, 10, 1500)
    X = np.clip(rng.integers(60, 190, (10, 20))[y] + 30 * rng.standard_normal((1500, 20)), 0, 255).astype(np.uint8)
    options: dict[str, Any] = {"loss": "categorical_cross_entropy", "seed": 0, "dtype": "float64", "l2": 0.1}
    networks = [gpuprop.Network(sizes, device=device, input_scaling=PIXELS, **options) for device in ("cuda", "numpy")]
    ours, plain = (gpuprop.Trainer(net, epochs=3, batch_size=1024).fit(X, y) for net in networks)
    bound = tolerances.CURVE[np.dtype(np.float64)]
    np.testing.assert_allclose(ours.history["train_loss"], plain.history["train_loss"], rtol=bound)
    np.testing.assert_allclose(ours.network.host_parameters(), plain.network.host_parameters(), rtol=1e-7, atol=1e-9)
