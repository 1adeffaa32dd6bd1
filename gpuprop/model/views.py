"""How a network is shown, and the probabilities that its outputs are; a part of `gpuprop.Network`."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.arrays import namespace

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["NetworkViews"]


class NetworkViews:
    """Methods of a network that only look at it."""

    def summary(self: Any) -> str:
        """Return a table of the layers: units, activation, parameters.

        Examples
        --------
        >>> import gpuprop
        >>> print(gpuprop.Network((4, 8, 3), loss="categorical_cross_entropy", seed=0, device="numpy").summary())
        layer   units  activation  parameters
        input       4
        1           8  relu                40
        2           3  softmax             27
        67 parameters, float32 on numpy; loss categorical_cross_entropy
        """
        rows = [("layer", "units", "activation", "parameters"), *_rows(self)]
        lines = [
            f"{name:<6}{units:>7}  {activation:<12}{count:>10}".rstrip() for name, units, activation, count in rows
        ]
        return "\n".join([*lines, _foot(self)])

    def _repr_html_(self: Any) -> str:
        """Return the table of `summary` for a notebook."""
        head = "".join(f"<th>{name}</th>" for name in ("layer", "units", "activation", "parameters"))
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in _rows(self))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{escape(_foot(self))}</p>"

    def predict_proba(self: Any, X: ArrayLike) -> NDArray[Any]:
        """Return the probability of each class, (n_samples, n_classes), or of each label of several.

        Raises
        ------
        AttributeError
            If the outputs are no probabilities: those of a regression, or of other activations than logistic and
            softmax.
        """
        if not self.is_classifier or self.output_activation.name not in ("logistic", "softmax"):
            raise AttributeError(
                f"predict_proba: the outputs of {self.output_activation.name} under {self.loss_function.name} are no "
                "probabilities; use forward"
            )
        outputs: NDArray[Any] = self.forward(X)
        if outputs.shape[1] > 1:
            return outputs
        both: NDArray[Any] = namespace(outputs).concatenate([1 - outputs, outputs], axis=1)
        return both


def _rows(network: Any) -> list[tuple[str, str, str, str]]:
    sizes = network.layer_sizes
    rows = [("input", f"{sizes[0]:,}", "", "")]
    for layer, activation in enumerate([*network.hidden_activations, network.output_activation], start=1):
        count = (sizes[layer - 1] + 1) * sizes[layer]
        hidden = layer < len(sizes) - 1
        more = sizes[layer] * ((network.spec.has_slopes + 3 * network.batch_norm) if hidden else 0)
        what = "batch norm, " * (network.batch_norm and hidden) + activation.name
        what += " + input" * network.spec.adds_input(layer)
        rows.append((str(layer), f"{sizes[layer]:,}", what, f"{count + more:,}"))
    return rows


def _foot(network: Any) -> str:
    averages = 2 * sum(network.layer_sizes[1:-1]) * network.batch_norm
    running = f" ({averages:,} of them running averages, which are not trained)" if averages else ""
    dropout = f", dropout {', '.join(f'{rate:g}' for rate in network.dropout)}" if np.any(network.dropout) else ""
    by = "" if network.precision == "float32" else f" with operands rounded to {network.precision}"
    return (
        f"{network.n_parameters:,} parameters{running}, {network.dtype.name}{by} on {network.device_}; loss "
        f"{network.loss_function.name}{dropout}"
    )
