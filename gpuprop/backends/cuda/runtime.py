"""Where CUDA kernels run: a GPU, or Numba's simulator. All that differs between the two is in this file.

A runtime offers arrays (`xp`: CuPy or NumPy), views of them that kernels take (`view`), one stream that CuPy and Numba
share, and a way to record launches as a CUDA graph. No other file of this backend imports CuPy.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from gpuprop.arrays import is_sparse, on_gpu, read_gpu_array, to_host
from gpuprop.errors import DeviceError, DeviceMemoryError

__all__ = ["DeviceRuntime", "Runtime", "SimulatorRuntime"]

Array = Any

# The two handles of cudaStreamLegacy, the default stream. Other streams wait for it unless they are made not to.
_DEFAULT_STREAMS = (0, 1)


class Runtime(Protocol):
    """What the CUDA backend needs from a place where kernels run."""

    #: "cuda:0", "cuda-sim", ...
    device: str
    #: The array namespace.
    xp: Any
    #: The stream that launches take.
    stream: Any
    multiprocessors: int
    capability: tuple[int, int]
    #: Bytes of shared memory that a block may ask for.
    block_memory: int
    #: Whether launches can be recorded as CUDA graphs.
    has_graphs: bool

    def describe(self) -> str:
        """Return in one line which device or simulator this is."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Return a context that makes arrays on this device, sends work to its stream, and raises gpuprop's errors."""
        ...

    def adopt(self, array: Any) -> Any:
        """Return an array on a GPU as an array of this device, and anything else in a form that NumPy can read."""
        ...

    def view(self, array: Array) -> Any:
        """Return a view of this array that a kernel takes without converting anything at a launch."""
        ...

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Wait for all earlier work, and return a copy on the host."""
        ...

    def upload(self, host: NDArray[Any], out: Array) -> None:
        """Copy an array of the host to one of the device, of the same shape and dtype."""
        ...

    def download(self, array: Array, out: NDArray[Any]) -> None:
        """Wait for all earlier work, and copy an array of the device to one of the host, of its shape and dtype."""
        ...

    def free_memory(self) -> float:
        """Return the bytes that an array could take; infinity if nothing limits them."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return zeros on the host, in pinned memory, from which a device copies by itself."""
        ...

    def mark(self) -> Any:
        """Return an event that marks the end of all work started so far."""
        ...

    def send(self, pairs: list[tuple[NDArray[Any], Array]], after: Any) -> Any:
        """Copy pinned arrays after the event `after` but beside other work; work started later waits for the copies.

        Returns an object whose ``synchronize()`` waits on the host, or None if all is done.
        """
        ...

    def synchronize(self) -> None:
        """Wait until all work is done."""
        ...

    def record(self, launches: Callable[[], None]) -> Callable[[], None]:
        """Return a function that replays `launches` as one CUDA graph, if the runtime has graphs.

        This method calls `launches` once without starting anything; each of its kernels must have run before.
        """
        ...


class SimulatorRuntime:
    """Numba's simulator, on NumPy arrays: a Python thread for each CUDA thread."""

    device = "cuda-sim"
    xp: Any = np
    stream: Any = 0
    multiprocessors = 1
    capability = (8, 0)
    block_memory = 48 * 1024
    has_graphs = False

    def describe(self) -> str:
        return "Numba's simulator of CUDA"

    @contextmanager
    def active(self) -> Iterator[None]:
        # The simulator polls its threads; switching them every 0.5 ms instead of every 5 makes it three times as fast.
        interval = sys.getswitchinterval()
        sys.setswitchinterval(min(interval, 5e-4))
        try:
            with warnings.catch_warnings():
                # As on a GPU, overflow gives infinity. The simulator's threads do not inherit NumPy's errstate.
                warnings.filterwarnings("ignore", r".*encountered in", RuntimeWarning)
                yield
        finally:
            sys.setswitchinterval(interval)

    def adopt(self, array: Any) -> Any:
        return to_host(array)

    def view(self, array: Array) -> Any:
        from gpuprop_kernels.target.simulator import in_place

        return in_place(array)

    def to_numpy(self, array: Array) -> NDArray[Any]:
        return np.array(array)

    def upload(self, host: NDArray[Any], out: Array) -> None:
        out[...] = host

    def download(self, array: Array, out: NDArray[Any]) -> None:
        out[...] = array

    def free_memory(self) -> float:
        return float("inf")

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        return np.zeros(shape, dtype)

    def mark(self) -> Any:
        return None

    def send(self, pairs: list[tuple[NDArray[Any], Array]], after: Any) -> Any:
        for host, out in pairs:
            self.upload(host, out)

    def synchronize(self) -> None:
        pass

    def record(self, launches: Callable[[], None]) -> Callable[[], None]:
        return launches


