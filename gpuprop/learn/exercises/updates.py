"""Exercises on training: the accumulator, the update, the initial weights, and a kernel's indexing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpuprop.learn.exercises.exercise import Case, Exercise, Generator, Mistake, gradient

__all__ = ["ACCUMULATOR", "BLOCK", "INITIALISATION", "KERNEL", "UPDATE"]


def _rng() -> np.random.Generator:
    return np.random.default_rng(1848)


# --- 4 ----------------------------------------------------------------------------------------------------------


def _samples() -> list[Case]:
    rng = _rng()
    # The layer has as many units as the layer below, so that a transposed outer product gives numbers and not an error.
    return [(rng.normal(size=(n, units)), rng.normal(size=(n, units))) for n, units in ((3, 2), (5, 4))]


def _mean_gradients(activations: Any, deltas: Any) -> Any:
    """Compute the gradients by differences of the mean over the samples of sum(delta * (a W + b))."""
    n, below = activations.shape
    units = deltas.shape[1]
    weights = gradient(lambda W: float(np.sum(deltas * (activations @ W))) / n, np.zeros((below, units)))
    biases = gradient(lambda b: float(np.sum(deltas * b)) / n, np.zeros(units))
    return weights, biases


ACCUMULATOR = Exercise(
    title="The accumulators of the batch's gradient",
    function="accumulate",
    template='''"""Exercise 4: the accumulators.

The gradient of a batch is the mean over its samples. For one sample with activations a (of the layer below)
and deltas d the derivative by weight (i, j) is a_i d_j, and by bias j it is d_j.
"""

import numpy as np


def accumulate(activations, deltas):
    """Return weight_grads (n_below, n_units) and bias_grads (n_units,), both means over the samples.

    activations has shape (n_samples, n_below), deltas (n_samples, n_units).
    """
    n_samples = len(activations)
    weight_grads = np.zeros((activations.shape[1], deltas.shape[1]))
    bias_grads = np.zeros(deltas.shape[1])
    for a, d in zip(activations, deltas):
        ...  # your turn: what each sample adds
    return weight_grads, bias_grads  # and is this the mean?
''',
    against="central differences of the mean",
    cases=_samples,
    right=_mean_gradients,
    mistakes=(
        Mistake(
            "1/m is forgotten: that is the sum over the samples, and the gradient is the mean",
            lambda a, d: (a.T @ d, d.sum(axis=0)),
        ),
        Mistake(
            "only the last sample is left: each sample overwrites the accumulators (=) and must add to them (+=)",
            lambda a, d: (np.outer(a[-1], d[-1]) / len(a), d[-1] / len(a)),
        ),
        Mistake(
            "only the last sample is left: each sample overwrites the accumulators (=) and must add to them (+=); "
            "and 1/m is missing",
            lambda a, d: (np.outer(a[-1], d[-1]), d[-1]),
        ),
        Mistake(
            "the outer product is the wrong way round: element (i, j) is a_i d_j, so use outer(a, d)",
            lambda a, d: (d.T @ a / len(a), d.mean(axis=0)),
        ),
    ),
)

# --- 5 ----------------------------------------------------------------------------------------------------------

_RATE, _MOMENTUM = 0.1, 0.9


def _parameters() -> list[Case]:
    rng = _rng()
    return [(*(rng.normal(size=shape) for _ in range(3)), _RATE, _MOMENTUM) for shape in ((3,), (2, 4))]


def _momentum(weights: Any, velocity: Any, weight_grads: Any, learning_rate: float, momentum: float) -> Any:
    from gpuprop.maths.optimizers import Momentum

    parameters, state = weights.ravel().copy(), velocity.ravel().copy()
    scratch = [np.empty_like(parameters)] * Momentum.scratch_arrays
    rule = Momentum(momentum=momentum)
    rule.update(parameters, weight_grads.ravel(), {"velocity": state}, learning_rate, 1, scratch, parameters.size)
    return parameters.reshape(weights.shape), state.reshape(weights.shape)


UPDATE = Exercise(
    title="The update, with momentum",
    function="update",
    template='''"""Exercise 5: the update, with momentum.

The velocity remembers the steps so far. Multiply it by the factor `momentum`, and subtract
learning_rate * weight_grads; then the weights move by the new velocity.
"""


def update(weights, velocity, weight_grads, learning_rate, momentum):
    """Return the new weights and the new velocity; all arrays have one shape."""
    velocity = ...  # your turn
    weights = ...  # your turn
    return weights, velocity
''',
    against="the library's optimizer",
    cases=_parameters,
    right=_momentum,
    mistakes=(
        Mistake(
            "that climbs: the gradient points uphill, so subtract it",
            lambda w, v, g, rate, momentum: (w + momentum * v + rate * g, momentum * v + rate * g),
        ),
        Mistake(
            "the old velocity is forgotten: that is plain gradient descent",
            lambda w, v, g, rate, momentum: (w - rate * g, -rate * g),
        ),
        Mistake(
            "the weights move by the old velocity; compute the new velocity first",
            lambda w, v, g, rate, momentum: (w + v, momentum * v - rate * g),
        ),
        Mistake(
            "the learning rate is missing: subtract learning_rate * weight_grads from the velocity",
            lambda w, v, g, rate, momentum: (w + momentum * v - g, momentum * v - g),
        ),
    ),
)

# --- 7 ----------------------------------------------------------------------------------------------------------


def _fans() -> list[Case]:
    return [(Generator(3), 400, 300), (Generator(4), 250, 500)]


def _moments(answer: Any) -> Any:
    """Return shape, scaled mean and deviation, and 0 if the units of the layer are all alike, else 1."""
    weights = np.atleast_2d(answer)
    scale = np.sqrt(weights.shape[0] / 2)  # so that the right deviation is 1
    alike = float(np.ptp(weights, axis=1).max() > 0)
    return np.array([*weights.shape, scale * weights.mean(), scale * weights.std(), alike])


def _with_deviation(rng: Generator, fan_in: int, fan_out: int, deviation: float) -> Any:
    return np.random.default_rng(rng.seed).normal(0, deviation, (fan_in, fan_out))


INITIALISATION = Exercise(
    title="Initial weights for relu",
    function="initialise",
    template='''"""Exercise 7: initial weights.

