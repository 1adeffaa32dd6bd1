"""``gpuprop gradcheck``: hold the gradient of a network against central differences."""

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

Without MODEL a small float64 network with random data is checked; MODEL is the folder of a run or a model file and
needs --data. The exit status is 1 if any layer fails.

\b
Examples:
  gpuprop gradcheck
  gpuprop gradcheck --activation gelu --loss poisson --hidden 8,8
  gpuprop gradcheck gpuprop-iris --data iris.csv --target species
"""

_FEATURES, _OUTPUTS = 4, 3


def register(app: typer.Typer) -> None:
    """Add the command ``gradcheck``."""
    app.command("gradcheck", help=_HELP, short_help="Check the gradient against central differences.")(gradcheck)


def gradcheck(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="The folder of a run, or a model file.", show_default=False)
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="DATA", help="Data for MODEL, with targets.")] = None,
    target: Target = None,
    labels: Labels = None,
    header: Header = None,
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="How many rows of data are used.")] = 20,
    activation: Annotated[
        Any,
        typer.Option(
            metavar="NAME", help="Of the hidden layers of the small network.  [default: tanh]", parser=parse_activation
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the small network.  [default: categorical_cross_entropy]"),
    ] = None,
    hidden: Annotated[
        Any,
        typer.Option(metavar="SIZES", help="Hidden layers of the small network.  [default: 6,5]", parser=parse_hidden),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Of network, data and sample.")] = 0,
    json: Json = False,
) -> None:
    """Check, print, and exit with 1 on failure."""
    from gpuprop.cli.console import print_json, print_table
    from gpuprop.learn.gradient_check import check_gradients
    from gpuprop.training.parts import Source

    if model is None:
        if data is not None:
            raise OptionError("got --data without MODEL, expected both: without MODEL the data are random")
        with wrong_options():
            network = _small_network(activation or ("tanh",), loss, (6, 5) if hidden is None else hidden, seed)
        X, y = _random_data(network, rows, seed)
    else:
        if data is None or (activation, loss, hidden) != (None, None, None):
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


def _small_network(activation: tuple[str, ...], loss: str | None, hidden: tuple[int, ...], seed: int) -> Network:
    from gpuprop.model.network import Network

    return Network(
        (_FEATURES, *hidden, _OUTPUTS),
        hidden_activation=activation[0] if len(activation) == 1 else activation,
        loss=loss or "categorical_cross_entropy",
        dtype="float64",
        seed=seed,
        device="numpy",
    )


def _random_data(network: Network, n_rows: int, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return data on which the network's loss is defined."""
    import numpy as np

    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, _FEATURES))
    shape = (n_rows, _OUTPUTS)
    targets: dict[str, NDArray[Any]] = {
        "squared_error": rng.normal(size=shape),
        "binary_cross_entropy": rng.integers(0, 2, size=shape),
        "categorical_cross_entropy": rng.integers(0, _OUTPUTS, size=n_rows),
        "poisson": rng.poisson(2.0, size=shape),
    }
    return X, targets[network.loss_function.name]


def _model_and_data(model: Path, source: Source, n_rows: int) -> tuple[Network, NDArray[Any], NDArray[Any]]:
    from gpuprop.estimators.stored_models import load_network
    from gpuprop.training.parts import rows_for_model

    network = load_network(model, "numpy")
    X, y = rows_for_model(network, source)
    return network, X[:n_rows], y[:n_rows]
