"""Learning-rate schedules: the rate of every update.

A schedule is a pure function of where the training stands. It returns the rates of a whole epoch at once, so that
a device gets them in one transfer and a resumed run gets the same ones.

In the formulas lr is the learning rate given to the training, s the number of updates before this one since the
beginning, S the number of updates planned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gpuprop.errors import unknown_name
from gpuprop.maths.hyperparameters import check_hyperparameters, hyperparameter

__all__ = [
    "SCHEDULES",
    "Adaptive",
    "Constant",
    "CosLog",
    "Cosine",
    "Exponential",
    "FlatCosine",
    "InvScaling",
    "OneCycle",
    "Position",
    "Schedule",
    "Warmup",
    "get_schedule",
]

Rates = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Position:
    """Where a training stands before an epoch.

    Attributes
    ----------
    epoch : int
        The coming epoch, from 0.
    step : int
        Updates done so far.
    steps_per_epoch : int
        Updates of an epoch.
    epochs : int
        How many epochs are planned.
    batch_size : int
        Samples of an update.
    n_samples : int
        Samples of an epoch.
    train_losses : sequence of float
        The training loss of each epoch so far.

    Examples
    --------
    >>> from gpuprop.schedules import Cosine, Position
    >>> last = Position(epoch=9, step=1000, steps_per_epoch=100, epochs=10, batch_size=32, n_samples=3200)
    >>> bool(Cosine().rates(1.0, last)[-1] < 0.01)
    True
    """

    epoch: int
    step: int
    steps_per_epoch: int
    epochs: int
    batch_size: int
    n_samples: int
    train_losses: Sequence[float] = ()

    @property
    def planned_steps(self) -> int:
        """S, the number of updates planned."""
        return self.epochs * self.steps_per_epoch

    def steps(self) -> Rates:
        """Return s for every update of the coming epoch, shape (steps_per_epoch,).

        Counted by epochs: a second fit that goes on with the optimizer's steps starts its schedule anew.
        """
        return np.arange(self.steps_per_epoch, dtype=np.float64) + self.epoch * self.steps_per_epoch


@dataclass(frozen=True)
class Schedule(ABC):
    """Base class of the schedules; one of your own defines ``name`` and :meth:`rates`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> import gpuprop
    >>> @dataclass(frozen=True)
    ... class Halves(gpuprop.schedules.Schedule):
    ...     name = "halves"
    ...
    ...     def rates(self, learning_rate, position):
    ...         return np.full(position.steps_per_epoch, learning_rate * 0.5**position.epoch)
    >>> trainer = gpuprop.Trainer(gpuprop.Network((2, 4, 1), seed=0), schedule=Halves())
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_hyperparameters(self)

    @abstractmethod
    def rates(self, learning_rate: float, position: Position) -> Rates:
        """Return the rate of every update of the coming epoch.

        Parameters
        ----------
        learning_rate : float
            The rate that the schedule varies.
        position : Position
            Where the training stands.

        Returns
        -------
        ndarray of shape (steps_per_epoch,), float64
        """


@dataclass(frozen=True)
class Constant(Schedule):
    """The learning rate as it is: ``lr``.

    Examples
    --------
    >>> from gpuprop.schedules import Position, Constant
    >>> halfway = Position(epoch=5, step=500, steps_per_epoch=100, epochs=10, batch_size=32, n_samples=3200)
    >>> float(Constant().rates(1.0, halfway)[0])
    1.0
    """

    name = "constant"

    def rates(self, learning_rate: float, position: Position) -> Rates:
        """Return the rate of every update of the coming epoch."""
        return _flat(learning_rate, position)


