"""The shapes of tiles and of rows, and the choice among tiles: how a product is cut into blocks and threads.

::

    rows x columns of a block        128x128      64x64       64x64       32x32
    rows x columns of a thread         8x8         8x4         4x4         4x4
    threads of a block                 256         128         256         256, in 4 slices along k
    FMA for each shared load            16          10.7        8           8

A large tile reads less memory for each multiplication, a small one gives more blocks. `choose_tile` takes the largest
tile that fills the GPU. A gradient whose inner index is a large batch may also fill it by splitting the batch
(`choose_parts`). Neither function measures anything: the choice depends only on sizes and on the kind of GPU, so that a
run repeats bit for bit. `tile` gives the budget of each shape in registers and shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpuprop_kernels.target import SIM

__all__ = [
    "FULL", "HEAD", "MOST_CLASSES", "NAMED_TILES", "NO_OPTIMIZER", "SMALL", "SMALL_HEAD", "TENSOR_TILES", "TILES",
    "HeadShape", "Tile", "blocks", "choose_parts", "choose_tile", "log2", "padded", "row_pitch",
]  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """The shape of a tile; all sizes are powers of two.

    Parameters
    ----------
    rows, columns : int
        Size of the block's tile.
    thread_rows, thread_columns : int
        Size of one thread's part: 2, 4 or a multiple of 4.
    depth : int
        Length of a slab along k, over all slices; 8 or 16 a slice.
    slices : int
        Groups of threads that share the work along k.
    precision : str
        "float32" multiplies by fused multiply-adds, in any dtype; "tf32x3", "tf32" and "bf16" on tensor cores, in
        float32. There, `depth` counts words of 32 bits (`words`).
    """

    rows: int
    columns: int
    thread_rows: int
    thread_columns: int
    depth: int = 8
    slices: int = 1
    precision: str = "float32"

    @property
    def k_depth(self) -> int:
        """Elements of a slab along k: in bfloat16 a word holds two."""
        return 2 * self.depth if self.precision == "bf16" else self.depth

    @property
    def planes(self) -> int:
        """Slabs of an operand: "tf32x3" has one for the high and one for the low part of its elements."""
        return 2 if self.precision == "tf32x3" else 1

    @property
    def group(self) -> int:
        """Threads of one slice."""
        return (self.rows // self.thread_rows) * (self.columns // self.thread_columns)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.group * self.slices

    @property
    def resident(self) -> int:
        """How many blocks the assembler must fit on one multiprocessor; 0 lets it choose.

        128x128 with 8x8 results a thread needs the hint; without it some architectures take 130 registers and lose the
        second block. Smaller tiles are faster without it: measured, the hint costs 3 to 8 % of the FMA share there.
        """
        return 2 if self.thread_rows * self.thread_columns == 64 else 0

    @property
    def name(self) -> str:
        """Short name for tables, e.g. ``64x64_8x4`` or, on tensor cores, ``64x64_8x4_bf16``."""
        return self.shape if self.precision == "float32" else f"{self.shape}_{self.precision}"

    @property
    def shape(self) -> str:
        """The name without the precision."""
        return f"{self.rows}x{self.columns}_{self.thread_rows}x{self.thread_columns}"


SMALL = Tile(8, 8, 2, 2)
"""16 threads: for the simulator, where a thread costs a quarter of a millisecond."""

TILES = {
    tile.name: tile
    for tile in (
        Tile(128, 128, 8, 8, 8),
        Tile(64, 64, 8, 4, 16),
        Tile(64, 64, 4, 4, 16),
        Tile(32, 32, 4, 4, 32, slices=4),
        SMALL,
    )
}
"""The tiles that `choose_tile` chooses from."""

_TENSOR_SHAPES = {
    # Thread rows and columns as above: 16 x 8 results are an instruction's, so that a warp has at least 16 x 16. Depths
    # in words are what 48 KiB of shared memory hold with at least two blocks, and what whole sectors of bytes need.
    "tf32x3": (
        Tile(128, 128, 8, 8, 8),
        Tile(64, 64, 8, 4, 16),
        Tile(32, 32, 4, 4, 16, slices=2),
        Tile(16, 16, 2, 4, 8),
    ),
    "tf32": (Tile(128, 128, 8, 8, 16), Tile(64, 64, 8, 4, 16), Tile(32, 32, 4, 4, 32, slices=4), Tile(16, 16, 2, 4, 8)),
    "bf16": (Tile(128, 128, 8, 8, 8), Tile(64, 64, 8, 4, 8), Tile(32, 32, 4, 4, 32, slices=4), Tile(16, 16, 2, 4, 8)),
}

TENSOR_TILES = {
    precision: tuple(replace(tile, precision=precision) for tile in tiles)
    for precision, tiles in _TENSOR_SHAPES.items()
}
"""The tiles that `choose_tile` chooses from for a precision of tensor cores: large, middle, small, the simulator's."""

