"""Cases of the precisions of products: what tensor cores multiply, or a device without them emulates."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gpuprop.core.parameters import Parameters
from gpuprop.core.precision import PRECISIONS
from gpuprop.maths.activations import get_activation
from gpuprop.measure.equivalence import tolerances
from gpuprop.measure.equivalence.case import SHAPES, Case, Check, Output, normal

if TYPE_CHECKING:
    from gpuprop.core.ops import Ops
    from gpuprop.core.plan import Backend

__all__ = ["cases"]

LARGE = ((300, 39, 401), (513, 39, 961))
"""Shapes whose results take the middle and the large tiles of tensor cores."""


def cases() -> Iterator[Case]:
    """Yield the three products of a layer in each precision but float32, whose cases are those of the layers."""
    for precision in PRECISIONS[1:]:
        for shape in SHAPES + LARGE:
            name = f"{precision} {'x'.join(map(str, shape))}"
            yield Case("precision", name, "float32", partial(products, precision, shape), large=shape in LARGE)


def products(precision: str, shape: tuple[int, int, int], plain: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """Forward pass, hidden delta and gradient against float64, in the bound of the precision."""
    ops = cast("Backend", plain).in_precision(precision, emulate=True)
    n, n_in, n_out = shape
    rng = np.random.default_rng(9)
    x, w, delta = normal(rng, (n, n_in), dtype), normal(rng, (n_in, n_out), dtype), normal(rng, (n, n_out), dtype)
    layer = Parameters.on_device(ops, np.concatenate([w.ravel(), np.zeros(n_out, dtype)]), (n_in, n_out))
    gradients = Parameters.on_device(ops, np.zeros(w.size + n_out, dtype), (n_in, n_out))
    inputs, deltas, identity = ops.asarray(x, dtype), ops.asarray(delta, dtype), get_activation("identity")
    z, below = Output(ops, (n, n_out), dtype), Output(ops, (n, n_in), dtype)
    ops.forward(inputs, layer.weights[0], layer.biases[0], identity, None, z.array)
    ops.hidden_delta(deltas, layer.weights[0], identity, inputs, None, below.array)
    ops.accumulate_gradient(inputs, deltas, gradients.weights[0], gradients.biases[0], accumulate=False)
    found = Parameters(gradients.to_host(ops), (n_in, n_out)).weights[0]
    for what, actual, left, right in (
        ("forward", z.read(), x, w), ("hidden delta", below.read(), delta, w.T), ("gradient", found, x.T, delta)
    ):  # fmt: skip
        wide = left.astype(np.float64), right.astype(np.float64)
        magnitude, expected = np.abs(wide[0]) @ np.abs(wide[1]), wide[0] @ wide[1]
        bound = tolerances.product_bound(magnitude, left.shape[1], dtype, precision)
        yield Check(what, actual, expected, bound)
        if precision == "tf32x3":
            numpys = np.abs(left @ right - expected).max()
            limit = 2 * numpys + 4 * tolerances.unit(dtype) * magnitude.max()
            yield Check(f"{what}: largest error beside float32's", np.abs(actual - expected).max(), 0.0, limit)
