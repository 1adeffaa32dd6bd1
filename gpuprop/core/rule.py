"""`UpdateRule`: everything that turns gradients into new parameters, except the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpuprop.core.array_ops import Array
    from gpuprop.maths.optimizers import Optimizer

__all__ = ["UpdateRule"]


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
    """

    optimizer: Optimizer
    state: dict[str, Array]
    scratch: tuple[Array, ...] = ()
    clip_norm: float | None = None
    max_norm: float | None = None
