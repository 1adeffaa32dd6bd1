"""Updates by primitives, in which threads share the rows of a batch and then the gradients of its layers.

Until the gradients, which are sums over rows, backpropagation treats each row by itself. So an update has two parts,
and the threads meet between them:

    rows       take_batch, forward, output_delta, hidden_delta    for a piece of the rows
    gradients  gW[l][i:j] = a[l-1][:, i:j].T @ delta[l]           for a piece of a layer's inputs

The pieces follow from sizes alone, and BLAS multiplies each with one thread. So any number of threads gives the same
bits, and which number is fastest may be found by a clock. BLAS's own threads share single products; they give other
bits with another number, and spin while they wait, which costs most on a busy machine.
"""

from __future__ import annotations

import os
import weakref
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpuprop.backends.cpu import loops
from gpuprop.backends.cpu.subnormals import subnormals_flushed
from gpuprop.backends.sharing import Crew
from gpuprop.backends.steps import StepsPlan
from gpuprop.backends.threads import WORTH_SHARING_BY_BLAS, ThreadChoice, limited_blas
from gpuprop.core import step
from gpuprop.core.parameters import Parameters

if TYPE_CHECKING:
    from typing import Any

    from gpuprop.core.ops import Ops
    from gpuprop.core.updates import Batch, Moment, Training
    from gpuprop.core.workspace import TrainingWorkspace

__all__ = ["SharedStepsPlan", "worth_sharing"]

#: From this many products of two numbers in an update on, some seven tenths of a millisecond of one core, threads share
#: it. Each of the two parts costs some tens of microseconds until the other threads have begun.
_WORTH_SHARING = 2**25
#: The most weights of a layer. BLAS rearranges them for each piece of the rows anew: that takes a tenth of one thread's
#: time with 30-256-256-256-2 and 256 rows, where two threads take 0.75 of it in all, and a sixth with 784-256-256-10
#: (Zen 4, 1 MiB of second cache).
_MOST_WEIGHTS = 2**17
#: From so many rows on a batch has two pieces, and more if each has so many.
_ROWS = (192, 256)
#: The same for the products of two numbers in a gradient.
_PRODUCTS = (2**23, 2**24)
#: The most pieces of a batch or of a gradient.
_PIECES = 8


def worth_sharing(training: Training) -> bool:
    """Return whether threads share the rows of a training's batches.

    The answer follows from sizes, options and the machine, not from how many threads the training may have.
    """
    spec = training.layers.spec
    n_rows = min(training.part_size, training.rows_of_epoch)
    largest = max(a * b for a, b in pairwise(spec.layer_sizes))
    return (
        _n_pieces(n_rows, *_ROWS) > 1
        and not spec.batch_norm  # whose averages are over all rows
        and (os.cpu_count() or 1) > 1
        and 3 * n_rows * spec.n_weights >= _WORTH_SHARING
        and largest <= _MOST_WEIGHTS
        and n_rows * largest < WORTH_SHARING_BY_BLAS  # of larger products BLAS's own threads make more
        # A user's own functions may keep something between calls, and need not stand two at a time.
        and all(loops.knows(activation, spec.loss) for activation in spec.activations)
    )


class _Gradient(NamedTuple):
    """Rows `first` to `stop` - 1 of the weight gradient of layer `below` + 1, and where its bias gradient goes."""

    below: int
    first: int
    stop: int
    bias_grads: Any


