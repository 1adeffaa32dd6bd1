"""``gpuprop train``: from a data set to a folder with a trained model, its history, pictures and a test report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuprop.cli.console import mark_saved, warn
from gpuprop.cli.device import check_device
from gpuprop.cli.files import check_writable
from gpuprop.cli.options import (
    Device,
    Header,
    Labels,
    OptionError,
    Target,
    check_test_fraction,
    one_of,
    parse_activation,
    parse_dropout,
    parse_hidden,
    parse_scale,
    wrong_options,
)
from gpuprop.cli.pictures import draw_pictures, reason_against_pictures
from gpuprop.maths.activations import ACTIVATIONS
from gpuprop.maths.losses import LOSSES
from gpuprop.maths.optimizers import OPTIMIZERS
from gpuprop.maths.schedules import SCHEDULES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from gpuprop.cli.progress import EpochTable
    from gpuprop.datasets import Dataset
    from gpuprop.learn.live.frames import Recorder
    from gpuprop.model.network import Network
    from gpuprop.training.parts import Source
    from gpuprop.training.recipes import Recipe
    from gpuprop.training.run_folder import RunFolder
    from gpuprop.training.trainer import Trainer

    Part = tuple[NDArray[Any], NDArray[Any]]

__all__ = ["register"]

_HELP = """Train a network on DATA: mnist, digits, xor, openml:NAME, or a file (CSV, NPY, NPZ, IDX, Parquet).

