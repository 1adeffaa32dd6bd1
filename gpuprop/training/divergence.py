"""Where a training diverged: the update and the layer in which the first non-finite number arose."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import numpy as np

from gpuprop.errors import NonFiniteLossError

if TYPE_CHECKING:
    from gpuprop.core.plan import Plan, TrainingState
    from gpuprop.core.updates import EpochUpdates

__all__ = ["explain_divergence"]


def explain_divergence(plan: Plan, updates: EpochUpdates, epoch: int, start: TrainingState | None = None) -> NoReturn:
    """Find the update and the layer where the first non-finite number arose, and raise.

    A step is deterministic, so the epoch is trained once more from where it began, now looking at every update; that
    costs nothing while training goes well. The network has its parameters of the epoch's start.

    Parameters
    ----------
    plan : Plan
    updates : EpochUpdates
        The updates of the epoch that diverged.
    epoch : int
        Its number, counted from 0.
    start : TrainingState or None, default=None
        What the training went on from within this epoch; None for the beginning of the epoch.

    Raises
    ------
    NonFiniteLossError
        Always; the message says where, and what to change.
    """
    n_updates = updates.training.updates_of_epoch
    plan.rewind()
    kept = f"the last completed epoch ({epoch})" if start is None else "the checkpoint"
    with plan.active():
        plan.begin_epoch(updates)
        if start is not None:
            plan.restore(start)
        for index in range(0 if start is None else start.position, n_updates):
            plan.run(index, index + 1)
            place = _first_non_finite(plan, updates)
            if place is not None:
                raise NonFiniteLossError(
                    f"training diverged in epoch {epoch + 1}, step {index + 1} of {n_updates}: {place} became "
                    f"infinite or NaN; the parameters of {kept} are kept; lower the "
                    f"learning rate (now {updates.rates[index]:g}), set clip_norm, or scale the inputs",
                    epoch=epoch + 1,
                    step=index + 1,
                    layer=place,
                )
    raise NonFiniteLossError(
        f"training diverged in epoch {epoch + 1}, but not when the epoch was repeated: the device does not compute "
        f"reproducibly; the parameters of {kept} are kept",
        epoch=epoch + 1,
        step=n_updates,
        layer="unknown",
    )


def _first_non_finite(plan: Plan, updates: EpochUpdates) -> str | None:
    """Name the first array, in the order of the algorithm, that an update left with a non-finite number."""
    ops = updates.training.layers.ops
    for place, array in plan.places():
        if not np.isfinite(ops.to_numpy(array)).all():
            return place
    return None
