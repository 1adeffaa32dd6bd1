"""Losses, their gradients, and the delta of the output layer.

A loss is a sum over the outputs of one sample, averaged over the samples (with sample weights: the weighted mean).
What is reported is what is differentiated, for any number of outputs.

The delta ``dL/dz`` of the output layer has one of three forms. For the canonical pairs (identity with squared error,
logistic with binary cross-entropy, softmax with categorical cross-entropy, exponential with Poisson) it is ``a - y``,
and the loss is computed from the net input, where it is exact however saturated the output is. For softmax with
another loss it is ``a * (g - sum(g * a))`` with ``g = dL/da``, the softmax's Jacobian. Otherwise ``g * f'``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpuprop.arrays import namespace
from gpuprop.maths.activations import Activation, softplus
from gpuprop.maths.records import base_name, comparable, named, numbered

__all__ = ["LOSSES", "Loss", "Metric", "check_pair", "get_loss", "output_delta", "penalty", "score", "smoothed_labels"]

Array = NDArray[np.floating[Any]]
#: What is counted beside the loss, see `score`.
Metric = Literal["class", "labels", "residual"]


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss: its value, its gradient, and what it demands of outputs and targets.

    Two losses are equal if all that they are made of is.

    Attributes
    ----------
    name : str
    value : callable
        ``value(a, y) -> (n_samples,)``, summed over the outputs.
    gradient : callable
        ``gradient(a, y) -> (n_samples, n_outputs)``, ``dL/da`` of one sample.
    value_from_z : callable
        ``value_from_z(z, a, y) -> (n_samples,)``: the same value where the output activation is `canonical`.
    canonical : str or None
        The output activation for which the delta is ``a - y``, where there is one; also the default one.
    output_ranges : frozenset of str
        Output ranges on which the loss is defined, see `gpuprop.Activation`.
    classification : bool
        Whether targets are classes.
    target_error : callable
        ``target_error(y) -> str``: what is wrong with targets (n_samples, n_outputs), or ``""``.
    parameter : float
        The number in a name such as ``huber(1.35)``; 0 where the loss takes none.
    formula, gradient_formula : str
        One output's share of the loss and its derivative as traces show them, of the output ``a`` and the target
        ``y``; see `gpuprop.Activation`.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuprop.losses import get_loss
    >>> loss = get_loss("squared_error")
    >>> loss.value(np.array([[3.0]]), np.array([[1.0]])).tolist(), loss.canonical
    ([2.0], 'identity')
    """

    name: str
    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array]
    value_from_z: Callable[[Array, Array, Array], Array]
    canonical: str | None
    output_ranges: frozenset[str]
    classification: bool
    target_error: Callable[[Array], str]
    parameter: float = field(default=0.0, repr=False)
    formula: str = field(default="", repr=False)
    gradient_formula: str = field(default="", repr=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Loss):
            return NotImplemented
        return self is other or all(
            comparable(getattr(self, one.name)) == comparable(getattr(other, one.name)) for one in fields(self)
        )

    def __hash__(self) -> int:
        return hash(self.name)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what a pickle holds; one of an earlier version may lack some fields of gpuprop's own losses."""
        self.__dict__.update(state)
        own = _own(self.name)
        if own is not None and all(comparable(state[name]) == comparable(getattr(own, name)) for name in _FUNCTIONS):
            self.__dict__.update(vars(own))

    @property
    def built_in(self) -> bool:
        """Whether it is gpuprop's own of that name, and not one of the user's."""
        return _is_built_in(self)

    @property
    def base_name(self) -> str:
        """The name without the parameter, which for ``huber(1.35)`` is ``huber``."""
        return base_name(self.name)

    @property
    def default_activation(self) -> str:
        """The output activation of a network that names none."""
        return self.canonical or "identity"


_FUNCTIONS = ("value", "gradient", "value_from_z")


@lru_cache(maxsize=64)
def _is_built_in(loss: Loss) -> bool:
    return loss == _own(loss.name)


def _own(name: str) -> Loss | None:
    """Return gpuprop's own loss of a name, or None."""
    try:
        return get_loss(name)
    except ValueError:
        return None


def _inside(a: Array) -> Array:
    """Keep ``a`` strictly between 0 and 1, as far as the dtype can tell, so that logarithms stay finite."""
    info = np.finfo(a.dtype)
    return np.clip(a, info.tiny, a.dtype.type(1) - info.epsneg)


def _xlogy(y: Array, a: Array) -> Array:
    """``y log(a)``, and 0 where ``y = 0``; ``a > 0``."""
    return np.where(y == 0, np.zeros_like(a), y * np.log(a))


def squared_error(a: Array, y: Array) -> Array:
    """``sum_k (a_k - y_k)^2 / 2``; any a, y. Source: Rumelhart, Hinton, Williams (1986)."""
    difference = a - y
    return np.asarray(0.5 * np.einsum("ij,ij->i", difference, difference))