class DeviceRuntime:
    """An NVIDIA GPU: CuPy's arrays, Numba's kernels, and one stream for both.

    The stream is not the default one, which cannot be captured, but the two wait for each other. `active` also orders
    it with any other stream that is CuPy's current one, so that a user's work with CuPy runs in the order in which it
    is written.
    """

    has_graphs = True

    def __init__(self, index: int) -> None:
        import cupy
        from numba import cuda
        from numba.cuda.core import config

        # A small network launches few blocks, and Numba would warn of each such launch.
        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0
        self.device = f"cuda:{index}"
        self.xp = cupy
        self._gpu, self._numba_gpu = cupy.cuda.Device(index), cuda.gpus[index]
        self._as_cuda_array = cuda.as_cuda_array
        with self._translated():
            self.multiprocessors = int(self._gpu.attributes["MultiProcessorCount"])
            self.capability = (int(self._gpu.compute_capability[:-1]), int(self._gpu.compute_capability[-1]))
            self.block_memory = int(self._gpu.attributes["MaxSharedMemoryPerBlockOptin"])
            with self._gpu, self._numba_gpu:
                self._stream = cupy.cuda.Stream()
                self.stream = cuda.external_stream(self._stream.ptr)
        self._copies: Any = None

    def describe(self) -> str:
        runtime = self.xp.cuda.runtime
        with self._translated():
            name = runtime.getDeviceProperties(self._gpu.id)["name"].decode()
            numbers = runtime.driverGetVersion(), runtime.runtimeGetVersion()
            versions = [f"{number // 1000}.{number % 1000 // 10}" for number in numbers]
        return (
            f"{name}, compute capability {self.capability[0]}.{self.capability[1]}, {self._memory()}, driver for CUDA "
            f"{versions[0]}, runtime {versions[1]}"
        )

    @contextmanager
    def active(self) -> Iterator[None]:
        with self._translated():
            current = self.xp.cuda.get_current_stream()
            apart = current.ptr not in (*_DEFAULT_STREAMS, self._stream.ptr)
            if apart:
                self._stream.wait_event(current.record())
            with self._gpu, self._numba_gpu, self._stream:
                yield
            if apart:
                current.wait_event(self._stream.record())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of CuPy and Numba into gpuprop's own."""
        try:
            yield
        except Exception as error:
            if _is_out_of_memory(error):
                raise DeviceMemoryError(
                    f"{self.device}: {_first_line(error)}; {self._memory()}; use a smaller batch_size, smaller layers "
                    "or fewer rows, let data take less (GPUPROP_DATA_MEMORY), or close other programs on this GPU"
                ) from error
            if not _is_of_the_driver(error):
                raise
            raise DeviceError(
                f"{self.device} failed: {_first_line(error)}; what was on it is lost; look at nvidia-smi and the "
                "system's log, then start a new process"
            ) from error

    def _memory(self) -> str:
        free, total = self._gpu.mem_info
        return f"{free / 2**20:,.0f} MiB of {total / 2**20:,.0f} MiB are free"

    def adopt(self, array: Any) -> Any:
        if is_sparse(array) or not on_gpu(array):
            return to_host(array)
        with self.active():
            return self.xp.asarray(read_gpu_array(self.xp, array))  # copies from another device, and only then

    def view(self, array: Array) -> Any:
        return self._as_cuda_array(array, sync=False)

    def to_numpy(self, array: Array) -> NDArray[Any]:
        with self.active():
            return np.asarray(array.get(stream=self._stream))

    def upload(self, host: NDArray[Any], out: Array) -> None:
        out.set(host, stream=self._stream)

    def download(self, array: Array, out: NDArray[Any]) -> None:
        with self.active():
            array.get(stream=self._stream, out=out)

    def free_memory(self) -> float:
        with self.active():
            return float(self._gpu.mem_info[0] + self.xp.get_default_memory_pool().free_bytes())

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        from cupyx import zeros_pinned

        with self.active():
            return cast("NDArray[Any]", zeros_pinned(shape, dtype))

    def mark(self) -> Any:
        with self.active():
            return self._stream.record(self.xp.cuda.Event(disable_timing=True))

    def send(self, pairs: list[tuple[NDArray[Any], Array]], after: Any) -> Any:
        with self.active():
            if self._copies is None:
                self._copies = self.xp.cuda.Stream(non_blocking=True)
            self._copies.wait_event(after)
            for host, out in pairs:
                out.set(host, stream=self._copies)
            copied = self._copies.record(self.xp.cuda.Event(disable_timing=True))
            self._stream.wait_event(copied)
            return copied

    def synchronize(self) -> None:
        with self._translated():
            self._stream.synchronize()

    def record(self, launches: Callable[[], None]) -> Callable[[], None]:
        self._stream.begin_capture()
        try:
            launches()
        finally:
            graph = self._stream.end_capture()
        return lambda: graph.launch(self._stream)


def _is_of_the_driver(error: BaseException) -> bool:
    """Return whether CuPy, numba-cuda or cuda.core raised this error because a call of the driver failed.

    It compares names of classes: each library has a class of its own, and cuda.core's lies in a private module.
    """
    names = {"CUDARuntimeError", "CUDADriverError", "CudaAPIError", "CudaDriverError", "CUDAError"}
    return any(kind.__name__ in names for kind in type(error).__mro__)


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory of the device, or pinned memory, has run out."""
    texts = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY")
    return type(error).__name__ == "OutOfMemoryError" or (
        _is_of_the_driver(error) and any(text in str(error) for text in texts)
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
