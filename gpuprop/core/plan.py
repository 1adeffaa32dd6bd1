"""The Plan protocol: how the updates of a training are made. Contracts only.

Only a backend's `plan` decides how updates are made: one primitive after the other, whole epochs in one compiled call,
several networks together, or by a CUDA graph. A plan says in one sentence which path it is and why. Plans also hide
limits on BLAS's threads, flushed subnormal numbers, streams and graphs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gpuprop.core.ops import Ops

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gpuprop.core.array_ops import Array
    from gpuprop.core.updates import EpochUpdates, Training

__all__ = ["Backend", "CountedLaunches", "Plan", "Renewable", "SharedBuffer", "TrainingState"]


@dataclass(frozen=True)
class TrainingState:
    """Everything that the remaining updates of an epoch depend on, as arrays of the host and plain values.

    Attributes
    ----------
    parameters : ndarray of shape (n_parameters,)
        All weights, then all biases, without padding.
    optimizer : dict of ndarray of shape (n_parameters,)
        What the optimizer remembers, by the names in its ``slots``, without padding.
    position : int
        Updates of the epoch that have been made.
    totals : ndarray of shape (2,)
        Sums over these updates: weighted loss (penalties included) and weighted score.
    parts : dict of ndarray
        The same sums in the parts that this kind of plan keeps, so that such a plan continues with the same bits. A
        plan of another kind continues from `totals`.
    scaling_layer : dict of ndarray
        The arrays of the rule's `ScalingLayer`, where there is one.
    """

    parameters: NDArray[Any]
    optimizer: dict[str, NDArray[Any]]
    position: int
    totals: NDArray[np.float64]
    parts: dict[str, NDArray[Any]] = field(default_factory=dict)
    scaling_layer: dict[str, NDArray[Any]] = field(default_factory=dict)


class Plan(Protocol):
    """The updates of one training, or of several of one shape, with everything that they need allocated once.

    An update takes ``update_size`` rows of the epoch's order, in parts of at most ``part_size``. Where a method takes
    or returns something for each training, the order is that of the updates given to `begin_epoch`.
    """

    @property
    def name(self) -> str:
        """The path: "steps", "fused", "joint", "block", "graph" or "streamed"."""
        ...

    @property
    def reason(self) -> str:
        """One sentence that says which path this is and why, for a user to read."""
        ...

    @property
    def updates_of_call(self) -> int:
        """The updates that one call of `run` makes without losing speed, in at most some tenths of a second.

        A caller that wants to look around at update boundaries makes this many, or a multiple of them, in each call.
        """
        ...

    @property
    def threads(self) -> int | None:
        """The number of BLAS's threads, where results depend on it; None if no number has been chosen."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Return the context in which the caller runs this plan and validates: it limits the threads of BLAS."""
        ...

    def begin_epoch(self, *updates: EpochUpdates) -> None:
        """Begin an epoch; `updates` has one entry for each training that has not ended yet."""
        ...

    def run(self, first: int, last: int) -> None:
        """Make the updates `first` to `last` - 1 of the epoch, counted from 0; each once, in order.

        The network's arrays have the new parameters once `totals`, `state` or `places` has been called, or at once if
        the training is watched.
        """
        ...

    def totals(self) -> NDArray[np.float64]:
        """Return the sums over the epoch so far, (n_trainings, 2): weighted loss, penalties included, and score.

        A plan for several trainings returns a row of NaN for a training that it has left as it was, because that one
        is faster alone or has met a number that is not finite.
        """
        ...

    def state(self) -> tuple[TrainingState, ...]:
        """Return a copy of everything that the remaining updates of the epoch depend on; at any update boundary."""
        ...

    def restore(self, *states: TrainingState) -> None:
        """Continue from states that a plan of any kind returned; call `begin_epoch` of the same epoch first."""
        ...

    def rewind(self, *places: int) -> None:
        """Restore the optimizers' memory to what it was at the beginning of the epoch.

        `places` counts the updates given to `begin_epoch` from 0; without any, all of them are meant.
        """
        ...

    def places(self) -> Iterator[tuple[str, Array]]:
        """Yield what the last update left, in the order of the algorithm: a name for messages, and an array."""
        ...


class Renewable(ABC):
    """What a `Plan` has beside, if a later training of the same network may take it over with all its arrays."""

    @property
    @abstractmethod
    def n_bytes(self) -> int:
        """The bytes of its arrays."""

    @abstractmethod
    def release(self) -> None:
        """Let the training and its data go, which has ended; the plan makes no updates until it is renewed."""

    @abstractmethod
    def renew(self, training: Training, want: str) -> bool:
        """Make the updates of another training from now on, if a new plan for it would be equal to this one.

        Parameters
        ----------
        training : Training
        want : str
            "auto", or the name of a path.

        Returns
        -------
        bool
            False if that training needs another plan.
        """


class CountedLaunches(ABC):
    """What a `Plan` has beside, if it makes updates by launches of kernels that it can count."""

    @abstractmethod
    def launches(self) -> dict[str, tuple[int, int]]:
        """Return how often an epoch launches each kernel, and the bytes that these launches must move at least."""


class SharedBuffer(ABC):
    """What a `Plan` for several trainings has beside, if it keeps the parameters of their networks in one buffer."""

    @abstractmethod
    def host_parameters(self) -> list[NDArray[Any] | None]:
        """Return the parameters of each training of the epoch on the host, without padding, by one copy for all.

        The entry of a training that makes its own updates is None.
        """

    @abstractmethod
    def release(self) -> None:
        """Give each network arrays of its own again; the trainings have ended."""


class Backend(Ops, Protocol):
    """The primitives of a device, and the choice of how updates are made there."""

    def in_precision(self, precision: str, *, emulate: bool = False) -> Backend:
        """Return the backend of this device whose products have a precision; this one if they have it already.

        Parameters
        ----------
        precision : str
            One of `gpuprop.core.precision.PRECISIONS`.
        emulate : bool, default=False
            Whether a device without the instructions may round the operands by itself and multiply in float32.

        Raises
        ------
        BackendUnavailableError
            If the device has no such products and does not emulate them; the message says why.
        """
        ...

    def plan(self, trainings: Sequence[Training], *, want: str = "auto") -> Plan:
        """Choose how the updates of a training, or of several of one shape, are made.

        Parameters
        ----------
        trainings : sequence of Training
            Of one shape, see `Training.shape`.
        want : str, default="auto"
            "auto", or the name of a path.

        Raises
        ------
        ValueError
            If no path has that name.
        PlanError
            If that path cannot serve these trainings, or several trainings cannot share their updates; it says why.
        """
        ...