def squared_error_gradient(a: Array, y: Array) -> Array:
    """``a - y``."""
    return a - y


def binary_cross_entropy(a: Array, y: Array) -> Array:
    """``-sum_k [y_k log a_k + (1 - y_k) log(1 - a_k)]``; a in (0, 1), y in [0, 1]. Source: Bishop (2006), eq. 5.21."""
    p = _inside(a)
    return np.asarray(-(_xlogy(y, p) + _xlogy(1 - y, 1 - p)).sum(axis=1))


def binary_cross_entropy_gradient(a: Array, y: Array) -> Array:
    """``(a - y) / (a (1 - a))``, written as ``(1 - y) / (1 - a) - y / a``, which keeps precision in both tails."""
    p = _inside(a)
    return (1 - y) / (1 - p) - y / p


def binary_cross_entropy_from_z(z: Array, a: Array, y: Array) -> Array:
    """The same with ``a = logistic(z)``: ``sum_k [softplus(z_k) - y_k z_k]``."""
    return np.asarray((softplus(z) - y * z).sum(axis=1))


def categorical_cross_entropy(a: Array, y: Array) -> Array:
    """``-sum_k y_k log a_k``; a in (0, 1), y >= 0 with rows summing to 1. Source: Bishop (2006), eq. 5.24."""
    return np.asarray(-_xlogy(y, _inside(a)).sum(axis=1))


def categorical_cross_entropy_gradient(a: Array, y: Array) -> Array:
    """``-y / a``."""
    return -y / _inside(a)


def categorical_cross_entropy_from_z(z: Array, a: Array, y: Array) -> Array:
    """The same with ``a = softmax(z)``: ``logsumexp(z) - sum_k y_k z_k``, shifted by the largest net input."""
    shifted = z - z.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - (y * shifted).sum(axis=1))


def poisson(a: Array, y: Array) -> Array:
    """``sum_k [y_k log(y_k / a_k) - y_k + a_k]``, half the Poisson deviance; a > 0, y >= 0.

    Source: McCullagh and Nelder (1989), section 2.3; the same as scikit-learn's.
    """
    p = np.maximum(a, np.finfo(a.dtype).tiny)
    safe = np.where(y == 0, np.ones_like(y), y)
    return np.asarray((y * (np.log(safe) - np.log(p)) - y + p).sum(axis=1))


def poisson_gradient(a: Array, y: Array) -> Array:
    """``1 - y / a``."""
    return 1 - y / np.maximum(a, np.finfo(a.dtype).tiny)


def poisson_from_z(z: Array, a: Array, y: Array) -> Array:
    """The same with ``a = exp(z)``: ``sum_k [y_k log y_k - y_k z_k - y_k + a_k]``."""
    safe = np.where(y == 0, np.ones_like(y), y)
    return np.asarray((y * (np.log(safe) - z) - y + a).sum(axis=1))


def absolute_error(a: Array, y: Array) -> Array:
    """``sum_k |a_k - y_k|``; any a, y: outputs become medians. Source: Hastie et al. (2009), section 10.6."""
    return np.asarray(np.abs(a - y).sum(axis=1))


def absolute_error_gradient(a: Array, y: Array) -> Array:
    """``sign(a - y)``, 0 at the kink."""
    return np.sign(a - y)


def huber(a: Array, y: Array, delta: float) -> Array:
    """``sum_k h(a_k - y_k)``, ``h(r) = r^2 / 2`` up to ``|r| = delta``, from there ``delta (|r| - delta / 2)``.

    Source: Huber (1964), "Robust estimation of a location parameter".
    """
    distance = np.abs(a - y)
    inside = np.minimum(distance, delta)
    return np.asarray((inside * (distance - 0.5 * inside)).sum(axis=1))


def huber_gradient(a: Array, y: Array, delta: float) -> Array:
    """``a - y``, cut off at ``-delta`` and ``delta``."""
    return np.clip(a - y, -delta, delta)


def pinball(a: Array, y: Array, quantile: float) -> Array:
    """``sum_k max(q (y_k - a_k), (q - 1) (y_k - a_k))``; outputs become q-quantiles, 0 < q < 1.

    Source: Koenker and Bassett (1978), "Regression quantiles".
    """
    above = y - a
    return np.asarray(np.maximum(quantile * above, (quantile - 1) * above).sum(axis=1))


def pinball_gradient(a: Array, y: Array, quantile: float) -> Array:
    """``-q`` where ``a < y``, ``1 - q`` where ``a > y``, 0 at the kink."""
    kind = a.dtype.type
    return np.where(a < y, kind(-quantile), np.where(a > y, kind(1 - quantile), kind(0)))


