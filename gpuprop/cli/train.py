"""``gpuprop train``: from a data set to a folder with a trained model, its history, pictures and a test report."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuprop.cli.device import check_device, device_for_training, plain_seconds
from gpuprop.cli.options import (
    Device,
    Header,
    Labels,
    OptionError,
    Target,
    one_of,
    parse_activation,
    parse_dropout,
    parse_hidden,
    parse_scale,
    wrong_options,
)
from gpuprop.maths.activations import ACTIVATIONS
from gpuprop.maths.losses import LOSSES
from gpuprop.maths.optimizers import OPTIMIZERS
from gpuprop.maths.schedules import SCHEDULES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.cli.recipes import Recipe
    from gpuprop.cli.run_folder import RunFolder
    from gpuprop.datasets import Dataset
    from gpuprop.model.network import Network
    from gpuprop.training.trainer import Trainer

    Part = tuple[NDArray[Any], NDArray[Any]]

__all__ = ["register"]

_HELP = """Train a network on DATA: mnist, digits, xor, openml:NAME, or a file (CSV, NPY, NPZ, IDX, Parquet).

The folder --out gets model.safetensors, history.csv, loss.png and confusion.png (predictions.png for a regression).
Defaults marked "by data" are made for each built-in data set, and for files follow from the number of rows.

\b
Examples:
  gpuprop train mnist
  gpuprop train mnist --hidden 512 --dropout 0.1,0.3 --epochs 20
  gpuprop train iris.csv --target species --hidden 32,16 --activation tanh
  gpuprop train houses.csv --target price --task regression --early-stopping
  gpuprop train xor --animate xor.html
  gpuprop train images-idx3-ubyte.gz --labels labels-idx1-ubyte.gz --scale divide:255

