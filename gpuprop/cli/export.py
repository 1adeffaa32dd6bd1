"""``gpuprop export``: a trained model for programs without gpuprop: ONNX, C, PyTorch, or scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuprop.cli.options import OptionError

if TYPE_CHECKING:
    from gpuprop.model.network import Network

__all__ = ["register"]

_HELP = """Write the network of the model in DIR for programs without gpuprop.

It becomes an ONNX file, a C header, a module of PyTorch with its state beside it (FILE.py and FILE.safetensors), or a
fitted estimator of scikit-learn. All of them take raw inputs and answer as predict_proba does.

The header needs nothing but the C library's mathematics, and comes with a test program that compares its answers with
the network's. --int8 makes weights of 8-bit integers, a quarter of the memory; with --data it says what that costs. The
model of a table is its network, for the inputs that the columns become.

\b
Examples:
  gpuprop export gpuprop-mnist --onnx mnist.onnx
  gpuprop export gpuprop-digits --c digits.h
  gpuprop export gpuprop-digits --c digits.h --int8 --data digits
  gpuprop export gpuprop-digits --torch digits.py
  gpuprop export gpuprop-digits --sklearn digits.joblib
"""
_TEST_ROWS = 8


def register(app: typer.Typer) -> None:
    """Add the command ``export``."""
    app.command("export", help=_HELP, short_help="Write a model as ONNX, C, PyTorch or scikit-learn.")(export)


def export(
    model: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run, or a model file.")],
    onnx: Annotated[
        Path | None, typer.Option("--onnx", metavar="FILE", help="An ONNX file to write; needs gpuprop[onnx].")
    ] = None,
    c: Annotated[Path | None, typer.Option("--c", metavar="FILE.h", help="A C header to write.")] = None,
    torch: Annotated[
        Path | None,
        typer.Option("--torch", metavar="FILE.py", help="A module of PyTorch to write, with FILE.safetensors beside."),
    ] = None,
    sklearn: Annotated[
        Path | None,
        typer.Option("--sklearn", metavar="FILE", help="An estimator of scikit-learn to write: .joblib or .pkl."),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights in the header.")] = False,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="A built-in data set or file, to say what --int8 costs on it.")
    ] = None,
) -> None:
    """Load, translate, write."""
    if all(path is None for path in (onnx, c, torch, sklearn)):
        raise OptionError("got none of --onnx, --c, --torch and --sklearn, expected one of them or several")
    _check_names(torch, sklearn)
    if c is None and (int8 or data is not None):
        raise OptionError("--int8 and --data belong to --c")

    from gpuprop.cli.console import warn_if_unfinished
    from gpuprop.cli.files import check_writable, written_whole
    from gpuprop.estimators.predictors import load_predictor

    for path in (onnx, c, torch, sklearn):
        if path is not None:
            check_writable(path)
    predictor = load_predictor(model, "numpy")
    warn_if_unfinished(model)
    network = predictor.network
    if onnx is not None:
        with written_whole(onnx, binary=True) as file:
            file.write(_onnx(network))
        print(f"{onnx}: {network!r}")
    if torch is not None:
        _write_torch(network, torch)
    if sklearn is not None:
        _write_sklearn(network, sklearn)
    if c is not None:
        _write_c(network, c, int8=int8)
        if data is not None:
            from gpuprop.model.c_header import rounded
            from gpuprop.training.parts import Source

            X, y = predictor.network_rows(Source(data))
            before, after = network.evaluate(X, y)[1], rounded(network).evaluate(X, y)[1]
            metric = "accuracy" if network.is_classifier else "R2"
            print(f"{data}: {metric} {before:.4f} with float32 weights, {after:.4f} with 8-bit weights")


def _check_names(torch: Path | None, sklearn: Path | None) -> None:
    """Refuse names from which a program could not import or read what is written."""
    if torch is not None and not (torch.suffix == ".py" and torch.stem.isidentifier()):
        raise OptionError(f"--torch: got {torch.name!r}, expected the name of a Python module such as digits.py")
    if sklearn is not None and sklearn.suffix not in (".joblib", ".pkl", ".pickle"):
        raise OptionError(f"--sklearn: got {sklearn.name!r}, expected a name that ends in .joblib or .pkl")


def _write_torch(network: Network, path: Path) -> None:
    from gpuprop.cli.files import written_whole
    from gpuprop.model.container import write_file
    from gpuprop.model.torch_module import torch_source, torch_state

    state = path.with_suffix(".safetensors")
    source = torch_source(network, state.name)
    write_file(state, torch_state(network), {})
    with written_whole(path) as file:
        file.write(source)
    print(f"{path}: {network!r}; {state}: its state; {path.stem}.load() returns the module")


def _write_sklearn(network: Network, path: Path) -> None:
    import pickle

    import joblib

    from gpuprop.cli.files import written_whole
    from gpuprop.estimators.as_sklearn import sklearn_estimator

    model = sklearn_estimator(network)
    with written_whole(path, binary=True) as file:
        if path.suffix == ".joblib":
            joblib.dump(model, file)
        else:
            pickle.dump(model, file)
    print(f"{path}: {model!r}; joblib.load or pickle reads it where scikit-learn of this version is installed")


def _onnx(network: Network) -> Any:
    try:
        from gpuprop.estimators.onnx_graph import build
    except ImportError as error:
        raise OptionError("--onnx: the package onnx is not installed: pip install 'gpuprop[onnx]'") from error
    if network.input_scaling is not None:
        from gpuprop.model.unscaled import without_scaling

        network = without_scaling(network)
    return build(network, classifier=network.is_classifier).SerializeToString()


def _write_c(network: Network, path: Path, *, int8: bool) -> None:
    import re

    import numpy as np

    from gpuprop.cli.files import written_whole
    from gpuprop.model.c_header import c_header, c_test_program, rounded

    name = re.sub(r"\W+", "_", path.stem)
    name = name if re.match(r"[A-Za-z]", name) else f"model_{name}"
    header = c_header(network, name, int8=int8)
    scaling = network.input_scaling
    rows = np.random.default_rng(0).uniform(-1.0, 1.0, (_TEST_ROWS, network.layer_sizes[0]))
    if scaling is not None:
        rows = rows / scaling.scale + scaling.shift
    rows = rows.astype(np.float32)
    outputs = (rounded(network) if int8 else network).forward(rows)
    test = path.with_name(f"{path.stem}_test.c")
    with written_whole(path) as file:
        file.write(header)
    with written_whole(test) as file:
        file.write(c_test_program(path.name, name, rows, outputs))
    print(f"{path}: {network!r}, {'8-bit' if int8 else 'float32'} weights; {test}: its test program")
