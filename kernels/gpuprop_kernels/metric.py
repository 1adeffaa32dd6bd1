"""What is counted beside the loss, of one row of outputs: hits, or squared residuals.

::

    class        1 where the largest output is the target's (the first of equals), else 0
    threshold    1 where every output is on the target's side of 0.5, else 0
    residual     sum over the outputs of (a - y)^2, from which R2 is formed

        a   .1 .7 .2        y   0 1 0        class 1, threshold 1, residual .14

A row counts with its sample weight. The metric looks at the outputs a that the loss was taken of, while they are in
shared memory (`row_metric`, for the head) or in registers (`metric_term`, for rows of any length), so that it costs a
few instructions a row and neither a launch nor memory of its own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gpuprop_kernels.target import device, i32, ld1

__all__ = ["METRICS", "metric_term", "row_metric"]

METRICS = ("class", "threshold", "residual")
"""The names of the metrics."""


@cache
def metric_term(metric: str, dt: Any) -> Any:
    """Return what one output adds to ``"threshold"`` (1 if on the wrong side of 0.5) or to ``"residual"``."""
    zero, one, half = dt(0), dt(1), dt(0.5)
    if metric == "residual":
        return device(lambda a, y: (a - y) * (a - y))
    return device(lambda a, y: zero if (a > half) == (y > half) else one)


@cache
def row_metric(metric: str, n_classes: int, dt: Any) -> Any:
    """Return ``score(shared, at, y_at)``: what outputs at ``shared[at]`` add to the metric, with targets at y_at."""
    zero, one = dt(0), dt(1)
    add = metric_term(metric, dt)
    if metric == "class":

        @device
        def same_class(shared, at, y_at):
            best, wanted = i32(0), i32(0)
            for q in range(1, n_classes):
                if ld1(shared, i32(at + q)) > ld1(shared, i32(at + best)):
                    best = i32(q)
                if ld1(shared, i32(y_at + q)) > ld1(shared, i32(y_at + wanted)):
                    wanted = i32(q)
            return one if best == wanted else zero

        return same_class

    counts_rows = metric == "threshold"

    @device
    def summed(shared, at, y_at):
        total = zero
        for q in range(n_classes):
            total += add(ld1(shared, i32(at + q)), ld1(shared, i32(y_at + q)))
        if counts_rows:
            return one if total == zero else zero
        return total

    return summed
