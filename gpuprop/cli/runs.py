"""What ``gpuprop train`` trains: a network on arrays, or an estimator on a table; both have what a command needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from copy import copy
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gpuprop.cli.console import print_notes, print_table
from gpuprop.cli.progress import epoch_table, harmless, shown_warnings
from gpuprop.errors import TrainingEnded
from gpuprop.training.callbacks.base import Callback
from gpuprop.training.metrics import falls, measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from gpuprop.cli.progress import EpochTable
    from gpuprop.core.communicator import Communicator
    from gpuprop.datasets import Dataset
    from gpuprop.estimators.columns import Columns
    from gpuprop.estimators.tabular import BaseTabular
    from gpuprop.learn.live.frames import Recorder
    from gpuprop.learn.live.snapshot import LiveRun
    from gpuprop.model.network import Network
    from gpuprop.training.parts import TableParts
    from gpuprop.training.profiling import Profile
    from gpuprop.training.rate_finder import RateSearch
    from gpuprop.training.recipes import Recipe
    from gpuprop.training.run_folder import RunFolder
    from gpuprop.training.targets import StandardisedTargets
    from gpuprop.training.trainer import Trainer

    Part = tuple[NDArray[Any], NDArray[Any]]
    Stop = KeyboardInterrupt | TrainingEnded

__all__ = ["EVERY", "ArrayRun", "Run", "TableRun"]

EVERY = "60s"
"""How often a training writes a checkpoint; see `gpuprop.Checkpoint`."""
_MOST_COLUMNS = 40
"""The most columns of a table that are listed one by one."""
_WATCHED = 500
"""The rows in which `gpuprop watch` looks for mistakes, and of which an animation shows some."""


class Run(Protocol):
    """A training, from its description to its predictions.

    Attributes
    ----------
    name : str
    classes : sequence of labels or None
        None for a regression.
    target_guessed : bool
        Whether nothing but its place made a column the target.
    """

    name: str
    classes: Sequence[Any] | None
    target_guessed: bool

    @property
    def trainer(self) -> Trainer:
        """The trainer, which knows how far the training has come; there once it has begun."""

    @property
    def history(self) -> dict[str, list[Any]]:
        """The columns of the history file."""

    #: What the rate finder has found, if it was asked.
    rate_search: RateSearch | None

    def find_rate(self) -> float:
        """Have the rate finder choose the learning rate, say what it was, and return it."""

    def profile(self) -> Profile:
        """Take an epoch apart, see `gpuprop.training.profiling`."""

    def describe(self, device: str) -> None:
        """Print what is known before the training; `device` is the line about the device."""

    def recorder(self) -> Recorder:
        """Return the callback that records an animation, after a check of the network's size."""

    def divide(self, communicator: Communicator | None, shards: int | None) -> None:
        """Share the training with other processes; see `gpuprop.Trainer`."""

    def fit(self, folder: RunFolder | None, onlookers: Sequence[Callback]) -> Stop | None:
        """Train, or go on from the last checkpoint, and write checkpoints and what `gpuprop watch` shows.

        `onlookers` are further callbacks. Without a folder, another process writes and shows. Return what has ended the
        training early, Ctrl-C or another signal.
        """

    def save(self, path: Path) -> None:
        """Write the model file."""

    def kept(self) -> str:
        """Return which epoch was kept and why, or an empty string if it was the last one."""

    def figures(self) -> dict[str, float | None]:
        """Return the metrics of the test part by their names."""

    def check_networks(self) -> None:
        """Refuse trainings from other seeds, if there can be none."""

    def scores_of(self, seeds: Sequence[int]) -> list[float]:
        """Train like this from other seeds, all together, and return each network's score on the test part."""

    @property
    def held_out(self) -> tuple[Any, NDArray[Any]]:
        """The rows of the test part, and their true targets."""

    @property
    def test_part(self) -> Part:
        """The true targets of the test part, and the predictions, made once; there once the training has ended."""


