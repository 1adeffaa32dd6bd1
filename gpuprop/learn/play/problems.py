"""What a page for playing holds: small networks, each with a few rows of data and the way it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import to_host
from gpuprop.learn.trace.example import worked_example
from gpuprop.learn.trace.terms import MAX_UNITS, MAX_WEIGHTS
from gpuprop.learn.trace.tracing import trace
from gpuprop.model.unscaled import folded_network

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from gpuprop.model.network import Network

__all__ = ["MAX_ROWS", "Problem", "problem", "worked_problem", "xor_problem"]

#: A page shows at most so many rows of data.
MAX_ROWS = 8


@dataclass(frozen=True)
class Problem:
    """A network with its rows.

    Attributes
    ----------
    name : str
        What the page calls it.
    network : Network
        Batch normalisation is folded into weights and biases.
    rows : list of tuple of two lists
        Inputs as the first layer reads them, and targets.
    learning_rate : float
    train_biases : bool
    whole_batch : bool
        Whether an update takes the mean gradient of all rows, or that of the row which is shown.
    remark : str
        One sentence for the reader.
    """

    name: str
    network: Network
    rows: list[tuple[list[float], list[float]]]
    learning_rate: float = 0.5
    train_biases: bool = True
    whole_batch: bool = False
    remark: str = field(default="", kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """Return what the page's script reads, as JSON values."""
        network = self.network
        return {
            "name": self.name,
            "remark": self.remark,
            "sizes": list(network.layer_sizes),
            "activations": [[one.name, one.parameter] for one in network.layer_activations],
            "loss": network.loss_function.name,
            "canonical": network.output_activation.name == network.loss_function.canonical,
            "l1": network.l1,
            "l2": network.l2,
            "weights": [to_host(weights).astype("float64").tolist() for weights in network.weights],
            "biases": [to_host(biases).astype("float64").tolist() for biases in network.biases],
            "rows": [{"x": x, "y": y} for x, y in self.rows],
            "rate": self.learning_rate,
            "trainBiases": self.train_biases,
            "all": self.whole_batch,
        }


def problem(name: str, network: Network, X: ArrayLike, y: ArrayLike, **how: Any) -> Problem:
    """Return a network and rows of data as a problem for the page.

    Parameters
    ----------
    name : str
    network : Network
        Of at most 32 weights and 8 units in a layer. It is not changed.
    X : array_like of shape (n_samples, n_features)
        Raw inputs; the first 8 rows are taken.
    y : array_like of shape (n_samples,) or (n_samples, n_outputs)
    **how
        ``learning_rate``, ``train_biases``, ``whole_batch`` and ``remark`` of a `Problem`.

    Raises
    ------
    ValueError
        If the network is larger than a page can show, or has paths or functions that the page does not know.

    Examples
    --------
    >>> import gpuprop
    >>> from gpuprop.learn.play import problem
    >>> network = gpuprop.Network((2, 3, 1), hidden_activation="tanh", seed=0)
    >>> problem("sums", network, [[0.0, 1.0], [1.0, 1.0]], [1.0, 2.0]).rows[1]
    ([1.0, 1.0], [2.0])
    """
    sizes = network.layer_sizes
    if network.n_weights > MAX_WEIGHTS or max(sizes) > MAX_UNITS:
        shape = "-".join(map(str, sizes))
        raise ValueError(
            f"got a network of {network.n_weights:,} weights ({shape}), expected at most {MAX_WEIGHTS} weights and "
            f"{MAX_UNITS} units in a layer: a page shows every number; train a smaller one"
        )
    if network.residual or network.spec.has_slopes or network.spec.embedding is not None:
        raise ValueError("a network with residual connections, slopes or embeddings cannot be played with")
    inputs, targets = np.asarray(X)[:MAX_ROWS], np.asarray(y)[:MAX_ROWS]
    rounds = [trace(network, x, target).numbers for x, target in zip(inputs, targets, strict=True)]
    rows = [([float(v) for v in one.inputs], [float(v) for v in one.targets]) for one in rounds]
    return Problem(name, folded_network(network), rows, **how)


def worked_problem() -> Problem:
    """Return the worked example that texts compute by hand.

    Examples
    --------
    >>> from gpuprop.learn.play import worked_problem
    >>> worked_problem().rows
    [([0.05, 0.1], [0.01, 0.99])]
    """
    return problem(
        "The worked example",
        *worked_example(),
        train_biases=False,
        remark="These are the numbers that texts compute by hand; the texts hold the biases fixed.",
    )


def xor_problem() -> Problem:
    """Return XOR for two hidden units, from initial weights that find the solution.

    Examples
    --------
    >>> from gpuprop.learn.play import xor_problem
    >>> len(xor_problem().rows)
    4
    """
    from gpuprop.datasets import make_xor
    from gpuprop.model.network import Network

    network = Network(
        (2, 2, 1),
        hidden_activation="logistic",
        output_activation="logistic",
        dtype="float64",
        init="uniform(1)",
        seed=3,
        device="numpy",
    )
    X, y = make_xor()
    return problem(
        "XOR",
        network,
        X,
        y,
        learning_rate=8.0,
        whole_batch=True,
        remark="No single line separates these four points; two hidden units together can.",
    )
