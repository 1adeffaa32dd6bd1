"""A network and one sample for it: the worked example, or a model of the user's with a row of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuprop.cli.options import OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.model.network import Network
    from gpuprop.training.parts import Source

__all__ = ["subject_and_sample"]


def subject_and_sample(
    model: Path | None,
    data: str | None,
    sample: int | None,
    target: str | None,
    labels: str | None,
    header: bool | None,
) -> tuple[str, Network, NDArray[Any], NDArray[Any]]:
    """Return a description, the network, and its sample as a batch of one row with its target."""
    from gpuprop.learn.trace import worked_example
    from gpuprop.training.parts import Source

    if model is None:
        if (data, sample, target, labels, header) != (None, None, None, None, None):
            raise OptionError("got a sample without MODEL, expected both: the worked example has a sample of its own")
        return "the worked example", *worked_example()
    if data is None:
        raise OptionError("MODEL needs --data DATA, which holds the sample, and takes --sample N")
    network, x, y = _model_and_sample(model, sample or 0, Source(data, target, labels, header))
    return f"{model}, sample {sample or 0} of {data}", network, x, y


def _model_and_sample(model: Path, row: int, source: Source) -> tuple[Network, NDArray[Any], NDArray[Any]]:
    from gpuprop.estimators.predictors import load_predictor

    predictor = load_predictor(model, "numpy")
    network, (X, y) = predictor.network, predictor.network_rows(source)
    if row >= len(X):
        raise OptionError(f"--sample: got {row}, expected 0 to {len(X) - 1}: {source.data} has {len(X):,} rows")
    return network, X[row : row + 1], y[row : row + 1]