def _not_from_z(z: Array, a: Array, y: Array, value: Callable[[Array, Array], Array]) -> Array:
    """The value from the outputs, where the net inputs say no more."""
    return value(a, y)


def _real_targets(y: Array) -> str:
    return ""


def _unit_targets(y: Array) -> str:
    low, high = _range(y)
    return f"values from {low:g} to {high:g}, expected 0 to 1" if low < 0 or high > 1 else ""


def _distribution_targets(y: Array) -> str:
    low, _ = _range(y)
    if low < 0:
        return f"a negative value {low:g}, expected one-hot rows or probabilities"
    xp = namespace(y)
    total = xp.sum(y, axis=1, dtype=xp.float64)
    wrong = xp.abs(total - 1) > 1e-3
    if bool(xp.any(wrong)):
        row = int(xp.argmax(xp.astype(wrong, xp.int8)))
        return f"row {row} summing to {float(total[row]):g}, expected rows that sum to 1 (one-hot or probabilities)"
    return ""


def _count_targets(y: Array) -> str:
    low, _ = _range(y)
    return f"a negative value {low:g}, expected counts of 0 and more" if low < 0 else ""


def _range(y: Array) -> tuple[float, float]:
    """Return the smallest and the largest target, which may lie on a device of any array library."""
    xp = namespace(y)
    return float(xp.min(y)), float(xp.max(y))


def _robust(
    name: str, value: Callable[[Array, Array], Array], gradient: Callable[[Array, Array], Array], parameter: float = 0.0
) -> Loss:
    """Return a loss of real targets and any outputs that has no canonical activation."""
    return Loss(
        name,
        value,
        gradient,
        partial(_not_from_z, value=value),
        canonical=None,
        output_ranges=frozenset({"real", "nonnegative", "positive", "unit"}),
        classification=False,
        target_error=_real_targets,
        parameter=parameter,
    )


def _huber(delta: float) -> Loss:
    if not 0 < delta < np.inf:
        raise ValueError(f"the delta of huber must be positive, got {delta}")
    name = numbered("huber", delta, 1.0)
    return _robust(name, partial(huber, delta=delta), partial(huber_gradient, delta=delta), delta)


def _pinball(quantile: float) -> Loss:
    if not 0 < quantile < 1:
        raise ValueError(f"the quantile of pinball must lie between 0 and 1, got {quantile}")
    name = numbered("pinball", quantile, 0.5)
    return _robust(name, partial(pinball, quantile=quantile), partial(pinball_gradient, quantile=quantile), quantile)


_PARAMETRIC: dict[str, Callable[[float], Loss]] = {"huber": _huber, "pinball": _pinball}

#: The losses by name; ``"huber(1.35)"`` and ``"pinball(0.9)"`` set the parameter, which is else 1 and 0.5.
LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss(
            "squared_error",
            squared_error,
            squared_error_gradient,
            partial(_not_from_z, value=squared_error),
            canonical="identity",
            output_ranges=frozenset({"real", "nonnegative", "positive", "unit"}),
            classification=False,
            target_error=_real_targets,
            formula="(1 / 2) * (y - a)**2",
            gradient_formula="-(y - a)",
        ),
        Loss(
            "binary_cross_entropy",
            binary_cross_entropy,
            binary_cross_entropy_gradient,
            binary_cross_entropy_from_z,
            canonical="logistic",
            output_ranges=frozenset({"unit"}),
            classification=True,
            target_error=_unit_targets,
            formula="-ln(1 - a) if y == 0 else -ln(a) if y == 1 else -(y * ln(a)) - (1 - y) * ln(1 - a)",
            gradient_formula="(a - y) / (a * (1 - a))",
        ),
        Loss(
            "categorical_cross_entropy",
            categorical_cross_entropy,
            categorical_cross_entropy_gradient,
            categorical_cross_entropy_from_z,
            canonical="softmax",
            output_ranges=frozenset({"unit"}),
            classification=True,
            target_error=_distribution_targets,
            formula="0 if y == 0 else -(y * ln(a))",
            gradient_formula="-(y / a)",
        ),
        Loss(
            "poisson",
            poisson,
            poisson_gradient,
            poisson_from_z,
            canonical="exponential",
            output_ranges=frozenset({"positive", "unit"}),
            classification=False,
            target_error=_count_targets,
            formula="a if y == 0 else y * ln(y / a) - y + a",
            gradient_formula="1 - y / a",
        ),
        _robust("absolute_error", absolute_error, absolute_error_gradient),
        _huber(1.0),
        _pinball(0.5),
    )
}


def get_loss(loss: str | Loss) -> Loss:
    """Return the loss of this name, e.g. ``"poisson"`` or ``"pinball(0.9)"``; a `Loss` is returned as it is.

    Raises
    ------
    ValueError
        If there is no such loss, or its number is out of range.

    Examples
    --------
    >>> from gpuprop.losses import get_loss
    >>> get_loss("pinball(0.9)").parameter
    0.9
    """
    if isinstance(loss, Loss):
        return loss
    return named("loss", loss, LOSSES, _PARAMETRIC)


