"""What happens at the output layer, element by element: outputs, loss, dLoss/dz.

::

    canonical pair                  delta = a - y
    softmax with another loss       delta = a (g - sum_q g_q a_q)        g = dLoss/da
    any other                       delta = g f'(a)     (or f'(z))

A sample's loss is the sum of `term` over the outputs; terms and g are the scalar forms of `formulas.terms`. For
softmax with its canonical loss, the categorical cross-entropy, the term is ``y (log total - (z - peak))``: ``peak`` is
the row's largest net input and ``total`` the sum of exp(z - peak). A target row holds y in the compute dtype, one-hot
or not.

`output_rule` gives these as device functions, which the kernels of the output layer close over: `head`, for up to 16
classes, `rows` and `wide`, for any number. No launch, no shared memory, a few registers.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from gpuprop_kernels.activations import Activation, device_pair, elementary_functions
from gpuprop_kernels.formulas.terms import LOSS_TERMS
from gpuprop_kernels.target import device, exp

__all__ = ["CANONICAL", "OutputRule", "output_rule"]

CANONICAL = {name: form.canonical for name, form in LOSS_TERMS.items()}
"""Each loss with the output activation for which delta = a - y, if there is one."""


class OutputRule(NamedTuple):
    """An output activation and a loss, as device functions of one element."""

    normalised: bool
    """Whether the output is a softmax: peak and total are needed."""
    coupled: bool
    """Whether delta needs the sum over the row of `share`."""
    output: Any
    """``output(z, peak, total) -> a``"""
    term: Any
    """``term(z, a, y, peak, log_total) -> loss``"""
    share: Any
    """``share(a, y) -> g a``"""
    delta: Any
    """``delta(z, a, y, coupling) -> dLoss/dz``"""


@cache
def output_rule(activation: Activation, loss: str, dt: Any) -> OutputRule:
    """Return the rule of an output activation with a loss; which pairs are defined, the caller has checked."""
    name, parameter = _split(loss)
    if name not in CANONICAL:
        raise ValueError(f"got loss {loss!r}, expected one of {', '.join(CANONICAL)}")
    normalised, canonical = activation.name == "softmax", activation.name == CANONICAL[name]
    terms = LOSS_TERMS[name].build(dt, elementary_functions(dt), parameter)
    gradient = device(terms.gradient)
    output = device(_output(activation, dt))
    term = _term(device(terms.from_z if canonical else terms.value), normalised and canonical)
    share = device(lambda a, y: gradient(a, y) * a)
    if canonical:
        delta = device(lambda z, a, y, coupling: a - y)
    elif normalised:
        delta = device(lambda z, a, y, coupling: a * (gradient(a, y) - coupling))
    else:
        derivative = device_pair(activation, dt).derivative
        if activation.derivative_of == "z":
            delta = device(lambda z, a, y, coupling: gradient(a, y) * derivative(z))
        else:
            delta = device(lambda z, a, y, coupling: gradient(a, y) * derivative(a))
    return OutputRule(normalised, normalised and not canonical, output, term, share, delta)


def _split(loss: str) -> tuple[str, float]:
    """Return the name of a loss and its parameter."""
    name, _, value = loss.partition("(")
    default = LOSS_TERMS[name].parameter if name in LOSS_TERMS else 0.0
    return name, float(value.rstrip(")")) if value else default


def _output(activation: Activation, dt: Any) -> Any:
    if activation.name == "softmax":
        return lambda z, peak, total: exp(z - peak) / total
    function = device_pair(activation, dt).function
    return lambda z, peak, total: function(z)


def _term(of_one: Any, shifted: bool) -> Any:
    """Return what one output adds to the loss; `shifted` where the form takes z less the peak."""
    if shifted:
        return device(lambda z, a, y, peak, log_total: of_one(z - peak, a, y) + y * log_total)
    return device(lambda z, a, y, peak, log_total: of_one(z, a, y))
