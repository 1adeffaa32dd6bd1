"""``gpuprop gradcheck``: compare the gradient of a network with central differences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuprop.cli.options import (
    Header,
    Json,
    Labels,
    OptionError,
    Target,
    parse_activation,
    parse_hidden,
    wrong_options,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.model.network import Network
    from gpuprop.training.parts import Source

__all__ = ["register"]

_HELP = """Compare backpropagation's gradient with central differences, parameter by parameter.

Without MODEL a small float64 network with random data is checked. MODEL is the folder of a run or a model file, and
needs --data. The exit status is 1 if any layer fails.

\b
Examples:
  gpuprop gradcheck
  gpuprop gradcheck --activation gelu --loss poisson --hidden 8,8
  gpuprop gradcheck gpuprop-iris --data iris.csv --target species
"""


def register(app: typer.Typer) -> None:
    """Add the command ``gradcheck``."""
    app.command("gradcheck", help=_HELP, short_help="Check the gradient against central differences.")(gradcheck)


def gradcheck(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="The folder of a run, or a model file.", show_default=False)
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="A data set or file for MODEL, with targets.")
    ] = None,
    target: Target = None,
    labels: Labels = None,
    header: Header = None,
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="Number of rows of data to use.")] = 20,
    activation: Annotated[
        Any,
        typer.Option(
            metavar="NAME",
            help="Activation of the small network's hidden layers, or one for each.  [default: tanh]",
            parser=parse_activation,
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Loss of the small network.  [default: categorical_cross_entropy]"),
    ] = None,
    hidden: Annotated[
        Any,
        typer.Option(
            metavar="SIZES", help="Units of the small network's hidden layers.  [default: 6,5]", parser=parse_hidden
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Seed of network, data and sample.")] = 0,
    json: Json = False,
) -> None:
    """Check, print, and exit with 1 on failure."""
    from gpuprop.cli.console import print_json, print_table
    from gpuprop.learn.gradient_check import check_gradients
    from gpuprop.learn.gradient_check_problem import random_data, small_network
    from gpuprop.training.parts import Source

    options = {"activation": activation, "loss": loss, "hidden": hidden}
    given = {name: value for name, value in options.items() if value is not None}
    if model is None:
        if data is not None:
            raise OptionError("got --data without MODEL, expected both: without MODEL the data are random")
        with wrong_options():
            network = small_network(**given, seed=seed)
        X, y = random_data(network, rows, seed)
    else:
        if data is None or given:
            raise OptionError(
                "MODEL needs --data, and has activation, loss and hidden layers of its own; leave them out"
            )
        network, X, y = _model_and_data(model, Source(data, target, labels, header), rows)
    report = check_gradients(network, X, y, seed=seed)
    if json:
        print_json({"network": repr(network), **report.to_dict()})
    else:
        print(f"{network!r}, {len(X)} rows")
        print_table(
            ("layer", "checked", "skipped", "relative error", "max difference", "verdict"),
            [
                [
                    layer.name,
                    str(layer.n_checked),
                    str(layer.n_skipped),
                    f"{layer.relative_error:.2e}",
                    f"{layer.max_difference:.2e}",
                    "passed" if layer.passed else "FAILED",
                ]
                for layer in report.layers
            ],
            right=(1, 2, 3, 4),
        )
        print(f"gradient check: {'passed' if report.passed else 'FAILED'} (tolerance {report.tolerance:g})")
    if not report.passed:
        raise typer.Exit(1)


def _model_and_data(model: Path, source: Source, n_rows: int) -> tuple[Network, NDArray[Any], NDArray[Any]]:
    from gpuprop.estimators.predictors import load_predictor

    predictor = load_predictor(model, "numpy")
    network, (X, y) = predictor.network, predictor.network_rows(source)
    return network, X[:n_rows], y[:n_rows]
