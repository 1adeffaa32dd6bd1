"""Backpropagation on one page: one block trains one network, for whole epochs in one launch.

::

    grid        | block 0: network 0 | block 1: network 1 | ...                   blocks never meet
    a block     parameters and optimizer's state -> shared memory
                for each update:
                    a[0], y   = take_batch(order, start)                          rows of the data set
                    ------------------------------------------ barrier
                    a[l]      = f(a[l-1] W[l] + b[l])           l = 1..L          a barrier after each
                    d[L]      = dLoss/dz[L],  loss, score                         row by row
                    for l = L..1:
                        d[l-1] = (d[l] W[l]^T) * f'(a[l-1])     unless l = 1
                        -------------------------------------- barrier: W[l] may change from here on
                        W[l], b[l] = optimizer(W[l], a[l-1]^T d[l], ...)
                    ------------------------------------------ barrier: a may change from here on
                parameters and state -> global memory

A small network's update takes a GPU some microseconds, however it is cut up: a launch for each layer would cost more
than the layer. Here nothing of a network leaves its multiprocessor between two updates but its loss, and what comes in
is the rows of its batch. As many networks train at once as there are blocks on the GPU; since no block reads what
another has written, a network gets the same bits alone and in any company, in any order of blocks.

Each line of the algorithm is a device function: `block_layers` has the layers', `rows.row_rule` the output's, and where
everything lies says `block_layout`. The slots of an update are those of the kernels that share a launch among networks
(`networks`), without the grid's third axis: a network's slot follows that of the network before it. A network that has
no rows in a slot has ended its epoch, which may be shorter than the others'.

Budget: 1 launch an epoch; 64 to 256 threads; shared memory as `block_layout` says; L + 4 barriers an update beside
those of the output's sums; reads a row of data and of targets once an update, parameters and state once a launch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from gpuprop_kernels.activations import Activation
from gpuprop_kernels.block_layers import hidden_delta, layer_descent, layer_forward, leading
from gpuprop_kernels.block_layout import LANE_BITS, LANES, LAYER_SIZE
from gpuprop_kernels.dropout import unit_is_kept
from gpuprop_kernels.finish import TALLY, leave_tally
from gpuprop_kernels.forward import Source, source_loader
from gpuprop_kernels.optimizers import SCALARS, STATE_ARRAYS
from gpuprop_kernels.rows import RowShape, leave_losses, row_rule
from gpuprop_kernels.target import (
    block_x,
    cuda,
    device,
    grid_x,
    i32,
    kernel,
    ld4,
    ldg1,
    ldg4,
    quotient,
    st4,
    sync,
    thread,
)

__all__ = ["BlockRule", "train_network_kernel"]


@dataclass(frozen=True)
class BlockRule:
    """What the kernel is compiled for; all sizes are read at run time.

    Attributes
    ----------
    threads : int
    source : str
        Where the rows come from, see `forward.Source`.
    hidden, output : Activation
        All hidden layers have one activation.
    loss, metric, optimizer : str
    dropout, penalised, weighted : bool
        Whether any layer drops units, whether weights are penalised, and whether rows have sample weights.
    """

    threads: int
    source: Source
    hidden: Activation
    output: Activation
    loss: str
    metric: str
    optimizer: str
    dropout: bool
    penalised: bool
    weighted: bool


@cache
def train_network_kernel(rule: BlockRule, dt: Any) -> Any:
    """Build the kernel; see the module for what it computes."""
    threads, optimizer, dropout, penalised = rule.threads, rule.optimizer, rule.dropout, rule.penalised
    keeps_z = rule.hidden.derivative_of == "z"
    take_batch = _take_batch(dt, threads, rule.source, dropout)
    forward = layer_forward(dt, threads, rule.hidden, keeps_z, dropout)
    net_input = layer_forward(dt, threads, Activation("identity"), False, False)
    output_delta = _output_delta(rule, dt)
    delta = hidden_delta(dt, threads, rule.hidden, dropout)
    descend = layer_descent(dt, threads, optimizer, penalised)
    arrays, zero = 1 + STATE_ARRAYS[optimizer], dt(0)
    bring, give_back = _bring(threads, arrays), _give_back(threads, arrays)
    leave = leave_tally(dt, threads, penalised, False)

    @kernel(threads)
    def train_network(
        data, order, shift, scale, targets, sample_weights, parameters, state, mask, keep, layers, schedule, scalars,
        losses, penalties, first, last, n_layers, n, ldx, ldy
    ):  # fmt: skip
        shared = cuda.shared.array(0, dt, alignment=16)
        own_state = shared[n:]  # so that the index of a parameter is that of its first state
        tally = cuda.local.array(TALLY, dt)
        network, n_networks, output = block_x(), grid_x(), i32(n_layers - 1)  # the layers are 0, 1, ..., output
        drops = (mask, keep, i32(4 * n_layers * network))
        own, n_all = i32(network * n), i32(n_networks * n)
        bring(shared, parameters, state, own, n, n_all)
        update = first
        while update < last:
            slot = i32(update * n_networks + network)
            start, rows, step, _ = ldg4(schedule, i32(4 * slot))
            if rows == 0:
                break
            # a[0], y = take_batch(order, start)
            take_batch(shared, layers, (data, order, start, shift, scale, ldg1(scale, i32(0)), ldx), rows, step, drops)
            sync()
            # a[l] = f(a[l-1] W[l] + b[l])
            layer = i32(0)
            while layer < output:
                forward(shared, layers, layer, rows, step, drops)
                sync()
                layer = i32(layer + 1)
            net_input(shared, layers, output, rows, step, drops)
            sync()
            # d[L] = dLoss/dz[L], loss, score
            answers = (targets, sample_weights, order, start, ldy)
            output_delta(shared, layers, output, rows, answers, scalars, slot, losses)
            for e in range(TALLY):
                tally[e] = zero
            while layer >= 0:
                # d[l-1] = (d[l] W[l]^T) * f'(a[l-1]), with the weights as they were
                if layer > 0:
                    delta(shared, layers, layer, rows, step, drops)
                sync()
                # W[l], b[l] = optimizer(W[l], a[l-1]^T d[l], ...)
                descend(shared, own_state, layers, layer, rows, n, scalars, slot, tally)
                layer = i32(layer - 1)
            sync()
            leave(shared, tally, slot, penalties, penalties)
            update = i32(update + 1)
        give_back(shared, parameters, state, own, n, n_all)

    return train_network


@cache
def _take_batch(dt: Any, threads: int, source: Source, dropout: bool) -> Any:
    """Return ``take_batch(shared, layers, rows_of, ...)``: the batch's scaled rows, with the dropout of the inputs."""
    loader, kept, zero = source_loader(source, dt), unit_is_kept(dropout), dt(0)
    locate, load = loader.locate, loader.load

    @device
    def take_batch(shared, layers, rows_of, rows, step, drops):
        mask, keep, keep_at = drops
        n_in, _, inputs_at, _ = ldg4(layers, i32(0))
        ld = leading(n_in)
        x = cuda.local.array(4, dt)
        place, end = i32(4 * thread()), i32(rows * ld)
        while place < end:
            row = quotient(place, ld)
            column = i32(place - row * ld)
            x[0], x[1], x[2], x[3] = load(rows_of, locate(rows_of, row), column)
            if dropout:
                for e in range(4):
                    is_kept = kept(mask, keep_at, row, i32(column + e), step)
                    x[e] = x[e] * ldg1(keep, i32(keep_at + 1)) if is_kept else zero
            st4(shared, i32(inputs_at + place), x[0], x[1], x[2], x[3])
            place = i32(place + 4 * threads)

    return take_batch


