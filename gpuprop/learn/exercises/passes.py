"""Exercises on the passes of a network: the logistic function's derivative, the two deltas, softmax."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuprop.learn.exercises.exercise import Case, Exercise, Mistake, central_difference, gradient

__all__ = ["HIDDEN_DELTA", "LOGISTIC_DERIVATIVE", "OUTPUT_DELTA", "SOFTMAX"]


def _g(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def _rng() -> np.random.Generator:
    return np.random.default_rng(1847)


# --- 1 ----------------------------------------------------------------------------------------------------------


def _outputs() -> list[Case]:
    return [(_g(np.array([-3.0, -0.5, 0.0, 0.25, 2.0])),), (_g(_rng().normal(size=(3, 2))),)]


LOGISTIC_DERIVATIVE = Exercise(
    title="The logistic function's derivative, from its output",
    function="logistic_derivative",
    template='''"""Exercise 1: the logistic function's derivative, from its output.

For g(z) = 1 / (1 + e^-z) the derivative dg/dz can be written with g alone. A layer that has computed
a = g(z) then no longer needs z, nor another exponential.
"""


def logistic_derivative(a):
    """Return dg/dz, where a = g(z): an array of any shape."""
    return ...  # your turn
''',
    against="central differences of the logistic function",
    cases=_outputs,
    right=lambda a: central_difference(_g, np.log(a / (1 - a))),
    mistakes=(
        Mistake(
            "that is g(a) (1 - g(a)): the logistic function was applied a second time; a is already its output",
            lambda a: _g(a) * (1 - _g(a)),
        ),
        Mistake("that is 1 - a^2, the derivative of tanh; derive g = 1 / (1 + e^-z)", lambda a: 1 - a * a),
        Mistake(
            "the sign is wrong: g rises, so its derivative is positive; use 1 - a, not a - 1", lambda a: a * (a - 1)
        ),
    ),
)

# --- 2 ----------------------------------------------------------------------------------------------------------


def _outputs_and_targets() -> list[Case]:
    a, y = _g(_rng().normal(size=(4, 3))), _rng().uniform(size=(4, 3))
    return [(np.array([[0.75136507, 0.772928465]]), np.array([[0.01, 0.99]])), (a, y)]


OUTPUT_DELTA = Exercise(
    title="The delta of a logistic output layer under squared error",
    function="output_delta",
    template='''"""Exercise 2: the delta of the output layer.

The outputs are logistic, a = g(z), the targets are y, and each sample has the error E = 1/2 sum (y - a)^2.
The delta of an output is dE/dz, which the chain rule gives as dE/da times da/dz. In the worked example the
first output has a = 0.75136507, y = 0.01 and delta = 0.138498562.
"""


def output_delta(a, y):
    """Return dE/dz; a and y have shape (n_samples, n_outputs)."""
    return ...  # your turn
''',
    against="central differences of the squared error",
    cases=_outputs_and_targets,
    right=lambda a, y: central_difference(lambda z: 0.5 * (y - _g(z)) ** 2, np.log(a / (1 - a))),
    mistakes=(
        Mistake(
            "that is a - y: the factor da/dz = a (1 - a) is missing; it cancels with the cross-entropy, but not here",
            lambda a, y: a - y,
        ),
        Mistake(
            "the sign is wrong: dE/da = -(y - a) = a - y; a step against this delta would increase the error",
            lambda a, y: (y - a) * a * (1 - a),
        ),
        Mistake("there is a factor 2 too much: the error has a factor 1/2", lambda a, y: 2 * (a - y) * a * (1 - a)),
        Mistake(
            "the factor da/dz is a (1 - a), with the output a; y (1 - y) is the target's",
            lambda a, y: (a - y) * y * (1 - y),
        ),
    ),
)


# --- 3 ----------------------------------------------------------------------------------------------------------


def _layers() -> list[Case]:
    rng = _rng()
    # The first weights are square, so that a forgotten transpose gives numbers and not an error.
    return [
        (rng.normal(size=(n, above)), rng.normal(size=(units, above)), _g(rng.normal(size=(n, units))))
        for n, units, above in ((3, 3, 3), (2, 4, 3))
    ]


def _hidden_delta(delta_above: Any, weights_above: Any, a: Any) -> Any:
    """Compute the delta by differences of an error whose derivative by the layer above is `delta_above`."""
    return gradient(lambda z: float(np.sum(delta_above * (_g(z) @ weights_above))), np.log(a / (1 - a)))


HIDDEN_DELTA = Exercise(
    title="The delta of a hidden layer",
    function="hidden_delta",
    template='''"""Exercise 3: the delta of a hidden layer.

