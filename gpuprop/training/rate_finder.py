"""The rate finder: which learning rates a network learns at, from one short training whose rate grows."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.backends.devices import plan as choose_plan
from gpuprop.errors import check_integer, check_real
from gpuprop.maths.schedules import Constant
from gpuprop.training.beginning import begin
from gpuprop.training.epoch_updates import updates_of
from gpuprop.training.records import Progress
from gpuprop.training.sources import restore_sources, sources_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuprop.training.run import Run

    Curve = NDArray[np.float64]

__all__ = ["RateSearch", "find_learning_rate", "probe_of", "steepest_descent", "valley"]

#: The share of the old value in a smoothed loss, and how many times the lowest smoothed loss is a divergence; both are
#: those of fastai and Lightning.
_SMOOTHING, _DIVERGED = 0.98, 4.0


@dataclass(frozen=True, eq=False)
class RateSearch:
    """What `find_learning_rate` has found.

    Attributes
    ----------
    rates : ndarray of shape (n_updates,)
        The rate of each update, growing by a constant factor.
    losses, smoothed : ndarray of shape (n_updates,)
        The loss of each batch before its update, and its running mean.
    """

    rates: Curve
    losses: Curve
    smoothed: Curve

    @property
    def valley(self) -> float:
        """The rate that fastai suggests: in the middle of the longest descent, see `valley`."""
        return valley(self.rates, self.smoothed)

    @property
    def steepest(self) -> float:
        """The rate that Lightning suggests: where the loss falls fastest, see `steepest_descent`."""
        return steepest_descent(self.rates, self.smoothed)

    def __repr__(self) -> str:
        return (
            f"RateSearch(valley={self.valley:.3g}, steepest={self.steepest:.3g}; {len(self.rates)} updates from "
            f"{self.rates[0]:.3g} to {self.rates[-1]:.3g})"
        )


def find_learning_rate(
    trainer: Any,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    start: float = 1e-7,
    end: float = 10.0,
    n_updates: int = 100,
) -> RateSearch:
    """Train a copy of the network for some updates, at rates that grow from `start` to `end`, and watch the loss.

    Network and trainer stay as they are, bit for bit. All settings of the trainer count but its learning rate and
    schedule: with a schedule that rises and falls, such as "one-cycle", what is found is its highest rate. The search
    ends early where the smoothed loss is four times its lowest value, or no number any more.

    Parameters
    ----------
    trainer : Trainer
    X, y, sample_weight
        As for ``Trainer.fit``.
    start, end : float, default=1e-7, 10.0
    n_updates : int, default=100

    Returns
    -------
    RateSearch
        ``found.valley`` and ``found.steepest`` are suggestions; ``gpuprop.plots.learning_rates(found)`` draws them.

    Raises
    ------
    ValueError
        If the data do not fit, or the range is none.

    References
    ----------
    L. N. Smith, "Cyclical learning rates for training neural networks", WACV 2017, arXiv:1506.01186.

    Examples
    --------
    >>> import gpuprop
    >>> data = gpuprop.datasets.load("digits")
    >>> network = gpuprop.Network((64, 32, 10), loss="categorical_cross_entropy", seed=0)
    >>> trainer = gpuprop.Trainer(network, batch_size=32)
    >>> found = gpuprop.find_learning_rate(trainer, data.X / 16, data.y)
    >>> 1e-4 < found.valley < 1
    True
    >>> trainer.learning_rate = found.valley
    """
    start = check_real("start", start, 0.0, open_minimum=True)
    end = check_real("end", end, start, open_minimum=True)
    n_updates = check_integer("n_updates", n_updates, 20)
    rates = start * (end / start) ** (np.arange(n_updates) / (n_updates - 1))
    sources = sources_of(trainer)
    try:
        probe = probe_of(trainer)
        probe.schedule, probe.learning_rate = Constant(), 1.0
        run = begin(probe, (X, y, sample_weight), Progress(0, 0, {}, {}), None)
        # An overflow is how the search often ends.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            losses = _losses(probe, run, rates)
    finally:
        restore_sources(trainer, sources)
    smoothed = _smoothed(losses)
    lowest = np.minimum.accumulate(smoothed)
    bad = np.flatnonzero(~np.isfinite(smoothed) | (smoothed > _DIVERGED * lowest))
    made = int(bad[0]) if len(bad) else len(smoothed)
    return RateSearch(rates[:made], losses[:made], smoothed[:made])


def probe_of(trainer: Any) -> Any:
    """Return a copy of the trainer with a copy of the network, which writes nothing and tells nobody."""
    probe: Any = copy.copy(trainer)
    probe.network = trainer.network.copy_to(trainer.network.ops)
    probe.callbacks, probe.checkpoint = [], None
    probe.epochs_done = probe.steps_done = 0
    probe.history = {}
    return probe


def _losses(probe: Any, run: Run, rates: Curve) -> Curve:
    """Return the loss of the batch of each update, until one is no number or far above the lowest."""
    plan = choose_plan([run.training], want="steps")
    losses: list[float] = []
    with plan.active():
        for epoch in range(-(-len(rates) // run.training.updates_of_epoch)):
            updates = updates_of(probe, run.training, min(epoch, probe.epochs - 1), 1.0)
            own = np.ones_like(updates.rates)
            left = rates[len(losses) :][: len(own)]
            own[: len(left)] = left
            decays = None if updates.decays is None else updates.decays * own
            plan.begin_epoch(replace(updates, rates=own, decays=decays, steps_done=probe.steps_done))
            before = 0.0
            for update in range(len(left)):
                plan.run(update, update + 1)
                total = float(plan.totals()[0, 0])
                weight = float(updates.weights[update])
                losses.append((total - before) / weight if weight else math.nan)
                before = total
                if not math.isfinite(total) or losses[-1] > 1e3 * _DIVERGED * max(min(losses), 1e-12):
                    return np.array(losses)
            probe.steps_done += len(own)
    return np.array(losses)


def _smoothed(losses: Curve) -> Curve:
    """Return the running means of losses, which begin without a bias towards 0."""
    means, mean = [], 0.0
    for count, loss in enumerate(losses, start=1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * float(loss)
        means.append(mean / (1 - _SMOOTHING**count))
    return np.array(means)


def valley(rates: Curve, smoothed: Curve) -> float:
    """Return the rate in the middle third of the longest descent: the default suggestion of fastai's ``lr_find``.

    The descent is a longest decreasing subsequence of the smoothed losses, without the first tenth and the last five.

    Examples
    --------
    >>> import numpy as np
    >>> rates = np.geomspace(1e-6, 1, 61)
    >>> round(valley(rates, (np.log10(rates) + 2) ** 2), 6)
    0.000126
    """
    first = len(rates) // 10
    kept = smoothed[first : max(len(rates) - 5, first + 1)]
    lengths = np.ones(len(kept), int)
    for i in range(1, len(kept)):
        above = lengths[:i][kept[:i] > kept[i]]
        lengths[i] = 1 + (above.max() if len(above) else 0)
    last = int(lengths.argmax())
    begin = last - int(lengths[last])
    third = (last - begin) / 3
    return float(rates[first + max(0, begin + int(third) + int(third / 2))])


def steepest_descent(rates: Curve, smoothed: Curve) -> float:
    """Return the rate at which the smoothed loss falls fastest: the suggestion of Lightning's ``Tuner.lr_find``.

    The slope is taken over the logarithm of the rate, without the first ten updates and the last one.
    """
    first = min(10, len(rates) - 3)
    kept = smoothed[first:-1]
    if first < 0 or len(kept) < 2:
        return float(rates[0])
    return float(rates[first + int(np.gradient(kept).argmin())])
