"""A layer's share of an update in shared memory: forward, delta, and gradient with the optimizer behind it.

::

    forward    a[i, j..j+3] = f( sum_k x[i, k] W[k, j..j+3] + b[j..j+3] )      a thread: four units of a row
    delta      d[i, j]      = ( sum_k d_next[i, k] W_next[j, k] ) * f'         a thread: one unit of a row
    gradient   g[i, j..j+3] = sum_r x[r, i] d[r, j..j+3]                       a thread: four weights of an input;
               (p, s, t)    = rule(p, g, s, t)                                 the bias is the weight of an input 1

          columns, 4 a thread
         +----+----+----+          threads t, t + 1, ... take neighbouring groups of four, row by row; where there are
    row  | t  | +1 | +2 |          more groups than threads, thread t goes on with group t + threads
         | +3 | +4 |    |          a sum runs over its index in order, in one thread: it depends on nothing else

These are the products of `forward`, `delta` and `gradient` without their tiles. A layer that fits here has hundreds to
some thousands of results, a few for each thread, and its operands lie in shared memory already. What follows a
product is the same as there: f, f' and dropout (`delta.unit_delta`, `dropout.unit_is_kept`), penalties and the
optimizer (`finish`). Zeros are written only where something reads them: the padding of deltas.

Budget: no launch; 4 multiply-adds for a load of 16 bytes, which meet no bank twice, and one of 4 bytes that neighbours
share; in `delta` two of 16 bytes, and neighbours' rows of W meet the same banks.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.activations import Activation, device_pair
from gpuprop_kernels.block_layout import LAYER_SIZE
from gpuprop_kernels.delta import unit_delta
from gpuprop_kernels.dropout import unit_is_kept
from gpuprop_kernels.finish import finisher, penalty_of, scalars_of
from gpuprop_kernels.target import cuda, device, i32, ld1, ld4, ldg1, ldg4, quotient, st1, st4, thread

__all__ = ["hidden_delta", "layer_descent", "layer_forward", "leading"]


@device
def leading(n):
    """Return the leading dimension of rows of n numbers; see `shapes.padded`."""
    return i32((n + 7) & -8)


@cache
def layer_forward(dt: Any, threads: int, activation: Activation, keeps_z: bool, dropout: bool) -> Any:
    """Return ``forward(shared, layers, layer, rows, step, drops)``: the outputs of layer 0, 1, ..."""
    function, kept, zero = device_pair(activation, dt).function, unit_is_kept(dropout), dt(0)

    @device
    def forward(shared, layers, layer, rows, step, drops):
        mask, keep, first_at = drops
        keep_at = i32(first_at + 4 * (layer + 1))  # the inputs' constants come first
        n_in, n_out, inputs_at, outputs_at = ldg4(layers, i32(LAYER_SIZE * layer))
        z_at, _, weights_at, biases_at = ldg4(layers, i32(LAYER_SIZE * layer + 4))
        ld, ld_in = leading(n_out), leading(n_in)
        z = cuda.local.array(4, dt)
        place, end = i32(4 * thread()), i32(rows * ld)
        while place < end:
            row = quotient(place, ld)
            column = i32(place - row * ld)
            z[0], z[1], z[2], z[3] = ld4(shared, i32(biases_at + column))
            k = i32(0)
            while k < n_in:
                x = ld1(shared, i32(inputs_at + row * ld_in + k))
                w = ld4(shared, i32(weights_at + k * ld + column))
                z[0] += x * w[0]
                z[1] += x * w[1]
                z[2] += x * w[2]
                z[3] += x * w[3]
                k = i32(k + 1)
            if keeps_z:
                st4(shared, i32(z_at + place), z[0], z[1], z[2], z[3])
            for e in range(4):
                z[e] = function(z[e])
                if dropout:
                    is_kept = kept(mask, keep_at, row, i32(column + e), step)
                    z[e] = z[e] * ldg1(keep, i32(keep_at + 1)) if is_kept else zero
            st4(shared, i32(outputs_at + place), z[0], z[1], z[2], z[3])
            place = i32(place + 4 * threads)

    return forward


@cache
def hidden_delta(dt: Any, threads: int, activation: Activation, dropout: bool) -> Any:
    """Return ``delta(shared, layers, layer, ...)``: the delta of layer - 1, from that of `layer` and its weights."""
    unit, kept, zero = unit_delta(dt, activation, dropout), unit_is_kept(dropout), dt(0)

    @device
    def delta(shared, layers, layer, rows, step, drops):
        mask, keep, first_at = drops
        keep_at = i32(first_at + 4 * layer)
        n_units, n_next, _, _ = ldg4(layers, i32(LAYER_SIZE * layer))
        _, next_at, weights_at, _ = ldg4(layers, i32(LAYER_SIZE * layer + 4))
        source_at, delta_at, _, _ = ldg4(layers, i32(LAYER_SIZE * layer - 4))
        ld, ld_next = leading(n_units), leading(n_next)
        place, end = thread(), i32(rows * ld)
        while place < end:
            row = quotient(place, ld)
            column = i32(place - row * ld)
            d_unit = zero
            if column < n_units:
                error, k = zero, i32(0)
                while k < n_next:
                    d = ld4(shared, i32(next_at + row * ld_next + k))
                    w = ld4(shared, i32(weights_at + column * ld_next + k))
                    error += d[0] * w[0] + d[1] * w[1] + d[2] * w[2] + d[3] * w[3]
                    k = i32(k + 4)
                is_kept = kept(mask, keep_at, row, column, step)
                d_unit = unit(error, ld1(shared, i32(source_at + place)), is_kept, keep, keep_at)
            st1(shared, i32(delta_at + place), d_unit)
            place = i32(place + threads)

    return delta


@cache
def layer_descent(dt: Any, threads: int, optimizer: str, penalised: bool) -> Any:
    """Return ``descend(shared, state, layers, layer, rows, n_parameters, scalars, slot, tally)``: the layer's update.

    Index o of `state` belongs to the parameter at ``shared[o]``, and o + `n_parameters` to the same one's second state.
    """
    finish, numbers = finisher(dt, optimizer, 4, penalised), scalars_of(dt, optimizer)
    penalty, zero, one = penalty_of(dt, penalised), dt(0), dt(1)

    @device
    def descend(shared, state, layers, layer, rows, n_parameters, scalars, slot, tally):
        n_in, n_out, inputs_at, _ = ldg4(layers, i32(LAYER_SIZE * layer))
        _, delta_at, weights_at, biases_at = ldg4(layers, i32(LAYER_SIZE * layer + 4))
        ld, ld_in = leading(n_out), leading(n_in)
        l1, l2 = penalty(scalars, slot)
        g = cuda.local.array(4, dt)
        place, end = i32(4 * thread()), i32((n_in + 1) * ld)
        while place < end:
            unit = quotient(place, ld)
            column = i32(place - unit * ld)
            is_weight = unit < n_in
            g[0], g[1], g[2], g[3] = zero, zero, zero, zero
            row = i32(0)
            while row < rows:
                x = ld1(shared, i32(inputs_at + row * ld_in + unit)) if is_weight else one
                d = ld4(shared, i32(delta_at + row * ld + column))
                g[0] += x * d[0]
                g[1] += x * d[1]
                g[2] += x * d[2]
                g[3] += x * d[3]
                row = i32(row + 1)
            at = i32(weights_at + place) if is_weight else i32(biases_at + column)
            c = numbers(scalars, slot, is_weight)
            finish(shared, state, n_parameters, at, g, 0, c, l1, l2, tally, is_weight)
            place = i32(place + 4 * threads)

    return descend
