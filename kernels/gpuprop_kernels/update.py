"""The optimizer on the flat buffer, for gradients that lie in memory: clipped, or the slabs of a split batch.

::

    g = slab 0 + slab 1 + ...  in order;   g *= min(1, limit / |g|);   (p, s, t) = rule(p, g, s, t)

    slabs       |  gradient of rows 0.. |  of rows k.. | ...      partial sums over parts of the batch, n numbers each
    blocks      | 0  | 1  | 2  | ...                              a thread four parameters, a block four times as many;
                                                                  grid z counts networks (`networks`)
    squares     | q0 | q1 | q2 | ...                              sums of g^2 that the blocks of the launch before left

Clipping needs the norm of all gradients before the first update. Each block of the update adds `squares` up by itself
(a few broadcast reads a thread and three barriers), in one order, so that all blocks scale by the same number to the
last bit: cheaper than a launch between the two. `sum_slabs_kernel` is the second pass of a split batch where the
gradient is needed whole: to be clipped, or to gather several batches.

Budget: 1 launch; adam in float32 reads p, g, s, t and writes p, s, t, 28 bytes a parameter, and 4 more for each
further slab; about 32 registers, 512 bytes of shared memory; bound by memory. The same step fused into the gradient
kernel saves g's 4 bytes each way and the launch, and is taken wherever nothing comes between.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.finish import TALLY, finisher, leave_tally, penalty_of, scalars_of
from gpuprop_kernels.networks import part_of, slot_of, without_rows
from gpuprop_kernels.reduction import block_sum
from gpuprop_kernels.target import SIM, block_x, cuda, device, grid_x, i32, kernel, ld1, ld4, ldg1, sqrt, thread

__all__ = ["UPDATE_BLOCK", "sum_slabs_kernel", "update_kernel"]

UPDATE_BLOCK = 16 if SIM else 128
"""Threads of a block, each with four parameters; few in the simulator, where a thread is dear."""


@cache
def _add_slabs(dt: Any) -> Any:
    """Return ``add(slabs, n_slabs, n, o, g)``: g[:4] = the sum of the slabs at o, in order."""
    zero = dt(0)

    @device
    def add(slabs, n_slabs, n, o, g):
        for e in range(4):
            g[e] = zero
        z = i32(0)
        while z < n_slabs:
            v = ld4(slabs, i32(z * n + o))
            g[0] += v[0]
            g[1] += v[1]
            g[2] += v[2]
            g[3] += v[3]
            z = i32(z + 1)

    return add


@cache
def _clipping_factor(dt: Any) -> Any:
    """Return ``factor(shared, squares, n_squares, limit, slots)``: what shortens a gradient to the norm `limit`."""
    zero, one, add = dt(0), dt(1), block_sum(dt, UPDATE_BLOCK)

    @device
    def factor(shared, squares, n_squares, limit, slots):
        total, i, first = zero, thread(), part_of(n_squares, slots)
        while i < n_squares:
            total += ldg1(squares, i32(first + i))
            i = i32(i + UPDATE_BLOCK)
        norm = sqrt(add(shared, total))
        return limit / norm if norm > limit else one

    return factor


@cache
def update_kernel(dt: Any, optimizer: str, clip: bool, penalised: bool) -> Any:
    """Build the optimizer on the flat buffer; with `clip` the gradient is first scaled down to the norm `limit`."""
    finish, read, add = finisher(dt, optimizer, 4, penalised), scalars_of(dt, optimizer), _add_slabs(dt)
    leave, clipping_factor = leave_tally(dt, UPDATE_BLOCK, penalised, False), _clipping_factor(dt)
    penalty, zero = penalty_of(dt, penalised), dt(0)

    @kernel(UPDATE_BLOCK)
    def update_parameters(
        parameters, state, slabs, squares, penalties, scalars, schedule, slot, slots, n_all, n, n_weights, n_slabs,
        n_squares, limit
    ):  # fmt: skip
        shared = cuda.shared.array(UPDATE_BLOCK, dt, alignment=16)
        g = cuda.local.array(4, dt)
        tally = cuda.local.array(TALLY, dt)
        for e in range(TALLY):
            tally[e] = zero
        slot = slot_of(slot, slots)
        if without_rows(ld1(schedule, i32(4 * slot + 1)), slots):
            return
        factor = clipping_factor(shared, squares, n_squares, limit, slots) if clip else zero
        place = i32(4 * (block_x() * UPDATE_BLOCK + thread()))
        if place < n:
            o = i32(part_of(n, slots) + place)
            add(slabs, n_slabs, n_all, o, g)
            if clip:
                for e in range(4):
                    g[e] *= factor
            is_weight = place < n_weights
            c = read(scalars, slot, is_weight)
            l1, l2 = penalty(scalars, slot)
            finish(parameters, state, n_all, o, g, 0, c, l1, l2, tally, is_weight)
        leave(shared, tally, i32(part_of(grid_x(), slots) + block_x()), penalties, squares)

    return update_parameters


@cache
def sum_slabs_kernel(dt: Any, accumulate: bool, penalised: bool, measured: bool) -> Any:
    """Build the second pass of a split batch: gradients = (or +=) the sum of the slabs in order, with penalties."""
    mode = "accumulate" if accumulate else "store"
    finish, add, zero = finisher(dt, mode, 4, penalised, measured), _add_slabs(dt), dt(0)
    leave, penalty = leave_tally(dt, UPDATE_BLOCK, penalised, measured), penalty_of(dt, penalised)

    @kernel(UPDATE_BLOCK)
    def sum_slabs(
        parameters, gradients, slabs, squares, penalties, scalars, schedule, slot, slots, n_all, n, n_weights, n_slabs
    ):
        shared = cuda.shared.array(UPDATE_BLOCK, dt, alignment=16)
        g = cuda.local.array(4, dt)
        tally = cuda.local.array(TALLY, dt)
        for e in range(TALLY):
            tally[e] = zero
        slot = slot_of(slot, slots)
        if without_rows(ld1(schedule, i32(4 * slot + 1)), slots):
            return
        place = i32(4 * (block_x() * UPDATE_BLOCK + thread()))
        if place < n:
            o = i32(part_of(n, slots) + place)
            add(slabs, n_slabs, n_all, o, g)
            l1, l2 = penalty(scalars, slot)
            finish(parameters, gradients, n_all, o, g, 0, (zero,), l1, l2, tally, place < n_weights)
        leave(shared, tally, i32(part_of(grid_x(), slots) + block_x()), penalties, squares)

    return sum_slabs
