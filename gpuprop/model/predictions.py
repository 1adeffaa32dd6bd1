"""The predictions of a model for rows, as the named columns of a table.

Numbers are NumPy scalars: written as text they show the shortest form that is read back as the same number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuprop.model.network import Network

__all__ = ["class_columns", "prediction_columns", "safe_cell", "value_columns"]

#: A spreadsheet takes a cell for a formula if it begins with one of these signs, also where they are as wide as an
#: ideograph, and may do so behind one of the controls. Source: OWASP, "CSV Injection",
#: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\t", "\r", "\n", "\0")


def safe_cell(cell: Any) -> Any:
    """Return a cell that no spreadsheet runs as a formula: such a text gets a single quote in front.

    Numbers stay as they are. Write the cells with ``csv.QUOTE_NONNUMERIC``: within quotation marks, no separator of
    another country begins a new cell.

    Examples
    --------
    >>> from gpuprop.model.predictions import safe_cell
    >>> safe_cell("=1+1"), safe_cell("oak"), safe_cell(-1.5)
    ("'=1+1", 'oak', -1.5)
    """
    is_formula = isinstance(cell, str) and cell.lstrip(" ").startswith(_FORMULA)
    return f"'{cell}" if is_formula else cell


def prediction_columns(network: Network, X: ArrayLike) -> dict[str, list[Any]]:
    """Return the columns of a prediction file by their names, for a network.

    A classifier has the columns of `class_columns`, with probabilities where its outputs are some; a regression has
    those of `value_columns`, and so have several logistic outputs, which are questions of their own.
    """
    outputs = network.forward(X)
    predicted = network.decide(outputs)
    if predicted.ndim == 2:
        return value_columns(predicted)
    n_outputs = outputs.shape[1]
    shares: Iterable[NDArray[Any]] | None = None
    if network.output_activation.name in ("logistic", "softmax"):  # outputs of other activations are no probabilities
        shares = [1 - outputs[:, 0], outputs[:, 0]] if n_outputs == 1 else outputs.T
    return class_columns(predicted, network.classes or range(max(2, n_outputs)), shares)


def value_columns(values: NDArray[Any]) -> dict[str, list[Any]]:
    """Return ``prediction``, or ``prediction_1``, ``prediction_2``, ... for several columns of values.

    Parameters
    ----------
    values : ndarray of shape (n_samples, n_outputs)
    """
    n_outputs = values.shape[1]
    names = ["prediction"] if n_outputs == 1 else [f"prediction_{i}" for i in range(1, n_outputs + 1)]
    return {name: list(column) for name, column in zip(names, values.T, strict=True)}


def class_columns(
    predicted: NDArray[Any], classes: Sequence[Any], shares: Iterable[NDArray[Any]] | None
) -> dict[str, list[Any]]:
    """Return ``prediction``, the label of each row, and a column ``p_LABEL`` with the probability of each class.

    Parameters
    ----------
    predicted : ndarray of shape (n_samples,)
        Indices of classes.
    classes : sequence of labels
    shares : iterable of ndarray of shape (n_samples,), or None
        The probabilities of each class; None leaves their columns out.
    """
    columns: dict[str, list[Any]] = {"prediction": [classes[index] for index in predicted]}
    if shares is not None:
        columns |= {f"p_{label}": list(share) for label, share in zip(classes, shares, strict=True)}
    return columns
