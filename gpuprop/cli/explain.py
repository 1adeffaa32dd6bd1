"""``gpuprop explain``: what the inputs of one row contribute to a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuprop.cli.options import Arrays, Header, MissingValues, OptionError, Target, parse_arrays, parse_list

if TYPE_CHECKING:
    from gpuprop.estimators.predictors import Predictor

__all__ = ["register"]

_HELP = """Explain the prediction of the model in DIR for a row of INPUT.

It prints what each column contributes to the output, by integrated gradients from a baseline: black pixels, the
means of standardised columns, the medians and no category of a table. The contributions add up to the difference of
the outputs. Images are also shown as text; --out FILE.png writes the picture.

\b
Examples:
  gpuprop explain gpuprop-mnist mnist --row 3
  gpuprop explain gpuprop-digits digits --row 3 --out three.png
  gpuprop explain gpuprop-houses houses.csv --row 17 --most 20
"""
_BAR = 24


def register(app: typer.Typer) -> None:
    """Add the command ``explain``."""
    app.command("explain", help=_HELP, short_help="Say what the inputs contribute to a prediction.")(explain)


def explain(
    model: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run, or a model file.")],
    data: Annotated[str, typer.Argument(metavar="INPUT", help="A built-in data set, openml:NAME or a file.")],
    row: Annotated[int, typer.Option(metavar="N", min=0, help="The row, counted from 0.")] = 0,
    output: Annotated[
        str | None,
        typer.Option(metavar="CLASS|N", help="The class or the output to explain.  [default: the one predicted]"),
    ] = None,
    most: Annotated[int, typer.Option(metavar="N", min=1, help="How many columns to list at most.")] = 12,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="A picture to write.", show_default=False)
    ] = None,
    target: Target = None,
    header: Header = None,
    na: MissingValues = None,
    arrays: Arrays = None,
) -> None:
    """Load both, attribute, print."""
    import numpy as np

    from gpuprop.cli.console import print_notes, warn_if_unfinished
    from gpuprop.cli.files import check_writable, written_whole
    from gpuprop.estimators.predictors import load_predictor
    from gpuprop.learn.live.snapshot import image_shape
    from gpuprop.model.explanations import integrated_gradients
    from gpuprop.training.parts import Source

    if out is not None:
        check_writable(out)
    predictor = load_predictor(model, "numpy")
    warn_if_unfinished(model)
    rows = predictor.features(Source(data, target, None, header, parse_arrays(arrays), parse_list(na)))
    if row >= len(rows.X):
        raise OptionError(f"--row: got {row}, expected 0 to {len(rows.X) - 1}: {data} has {len(rows.X):,} rows")
    network = predictor.network
    inputs, owners, cells = _inputs(predictor, rows.X, row)
    found = integrated_gradients(network, inputs, _output(predictor, output))
    which, factor = int(found.outputs[0]), _unit(predictor, int(found.outputs[0]))
    sums = {name: factor * float(values[0]) for name, values in found.grouped(owners).items()}
    value = float(np.asarray(network.forward(inputs))[0, which])
    print(f"{model}: row {row} of {data}")
    print_notes(rows.notes)
    print(_said(predictor, which, value, factor))
    print(
        f"difference to the baseline {factor * found.difference[0]:+.4g}, of which all columns together explain "
        f"{sum(sums.values()):+.4g} ({int(found.steps[0])} gradients)\n"
    )
    shape = None if cells else image_shape(inputs.shape[1])
    if shape is not None:
        print(_as_text(found.values[0].reshape(shape)) + "\n")
    _print_bars(sums, cells, most)
    if out is not None:
        from gpuprop.learn import plots

        pixels = None if shape is None else np.asarray(inputs[0]).reshape(shape)
        figure = plots.attributions(sums, most=most, values=found.values[0], pixels=pixels, title=f"{data}, row {row}")
        with written_whole(out, binary=True) as file:
            figure.savefig(file, format="png")
        print(f"\npicture: {out}")


def _inputs(predictor: Predictor, X: Any, row: int) -> tuple[Any, list[str], dict[str, str]]:
    """Return the network's inputs for a row, the column that each belongs to, and the cells of a table."""
    import numpy as np

    columns = getattr(getattr(predictor, "model", None), "columns_", None)
    if columns is None:
        one = X[row : row + 1]
        one = np.asarray(one.toarray() if hasattr(one, "toarray") else one)
        return one, list(predictor.network.feature_names or [f"x{i}" for i in range(one.shape[1])]), {}
    one = X.iloc[row : row + 1]
    return columns.transform(one), columns.input_owners, {str(name): str(one[name].iloc[0]) for name in one.columns}


def _output(predictor: Predictor, given: str | None) -> int | None:
    """Return the number of the output that is asked for."""
    if given is None:
        return None
    names = [str(label) for label in predictor.classes or range(predictor.network.layer_sizes[-1])]
    if given not in names or predictor.network.layer_sizes[-1] < len(names):
        expected = (
            ", ".join(names) if predictor.network.layer_sizes[-1] == len(names) else "no such option: there is one"
        )
        raise OptionError(f"--output: got {given!r}, expected {expected}")
    return names.index(given)


def _unit(predictor: Predictor, which: int) -> float:
    """Return by what the outputs of a regression on a table are multiplied."""
    deviation = getattr(getattr(predictor, "model", None), "target_deviation_", None)
    return 1.0 if deviation is None else float(deviation[which])


def _said(predictor: Predictor, which: int, value: float, factor: float) -> str:
    if predictor.classes is None:
        mean = getattr(getattr(predictor, "model", None), "target_mean_", None)
        return f"predicted: {value if mean is None else value * factor + float(mean[which]):.6g}"
    labels = list(predictor.classes)
    single = predictor.network.layer_sizes[-1] == 1
    return f"output of class {labels[1] if single else labels[which]!r}: {value:.4f}"


def _print_bars(sums: dict[str, float], cells: dict[str, str], most: int) -> None:
    """Print the largest contributions, each with a bar from the middle."""
    listed = sorted(sums.items(), key=lambda item: -abs(item[1]))
    largest = max((abs(value) for value in sums.values()), default=0.0) or 1.0
    width = min(24, max(len(name) for name in sums))
    for name, value in listed[:most]:
        length = round(_BAR / 2 * abs(value) / largest)
        left = ("-" * length).rjust(_BAR // 2) if value < 0 else " " * (_BAR // 2)
        right = ("+" * length).ljust(_BAR // 2) if value >= 0 else " " * (_BAR // 2)
        cell = f"  = {cells[name]:.20}" if name in cells else ""
        print(f"{name[:width]:<{width}} {value:>+11.4g} {left}|{right}{cell}".rstrip())
    rest = [value for _, value in listed[most:]]
    if rest:
        print(f"{f'{len(rest)} others':<{width}} {sum(rest):>+11.4g}")


def _as_text(values: Any) -> str:
    """Return a picture of contributions: + and # speak for the output, - and = against it."""
    largest = float(abs(values).max()) or 1.0
    marks = {True: " .+#", False: " .-="}
    return "\n".join(
        "".join(2 * marks[bool(value >= 0)][min(3, int(4 * abs(value) / largest))] for value in line).rstrip()
        for line in values
    )
