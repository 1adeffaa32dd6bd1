"""What becomes of a gradient: stored, added, or applied by an optimizer, four parameters at a time.

::

    parameters  | W1 | W2 | ... | WL | b1 | ... | bL |      one flat buffer; gradients alike
    state       |  s of all parameters  |  t of all  |      as many arrays as the optimizer has
    slabs       |  gradient of rows 0.. |  of rows k.. | ...   partial sums over parts of the batch

    g = sum of the slabs, in order (+ l2 w + l1 sign w for weights);  clip;  (p, s, t) = rule(p, g, s, t)

`finisher` builds the step from a gradient in registers to memory; the epilogue of the gradient kernel calls it on
what it has just multiplied, and `update_kernel` on what it reads from the flat buffer, so that both do the same to
the last bit. Weight decay and penalties spare the biases. Padding stays zero: its gradient is 0, and every rule maps
p = g = 0 to p = 0.

Norm clipping needs the norm of all gradients before the first update: `sum_squares_kernel` leaves one partial sum per
block, and each thread of the update adds them in order (at most `REDUCTION_BLOCKS` broadcast reads) and scales by
min(1, limit / norm). Max-norm, which limits the norm of the weights into each unit, is a pass over each matrix.

Budget of an update in float32, one launch: adam reads p, g, s, t and writes p, s, t, 28 bytes a parameter; inside the
gradient kernel g never exists in memory, 24 bytes. 32 registers, no shared memory; bound by memory.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.optimizers import SCALARS, STATE_ARRAYS, optimizer_rule
from gpuprop_kernels.reduction import block_sum
from gpuprop_kernels.target import (
    SIM,
    block_x,
    cuda,
    device,
    grid_x,
    i32,
    kernel,
    ld1,
    ld4,
    ldg1,
    sqrt,
    st1,
    sync,
    thread,
    vector,
)  # fmt: skip

__all__ = [
    "REDUCTION_BLOCKS", "UPDATE_BLOCK", "finisher", "limit_norm_kernel", "scalars_of", "sum_slabs_kernel",
    "sum_squares_kernel", "update_kernel",
]  # fmt: skip

UPDATE_BLOCK = 16 if SIM else 128
"""Threads of a block of the flat kernels, each with four parameters; few in the simulator, where a thread is dear."""

REDUCTION_BLOCKS = 64
"""Most partial sums of the squares."""

NORM_ROWS = 8
"""Threads that share a column in `limit_norm_kernel`."""


@cache
def scalars_of(dt: Any) -> Any:
    """Return ``read(scalars, slot, is_weight)``: the numbers of this update, without decay for a bias."""
    zero = dt(0)

    @device
    def read(scalars, slot, is_weight):
        at = i32(SCALARS * slot)
        decay = ldg1(scalars, i32(at + 5))
        return (
            ldg1(scalars, i32(at + 1)),
            ldg1(scalars, i32(at + 2)),
            ldg1(scalars, i32(at + 3)),
            ldg1(scalars, i32(at + 4)),
            decay if is_weight else zero,
            ldg1(scalars, i32(at + 6)),
        )

    return read


@cache
def _penalised(dt: Any) -> Any:
    zero = dt(0)

    @device
    def gradient(g, w, l1, l2, is_weight):
        if not is_weight:
            return g
        sign = l1 if w > zero else (-l1 if w < zero else zero)
        return g + l2 * w + sign

    return gradient


@cache
def finisher(dt: Any, mode: str, width: int) -> Any:
    """Return ``finish(parameters, out, n, o, g, at, c, l1, l2, is_weight)`` for `width` parameters from index o.

    `mode` ``"slab"`` stores the bare gradient ``g[at:at + width]`` in `out`, ``"store"`` and ``"accumulate"`` the one
    with penalties; the name of an optimizer updates `parameters` and the state `out`, arrays of n elements each.
    """
    load, store = vector(width)
    penalised = _penalised(dt)
    if mode in ("slab", "store", "accumulate"):
        return _keeper(dt, mode, width)
    rule, arrays, zero = optimizer_rule(mode, dt), STATE_ARRAYS[mode], dt(0)

    @device
    def update(parameters, out, n, o, g, at, c, l1, l2, is_weight):
        p = cuda.local.array(width, dt)
        s = cuda.local.array(width, dt)
        t = cuda.local.array(width, dt)
        load(parameters, o, p, 0)
        for e in range(width):
            s[e] = zero
            t[e] = zero
        if arrays > 0:
            load(out, o, s, 0)
        if arrays > 1:
            load(out, i32(n + o), t, 0)
        for e in range(width):
            gradient = penalised(g[at + e], p[e], l1, l2, is_weight)
            p[e], s[e], t[e] = rule(p[e], gradient, s[e], t[e], c)
        store(parameters, o, p, 0)
        if arrays > 0:
            store(out, o, s, 0)
        if arrays > 1:
            store(out, i32(n + o), t, 0)

    return update


def _keeper(dt: Any, mode: str, width: int) -> Any:
    load, store = vector(width)
    penalised = _penalised(dt)
    penalties, accumulate = mode != "slab", mode == "accumulate"

    @device
    def keep(parameters, out, n, o, g, at, c, l1, l2, is_weight):
        values = cuda.local.array(width, dt)
        if penalties:
            load(parameters, o, values, 0)
            for e in range(width):
                g[at + e] = penalised(g[at + e], values[e], l1, l2, is_weight)
        if accumulate:
            load(out, o, values, 0)
            for e in range(width):
                g[at + e] += values[e]
        store(out, o, g, at)

    return keep


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
def update_kernel(dt: Any, optimizer: str, clip: bool) -> Any:
    """Build the optimizer on the flat buffer; with `clip` the gradient is first scaled down to `limit`."""
    finish, read, add = finisher(dt, optimizer, 4), scalars_of(dt), _add_slabs(dt)
    one, zero = dt(1), dt(0)

    @kernel(UPDATE_BLOCK)
    def update_parameters(
        parameters, state, slabs, squares, scalars, slot, n, n_weights, n_slabs, n_squares, limit, l1, l2
    ):
        g = cuda.local.array(4, dt)
        o = i32(4 * (block_x() * UPDATE_BLOCK + thread()))
        if o < n:
            add(slabs, n_slabs, n, o, g)
            if clip:
                total = zero
                for i in range(n_squares):
                    total += ldg1(squares, i32(2 * i))
                norm = sqrt(total)
                factor = limit / norm if norm > limit else one
                for e in range(4):
                    g[e] *= factor
            is_weight = o < n_weights
            finish(parameters, state, n, o, g, 0, read(scalars, slot, is_weight), l1, l2, is_weight)

    return update_parameters


@cache
def sum_slabs_kernel(dt: Any, accumulate: bool) -> Any:
    """Build the second pass of a split batch: gradients = (or +=) the sum of the slabs in order, with penalties."""
    finish, add, zero = finisher(dt, "accumulate" if accumulate else "store", 4), _add_slabs(dt), dt(0)

    @kernel(UPDATE_BLOCK)
    def sum_slabs(parameters, gradients, slabs, n, n_weights, n_slabs, l1, l2):
        g = cuda.local.array(4, dt)
        o = i32(4 * (block_x() * UPDATE_BLOCK + thread()))
        if o < n:
            add(slabs, n_slabs, n, o, g)
            none = (zero, zero, zero, zero, zero, zero)
            finish(parameters, gradients, n, o, g, 0, none, l1, l2, o < n_weights)

    return sum_slabs


@cache
def sum_squares_kernel(dt: Any) -> Any:
    """Build the reduction: partial sums of squares and of absolute values of a flat buffer, two numbers a block.

    Of the gradients it gives the norm to clip by, of the weights the penalties that a loss reports.
    """
    zero = dt(0)
    add = block_sum(dt, UPDATE_BLOCK)

    @kernel(UPDATE_BLOCK)
    def sum_squares(values, partial_sums, n):
        shared = cuda.shared.array(UPDATE_BLOCK, dt, alignment=16)
        square, size = zero, zero
        o = i32(4 * (block_x() * UPDATE_BLOCK + thread()))
        while o < n:
            v = ld4(values, o)
            square += v[0] * v[0] + v[1] * v[1] + v[2] * v[2] + v[3] * v[3]
            size += abs(v[0]) + abs(v[1]) + abs(v[2]) + abs(v[3])
            o = i32(o + 4 * UPDATE_BLOCK * grid_x())
        square = add(shared, square)
        size = add(shared, size)
        if thread() == 0:
            st1(partial_sums, i32(2 * block_x()), square)
            st1(partial_sums, i32(2 * block_x() + 1), size)

    return sum_squares


@cache
def limit_norm_kernel(dt: Any) -> Any:
    """Build the max-norm constraint: each column of W (the weights into one unit) scaled down to at most `limit`.

    A block takes 16 columns, `NORM_ROWS` threads each, which add their rows' squares and then each other's, in order.
    """
    zero, threads = dt(0), 16 * NORM_ROWS

    @kernel(threads)
    def limit_incoming_norm(parameters, offset, n_in, ld, limit):
        shared = cuda.shared.array(threads, dt, alignment=16)
        t = thread()
        column, first = i32(16 * block_x() + (t & 15)), i32(t >> 4)
        total = zero
        row = first
        while row < n_in and column < ld:
            w = ld1(parameters, i32(offset + row * ld + column))
            total += w * w
            row = i32(row + NORM_ROWS)
        st1(shared, t, total)
        sync()
        total = zero
        for r in range(NORM_ROWS):
            total += ld1(shared, i32(16 * r + (t & 15)))
        norm = sqrt(total)
        row = first
        while row < n_in and column < ld and norm > limit:
            at = i32(offset + row * ld + column)
            st1(parameters, at, ld1(parameters, at) * (limit / norm))
            row = i32(row + NORM_ROWS)

    return limit_incoming_norm
