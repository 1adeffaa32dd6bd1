"""What every backend offers for arrays: their layout on its device, and copies to and from it."""

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
    def precision(self) -> str:
        """What the products of this backend's primitives round their operands to, see `gpuprop.core.precision`."""
        ...

    @property
    def row_padding(self) -> int:
        """The rows of a matrix start a multiple of this many elements apart; zeros fill the gaps between them."""
        ...

    @property
    def on_host(self) -> bool:
        """Whether the arrays of this device are NumPy's own, without padding."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Return a context in which the functions of an array's own library run on this device, in order."""
        ...

    def adopt(self, array: Any) -> Any:
        """Return a user's array as one of this device if it lies on a GPU, else in a form that NumPy can read.

        `gpuprop.arrays` says what is copied.
        """
        ...

    def asarray(self, array: Any, dtype: DTypeLike) -> Array:
        """Return `array` on the device: C-contiguous, of `dtype`; the same object if nothing has to change.

        A sparse matrix stays sparse, as CSR.
        """
        ...

    def load(self, *arrays: Any) -> tuple[Any, ...]:
        """Return the checked arrays of a data set in the form that `take_batch` and plans read; None stays None.

        They lie on the device, or stay on the host if they are too large for it.
        """
        ...

    def to_numpy(self, array: Array) -> NDArray[Any]:
        """Return a host copy of a device array (on the CPU: the array itself)."""
        ...

    def empty(self, shape: int | tuple[int, ...], dtype: DTypeLike) -> Array:
        """Return a new array on the device, its contents undefined."""
        ...

    def synchronize(self) -> None:
        """Wait until all work started so far is done."""
        ...
