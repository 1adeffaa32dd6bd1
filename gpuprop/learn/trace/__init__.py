"""One sample's way through backpropagation, number by number: the worked example, or any network and any sample.

    network, x, y = gpuprop.trace.worked_example()
    print(gpuprop.trace.trace(network, x, y))

The numbers are those of the library's own step (`gpuprop.core.step`), the formulas are printed beside them:

``descent``      gradient descent on one sample, round by round; the ``updated`` variant of the backward pass
``quantities``   every number of a round, with its symbol
``expressions``  formulas as small trees of those
``formulas``     the formula of each activation and loss, and of their derivatives
``terms``        the terms of a round in the order of the algorithm
``report``       `trace` and what it returns
``text``, ``page``  a trace as plain text and as an HTML page
``diagram``      the network as a picture, with the path of one derivative
``scalar``       the same idea on a formula: `trace_scalar`
"""

from __future__ import annotations

from gpuprop.learn.trace.descent import updated_weights_gradients
from gpuprop.learn.trace.example import worked_example
from gpuprop.learn.trace.record import Trace, trace
from gpuprop.learn.trace.scalar import ScalarTrace, trace_scalar
from gpuprop.learn.trace.terms import Section, Term

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