@dataclass(frozen=True)
class InvScaling(Schedule):
    """Inverse scaling: ``lr / (t + 1)^power_t``, t being the samples seen before the epoch.

    The rate changes between epochs only, as in scikit-learn (``SGDOptimizer.iteration_ends``).

    Parameters
    ----------
    power_t : float, default=0.5
        0 or more.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    Examples
    --------
    >>> from gpuprop.schedules import Position, InvScaling
    >>> halfway = Position(epoch=5, step=500, steps_per_epoch=100, epochs=10, batch_size=32, n_samples=3200)
    >>> 0 < float(InvScaling().rates(1.0, halfway)[0]) < 1
    True
    """

    power_t: float = hyperparameter(0.5, "[0, inf)")

    name = "invscaling"

    def rates(self, learning_rate: float, position: Position) -> Rates:
        """Return the rate of every update of the coming epoch."""
        samples_seen = position.epoch * position.n_samples
        return _flat(learning_rate / (samples_seen + 1) ** self.power_t, position)


@dataclass(frozen=True)
class Adaptive(Schedule):
    """The rate is divided by ``factor`` whenever ``patience`` epochs in a row fail to lower the training loss.

    An epoch fails if its loss is above the lowest one before it, less ``tol``. The count starts anew after a
    division. As in scikit-learn, whose documentation speaks of two epochs and whose code waits for
    ``n_iter_no_change + 1``; like there, a rate of ``smallest_rate`` or less is not divided (scikit-learn stops
    the training then).

    Parameters
    ----------
    tol : float, default=1e-4
        The least improvement that counts; 0 or more.
    patience : int, default=2
        Epochs that must fail, 1 or more.
    factor : float, default=5.0
        Above 1.
    smallest_rate : float, default=1e-6
        0 or more.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    Examples
    --------
    >>> import gpuprop
    >>> network = gpuprop.Network((2, 4, 1), seed=0)
    >>> trainer = gpuprop.Trainer(network, schedule=gpuprop.schedules.Adaptive(patience=3))
    """

    tol: float = hyperparameter(1e-4, "[0, inf)")
    patience: int = hyperparameter(2, "[1, inf)")
    factor: float = hyperparameter(5.0, "(1, inf)")
    smallest_rate: float = hyperparameter(1e-6, "[0, inf)")

    name = "adaptive"

    def rates(self, learning_rate: float, position: Position) -> Rates:
        """Return the rate of every update of the coming epoch."""
        rate, lowest, failures = learning_rate, float("inf"), 0
        for loss in position.train_losses:
            failures = 0 if loss <= lowest - self.tol else failures + 1
            lowest = min(lowest, loss)
            if failures == self.patience:
                failures = 0
                if rate > self.smallest_rate:
                    rate /= self.factor
        return _flat(rate, position)


