"""``gpuprop warm``: compile now what trainings on the CPU will need, as when an image or an environment is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuprop.cli.options import OptionError, one_of, parse_activation, parse_dropout, parse_hidden, wrong_options
from gpuprop.maths.activations import ACTIVATIONS
from gpuprop.maths.losses import LOSSES
from gpuprop.maths.optimizers import OPTIMIZERS

if TYPE_CHECKING:
    from gpuprop.training.warming import Warmed

__all__ = ["register"]

_HELP = """Compile the CPU's loops for kinds of training, and keep them on disk.

The kinds are mnist and numbers (what train makes of arrays), classifier and regressor (MLPClassifier and MLPRegressor,
alone and in ensembles and searches), and tables. Without KIND all of them are compiled, which takes some minutes; what
is there already is only loaded. A training then begins at once, in each process and for each user who may read the
folder. The code is kept beside the package if that can be written, as when an image is built, else in the user's cache;
NUMBA_CACHE_DIR names another folder. It holds for the processor at hand: on another kind of processor a training
compiles anew.

The options change the kinds as those of train change a recipe. Sizes play no role: a network stands for all that have
its activations, loss, optimizer and penalties.

\b
Examples:
  gpuprop warm
  gpuprop warm mnist
  gpuprop warm classifier regressor --dtype float64
  gpuprop warm numbers --activation tanh --optimizer sgd --l2 0
"""


def register(app: typer.Typer) -> None:
    """Add the command ``warm``."""
    app.command("warm", help=_HELP, short_help="Compile the loops of trainings ahead of time.")(warm)


def warm(
    kinds: Annotated[list[str] | None, typer.Argument(metavar="[KIND...]", help="What to compile for.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="float32|float64", help="The networks' numbers.  [default: those usual for a kind]"),
    ] = None,
    hidden: Annotated[
        Any,
        typer.Option(
            metavar="SIZES", help="Hidden layers: only whether there are any plays a role.", parser=parse_hidden
        ),
    ] = None,
    activation: Annotated[
        Any,
        typer.Option(
            metavar="NAME",
            help=f"Activation of the hidden layers: {one_of(ACTIVATIONS)}; or one for each.  [default: by kind]",
            parser=parse_activation,
        ),
    ] = None,
    loss: Annotated[str | None, typer.Option(metavar="NAME", help=f"{one_of(LOSSES)}.  [default: by kind]")] = None,
    optimizer: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"The optimizer: {one_of(OPTIMIZERS)}.  [default: adam]")
    ] = None,
    dropout: Annotated[
        Any,
        typer.Option(
            metavar="HIDDEN|INPUT,HIDDEN", help="Shares of dropped units.  [default: by kind]", parser=parse_dropout
        ),
    ] = None,
    l1: Annotated[float | None, typer.Option(metavar="X", help="Penalty X * sum |W|.  [default: 0]")] = None,
    l2: Annotated[float | None, typer.Option(metavar="X", help="Penalty X/2 * sum W^2.  [default: by kind]")] = None,
) -> None:
    """Compile, and say for each training what was compiled and how long that took; at the end, where it lies."""
    from gpuprop.cli.console import warn
    from gpuprop.training.warming import kept_in
    from gpuprop.training.warming import warm as compile_kinds

    if dtype not in (None, "float32", "float64"):
        raise OptionError(f"--dtype: got {dtype!r}, expected float32 or float64")
    options = {
        "hidden": hidden, "activation": activation, "loss": loss, "optimizer": optimizer, "dropout": dropout, "l1": l1,
        "l2": l2,
    }  # fmt: skip
    n_compiled, seconds = 0, 0.0
    with wrong_options():
        for made in compile_kinds(kinds or (), dtypes=() if dtype is None else (dtype,), options=options):
            print(f"{made.kind}, {made.task}, {made.dtype}, {made.plan}: {_what(made)}", flush=True)
            n_compiled, seconds = n_compiled + made.compiled, seconds + made.seconds
    print(f"{_functions(n_compiled)} compiled in {seconds:.1f} s")
    folders = kept_in()
    for folder in folders:
        print(f"kept in {folder}")
    if not folders:
        warn("no folder can be written, so nothing is kept; name one in NUMBA_CACHE_DIR")


def _what(made: Warmed) -> str:
    if made.fault is not None:
        return made.fault
    if made.compiled == 0:
        return "was there already"
    return f"{_functions(made.compiled)} compiled in {made.seconds:.1f} s"


def _functions(count: int) -> str:
    return "1 function" if count == 1 else f"{count} functions"
