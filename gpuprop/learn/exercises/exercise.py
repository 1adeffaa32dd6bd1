"""The parts of an exercise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Answer", "Case", "Exercise", "Generator", "Mistake", "central_difference", "gradient"]

#: The arrays that a function returns, one or several.
Answer = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Generator:
    """Stands for ``numpy.random.default_rng(seed)`` among the arguments of a case."""

    seed: int


#: The arguments of one call: arrays, numbers, a `Generator`.
Case = tuple[Any, ...]


@dataclass(frozen=True)
class Mistake:
    """A common mistake.

    Attributes
    ----------
    message : str
        What the mistake is, and how to mend it.
    answer : callable
        Takes the arguments of a case, and returns what a function with this mistake returns.
    """

    message: str
    answer: Callable[..., Any]


@dataclass(frozen=True)
class Exercise:
    """A function with a hole for the learner to fill.

    Attributes
    ----------
    title : str
    function : str
        The name of the function that the file must define.
    template : str
        The file with the hole, which is a ``...``.
    against : str
        Says what the answer is compared with.
    cases : callable
        Returns the arguments of each call.
    right : callable
        Takes the arguments of a case, and returns the right answer. It computes it differently from the solution that
        a learner would write.
    mistakes : tuple of Mistake
    observe : callable
        Takes an array of the answer, and returns the numbers to compare; by default the array itself.
    rtol, atol : float
        The tolerances of the comparison.
    kernel : bool
        Whether the function is a CUDA kernel, which writes into its last argument and runs in the simulator.
    """

    title: str
    function: str
    template: str
    against: str
    cases: Callable[[], list[Case]]
    right: Callable[..., Any]
    mistakes: tuple[Mistake, ...]
    observe: Callable[[NDArray[Any]], NDArray[Any]] = lambda answer: answer
    rtol: float = 1e-6
    atol: float = 1e-8
    kernel: bool = False

    @property
    def file_name(self) -> str:
        """The file that the task is written to by default."""
        return f"{self.function}.py"


def central_difference(function: Callable[[Any], Any], z: Any, step: float = 1e-5) -> Any:
    """Return the derivative of an elementwise function, ``(f(z + h) - f(z - h)) / 2h``."""
    return (function(z + step) - function(z - step)) / (2 * step)


def gradient(function: Callable[[NDArray[Any]], float], z: NDArray[Any], step: float = 1e-5) -> NDArray[Any]:
    """Return the derivative of a number by each element of an array, by central differences."""
    found = np.empty_like(z)
    for index in np.ndindex(z.shape):
        moved = np.zeros_like(z)
        moved[index] = step
        found[index] = (function(z + moved) - function(z - moved)) / (2 * step)
    return found
