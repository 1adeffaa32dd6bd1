"""The primitives by the kernels of `gpuprop_kernels`, on a GPU and in Numba's simulator.

This is the way of inference, evaluation and gradients. Training takes `gpuprop.backends.cuda.updates`, which fuses
neighbouring primitives and waits for nothing between two updates.

Device layout: the rows of every matrix lie a multiple of 8 elements apart (32 where they are bytes), with zeros between
them, so that kernels read and write 128 bits at a time and whole sectors of memory. Arrays are views without the
padding; `CudaOps` finds the whole rows again by their strides.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import is_sparse, on_gpu, to_host
from gpuprop.backends.cuda.streaming import HostRows, fits
from gpuprop.errors import DeviceMemoryError
from gpuprop.maths.dropout import keep_mask
from gpuprop_kernels import activations as kernel_activations
from gpuprop_kernels import launch
from gpuprop_kernels.gradient import GradientJob, job_table
from gpuprop_kernels.launch import Batch, Rows, padded, row_pitch
from gpuprop_kernels.loss import CANONICAL as KERNEL_LOSSES
from gpuprop_kernels.optimizers import SCALARS, update_scalars
from gpuprop_kernels.tile import Tile

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from gpuprop.backends.cuda.runtime import Runtime
    from gpuprop.core.ops import Array, UpdatePlan
    from gpuprop.core.step import UpdateRule
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss, Metric
    from gpuprop.maths.optimizers import Optimizer
    from gpuprop.maths.scaling import InputScaling
    from gpuprop.model.network import Network, Parameters, TrainingData

__all__ = ["IDENTITY", "METRICS", "CudaOps", "has_kernel", "kernel_activation", "kernel_loss", "slot_scalars"]

METRICS = {"class": "class", "labels": "threshold", "residual": "residual"}
"""What the kernels call the metrics of `gpuprop.losses.score`."""

ALIGNMENT = 16
"""Bytes of one access of a kernel; arrays begin at a multiple of it."""

IDENTITY = kernel_activations.Activation("identity")


class CudaOps:
    """`gpuprop.core.ops.Ops` by CUDA kernels, float32 and float64.

    Parameters
    ----------
    runtime : Runtime
        Where the kernels run.
    """

    backend = "cuda"
    row_padding = 8

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.device = runtime.device

    # --- arrays ----------------------------------------------------------------------------------------------------

    def active(self) -> AbstractContextManager[None]:  # noqa: D102  (contracts: see Ops)
        return self.runtime.active()

    def adopt(self, array: Any) -> Any:  # noqa: D102
        return self.runtime.adopt(array)

    def asarray(self, array: Any, dtype: DTypeLike) -> Array:  # noqa: D102
        if is_sparse(array):
            raise ValueError(f"got a sparse matrix, expected a dense one on {self.device}; use toarray(), or the cpu")
        array = self.adopt(array)
        if on_gpu(array):
            with self.runtime.active():
                return self._laid_out(array.astype(dtype, copy=False))
        host = np.asarray(array, dtype)
        out = self.empty(host.shape, dtype)
        with self.runtime.active():
            if host.ndim < 2:
                self.runtime.upload(np.ascontiguousarray(host), out)
                return out
            whole = self._rows(out)
            width = whole.shape[1]
            if width != host.shape[1]:
                host = np.pad(host, ((0, 0), (0, width - host.shape[1])))
            self.runtime.upload(np.ascontiguousarray(host), whole)
        return out

    def load(self, *arrays: Any) -> tuple[Any, ...]:  # noqa: D102
        lies_here, sparse = on_gpu(arrays[0]), is_sparse(arrays[0])
        if lies_here or (not sparse and fits(self.runtime, arrays)):
            try:
                return tuple(None if a is None else self.asarray(a, a.dtype) for a in arrays)
            except DeviceMemoryError:
                if lies_here:
                    raise
        return tuple(None if a is None else HostRows(a.tocsr() if is_sparse(a) else to_host(a)) for a in arrays)

    def _laid_out(self, array: Array) -> Array:
        """Return an array of this device as kernels read it: a copy, unless it already lies so.

        A user's matrix of such strides may be a view of a wider one, whose other columns are no padding.
        """
        if (
            array.flags.c_contiguous
            and array.data.ptr % ALIGNMENT == 0
            and (array.ndim < 2 or array.shape[1] == row_pitch(array.shape[1], array.dtype))
        ):
            return array
        out = self.empty(array.shape, array.dtype)
        out[...] = array
        return out

    def to_numpy(self, array: Array) -> NDArray[Any]:  # noqa: D102
        return self.runtime.to_numpy(array)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:  # noqa: D102
        shape = (shape,) if isinstance(shape, int) else shape
        with self.runtime.active():
            if len(shape) < 2:
                return self.runtime.xp.zeros(shape, dtype)
            return self.runtime.xp.zeros((shape[0], row_pitch(shape[1], dtype)), dtype)[:, : shape[1]]

    def synchronize(self) -> None:  # noqa: D102
        self.runtime.synchronize()

    def whole(self, array: Array) -> Array:
        """Return an array of `empty` with the padding of its rows."""
        return self._rows(array) if array.ndim == 2 else array

    def _rows(self, matrix: Array) -> Array:
        """Return a matrix with the padding of its rows."""
        n_rows, n_columns = matrix.shape
        width, size = row_pitch(n_columns, matrix.dtype), matrix.dtype.itemsize
        if matrix.strides != (width * size, size):
            padding = self.empty(matrix.shape, matrix.dtype)
            padding[...] = matrix
            matrix = padding
        return self.runtime.xp.lib.stride_tricks.as_strided(matrix, (n_rows, width), (width * size, size))

    def flat(self, array: Array) -> Any:
        """Return what a kernel takes for a matrix or a vector, padding included, as one flat array."""
        if array.ndim == 2:
            array = self._rows(array).reshape(-1)
        return self.runtime.view(array)

    def _biases(self, biases: Array) -> Any:
        """Return the biases of a layer with the zeros behind them; they are a part of the flat parameters."""
        as_strided = self.runtime.xp.lib.stride_tricks.as_strided
        return self.runtime.view(as_strided(biases, (padded(biases.size),), biases.strides))

    def constant(self, values: Any, dtype: DTypeLike) -> Any:
        """Return what a kernel takes for a few numbers of the host."""
        return self.runtime.view(self.asarray(np.asarray(values), dtype))

    def batch(self, n_rows: int, order: Any, start: int = 0) -> Batch:
        """Return a batch of one slot: rows `start` to `start` + `n_rows` of the order."""
        return Batch(self.constant([start, n_rows, 0, 0], np.int32), 0, n_rows, order, self.runtime.stream)

    def _whole(self, n_rows: int) -> Batch:
        """Return the batch that is a matrix of `n_rows` rows as it stands."""
        return self.batch(n_rows, self.constant(np.arange(n_rows), np.int32))

    def tile(self, n_rows: int, n_columns: int, dtype: Any, *, optimizer: bool = False) -> Tile:
        """Return the tile for a product of this size, with an optimizer in its epilogue or without."""
        multiprocessors, capability = self.runtime.multiprocessors, self.runtime.capability
        return launch.choose_tile(n_rows, n_columns, dtype, multiprocessors, capability, optimizer=optimizer)

    def rows(self, data: Array, scaling: InputScaling | None, dtype: Any) -> Rows:
        """Return a data set as the first layer reads it."""
        n_columns = data.shape[1]
        source = "bytes" if data.dtype == np.uint8 else "floats"
        ld = row_pitch(n_columns, data.dtype)
        shift, scale = np.zeros(ld), np.zeros(ld)
        scale[:n_columns] = 1.0 if scaling is None else scaling.scale
        if scaling is not None:
            shift[:n_columns] = scaling.shift
            if shift.any() or scaling.scale.ndim:
                source += "_by_column"
        return Rows(self.flat(data), source, self.constant(shift, dtype), self.constant(scale, dtype), ld)

    # --- primitives ------------------------------------------------------------------------------------------------

    def take_batch(  # noqa: D102
        self, data: Array, order: Array, start: int, scaling: InputScaling | None, out: Array
    ) -> None:
        with self.runtime.active():
            if isinstance(data, HostRows):
                which = self.to_numpy(order[start : start + len(out)])
                data, start = self.asarray(data.take(which), data.dtype), 0
                order = self.asarray(np.arange(len(out)), np.int32)
            if data.ndim == 1:
                out[...] = data[order[start : start + len(out)]]
                return
            batch = self.batch(len(out), self.runtime.view(order), start)
            rows = self.rows(data, scaling, out.dtype)
            launch.load_batch(rows, self.flat(out), batch, n_features=data.shape[1])

    def drop(  # noqa: D102
        self, a: Array, rate: float, seed: int, layer: int, step: int, first_row: int, mask: Array, out: Array
    ) -> None:
        n_rows, n_columns = a.shape
        kept = keep_mask(
            rate, seed=seed, layer=layer, step=step, n_rows=n_rows, n_columns=n_columns, first_row=first_row
        )
        with self.runtime.active():
            mask[...] = self.asarray(kept / (1.0 - rate), mask.dtype)
            self.runtime.xp.multiply(a, mask, out=out)

    def forward(  # noqa: D102
        self,
        inputs: Array,
        weights: Array,
        biases: Array,
        activation: Activation,
        z: Array | None,
        out: Array,
    ) -> None:
        (n_rows, n_in), n_out = inputs.shape, out.shape[1]
        softmax = activation.name == "softmax"
        with self.runtime.active():
            launch.forward_layer(
                self.flat(inputs),
                self.flat(weights),
                self._biases(biases),
                self.flat(out),
                self._whole(n_rows),
                activation=IDENTITY if softmax else kernel_activation(activation),
                n_in=n_in,
                n_out=n_out,
                tile=self.tile(n_rows, n_out, out.dtype),
                z=None if z is None else self.flat(z),
            )
            if softmax:
                flat = self.flat(out)
                launch.softmax_rows(flat, flat, n_rows=n_rows, n_out=n_out, stream=self.runtime.stream)

    def output_delta(  # noqa: D102
        self,
        z: Array,
        a: Array,
        y: Array,
        sample_weight: Array | None,
        total_weight: float,
        activation: Activation,
        loss: Loss,
        metric: Metric,
        delta: Array,
        totals: Array,
    ) -> None:
        n_rows, n_out = z.shape
        scalars = np.zeros(SCALARS)
        # A batch whose weights are all zero has no loss and no gradient.
        scalars[0] = 1.0 / total_weight if total_weight > 0 else 0.0
        with self.runtime.active():
            losses = self.empty((launch.row_blocks(n_rows) * 2,), z.dtype)
            launch.loss_rows(
                self.flat(z),
                self.flat(y),
                None if sample_weight is None else self.flat(sample_weight),
                self.flat(delta),
                self.flat(losses),
                self.constant(scalars, z.dtype),
                self._whole(n_rows),
                output=kernel_activation(activation),
                loss=kernel_loss(loss),
                metric=METRICS[metric],
                n_out=n_out,
                targets_ld=padded(n_out),
            )
            totals += losses.reshape(-1, 2).sum(axis=0, dtype=np.float64)

    def hidden_delta(  # noqa: D102
        self,
        delta: Array,
        weights: Array,
        activation: Activation,
        source: Array,
        mask: Array | None,
        out: Array,
    ) -> None:
        (n_rows, n_units), n_next = out.shape, delta.shape[1]
        with self.runtime.active():
            tile = self.tile(n_rows, n_units, out.dtype)
            sums = self.empty((launch.blocks(n_rows, tile.rows), n_units), out.dtype)
            launch.hidden_delta(
                self.flat(delta),
                self.flat(weights),
                self.flat(source),
                self.flat(out),
                self.flat(sums),
                self._whole(n_rows),
                activation=kernel_activation(activation),
                n_units=n_units,
                n_next=n_next,
                tile=tile,
            )
            if mask is not None:
                out *= mask

    def accumulate_gradient(  # noqa: D102
        self, inputs: Array, delta: Array, weight_grads: Array, bias_grads: Array, *, accumulate: bool
    ) -> None:
        (n_rows, n_in), n_out = inputs.shape, delta.shape[1]
        with self.runtime.active():
            tile = self.tile(n_in, n_out, delta.dtype)
            # Inputs and deltas lie in different arrays: the inputs are read as a data set, the deltas as a workspace.
            job = GradientJob(n_in, n_out, 0, 0, 0, n_rows, 0, 0, gathered=True)
            jobs, _ = job_table([job], tile)
            weights_job = jobs[: jobs.size // 2]  # the other half is the job of the biases
            gradients = self.flat(weight_grads)
            launch.accumulate_gradients(
                self.rows(inputs, None, inputs.dtype),
                self.flat(delta),
                gradients,
                gradients,
                self.constant(weights_job, np.int32),
                self.constant(np.zeros(SCALARS), delta.dtype),
                self._whole(n_rows),
                mode="accumulate" if accumulate else "slab",
                tile=tile,
                n_jobs=1,
                n_blocks=launch.blocks(padded(n_out), tile.columns) * launch.blocks(n_in, tile.rows),
            )
            sums = delta.sum(axis=0)
            bias_grads[...] = bias_grads + sums if accumulate else sums

    def add_penalty(  # noqa: D102
        self,
        parameters: Parameters,
        gradients: Parameters,
        l1: float,
        l2: float,
        total_weight: float,
        totals: Array,
    ) -> None:
        xp, n = self.runtime.xp, parameters.n_weights
        with self.runtime.active():
            weights = parameters.flat[:n]
            gradients.flat[:n] += l1 * xp.sign(weights) + l2 * weights
            wide = weights.astype(np.float64)
            totals[0] += total_weight * (l1 * xp.abs(wide).sum() + 0.5 * l2 * (wide * wide).sum())

    def update(  # noqa: D102
        self,
        parameters: Parameters,
        gradients: Parameters,
        optimizer: Optimizer,
        state: dict[str, Array],
        scratch: tuple[Array, ...],
        learning_rate: float,
        step: int,
        clip_norm: float | None,
        max_norm: float | None,
    ) -> None:
        xp, flat = self.runtime.xp, parameters.flat
        with self.runtime.active():
            if clip_norm is not None:
                norm = xp.sqrt(xp.square(gradients.flat.astype(np.float64)).sum())
                gradients.flat[...] *= xp.minimum(1.0, clip_norm / xp.maximum(norm, clip_norm)).astype(flat.dtype)
            if has_kernel(optimizer):
                memory = xp.concatenate([*state.values(), xp.zeros(4, flat.dtype)])
                launch.update_parameters(
                    self.flat(flat),
                    self.flat(memory),
                    self.flat(gradients.flat),
                    self.constant(slot_scalars(optimizer, learning_rate, step, 1.0), flat.dtype),
                    0,
                    optimizer=optimizer.name,
                    n_weights=parameters.n_weights,
                    stream=self.runtime.stream,
                )
                for index, array in enumerate(state.values()):
                    array[...] = memory[index * flat.size : (index + 1) * flat.size]
            else:
                optimizer.update(flat, gradients.flat, state, learning_rate, step, scratch, parameters.n_weights)
            if max_norm is not None:
                self.limit_incoming_norms(self.flat(flat), parameters.layer_sizes, max_norm)

    def limit_incoming_norms(self, flat: Any, layer_sizes: tuple[int, ...], max_norm: float) -> None:
        """Shorten the incoming weights of each unit of each layer to at most `max_norm`."""
        offset = 0
        for n_in, n_out in pairwise(layer_sizes):
            launch.limit_incoming_norm(flat, offset, max_norm, n_in=n_in, n_out=n_out, stream=self.runtime.stream)
            offset += n_in * padded(n_out)

    def plan_updates(
        self,
        network: Network,
        data: TrainingData,
        rule: UpdateRule,
        *,
        part_size: int,
        update_size: int,
        n_updates: int,
    ) -> UpdatePlan | None:
        """Return the fused updates of a training run, however many; None for an optimizer of the user's own."""
        from gpuprop.backends.cuda.updates import CudaUpdates

        if not has_kernel(rule.optimizer):
            return None
        return CudaUpdates(self, network, data, rule, part_size, update_size)


