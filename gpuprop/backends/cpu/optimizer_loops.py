"""The optimizers as single passes over the flat buffer.

A pass is ``update(w, g, first, second, c)``: `first` and `second` are the state arrays in the order of the optimizer's
``slots`` (what it does not have is not touched), and `c` the numbers of the update, which ``numbers(rate, t, h)`` gives
once for all elements, h being the hyperparameters. A buffer may so be updated in pieces at no extra cost. Rules and
numbers are the scalar forms of `gpuprop_kernels.formulas.rules`; sources: `gpuprop.maths.optimizers`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numba import from_dtype, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from gpuprop.backends.cpu import elementary
from gpuprop.backends.cpu.compiling import compiled, spliced
from gpuprop.backends.cpu.elementary import smallest_normal
from gpuprop.maths.optimizers import Optimizer
from gpuprop_kernels.formulas.rules import RULES

__all__ = ["flush_subnormals", "for_biases", "hyperparameters", "numbers_of", "slots", "update", "update_pass"]

Array = NDArray[Any]
Numbers = tuple[float, ...]


@intrinsic
def _rounded(context, like, numbers):  # type: ignore[no-untyped-def]
    """Return a tuple of numbers in the precision of `like`."""
    result = types.UniTuple(like, numbers.count)

    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = cgutils.unpack_tuple(builder, arguments[1], numbers.count)
        return context.make_tuple(
            builder, result, [context.cast(builder, number, numbers.dtype, like) for number in given]
        )

    return result(like, numbers), build


@functools.cache
def update_pass(name: str, dtype: np.dtype[Any]) -> Callable[[Array, Array, Array, Array, Numbers], None]:
    """Return ``update(w, g, first, second, c)``: an optimizer's pass over flat arrays of a dtype, in place.

    In what order an element's numbers are read decides which of two products in a sum is fused with the addition.
    """
    form, kind = RULES[name], from_dtype(dtype)
    rule, zero = spliced(form.build(kind, elementary)), kind(0)

    @compiled
    def without_state(w: Array, g: Array, first: Array, second: Array, numbers: Numbers) -> None:
        c = _rounded(zero, numbers)
        for i in range(w.size):
            w[i], _, _ = rule(w[i], g[i], zero, zero, c)

    @compiled
    def with_one_array(w: Array, g: Array, first: Array, second: Array, numbers: Numbers) -> None:
        c = _rounded(zero, numbers)
        for i in range(w.size):
            s, gradient = first[i], g[i]
            w[i], first[i], _ = rule(w[i], gradient, s, zero, c)

    @compiled
    def with_two_arrays(w: Array, g: Array, first: Array, second: Array, numbers: Numbers) -> None:
        c = _rounded(zero, numbers)
        for i in range(w.size):
            s, gradient, t = first[i], g[i], second[i]
            w[i], first[i], second[i] = rule(w[i], gradient, s, t, c)

    return (without_state, with_one_array, with_two_arrays)[form.arrays]


@functools.cache
def numbers_of(name: str) -> Callable[[float, int, Array], Numbers]:
    """Return ``numbers(rate, t, h)`` for update `t`, counted from 1."""
    return compiled(RULES[name].numbers)


@spliced
def _without_decay(c: Numbers) -> Numbers:
    return c[:1] + (0.0,) + c[2:]  # noqa: RUF005  (Numba does not unpack)


@spliced
def _as_they_are(c: Numbers) -> Numbers:
    return c


def for_biases(name: str) -> Callable[[Numbers], Numbers]:
    """Return the function from the numbers of an update to those of the biases, which do not decay."""
    return _without_decay if RULES[name].decays else _as_they_are


@compiled
def flush_subnormals(values: Array) -> None:
    """Set what is smaller than the smallest normal number to zero; `Optimizer.update` says why."""
    zero = values.dtype.type(0)
    tiny = smallest_normal(zero)
    for i in range(values.size):
        values[i] = zero if abs(values[i]) < tiny else values[i]


@functools.lru_cache(maxsize=64)
def hyperparameters(optimizer: Optimizer) -> NDArray[np.float64]:
    """Return the hyperparameters in the order of the optimizer's form."""
    return np.array(optimizer.hyperparameters, np.float64)


@functools.lru_cache(maxsize=64)
def _plain_hyperparameters(optimizer: Optimizer) -> tuple[float, ...]:
    """Return the same as Python's numbers, found once: collecting them takes as long as computing with them."""
    return optimizer.hyperparameters


def slots(optimizer: Optimizer, state: Mapping[str, Array], stand_in: Array) -> tuple[Array, Array]:
    """Return the state arrays; what the optimizer does not have is `stand_in`, which is not touched."""
    arrays = [state[name] for name in optimizer.slots]
    first, second = (*arrays, stand_in, stand_in)[:2]
    return first, second


def update(
    optimizer: Optimizer, w: Array, g: Array, state: Mapping[str, Array], rate: float, step: int, n_weights: int
) -> None:
    """Make update number `step` of a flat buffer that holds `n_weights` weights, and then the biases.

    The numbers of the update are computed by Python, in a microsecond: the code for it would take longer to compile
    than any other loop of a short training takes to run.
    """
    form = RULES[optimizer.name]
    first, second = slots(optimizer, state, w)
    make = update_pass(optimizer.name, w.dtype)
    c = form.numbers(rate, step, _plain_hyperparameters(optimizer))
    if not form.decays:
        make(w, g, first, second, c)
        return
    make(w[:n_weights], g[:n_weights], first[:n_weights], second[:n_weights], c)
    make(w[n_weights:], g[n_weights:], first[n_weights:], second[n_weights:], (c[0], 0.0, *c[2:]))
