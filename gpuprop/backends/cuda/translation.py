"""Translate gpuprop's activations, losses, optimizers and metrics to the kernels' own names and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuprop_kernels import activations as kernel_activations
from gpuprop_kernels.formulas.rules import RULES
from gpuprop_kernels.loss import CANONICAL as KERNEL_LOSSES
from gpuprop_kernels.optimizers import PENALTY, SCALARS, update_scalars

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.updates import EpochUpdates
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss
    from gpuprop.maths.optimizers import Optimizer

__all__ = ["IDENTITY", "METRICS", "epoch_scalars", "kernel_activation", "kernel_loss", "slot_scalars"]

METRICS = {"class": "class", "labels": "threshold", "residual": "residual"}
"""The kernels' names of the metrics of `gpuprop.maths.losses.score`."""

IDENTITY = kernel_activations.Activation("identity")


def slot_scalars(optimizer: Optimizer, rate: float, step: int, total_weight: float) -> NDArray[np.float64]:
    """Return the numbers that an update of a built-in optimizer needs; `step` counts from 1."""
    inverse = 1.0 / total_weight if total_weight > 0 else 0.0
    return update_scalars(optimizer.name, rate, step, optimizer.hyperparameters, inverse_weight=inverse)


def epoch_scalars(epoch: EpochUpdates) -> NDArray[np.float64]:
    """Return the numbers of each update of an epoch, (updates, `gpuprop_kernels.optimizers.SCALARS`)."""
    optimizer, spec = epoch.training.rule.optimizer, epoch.training.layers.spec
    numbers, hyperparameters = RULES[optimizer.name].numbers, optimizer.hyperparameters
    rates, first = epoch.rates.tolist(), epoch.steps_done + 1
    rows = np.array([numbers(rate, step, hyperparameters) for step, rate in enumerate(rates, start=first)])
    scalars = np.zeros((len(rows), SCALARS))
    # A batch whose weights are all zero has no loss and no gradient.
    np.divide(1.0, epoch.weights, out=scalars[:, 0], where=epoch.weights > 0)
    scalars[:, 1 : 1 + rows.shape[1]] = rows
    scalars[:, PENALTY] = spec.l1 * epoch.penalty_factors
    scalars[:, PENALTY + 1] = spec.l2 * epoch.penalty_factors
    return scalars


def kernel_activation(activation: Activation) -> kernel_activations.Activation:
    """Return the kernels' own name of an activation.

    Raises
    ------
    ValueError
        If the activation is a user's own and has no functions for CUDA.
    """
    if activation.built_in:
        return kernel_activations.Activation(activation.base_name, activation.parameter)
    if activation.cuda is None:
        raise ValueError(
            f"activation {activation.name!r}: got no functions for CUDA, expected cuda=(function, derivative), two "
            "functions of one number that Numba can compile; give them, or use device='cpu'"
        )
    return kernel_activations.Activation(activation.name, None, activation.cuda, activation.derivative_of)


def kernel_loss(loss: Loss) -> str:
    """Return the kernels' name of a loss; ``ValueError`` for one that they do not have."""
    if not loss.built_in:
        known = ", ".join(KERNEL_LOSSES)
        raise ValueError(f"loss {loss.name!r}: got one without a CUDA kernel, expected {known}; use device='cpu'")
    return loss.name
