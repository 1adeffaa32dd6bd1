"""Eight exercises on backpropagation, each a small function with a hole that the learner fills.

    gpuprop exercise                       # lists them
    gpuprop exercise 3 --out task.py       # writes the third
    gpuprop exercise 3 --check task.py     # says whether it is right, and if not, names the likely mistake

``exercise``   the parts of an exercise: text, cases, the right answer, the likely mistakes
``passes``     exercises 1 to 3 and 6: the logistic function's derivative, deltas, softmax
``updates``    exercises 4, 5, 7 and 8: accumulator, update, initialisation, a kernel's indexing
``checking``   runs a learner's file in a process of its own (``runner``), and judges the answers
"""

from __future__ import annotations

from gpuprop.learn.exercises.checking import check
from gpuprop.learn.exercises.exercise import Exercise, Mistake
from gpuprop.learn.exercises.passes import HIDDEN_DELTA, LOGISTIC_DERIVATIVE, OUTPUT_DELTA, SOFTMAX
from gpuprop.learn.exercises.updates import ACCUMULATOR, INITIALISATION, KERNEL, UPDATE

__all__ = ["EXERCISES", "Exercise", "Mistake", "check"]

#: In the order of the course; the first is exercise 1.
EXERCISES: tuple[Exercise, ...] = (
    LOGISTIC_DERIVATIVE,
    OUTPUT_DELTA,
    HIDDEN_DELTA,
    ACCUMULATOR,
    UPDATE,
    SOFTMAX,
    INITIALISATION,
    KERNEL,
)
