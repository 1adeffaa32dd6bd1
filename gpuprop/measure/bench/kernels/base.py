"""A kernel to measure: its operands, its expected results, and the ways to compute them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gpuprop.maths.activations import get_activation
from gpuprop.measure.bench.roofline import Work

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from gpuprop.backends.cuda.ops import CudaOps
    from gpuprop.core.ops import Ops
    from gpuprop.measure.bench.measure import Contender

__all__ = ["MNIST_SHAPES", "RELU", "Kernel", "Shape", "on_host", "one_hot"]

Shape = tuple[int, int, int]

RELU = get_activation("relu")

MNIST_SHAPES: tuple[Shape, ...] = ((128, 784, 128), (256, 512, 512), (1024, 1024, 1024))
"""(rows, inputs, outputs) of a layer of 784-128-10, 784-512-512-10 and 784-1024-1024-1024-10."""


class Kernel(ABC):
    """One kernel on operands of one shape.

    Parameters
    ----------
    shape : tuple of int
        Rows of the batch, inputs and outputs of the layer.
    dtype : dtype

    Attributes
    ----------
    host : dict of arrays
        The operands.
    precision : str
        What the operands are rounded to.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    shapes: ClassVar[tuple[Shape, ...]] = MNIST_SHAPES
    cold: ClassVar[bool] = False
    """Whether a training finds its operands in memory rather than in a cache."""
    rounds_operands: ClassVar[bool] = False
    """Whether it is a product that is measured in each precision of `gpuprop.core.precision`."""

    def __init__(self, shape: Shape, dtype: DTypeLike) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.n, self.n_in, self.n_out = shape
        self.precision = "float32"
        self.host = self._operands(np.random.default_rng(0))

    def in_precision(self, precision: str) -> Kernel:
        """Return this kernel on the same operands in another precision."""
        twin = copy.copy(self)
        twin.precision = precision
        return twin

    @abstractmethod
    def _operands(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Draw the operands."""

    @property
    @abstractmethod
    def work(self) -> Work:
        """Operations, and bytes of operands and results."""

    @abstractmethod
    def expected(self) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
        """Return each result in float64, and the bound on its error."""

    @abstractmethod
    def primitive(self, ops: Ops) -> Contender:
        """Return gpuprop's own way on the CPU."""

    @abstractmethod
    def launch(self, ops: CudaOps) -> Contender:
        """Return gpuprop's own way on a GPU: one launch."""

    @abstractmethod
    def composed(self, xp: Any) -> Contender:
        """Return the same mathematics, composed of an array library's calls in the straightforward way."""

    def product(self, xp: Any) -> Contender | None:
        """Return the multiplication alone, by the library's BLAS; None if the kernel has none."""
        return None

    def _normal(self, rng: np.random.Generator, *shape: int) -> NDArray[Any]:
        return rng.standard_normal(shape).astype(self.dtype)

    def _bytes(self, *numbers: int) -> float:
        """Return the bytes of so many numbers of the dtype."""
        return float(sum(numbers) * self.dtype.itemsize)


def one_hot(rng: np.random.Generator, n: int, k: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return rows of targets for a classifier."""
    return np.eye(k, dtype=dtype)[rng.integers(0, k, n)]


def on_host(**arrays: Any) -> dict[str, NDArray[Any]]:
    """Return arrays of NumPy or CuPy as NumPy's, by name."""
    return {name: np.asarray(array.get() if hasattr(array, "get") else array) for name, array in arrays.items()}
