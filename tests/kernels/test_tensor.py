"""Products on tensor cores: tf32x3, tf32 and bf16, against operands that NumPy rounds bit by bit.

In the simulator 32 threads meet for each instruction, and one block is one warp; production tiles run on a device.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpuprop.core.precision import left_parts, right_parts
from gpuprop.measure.equivalence import oracle, tolerances
from gpuprop_kernels import launch
from gpuprop_kernels.activations import Activation
from gpuprop_kernels.dropout import mask_constants
from gpuprop_kernels.gradient import job_table
from gpuprop_kernels.launch import blocks, padded
from gpuprop_kernels.shapes import NO_OPTIMIZER, TENSOR_TILES, Tile
from tests.kernels import support as s
from tests.kernels import test_delta, test_forward, test_gradient

PRECISIONS = tuple(TENSOR_TILES)
SMALL = {precision: tiles[-1] for precision, tiles in TENSOR_TILES.items()}
SLICED = {precision: Tile(16, 16, 2, 4, 16, slices=2, precision=precision) for precision in PRECISIONS}
PRODUCTION = [tile for tiles in TENSOR_TILES.values() for tile in tiles[:-1]]
UNIT = tolerances.unit(np.float32)
on_device = pytest.mark.skipif(not s.ON_DEVICE, reason="256 threads an instruction are too many for the simulator")


def rounded_product(a: Any, b: Any, precision: str) -> Any:
    """Return the product of rounded operands, without another rounding."""
    parts = zip(left_parts(a, precision), right_parts(b, precision), strict=True)
    return sum(left.astype(np.float64) @ right.astype(np.float64) for left, right in parts)


def sum_bound(a: Any, b: Any) -> Any:
    """Return the bound on the sums alone: cut off by tensor cores, three products in each step of tf32x3."""
    magnitude = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    return 2 * (a.shape[1] + 12) * UNIT * magnitude + np.finfo(np.float32).tiny


def check_rounded(got: Any, a: Any, b: Any, precision: str, what: str) -> None:
    """Check a product against that of rounded operands, and against float64 in the bound of its precision."""
    s.check(got, rounded_product(a, b, precision), sum_bound(a, b), f"{what}, rounded operands")
    wide = a.astype(np.float64), b.astype(np.float64)
    magnitude = np.abs(wide[0]) @ np.abs(wide[1])
    bound = tolerances.product_bound(magnitude, a.shape[1], np.float32, precision) + np.finfo(np.float32).tiny
    s.check(got, wide[0] @ wide[1], bound, f"{what}, {precision}")
    if precision == "tf32x3":
        ours, numpys = np.abs(got - wide[0] @ wide[1]).max(), np.abs(a @ b - wide[0] @ wide[1]).max()
        assert ours <= 2 * numpys + 4 * UNIT * magnitude.max(), "worse than twice float32"


def multiply(x: Any, w: Any, tile: Tile) -> Any:
    """Return x W by the forward kernel, without bias or activation."""
    return test_forward.run(x, w, np.zeros(w.shape[1], np.float32), tile)


@pytest.mark.parametrize("tiles", [SMALL, SLICED], ids=["whole", "sliced"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", s.SHAPES, ids=str)
def test_product(shape: Any, precision: str, tiles: Any) -> None:
    x, w, _ = test_forward.operands(shape, np.float32)
    check_rounded(multiply(x, w, tiles[precision]), x, w, precision, "forward")


@on_device
@pytest.mark.parametrize("tile", PRODUCTION, ids=lambda tile: tile.name)
def test_production_tiles(tile: Tile) -> None:
    for shape in ((1, 1, 1), (33, 139, 35), (150, 70, 130)):
        x, w, _ = test_forward.operands(shape, np.float32)
        check_rounded(multiply(x, w, tile), x, w, tile.precision, f"forward {shape}")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scales", [(1e-18, 1e-18), (1e18, 1e18), (1e-38, 1.0), (3e-42, 1e4), (1e30, 1e-30)], ids=str)
def test_scales(scales: tuple[float, float], precision: str) -> None:
    # Tiny and huge operands, results and operands that are subnormal.
    x, w, _ = test_forward.operands((7, 17, 9), np.float32)
    x, w = (x * np.float32(scales[0])).astype(np.float32), (w * np.float32(scales[1])).astype(np.float32)
    got = multiply(x, w, SMALL[precision])
    s.check(got, rounded_product(x, w, precision), sum_bound(x, w), f"scales {scales}")


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_infinity_and_nan(precision: str) -> None:
    # float32 gives Inf for an operand that is Inf. So do tf32 and bf16; tf32x3 gives NaN, because Inf - Inf is no low
    # part. What is not finite stays so, and other rows stay what they are.
    x, w, _ = test_forward.operands((6, 17, 9), np.float32)
    clean = multiply(x, w, SMALL[precision])
    every_bit = np.array([0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32)
    x[1, 3], x[2, 16], x[3, 0], x[4, 5] = np.inf, np.nan, every_bit[0], every_bit[1]
    got = multiply(x, w, SMALL[precision])
    assert np.isnan(got[2:5]).all()
    if precision == "tf32x3":
        assert np.isnan(got[1]).all()
    else:
        np.testing.assert_array_equal(got[1], np.inf * np.sign(w[3]))
    np.testing.assert_array_equal(got[[0, 5]], clean[[0, 5]])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_ties_round_as_numpy_says(precision: str) -> None:
    # One product a result, of numbers half way between two of the precision, and next to that.
    bits = np.array([0x3F801000, 0x3F803000, 0x3F800FFF, 0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001], np.uint32)
    numbers = np.concatenate([bits.view(np.float32), -bits.view(np.float32)])
    got = multiply(numbers[:, None], np.ones((1, 3), np.float32), SMALL[precision])
    expected = rounded_product(numbers[:, None], np.ones((1, 3), np.float32), precision)
    np.testing.assert_array_equal(got, expected.astype(np.float32))


@pytest.mark.parametrize("source", ["bytes", "floats", "bytes_by_column", "floats_by_column"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_gathering(precision: str, source: str) -> None:
    tiles = [SMALL[precision], SLICED[precision]] if not s.ON_DEVICE else TENSOR_TILES[precision]
    rng = np.random.default_rng(3)
    for tile, n_in in ((tile, n) for tile in tiles for n in (13, 37, 64)):
        data: Any = rng.integers(0, 256, (29, n_in)) if source.startswith("bytes") else rng.standard_normal((29, n_in))
        data = data.astype(np.uint8 if source.startswith("bytes") else np.float32)
        by_column = source.endswith("column")
        shift = rng.standard_normal(n_in if by_column else 1).astype(np.float32) * by_column
        scale = rng.uniform(0.5, 2, n_in if by_column else 1).astype(np.float32)
        w = s.normal(rng, (n_in, 11), np.float32)
        batch, out = s.batch(17, 29), s.poison(17 * padded(11), np.float32)
        launch.forward_layer(
            s.data_rows(data, source, shift, scale), s.matrix(w), s.vector(np.zeros(11, np.float32)), out, batch,
            activation=Activation("identity"), n_in=n_in, n_out=11, tile=tile,
        )  # fmt: skip
        rows = s.rows_of(batch, data).astype(np.float32)
        x, factor = ((rows - shift) * scale, 1.0) if by_column else (rows, float(scale[0]))
        got = s.read(out, 17, 11)
        s.check(got, rounded_product(x, w, precision) * factor, 1.5 * sum_bound(x, w) * factor, f"{tile.name} {n_in}")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_dropout_keeps_the_units_of_float32(precision: str) -> None:
    x, w, b = test_forward.operands((9, 7, 21), np.float32)
    mask, keep = (s.upload(a) for a in mask_constants(0.4, 99, 1, np.float32))
    options = {"batch": s.batch(9, step=4), "dropout": launch.Dropout(mask, keep)}
    got = test_forward.run(x, w, b, SMALL[precision], **options)
    factors = oracle.dropout_mask(9, 21, 0.6, 99, 1, 4)
    expected = (rounded_product(x, w, precision) + b) * factors
    s.check(got, expected, (sum_bound(x, w) + 4 * UNIT * np.abs(b)) * 2, "dropout")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(7, 17, 33), (33, 9, 17)], ids=str)
def test_hidden_delta(shape: Any, precision: str) -> None:
    d_next, w_next, z = test_delta.operands(shape, np.float32)
    tiles = [SMALL[precision], SLICED[precision]] if not s.ON_DEVICE else TENSOR_TILES[precision]
    transposed = np.ascontiguousarray(w_next.T)
    for tile in tiles:
        delta, sums = test_delta.run(d_next, w_next, z, tile, "identity")
        check_rounded(delta, d_next, transposed, precision, "delta")
        own = np.abs(delta).astype(np.float64).sum(axis=0)
        bound = tolerances.product_bound(own, len(delta), np.float32)
        s.check(sums, delta.astype(np.float64).sum(axis=0), bound, "column sums")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", ["store", "adam"])
def test_gradient_and_update(mode: str, precision: str) -> None:
    tiles = [SMALL[precision], SLICED[precision]] if not s.ON_DEVICE else TENSOR_TILES[precision]
    for tile in tiles:
        if mode == "adam" and tile.shape in NO_OPTIMIZER:
            continue
        p = test_gradient.problem(np.float32, 37)
        n = p.parameters.size
        gradients = s.poison(n, np.float32)
        test_gradient.run(p, gradients, "store", tile)
        flat = test_gradient.finished(gradients, n)
        if mode == "store":
            for (weights, _), (inputs, delta) in zip(test_gradient.parts_of(p, flat), p.operands, strict=True):
                check_rounded(weights, np.ascontiguousarray(inputs.T), delta, precision, tile.name)
            continue
        state = np.abs(np.random.default_rng(2).standard_normal(2 * n)).astype(np.float32) * 0.1
        state[:n][s.download(p.parameters) == 0] = 0
        fused, plain = s.upload(state), s.upload(state)
        alone = p._replace(parameters=s.upload(s.download(p.parameters)))
        launch.update_parameters(
            alone.parameters, plain, gradients[:n], test_gradient.slots(mode, np.float32), p.batch, optimizer=mode,
            n_weights=p.n_weights,
        )  # fmt: skip
        test_gradient.run(p, fused, mode, tile)
        np.testing.assert_array_equal(s.download(p.parameters), s.download(alone.parameters))


def test_repeats_bit_for_bit_in_any_order(shuffled_blocks: None) -> None:
    x, w, _ = test_forward.operands((33, 20, 17), np.float32)
    first, second = (multiply(x, w, SMALL["tf32x3"]) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_what_a_tile_refuses() -> None:
    x, w, _ = test_forward.operands((3, 4, 5), np.float64)
    with pytest.raises(ValueError, match="16x16_2x4_bf16: got operands in float64, expected float32"):
        test_forward.run(x, w, np.zeros(5), SMALL["bf16"])
    narrow = replace(SMALL["tf32"], depth=24)
    with pytest.raises(ValueError, match=r"expected 8 or 16|do not divide"):
        multiply(x.astype(np.float32), w.astype(np.float32), narrow)


def test_tables_and_grids_take_the_size_alone() -> None:
    # What lies around a product does not ask for its precision.
    jobs = test_gradient.problem(np.float32).layers
    for precision in PRECISIONS:
        table, n_blocks = job_table(jobs, SMALL[precision])
        assert (table.size, n_blocks) == (48, 4)
        assert blocks(17, SMALL[precision].rows) == 2