The folder --out gets model.safetensors, history.csv, loss.png and confusion.png (predictions.png for a regression).
Each built-in data set has its own values for defaults marked "by data"; those for a file follow from its number of
rows.

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
            help="Share of the rows held out for testing, stratified by class.  [default: 0.25 if DATA has no test "
            "part of its own]",
        ),
    ] = None,
    validation_fraction: Annotated[
        float | None,
        typer.Option(metavar="F", help="Share of the training rows held out for validation.  [default: by data]"),
    ] = None,
    scale: Annotated[
        Any,
        typer.Option(
            metavar="standard|none|divide:N",
            help="How the inputs are scaled; the scaling is saved with the model. standard brings each column of the "
            "training part to mean 0 and deviation 1.  [default: by data; divide:255 for 8-bit images, standard for "
            "other files]",
            parser=parse_scale,
        ),
    ] = None,
    hidden: Annotated[
        Any,
        typer.Option(
            metavar="SIZES",
            help="Units of each hidden layer: 128 or 128,64 or none.  [default: by data]",
            parser=parse_hidden,
        ),
    ] = None,
    activation: Annotated[
        Any,
        typer.Option(
            metavar="NAME",
            help=f"Activation of the hidden layers: {one_of(ACTIVATIONS)}; or one for each: relu,tanh.  "
            "[default: by data]",
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
            help=f"Schedule of the learning rate: {one_of(SCHEDULES)}.  [default: by data]",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Number of rows in a batch.  [default: by data]")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Number of passes over the data.  [default: by data]")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(metavar="N", min=0, max=2**32 - 1, help="Equal seeds give equal models, bit for bit."),
    ] = 0,
    device: Device = "auto",
    plan: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How updates are made: auto, or a path by name (steps, fused, graph, ...); an error says why a path "
            "cannot serve.",
        ),
    ] = "auto",
    dropout: Annotated[
        Any,
        typer.Option(
            metavar="HIDDEN|INPUT,HIDDEN",
            help="Share of the hidden units that training drops, or shares of inputs and hidden units.  [default: 0]",
            parser=parse_dropout,
        ),
    ] = None,
    l1: Annotated[float | None, typer.Option(metavar="X", help="Penalty X * sum |W|.  [default: 0]")] = None,
    l2: Annotated[float | None, typer.Option(metavar="X", help="Penalty X/2 * sum W^2.  [default: by data]")] = None,
    early_stopping: Annotated[
        bool | None,
        typer.Option(
            "--early-stopping/--no-early-stopping",
            help="Stop when the validation loss stops improving, and keep the best epoch. The test part plays no role.",
            show_default=False,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(metavar="N", help="Number of epochs that --early-stopping waits for a lower loss.  [default: 10]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder that the files of the run go to.  [default: gpuprop-NAME]"),
    ] = None,
    animate: Annotated[
        Path | None,
        typer.Option(metavar="FILE.gif|FILE.html", help="Write an animation that shows how a small network learns."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in DIR.")] = False,
) -> None:
    """Load, choose, say, train, save, report."""
    options = dict(locals())
    check_device(device)

    from gpuprop.cli.animate import record
    from gpuprop.training.from_recipe import network_for, plain_seconds_of, trainer_for
    from gpuprop.training.parts import Source
    from gpuprop.training.placement import device_for_training
    from gpuprop.training.recipes import recipe_for
    from gpuprop.training.run_folder import RunFolder

    dataset = _load(Source(data, target, labels, header), task)
    train_part, test_part = _parts(dataset, None if test is None else Source(test, target, None, header), options)
    with wrong_options():
        recipe = recipe_for(data, train_part[0], batch_size).with_options(options)
        chosen = device_for_training(device, plain_seconds_of(dataset, train_part, recipe), plan)
        network = network_for(dataset, train_part, recipe, loss=loss, seed=seed, device=chosen.device)
        trainer = trainer_for(network, recipe, len(train_part[0]), [_table(network)], plan=plan)
        film = None if animate is None else record(animate, trainer, train_part)
    _describe(dataset, train_part, test_part, trainer, recipe, chosen.reason)
    folder = RunFolder(
        out or _default_folder(dataset),
        overwrite=overwrite,
        to_overwrite="add --overwrite",
        to_move="choose another --out",
    )
    with folder:
        if animate is not None:
            check_writable(animate)
        against_pictures = reason_against_pictures()
        if against_pictures:
            warn(f"{against_pictures}; the run will have no pictures")
        stopped = _fit(trainer, train_part, folder.staging)
        with _uninterrupted():  # after a first Ctrl-C has ended the training, a second one must not lose the model
            _save(folder, trainer)
        try:
            if not against_pictures:
                draw_pictures(folder, _pictures(trainer, dataset, test_part))
            print(f"plan: {trainer.plan_reason}")
            if trainer.best_epoch is not None and stopped is None:
                kept = f"{trainer.best_epoch} of {trainer.epochs_done}"
                print(f"kept: epoch {kept}, the one of the lowest {_watched(trainer)} loss")
            if animate is not None and film is not None:
                _write_film(animate, film, f"{dataset.name}, {_shape(network)}")
            print(f"saved in {folder.path}: {', '.join(folder.published)}\n")
            _report(network, test_part, dataset.classes)
        except KeyboardInterrupt:
            stopped = stopped or KeyboardInterrupt()
    if stopped is not None:
        raise KeyboardInterrupt(
            f"interrupted after {trainer.epochs_done} of {trainer.epochs} epochs; "
            f"the model of epoch {trainer.epochs_done} is saved in {folder.path}"
        )


def _load(source: Source, task: str) -> Dataset:
    from gpuprop.datasets.dataset import TASKS
    from gpuprop.errors import unknown_name

    with wrong_options():
        if task not in TASKS:
            raise unknown_name("task", task, TASKS)
    return source.load(task)


def _parts(dataset: Dataset, test: Source | None, options: dict[str, Any]) -> tuple[Part, Part]:
    """Return the rows to train on and the rows to test with."""
    from gpuprop.training.parts import train_and_test_parts

    fraction = options["test_fraction"]
    check_test_fraction(fraction)
    if test is not None and fraction is not None:
        raise OptionError(
            "got --test and --test-fraction, expected one of them: a test file leaves nothing to hold out"
        )
    return train_and_test_parts(dataset, test, fraction, options["seed"])


def _table(network: Network) -> EpochTable:
    from gpuprop.cli.progress import epoch_table, harmless

    table = epoch_table("accuracy" if network.is_classifier else "r2", by_epoch=network.device_.startswith("cuda:"))
    return harmless(table, "the table of epochs")


def _fit(trainer: Trainer, part: Part, live: Path) -> KeyboardInterrupt | None:
    """Train, and write the files that `gpuprop watch` reads into the folder `live`.

    Return the interrupt if the user ended the training early, after at least one completed epoch.
    """
    from gpuprop.cli.progress import EpochTable, harmless
    from gpuprop.learn.live.snapshot import LiveRun
    from gpuprop.training.targets import StandardisedTargets

    X, y = part
    trainer.callbacks += (harmless(LiveRun(live, X, y), "what `gpuprop watch` shows"),)
    targets = StandardisedTargets.of(trainer.network, y)
    stopped: KeyboardInterrupt | None = None
    try:
        trainer.fit(X, targets.values)
    except KeyboardInterrupt as interrupt:
        if trainer.epochs_done == 0:
            raise KeyboardInterrupt("interrupted before the first epoch was complete; nothing was written") from None
        stopped = interrupt
    finally:
        for callback in trainer.callbacks:
            if isinstance(callback, EpochTable):
                callback.close()
    targets.fold(trainer.network)
    return stopped


def _describe(
    dataset: Dataset, train_part: Part, test_part: Part, trainer: Trainer, recipe: Recipe, chosen: str
) -> None:
    """Print data, network, training and device in a few lines."""
    from gpuprop.measure.machine import clock_fault
    from gpuprop.training.orders import rows_held_out

    network = trainer.network
    n_rows, n_features = train_part[0].shape
    share = trainer.validation
    n_validation = rows_held_out(share, n_rows) if isinstance(share, float) else 0
    what = f"{len(dataset.classes)} classes" if dataset.classes else f"regression, {network.layer_sizes[-1]} target(s)"
    print(
        f"{dataset.name}: {n_rows - n_validation:,} rows for training, {n_validation:,} for validation, "
        f"{len(test_part[0]):,} for testing; {n_features} features, {what}"
    )
    hidden = ", ".join(dict.fromkeys(a.name for a in network.hidden_activations))
    print(
        f"network: {_shape(network)}, {hidden + ', ' if hidden else ''}"
        f"{network.output_activation.name} + {network.loss_function.name}, {network.n_parameters:,} parameters"
    )
    print(
        f"training: {trainer.optimizer.name}, rate {trainer.learning_rate:g} ({recipe.schedule}), "
        f"{trainer.epochs} epochs in batches of {trainer.batch_size}, scale {recipe.scale}, seed {network.seed}"
    )
    print(chosen, flush=True)
    flaw = clock_fault(network.ops)
    if flaw:
        print(f"seconds: by the host's clock; {flaw}", flush=True)


def _save(folder: RunFolder, trainer: Trainer) -> None:
    """Write model and history, then put them in their places together."""
    from gpuprop.model.container import MODEL_FILE_NAME
    from gpuprop.training import run_folder

    trainer.network.save(folder.staging / MODEL_FILE_NAME)
    run_folder.write_history(folder.staging / run_folder.HISTORY, trainer.history)
    folder.publish()
    mark_saved()


def _pictures(trainer: Trainer, dataset: Dataset, test_part: Part) -> dict[str, Callable[[], Figure]]:
    """Return the functions that draw the pictures of the run, by the names of their files."""
    from gpuprop.learn import plots
    from gpuprop.training import run_folder

    network, (X, y), classes = trainer.network, test_part, dataset.classes
    curves = f"{dataset.name}, {_shape(network)}"
    title = f"{dataset.name}: test part"
    found: dict[str, Callable[[], Figure]] = {run_folder.LOSS: lambda: plots.loss_curves(trainer.history, title=curves)}
    if classes is None:
        found[run_folder.PREDICTIONS] = lambda: plots.predictions(y, network.predict(X), title=title)
    else:
        found[run_folder.CONFUSION] = lambda: plots.confusion_matrix(y, network.predict(X), classes, title=title)
    return found


def _report(network: Network, test_part: Part, classes: Sequence[Any] | None) -> None:
    """Say how good the model is on the test part."""
    from gpuprop.cli.console import print_report
    from gpuprop.training.scores import report_on

    try:
        print_report(report_on(network, *test_part, classes=classes))
    except Exception as error:
        warn(f"the model is saved, but the report on the test part failed: {error or type(error).__name__}")


def _write_film(path: Path, film: Recorder, title: str) -> None:
    from gpuprop.cli.animate import write_film

    try:
        write_film(path, film, title)
    except Exception as error:
        warn(f"the model is saved, but the animation is not: {error or type(error).__name__}")
    else:
        print(f"animation: {path}")


def _default_folder(dataset: Dataset) -> Path:
    return Path("gpuprop-" + re.sub(r"[^\w.+-]+", "-", dataset.name))


def _shape(network: Network) -> str:
    return "-".join(map(str, network.layer_sizes))


def _watched(trainer: Trainer) -> str:
    return "training" if trainer.validation is None else "validation"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C while the files are saved."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
