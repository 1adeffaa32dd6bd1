"""The updates of an epoch, as a plan takes them: its order, its rates, and the weights of its batches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import beside
from gpuprop.core.updates import EpochUpdates, Training
from gpuprop.maths.schedules import Position, Schedule
from gpuprop.training.orders import checked_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.data import TrainingData
    from gpuprop.training.windows import Windows

__all__ = ["updates_of"]


def updates_of(
    trainer: Any, training: Training, epoch: int, learning_rate: float, windows: Windows | None = None
) -> EpochUpdates:
    """Return the updates of an epoch.

    Parameters
    ----------
    trainer : Trainer
    training : Training
    epoch : int
        Counted from 0.
    learning_rate : float
        The rate that the schedule varies.
    windows : Windows or None, default=None
        Where rows stay on disk: the order is then that of their places in memory.
    """
    if windows is not None:
        order = windows.slots(epoch, training.rows_of_epoch)
    else:
        order = checked_order(trainer.row_orders, epoch, trainer.n_samples)[: training.rows_of_epoch]
    data = _weighted_by_rows(trainer, training, order)
    if windows is None:
        weights = _batch_weights(trainer, training, data, order)
    else:
        weights = windows.batch_weights(epoch, len(order))
    users = weights if data is training.data else _batch_weights(trainer, training, training.data, order)
    rates = _scheduled(trainer, training, trainer.schedule, learning_rate, epoch)
    varied, decays = trainer.dropout_schedule, trainer.weight_decay_schedule
    return EpochUpdates(
        training=training,
        data=data,
        order=order,
        weights=weights,
        penalty_factors=_penalty_factors(trainer, users),
        rates=rates,
        steps_done=trainer.steps_done,
        dropout_factors=_scheduled(trainer, training, varied, 1.0, epoch) if varied else None,
        decays=rates * _scheduled(trainer, training, decays, trainer.weight_decay, epoch)
        if trainer.weight_decay
        else None,
    )


def _scheduled(trainer: Any, training: Training, schedule: Schedule, value: float, epoch: int) -> NDArray[np.float64]:
    """Return what a schedule makes of the learning rate, or of another number, for each update of the epoch."""
    position = Position(
        epoch=epoch,
        step=trainer.steps_done,
        steps_per_epoch=training.updates_of_epoch,
        epochs=trainer.epochs,
        batch_size=training.update_size,
        n_samples=trainer.n_samples,
        train_losses=trainer.history.get("train_loss", ()),
    )
    return schedule.rates(value, position)


def _weighted_by_rows(trainer: Any, training: Training, order: NDArray[np.int32]) -> TrainingData:
    """Under scikit-learn's conventions, rescale the weights so that each batch's sum is its number of rows.

    The gradient of a batch does not change; in the sums over the epoch, batches then count by their rows.
    """
    data, network = training.data, trainer.network
    if trainer.conventions == "gpuprop" or data.wide_weight is None:
        return data
    ops = network.ops
    sums = _batch_weights(trainer, training, data, order)
    batch = np.empty(len(order), np.int64)
    batch[order] = np.arange(len(order)) // training.update_size
    # A batch whose weights are all zero keeps them: it has no loss and no gradient.
    factors = np.divide(np.bincount(batch), sums, out=np.zeros_like(sums), where=sums > 0)
    with ops.active():
        weight = data.wide_weight * beside(factors[batch], data.wide_weight)
        total = float(weight.sum())
        return replace(
            data,
            sample_weight=ops.asarray(weight, network.dtype),
            wide_weight=weight,
            total_weight=total,
            total_variation=data.total_variation * total / data.total_weight,
        )


def _batch_weights(
    trainer: Any, training: Training, data: TrainingData, order: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the sum of sample weights of each update of the epoch."""
    with trainer.network.ops.active():
        return data.batch_weights(order, training.update_size)


def _penalty_factors(trainer: Any, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the factor of the penalties in each update of the epoch, from the sums of the user's sample weights."""
    if trainer.conventions == "gpuprop":
        return np.ones(len(weights))
    if weights.min() > 0:
        return 1.0 / weights
    return np.divide(1.0, weights, out=np.zeros_like(weights), where=weights > 0)
