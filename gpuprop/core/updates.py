"""The updates of a training: the training itself, and everything that the updates of an epoch or batch depend on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.core.communicator import Sharding
    from gpuprop.core.data import TrainingData
    from gpuprop.core.layers import Layers
    from gpuprop.core.rule import UpdateRule

__all__ = ["Batch", "EpochUpdates", "MadeElsewhere", "Moment", "PausingFit", "Training"]


class Batch(NamedTuple):
    """The rows of one update, or a shard of them: ``order[start:stop]`` of a data set.

    Attributes
    ----------
    data : TrainingData
    order : array of shape (n_samples,), int32
        On the device.
    start, stop : int
    total_weight : float
        The sum of the sample weights of the update's rows.
    first_row : int, default=0
        The place of the first row in the update, where the batch is a shard of one.
    """

    data: TrainingData
    order: Array
    start: int
    stop: int
    total_weight: float
    first_row: int = 0


class Moment(NamedTuple):
    """What an update depends on beside its batch.

    Attributes
    ----------
    learning_rate : float
    steps_done : int
        Earlier updates.
    penalty_factor : float
        Of the network's penalties.
    dropout_factor : float
        Of its shares of dropped units.
    decay : float
        See `UpdateRule.decay_factors`.
    """

    learning_rate: float
    steps_done: int
    penalty_factor: float
    dropout_factor: float = 1.0
    decay: float = 0.0


@dataclass(frozen=True)
class Training:
    """A training, as a backend's `plan` needs to know it.

    Attributes
    ----------
    layers : Layers
        Spec, parameters and primitives of the network; the updates change its parameters.
    data : TrainingData
    rule : UpdateRule
        With the optimizer's memory, which the updates change.
    part_size, update_size : int
        Rows of a batch, and of an update: several batches' gradients may add up to one update.
    n_updates : int
        The updates that are left to make, if the training does not end early.
    watched : bool
        Whether a callback must be told of each update.
    n_threads : int or None
        The most threads that train on a CPU; None stands for all that BLAS may use.
    want : str
        The path that the user asked for by name, or "auto".
    n_rows : int or None
        The rows that an epoch visits; None stands for all rows of `data`.
    varying_dropout : bool
        Whether the share of dropped units changes from update to update.
    joined : bool
        Whether earlier updates were made in the same calls as those of other trainings. That path has bits of its own,
        and the training stays on it when the others have ended.
    updates_before : int
        The updates that the network has made before with this optimizer, in all its trainings.
    sharding : Sharding or None
        How the rows of an update are divided among processes; None makes whole updates in this one.
    """

    layers: Layers
    data: TrainingData
    rule: UpdateRule
    part_size: int
    update_size: int
    n_updates: int
    watched: bool = False
    n_threads: int | None = None
    want: str = "auto"
    n_rows: int | None = None
    varying_dropout: bool = False
    joined: bool = False
    updates_before: int = 0
    sharding: Sharding | None = None

    @property
    def only_steps(self) -> str | None:
        """Why only the plan of steps can make the updates, or None if others may."""
        if not self.layers.spec.plain:
            what = "slopes or embeddings"
            if self.layers.spec.has_blocks:
                what = "batch normalisation or residual layers"
            return f"the network has {what}, which are trained one primitive after the other"
        if self.rule.decay_factors is not None:
            return "parameters decay apart from the optimizer"
        if self.varying_dropout:
            return "the share of dropped units changes from update to update"
        return None

    @property
    def rows_of_epoch(self) -> int:
        """Rows that an epoch visits."""
        return self.data.n_samples if self.n_rows is None else self.n_rows

    @functools.cached_property
    def shape(self) -> Hashable:
        """What trainings must share to be updated in the same calls; their parameters and rates may differ.

        The numbers of rows may differ, too: a network without rows in an update stays as it is.
        """
        spec, ops = self.layers.spec, self.layers.ops
        names = (*(activation.name for activation in spec.activations), spec.loss.name, self.rule.optimizer.name)
        return ops.device, spec.dtype, spec.precision, names, self.data.metric, spec.layer_sizes, self.update_size

    @property
    def updates_of_epoch(self) -> int:
        """Updates of an epoch; the last one may have fewer rows."""
        return -(-self.rows_of_epoch // self.update_size)

    @property
    def products(self) -> int:
        """Products of two numbers in an update: three matrix products for each layer."""
        return 3 * self.update_size * self.layers.spec.n_weights


@dataclass(frozen=True)
class EpochUpdates:
    """The updates of one epoch: everything that they depend on beside the parameters and the optimizer's memory.

    Attributes
    ----------
    training : Training
    data : TrainingData
        The training's data, or the same rows with the sample weights of this epoch.
    order : ndarray of shape (rows of an epoch,), int32
        The order of the rows.
    weights, penalty_factors, rates : ndarray of shape (updates of an epoch,)
        For each update: the sum of its sample weights, the factor of the network's penalties, and the learning rate.
    steps_done : int
        Updates before this epoch.
    dropout_factors, decays : ndarray of shape (updates of an epoch,), or None
        For each update: the factor of the network's shares of dropped units (None: 1), and the decay of its parameters
        (None: 0).
    on_joined : callable or None
        Called before the training's updates are made in the same calls as those of others for the first time.
    """

    training: Training
    data: TrainingData
    order: NDArray[np.int32]
    weights: NDArray[np.float64]
    penalty_factors: NDArray[np.float64]
    rates: NDArray[np.float64]
    steps_done: int
    dropout_factors: NDArray[np.float64] | None = None
    decays: NDArray[np.float64] | None = None
    on_joined: Callable[[], None] | None = None


class MadeElsewhere(NamedTuple):
    """What a plan for several trainings tells one of them.

    Attributes
    ----------
    totals : ndarray of shape (2,)
        Of its epoch.
    reason : str
        The plan's.
    undo : callable
        Restores the optimizer's memory to what it was at the beginning of the epoch.
    parameters : ndarray of shape (n_parameters,), or None
        The network's parameters on the host, if the plan has copied those of all networks at once.
    """

    totals: NDArray[np.float64]
    reason: str
    undo: Callable[[], None]
    parameters: NDArray[Any] | None = None


#: A fit that pauses before the updates of each epoch and yields them. The caller sends back their totals if a plan for
#: several trainings has made them, or None to let the fit make them itself.
PausingFit: TypeAlias = Generator[EpochUpdates, MadeElsewhere | None, None]