def smoothed_labels(y: Array, smoothing: float, loss: Loss) -> Array:
    """Return ``(1 - s) y + s / K``: the targets of a classifier, brought closer to equal shares.

    Parameters
    ----------
    y : array of shape (n_samples, n_outputs)
        On any device.
    smoothing : float
        s, in [0, 1).
    loss : Loss
        K is the number of outputs of a softmax, and 2 where each output decides by itself.

    Notes
    -----
    Szegedy et al., "Rethinking the Inception architecture for computer vision", 2016, section 7.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuprop.losses import get_loss, smoothed_labels
    >>> smoothed_labels(np.array([[1.0, 0.0]]), 0.2, get_loss("categorical_cross_entropy")).tolist()
    [[0.9, 0.1]]
    """
    n_classes = y.shape[1] if loss.canonical == "softmax" else 2
    return y * (1 - smoothing) + smoothing / n_classes


def check_pair(loss: Loss, activation: Activation) -> None:
    """Refuse an output activation on whose range the loss is not defined.

    Raises
    ------
    ValueError
        For example for ``relu`` with ``poisson``: the loss takes ``log(a)``, and relu gives 0.

    Examples
    --------
    >>> from gpuprop.activations import get_activation
    >>> from gpuprop.losses import check_pair, get_loss
    >>> check_pair(get_loss("poisson"), get_activation("exponential", output=True))
    """
    if activation.output_range not in loss.output_ranges:
        needs = "0 < a < 1" if loss.output_ranges == {"unit"} else "a > 0"
        raise ValueError(
            f"loss {loss.name!r} is not defined on the outputs of activation {activation.name!r}: it needs {needs}; "
            f"use output_activation={loss.default_activation!r}, or loss='squared_error'"
        )


def output_delta(loss: Loss, activation: Activation, z: Array, a: Array, y: Array) -> tuple[Array, Array]:
    """Return loss and delta of each sample at the output layer.

    Parameters
    ----------
    loss, activation : Loss, Activation
        A pair that `check_pair` accepts.
    z, a, y : ndarray of shape (n_samples, n_outputs)
        Net inputs, outputs and targets.

    Returns
    -------
    values : ndarray of shape (n_samples,)
        The loss of each sample, summed over the outputs.
    delta : ndarray of shape (n_samples, n_outputs)
        ``dL/dz`` of each sample's own loss: neither averaged nor weighted.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuprop.activations import get_activation
    >>> from gpuprop.losses import get_loss, output_delta
    >>> z, y = np.array([[0.0]]), np.array([[1.0]])
    >>> logistic = get_activation("logistic")
    >>> output_delta(get_loss("binary_cross_entropy"), logistic, z, logistic.function(z), y)[1].tolist()
    [[-0.5]]
    """
    if activation.name == loss.canonical:
        return loss.value_from_z(z, a, y), a - y
    g = loss.gradient(a, y)
    if activation.name == "softmax":
        return loss.value(a, y), a * (g - (g * a).sum(axis=1, keepdims=True))
    return loss.value(a, y), g * activation.derivative(activation.source(z, a))


def score(a: Array, y: Array, metric: Metric) -> NDArray[Any]:
    """Return what each sample adds to the metric of an epoch, shape (n_samples,).

    Parameters
    ----------
    a, y : ndarray of shape (n_samples, n_outputs)
        Outputs and targets.
    metric : {"class", "labels", "residual"}
        ``"class"``: 1 where the largest output is that of the target (the first of equals wins), else 0.
        ``"labels"``: 1 where every output is on the target's side of 0.5, else 0.
        ``"residual"``: the squared residual, summed over the outputs, from which R2 is formed.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuprop.losses import score
    >>> score(np.array([[0.2, 0.8]]), np.array([[0.0, 1.0]]), "class").tolist()
    [True]
    """
    if metric == "class":
        return np.asarray(a.argmax(axis=1) == y.argmax(axis=1))
    if metric == "labels":
        return np.asarray(((a > 0.5) == (y > 0.5)).all(axis=1))
    difference = a - y
    return np.asarray(np.einsum("ij,ij->i", difference, difference))


def penalty(weights: Array, l1: float, l2: float) -> float:
    """Return ``l1 sum |W| + l2 / 2 sum W^2`` of a flat array of weights.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuprop.losses import penalty
    >>> penalty(np.array([1.0, -2.0]), l1=0.0, l2=1.0)
    2.5
    """
    value = 0.0
    if l1:
        value += l1 * float(np.abs(weights).sum(dtype=np.float64))
    if l2:
        value += 0.5 * l2 * float(np.dot(weights, weights))
    return value
