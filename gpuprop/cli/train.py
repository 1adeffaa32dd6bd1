"""``gpuprop train``: from a data set to a folder with a trained model, its history, pictures and a test report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuprop.cli.device import check_device
from gpuprop.cli.help_pages import in_groups
from gpuprop.cli.options import (
    Arrays,
    Device,
    Header,
    Labels,
    MissingValues,
    OptionError,
    Target,
    check_task,
    check_test_parts,
    one_of,
    parse_activation,
    parse_dropout,
    parse_hidden,
    parse_rate,
    parse_scale,
    wrong_options,
)
from gpuprop.cli.processes import follow_along, processes_of, quiet_but_for_rank_0
from gpuprop.core.precision import PRECISIONS
from gpuprop.maths.activations import ACTIVATIONS
from gpuprop.maths.losses import LOSSES
from gpuprop.maths.optimizers import OPTIMIZERS
from gpuprop.maths.schedules import SCHEDULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpuprop.backends import Choice
    from gpuprop.cli.runs import Run
    from gpuprop.core.communicator import Communicator

__all__ = ["register"]

_HELP = """Train a network on DATA: mnist, digits, xor, openml:NAME, or a file (CSV, Parquet, NPY, NPZ, IDX).

The rows of a folder of Parquet or NPZ files, or of X.npy and y.npy, stay on disk and need not fit into memory. Under
mpirun several processes train one network together, and any number of them gives the same bits.

The folder --out gets model.safetensors, history.csv, loss.png and confusion.png (predictions.png for a regression).
A table (CSV, Parquet, OpenML) may have columns of text, dates and gaps; what each column is, and what is done with it,
is shown before the training. Defaults marked "by data" are those of the preset for a table; a built-in data set has its
own, and those of other files follow from their number of rows.

