"""What every device must compute, as data: the cases of the tests and of ``gpuprop selfcheck``.

A module a part of the step: `layers` (batch, forward, hidden delta, gradients, dropout), `precisions` (its
products on tensor cores), `output` (losses and their
deltas), `update` (penalties, optimizers, limits) and `training` (inference, gradients, whole updates, trainings).
"""

from __future__ import annotations

from gpuprop.measure.equivalence.case import Case
from gpuprop.measure.equivalence.cases import layers, output, precisions, update
from gpuprop.measure.equivalence.cases import whole_networks as training

__all__ = ["all_cases"]


def all_cases(*, quick: bool = False, large: bool = True) -> list[Case]:
    """Return the cases in the order of the algorithm.

    Parameters
    ----------
    quick : bool, default=False
        Only those that the simulator can afford.
    large : bool, default=True
        Also those that are there for the larger tiles of a GPU.
    """
    found = [*layers.cases(), *precisions.cases(), *output.cases(), *update.cases(), *training.cases()]
    return [case for case in found if (case.quick or not quick) and (large or not case.large)]
