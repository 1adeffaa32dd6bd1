"""Eight k of a tile by fused multiply-adds: one thread's outer products of what it reads from two slabs.

::

                     B slab  k x columns                    one thread, 8 x 8
                   +----------------------+              4        gap       4
                   |   |  tx  |      | tx |            +----+           +----+
                   +----------------------+          4 |acc | .. .. ..  |acc |
     A slab        +----------------------+            +----+           +----+
     k x rows      |                      |        gap   :                 :
     +------+      |      C tile          |            +----+           +----+
     | ty   |      |                      |          4 |acc | .. .. ..  |acc |
     |      |      |                      |            +----+           +----+
     | ty   |      |                      |       groups of 4 lie columns*4/thread_columns apart: neighbouring
     +------+      +----------------------+       threads read neighbouring 16 bytes, without bank conflicts

`tensor_step` has the same for tensor cores. Budget: no launch; registers and loads as `tile` says.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from gpuprop_kernels.shapes import Tile, log2
from gpuprop_kernels.target import cuda, device, i32, vector

__all__ = ["EightSteps", "fused_steps"]


class EightSteps(NamedTuple):
    """How the threads of a block multiply eight rows of the slabs."""

    coordinates: Any
    """``coordinates(t) -> (slice, tx, ty)``: whose results thread t has (`tile.sweep`)."""
    places: Any
    """``places(t, base_b) -> (slice, at_a, at_b)``: where the thread begins to read of slabs at 0 and at base_b."""
    multiply: Any
    """``multiply(shared, at_a, at_b, acc)``: add the products of eight rows."""


@cache
def fused_steps(tile: Tile, dt: Any, stride_a: int, stride_b: int, sliced: bool) -> EightSteps:
    """Build the eight steps of one tile shape and dtype, for slabs with these strides.

    Without `sliced` the tile has one slice, and a place costs two instructions less.
    """
    size_m, size_n = tile.thread_rows, tile.thread_columns
    width_m, width_n = min(4, size_m), min(4, size_n)
    across, down = tile.columns // size_n, tile.rows // size_m
    gap_m, gap_n = width_m * down, width_n * across
    group, per_slice = tile.group, tile.depth // tile.slices
    load_m, load_n = vector(width_m)[0], vector(width_n)[0]
    # A warp covers a patch of lanes_x x lanes_y threads, so that its shared loads touch few different addresses.
    lanes_x = min(8, across)
    warps_x = across // lanes_x
    group_bits, lane_bits, warp_bits = log2(group), log2(lanes_x), log2(warps_x)
    lanes_y = max(1, 32 // lanes_x)

    @device
    def coordinates(t):
        u = i32(t & (group - 1))
        lane, warp = i32(u & 31), i32(u >> 5)
        tx = i32((warp & (warps_x - 1)) * lanes_x + (lane & (lanes_x - 1)))
        ty = i32((warp >> warp_bits) * lanes_y + (lane >> lane_bits))
        return i32(t >> group_bits), tx, ty

    @device
    def places(t, base_b):
        part, tx, ty = coordinates(t)
        if not sliced:
            return part, i32(ty * width_m), i32(base_b + tx * width_n)
        at_a = i32(part * (per_slice * stride_a) + ty * width_m)
        return part, at_a, i32(base_b + part * (per_slice * stride_b) + tx * width_n)

    @device
    def step(shared, at_a, at_b, acc):
        """One k: the outer product of a column of the A slab and a row of the B slab."""
        x = cuda.local.array(size_m, dt)
        y = cuda.local.array(size_n, dt)
        for g in range(size_m // width_m):
            load_m(shared, i32(at_a + g * gap_m), x, width_m * g)
        for g in range(size_n // width_n):
            load_n(shared, i32(at_b + g * gap_n), y, width_n * g)
        for i in range(size_m):
            for j in range(size_n):
                acc[i * size_n + j] += x[i] * y[j]

    @device
    def eight_steps(shared, at_a, at_b, acc):
        step(shared, at_a, at_b, acc)
        step(shared, i32(at_a + stride_a), i32(at_b + stride_b), acc)
        step(shared, i32(at_a + 2 * stride_a), i32(at_b + 2 * stride_b), acc)
        step(shared, i32(at_a + 3 * stride_a), i32(at_b + 3 * stride_b), acc)
        step(shared, i32(at_a + 4 * stride_a), i32(at_b + 4 * stride_b), acc)
        step(shared, i32(at_a + 5 * stride_a), i32(at_b + 5 * stride_b), acc)
        step(shared, i32(at_a + 6 * stride_a), i32(at_b + 6 * stride_b), acc)
        step(shared, i32(at_a + 7 * stride_a), i32(at_b + 7 * stride_b), acc)

    return EightSteps(coordinates, places, eight_steps)
