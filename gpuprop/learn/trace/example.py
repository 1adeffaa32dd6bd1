"""The worked example: the 2-2-2 network that texts on backpropagation compute by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gpuprop.model.network import Network

__all__ = ["worked_example"]


def worked_example() -> tuple[Network, NDArray[Any], NDArray[Any]]:
    """Return the network, the input and the target of the worked example.

    Two logistic layers under ``sum (target - out)^2 / 2``, in float64. Weights w1, w2 lead into the hidden unit h1 and
    w3, w4 into h2; w5, w6 into the output o1 and w7, w8 into o2. The units of a layer share one bias value.

    Returns
    -------
    network : Network
        2-2-2, with the weights as published.
    x : ndarray of shape (1, 2)
        Inputs 0.05, 0.10.
    y : ndarray of shape (1, 2)
        Targets 0.01, 0.99.

    Notes
    -----
    Source: M. Mazur, "A Step by Step Backpropagation Example" (2015); retold in many lectures.

    Examples
    --------
    >>> import gpuprop
    >>> network, x, y = gpuprop.trace.worked_example()
    >>> round(network.loss(x, y), 9)
    0.298371109
    """
    from gpuprop.model.network import Network

    network = Network(
        (2, 2, 2),
        hidden_activation="logistic",
        output_activation="logistic",
        loss="squared_error",
        dtype="float64",
        seed=0,
        device="numpy",
        init="zeros",
    )
    # A row for each unit that a weight leaves, a column for each unit that it enters.
    network.weights[0][...] = [[0.15, 0.25], [0.20, 0.30]]
    network.weights[1][...] = [[0.40, 0.50], [0.45, 0.55]]
    network.biases[0][...] = 0.35
    network.biases[1][...] = 0.60
    return network, np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])
