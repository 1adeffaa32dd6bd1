"""What every backend offers for arrays: how they come to its device and back, and how they lie there."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["Array", "ArrayOps"]

#: An array of the backend: ``numpy.ndarray`` on the CPU.
Array = Any


class ArrayOps(Protocol):
    """The arrays of one device."""

    @property
    def device(self) -> str:
        """The device in use: "cpu", "numpy", ..."""
        ...

    @property
    def backend(self) -> str:
        """The library that computes: "numpy", "numba", ..."""
        ...

    @property
    def row_padding(self) -> int:
        """Rows of matrices lie this many elements, or a multiple of it, apart; what is between them holds zeros."""
        ...

    @property
    def on_host(self) -> bool:
        """Whether the arrays of this device are NumPy's own, without padding."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Return a context in which the functions of an array's own library work on this device, in order."""
        ...

    def adopt(self, array: Any) -> Any:
        """Return what a user handed in as an array of this device if it lies on a GPU, else for NumPy to read.

        `gpuprop.arrays` says what is copied.
        """
        ...

    def asarray(self, array: Any, dtype: DTypeLike) -> Array:
        """Return `array` on the device: C-contiguous, of `dtype`; the same object where nothing has to change.

        A sparse matrix stays sparse, as CSR.
        """
        ...

    def load(self, *arrays: Any) -> tuple[Any, ...]:
        """Return checked arrays of one data set as `take_batch` and plans read them; None stays None.

        That is on the device, or, for a data set that is too large for it, something that stays on the host.
        """
        ...

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Return a host copy of a device array (on the CPU: the array itself)."""
        ...

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return a new array on the device, its contents undefined."""
        ...

    def synchronize(self) -> None:
        """Wait until everything asked for has been computed."""
        ...