\b
Examples:
  gpuprop train mnist
  gpuprop train mnist --hidden 512 --dropout 0.1,0.3 --epochs 20
  gpuprop train iris.csv --target species --hidden 32,16 --activation tanh
  gpuprop train houses.csv --target price --task regression --early-stopping
  gpuprop train bank.csv --target y --metric f1,roc_auc --monitor roc_auc
  gpuprop train xor --animate xor.html
  gpuprop train images-idx3-ubyte.gz --labels labels-idx1-ubyte.gz --scale divide:255
  gpuprop train parts/ --target y --memory 512
  mpirun -n 4 gpuprop train mnist
  gpuprop train --resume gpuprop-mnist

Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 end the training; the model of the last completed epoch is saved, and --resume goes
on from where it stood. A training that was killed goes on from its last checkpoint.
"""

_GROUPS = {
    "Data": (
        *("target", "labels", "task", "header", "drop", "categorical", "numeric", "date", "na", "arrays"),
        *("test", "test_fraction", "validation_fraction", "scale"),
    ),
    "Network": ("preset", "hidden", "batch_norm", "residual", "activation", "loss", "dropout", "l1", "l2"),
    "Training": ("optimizer", "lr", "schedule", "batch_size", "epochs", "seed", "networks"),
    "Choice of the epoch": ("early_stopping", "patience", "metric", "monitor"),
    "Machine": ("device", "precision", "emulate", "plan", "memory", "communicator", "shards", "profile"),
    "Files": ("out", "animate", "resume", "overwrite"),
}
"""The headings of the help, each with the parameters of `train` below it."""


def register(app: typer.Typer) -> None:
    """Add the command ``train``."""
    page = in_groups(_GROUPS)
    app.command("train", cls=page, help=_HELP, short_help="Train a network on a data set and save it.")(train)


def train(
    context: typer.Context,
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="A built-in data set, openml:NAME or a file.")
    ] = None,
    target: Target = None,
    labels: Labels = None,
    task: Annotated[
        str,
        typer.Option(
            metavar="auto|classification|regression",
            help="auto: the values decide. Classes are text, bools, and whole numbers if there are at most 10 or if "
            "they count 0, 1, 2, ...; other numbers are a regression.",
        ),
    ] = "auto",
    header: Header = None,
    drop: Annotated[
        str | None, typer.Option("--drop", metavar="NAME,...", help="Columns of a table to leave out.")
    ] = None,
    categorical: Annotated[
        str | None,
        typer.Option(
            "--categorical",
            metavar="NAME,...",
            help="Columns of a table that are categories, also if they hold numbers.",
        ),
    ] = None,
    numeric: Annotated[
        str | None, typer.Option("--numeric", metavar="NAME,...", help="Columns of a table that are numbers.")
    ] = None,
    date: Annotated[
        str | None, typer.Option("--date", metavar="NAME,...", help="Columns of a table that are dates.")
    ] = None,
    na: MissingValues = None,
    arrays: Arrays = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The recipe for a table; the options below change it.  [default: tabular]"),
    ] = None,
    test: Annotated[str | None, typer.Option(metavar="FILE", help="A file with the rows to test on.")] = None,
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
            help="How to scale the inputs of all but tables; the scaling is saved with the model. standard brings each "
            "column of the training part to mean 0 and deviation 1.  [default: by data; divide:255 for 8-bit images, "
            "standard for other arrays]",
            parser=parse_scale,
        ),
    ] = None,
    hidden: Annotated[
        Any,
        typer.Option(
            metavar="SIZES",
            help="Units of each hidden layer: 128 or 128,64 or 256x3 (three of 256) or none.  [default: by data]",
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
            help=f"The loss: {one_of(LOSSES)}.  [default: by task]",
        ),
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"The optimizer: {one_of(OPTIMIZERS)}.  [default: adam]",
        ),
    ] = None,
    lr: Annotated[
        Any,
        typer.Option(
            metavar="RATE|find",
            help="The learning rate; find tries growing rates for a hundred updates of a copy of the network and takes "
            "the one that fastai's rate finder would.  [default: by data, or the optimizer's]",
            parser=parse_rate,
        ),
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
    networks: Annotated[
        int,
        typer.Option(
            metavar="K",
            min=1,
            help="Train K - 1 further networks from other seeds, together, and say how far their scores lie apart; "
            "the model that is saved is that of --seed.",
        ),
    ] = 1,
    device: Device = "auto",
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"What the operands of products are rounded to: {one_of(PRECISIONS)}; GPUs of compute capability 8.0 "
            "or more multiply so on tensor cores.",
        ),
    ] = "float32",
    emulate: Annotated[
        bool,
        typer.Option(
            "--emulate",
            help="Let a device without tensor cores round by itself, which is slower than float32 and shows what "
            "--precision does to a training.",
        ),
    ] = False,
    plan: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How updates are made: auto, or a path by name (steps, fused, graph, ...); an error says why a path "
            "cannot serve.",
        ),
    ] = "auto",
    memory: Annotated[
        int | None,
        typer.Option(
            metavar="MB",
            min=1,
            help="For a folder, whose rows stay on disk: the MiB that rows in memory may take.  [default: 256]",
        ),
    ] = None,
    communicator: Annotated[
        str,
        typer.Option(
            metavar="auto|mpi|none",
            help="Whether the processes that mpirun has started train one network together; auto: if mpirun was used.",
        ),
    ] = "auto",
    shards: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Parts of each update that processes divide among themselves, a power of two: the bits depend on it, "
            "and not on the number of processes.  [default: 8 under mpirun, else none]",
        ),
    ] = None,
    dropout: Annotated[
        Any,
        typer.Option(
            metavar="HIDDEN|INPUT,HIDDEN",
            help="Share of the hidden units that training drops, or shares of inputs and hidden units.  [default: 0]",
            parser=parse_dropout,
        ),
    ] = None,
    batch_norm: Annotated[
        bool | None,
        typer.Option(
            "--batch-norm", help="Normalise the net inputs of hidden layers over each batch.", show_default=False
        ),
    ] = None,
    residual: Annotated[
        bool | None,
        typer.Option(
            "--residual",
            help="Add the output of a hidden layer to that of the next one where both have one size.",
            show_default=False,
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
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="NAME,...",
            help="What else to compute of the validation rows after each epoch, and of the test part: names of "
            "scikit-learn's scorers, such as f1_macro, roc_auc or neg_mean_absolute_error.",
        ),
    ] = None,
    monitor: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The figure that --early-stopping watches and by which the best epoch is kept: a metric, loss, "
            "accuracy or r2.  [default: loss; for a table accuracy, or loss for a regression]",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="The folder that the files of the run go to; DIR/, with a slash, numbers folders in it (001-NAME).  "
            "[default: gpuprop-NAME]",
        ),
    ] = None,
    animate: Annotated[
        Path | None,
        typer.Option(metavar="FILE.gif|FILE.html", help="Write an animation that shows how a small network learns."),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile", help="First say where the time of an epoch goes, by two epochs of a copy of the network."
        ),
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Go on with the training in DIR, which was killed or stopped; no other option is needed. --epochs may "
            "ask for more.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in DIR.")] = False,
) -> None:
    """Load, choose, say, train, save, report."""
    options = {name: value for name, value in locals().items() if name != "context"}
    with wrong_options():
        processes = processes_of(communicator)
    with quiet_but_for_rank_0(processes):
        _train(context, options, processes)


def _kind_of_run(data: str) -> Callable[[dict[str, Any]], tuple[Run, Choice]]:
    """Return the function that prepares the training on such data."""
    from gpuprop import datasets

    if datasets.is_stored(data):
        from gpuprop.cli.stored_run import stored_run

        return stored_run
    if datasets.is_table(data):
        from gpuprop.cli.table_run import table_run

        return table_run
    from gpuprop.cli.array_run import array_run

    return array_run


def _train(context: typer.Context, options: dict[str, Any], processes: Communicator | None) -> None:
    """Train with the options of `train`, in one process or in several."""
    from gpuprop.training.agreement import from_root
    from gpuprop.training.sharding import check_shards

    stored, resume = None, options["resume"]
    if resume is not None:
        from gpuprop.cli.resuming import is_done, options_of, stored_in

        given = [name for name in options if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
        stored = from_root(processes, lambda: stored_in(resume))
        options |= options_of(stored, {name: options[name] for name in given})
        if is_done(stored, options):
            print(f"{resume}: the training is complete; --epochs N asks for more")
            return
    elif options["data"] is None:
        raise OptionError("got no DATA, expected a built-in data set, openml:NAME or a file; or --resume DIR")
    check_device(options["device"])
    with wrong_options():
        options["shards"] = check_shards(options.get("shards"), processes)

    from gpuprop.cli.course import Course, nothing_to_save_yet

    check_task(options["task"])
    check_test_parts(options["test"], options["test_fraction"])
    with nothing_to_save_yet():
        sought = options["lr"] == "find"
        if sought:
            options["lr"] = None
        run, chosen = _kind_of_run(options["data"])(options)
        run.divide(processes, options["shards"])
        if options.get("networks", 1) > 1:
            if options["shards"] is not None:
                raise OptionError("got --networks for a training in shards; further networks train in one process")
            run.check_networks()
        if sought:  # a resume finds the number among the options
            options["lr"] = run.find_rate()
        if options["profile"]:
            print(f"{run.profile()}\n", flush=True)
        if processes is not None and processes.rank > 0:
            follow_along(run)
            return
        course = Course(run, chosen, options, stored)
    course.follow()
