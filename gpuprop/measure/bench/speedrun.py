"""Seconds to a test accuracy of MNIST: a recipe for each mark, and enough seeds to say that their mean meets it.

One seed that meets a mark proves little, as its accuracy varies by chance. A speedrun trains a recipe with one seed
after the other until a t-test of the mean says "above the mark" with p < 0.01, as the speedruns of larger networks do
(K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, arXiv:2404.00498). Who looks again and again
errs more often than who looks once: the k-th look, at twice the seeds of the one before, takes p < 0.01 / 2^k, so
that all looks together say "met" of a mean that is not above the mark in at most 1 % of cases (Bonferroni).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gpuprop.datasets.bundled import load_mnist
from gpuprop.maths.scaling import InputScaling
from gpuprop.model.network import Network
from gpuprop.training.trainer import Trainer

if TYPE_CHECKING:
    from gpuprop.measure.bench.documents import Table

__all__ = [
    "FIRST_LOOK",
    "LEVEL",
    "MARKS",
    "Attempt",
    "Recipe",
    "Verdict",
    "entries",
    "looks",
    "p_value",
    "table",
    "verdict",
]

Attempt = Callable[[int], tuple[float, float]]
"""``attempt(seed)`` returns accuracy and seconds."""

LEVEL = 0.01
"""The most often that a mark is called met though the mean is not above it."""
FIRST_LOOK = 4
"""The seeds of the first look."""


class Recipe(NamedTuple):
    """How a network is trained for a mark, in float32 with Adam, one cycle of the rate, and smoothed labels."""

    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float

    @property
    def name(self) -> str:
        """Such as ``784-512-256-10, 2 epochs``."""
        sizes = "-".join(map(str, (784, *self.hidden, 10)))
        return f"{sizes}, {self.epochs} epoch{'s' if self.epochs > 1 else ''}"


MARKS = {
    0.975: Recipe((512,), 1, 128, 0.005),
    0.980: Recipe((512,), 2, 128, 0.005),
    0.985: Recipe((1024, 512), 3, 128, 0.002),
}
"""A short recipe for each test accuracy; their smoothed labels and one cycle of the rate do most of it."""


class Verdict(NamedTuple):
    """What some accuracies say of a mark.

    Attributes
    ----------
    mean, deviation : float
        Of the accuracies; the deviation is None for a single one.
    p : float or None
        Of the one-sided t-test that the mean is above the mark.
    met : bool
    """

    mean: float
    deviation: float | None
    p: float | None
    met: bool


def p_value(accuracies: Sequence[float], mark: float) -> float:
    """Return how likely so high a mean is, or a higher one, if the true mean is the mark (Student, 1908).

    Examples
    --------
    >>> round(p_value([0.981, 0.982, 0.983], 0.98), 4)
    0.0371
    """
    n, mean, deviation = len(accuracies), statistics.fmean(accuracies), statistics.stdev(accuracies)
    if deviation == 0:
        return 0.0 if mean > mark else 1.0
    from scipy.stats import t

    return float(t.sf((mean - mark) / (deviation / math.sqrt(n)), n - 1))


def looks(most: int) -> list[int]:
    """Return at how many seeds the test is made, if there are at most so many.

    Examples
    --------
    >>> looks(20)
    [4, 8, 16, 20]
    """
    found = [FIRST_LOOK]
    while found[-1] < most:
        found.append(min(2 * found[-1], most))
    return [one for one in found if one <= most]


def verdict(accuracies: Sequence[float], mark: float, level: float = LEVEL) -> Verdict:
    """Return mean, deviation and p of accuracies, and whether p is below `level`."""
    mean = statistics.fmean(accuracies)
    if len(accuracies) < 2:
        return Verdict(mean, None, None, False)
    p = p_value(accuracies, mark)
    return Verdict(mean, statistics.stdev(accuracies), p, p < level)


def run(attempt: Attempt, mark: float, most: int) -> tuple[list[tuple[float, float]], bool]:
    """Make attempts with the seeds 0, 1, 2, ... until the mark is met for certain, or `most` were made.

    Parameters
    ----------
    attempt : callable
    mark : float
    most : int

    Returns
    -------
    attempts : list of (accuracy, seconds)
    met : bool
    """
    made: list[tuple[float, float]] = []
    for place, n in enumerate(looks(most), start=1):
        made += [attempt(seed) for seed in range(len(made), n)]
        if verdict([accuracy for accuracy, _ in made], mark, LEVEL / 2**place).met:
            return made, True
    return made + [attempt(seed) for seed in range(len(made), most)], False


def attempts(recipe: Recipe, device: str) -> Attempt:
    """Return what trains the recipe with a seed; the first call also compiles, which is not timed."""
    (X, y), held_out = load_mnist()

    def trained(seed: int, epochs: int = recipe.epochs) -> tuple[Network, float]:
        network = Network(
            (784, *recipe.hidden, 10),
            loss="categorical_cross_entropy",
            input_scaling=InputScaling.divide(255),
            device=device,
            seed=seed,
        )
        trainer = Trainer(
            network,
            epochs=epochs,
            batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            schedule="one-cycle",
            label_smoothing=0.1,
        )
        began = time.perf_counter()
        trainer.fit(X, y)
        network.ops.synchronize()
        return network, time.perf_counter() - began

    warm = False

    def attempt(seed: int) -> tuple[float, float]:
        nonlocal warm
        if not warm:
            trained(seed, epochs=1)
            warm = True
        network, seconds = trained(seed)
        return network.evaluate(*held_out)[1], seconds

    return attempt


def entries(marks: Sequence[float], device: str, most: int) -> Iterator[dict[str, Any]]:
    """Train for each mark, and yield what was found.

    Parameters
    ----------
    marks : sequence of float
        Of `MARKS`.
    device : str
    most : int
        The most seeds of a mark.
    """
    for mark in marks:
        recipe = MARKS[mark]
        made, met = run(attempts(recipe, device), mark, most)
        accuracies, seconds = [one for one, _ in made], [one for _, one in made]
        found = verdict(accuracies, mark)
        yield {
            "mark": mark,
            "recipe": recipe._asdict() | {"hidden": list(recipe.hidden)},
            "name": recipe.name,
            "seeds": len(made),
            "accuracies": accuracies,
            "seconds": seconds,
            "median_seconds": statistics.median(seconds),
            "mean": found.mean,
            "deviation": found.deviation,
            "p": found.p,
            "met": met,
        }


def table(results: Sequence[dict[str, Any]]) -> Table:
    """Return columns and rows of what `entries` yields."""
    columns = ("mark", "network", "seconds", "seeds", "mean", "deviation", "p", f"met (p < {LEVEL:g})")
    rows = [
        [
            f"{one['mark']:.1%}",
            one["name"],
            f"{one['median_seconds']:.2f}",
            str(one["seeds"]),
            f"{one['mean']:.2%}",
            "" if one["deviation"] is None else f"{one['deviation']:.2%}",
            "" if one["p"] is None else f"{one['p']:.2g}",
            "yes" if one["met"] else "not shown",
        ]
        for one in results
    ]
    return columns, rows, (0, 2, 3, 4, 5, 6)
