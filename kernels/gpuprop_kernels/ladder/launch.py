"""The steps of the ladder by name, and their launches; the only ``kernel[grid, block]`` calls of this folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuprop_kernels.ladder import delta, register_tile, shared
from gpuprop_kernels.ladder.coalesced import coalesced_kernel
from gpuprop_kernels.ladder.double_buffer import double_buffer_kernel
from gpuprop_kernels.ladder.fused import fused_kernel
from gpuprop_kernels.ladder.naive import naive_kernel
from gpuprop_kernels.target import float32, float64

__all__ = ["LADDER", "Step", "accumulate", "descend", "hidden_delta"]


@dataclass(frozen=True)
class Step:
    """One kernel of the ladder.

    Attributes
    ----------
    build : callable
        Returns the kernel for a dtype of Numba.
    threads : int
        Of a block.
    tile : int
        Side of the square of weights that a block computes; 0 where blocks simply count weights, -1 where rows.
    multiple : int
        What n_in and n_out must be multiples of.
    """

    build: Callable[[Any], Any]
    threads: int
    tile: int
    multiple: int = 1

    def grid(self, n_in: int, n_out: int) -> tuple[int, int]:
        """Return the number of blocks along x and y."""
        if self.tile > 0:
            return -(-n_out // self.tile), -(-n_in // self.tile)
        return -(-(n_in if self.tile < 0 else n_in * n_out) // self.threads), 1


LADDER: dict[str, Step] = {
    "naive": Step(naive_kernel, 256, -1),
    "coalesced": Step(coalesced_kernel, 256, 0),
    "shared memory": Step(shared.shared_kernel, shared.BLOCK, shared.TILE),
    "register tile": Step(register_tile.register_tile_kernel, register_tile.BLOCK, register_tile.TILE),
    "double buffer": Step(double_buffer_kernel, register_tile.BLOCK, register_tile.TILE, 4),
    "fused epilogue": Step(fused_kernel, register_tile.BLOCK, register_tile.TILE, 4),
}


def _dtype(array: Any) -> Any:
    return {"float32": float32, "float64": float64}[str(array.dtype)]


def accumulate(name: str, activations: Any, deltas: Any, gradient: Any) -> None:
    """Write ``activations^T deltas`` into `gradient`, by any step but the last; arrays of two dimensions."""
    step, (n_rows, n_in), n_out = LADDER[name], activations.shape, deltas.shape[1]
    sizes = tuple(map(np.int32, (n_rows, n_in, n_out)))
    kernel = step.build(_dtype(gradient))
    kernel[step.grid(n_in, n_out), step.threads](
        activations.reshape(-1), deltas.reshape(-1), gradient.reshape(-1), *sizes
    )


def descend(activations: Any, deltas: Any, weights: Any, rate: float) -> None:
    """Take ``rate * activations^T deltas`` from `weights`, by the last step."""
    step, (n_rows, n_in), n_out = LADDER["fused epilogue"], activations.shape, deltas.shape[1]
    sizes = tuple(map(np.int32, (n_rows, n_in, n_out)))
    kernel = step.build(_dtype(weights))
    kernel[step.grid(n_in, n_out), step.threads](
        activations.reshape(-1), deltas.reshape(-1), weights.reshape(-1), *sizes, weights.dtype.type(rate)
    )


def hidden_delta(delta_next: Any, weights: Any, activations: Any, out: Any) -> None:
    """Write ``(delta_next weights^T) * a (1 - a)`` into `out`."""
    n_rows, n_units = activations.shape
    sizes = tuple(map(np.int32, (n_rows, n_units, delta_next.shape[1])))
    blocks = -(-n_rows * n_units // delta.BLOCK)
    flat = (array.reshape(-1) for array in (delta_next, weights, activations, out))
    delta.hidden_delta_kernel(_dtype(out))[blocks, delta.BLOCK](*flat, *sizes)
