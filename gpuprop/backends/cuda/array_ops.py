"""Arrays of a CUDA device: their layout, copies to and from the device, and the views of them that kernels take.

The rows of every matrix start a multiple of 8 elements apart (for bytes see `gpuprop_kernels.shapes.row_pitch`), with
zeros between them. Kernels thus read and write 128 bits at a time, and whole sectors of memory. Arrays are views
without the padding; `CudaArrays` recovers the padded rows from their strides.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import is_sparse, on_gpu, to_host
from gpuprop.backends.cuda.residence import HostRows, fits
from gpuprop.backends.uploads import uploaded
from gpuprop.errors import DeviceMemoryError
from gpuprop_kernels import launch
from gpuprop_kernels.launch import Batch, Rows, padded, row_pitch

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from gpuprop.backends.cuda.runtime import Runtime
    from gpuprop.core.array_ops import Array
    from gpuprop.maths.scaling import InputScaling
    from gpuprop_kernels.tile import Tile

__all__ = ["CudaArrays"]

ALIGNMENT = 16
"""The bytes that a kernel reads at once; arrays begin at a multiple of this."""


class CudaArrays:
    """`gpuprop.core.array_ops.ArrayOps` on a CUDA device or in its simulator.

    Parameters
    ----------
    runtime : Runtime
        The place where the kernels run.
    """

    backend = "cuda"
    row_padding = 8
    on_host = False
    precision = "float32"

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.device = runtime.device

    @property
    def kernel_precision(self) -> str:
        """What the kernels of products round their operands to."""
        return self.precision

    def active(self) -> AbstractContextManager[None]:
        return self.runtime.active()

    def adopt(self, array: Any) -> Any:
        return self.runtime.adopt(array)

    def asarray(self, array: Any, dtype: DTypeLike) -> Array:
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

    def load(self, *arrays: Any) -> tuple[Any, ...]:
        lies_here, sparse = on_gpu(arrays[0]), is_sparse(arrays[0])
        if lies_here:
            return self._upload(arrays)
        return uploaded(self, arrays, lambda some: self._brought(some, resident=not sparse))

    def _upload(self, arrays: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(None if a is None else self.asarray(a, a.dtype) for a in arrays)

    def _brought(self, arrays: tuple[Any, ...], *, resident: bool) -> tuple[Any, ...]:
        """Return arrays of the host on the device, if they may lie there and there is room, or else as they are."""
        if resident and fits(self.runtime, arrays):
            with suppress(DeviceMemoryError):
                return self._upload(arrays)
        return tuple(None if a is None else HostRows(a.tocsr() if is_sparse(a) else to_host(a)) for a in arrays)

    def _laid_out(self, array: Array) -> Array:
        """Return an array of this device in the layout that kernels read; it is copied unless it has that layout.

        Strides alone do not show the layout: a user's matrix may be a view of a wider one, without zeros as padding.
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

    def to_numpy(self, array: Array) -> NDArray[Any]:
        return self.runtime.to_numpy(array)

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        shape = (shape,) if isinstance(shape, int) else shape
        with self.runtime.active():
            if len(shape) < 2:
                return self.runtime.xp.zeros(shape, dtype)
            return self.runtime.xp.zeros((shape[0], row_pitch(shape[1], dtype)), dtype)[:, : shape[1]]

    def synchronize(self) -> None:
        self.runtime.synchronize()

    def whole(self, array: Array) -> Array:
        """Return an array that `empty` made, with the padding of its rows."""
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
        """Return a matrix or a vector as a kernel takes it: one flat array, padding included."""
        if array.ndim == 2:
            array = self._rows(array).reshape(-1)
        return self.runtime.view(array)

    def padded_biases(self, biases: Array) -> Any:
        """Return a layer's biases, a part of the flat parameters, with the zeros that pad them."""
        as_strided = self.runtime.xp.lib.stride_tricks.as_strided
        return self.runtime.view(as_strided(biases, (padded(biases.size),), biases.strides))

    def constant(self, values: Any, dtype: DTypeLike) -> Any:
        """Copy a few numbers to the device, and return them as a kernel takes them."""
        return self.runtime.view(self.asarray(np.asarray(values), dtype))

    def batch(self, n_rows: int, order: Any, start: int = 0) -> Batch:
        """Return a batch with one slot: the `n_rows` rows of the order from `start` on."""
        return Batch(self.constant([start, n_rows, 0, 0], np.int32), 0, n_rows, order, self.runtime.stream)

    def whole_batch(self, n_rows: int) -> Batch:
        """Return the batch of all `n_rows` rows of a matrix, in their own order."""
        return self.batch(n_rows, self.constant(np.arange(n_rows), np.int32))

    def tile(
        self, n_rows: int, n_columns: int, dtype: Any, *, optimizer: bool = False, needs_registers: bool = False
    ) -> Tile:
        """Return the tile for a product of this size; see `gpuprop_kernels.shapes.choose_tile`."""
        multiprocessors, capability = self.runtime.multiprocessors, self.runtime.capability
        return launch.choose_tile(
            n_rows,
            n_columns,
            dtype,
            multiprocessors,
            capability,
            optimizer=optimizer,
            needs_registers=needs_registers,
            precision=self.kernel_precision,
        )

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