def pictures(run: Run) -> dict[str, Callable[[], Figure]]:
    """Return the functions that draw the pictures of a run, by the names of their files."""
    from gpuprop.learn import plots
    from gpuprop.training import run_folder

    classes, title, search = run.classes, f"{run.name}: test part", run.rate_search
    found: dict[str, Callable[[], Figure]] = {
        run_folder.LOSS: lambda: plots.loss_curves(run.history, title=f"{run.name}, {shape(run.trainer.network)}")
    }
    if search is not None:
        found[run_folder.RATES] = lambda: plots.learning_rates(search, title=f"{run.name}: rate finder")
    if classes is None:
        found[run_folder.PREDICTIONS] = lambda: plots.predictions(*run.test_part, title=title)
    else:
        found[run_folder.CONFUSION] = lambda: plots.confusion_matrix(*run.test_part, classes, title=title)
    return found


def _chosen_rate(search: RateSearch) -> float:
    """Say what the rate finder suggests, and return the rate of the valley, rounded to three digits."""
    rate = float(f"{search.valley:.3g}")
    print(f"rate finder: valley {search.valley:.3g}, steepest descent {search.steepest:.3g}; {rate:g} is taken")
    return rate


def _best(trainer: Trainer, column: str) -> str:
    return f"{'lowest' if falls(column, trainer.metrics) else 'highest'} {column.replace('_', ' ', 1)}"


def shape(network: Network) -> str:
    """Return the sizes of a network's layers, such as 784-128-10."""
    return "-".join(map(str, network.layer_sizes))