class SharedStepsPlan(StepsPlan):
    """`gpuprop.core.plan.Plan` that calls the primitives on pieces of a batch, in several threads.

    Parameters
    ----------
    training : Training
    because : str
        Why the updates are made by primitives.
    """

    def __init__(self, training: Training, because: str) -> None:
        self._choice = ThreadChoice(training.products, training.n_threads, "steps")
        most = self._choice.most
        threads = "1 thread" if most == 1 else f"up to {most} threads"
        reason = f"steps: {because}; {threads} for the rows of a batch"
        super().__init__(training, reason, n_threads=None, around_updates=subnormals_flushed)
        self._crew = Crew(subnormals_flushed)
        weakref.finalize(self, self._crew.end)
        self._n_threads = 1
        self._pieces: dict[int, list[tuple[int, TrainingWorkspace]]] = {}
        self._gradients = _gradients_of(self._work, training.layers.ops)

    def active(self) -> AbstractContextManager[None]:
        """Limit BLAS to one thread."""
        return limited_blas(1)

    def run(self, first: int, last: int) -> None:
        """Make the updates `first` to `last` - 1."""
        for n_threads, start, stop in self._choice.calls(first, last):
            self._n_threads = n_threads
            super().run(start, stop)

    def _train(self, batch: Batch, moment: Moment) -> None:
        layers, work = self._training.layers, self._work
        for first in range(batch.start, batch.stop, work.n_rows):
            n_rows, accumulate = min(work.n_rows, batch.stop - first), first > batch.start
            self._treat_rows(batch, moment, first, n_rows, accumulate=accumulate)
            self._accumulate_gradients(work.rows(n_rows), accumulate=accumulate)
        step.add_penalty(layers, work.gradients, batch.total_weight, work.totals, moment.penalty_factor)
        step.update(layers, work.gradients, self._rule, moment)

    def _treat_rows(self, batch: Batch, moment: Moment, first: int, n_rows: int, *, accumulate: bool) -> None:
        """Go forwards and backwards through the network, down to the deltas of the first layer."""
        layers, data, pieces = self._training.layers, batch.data, self._of(n_rows)

        def treat(piece: tuple[int, TrainingWorkspace]) -> None:
            offset, work = piece
            work.totals[...] = 0
            step.take_batch(layers, work, data, batch.order, first + offset)
            place, factor = first + offset - batch.start, moment.dropout_factor
            step.forward_pass(layers, work, moment.steps_done, first_row=place, dropout_factor=factor)
            step.output_delta(layers, work, data, batch.total_weight)
            step.hidden_deltas(layers, work)

        self._crew.work_through(pieces, treat, self._n_threads)
        gradients, behind = self._work.gradients, _behind_biases(self._work.gradients)
        for index, (_, work) in enumerate(pieces):
            self._work.totals += work.totals
            if behind < gradients.flat.size:
                own, given = gradients.flat[behind:], work.gradients.flat[behind:]
                own[...] = own + given if accumulate or index else given

    def _accumulate_gradients(self, work: TrainingWorkspace, *, accumulate: bool) -> None:
        ops, gradients = self._training.layers.ops, work.gradients

        def of_piece(piece: _Gradient) -> None:
            below, first, stop, bias_grads = piece
            inputs: Any = work.inputs[below]
            delta: Any = work.delta[below + 1]
            weight_grads = gradients.weights[below][first:stop]
            ops.accumulate_gradient(inputs[:, first:stop], delta, weight_grads, bias_grads, accumulate=accumulate)

        self._crew.work_through(self._gradients, of_piece, self._n_threads)

    def _of(self, n_rows: int) -> list[tuple[int, TrainingWorkspace]]:
        """Return the pieces of a batch: the offset of their first row, and the arrays of their rows."""
        if n_rows not in self._pieces:
            layers, work, count = self._training.layers, self._work.rows(n_rows), _n_pieces(n_rows, *_ROWS)
            cuts = [n_rows * index // count for index in range(count + 1)]
            pieces = [(first, work.between(first, stop)) for first, stop in pairwise(cuts)]
            for _, piece in pieces:
                piece.totals = np.zeros(2)
                if not layers.spec.plain:  # of slopes and embeddings, which `hidden_deltas` writes
                    given = self._work.gradients
                    piece.gradients = Parameters(np.zeros_like(given.flat), given.layout, given.row_padding)
            self._pieces[n_rows] = pieces
        return self._pieces[n_rows]


def _n_pieces(n: int, worthwhile: int, enough: int) -> int:
    """Return the number of pieces: two from `worthwhile` on, and more where each has `enough`."""
    return 1 if n < worthwhile else max(2, min(_PIECES, n // enough))


def _gradients_of(work: TrainingWorkspace, ops: Ops) -> list[_Gradient]:
    """Return the pieces of the gradients of all layers, the largest first."""
    found = []
    for below, (weights, biases) in enumerate(zip(work.gradients.weights, work.gradients.biases, strict=True)):
        fan_in, fan_out = weights.shape
        count = min(fan_in, _n_pieces(work.n_rows * fan_in * fan_out, *_PRODUCTS))
        unread = ops.empty(fan_out, biases.dtype)  # the first piece sums the deltas for all
        for index in range(count):
            first, stop = fan_in * index // count, fan_in * (index + 1) // count
            found.append(_Gradient(below, first, stop, unread.copy() if index else biases))
    return sorted(found, key=lambda piece: (piece.first - piece.stop) * work.gradients.weights[piece.below].shape[1])


def _behind_biases(gradients: Parameters) -> int:
    """Return where slopes and embeddings begin in the flat buffer."""
    return gradients.segments()[2 * len(gradients.weights) - 1][1]
