"""The forward pass on the host for whole arrays of rows: predictions, and the loss and score of an evaluation.

Rows are processed in blocks whose layers stay in the caches. A block is read in place, or brought to the network's
dtype and scaled by itself, and each layer is one product that BLAS writes into an array which the next block uses
again; bias and activation change it in place. Nothing here is compiled, so that the first prediction of a process does
not wait for a compiler.

How rows are cut into blocks follows from the network, the number of rows and the number of threads, so that equal rows
give equal bits, whatever else the machine does. BLAS adds up a row in an order that depends on how many rows it gets:
the last bits of a prediction may differ where other rows are predicted with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.sharing import work_through
from gpuprop.backends.threads import blas_threads, has_small_products, limited_blas
from gpuprop.core.folded import folded
from gpuprop.core.ops import OutputLayer, Outputs
from gpuprop.model.inputs import MOST_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.data import TrainingData
    from gpuprop.core.layers import Layers
    from gpuprop.maths.scaling import InputScaling

__all__ = ["host_outputs", "host_totals"]

#: From this many multiplications of numbers on, some ten milliseconds, threads share the blocks, and BLAS has one
#: thread in each. Beside other work this is what holds: BLAS's own threads wait for one another in every product, and
#: may take ten times as long there. But it takes some tenths of a millisecond until a thread that slept runs, which
#: is too long for less work; BLAS's own go on looking for work for a while.
SHARED_WORK = 2**29
#: The fewest and the most rows of a block that threads share, and the most of other blocks: a product of fewer rows is
#: slower, and more rows leave the caches.
FEWEST_SHARED, SHARED_ROWS, BLOCK_ROWS = 48, 512, 2048
#: The most numbers in the widest layer of a block.
BLOCK_ELEMENTS = 2**21
#: So many numbers of a layer get their bias and their activation at a time; they stay in the second cache.
CACHED = 2**16
#: So few rows are computed one by one, which reads the weights once for each: a product of several rows copies the
#: weights first, which takes as long as three times.
SINGLE_ROWS = 3
#: OpenBLAS multiplies rows of float32 by fours in each of its threads, and what is left over takes longer than four
#: more rows: below so many rows, rows of zeros make their number a multiple of 4, or of 8 with several threads. Where
#: small products have code of their own, a row of zeros is worth its time beside three rows that are left over.
PADDED_ROWS = 32
#: Below so many rows float64 is multiplied transposed, ``z.T = W.T @ a.T``: two threads of OpenBLAS then take 0.8 of
#: the time, and one takes as long. With AVX-512 it takes 1.1 to 1.7 times as long.
TRANSPOSED_ROWS = 256
#: Up to so many multiplications of numbers OpenBLAS, with AVX-512, does not copy the matrices first. Up to so many rows
#: several such products take less time than a large one: 10 rows of 784 x 128 26 us in place of 38, 32 rows 71 in place
#: of 80; and with several threads up to so many multiplications, because a small product has one thread.
SMALL_PRODUCT, SMALL_ROWS, SMALL_BESIDE_THREADS = 1_000_000, 32, 3_300_000
#: Up to so many outputs are computed transposed: an activation, and the sums of a softmax, then run over many rows.
NARROW = 64
#: A network keeps the arrays of one block for the next call if they have at most so many bytes.
KEPT_BYTES = 2**21


class _NotFiniteError(Exception):
    """A number may not be finite."""


def host_outputs(layers: Layers, X: object, scaling: InputScaling | None) -> NDArray[Any] | None:
    """Return the outputs for an array of numbers, or None for other data and if a number may not be finite.

    Parameters
    ----------
    layers : Layers
    X : object
        NumPy arrays of shape (n_samples, n_inputs) are computed here, in any layout and any dtype of usual numbers.
        Whoever gets None takes the way of all other data, which says what is wrong with them.
    scaling : InputScaling or None
    """
    if type(X) is not np.ndarray:
        return None
    layers = folded(layers) if layers.ops.on_host else layers
    spec = layers.spec
    try:
        block = _idle_block(layers, X)
        if block is not None:
            outputs = np.empty((block.n_rows, spec.layer_sizes[-1]), spec.dtype)
            block.run(X, scaling, outputs)
            layers.idle[:] = [block]
            return outputs
        if not _can_pass(layers, X):
            return None
        outputs = np.empty((len(X), spec.layer_sizes[-1]), spec.dtype)
        _run(layers, len(X), lambda rows, block: block.run(X[rows], scaling, outputs[rows]))
    except _NotFiniteError:
        return None
    return outputs


def host_totals(layers: Layers, data: TrainingData, outputs: NDArray[Any] | None = None) -> NDArray[np.float64] | None:
    """Return the sums of the weighted loss and score over checked data; None if the way of all other data is needed.

    `outputs`, of shape (n_samples, n_outputs), gets the network's outputs if it is given.
    """
    layers = folded(layers) if layers.ops.on_host else layers
    if type(data.inputs) is not np.ndarray or not _can_pass(layers, data.inputs):
        return None
    spec = layers.spec
    judged = OutputLayer(spec.output_activation, spec.loss, data.metric)
    totals: dict[int, NDArray[np.float64]] = {}

    def judge(rows: slice, block: Block) -> None:
        y = data.targets[rows]
        z, a, delta = (np.empty_like(y) for _ in range(3))
        a = a if outputs is None else outputs[rows]
        block.run(data.inputs[rows], data.scaling, a, z)
        weight = None if data.sample_weight is None else data.sample_weight[rows]
        found = totals[rows.start] = np.zeros(2)
        layers.ops.output_delta(Outputs(z, a, y, weight), judged, data.total_weight, delta, found)

    try:
        _run(layers, data.n_samples, judge)
    except _NotFiniteError:
        return None
    found: NDArray[np.float64] = np.array([totals[start] for start in sorted(totals)]).sum(axis=0)
    return found


def _can_pass(layers: Layers, X: NDArray[Any]) -> bool:
    """Whether the layers are plain or residual, on the host and round no operands, and the array has usual numbers."""
    spec = layers.spec
    return (
        X.ndim == 2
        and X.shape[1] == spec.layer_sizes[0]
        and 0 < len(X) <= MOST_ROWS
        and X.dtype.kind in "fiu"
        and X.dtype.itemsize <= 8
        and X.dtype.isnative
        and layers.ops.on_host
        and layers.ops.precision == "float32"
        and not (spec.has_slopes or spec.batch_norm or spec.embedding is not None)
        and spec.output_activation.built_in
    )


def _run(layers: Layers, n_rows: int, work: Callable[[slice, Block], None]) -> None:
    """Do `work` for all rows, block by block."""
    spec = layers.spec
    room = max(1, BLOCK_ELEMENTS // max(spec.layer_sizes))
    n_threads = blas_threads() if n_rows * layers.parameters.n_weights >= SHARED_WORK else 1
    shared = n_threads > 1
    most = min(BLOCK_ROWS, room)
    if shared:
        pieces = max(1, min(2 * n_threads, n_rows // FEWEST_SHARED))
        most = min(SHARED_ROWS, -(-n_rows // pieces), room)
    if n_rows <= most:
        block = Block(layers, n_rows)
        work(slice(0, n_rows), block)
        if block.n_bytes <= KEPT_BYTES:
            layers.idle[:] = [block]
        return

    def worker() -> Callable[[slice], None]:
        blocks: dict[int, Block] = {}

        def do(rows: slice) -> None:
            size = rows.stop - rows.start
            if size not in blocks:
                blocks[size] = Block(layers, size)
            work(rows, blocks[size])

        return do

    with limited_blas(1) if shared else nullcontext():
        work_through(_blocks(n_rows, most), worker, n_threads)


def _blocks(n_rows: int, most: int) -> Iterator[slice]:
    """Yield as few blocks of at most so many rows as there must be, of nearly one size, by multiples of 8."""
    size = -(-n_rows // -(-n_rows // most))
    size = min(most, -(-size // 8) * 8)
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def _idle_block(layers: Layers, X: NDArray[Any]) -> Block | None:
    """Return the arrays of the last call if they fit and no other thread has them now."""
    try:
        block: Block = layers.idle.pop()  # one thread gets it
    except IndexError:
        return None
    same = block.shape == X.shape and block.parameters is layers.parameters and block.spec is layers.spec
    return block if same and (X.dtype == block.spec.dtype or _can_pass(layers, X)) else None


class Block:
    """The arrays in which the layers of a network are computed for a number of rows.

    Parameters
    ----------
    layers : Layers
    n_rows : int
    """

    def __init__(self, layers: Layers, n_rows: int) -> None:
        self.spec, self.parameters, self.n_rows = layers.spec, layers.parameters, n_rows
        spec = self.spec
        self.shape = n_rows, spec.layer_sizes[0]
        self._forward, self._dtype = layers.ops.forward, spec.dtype
        overwrites = [activation.overwrite for activation in spec.hidden_activations if activation.overwrite]
        self._in_place = len(overwrites) == spec.n_layers - 1 and n_rows > SINGLE_ROWS
        wide = spec.dtype == np.float64
        n_threads, small = blas_threads(), has_small_products()
        self._transposed = self._in_place and wide and n_rows < TRANSPOSED_ROWS and not small
        self._n_padded = n_padded = n_rows
        if self._in_place and not wide and n_rows < PADDED_ROWS:
            self._n_padded = n_padded = n_rows + (n_rows % 4 == 3 if small else -n_rows % (4 if n_threads == 1 else 8))
        self._inputs = np.empty(0, spec.dtype)
        widest = [max(spec.layer_sizes[start:-1:2], default=0) for start in (1, 2)]
        rooms = [np.empty(n_padded * width, spec.dtype) for width in widest]
        #: Of each hidden layer: its net inputs, and the parts of them that bias and activation take at a time.
        self._hidden: list[tuple[NDArray[Any], list[NDArray[Any]]]] = []
        for layer, width in enumerate(spec.layer_sizes[1:-1]):
            net = rooms[layer % 2][: n_padded * width]
            net = net.reshape(width, n_padded) if self._transposed else net.reshape(n_padded, width)
            step = len(net) if self._transposed else max(1, CACHED // width)
            self._hidden.append((net, [net[first : first + step] for first in range(0, len(net), step)]))
        weights, biases = self.parameters.weights, self.parameters.biases
        if self._transposed:
            weights, biases = [own.T for own in weights], [own[:, None] for own in biases]
        #: Of each hidden layer: which rows a product takes at a time.
        pieces = [_small_pieces(n_padded, one.size, n_threads) if small else [slice(None)] for one in weights]
        self._steps = list(zip(weights, biases, overwrites, self._hidden, pieces, strict=False))
        n_outputs = spec.layer_sizes[-1]
        self._narrow = self._in_place and n_outputs <= NARROW
        self._outputs = np.empty((n_outputs, n_padded) if self._narrow else (0, n_padded), spec.dtype)
        self._last = self.parameters.weights[-1].T, self.parameters.biases[-1][:, None]
        self._results = self._outputs[:, :n_rows].T
        self._of_rows, self._ones = np.empty(n_padded, spec.dtype), np.ones(n_padded, spec.dtype)
        self._is_softmax = spec.output_activation.name == "softmax"

    @property
    def n_bytes(self) -> int:
        """The memory of the arrays, about."""
        widths = sum(sorted(self.spec.layer_sizes[1:])[-3:]) + (self.spec.layer_sizes[0] if self._inputs.size else 0)
        return self._n_padded * widths * self._dtype.itemsize

    def run(
        self, rows: NDArray[Any], scaling: InputScaling | None, out: NDArray[Any], z: NDArray[Any] | None = None
    ) -> None:
        """Write the outputs of a block of rows to `out`, and the net inputs of the output layer to `z` if it is given.

        Raises
        ------
        _NotFiniteError
            If a number in `rows` may not be finite.
        """
        x = self._ready(rows, scaling)
        if self._narrow:
            self._narrow_outputs(self._hidden_layers(x), out, z)
        elif self._in_place:
            self._wide_outputs(self._hidden_layers(x), out, z)
        else:
            step = 1 if self.n_rows <= SINGLE_ROWS else self.n_rows
            for first in range(0, self.n_rows, step):
                some = slice(first, first + step)
                self._by_primitives(x[some], out[some], None if z is None else z[some])

    def _ready(self, rows: NDArray[Any], scaling: InputScaling | None) -> NDArray[Any]:
        """Return rows as BLAS can read them: scaled, of the network's dtype, and padded where that is faster."""
        if self._n_padded == self.n_rows and scaling is None and rows.dtype == self._dtype and _readable(rows):
            return rows
        x = self._inputs
        if not x.size:
            # The rows of padding stay zero.
            x = self._inputs = np.zeros((self._n_padded, rows.shape[1]), self._dtype)
        if scaling is None and rows.dtype == self._dtype:
            x[: self.n_rows] = rows
            return x
        with np.errstate(over="ignore", invalid="ignore"):
            if scaling is None:
                np.copyto(x[: self.n_rows], rows, casting="unsafe")
            else:
                self._scale(rows, scaling, x[: self.n_rows])
        return x

    def _scale(self, rows: NDArray[Any], scaling: InputScaling, x: NDArray[Any]) -> None:
        """Scale in double precision if the rows have it; bytes in the network's."""
        wider = self._dtype if rows.dtype == np.uint8 else np.result_type(rows.dtype, self._dtype)
        scaled = x if wider == self._dtype else np.empty(rows.shape, wider)
        if scaling.shift.any():
            np.subtract(rows, scaling.shift.astype(wider), out=scaled)
            rows = scaled
        np.multiply(rows, scaling.scale.astype(wider), out=scaled)
        if scaled is not x:
            np.copyto(x, scaled, casting="unsafe")

    def _by_primitives(self, a: NDArray[Any], out: NDArray[Any], z: NDArray[Any] | None) -> None:
        """Compute some rows by the primitives of the network's device, which compiles loops."""
        a = np.ascontiguousarray(a)
        # A finite sum of squares shows, in a tenth of the time, that all numbers are finite. An infinite one may also
        # come from finite but huge numbers.
        if not math.isfinite(np.dot(flat := a.reshape(-1), flat)) and not np.isfinite(a).all():
            raise _NotFiniteError
        weights, biases, activations = self.parameters.weights, self.parameters.biases, self.spec.activations
        for layer, (net, _) in enumerate(self._hidden):
            into = net[: len(a)]
            self._forward(a, weights[layer], biases[layer], activations[layer], None, into)
            if self.spec.adds_input(layer + 1):
                into += a
            a = into
        self._forward(a, weights[-1], biases[-1], activations[-1], z, out)

    def _hidden_layers(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return what the last hidden layer makes of inputs, transposed: (n_units, n_rows)."""
        transposed = self._transposed
        a, unchecked = x.T if transposed else x, True
        for layer, (weights, bias, overwrite, (net, parts), pieces) in enumerate(self._steps, start=1):
            left, right = (weights, a) if transposed else (a, weights)
            if unchecked:
                self._first_product(left, right, net, transposed, pieces)
                unchecked = False
            else:
                for rows in pieces:
                    np.dot(left[rows], right, out=net[rows])
            for part in parts:
                part += bias
                overwrite(part)
            if self.spec.adds_input(layer):
                net += a
            a = net
        return a if transposed else a.T

    def _first_product(
        self,
        left: NDArray[Any],
        right: NDArray[Any],
        net: NDArray[Any],
        transposed: bool,
        pieces: Sequence[slice] = (slice(None),),
    ) -> None:
        """Write ``left @ right`` to `net`, and raise unless the net inputs of the first unit are finite.

        An input that is not finite makes all net inputs of its row so.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            for rows in pieces:
                np.dot(left[rows], right, out=net[rows])
            first = net[0] if transposed else net[:, 0]
            if not math.isfinite(np.dot(first, self._ones[: len(first)])) and not np.isfinite(first).all():
                raise _NotFiniteError

    def _narrow_outputs(self, a: NDArray[Any], out: NDArray[Any], z: NDArray[Any] | None) -> None:
        """Compute the output layer transposed; rows of padding are left out at the end."""
        (weights, biases), net = self._last, self._outputs
        if self._steps:
            np.dot(weights, a, out=net)
        else:
            self._first_product(weights, a, net, transposed=True)
        net += biases
        if z is not None:
            z[...] = self._results
        if self._is_softmax:
            net -= np.maximum.reduce(net, axis=0, out=self._of_rows)
            np.exp(net, out=net)
            net /= np.add.reduce(net, axis=0, out=self._of_rows)
            out[...] = self._results
        else:
            out[...] = self.spec.output_activation.function(net)[:, : self.n_rows].T

    def _wide_outputs(self, a: NDArray[Any], out: NDArray[Any], z: NDArray[Any] | None) -> None:
        weights = self.parameters.weights[-1]
        net = np.empty((a.shape[1], weights.shape[1]), self._dtype)
        if self._steps:
            np.dot(a.T, weights, out=net)
        else:
            self._first_product(a.T, weights, net, transposed=False)
        net = net[: self.n_rows]
        net += self.parameters.biases[-1]
        if z is not None:
            z[...] = net
        out[...] = self.spec.output_activation.function(net)


def _small_pieces(n_rows: int, n_weights: int, n_threads: int) -> list[slice]:
    """Return which rows of a layer's inputs to multiply at a time: those of a small product, or all of them."""
    most = SMALL_PRODUCT // n_weights // 4 * 4
    shared = n_threads > 1 and n_rows * n_weights > SMALL_BESIDE_THREADS
    if n_rows * n_weights <= SMALL_PRODUCT or n_rows > SMALL_ROWS or most == 0 or shared:
        return [slice(None)]
    return [slice(first, first + most) for first in range(0, n_rows, most)]


def _readable(rows: NDArray[Any]) -> bool:
    """Whether BLAS can read a matrix in place: numbers side by side along one axis, and apart along the other."""
    flags, size = rows.flags, rows.itemsize
    if flags.c_contiguous:
        return bool(flags.aligned)
    return (
        bool(flags.aligned)
        and size in rows.strides
        and min(rows.strides) > 0
        and not any(s % size for s in rows.strides)
    )