@cache
def _output_delta(rule: BlockRule, dt: Any) -> Any:
    """Return ``output_delta(shared, layers, output, ...)``: net inputs become deltas; loss and score go to `losses`."""
    shape = RowShape(rule.threads // LANES, LANES)
    judge = row_rule(dt, rule.output, rule.loss, rule.metric, rule.weighted, LANES)
    leave, rows_at_once, zero = leave_losses(dt, shape), shape.rows, dt(0)

    @device
    def output_delta(shared, layers, output, rows, answers, scalars, slot, losses):
        targets, sample_weights, order, start, ldy = answers
        _, n_out, _, z_at = ldg4(layers, i32(LAYER_SIZE * output))
        scale, value, score = ldg1(scalars, i32(SCALARS * slot)), zero, zero
        first = i32(0)
        while first < rows:
            row = i32(first + (thread() >> LANE_BITS))
            where = (order, start, rows, row, n_out, leading(n_out), ldy, z_at)
            row_value, row_score = judge(shared, shared, targets, sample_weights, shared, scale, where)
            value += row_value
            score += row_score
            first = i32(first + rows_at_once)
        leave(shared, value, score, losses, slot)

    return output_delta


@cache
def _bring(threads: int, arrays: int) -> Any:
    """Return ``bring(shared, parameters, state, own, n, n_all)``: parameters and state of a network come in."""

    @device
    def bring(shared, parameters, state, own, n, n_all):
        place = i32(4 * thread())
        while place < n:
            v = ld4(parameters, i32(own + place))
            st4(shared, i32(threads + place), v[0], v[1], v[2], v[3])
            for array in range(1, arrays):
                v = ld4(state, i32((array - 1) * n_all + own + place))
                st4(shared, i32(threads + array * n + place), v[0], v[1], v[2], v[3])
            place = i32(place + 4 * threads)

    return bring


@cache
def _give_back(threads: int, arrays: int) -> Any:
    """Return ``give_back(shared, parameters, state, own, n, n_all)``: the same go back to where they came from."""

    @device
    def give_back(shared, parameters, state, own, n, n_all):
        place = i32(4 * thread())
        while place < n:
            v = ld4(shared, i32(threads + place))
            st4(parameters, i32(own + place), v[0], v[1], v[2], v[3])
            for array in range(1, arrays):
                v = ld4(shared, i32(threads + array * n + place))
                st4(state, i32((array - 1) * n_all + own + place), v[0], v[1], v[2], v[3])
            place = i32(place + 4 * threads)

    return give_back