class ArrayRun:
    """The training of a network on arrays of numbers.

    Parameters
    ----------
    dataset : Dataset
    train_part, test_part : tuple (X, y)
    trainer : Trainer
    recipe : Recipe
    target_guessed : bool
    trainer_of : callable or None, default=None
        ``trainer_of(seed) -> Trainer`` makes another one like `trainer`.
    """

    def __init__(
        self,
        dataset: Dataset,
        train_part: Part,
        test_part: Part,
        trainer: Trainer,
        recipe: Recipe,
        target_guessed: bool,
        trainer_of: Callable[[int], Trainer] | None = None,
    ) -> None:
        self._trainer_of = trainer_of
        self.name, self.target_guessed = dataset.name, target_guessed
        self.classes: Sequence[Any] | None = dataset.classes
        self._trainer = trainer
        self._dataset, self._recipe = dataset, recipe
        self._train_part, self._test_part = train_part, test_part

    @property
    def trainer(self) -> Trainer:
        """The trainer."""
        return self._trainer

    @property
    def history(self) -> dict[str, list[Any]]:
        """The columns of the history file."""
        return self.trainer.history

    rate_search: RateSearch | None = None

    def find_rate(self) -> float:
        """Try rates on a copy of the network."""
        from gpuprop.training.rate_finder import find_learning_rate
        from gpuprop.training.targets import StandardisedTargets

        X, y = self._train_part
        targets = StandardisedTargets.of(self.trainer.network, y)
        self.rate_search = find_learning_rate(self.trainer, X, targets.values)
        self.trainer.learning_rate = _chosen_rate(self.rate_search)
        return self.trainer.learning_rate

    def profile(self) -> Profile:
        """Take an epoch of a copy of the network apart."""
        from gpuprop.training.targets import StandardisedTargets

        X, y = self._train_part
        return self.trainer.profile(X, StandardisedTargets.of(self.trainer.network, y).values)

    def describe(self, device: str) -> None:
        """Print data, network, training and device in a few lines."""
        from gpuprop.training.orders import rows_held_out

        n_rows, n_features = self._n_rows, self._train_part[0].shape[1]
        share = self.trainer.validation
        n_validation = rows_held_out(share, n_rows) if isinstance(share, float) else 0
        n_outputs = self.trainer.network.layer_sizes[-1]
        what = f"{len(self.classes)} classes" if self.classes else f"regression, {n_outputs} target(s)"
        if self._dataset.target_name is not None:
            what = f"target {self._dataset.target_name!r}: {what}"
        print(
            f"{self.name}: {n_rows - n_validation:,} rows for training, {n_validation:,} for validation, "
            f"{len(self._test_part[0]):,} for testing; {n_features} features, {what}"
        )
        print_notes(self._dataset.notes)
        more = f"scale {self._recipe.scale}, seed {self.trainer.network.seed}"
        _print_training(self.trainer, self._recipe.schedule, more)
        _print_device(device, self.trainer.network)

    def recorder(self) -> Recorder:
        """Return the callback that records an animation."""
        from gpuprop.learn.live.frames import Recorder

        Recorder.check(self.trainer.network)
        return Recorder(*self._train_part)

    def divide(self, communicator: Communicator | None, shards: int | None) -> None:
        """Share the training with other processes."""
        self.trainer.communicator, self.trainer.shards = communicator, shards

    def fit(self, folder: RunFolder | None, onlookers: Sequence[Callback]) -> Stop | None:
        """Train the network; a regression learns standardised targets, and answers in the units of the data."""
        from gpuprop.learn.live.snapshot import LiveRun
        from gpuprop.training.checkpoint import Checkpoint

        trainer, (X, y) = self.trainer, self._train_part
        table = _table(trainer.network)
        if folder is not None:
            trainer.callbacks += [*_displays(table, LiveRun(folder.staging, X, y)), *onlookers]
        targets, given = self._training_data()
        if targets.mean is not None and targets.deviation is not None:
            trainer.units = targets.mean, targets.deviation
        trainer.checkpoint = Checkpoint(_checkpoints(folder), EVERY, finish=targets.fold)
        stopped: Stop | None = None
        with shown_warnings():
            try:
                trainer.fit(*given, resume_from="auto")
            except (KeyboardInterrupt, TrainingEnded) as end:
                stopped = end
            finally:
                table.close()
        targets.fold(trainer.network)
        return stopped

    @property
    def _n_rows(self) -> int:
        """The rows for training and validation."""
        return len(self._train_part[0])

    def _training_data(self) -> tuple[StandardisedTargets, tuple[Any, ...]]:
        """Return how targets are standardised, and what `Trainer.fit` is given."""
        from gpuprop.training.targets import StandardisedTargets

        X, y = self._train_part
        targets = StandardisedTargets.of(self.trainer.network, y)
        return targets, (X, targets.values)

    def save(self, path: Path) -> None:
        """Write the network."""
        self.trainer.network.save(path)

    def kept(self) -> str:
        """Return which epoch was kept, and why."""
        if self.trainer.best_epoch is None:
            return ""
        watched = "training" if self.trainer.validation is None else "validation"
        return f"the one of the {_best(self.trainer, self.trainer.monitor or f'{watched}_loss')}"

    def figures(self) -> dict[str, float | None]:
        """Return the metrics of the test part by their names."""
        return measured(self.trainer.network, self.trainer.metrics, *self._test_part)

    def check_networks(self) -> None:
        """Arrays in memory train from any seed."""

    def scores_of(self, seeds: Sequence[int]) -> list[float]:
        """Train like this from other seeds, all together, and return each network's score on the test part."""
        from gpuprop.training.scores import report_on
        from gpuprop.training.side_by_side import train_together
        from gpuprop.training.targets import StandardisedTargets

        assert self._trainer_of is not None
        (X, y), trainings = self._train_part, []
        trainers = [self._trainer_of(seed) for seed in seeds]
        targets = [StandardisedTargets.of(trainer.network, y) for trainer in trainers]
        for trainer, own in zip(trainers, targets, strict=True):
            trainer.learning_rate = self.trainer.learning_rate  # which the rate finder may have chosen
            trainings.append(trainer.training(X, own.values))
        _raise_first(train_together(trainings))
        for trainer, own in zip(trainers, targets, strict=True):
            own.fold(trainer.network)
        return [report_on(trainer.network, *self._test_part, self.classes).score for trainer in trainers]

    @property
    def held_out(self) -> tuple[Any, NDArray[Any]]:
        """The rows of the test part, and their true targets."""
        return self._test_part

    @cached_property
    def test_part(self) -> Part:
        """The true targets of the test part, and the network's predictions."""
        X, y = self._test_part
        return y, self.trainer.network.predict(X)


