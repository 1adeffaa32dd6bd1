"""Cases of the update: penalties, each optimizer over three steps, clipping, the limit on incoming weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.core.parameters import Parameters
from gpuprop.core.rule import UpdateRule
from gpuprop.maths.optimizers import OPTIMIZERS, get_optimizer
from gpuprop.measure.equivalence import oracle, tolerances
from gpuprop.measure.equivalence.case import DTYPES, Case, Check, normal

if TYPE_CHECKING:
    from gpuprop.core.ops import Ops

__all__ = ["cases"]

SIZES = (7, 5, 3)
LIMITS = ((None, None), (0.5, None), (100.0, None), (None, 0.8), (0.5, 0.8))
"""clip_norm and max_norm, in force and not."""


def cases() -> Iterator[Case]:
    """Yield the cases."""
    for dtype in DTYPES:
        yield Case("penalty", "l1 and l2", dtype, penalty, quick=True)
        for name in OPTIMIZERS:
            yield Case("update", name, dtype, partial(update, name, None, None), name in ("sgd", "adam"))
        for clip, limit in LIMITS[1:]:
            name = f"momentum, clip_norm {clip}, max_norm {limit}"
            yield Case("update", name, dtype, partial(update, "momentum", clip, limit), None not in (clip, limit))


def penalty(ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """l1 sign W + l2 W on the weights, not the biases, and what the loss gets."""
    rng = np.random.default_rng(8)
    flat, before = (normal(rng, (Parameters.count(SIZES),), dtype) for _ in range(2))
    flat[3] = 0.0
    parameters, gradients = (Parameters.on_device(ops, one.copy(), SIZES) for one in (flat, before))
    totals = ops.asarray(np.array([1.0, 2.0]), np.float64)
    ops.add_penalty(parameters, gradients, 0.25, 0.5, 3.0, totals)
    n = Parameters(flat, SIZES).n_weights
    w, expected = flat[:n].astype(np.float64), before.astype(np.float64)
    expected[:n] += 0.25 * np.sign(w) + 0.5 * w
    bound = tolerances.elementwise_bound("optimizer", expected, dtype, scale=1.0)
    yield Check("gradients", gradients.to_host(ops), expected, bound)
    value = 3 * (0.25 * np.abs(w).sum() + 0.25 * (w * w).sum())
    bound = tolerances.elementwise_bound("loss", [value, 2], dtype) + 16 * tolerances.unit("float64")
    yield Check("loss and score", np.array(ops.to_numpy(totals)), [1 + value, 2], bound)


def update(name: str, clip: float | None, limit: float | None, ops: Ops, dtype: np.dtype[Any]) -> Iterator[Check]:
    """Three steps, so that state and bias corrections count."""
    rng = np.random.default_rng(9)
    optimizer = get_optimizer(name)
    flat = normal(rng, (Parameters.count(SIZES),), dtype)
    parameters = Parameters.on_device(ops, flat.copy(), SIZES)
    n_padded, n_weights = parameters.flat.size, Parameters(flat, SIZES).n_weights
    state = {slot: ops.asarray(np.zeros(n_padded), dtype) for slot in optimizer.slots}
    scratch = tuple(ops.asarray(np.zeros(n_padded), dtype) for _ in range(max(1, optimizer.scratch_arrays)))
    rule = UpdateRule(optimizer, state, scratch, clip, limit)
    wide, memory = flat.astype(np.float64), oracle.optimizer_state(name, flat.size)
    for step in (1, 2, 3):
        g = normal(rng, flat.shape, dtype)
        gradients = Parameters.on_device(ops, g, SIZES)
        ops.update(parameters, gradients, rule, 0.01, step)
        clipped = g.astype(np.float64) if clip is None else oracle.clip_by_norm(g.astype(np.float64), clip)
        wide = oracle.optimize(name, wide, clipped, memory, 0.01, step, n_weights, **vars(optimizer))
        if limit is not None:
            for weights in Parameters(wide, SIZES).weights:
                weights[...] = oracle.limit_incoming_norm(weights, limit)
    bound = 3 * tolerances.elementwise_bound("optimizer", wide, dtype, scale=1.0)
    yield Check("parameters", parameters.to_host(ops), wide, bound)
    for (slot, array), expected in zip(state.items(), memory.values(), strict=True):
        got = Parameters(array, SIZES, ops.row_padding).to_host(ops)
        yield Check(slot, got, expected, 3 * tolerances.elementwise_bound("optimizer", expected, dtype, scale=1.0))
