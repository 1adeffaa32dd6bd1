"""One sample's way through backpropagation, number by number: the worked example, or any network and any sample.

    network, x, y = gpuprop.trace.worked_example()
    print(gpuprop.trace(network, x, y))

The module can be called, as its function `trace` can.

The library's own step (`gpuprop.core.step`) computes the numbers, and each one is printed with its formula. Each module
below uses only those above it:

``expressions``  formulas as small trees
``descent``      gradient descent on one sample, round by round; the ``updated`` variant of the backward pass
``quantities``   every number of a round, with its symbol
``formulas``     the formula of each activation and loss, and of their derivatives
``terms``        the terms of a round in the order of the algorithm
``record``       what a trace holds
``text``, ``drawing``, ``diagram``, ``page``  a trace as plain text, as a picture of the network, as an HTML page
``tracing``      `trace`, and the `Trace` that it returns
``computation``, ``scalar_page``, ``scalar``  the same idea for a formula: `trace_scalar`
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from gpuprop.learn.trace.descent import updated_weights_gradients
from gpuprop.learn.trace.example import worked_example
from gpuprop.learn.trace.scalar import ScalarTrace, trace_scalar
from gpuprop.learn.trace.terms import Section, Term
from gpuprop.learn.trace.tracing import Trace, trace

__all__ = [
    "ScalarTrace",
    "Section",
    "Term",
    "Trace",
    "trace",
    "trace_scalar",
    "updated_weights_gradients",
    "worked_example",
]


class _CallableModule(ModuleType):
    """``gpuprop.trace(network, x, y)`` is what a user tries first."""

    def __call__(self, *arguments: Any, **options: Any) -> Trace:
        """Return the trace of a sample; see `trace`."""
        return trace(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
