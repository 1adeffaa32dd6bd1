"""The predictions of a network for rows, as the named columns of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from gpuprop.model.network import Network

__all__ = ["prediction_columns"]


def prediction_columns(network: Network, X: ArrayLike) -> dict[str, list[Any]]:
    """Return the columns of a prediction file by their names.

    A classifier has the column ``prediction`` (labels) and, where its outputs are probabilities, a column ``p_LABEL``
    for each class. A regression has ``prediction``, or ``prediction_1``, ``prediction_2``, ... for several outputs.
    Numbers are NumPy scalars: written as text they show the shortest form that is read back as the same number.
    """
    outputs = network.forward(X)
    predicted = network.decide(outputs)
    n_outputs = outputs.shape[1]
    if predicted.ndim == 2:  # a regression, or several logistic outputs that are questions of their own
        names = ["prediction"] if n_outputs == 1 else [f"prediction_{i}" for i in range(1, n_outputs + 1)]
        return {name: list(column) for name, column in zip(names, predicted.T, strict=True)}
    classes = network.classes or range(max(2, n_outputs))
    columns: dict[str, list[Any]] = {"prediction": [classes[index] for index in predicted]}
    if network.output_activation.name in ("logistic", "softmax"):  # outputs of other activations are no probabilities
        shares = [1 - outputs[:, 0], outputs[:, 0]] if n_outputs == 1 else list(outputs.T)
        columns |= {f"p_{label}": list(share) for label, share in zip(classes, shares, strict=True)}
    return columns