The layer above computed z_above = a @ weights_above + biases_above, and its delta is known. Pass the delta
back through the weights, and then through the logistic function a = g(z) of this layer. The network's
weights have a row for each unit they leave and a column for each unit they enter.
"""


def hidden_delta(delta_above, weights_above, a):
    """Return dE/dz of this layer, shape (n_samples, n_units).

    delta_above has shape (n_samples, n_above), weights_above (n_units, n_above), a (n_samples, n_units).
    """
    return ...  # your turn
''',
    against="central differences through the layer above",
    cases=_layers,
    right=_hidden_delta,
    mistakes=(
        Mistake(
            "the factor a (1 - a) is missing: the delta times the weights gives dE/da, and the delta is dE/dz",
            lambda delta_above, weights_above, a: delta_above @ weights_above.T,
        ),
        Mistake(
            "the weights are not transposed: the forward pass uses a @ W, the backward pass delta @ W.T",
            lambda delta_above, weights_above, a: (
                (delta_above @ weights_above[: delta_above.shape[1]]) * a * (1 - a)
                if weights_above.shape[0] == weights_above.shape[1]
                else None
            ),
        ),
        Mistake(
            "the delta is multiplied by a instead of a (1 - a), the derivative of the logistic function",
            lambda delta_above, weights_above, a: (delta_above @ weights_above.T) * a,
        ),
    ),
)

# --- 6 ----------------------------------------------------------------------------------------------------------


def _scores() -> list[Case]:
    return [
        (np.array([[5.1, 3.2, -1.7, -2.0], [0.0, 1.0, 0.0, -1.0]]),),
        (np.array([[1005.1, 1003.2, 998.3, 998.0], [-1e4, 0.0, 1e4, 3.0]]),),
    ]


def _softmax(z: Any) -> Any:
    """Compute each share as 1 / sum exp(z_j - z_k), one number at a time."""
    with np.errstate(over="ignore"):
        return np.array([[1 / sum(np.exp(other - one) for other in row) for one in row] for row in z])


def _naive(z: Any, axis: int | None = 1) -> Any:
    with np.errstate(all="ignore"):
        return np.exp(z) / np.exp(z).sum(axis=axis, keepdims=True)


def _shifted(z: Any, axis: int | None) -> Any:
    shifted = np.exp(z - z.max(axis=axis, keepdims=True))
    return shifted / shifted.sum(axis=axis, keepdims=True)


SOFTMAX = Exercise(
    title="Softmax that does not overflow",
    function="softmax",
    template='''"""Exercise 6: softmax.

Softmax turns the scores z of each sample into shares a_k = exp(z_k) / sum_j exp(z_j). Scores may be as large
as 10,000, where exp overflows; but the shares do not change if you add one number to all scores of a sample.
"""

import numpy as np


def softmax(z):
    """Return the shares; z has shape (n_samples, n_classes), and each row of the answer sums to 1."""
    return ...  # your turn
''',
    against="the definition, share by share",
    cases=_scores,
    right=_softmax,
    mistakes=(
        Mistake("exp overflows for large scores; subtract each row's largest score first", _naive),
        Mistake(
            "the sum runs over all samples together; each row needs its own, axis=1 with keepdims=True",
            lambda z: _shifted(z, None),
        ),
        Mistake("the sum runs over the samples, which are axis 0; the classes are axis 1", lambda z: _shifted(z, 0)),
        Mistake(
            "these are exponentials, not shares: they are not divided by the sum",
            lambda z: np.exp(z - z.max(axis=1, keepdims=True)),
        ),
    ),
)
