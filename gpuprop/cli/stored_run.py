"""``gpuprop train`` on a folder, whose rows stay on disk: Parquet, NPZ, or ``X.npy`` with ``y.npy``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuprop.cli.options import OptionError, parse_list, wrong_options
from gpuprop.cli.runs import ArrayRun
from gpuprop.training.targets import StandardisedTargets

if TYPE_CHECKING:
    from gpuprop.backends import Choice
    from gpuprop.datasets import Dataset, StoredRows
    from gpuprop.training.profiling import Profile
    from gpuprop.training.recipes import Recipe
    from gpuprop.training.trainer import Trainer

__all__ = ["stored_run"]

#: Options that need all rows in memory, or that only tables have.
_NOT_HERE = ("drop", "categorical", "numeric", "date", "na", "preset", "header", "arrays")
#: The shares that are held out, and the most rows of them, where no share is given.
_TEST, _VALIDATION, _MOST_ROWS = 0.1, 0.05, 20_000


def stored_run(options: Mapping[str, Any]) -> tuple[ArrayRun, Choice]:
    """Return the training that the options of ``gpuprop train`` describe, and the device that was chosen for it."""
    from gpuprop import datasets
    from gpuprop.training.from_recipe import network_for, trainer_for
    from gpuprop.training.placement import device_for_training, plain_seconds
    from gpuprop.training.recipes import recipe_for

    data, seed = options["data"], options["seed"]
    for name in _NOT_HERE:
        if options[name] is not None:
            raise OptionError(f"got --{name} for the folder {data}, whose rows stay on disk: it has no such option")
    megabytes = options.get("memory")
    memory = {} if megabytes is None else {"memory": megabytes * 2**20}
    rows = datasets.open(data, target=options["target"], labels=options["labels"], task=options["task"], **memory)
    if options["test"] is None:
        share = options["test_fraction"] or min(_TEST, _MOST_ROWS / rows.n_samples)
        rows, test_part = rows.held_out(share, seed, purpose=2)
    else:
        test_part = datasets.load_test(
            options["test"], classes=rows.classes, n_features=rows.n_features, target=options["target"]
        )
    X, y = rows.read(0)
    dataset = datasets.Dataset(
        Path(data).resolve().name,
        X,
        y,
        rows.task,
        classes=rows.classes,
        feature_names=rows.feature_names,
        target_name=rows.target_name,
    )
    with wrong_options():
        recipe = recipe_for(data, X, options["batch_size"], n_rows=rows.n_samples)
        given = dict(options)
        if options["validation_fraction"] is None:
            given["validation_fraction"] = min(_VALIDATION, _MOST_ROWS / rows.n_samples)
        recipe = recipe.with_options(given)
        sizes = (rows.n_features, *recipe.hidden, len(rows.classes or [0]))
        seconds = plain_seconds(sizes, recipe.batch_size, -(-rows.n_samples // recipe.batch_size) * recipe.epochs)
        chosen = device_for_training(options["device"], seconds, options["plan"])
        network = network_for(
            dataset,
            (X, y),
            recipe,
            loss=options["loss"],
            seed=seed,
            device=chosen.device,
            precision=options["precision"],
            emulate=options["emulate"],
            statistics=rows.statistics if recipe.scale == "standard" else None,
        )
        metrics, monitor = parse_list(options["metric"]), options["monitor"]
        trainer = trainer_for(network, recipe, rows.n_samples, plan=options["plan"], metrics=metrics, monitor=monitor)
    return StoredRun(dataset, rows, test_part, trainer, recipe), chosen


class StoredRun(ArrayRun):
    """The training of a network on rows that stay on disk.

    Parameters
    ----------
    dataset : Dataset
        With a few of the rows.
    rows : StoredRows
    test_part : tuple (X, y)
    trainer : Trainer
    recipe : Recipe
    """

    def __init__(self, dataset: Dataset, rows: StoredRows, test_part: Any, trainer: Trainer, recipe: Recipe) -> None:
        super().__init__(dataset, (dataset.X, dataset.y), test_part, trainer, recipe, target_guessed=False)
        self._rows = rows

    def find_rate(self) -> float:
        """Refuse to try rates."""
        raise OptionError("got --lr find for rows that stay on disk, expected a number")

    def profile(self) -> Profile:
        """Refuse to take an epoch apart."""
        raise OptionError("got --profile for rows that stay on disk; profile a part of them that is in memory")

    def check_networks(self) -> None:
        """Refuse further trainings."""
        raise OptionError("got --networks for rows that stay on disk; it takes a part of them that is in memory")

    @property
    def _n_rows(self) -> int:
        return self._rows.n_samples

    def _training_data(self) -> tuple[StandardisedTargets, tuple[Any, ...]]:
        targets = StandardisedTargets.of(self.trainer.network, self._train_part[1])
        if targets.mean is None:
            return targets, (self._rows,)
        rows, mean, deviation = self._rows.standardised()
        return StandardisedTargets(targets.values, mean, deviation), (rows,)
