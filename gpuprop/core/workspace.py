"""The arrays in which a batch is processed: those of a forward pass, and those of a whole training step."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.parameters import Parameters

if TYPE_CHECKING:
    from gpuprop.core.array_ops import Array, ArrayOps
    from gpuprop.core.spec import Spec

__all__ = ["TrainingWorkspace", "Workspace"]


class Workspace:
    """The arrays that a forward pass writes, allocated once for batches of up to `n_rows` rows.

    Attributes
    ----------
    a : list of L + 1 arrays
        ``a[0]`` is the batch itself, ``a[l]`` the output of layer l.
    inputs : list of L arrays
        What layer l + 1 reads: ``a[l]``, or a copy of it with units dropped.
    z : list of L + 1 arrays or None
        Net inputs, kept only where a derivative or the loss needs them (index 0 is None).
    masks : list of L arrays or None
        Dropout's factor for each unit of ``a[l]``: 0 or ``1 / (1 - rate)``.
    f : list of L + 1 arrays or None
        The activations of hidden units that have slopes; a is then what is made of z and f.
    raw : list of one array or None
        The batch before it is embedded.
    """

    _SLICED: tuple[str, ...] = ("a", "inputs", "z", "masks", "f", "raw")

    def __init__(self, ops: ArrayOps, spec: Spec, n_rows: int, *, keep_z: bool = False) -> None:
        self.n_rows = n_rows

        def rows_of(width: int) -> Array:
            return ops.empty((n_rows, width), spec.dtype)

        self.a = [rows_of(width) for width in spec.layer_sizes]
        self.inputs = list(self.a[:-1])
        self.masks: list[Array | None] = [None] * spec.n_layers
        self.z: list[Array | None] = [None]
        for layer, activation in enumerate(spec.activations, start=1):
            # The loss of the output layer is computed from z, where it is exact; see gpuprop.maths.losses.
            needed = keep_z or spec.has_slopes or activation.derivative_of == "z" or layer == spec.n_layers
            self.z.append(rows_of(spec.layer_sizes[layer]) if needed else None)
        hidden = spec.layer_sizes[1:-1] if spec.has_slopes else ()
        self.f: list[Array | None] = [None] * (spec.n_layers + 1)
        self.f[1 : 1 + len(hidden)] = [rows_of(width) for width in hidden]
        self.raw: list[Array | None] = [None if spec.embedding is None else rows_of(spec.n_inputs)]
        self._views: dict[int, Workspace] = {}

    def rows(self, n_rows: int) -> Any:
        """Return views of the first `n_rows` rows of this workspace, for the smaller last batch."""
        if n_rows == self.n_rows:
            return self
        if n_rows not in self._views:
            self._views = {n_rows: self.between(0, n_rows)}
        return self._views[n_rows]

    def between(self, first: int, stop: int) -> Any:
        """Return views of the rows `first` to `stop` - 1 of this workspace, for a piece of the batch."""
        view = copy.copy(self)
        view.n_rows, view._views = stop - first, {}
        for name in self._SLICED:
            setattr(view, name, [None if array is None else array[first:stop] for array in getattr(self, name)])
        return view


class TrainingWorkspace(Workspace):
    """The arrays of a training step: those of the forward pass, deltas, gradients, targets and running totals.

    Attributes
    ----------
    delta : list of L + 1 arrays
        ``delta[l] = dL/dz`` of layer l; index 0 is None, because inputs have no delta, or where they are embedded the
        loss's derivative by ``a[0]``.
    gradients : Parameters
        The gradients, in the layout of the parameters.
    y, sample_weight : list of one array
        Targets and weights of the batch.
    totals : array of shape (2,), float64
        Sums over the epoch so far: weighted loss (penalties included) and weighted score.
    """

    _SLICED = (*Workspace._SLICED, "delta", "y", "sample_weight")

    def __init__(
        self, ops: ArrayOps, spec: Spec, n_rows: int, *, with_dropout: bool = True, keep_z: bool = False
    ) -> None:
        super().__init__(ops, spec, n_rows, keep_z=keep_z)
        dtype = spec.dtype
        for layer, rate in enumerate(spec.dropout):
            if with_dropout and rate > 0:
                self.inputs[layer] = ops.empty(self.a[layer].shape, dtype)
                self.masks[layer] = ops.empty(self.a[layer].shape, dtype)
        self.delta: list[Array | None] = [
            None,
            *(ops.empty((n_rows, width), dtype) for width in spec.layer_sizes[1:]),
        ]
        count = Parameters.count(spec.layout, ops.row_padding)
        self.gradients = Parameters(ops.empty(count, dtype), spec.layout, ops.row_padding)
        if spec.embedding is not None:
            self.delta[0] = ops.empty((n_rows, spec.layer_sizes[0]), dtype)
        self.y = [ops.empty((n_rows, spec.layer_sizes[-1]), dtype)]
        self.sample_weight = [ops.empty(n_rows, dtype)]
        self.totals = ops.asarray(np.zeros(2), np.float64)
