"""What a trace holds: all the numbers and formulas of one round, before anything is written or drawn.

`text`, `page` and `diagram` show a `TraceRecord`; `tracing` makes one, and adds to it the methods that show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.learn.trace.descent import Round, Weights
from gpuprop.learn.trace.expressions import Symbol
from gpuprop.learn.trace.quantities import Quantities
from gpuprop.learn.trace.terms import Section, Term

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TraceRecord"]


@dataclass(frozen=True, eq=False)
class TraceRecord:
    """What one sample did to a network in the last round of gradient descent.

    Attributes
    ----------
    title : str
        Network, loss and dtype.
    rounds : int
        Rounds of gradient descent; the numbers are those of the last.
    learning_rate : float
    weights : {"original", "updated"}
    train_biases : bool
    notation : {"code", "mazur", "lecture"}
    path : str
        Empty if the whole network is shown; else the units on the path that is shown.
    dtype : dtype
        Of the computation.
    numbers : Round
        Arrays of the last round: ``numbers.loss`` (before its update), ``numbers.layers[l].z``, ``.activations``,
        ``.delta``, ``.weight_grads``, ``.bias_grads``, ``.new_weights``, ...
    given : list of (str, list of Symbol)
        The numbers that the round starts from.
    sections : tuple of Section
        The terms, stage by stage.
    losses : tuple of (int, float)
        The loss after 0, 1, 10, 100, ... rounds and after the last.
    outputs_after : ndarray of shape (n_outputs,)
        The network's outputs after the last round.
    symbols : Quantities
        Gives every number of the round as a symbol of the notation, whether a term shows it or not.
    """

    title: str
    rounds: int
    learning_rate: float
    weights: Weights
    train_biases: bool
    notation: str
    path: str
    dtype: np.dtype[Any]
    numbers: Round
    given: list[tuple[str, list[Symbol]]]
    sections: tuple[Section, ...]
    losses: tuple[tuple[int, float], ...]
    outputs_after: NDArray[Any]
    symbols: Quantities

    @property
    def loss(self) -> float:
        """The loss that the last round computed, before its update."""
        return self.numbers.loss

    @property
    def loss_after(self) -> float:
        """The loss after the last update."""
        return self.losses[-1][1]

    @property
    def terms(self) -> tuple[Term, ...]:
        """All terms in the order of the algorithm."""
        return tuple(term for section in self.sections for term in section.terms)