def has_kernel(optimizer: Optimizer) -> bool:
    """Return whether an optimizer is one of gpuprop's own, which the kernels know."""
    return optimizer.built_in


def slot_scalars(optimizer: Optimizer, rate: float, step: int, total_weight: float) -> NDArray[np.float64]:
    """Return the numbers of one update, `step` counted from 1, for one of gpuprop's own optimizers."""
    inverse = 1.0 / total_weight if total_weight > 0 else 0.0
    return update_scalars(optimizer.name, rate, step, optimizer.hyperparameters, inverse_weight=inverse)


def kernel_activation(activation: Activation) -> kernel_activations.Activation:
    """Return the kernels' own name of an activation.

    Raises
    ------
    ValueError
        For an activation of the user's own without functions for CUDA.
    """
    if activation.built_in:
        return kernel_activations.Activation(activation.base_name, activation.parameter)
    if activation.cuda is None:
        raise ValueError(
            f"activation {activation.name!r}: got no functions for CUDA, expected cuda=(function, derivative), two "
            "functions of one number that Numba can compile; give them, or use device='cpu'"
        )
    return kernel_activations.Activation(activation.name, None, activation.cuda, activation.derivative_of)


def kernel_loss(loss: Loss) -> str:
    """Return the kernels' name of a loss; ``ValueError`` for one that they do not have."""
    if not loss.built_in:
        known = ", ".join(KERNEL_LOSSES)
        raise ValueError(f"loss {loss.name!r}: got one without a CUDA kernel, expected {known}; use device='cpu'")
    return loss.name
