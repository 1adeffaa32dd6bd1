"""The optimizers as device functions of one parameter.

Each is ``rule(p, g, s, t, c) -> (p, s, t)``: parameter, gradient, two state values (ignored where the optimizer has
fewer), and `c`, the numbers of this update. The rules are the scalar forms of `formulas.rules`. The numbers come from
``scalars[slot]`` in device memory (`update_scalars` makes them on the host in float64), so that a captured graph
follows a schedule of learning rates:

    scalars of a slot   | 1 / sum of the batch's sample weights | c[0] | ... | c[6] | l1 | l2 | 0 ... |   16 numbers

In float32 a slot is two sectors of memory, and only an update with penalties reads the second one.

Budget: no launch of their own; per parameter in float32 4 bytes read and written for p and for each of s and t that an
optimizer has (``STATE_ARRAYS``), 2 to some 20 instructions, up to 8 registers for each parameter in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuprop_kernels.activations import elementary_functions
from gpuprop_kernels.formulas.rules import MOST_NUMBERS, RULES
from gpuprop_kernels.target import device

__all__ = ["PENALTY", "SCALARS", "STATE_ARRAYS", "optimizer_rule", "update_scalars"]

STATE_ARRAYS = {name: form.arrays for name, form in RULES.items()}
"""How many state arrays an optimizer has, each as long as the parameters."""

PENALTY = 1 + MOST_NUMBERS
"""The place of l1 in a slot of `scalars`: behind 1 / sum of the sample weights and the numbers `c`; l2 is next."""

SCALARS = 16
"""Numbers of one slot of `scalars`."""


def update_scalars(
    name: str,
    rate: float,
    step: int,
    hyperparameters: Sequence[float] = (),
    *,
    inverse_weight: float = 1.0,
    penalty: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float64]:
    """Return one slot of `scalars` for update number `step` (from 1).

    Parameters
    ----------
    name : str
        One of `STATE_ARRAYS`.
    rate : float
        The learning rate of this update.
    step : int
        The number of this update, from 1.
    hyperparameters : sequence of float
        In the order of the optimizer's form.
    inverse_weight : float
        1 / sum of the sample weights of the batch, which the loss kernels multiply their deltas by.
    penalty : tuple of float, default=(0.0, 0.0)
        l1 and l2 of ``l1 sum |W| + l2 / 2 sum W^2``, whose gradient this update adds to that of the weights.
    """
    if name not in RULES:
        raise ValueError(f"got optimizer {name!r}, expected one of {', '.join(RULES)}")
    numbers = RULES[name].numbers(rate, step, hyperparameters)
    slot = np.zeros(SCALARS)
    slot[: 1 + len(numbers)] = inverse_weight, *numbers
    slot[PENALTY : PENALTY + 2] = penalty
    return slot


@cache
def optimizer_rule(name: str, dt: Any) -> Any:
    """Return the device function ``rule(p, g, s, t, c) -> (p, s, t)`` of an optimizer."""
    return device(RULES[name].build(dt, elementary_functions(dt)))
