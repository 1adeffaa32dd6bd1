"""Predictions: the cases that are timed, and the process of one contender that predicts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from gpuprop.measure.bench.peers.configs import CONFIGS, Array, load, probabilities
from gpuprop.measure.bench.peers.libraries import CONTENDERS
from gpuprop.measure.bench.timing import serve

__all__ = ["INPUTS", "PREDICTORS", "ROWS", "TURN", "Inputs", "able", "cases", "work"]

#: Who predicts, and who of them takes more than contiguous float32.
PREDICTORS = ("gpuprop", "gpuprop-estimator", "numpy", "sklearn", "torch", "jax")
_ANY_INPUTS = ("gpuprop", "gpuprop-estimator", "numpy")

ROWS = (1, 10, 100, 1_000, 10_000)
"""The numbers of rows of a call."""

TURN = 0.06
"""Seconds of a turn: there are many cases."""

#: Seconds before a turn: threads of BLAS that have multiplied go on looking for work for some twenty milliseconds, and
#: would take the processor of the contender whose turn is next.
_SETTLE = 0.04


class Inputs(NamedTuple):
    """How the inputs of a call lie in memory; `scale` is what the network multiplies them by first."""

    make: Callable[[Array], Array]
    scale: float | None = None


def _other_dtype(X: Array) -> Array:
    return X.astype(np.float64 if X.dtype == np.float32 else np.float32)


INPUTS = {
    "contiguous": Inputs(np.ascontiguousarray),
    "Fortran order": Inputs(np.asfortranarray),
    "columns of a wider array": Inputs(lambda X: np.hstack([X, X])[:, 5 : 5 + X.shape[1]]),
    "another float type": Inputs(_other_dtype),
    "bytes, scaled": Inputs(lambda X: np.round(X * 255).astype(np.uint8), 1 / 255),
}
"""The layouts and dtypes of inputs, by their names in tables."""


def able(contenders: list[str], dtype: str, inputs: str) -> list[str]:
    """Return those who predict for such inputs; scikit-learn's estimators have no scaling of their own."""
    plain = dtype == "float32" and inputs == "contiguous"
    found = [name for name in contenders if name in (PREDICTORS if plain else _ANY_INPUTS)]
    return [name for name in found if INPUTS[inputs].scale is None or name != "gpuprop-estimator"]


def cases() -> Iterator[tuple[str, str, int]]:
    """Yield dtype, inputs and number of rows of each case."""
    for dtype in ("float32", "float64"):
        for inputs in INPUTS:
            for n_rows in ROWS:
                yield dtype, inputs, n_rows


def work(name: str, config_name: str) -> None:
    """Answer requests for predictions, which are timed, and for their error."""
    config = replace(CONFIGS[config_name], n_samples=max(ROWS))
    X, y = load(config)
    contender = CONTENDERS[name](config, X, y)
    made: dict[tuple[str, str, int], tuple[Callable[[Array], Array], Array]] = {}

    def case(dtype: str, inputs: str, n_rows: int) -> tuple[Callable[[Array], Array], Array]:
        if (dtype, inputs, n_rows) not in made:
            made.clear()
            make, scale = INPUTS[inputs]
            made[dtype, inputs, n_rows] = (
                contender.predictor(dtype, scale),
                make(X[:n_rows].astype(dtype, copy=False)),
            )
        return made[dtype, inputs, n_rows]

    def run(units: int, dtype: str, inputs: str, n_rows: int) -> float:
        predict, rows = case(dtype, inputs, n_rows)
        time.sleep(_SETTLE)
        predict(rows)
        begin = time.perf_counter()
        for _ in range(units):
            predict(rows)
        return (time.perf_counter() - begin) / units

    def error(dtype: str, inputs: str, n_rows: int) -> float:
        predict, rows = case(dtype, inputs, n_rows)
        expected = probabilities(config, contender.layers(), rows * (INPUTS[inputs].scale or 1.0))
        return float(np.abs(predict(rows) - expected).max())

    serve({}, {"run": run, "error": error})
