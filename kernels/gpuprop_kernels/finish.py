"""What becomes of a gradient in registers: stored, added, or applied by an optimizer, a few parameters at a time.

::

    g += l2 w + l1 sign w                for weights, where the launch has a penalty
    store        out = g                 accumulate   out += g               slab   out = g, bare
    optimizer    (p, s, t) = rule(p, g, s, t)                                the rules are in `optimizers`

    parameters  | W1 | W2 | ... | WL | b1 | ... | bL |      one flat buffer; gradients alike
    state       |  s of all parameters  |  t of all  |      as many arrays as the optimizer has

    tally of a thread   sum w^2, sum |w| (a penalty)   sum g^2 (clipping)
           |            of the elements it has finished, in the order in which it finishes them
           v
    sum of the block    penalties[2 block], penalties[2 block + 1]     squares[block]

`finisher` is the epilogue of the gradient kernel on what it has just multiplied, and the body of `update`'s kernels on
what they read from the flat buffer, so that both do the same to the last bit. Weight decay and penalties spare the
biases. Padding stays zero: its gradient is 0, and every rule maps p = g = 0 to p = 0.

What a loss reports of its penalties, and the norm that clipping needs, are sums over all weights or gradients. The
launch that has these in registers anyway leaves one partial sum a block (`leave_tally`), which the host adds once an
epoch, or each block of the next launch in a fixed order: neither costs a launch of its own.

Budget, float32: adam in the epilogue moves 24 bytes a parameter, stored gradients 4; a penalty 4 more where nothing
else reads the weight. Registers: 3 numbers of a tally, where there is one; shared memory: one number a thread, after
the multiply has done with it. No launch.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.formulas.rules import RULES
from gpuprop_kernels.optimizers import PENALTY, SCALARS, STATE_ARRAYS, optimizer_rule
from gpuprop_kernels.reduction import block_sum
from gpuprop_kernels.target import cuda, device, i32, ldg1, st1, thread, vector

__all__ = ["TALLY", "finisher", "leave_tally", "penalty_of", "scalars_of"]

TALLY = 3
"""Numbers of a thread's tally: sum w^2, sum |w|, sum g^2."""


def scalars_of(dt: Any, mode: str) -> Any:
    """Return ``read(scalars, slot, is_weight)``: the numbers c of this update, the weight decay being 0 for a bias."""
    return _numbers_of_slot(dt, mode in RULES and RULES[mode].decays)


@cache
def _numbers_of_slot(dt: Any, decays: bool) -> Any:
    """Return the function of `scalars_of`; it reads all numbers, and the compiler drops those that a rule ignores."""
    zero = dt(0)

    @device
    def read(scalars, slot, is_weight):
        at = i32(SCALARS * slot)
        second = ldg1(scalars, i32(at + 2))
        if decays:
            second = second if is_weight else zero
        return (
            ldg1(scalars, i32(at + 1)),
            second,
            ldg1(scalars, i32(at + 3)),
            ldg1(scalars, i32(at + 4)),
            ldg1(scalars, i32(at + 5)),
            ldg1(scalars, i32(at + 6)),
            ldg1(scalars, i32(at + 7)),
        )

    return read


@cache
def penalty_of(dt: Any, penalised: bool) -> Any:
    """Return ``read(scalars, slot) -> (l1, l2)``: the penalties of this update; zeros if there are none."""
    zero = dt(0)
    if not penalised:
        return device(lambda scalars, slot: (zero, zero))

    @device
    def read(scalars, slot):
        at = i32(SCALARS * slot + PENALTY)
        return ldg1(scalars, at), ldg1(scalars, i32(at + 1))

    return read


@cache
def _penalise(dt: Any) -> Any:
    """Return ``add(g, w, l1, l2, tally, is_weight) -> g``: the penalty's gradient added, the weight tallied."""
    zero = dt(0)

    @device
    def add(g, w, l1, l2, tally, is_weight):
        if not is_weight:
            return g
        tally[0] += w * w
        tally[1] += abs(w)
        sign = l1 if w > zero else (-l1 if w < zero else zero)
        return g + l2 * w + sign

    return add


@cache
def finisher(dt: Any, mode: str, width: int, penalised: bool = False, measured: bool = False) -> Any:
    """Return ``finish(parameters, out, n, o, g, at, c, l1, l2, tally, is_weight)`` for `width` parameters from o.

    `mode` ``"slab"`` stores the bare gradient ``g[at:at + width]`` in `out`; ``"store"`` and ``"accumulate"`` the one
    with penalties; the name of an optimizer updates `parameters` and the state `out`, arrays of n elements each.
    `penalised` adds the penalty and tallies the weights, `measured` tallies what is stored.
    """
    if mode in ("slab", "store", "accumulate"):
        return _keeper(dt, mode, width, penalised, measured)
    load, store = vector(width)
    penalise = _penalise(dt)
    rule, arrays, zero = optimizer_rule(mode, dt), STATE_ARRAYS[mode], dt(0)

    @device
    def update(parameters, out, n, o, g, at, c, l1, l2, tally, is_weight):
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
            gradient = penalise(g[at + e], p[e], l1, l2, tally, is_weight) if penalised else g[at + e]
            p[e], s[e], t[e] = rule(p[e], gradient, s[e], t[e], c)
        store(parameters, o, p, 0)
        if arrays > 0:
            store(out, o, s, 0)
        if arrays > 1:
            store(out, i32(n + o), t, 0)

    return update


def _keeper(dt: Any, mode: str, width: int, penalised: bool, measured: bool) -> Any:
    load, store = vector(width)
    penalise = _penalise(dt)
    accumulate = mode == "accumulate"
    if mode == "slab" and (penalised or measured):
        raise ValueError("got a penalty or a norm with mode 'slab', expected none; slabs are parts of a gradient")

    @device
    def keep(parameters, out, n, o, g, at, c, l1, l2, tally, is_weight):
        values = cuda.local.array(width, dt)
        if penalised:
            load(parameters, o, values, 0)
            for e in range(width):
                g[at + e] = penalise(g[at + e], values[e], l1, l2, tally, is_weight)
        if accumulate:
            load(out, o, values, 0)
            for e in range(width):
                g[at + e] += values[e]
        if measured:
            for e in range(width):
                tally[2] += g[at + e] * g[at + e]
        store(out, o, g, at)

    return keep


@cache
def leave_tally(dt: Any, threads: int, penalised: bool, measured: bool) -> Any:
    """Return ``leave(shared, tally, block, penalties, squares)``, which all threads of a block call once at its end."""
    add = block_sum(dt, threads)

    @device
    def leave(shared, tally, block, penalties, squares):
        if penalised:
            square = add(shared, tally[0])
            size = add(shared, tally[1])
            if thread() == 0:
                st1(penalties, i32(2 * block), square)
                st1(penalties, i32(2 * block + 1), size)
        if measured:
            square = add(shared, tally[2])
            if thread() == 0:
                st1(squares, block, square)

    return leave
