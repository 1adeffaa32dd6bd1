"""A hint for each exercise, and what fills its holes, for learners who are stuck."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gpuprop.learn.exercises.exercise import Exercise

__all__ = ["HELP", "Help", "hint", "solution"]

#: A hole with its comment; before a colon it stands for a condition.
_HOLE = re.compile(r"\.\.\.(:?)  # your turn[^\n]*")


@dataclass(frozen=True)
class Help:
    """What unfolds.

    Attributes
    ----------
    hint : str
        The step that learners miss, without the answer.
    holes : tuple of str
        What stands in place of each hole, from the first to the last.
    mended : tuple of two str, or empty
        A further line of the task that must change, and what it becomes.
    """

    hint: str
    holes: tuple[str, ...]
    mended: tuple[str, str] | tuple[()] = ()


#: By the name of the function that an exercise asks for.
HELP = {
    "logistic_derivative": Help(
        "Differentiate 1 / (1 + e^-z), which gives e^-z / (1 + e^-z)^2. Which part of it is a, and what is the rest in "
        "terms of a?",
        ("a * (1 - a)",),
    ),
    "output_delta": Help(
        "Two factors: dE/da is the derivative of half a square, and da/dz is what exercise 1 gives.",
        ("(a - y) * a * (1 - a)",),
    ),
    "hidden_delta": Help(
        "Each unit collects, over the units above, their delta times the weight that leads there: that is a "
        "product with "
        "the transposed weights. Then multiply by the slope of this layer, element by element.",
        ("(delta_above @ weights_above.T) * a * (1 - a)",),
    ),
    "accumulate": Help(
        "One sample adds an outer product to the weights' gradient and its deltas to the biases'. Look at the last "
        "comment: a mean is a sum divided by the number of samples.",
        ("weight_grads += np.outer(a, d); bias_grads += d",),
        (
            "return weight_grads, bias_grads  # and is this the mean?",
            "return weight_grads / n_samples, bias_grads / n_samples",
        ),
    ),
    "update": Help(
        "Write the two sentences of the task as two lines. The second uses the new velocity, and adds it.",
        ("momentum * velocity - learning_rate * weight_grads", "weights + velocity"),
    ),
    "softmax": Help(
        "Subtract the largest score of each row before you take the exponential. Keep the axis "
        "(`keepdims=True`), so that "
        "the result has a column to subtract and to divide by.",
        ("(e := np.exp(z - z.max(axis=1, keepdims=True))) / e.sum(axis=1, keepdims=True)",),
    ),
    "initialise": Help(
        "`rng.normal` takes a standard deviation, and the task names a variance.",
        ("rng.normal(0.0, (2 / fan_in) ** 0.5, (fan_in, fan_out))",),
    ),
    "multiply_derivative": Help(
        "A block begins at blockIdx * blockDim, and a thread lies threadIdx further on; y counts rows and x "
        "columns. Some "
        "threads lie beyond the last row or column.",
        (
            "cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y",
            "cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x",
            "row < delta.shape[0] and column < delta.shape[1]",
        ),
    ),
}


def hint(exercise: Exercise) -> str:
    """Return the hint for an exercise."""
    return HELP[exercise.function].hint


def solution(exercise: Exercise) -> str:
    """Return the file of an exercise with its holes filled."""
    found = HELP[exercise.function]
    text = exercise.template
    for hole in found.holes:
        text = _HOLE.sub(hole + r"\1", text, count=1)
    if found.mended:
        text = text.replace(*found.mended)
    return text
