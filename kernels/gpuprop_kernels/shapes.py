"""The shapes of tiles: how a block's and a thread's part of a product are cut."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SMALL", "TILES", "Tile", "log2"]


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
    """

    rows: int
    columns: int
    thread_rows: int
    thread_columns: int
    depth: int = 8
    slices: int = 1

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
        """Blocks that the assembler shall fit on one multiprocessor, 0 to let it choose.

        128x128 with 8x8 results a thread needs the hint, or some architectures take 130 registers and lose the second
        block. The smaller tiles are better off without: measured, the hint costs 3 to 8 % of the FMA share there.
        """
        return 2 if self.thread_rows * self.thread_columns == 64 else 0

    @property
    def name(self) -> str:
        """Short name for tables, e.g. ``64x64_8x4``."""
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
"""What `launch` chooses from."""


def log2(n: int) -> int:
    """Return the exponent of a power of two."""
    if n < 1 or n & (n - 1):
        raise ValueError(f"got {n}, expected a power of two")
    return n.bit_length() - 1
