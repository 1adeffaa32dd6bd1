"""Figures of many networks on a GPU that need no GPU: launches, bytes, floors, and blocks a multiprocessor.

::

    an epoch of k networks      one block a network                      layer by layer, in the launches of one
    launches                    1 for up to 4096 updates                 2 H + 1 an update, of H hidden layers
    bytes                       parameters and state once, the rows      parameters and state with each update, the rows
    blocks of a launch          k                                        k times the tiles of the widest gradient

Nothing here is a measured time. The path is the one that the plan for a GPU takes, and the tiles are those that its
launches choose, which a test holds to the kernels themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gpuprop.errors import GpupropError
from gpuprop.maths.optimizers import Adam
from gpuprop.measure.bench.roofline import DEVICES, Work, step_work
from gpuprop.measure.bench.together import CASES

if TYPE_CHECKING:
    from gpuprop.measure.bench.documents import Table

__all__ = ["GPU", "entries", "table"]

GPU = "NVIDIA A100 40GB"
"""The GPU whose multiprocessors are counted."""

MULTIPROCESSORS, CAPABILITY, BLOCK_MEMORY = 108, (8, 0), 163 * 1024
"""What its data sheet and the CUDA C++ Programming Guide (compute capability 8.0) say of it."""


def entries(names: Sequence[str], counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the figures of an epoch of so many networks of each case, in float32 with Adam.

    Raises
    ------
    GpupropError
        If the kernels cannot be imported, because Numba's package for CUDA is missing.
    """
    try:
        from gpuprop_kernels.block_layout import MOST_UPDATES, fits_a_block
        from gpuprop_kernels.shapes import blocks, choose_tile, padded
    except ImportError as error:
        raise GpupropError(f"{error}; figures of the kernels need pip install 'gpuprop[cuda]'") from error

    state_arrays = len(Adam().slots)
    for name in names:
        config = CASES[name]
        sizes, rows = config.sizes, config.batch_size
        n_updates = -(-config.n_samples // rows)
        step = step_work(sizes, rows, 4, state_arrays)
        in_a_block = fits_a_block(sizes, rows, itemsize=4, state_arrays=state_arrays, block_memory=BLOCK_MEMORY)
        if in_a_block:
            of_rows = rows * (sizes[0] + 4)
            moved = step.bytes - of_rows + n_updates * of_rows
            launches, of_network = -(-n_updates // MOST_UPDATES), 1
        else:
            moved, launches = n_updates * step.bytes, n_updates * (2 * len(sizes) - 3)
            largest = max(pairwise(sizes), key=lambda pair: pair[0] * pair[1])
            tile = choose_tile(*largest, "float32", MULTIPROCESSORS, CAPABILITY, optimizer=True)
            of_network = sum(blocks(n_in, tile.rows) * blocks(padded(n), tile.columns) for n_in, n in pairwise(sizes))
            of_network += sum(blocks(padded(n), 4 * tile.threads) for n in sizes[1:])
        for count in counts:
            work = Work(count * n_updates * step.flops, count * moved)
            yield {
                "config": name,
                "network": str(config),
                "n_networks": count,
                "path": "block" if in_a_block else "layer by layer",
                "updates": n_updates,
                "launches": launches,
                "bytes": work.bytes,
                "floor_microseconds": {roof.name: roof.floor(work, "float32") * 1e6 for roof in DEVICES},
                "blocks_per_multiprocessor": count * of_network / MULTIPROCESSORS,
            }


def table(results: Sequence[dict[str, Any]]) -> Table:
    """Return the table of these figures."""
    headers = ("config", "networks", "path", "launches an epoch", "MB", "floor in us", "blocks a multiprocessor")
    rows = [
        [
            one["config"], str(one["n_networks"]), one["path"], f"{one['launches']:,}", f"{one['bytes'] / 1e6:,.1f}",
            f"{one['floor_microseconds'][GPU]:,.1f}", f"{one['blocks_per_multiprocessor']:,.2f}",
        ]
        for one in results
    ]  # fmt: skip
    return headers, rows, (1, 3, 4, 5, 6)
