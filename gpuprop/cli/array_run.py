"""``gpuprop train`` on arrays of numbers: built-in data, NPY, NPZ and IDX, by the recipes of `training.recipes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuprop.cli.options import OptionError, parse_arrays, parse_list, wrong_options

if TYPE_CHECKING:
    from gpuprop.backends import Choice
    from gpuprop.cli.runs import ArrayRun
    from gpuprop.training.trainer import Trainer

__all__ = ["array_run"]

#: The options that only tables have.
_OF_TABLES = ("drop", "categorical", "numeric", "date", "na", "preset")


def array_run(options: Mapping[str, Any]) -> tuple[ArrayRun, Choice]:
    """Return the training that the options of ``gpuprop train`` describe, and the device that was chosen for it."""
    from gpuprop.cli.runs import ArrayRun
    from gpuprop.training.from_recipe import network_for, plain_seconds_of, trainer_for
    from gpuprop.training.parts import Source, train_and_test_parts
    from gpuprop.training.placement import device_for_training
    from gpuprop.training.recipes import recipe_for

    data, header, arrays = options["data"], options["header"], parse_arrays(options["arrays"])
    for name in _OF_TABLES:
        if options[name] is not None:
            raise OptionError(f"got --{name} for {data}, which is no table: only CSV, Parquet and OpenML have columns")
    dataset = Source(data, options["target"], options["labels"], header, arrays).load(options["task"])
    test = None if options["test"] is None else Source(options["test"], options["target"], None, header, arrays)
    train_part, test_part = train_and_test_parts(dataset, test, options["test_fraction"], options["seed"])
    guessed = False
    if Path(data).suffix.lower() == ".npy":  # its columns have no names, so a file of the model names the place
        guessed, n_columns = options["target"] is None, dataset.X.shape[1] + 1
        place = int(options["target"] or -1) % n_columns
        notes = ("The last column was taken for the target; --target names another.",) if guessed else ()
        dataset = replace(dataset, target_name=f"column {place + 1}", notes=(*dataset.notes, *notes))
    with wrong_options():
        recipe = recipe_for(data, train_part[0], options["batch_size"]).with_options(options)
        chosen = device_for_training(options["device"], plain_seconds_of(dataset, train_part, recipe), options["plan"])
        metrics, monitor = parse_list(options["metric"]), options["monitor"]

        def trainer_of(seed: int) -> Trainer:
            network = network_for(
                dataset,
                train_part,
                recipe,
                loss=options["loss"],
                seed=seed,
                device=chosen.device,
                precision=options["precision"],
                emulate=options["emulate"],
            )
            return trainer_for(
                network, recipe, len(train_part[0]), plan=options["plan"], metrics=metrics, monitor=monitor
            )

        trainer = trainer_of(options["seed"])
    return ArrayRun(dataset, train_part, test_part, trainer, recipe, guessed, trainer_of), chosen