Ctrl-C ends the training; the model of the last completed epoch is saved.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``train``."""
    app.command("train", help=_HELP, short_help="Train a network on a data set and save it.")(train)


def train(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A built-in data set, openml:NAME or a file.")],
    target: Target = None,
    labels: Labels = None,
    task: Annotated[
        str,
        typer.Option(
            metavar="auto|classification|regression",
            help="auto: text, bools, and integers of at most 100 distinct values are classes.",
        ),
    ] = "auto",
    header: Header = None,
    test: Annotated[str | None, typer.Option(metavar="FILE", help="A file with the test part.")] = None,
    test_fraction: Annotated[
        float | None,
        typer.Option(
            metavar="F",
            help="Share of the rows held out for testing, stratified by class.  [default: 0.25 where DATA has no "
            "test part of its own]",
        ),
    ] = None,
    validation_fraction: Annotated[
        float | None,
        typer.Option(
            metavar="F", help="Share of the training rows held out for the validation columns.  [default: by data]"
        ),
    ] = None,
    scale: Annotated[
        Any,
        typer.Option(
            metavar="standard|none|divide:N",
            help="What is done to the inputs; saved with the model. standard: each column to mean 0 and deviation 1, "
            "by the training part.  [default: by data; 8-bit images divide:255, other files standard]",
            parser=parse_scale,
        ),
    ] = None,
    hidden: Annotated[
        Any,
        typer.Option(
            metavar="SIZES",
            help="Units of the hidden layers: 128 or 128,64 or none.  [default: by data]",
            parser=parse_hidden,
        ),
    ] = None,
    activation: Annotated[
        Any,
        typer.Option(
            metavar="NAME",
            help=f"Of the hidden layers: {one_of(ACTIVATIONS)}; or one for each: relu,tanh.  [default: by data]",
            parser=parse_activation,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"{one_of(LOSSES)}.  [default: by task]",
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"{one_of(OPTIMIZERS)}.  [default: adam]",
        ),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(metavar="RATE", help="The learning rate.  [default: by data, or the optimizer's]")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Of the learning rate: {one_of(SCHEDULES)}.  [default: by data]",
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Rows of a batch.  [default: by data]")] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Passes over the data.  [default: by data]")] = None,
    seed: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=2**32 - 1, help="Equal seeds give equal models, bit for bit."),
    ] = 0,
    device: Device = "auto",
    dropout: Annotated[
        Any,
        typer.Option(
            metavar="HIDDEN|INPUT,HIDDEN",
            help="Shares of units dropped in training.  [default: 0]",
            parser=parse_dropout,
        ),
    ] = None,
    l1: Annotated[float | None, typer.Option(metavar="X", help="Penalty X * sum |W|.  [default: 0]")] = None,
    l2: Annotated[float | None, typer.Option(metavar="X", help="Penalty X/2 * sum W^2.  [default: by data]")] = None,
    early_stopping: Annotated[
        bool | None,
        typer.Option(
            "--early-stopping/--no-early-stopping",
            help="Stop when the validation loss falls no more, and keep the best epoch. The test part plays no role.",
            show_default=False,
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(metavar="N", help="Epochs that --early-stopping waits.  [default: 10]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder to make.  [default: gpuprop-NAME]")
    ] = None,
    animate: Annotated[
        Path | None,
        typer.Option(metavar="FILE.gif|FILE.html", help="Write how a small network learns, as an animation."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that DIR holds.")] = False,
) -> None:
    """Load, train, test, save, report."""
    options = dict(locals())
    check_device(device)

    from gpuprop.cli.animate import record, write_film
    from gpuprop.cli.recipes import recipe_for
    from gpuprop.cli.run_folder import RunFolder
    from gpuprop.cli.scores import print_report, report_on

    dataset = _load(data, target, labels, task, header)
    train_part, test_part = _parts(dataset, test, test_fraction, seed, options)
    with wrong_options():
        recipe = recipe_for(data, train_part[0], batch_size).with_options(options)
        chosen = device_for_training(device, _plain_seconds(dataset, train_part, recipe))
        network = _network(dataset, train_part, recipe, loss, seed, chosen.device)
        trainer = _trainer(network, recipe, len(train_part[0]))
        film = None if animate is None else record(animate, trainer, train_part)
    _describe(dataset, train_part, test_part, trainer, recipe, chosen.reason)
    folder = RunFolder(out or _default_folder(dataset), overwrite=overwrite)
    with folder:
        stopped = _fit(trainer, train_part, folder.staging)
        with _uninterrupted():  # a second Ctrl-C must not lose what the first one kept
            _save(folder, trainer, dataset, test_part)
    if trainer.best_epoch is not None and stopped is None:
        print(
            f"kept: epoch {trainer.best_epoch} of {trainer.epochs_done}, the one of the lowest {_watched(trainer)} loss"
        )
    if animate is not None and film is not None:
        write_film(animate, film, f"{dataset.name}, {'-'.join(map(str, network.layer_sizes))}")
        print(f"animation: {animate}")
    print(f"saved in {folder.path}: {', '.join(folder.published)}\n")
    print_report(report_on(network, *test_part, classes=dataset.classes))
    if isinstance(stopped, KeyboardInterrupt):
        raise KeyboardInterrupt(
            f"interrupted after {trainer.epochs_done} of {trainer.epochs} epochs; "
            f"the model of epoch {trainer.epochs_done} is saved in {folder.path}"
        )


def _default_folder(dataset: Dataset) -> Path:
    return Path("gpuprop-" + re.sub(r"[^\w.+-]+", "-", dataset.name))


# --- data ------------------------------------------------------------------------------------------------------


def _load(data: str, target: str | None, labels: str | None, task: str, header: bool | None) -> Dataset:
    from gpuprop import datasets
    from gpuprop.errors import unknown_name

    tasks = ("auto", "classification", "regression")
    with wrong_options():
        if task not in tasks:
            raise unknown_name("task", task, tasks)
    return datasets.load(data, target=target, labels=labels, task=task, header=header)


def _parts(
    dataset: Dataset, test: str | None, fraction: float | None, seed: int, options: dict[str, Any]
) -> tuple[Part, Part]:
    """Return the rows to train on and the rows to test with."""
    from gpuprop import datasets
    from gpuprop.cli.recipes import TEST_FRACTION
    from gpuprop.errors import DataError

    if fraction is not None and not 0 < fraction < 1:
        raise OptionError(f"--test-fraction: got {fraction}, expected a number above 0 and below 1")
    if test is not None and fraction is not None:
        raise OptionError(
            "got --test and --test-fraction, expected one of them: a test file leaves nothing to hold out"
        )
    if test is not None:
        train_part = (dataset.X, dataset.y)
        test_part = datasets.load_test(
            test,
            classes=dataset.classes,
            n_features=dataset.X.shape[1],
            feature_names=dataset.feature_names,
            target=options["target"] if dataset.target_name is None else dataset.target_name,
            header=options["header"],
        )
    elif fraction is None and dataset.test is not None:
        train_part, test_part = (dataset.X, dataset.y), dataset.test
    else:
        train_part, test_part = datasets.split(dataset, TEST_FRACTION if fraction is None else fraction, seed)
    if dataset.task == "regression" and len(test_part[0]) < 2:
        raise DataError(f"{dataset.name}: got one row for testing, expected at least 2: R2 needs them; add rows")
    return train_part, test_part


# --- network and training --------------------------------------------------------------------------------------


def _plain_seconds(dataset: Dataset, part: Part, recipe: Recipe) -> float:
    """Return about how long the training would take in plain NumPy."""
    (n_rows, n_features), n_outputs = part[0].shape, len(dataset.classes or [0])
    batch_size = max(1, min(recipe.batch_size, n_rows))
    return plain_seconds((n_features, *recipe.hidden, n_outputs), batch_size, -(-n_rows // batch_size) * recipe.epochs)


def _network(dataset: Dataset, part: Part, recipe: Recipe, loss: str | None, seed: int, device: str) -> Network:
    from gpuprop.maths.losses import get_loss
    from gpuprop.maths.scaling import InputScaling
    from gpuprop.model.network import Network

    X, y = part
    chosen = get_loss(loss or _default_loss(dataset))
    if dataset.classes is None:
        if chosen.classification:
            raise ValueError(f"loss {chosen.name!r} is for classes, and the targets are numbers; use squared_error")
        n_outputs, output_activation = (y.shape[1] if y.ndim == 2 else 1), None
    else:
        # Two classes are one logistic unit, unless the loss wants a probability for each class.
        n_classes = len(dataset.classes)
        n_outputs = 1 if n_classes == 2 and chosen.name != "categorical_cross_entropy" else n_classes
        # Under squared error a classifier still answers with probabilities.
        squashing = "logistic" if n_outputs == 1 else "softmax"
        output_activation = squashing if chosen.name == "squared_error" else None
    if recipe.scale == "standard":
        scaling = InputScaling.standard(X)
    elif recipe.scale == "none":
        scaling = None
    else:
        scaling = InputScaling.divide(float(recipe.scale.removeprefix("divide:")))
    return Network(
        (X.shape[1], *recipe.hidden, n_outputs),
        hidden_activation=recipe.activation[0] if len(recipe.activation) == 1 else recipe.activation,
        output_activation=output_activation,
        loss=chosen,
        seed=seed,
        device=device,
        dropout=recipe.dropout if recipe.hidden else recipe.dropout[:1],
        l1=recipe.l1,
        l2=recipe.l2,
        input_scaling=scaling,
        classes=dataset.classes,
        feature_names=dataset.feature_names,
        target_name=dataset.target_name,
    )


def _default_loss(dataset: Dataset) -> str:
    if dataset.classes is None:
        return "squared_error"
    return "binary_cross_entropy" if len(dataset.classes) == 2 else "categorical_cross_entropy"


def _trainer(network: Network, recipe: Recipe, n_rows: int) -> Trainer:
    from gpuprop.cli.progress import epoch_table
    from gpuprop.errors import check_integer, check_real
    from gpuprop.training.trainer import Trainer

    patience = check_integer("patience", recipe.patience, 1)
    share = check_real("validation_fraction", recipe.validation_fraction, 0.0, 1.0, open_maximum=True)
    return Trainer(
        network,
        optimizer=recipe.optimizer,
        learning_rate=recipe.lr,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        validation=share if share > 0 and n_rows > 1 else None,
        schedule=recipe.schedule,
        early_stopping=patience if recipe.early_stopping else None,
        callbacks=[
            epoch_table("accuracy" if network.is_classifier else "r2", by_epoch=network.device_.startswith("cuda:"))
        ],
    )


def _fit(trainer: Trainer, part: Part, live: Path) -> BaseException | None:
    """Train, leaving what `gpuprop watch` shows in the folder `live`.

    Return what ended the training early, if the user did so after at least one completed epoch.
    """
    from gpuprop.cli.progress import EpochTable
    from gpuprop.learn.live.snapshot import LiveRun

    X, y = part
    trainer.callbacks += (LiveRun(live, X, y),)
    targets, fold = _standardised_targets(trainer.network, y)
    stopped: BaseException | None = None
    try:
        trainer.fit(X, targets)
    except (KeyboardInterrupt, BrokenPipeError) as interrupt:  # Ctrl-C, and the end of `gpuprop train ... | head`
        if trainer.epochs_done == 0:
            raise type(interrupt)("interrupted before the first epoch was complete; nothing was written") from None
        stopped = interrupt
    finally:
        for callback in trainer.callbacks:
            if isinstance(callback, EpochTable):
                callback.close()
    fold()
    return stopped


def _standardised_targets(network: Network, y: NDArray[Any]) -> tuple[NDArray[Any], Any]:
    """Return the targets to train on, and what is to be done to the network afterwards.

    A regression with linear outputs is trained on targets of mean 0 and deviation 1: an untrained network is then
    right about the mean, and one learning rate suits prices and percentages alike. Afterwards mean and deviation are
    folded into the last layer, ``W * deviation`` and ``b * deviation + mean``, so that the saved model answers in the
    units of the data. R2 is the same in both; the losses shown are those of the standardised targets.
    """
    import numpy as np

    if network.is_classifier or network.output_activation.name != "identity":
        return y, lambda: None
    mean, deviation = y.mean(axis=0), y.std(axis=0)
    deviation = np.where(deviation > 10 * np.finfo(np.float64).eps * np.abs(mean), deviation, 1.0)

    def fold() -> None:
        ops = network.ops
        weights = ops.to_numpy(network.weights[-1]) * deviation
        biases = ops.to_numpy(network.biases[-1]) * deviation + mean
        network.weights[-1][...] = ops.asarray(weights, network.dtype)
        network.biases[-1][...] = ops.asarray(biases, network.dtype)

    return (y - mean) / deviation, fold


# --- what is written and said ----------------------------------------------------------------------------------


def _describe(
    dataset: Dataset, train_part: Part, test_part: Part, trainer: Trainer, recipe: Recipe, chosen: str
) -> None:
    """Say in a few lines what is about to happen."""
    from gpuprop.measure.machine import clock_flaw

    network = trainer.network
    n_rows, n_features = train_part[0].shape
    n_validation = min(max(1, round(trainer.validation * n_rows)), n_rows - 1) if trainer.validation else 0
    what = f"{len(dataset.classes)} classes" if dataset.classes else f"regression, {network.layer_sizes[-1]} target(s)"
    print(
        f"{dataset.name}: {n_rows - n_validation:,} rows for training, {n_validation:,} for validation, "
        f"{len(test_part[0]):,} for testing; {n_features} features, {what}"
    )
    hidden = ", ".join(dict.fromkeys(a.name for a in network.hidden_activations))
    print(
        f"network: {'-'.join(map(str, network.layer_sizes))}, {hidden + ', ' if hidden else ''}"
        f"{network.output_activation.name} + {network.loss_function.name}, {network.n_parameters:,} parameters"
    )
    print(
        f"training: {trainer.optimizer.name}, rate {trainer.learning_rate:g} ({recipe.schedule}), "
        f"{trainer.epochs} epochs in batches of {trainer.batch_size}, scale {recipe.scale}, seed {network.seed}"
    )
    print(chosen, flush=True)
    flaw = clock_flaw(network.ops)
    if flaw:
        print(f"seconds: by the host's clock; {flaw}", flush=True)


def _save(folder: RunFolder, trainer: Trainer, dataset: Dataset, test_part: Part) -> None:
    """Write all files of the run, then put them in their places together."""
    from gpuprop.cli import run_folder
    from gpuprop.estimators.stored_models import MODEL_FILE_NAME
    from gpuprop.learn import plots

    network, (X, y) = trainer.network, test_part
    network.save(folder.staging / MODEL_FILE_NAME)
    _write_history(folder.staging / run_folder.HISTORY, trainer.history)
    shape = "-".join(map(str, network.layer_sizes))
    plots.loss_curves(trainer.history, title=f"{dataset.name}, {shape}").savefig(folder.staging / run_folder.LOSS)
    if dataset.classes is None:
        figure = plots.predictions(y, network.predict(X), title=f"{dataset.name}: test part")
        figure.savefig(folder.staging / run_folder.PREDICTIONS)
    else:
        figure = plots.confusion_matrix(y, network.predict(X), dataset.classes, title=f"{dataset.name}: test part")
        figure.savefig(folder.staging / run_folder.CONFUSION)
    folder.publish()


def _write_history(path: Path, history: dict[str, list[Any]]) -> None:
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(history)
        writer.writerows(zip(*history.values(), strict=True))


def _watched(trainer: Trainer) -> str:
    return "training" if trainer.validation is None else "validation"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C for the moment that saving takes."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():  # only the main thread may ask for this
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
