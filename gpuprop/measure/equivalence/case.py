"""A case: one thing that a device must compute, with data, expectation and bound; and the one way to run it.

A case runs on any backend, because it uses only what all of them offer: the primitives of `gpuprop.core.ops.Ops`,
`Network` and `Trainer`. It yields checks, which compare the numbers of the device with the float64 oracle. Every case
runs twice, and must give the same bits both times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.errors import DeviceError
from gpuprop.measure.equivalence import tolerances

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuprop.core.ops import Array, Ops

__all__ = ["DTYPES", "SHAPES", "Case", "Check", "Outcome", "Output", "normal", "run_case"]

DTYPES = ("float32", "float64")

SHAPES = ((1, 1, 1), (7, 17, 33), (17, 33, 7), (33, 7, 17))
"""(rows, inputs, outputs) that no tile divides."""

GUARD_ROWS = 2
"""Number of rows behind each output that no primitive may write to."""


@dataclass(frozen=True)
class Check:
    """Numbers of a device, and the numbers that are expected.

    Attributes
    ----------
    what : str
        The name of the numbers.
    actual, expected : array_like
    bound : array_like
        Largest allowed difference, element by element; with 0 the numbers must be equal.
    """

    what: str
    actual: ArrayLike
    expected: ArrayLike
    bound: ArrayLike = 0.0


@dataclass(frozen=True)
class Case:
    """One thing to check.

    Attributes
    ----------
    group : str
        The step of the algorithm.
    name : str
        The particular shape, function or option.
    dtype : str
    checks : callable
        ``checks(ops, dtype)`` yields `Check` objects.
    quick : bool
        Whether it belongs to the small selection, which also runs in the simulator.
    large : bool
        Whether its size tests the larger tiles of a GPU, so that it is needless on other devices.
    """

    group: str
    name: str
    dtype: str
    checks: Callable[[Ops, np.dtype[Any]], Iterator[Check]]
    quick: bool = False
    large: bool = False

    @property
    def title(self) -> str:
        """One line for tables and messages."""
        return f"{self.group}: {self.name}, {self.dtype}"


@dataclass(frozen=True)
class Outcome:
    """The result of a case.

    Attributes
    ----------
    case : Case
    share : float
        The largest share of a bound that an error used; above 1 the case has failed.
    worst : str
        The check with that share.
    n_checks : int
    error : str or None
        The fault in one line; None if there was none.
    lost : bool
        Whether the device failed, so that nothing more can be run on it.
    seconds : float
        Time of both runs, on the host's clock; the first use of a kernel compiles it.
    """

    case: Case
    share: float
    worst: str
    n_checks: int
    error: str | None
    lost: bool
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether every number was right, twice."""
        return self.error is None


def run_case(case: Case, ops: Ops, *, runs: int = 2) -> Outcome:
    """Run a case `runs` times; an exception becomes the fault of its outcome."""
    begin = time.perf_counter()
    share, worst, lost = 0.0, "", False
    error: str | None = None
    checks: list[Check] = []
    try:
        with np.errstate(all="ignore"):  # extreme inputs overflow to infinity, on the host as on a GPU
            checks = list(case.checks(ops, np.dtype(case.dtype)))
            for check in checks:
                used = tolerances.used(check.actual, check.expected, check.bound)
                if used > share or not worst:
                    share, worst = used, check.what
            error = f"{worst}: the error is {share:.3g} times the bound" if share > 1 else None
            for _ in range(1, runs):
                error = error or _difference(checks, list(case.checks(ops, np.dtype(case.dtype))))
    except Exception as problem:
        error, lost = f"{type(problem).__name__}: {' '.join(str(problem).split())}", isinstance(problem, DeviceError)
    return Outcome(case, share, worst, len(checks), error, lost, time.perf_counter() - begin)


def _difference(first: list[Check], second: list[Check]) -> str | None:
    """Return a fault that names the first check whose bits differ between two runs, or None."""
    for one, other in zip(first, second, strict=True):
        if np.asarray(one.actual).tobytes() != np.asarray(other.actual).tobytes():
            return f"{one.what}: a second run gave other bits"
    return None


class Output:
    """An array that a primitive writes: full of NaN, with rows behind it that must stay NaN.

    Parameters
    ----------
    ops : Ops
    shape : tuple of int
    dtype : dtype
    initial : array_like or None
        The values of the array instead of NaN.
    """

    def __init__(self, ops: Ops, shape: tuple[int, ...], dtype: Any, initial: ArrayLike | None = None) -> None:
        host = np.full((shape[0] + GUARD_ROWS, *shape[1:]), np.nan, dtype)
        if initial is not None:
            host[: shape[0]] = initial
        self._ops, self._whole, self._n_rows = ops, ops.asarray(host, dtype), shape[0]

    @property
    def array(self) -> Array:
        """The array that the primitive writes to."""
        return self._whole[: self._n_rows]

    def read(self) -> NDArray[Any]:
        """Return a copy on the host; raise ``ValueError`` if the primitive wrote behind the array."""
        host = np.array(self._ops.to_numpy(self._whole))
        if not np.isnan(host[self._n_rows :]).all():
            raise ValueError("rows behind the output were written")
        return np.asarray(host[: self._n_rows])


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return normal numbers of a dtype."""
    return rng.standard_normal(shape).astype(dtype)
