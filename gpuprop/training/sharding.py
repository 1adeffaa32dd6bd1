"""The shards of a training: how many there are, and the validation rows that they divide among processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.communicator import Communicator, LoneProcess, Sharding, add_in_a_tree
from gpuprop.errors import CommunicatorError, check_integer
from gpuprop.model.evaluation import mean_loss_and_score, totals

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.data import TrainingData
    from gpuprop.core.layers import Layers

__all__ = ["SHARDS", "check_shards", "sharded_loss_and_score", "sharding_of"]

SHARDS = 8
"""The shards of an update where there is a communicator and no number is given."""


def check_shards(shards: int | None, communicator: Communicator | None) -> int | None:
    """Return the number of shards of an update; None where updates are not cut.

    Raises
    ------
    ValueError
        If the number is no power of two.
    CommunicatorError
        If the number of processes is no power of two, or larger.
    """
    if shards is None:
        if communicator is None:
            return None
        shards = max(SHARDS, communicator.size)
    found = check_integer("shards", shards, 1)
    if found & (found - 1):
        raise ValueError(f"shards: got {found}, expected a power of two, such as 8")
    if communicator is not None and (found % communicator.size or communicator.size & (communicator.size - 1)):
        counts = ", ".join(str(1 << power) for power in range(found.bit_length()))
        raise CommunicatorError(
            f"got {communicator.size} processes for {found} shards of each update, expected one of {counts}"
        )
    return found


def sharding_of(shards: int | None, communicator: Communicator | None) -> Sharding | None:
    """Return how updates are divided; None where they are not."""
    return None if shards is None else Sharding(shards, communicator or LoneProcess())


def sharded_loss_and_score(
    layers: Layers,
    data: TrainingData,
    sharding: Sharding,
    penalty_factor: float,
    outputs: NDArray[Any] | None = None,
) -> tuple[float, float]:
    """Do as `gpuprop.model.evaluation.loss_and_score`, each process for its shards of the rows.

    `outputs`, of shape (n_samples, n_outputs) on the host, gets the outputs of all rows if it is given.
    """
    places = [sharding.rows(data.n_samples, shard) for shard in range(sharding.n_shards)]
    own = np.zeros((len(sharding.own), 2))
    for place, shard in enumerate(sharding.own):
        first, end = places[shard]
        if first < end:
            of_shard = None if outputs is None else outputs[first:end]
            own[place] = totals(layers, data.rows(first, end), None, of_shard)
    first, end = places[sharding.own.start][0], places[sharding.own.stop - 1][1]
    found = sharding.communicator.gather((own, None if outputs is None else outputs[first:end].copy()))
    if outputs is not None and sharding.communicator.size > 1:
        outputs[...] = np.concatenate([rows for _, rows in found if rows is not None])
    sums = add_in_a_tree(np.concatenate([sums for sums, _ in found]))
    return mean_loss_and_score(layers, data, sums, penalty_factor)
