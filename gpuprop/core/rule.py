"""`UpdateRule`: everything that turns gradients into new parameters, except the learning rate."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gpuprop.core.array_ops import Array
    from gpuprop.core.parameters import Parameters
    from gpuprop.core.scaling_layer import ScalingLayer
    from gpuprop.maths.optimizers import Optimizer

__all__ = ["Group", "UpdateRule"]


class Group(NamedTuple):
    """Parameters that are updated at one learning rate, as flat arrays of one length.

    Attributes
    ----------
    parameters, gradients : flat arrays
    state : dict of flat arrays
    scratch : tuple of flat arrays
    n_weights : int
        ``parameters[:n_weights]`` are weights, the rest biases.
    rate_factor : float
        Their learning rate is the training's times this.
    """

    parameters: Array
    gradients: Array
    state: dict[str, Array]
    scratch: tuple[Array, ...]
    n_weights: int
    rate_factor: float


@dataclass(frozen=True)
class UpdateRule:
    """How a gradient becomes an update.

    Attributes
    ----------
    optimizer : Optimizer
    state : dict of flat arrays
        What the optimizer remembers between updates, by the names in its ``slots``.
    scratch : tuple of flat arrays
        Its work space, which a plan allocates if it needs some.
    clip_norm : float or None
        The gradient of all parameters together is shortened to at most this Euclidean norm.
    max_norm : float or None
        After the update the incoming weights of each unit are shortened to at most this norm.
    rate_factors : tuple of float, or None
        Factors of the learning rate for each of ``Parameters.arrays``; None stands for ones.
    gradient_factors : tuple of float, or None
        Factors of the gradient of each of these arrays; None stands for ones.
    decay_factors : tuple of float, or None
        Before an update each of these arrays is multiplied by 1 less the update's decay times this; None stands for
        zeros.
    scaling_layer : ScalingLayer or None
        Trained factors of the inputs.
    """

    optimizer: Optimizer
    state: dict[str, Array]
    scratch: tuple[Array, ...] = ()
    clip_norm: float | None = None
    max_norm: float | None = None
    rate_factors: tuple[float, ...] | None = None
    gradient_factors: tuple[float, ...] | None = None
    decay_factors: tuple[float, ...] | None = None
    scaling_layer: ScalingLayer | None = None

    @property
    def plain(self) -> bool:
        """Whether one learning rate serves all parameters, none decays, and the inputs have no trained factors."""
        return not self.grouped and self.decay_factors is None and self.scaling_layer is None

    @property
    def grouped(self) -> bool:
        """Whether parameters have rates or gradients of their own."""
        return self.rate_factors is not None or self.gradient_factors is not None

    def decay(self, parameters: Parameters, amount: float) -> None:
        """Bring parameters closer to zero; `amount` is the update's decay."""
        if self.decay_factors is None:
            return
        for (start, stop), factor in zip(parameters.segments(), self.decay_factors, strict=True):
            if factor:
                own = parameters.flat[start:stop]
                own *= 1 - amount * factor

    def groups(self, parameters: Parameters, gradients: Parameters) -> Iterator[Group]:
        """Yield the parameters that share a learning rate: all of them together if there are no factors.

        Gradients are multiplied by their factors.
        """
        flat, given = parameters.flat, gradients.flat
        if not self.grouped:
            yield Group(flat, given, self.state, self.scratch, parameters.n_weights, 1.0)
            return
        for start, stop, rate_factor, gradient_factor in _runs(
            parameters.segments(), parameters.n_weights, self.rate_factors, self.gradient_factors
        ):
            own_gradient = given[start:stop]
            if gradient_factor != 1:
                own_gradient *= gradient_factor
            yield Group(
                flat[start:stop],
                own_gradient,
                {name: array[start:stop] for name, array in self.state.items()},
                tuple(array[: stop - start] for array in self.scratch),
                stop - start if start < parameters.n_weights else 0,
                rate_factor,
            )


@functools.lru_cache(maxsize=64)
def _runs(
    segments: tuple[tuple[int, int], ...],
    n_weights: int,
    rate_factors: tuple[float, ...] | None,
    gradient_factors: tuple[float, ...] | None,
) -> tuple[tuple[int, int, float, float], ...]:
    """Return where parameters of equal factors begin and end, and both factors; weights and biases stay apart."""
    ones = (1.0,) * len(segments)
    rows = list(zip(segments, rate_factors or ones, gradient_factors or ones, strict=True))
    runs = groupby(rows, lambda row: (row[0][0] < n_weights, row[1], row[2]))
    found = ((list(run), rate, gradient) for (_, rate, gradient), run in runs)
    return tuple((run[0][0][0], run[-1][0][1], rate, gradient) for run, rate, gradient in found)
