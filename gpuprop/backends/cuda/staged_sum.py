"""Gradients of processes that have a GPU each: they are added on the host, through pinned memory.

::

    device --> pinned memory --> Communicator.sum_gradients --> pinned memory --> device

MPI needs to know nothing of GPUs for that, and adds in the order that makes the bits independent of the number of
processes. NCCL's `AllReduce` chooses its order by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.backends.cuda.runtime import Runtime
    from gpuprop.core.array_ops import Array
    from gpuprop.core.communicator import Communicator

__all__ = ["StagedSum"]


class StagedSum:
    """Replaces an array of a device by the sum of those of all processes; see `gpuprop.backends.sharded.AddUp`.

    Parameters
    ----------
    runtime : Runtime
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._host: NDArray[Any] | None = None

    def __call__(self, flat: Array, communicator: Communicator) -> None:
        """Wait for the array, add it to the others, and start its way back."""
        if communicator.size == 1:
            return
        if self._host is None:
            self._host = self._runtime.pinned(flat.shape, flat.dtype)
        self._runtime.download(flat, self._host)  # it waits, also for the copy back of the last sum
        communicator.sum_gradients(self._host)
        self._runtime.upload(self._host, flat)