Units that start alike stay alike, so weights start at random. How large should they be? A relu layer passes
on as much variance as it gets if its weights have mean 0 and variance 2 / fan_in (He et al., 2015).
"""


def initialise(rng, fan_in, fan_out):
    """Return weights of shape (fan_in, fan_out), drawn from rng, a numpy.random.Generator."""
    return ...  # your turn
''',
    against="the mean and the deviation of the task",
    cases=_fans,
    right=lambda rng, fan_in, fan_out: np.array([fan_in, fan_out, 0.0, 1.0, 1.0]),
    mistakes=(
        Mistake(
            "the shape is (fan_out, fan_in): a row belongs to a unit that weights leave, so use (fan_in, fan_out)",
            lambda rng, fan_in, fan_out: _with_deviation(rng, fan_in, fan_out, (2 / fan_in) ** 0.5).T,
        ),
        Mistake(
            "all weights are equal: every unit of the layer then computes and learns the same forever",
            lambda rng, fan_in, fan_out: np.zeros((fan_in, fan_out)),
        ),
        Mistake(
            "that is variance (2 / fan_in)^2: the deviation must be the square root of 2 / fan_in",
            lambda rng, fan_in, fan_out: _with_deviation(rng, fan_in, fan_out, 2 / fan_in),
        ),
        Mistake(
            "that is variance 1 / fan_in; relu lets half of the signal through, so the variance needs a factor 2",
            lambda rng, fan_in, fan_out: _with_deviation(rng, fan_in, fan_out, (1 / fan_in) ** 0.5),
        ),
        Mistake(
            "that is variance 2 / fan_out; a unit's net input is a sum over its fan_in inputs",
            lambda rng, fan_in, fan_out: _with_deviation(rng, fan_in, fan_out, (2 / fan_out) ** 0.5),
        ),
        Mistake(
            "that is variance 1: net inputs grow by sqrt(fan_in / 2) with every layer",
            lambda rng, fan_in, fan_out: _with_deviation(rng, fan_in, fan_out, 1.0),
        ),
        Mistake(
            "the mean is not 0: rng.random() lies between 0 and 1; use rng.normal, or an interval around 0",
            lambda rng, fan_in, fan_out: (
                np.random.default_rng(rng.seed).random((fan_in, fan_out)) * (2 / fan_in) ** 0.5
            ),
        ),
    ),
    observe=_moments,
    rtol=0.02,
    atol=0.02,
)

# --- 8 ----------------------------------------------------------------------------------------------------------

BLOCK = (4, 4)


def _matrices() -> list[Case]:
    rng = _rng()
    shapes = ((4, 4), (5, 9))
    return [(rng.normal(size=shape), rng.uniform(0.1, 0.9, size=shape), np.full(shape, np.nan)) for shape in shapes]


def _reached(error: Any, a: Any, delta: Any, rows: int, columns: int) -> Any:
    """Return the answer of a kernel that computes only the first rows and columns."""
    found = np.full_like(delta, np.nan)
    found[:rows, :columns] = (error * a * (1 - a))[:rows, :columns]
    return found


def _swapped(error: Any, a: Any, delta: Any) -> Any:
    down, across = (-(-size // block) * block for size, block in zip(delta.shape, BLOCK, strict=True))
    return _reached(error, a, delta, across, down)  # it reaches as many rows as there are threads along x


KERNEL = Exercise(
    title="The indexing of a CUDA kernel",
    function="multiply_derivative",
    template=Path(__file__).with_name("kernel_task.txt").read_text(encoding="utf-8"),
    against="NumPy, on matrices of 4 x 4 and of 5 x 9",
    cases=_matrices,
    right=lambda error, a, delta: np.multiply(error, np.multiply(a, np.subtract(1, a))),
    mistakes=(
        Mistake(
            "only the first block's elements are computed: the index is blockIdx * blockDim + threadIdx",
            lambda error, a, delta: _reached(error, a, delta, *BLOCK),
        ),
        Mistake("x and y are exchanged: x counts along a row, so it gives the column", _swapped),
        Mistake(
            "blocks overlap: the index is blockIdx * blockDim + threadIdx, and not blockIdx + threadIdx",
            lambda error, a, delta: _reached(
                error,
                a,
                delta,
                *(-(-size // block) + block - 1 for size, block in zip(delta.shape, BLOCK, strict=True)),
            ),
        ),
    ),
    kernel=True,
)