NAMED_TILES = TILES | {tile.name: tile for tiles in TENSOR_TILES.values() for tile in tiles}
"""Every tile by its name."""

MOST_CLASSES = 16
"""Lanes of a row."""


@dataclass(frozen=True)
class HeadShape:
    """How many rows a block of the head takes and among how many slices it divides n_in."""

    rows: int
    slices: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return MOST_CLASSES * self.rows * self.slices


HEAD = HeadShape(8, 2)
SMALL_HEAD = HeadShape(2, 1)
"""32 threads, for the simulator."""

NO_OPTIMIZER = {
    "128x128_8x8": (
        "beside 64 accumulators the registers hold neither every optimizer's state (adamw spills 32 bytes) nor a tally"
    ),
}
"""Tiles whose gradient kernel may hold neither an optimizer nor the tally of penalties and squares, with what was
measured when it did."""

FULL = {
    "128x128_8x8_tf32x3": (
        "beside 64 accumulators and the low parts, the registers hold neither what gathering rows needs (32 to 104 "
        "bytes spilled) nor a gradient's job (84)"
    ),
}
"""Tiles that multiply only dense rows, with what was measured when a kernel did more."""

FILLED = 0.8
"""The share of the multiprocessors that must get a block for a tile to be chosen."""

PART_ROWS = 512
"""The fewest rows in a part of a split batch. This was computed, not measured on a GPU: a 32x32 block multiplies 512
rows in about 5 microseconds, and a second launch costs 1 to 3, so that shorter parts would not pay for it."""


def log2(n: int) -> int:
    """Return the exponent of a power of two."""
    if n < 1 or n & (n - 1):
        raise ValueError(f"got {n}, expected a power of two")
    return n.bit_length() - 1


def padded(n: int) -> int:
    """Return the leading dimension of a matrix with n columns: the next multiple of 8.

    Memory moves in sectors of 32 bytes, which are 8 float32: every row begins with one. (Measured with rows of 12: the
    update of a layer of 10 outputs touched a third more sectors than its bytes fill.)
    """
    return -(-n // 8) * 8


def row_pitch(n: int, dtype: Any) -> int:
    """Return the leading dimension of a data set of n columns: `padded`, or for bytes whole sectors or half of one.

    It is never less, because a row of bytes is read 16 bytes at a time (`sectors`).
    """
    if np.dtype(dtype).itemsize > 1:
        return padded(n)
    return -(-n // 32) * 32 if n > 16 else 16


def blocks(n: int, size: int) -> int:
    """Return how many tiles of `size` cover n."""
    return -(-n // size)


def choose_tile(
    rows: int, columns: int, dtype: Any, multiprocessors: int, capability: tuple[int, int], *, optimizer: bool = False,
    needs_registers: bool = False, precision: str = "float32",
) -> Tile:  # fmt: skip
    """Return the tile for a product of this size: the largest that still gives (nearly) every multiprocessor a block.

    128x128 is for float32 only, because float64 would not fit the registers. 64x64 with 8x4 a thread needs enough
    shared memory for its occupancy (sm_86 and later). If both are too large, it is 32x32 with sliced k. `optimizer`
    says that the product is a gradient that an optimizer consumes in the epilogue, and `needs_registers` that a kernel
    gathers rows of the data set or forms a gradient. The tiles of a `precision` of tensor
    cores are those of `TENSOR_TILES`, in float32.
    """
    single = np.dtype(dtype).itemsize == 4
    if precision != "float32":
        *larger, smallest, simulated = TENSOR_TILES[precision]
    else:
        names = ["128x128_8x8"] if single else []
        names.append("64x64_8x4" if single and capability >= (8, 6) else "64x64_4x4")
        larger, smallest, simulated = [TILES[name] for name in names], TILES["32x32_4x4"], SMALL
    if SIM:
        return simulated
    for tile in larger:
        fills = blocks(rows, tile.rows) * blocks(columns, tile.columns) >= FILLED * multiprocessors
        if fills and not (optimizer and tile.shape in NO_OPTIMIZER) and not (needs_registers and tile.name in FULL):
            return tile
    return smallest


def choose_parts(n_blocks: int, max_rows: int, multiprocessors: int) -> int:
    """Return into how many parts the gradient launch splits a batch of up to `max_rows` rows; 1 leaves it whole.

    The multiprocessors must have room for the `n_blocks` blocks of each part, and a part has at least `PART_ROWS` rows.
    """
    return max(1, min(multiprocessors // n_blocks, max_rows // PART_ROWS))