class TableRun:
    """The training of an estimator on a table.

    Parameters
    ----------
    parts : TableParts
    estimator : TabularClassifier or TabularRegressor
        Not fitted.
    columns : Columns
        Those of the rows for training, fitted: they are shown before the training.
    planned : Trainer
        A trainer that differs from the estimator's only in that it will not train: it describes the training.
    """

    def __init__(self, parts: TableParts, estimator: BaseTabular, columns: Columns, planned: Trainer) -> None:
        self.name = parts.name
        self.classes: Sequence[Any] | None = parts.classes
        self.target_guessed = parts.target_guessed
        self._parts, self._estimator, self._columns = parts, estimator, columns
        self._begin = _Begin(parts, planned, estimator.random_state)

    @property
    def trainer(self) -> Trainer:
        """The trainer of the estimator's network; before the training, the one that describes it."""
        return self._begin.trainer

    @property
    def history(self) -> dict[str, list[Any]]:
        """The columns of the history file."""
        history: dict[str, list[Any]] = self._estimator.history_
        return history

    rate_search: RateSearch | None = None

    def find_rate(self) -> float:
        """Try rates on a network like the estimator's."""
        from gpuprop.training.rate_finder import find_learning_rate

        self.rate_search = find_learning_rate(*self._plain())
        rate = _chosen_rate(self.rate_search)
        self._estimator.set_params(learning_rate=rate)
        self.trainer.learning_rate = rate
        return rate

    def profile(self) -> Profile:
        """Take an epoch of a network like the estimator's apart."""
        trainer, X, y = self._plain(self._estimator.device)
        return trainer.profile(X, y)

    def _plain(self, device: str = "numpy") -> tuple[Trainer, NDArray[Any], NDArray[Any]]:
        """Return a trainer like the estimator's, and what the rows for training become."""
        from gpuprop.estimators.tabular import inputs_of
        from gpuprop.training.tabular_presets import network_for_table, trainer_for_table
        from gpuprop.training.targets import mean_and_deviation

        chosen = self._estimator.preset_in_use()
        (frame, y), n_outputs = self._parts.train, len(self.classes or [None])
        X = self._columns.transform(frame)
        if self.classes is None:
            mean, deviation = mean_and_deviation(y)
            y = (y - mean) / deviation
        inputs, seed = inputs_of(self._columns, chosen), self._estimator.random_state
        network = network_for_table(
            chosen,
            inputs,
            n_outputs,
            rows=X,
            seed=seed,
            device=device,
            precision=self._estimator.precision,
            emulate=True,
        )
        return trainer_for_table(chosen, network), X, y

    def describe(self, device: str) -> None:
        """Print the target, what was guessed, and the table of columns."""
        parts, (frame, _) = self._parts, self._parts.train
        n_rows, n_columns = len(frame) + len(parts.test[0]), frame.shape[1]
        columns = "1 column" if n_columns == 1 else f"{n_columns} columns"
        print(f"{self.name}: {n_rows:,} rows, {columns}; target {parts.target_name!r}: {_what(parts.classes)}")
        print_notes(parts.notes)
        _print_columns(self._columns)
        self._begin.device = device

    def recorder(self) -> Recorder:
        """Return the callback that records an animation of the network on the inputs that the columns become."""
        from gpuprop.learn.live.frames import Recorder

        Recorder.check(self.trainer.network)
        return Recorder(*self._watched())

    def divide(self, communicator: Communicator | None, shards: int | None) -> None:
        """Share the training with other processes."""
        self._estimator.divided(communicator, shards)

    def fit(self, folder: RunFolder | None, onlookers: Sequence[Callback]) -> Stop | None:
        """Fit the estimator."""
        from gpuprop.learn.live.snapshot import LiveRun
        from gpuprop.training.checkpoint import Checkpoint

        frame, y = self._parts.train
        table = _table(self.trainer.network)
        callbacks: list[Callback] = [self._begin]
        if folder is not None:
            live = LiveRun(folder.staging, *self._watched(), pictures=False)
            callbacks += [*_displays(table, live), *onlookers]
        estimator = self._estimator.set_params(callbacks=callbacks)
        checkpoints = _checkpoints(folder)
        save = partial(self._save_unfinished, checkpoints)
        estimator.checkpointed(Checkpoint(checkpoints, EVERY, finish=save))
        stopped: Stop | None = None
        with shown_warnings(but_for="training interrupted by the user") as interruptions:
            try:
                estimator.fit(frame, self._parts.labels(y))
            except TrainingEnded as end:
                stopped = end
            finally:
                table.close()
        # As scikit-learn's fits, this one returns after Ctrl-C.
        return KeyboardInterrupt() if interruptions else stopped

    def _save_unfinished(self, folder: Path, network: Network) -> None:
        """Write the model that the training would leave if it ended now."""
        from gpuprop.model.container import MODEL_FILE_NAME

        estimator = copy(self._estimator)
        estimator.networks_, estimator.history_ = [network], self.trainer.history
        estimator.best_epochs_ = [self.trainer.best_epoch or self.trainer.epochs_done]
        folder.mkdir(parents=True, exist_ok=True)  # somebody may have tidied up
        estimator.save(folder / MODEL_FILE_NAME)

    def save(self, path: Path) -> None:
        """Write the estimator."""
        self._estimator.save(path)

    def kept(self) -> str:
        """Return which epoch was kept, and why."""
        keep_best = self.trainer.keep_best
        if keep_best is None:
            return "" if self.trainer.best_epoch is None else "the one of the lowest training loss"
        return f"the last one of the {_best(self.trainer, keep_best)}"

    def figures(self) -> dict[str, float | None]:
        """Return the metrics of the test part by their names, a regression's in the units of the data."""
        estimator, (frame, y) = self._estimator, self._parts.test
        (network,) = estimator.networks_
        inputs, units = estimator.columns_.transform(frame), self.trainer.units
        y = y if units is None else (y.reshape(len(y), -1) - units[0]) / units[1]
        return measured(network, self.trainer.metrics, inputs, y, units=units)

    def check_networks(self) -> None:
        """Tables train from any seed."""

    def scores_of(self, seeds: Sequence[int]) -> list[float]:
        """Train like this from other seeds, all together, and return each network's score on the test part."""
        from gpuprop.estimators.predictors import Rows, TablePredictor
        from gpuprop.training.scores import report_of

        (frame, y), scores = self._parts.test, []
        changed = {"n_networks": len(seeds), "random_state": seeds[0], "callbacks": None}
        several = type(self._estimator)(**self._estimator.get_params(deep=False) | changed)
        several.fit(self._parts.train[0], self._parts.labels(self._parts.train[1]))
        for network in several.networks_:
            one = copy(several)
            one.networks_ = [network]
            scores.append(report_of(y, TablePredictor(one).predict(Rows(frame)), self.classes).score)
        return scores

    @property
    def held_out(self) -> tuple[Any, NDArray[Any]]:
        """The rows of the test part as a data frame, and their true targets."""
        return self._parts.test

    @cached_property
    def test_part(self) -> Part:
        """The true targets of the test part, and the estimator's predictions."""
        from gpuprop.estimators.predictors import Rows, TablePredictor

        frame, y = self._parts.test
        return y, TablePredictor(self._estimator).predict(Rows(frame))

    def _watched(self) -> Part:
        """Return the inputs and targets of the first rows, as the network takes them."""
        frame, y = self._parts.train
        y = y[:_WATCHED]
        if self.classes is None:
            y = (y - y.mean()) / (y.std() or 1.0)  # about as the estimator standardises them
        return self._columns.transform(frame.iloc[:_WATCHED]), y


