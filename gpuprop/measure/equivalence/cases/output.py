"""Cases of the output layer: each loss with its own activation and with others, its delta, its sums, its scores."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.ops import OutputLayer, Outputs
from gpuprop.maths.activations import get_activation
from gpuprop.maths.losses import get_loss
from gpuprop.measure.equivalence import oracle, tolerances
from gpuprop.measure.equivalence.case import DTYPES, Case, Check, Output, normal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.core.ops import Ops
    from gpuprop.maths.losses import Metric

__all__ = ["cases", "targets_for"]

PAIRS = (
    ("identity", "squared_error"),
    ("tanh", "squared_error"),
    ("gelu", "squared_error"),
    ("softmax", "squared_error"),
    ("logistic", "binary_cross_entropy"),
    ("softmax", "binary_cross_entropy"),
    ("softmax", "categorical_cross_entropy"),
    ("logistic", "categorical_cross_entropy"),
    ("exponential", "poisson"),
    ("softplus", "poisson"),
    ("identity", "absolute_error"),
    ("identity", "huber"),
    ("tanh", "huber(0.4)"),
    ("identity", "pinball(0.9)"),
)
"""Output activation and loss: the canonical pairs, and others that multiply by f' or by softmax's Jacobian."""


def cases() -> Iterator[Case]:
    """Yield the cases, pair by pair, then numbers of outputs."""
    for dtype in DTYPES:
        for activation, loss in PAIRS:
            metric: Metric = "class" if "entropy" in loss else "residual"
            for weighted in (False, True):
                name = f"{loss} of {activation}{', sample weights' if weighted else ''}"
                quick = weighted and (activation, loss) in oracle.CANONICAL
                yield Case("loss", name, dtype, partial(output_delta, activation, loss, metric, 7, 5, weighted), quick)
        for n, k in ((1, 1), (33, 16), (17, 17), (7, 33), (3, 300)):
            one = k == 1
            pair = ("logistic", "binary_cross_entropy") if one else ("softmax", "categorical_cross_entropy")
            check = partial(output_delta, *pair, "labels" if one else "class", n, k, False)
            yield Case("loss", f"{n} rows of {k} outputs", dtype, check, k == 17)
        check = partial(output_delta, "logistic", "binary_cross_entropy", "labels", 9, 4, True)
        yield Case("loss", "classes of their own", dtype, check)
        yield Case("loss", "weights of zero", dtype, no_weight)


def targets_for(loss: str, rng: np.random.Generator, n: int, k: int) -> NDArray[np.float64]:
    """Return targets that the loss is defined on."""
    if "entropy" not in loss and loss != "poisson":
        return rng.standard_normal((n, k))
    if loss == "poisson":
        return rng.poisson(1.5, (n, k)).astype(np.float64)
    if k == 1:
        return rng.integers(0, 2, (n, 1)).astype(np.float64)
    return np.eye(k)[rng.integers(0, k, n)]


def score(a: NDArray[Any], y: NDArray[Any], metric: str) -> NDArray[Any]:
    """Return what each sample counts in the accuracy, or its squared residual."""
    if metric == "class":
        return np.asarray((a.argmax(axis=1) == y.argmax(axis=1)) * 1.0)
    if metric == "labels":
        return np.asarray(((a > 0.5) == (y > 0.5)).all(axis=1) * 1.0)
    return np.asarray(((a - y) ** 2).sum(axis=1))


def output_delta(
    activation: str, loss: str, metric: Metric, n: int, k: int, weighted: bool, ops: Ops, dtype: np.dtype[Any]
) -> Iterator[Check]:
    """Delta, loss and score of a batch; the sums are added to what was there."""
    rng = np.random.default_rng(7)
    z, y = normal(rng, (n, k), dtype), targets_for(loss, rng, n, k).astype(dtype)
    weight = rng.uniform(0.5, 2, n).astype(dtype)
    wide, target = z.astype(np.float64), y.astype(np.float64)
    w = weight.astype(np.float64) if weighted else np.ones(n)
    a = oracle.activate(activation, wide)
    delta, totals = Output(ops, (n, k), dtype), ops.asarray(np.array([10.0, 20.0]), np.float64)
    sample_weight = ops.asarray(weight, dtype) if weighted else None
    outputs = Outputs(ops.asarray(z, dtype), ops.asarray(a, dtype), ops.asarray(y, dtype), sample_weight)
    layer = OutputLayer(get_activation(activation, output=True), get_loss(loss), metric)
    ops.output_delta(outputs, layer, float(w.sum()), delta.array, totals)
    slope = np.abs(oracle.loss_slope(loss, a, target)).max(axis=1, keepdims=True)
    scale = np.maximum(1.0, slope * np.abs(wide).max()) * (w / w.sum())[:, None]
    expected = oracle.output_delta(loss, activation, wide, target, w)
    yield Check("delta", delta.read(), expected, tolerances.elementwise_bound("loss", 0 * expected, dtype, scale))
    loss_sum, score_sum = np.array(ops.to_numpy(totals)) - (10.0, 20.0)
    per_sample = oracle.sample_losses(loss, activation, wide, target)
    size = float((np.abs(per_sample) + 8).sum())  # a loss near 0 is a difference of terms of order 1
    bound = 4 * tolerances.elementwise_bound("loss", size, dtype) + 16 * tolerances.unit("float64")
    yield Check("loss", loss_sum, (w * per_sample).sum(), bound)
    expected = (w * score(a, target, metric)).sum()
    bound = 4 * tolerances.elementwise_bound("loss", expected, dtype, 1.0) + 16 * tolerances.unit("float64")
    yield Check("score", score_sum, expected, bound)


def no_weight(ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """A batch whose weights are all zero has no loss and no gradient."""
    z, y = np.ones((3, 2), dtype), np.zeros((3, 2), dtype)
    delta, totals = Output(ops, (3, 2), dtype), ops.asarray(np.zeros(2), np.float64)
    device = partial(ops.asarray, dtype=dtype)
    outputs = Outputs(device(z), device(z), device(y), device(np.zeros(3)))
    layer = OutputLayer(get_activation("identity"), get_loss("squared_error"), "residual")
    ops.output_delta(outputs, layer, 0.0, delta.array, totals)
    yield Check("delta", delta.read(), np.zeros((3, 2)))
    yield Check("loss and score", np.array(ops.to_numpy(totals)), np.zeros(2))