@dataclass(frozen=True)
class Exponential(Schedule):
    """Exponential decay: ``lr * gamma^epoch``, epochs counted from 0.

    Parameters
    ----------
    gamma : float, default=0.95
        In (0, 1].

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    Examples
    --------
    >>> from gpuprop.schedules import Position, Exponential
    >>> halfway = Position(epoch=5, step=500, steps_per_epoch=100, epochs=10, batch_size=32, n_samples=3200)
    >>> round(float(Exponential(0.9).rates(1.0, halfway)[0]), 5)
    0.59049
    """

    gamma: float = hyperparameter(0.95, "(0, 1]")

    name = "exponential"

    def rates(self, learning_rate: float, position: Position) -> Rates:
        """Return the rate of every update of the coming epoch."""
        return _flat(learning_rate * self.gamma**position.epoch, position)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Cosine annealing: ``lr * (f + (1 - f) * (1 + cos(pi * s / S)) / 2)`` with f = ``min_fraction``.

    It falls at every update, from lr towards ``f * lr``, which it would reach at s = S and keeps from there on.

    Parameters
    ----------
    min_fraction : float, default=0.0
        In [0, 1].

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    I. Loshchilov and F. Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, arXiv:1608.03983,
    equation 5, without restarts.

    Examples
    --------
    >>> from gpuprop.schedules import Position, Cosine
    >>> halfway = Position(epoch=5, step=500, steps_per_epoch=100, epochs=10, batch_size=32, n_samples=3200)
    >>> round(float(Cosine().rates(1.0, halfway)[0]), 3)
    0.5
    """

    min_fraction: float = hyperparameter(0.0, "[0, 1]")

    name = "cosine"

    def rates(self, learning_rate: float, position: Position) -> Rates:
        """Return the rate of every update of the coming epoch."""
        done = np.minimum(position.steps() / position.planned_steps, 1.0)
        return _cosine_between(learning_rate, learning_rate * self.min_fraction, done)


@dataclass(frozen=True)
class CosLog(Schedule):
    """Cosine cycles that grow longer: ``lr * (1 - cos(2 pi log2(1 + (2^c - 1) s / S))) / 2`` with c = ``cycles``.

    Each of the c cycles rises from 0 to lr and falls to 0 again, and takes twice as long as the one before it.

    Parameters
    ----------
    cycles : int, default=4
        1 or more.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    D. Holzmueller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on tabular
    data", NeurIPS 2024, arXiv:2407.04491, section 3; there it is called coslog4.

    Examples
    --------
    >>> from gpuprop.schedules import Position, CosLog
    >>> halfway = Position(epoch=5, step=500, steps_per_epoch=100, epochs=10, batch_size=32, n_samples=3200)
    >>> 0 <= float(CosLog().rates(1.0, halfway)[0]) <= 1
    True
    """

    cycles: int = hyperparameter(4, "[1, 30]")

    name = "coslog"

    def rates(self, learning_rate: float, position: Position) -> Rates:
        """Return the rate of every update of the coming epoch."""
        done = np.minimum(position.steps() / position.planned_steps, 1.0)
        turns = np.log2(1.0 + (2.0**self.cycles - 1.0) * done)
        return learning_rate * 0.5 * (1.0 - np.cos(2.0 * np.pi * turns))


@dataclass(frozen=True)
class FlatCosine(Schedule):
    """The rate as it is for half of the training, and then half a cosine down to 0.

    ``lr`` up to s = S / 2, and ``lr * (1 + cos(pi * (2 s / S - 1))) / 2`` from there on.

    References
    ----------
    D. Holzmueller, L. Grinsztajn, I. Steinwart, arXiv:2407.04491, section 3; there it is called flat_cos.

    Examples
    --------
    >>> from gpuprop.schedules import Position, FlatCosine
    >>> halfway = Position(epoch=5, step=500, steps_per_epoch=100, epochs=10, batch_size=32, n_samples=3200)
    >>> float(FlatCosine().rates(1.0, halfway)[0])
    1.0
    """

    name = "flat_cosine"

    def rates(self, learning_rate: float, position: Position) -> Rates:
        """Return the rate of every update of the coming epoch."""
        done = np.minimum(position.steps() / position.planned_steps, 1.0)
        return _cosine_between(learning_rate, 0.0, np.maximum(1.0, 2.0 * done) - 1.0)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """One cycle: half a cosine up from ``lr / initial_divisor`` to lr, half a cosine down to nearly nothing.

    The top is at ``s = rising_fraction * S - 1``; the last update has ``lr / initial_divisor / final_divisor``.
    The shape and the defaults are those of PyTorch's ``OneCycleLR``, where lr is called ``max_lr``; momentum is
    not cycled. A training too short to rise begins at the top.

    Parameters
    ----------
    rising_fraction : float, default=0.3
        The part of the training that rises, in (0, 1).
    initial_divisor : float, default=25.0
        1 or more.
    final_divisor : float, default=1e4
        1 or more.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    L. N. Smith, "A disciplined approach to neural network hyper-parameters: part 1", 2018, arXiv:1803.09820;
    L. N. Smith and N. Topin, "Super-convergence", 2018, arXiv:1708.07120.

    Examples
    --------
    >>> from gpuprop.schedules import Position, OneCycle
    >>> halfway = Position(epoch=5, step=500, steps_per_epoch=100, epochs=10, batch_size=32, n_samples=3200)
    >>> 0 < float(OneCycle().rates(1.0, halfway)[0]) < 1
    True
    """

    rising_fraction: float = hyperparameter(0.3, "(0, 1)")
    initial_divisor: float = hyperparameter(25.0, "[1, inf)")
    final_divisor: float = hyperparameter(1e4, "[1, inf)")

    name = "one_cycle"

    def rates(self, learning_rate: float, position: Position) -> Rates:
        """Return the rate of every update of the coming epoch."""
        initial = learning_rate / self.initial_divisor
        last = position.planned_steps - 1.0
        top = max(self.rising_fraction * position.planned_steps - 1.0, 0.0)
        steps = np.minimum(position.steps(), last)
        # A training of a few steps has its top, or its end, at 0: then the phase has no length to divide by.
        rising = _cosine_between(initial, learning_rate, steps / (top or 1.0))
        falling = _cosine_between(learning_rate, initial / self.final_divisor, (steps - top) / (last - top or 1.0))
        return np.where(steps < top, rising, falling)


@dataclass(frozen=True)
class Warmup(Schedule):
    """Linear warm-up: ``lr * (s + 1) / W`` for the W updates of the first epochs, then another schedule.

    The other schedule begins where the warm-up ends: its epoch 0 is the epoch after it, and it is given the
    epochs that remain.

    Parameters
    ----------
    warmup_epochs : int, default=1
        1 or more.
    then : Schedule, default=Constant()
        What follows.

    Raises
    ------
    ValueError
        If a hyperparameter is out of its range.

    References
    ----------
    P. Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017, arXiv:1706.02677,
    section 2.2.

    Examples
    --------
    >>> from gpuprop.schedules import Position, Warmup
    >>> halfway = Position(epoch=5, step=500, steps_per_epoch=100, epochs=10, batch_size=32, n_samples=3200)
    >>> float(Warmup(2).rates(1.0, halfway)[0])
    1.0
    """

    warmup_epochs: int = hyperparameter(1, "[1, inf)")
    then: Schedule = field(default_factory=Constant)

    name = "warmup"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.then, Schedule):
            raise ValueError(f"Warmup got then={self.then!r}, expected a schedule; pass one, such as Cosine()")

    def rates(self, learning_rate: float, position: Position) -> Rates:
        """Return the rate of every update of the coming epoch."""
        warmup_steps = self.warmup_epochs * position.steps_per_epoch
        if position.epoch < self.warmup_epochs:
            return learning_rate * (position.steps() + 1.0) / warmup_steps
        after = replace(
            position,
            epoch=position.epoch - self.warmup_epochs,
            step=position.step - warmup_steps,
            epochs=position.epochs - self.warmup_epochs,
            train_losses=position.train_losses[self.warmup_epochs :],
        )
        return self.then.rates(learning_rate, after)


#: The schedules by name.
SCHEDULES: dict[str, type[Schedule]] = {
    kind.name: kind
    for kind in (Constant, InvScaling, Adaptive, Exponential, Cosine, CosLog, FlatCosine, OneCycle, Warmup)
}


def get_schedule(schedule: str | Schedule | None) -> Schedule:
    """Return a schedule by its name, with default hyperparameters; ``None`` is constant, an instance itself.

    Hyphens and underscores do not count: "one-cycle" and "warm-up" are known too.

    Raises
    ------
    ValueError
        If there is no schedule of that name; the message suggests the nearest one.

    Examples
    --------
    >>> from gpuprop.schedules import get_schedule
    >>> get_schedule("cosine")
    Cosine(min_fraction=0.0)
    """
    if isinstance(schedule, Schedule):
        return schedule
    if schedule is None:
        return Constant()
    for name, kind in SCHEDULES.items():
        if _plain(name) == _plain(schedule):
            return kind()
    raise unknown_name("schedule", schedule, SCHEDULES)


def _plain(name: object) -> str:
    return str(name).lower().replace("-", "").replace("_", "")


def _flat(rate: float, position: Position) -> Rates:
    """Return one rate for the whole epoch."""
    return np.full(position.steps_per_epoch, rate, dtype=np.float64)


def _cosine_between(start: float, end: float, done: Rates) -> Rates:
    """Go from ``start`` at ``done`` = 0 to ``end`` at 1 along half a cosine."""
    return end + (start - end) * 0.5 * (1.0 + np.cos(np.pi * done))