class _Begin(Callback):
    """Describe a training of a table when it begins, and give its network the names that a file keeps.

    Attributes
    ----------
    trainer : Trainer
    device : str
        The line about the device.
    """

    def __init__(self, parts: TableParts, planned: Trainer, seed: int) -> None:
        self._parts, self._seed, self.trainer, self.device = parts, seed, planned, ""

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Print rows, network, training and device."""
        self.trainer = trainer
        trainer.network.target_name = self._parts.target_name
        trainer.network.classes = None if self._parts.classes is None else tuple(self._parts.classes)
        n_rows, n_test = len(self._parts.train[0]), len(self._parts.test[0])
        print(
            f"{self._parts.name}: {trainer.n_samples:,} rows for training, {n_rows - trainer.n_samples:,} for "
            f"validation, {n_test:,} for testing"
        )
        _print_training(trainer, str(getattr(trainer.schedule, "name", trainer.schedule)), f"seed {self._seed}")
        _print_device(self.device, trainer.network)


def _checkpoints(folder: RunFolder | None) -> Path:
    """Return where checkpoints go; a process that writes none gets a place that does not exist."""
    return Path(os.devnull) / "checkpoints" if folder is None else folder.checkpoints


def _raise_first(outcomes: Sequence[Exception | None]) -> None:
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


def _table(network: Network) -> EpochTable:
    return epoch_table("accuracy" if network.is_classifier else "r2", by_epoch=network.device_.startswith("cuda:"))


def _displays(table: EpochTable, live: LiveRun) -> tuple[Callback, ...]:
    """Return the callbacks that show a training; neither of them can end it."""
    return harmless(table, "the table of epochs"), harmless(live, "what `gpuprop watch` shows")


def _what(classes: Sequence[Any] | None) -> str:
    if classes is None:
        return "a regression"
    shown = ", ".join(map(repr, classes[:5])) + (", ..." if len(classes) > 5 else "")
    return f"{len(classes)} classes ({shown})"


def _print_columns(columns: Columns) -> None:
    """Print what each column is and what is done with it."""
    rows = columns.table()
    cells = [
        (" ".join(row.name.split()), row.kind, f"{row.missing:.1%}" if row.missing else "", row.treatment)
        for row in rows
    ]
    print_table(("column", "kind", "missing", "what is done"), cells[:_MOST_COLUMNS], right=(2,))
    rest = [row.kind for row in rows[_MOST_COLUMNS:]]
    if rest:
        kinds = ", ".join(f"{rest.count(kind)} of the kind {kind}" for kind in dict.fromkeys(rest))
        print(f"and {len(rest)} more columns: {kinds}")
    print(flush=True)


def _print_training(trainer: Trainer, schedule: str, more: str) -> None:
    network = trainer.network
    hidden = ", ".join(dict.fromkeys(a.name for a in network.hidden_activations))
    by = "" if network.precision == "float32" else f", operands rounded to {network.precision}"
    print(
        f"network: {shape(network)}, {hidden + ', ' if hidden else ''}"
        f"{network.output_activation.name} + {network.loss_function.name}, {network.n_parameters:,} parameters{by}"
    )
    print(
        f"training: {trainer.optimizer.name}, rate {trainer.learning_rate:g} ({schedule}), "
        f"{trainer.epochs} epochs in batches of {trainer.batch_size}, {more}"
    )


def _print_device(device: str, network: Network) -> None:
    from gpuprop.measure.machine import clock_fault

    print(device, flush=True)
    flaw = clock_fault(network.ops)
    if flaw:
        print(f"seconds: by the host's clock; {flaw}", flush=True)
