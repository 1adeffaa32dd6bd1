"""Why this prediction: how outputs change with inputs, what each input contributes, and what a column is worth.

Backpropagation goes one step further than a training needs it: from the delta of the first layer to the inputs,
``d output / dx = delta[1] @ W[1].T``, times the scale by which raw inputs are multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpuprop.arrays import is_sparse, to_host
from gpuprop.core.folded import folded
from gpuprop.errors import check_integer, check_real
from gpuprop.maths.activations import get_activation
from gpuprop.model import evaluation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuprop.core.layers import Layers
    from gpuprop.core.workspace import Workspace

    Array = NDArray[Any]

__all__ = ["Attributions", "Explained", "Importance", "integrated_gradients", "permutation_importance"]

Of = Literal["output", "z"]

_FIRST_STEPS, _MOST_STEPS = 64, 4096
_IDENTITY = get_activation("identity")


class Explained:
    """What explains a network's answers; a part of `gpuprop.Network`."""

    def input_gradients(self: Any, X: ArrayLike, output: int | ArrayLike | None = None, *, of: Of = "output") -> Array:
        """Return the derivatives of an output with respect to the raw inputs.

        Parameters
        ----------
        X : array_like of shape (n_samples, n_features)
        output : int, array_like of int of shape (n_samples,), or None, default=None
            Which output, the same for all rows or one for each. None takes the largest of each row, or the only one.
        of : {"output", "z"}, default="output"
            Of what `forward` returns, or of the output layer's net input: a probability near 0 or 1 hardly changes any
            more, and its net input does.

        Returns
        -------
        ndarray of shape (n_samples, n_features)

        Raises
        ------
        ValueError
            If there is no such output, or the network has slopes or embeds its inputs.

        Examples
        --------
        >>> import gpuprop
        >>> net = gpuprop.Network((2, 1), seed=0)
        >>> bool((net.input_gradients([[0.5, -1.0]]) == net.weights[0].T).all())
        True
        """
        check_explicable(self)
        rows = _dense(X)
        chosen = _chosen(self, rows, output)
        if of not in ("output", "z"):
            raise ValueError(f"of: got {of!r}, expected 'output' or 'z'")
        with self.ops.active():
            parts, first = [], 0
            layers = folded(self.layers)
            for work in evaluation.chunks(layers, rows, self.input_scaling, keep_z=True):
                which = chosen[first : first + work.n_rows]
                first += work.n_rows
                parts.append(self.ops.to_numpy(_gradients(layers, work, which, of)).copy())
        gradients = np.concatenate(parts)
        scaling = self.input_scaling
        return gradients if scaling is None else np.asarray(gradients * scaling.scale.astype(gradients.dtype))


def check_explicable(network: Any) -> None:
    """Refuse a network whose inputs have no derivative here."""
    if network.spec.has_slopes or network.spec.embedding is not None:
        raise ValueError(
            "input_gradients: the network has slopes or embeds its inputs; use gpuprop.permutation_importance"
        )


def _dense(X: Any) -> Array:
    rows = X.toarray() if is_sparse(X) else np.asarray(to_host(X))
    if rows.ndim != 2:
        raise ValueError(f"X: got shape {rows.shape}, expected (n_samples, n_features)")
    return rows


def _chosen(network: Any, rows: Array, output: Any) -> NDArray[np.int64]:
    """Return the output that is explained of each row."""
    n_outputs = network.layer_sizes[-1]
    if output is None:
        outputs = to_host(network.forward(rows))
        return np.asarray(outputs.argmax(axis=1))
    chosen = np.broadcast_to(np.asarray(output), (len(rows),))
    if chosen.dtype.kind not in "iu" or chosen.min() < 0 or chosen.max() >= n_outputs:
        raise ValueError(f"output: got {output!r:.60}, expected whole numbers from 0 to {n_outputs - 1}")
    return chosen.astype(np.int64)


def _gradients(layers: Layers, work: Workspace, chosen: NDArray[np.int64], of: Of) -> Any:
    """Return the derivatives by the scaled inputs, on the device."""
    ops, spec = layers.ops, layers.spec
    top, rows = spec.n_layers, np.arange(work.n_rows)
    one = np.zeros((work.n_rows, spec.layer_sizes[-1]))
    one[rows, chosen] = 1.0
    if of == "output":
        outputs = np.asarray(ops.to_numpy(work.a[top]), np.float64)
        activation = spec.output_activation
        if activation.name == "softmax":  # da_k / dz_j = a_k (1[j = k] - a_j)
            one = outputs[rows, chosen][:, None] * (one - outputs)
        else:
            z = np.asarray(ops.to_numpy(work.z[top]), np.float64)
            one *= activation.derivative(activation.source(z, outputs))
    delta, around = ops.asarray(one, spec.dtype), None
    for layer in range(top - 1, -1, -1):
        activation = spec.activations[layer - 1] if layer else _IDENTITY
        below = ops.empty((work.n_rows, spec.layer_sizes[layer]), spec.dtype)
        f: Any = work.a[layer] if work.f[layer] is None else work.f[layer]
        source: Any = activation.source(work.z[layer], f) if layer else work.a[0]
        if not (spec.adds_input(layer) or spec.adds_input(layer + 1)):
            ops.hidden_delta(delta, layers.weights[layer], activation, source, None, below)
        else:
            ops.hidden_delta(delta, layers.weights[layer], _IDENTITY, source, None, below)
            below += 0 if around is None else around
            around = below.copy() if spec.adds_input(layer) else None
            below *= activation.derivative(source)
        delta = below
    return delta


# --- integrated gradients ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Attributions:
    """What each input contributes to an output.

    Attributes
    ----------
    values : ndarray of shape (n_samples, n_features)
        They add up to the difference of the outputs, but for `gap`.
    outputs : ndarray of int, shape (n_samples,)
        Which output is explained.
    difference : ndarray of shape (n_samples,)
        The output for the row minus that for the baseline.
    gap : ndarray of shape (n_samples,)
        How far the sum of the values is from the difference: the error of the integration.
    steps : ndarray of int, shape (n_samples,)
        Gradients that were taken on the way from the baseline.
    baseline : ndarray of shape (n_features,)
    """

    values: Array
    outputs: NDArray[np.int64]
    difference: Array
    gap: Array
    steps: NDArray[np.int64]
    baseline: Array

    def grouped(self, groups: Sequence[str]) -> dict[str, Array]:
        """Return the sums over the inputs of each group, (n_samples,); `groups` names the group of each input."""
        names = np.asarray(groups)
        if names.shape != (self.values.shape[1],):
            raise ValueError(f"groups: got {names.size}, expected a name for each of {self.values.shape[1]} inputs")
        return {name: self.values[:, names == name].sum(axis=1) for name in dict.fromkeys(groups)}


def integrated_gradients(
    network: Any,
    X: ArrayLike,
    output: int | ArrayLike | None = None,
    *,
    baseline: ArrayLike | None = None,
    of: Of = "output",
    n_steps: int | None = None,
    tolerance: float = 1e-3,
) -> Attributions:
    """Return what each input contributes to an output: the gradient's mean on the way from a baseline, times the way.

    Parameters
    ----------
    network : Network
    X : array_like of shape (n_samples, n_features)
    output, of
        See ``Network.input_gradients``.
    baseline : array_like of shape (n_features,) or None, default=None
        Where the way begins. None takes the inputs that the network's scaling makes 0: black pixels, or the means of
        standardised columns.
    n_steps : int or None, default=None
        Gradients on the way. None takes 64 and doubles them, up to 4096, for the rows whose gap is larger than
        `tolerance` times the difference.
    tolerance : float, default=1e-3

    Raises
    ------
    ValueError
        If the data do not fit the network, or there is no such output.

    References
    ----------
    M. Sundararajan, A. Taly and Q. Yan, "Axiomatic attribution for deep networks", ICML 2017, arXiv:1703.01365.

    Examples
    --------
    >>> import gpuprop
    >>> net = gpuprop.Network((2, 3, 1), hidden_activation="tanh", seed=0)
    >>> found = gpuprop.integrated_gradients(net, [[1.0, 2.0]])
    >>> bool(abs(found.gap[0]) <= 1e-3 * abs(found.difference[0]))
    True
    """
    check_explicable(network)
    rows = np.asarray(_dense(X), np.float64)
    chosen = _chosen(network, rows, output)
    origin = _origin(network, rows.shape[1], baseline)
    tolerance = check_real("tolerance", tolerance, 0.0, open_minimum=True)
    fixed = None if n_steps is None else check_integer("n_steps", n_steps, 1)

    def value(points: Array) -> Array:
        outputs = network.forward(points) if of == "output" else network.net_inputs(points)[-1]
        return np.asarray(outputs, np.float64)[np.arange(len(points)), chosen]

    difference = value(rows) - value(np.broadcast_to(origin, rows.shape))
    values, steps = np.zeros_like(rows), np.zeros(len(rows), np.int64)
    gap, left = np.full(len(rows), np.inf), np.arange(len(rows))
    count = fixed or _FIRST_STEPS
    smallest = 1e-6 if network.dtype == np.float32 else 1e-12  # a difference of 0 has no share of it
    while len(left):
        way = rows[left] - origin
        values[left] = way * _mean_gradients(network, origin, way, chosen[left], of, count)
        steps[left] = count
        gap[left] = values[left].sum(axis=1) - difference[left]
        if fixed is not None or count >= _MOST_STEPS:
            break
        left = left[np.abs(gap[left]) > np.maximum(tolerance * np.abs(difference[left]), smallest)]
        count *= 2
    return Attributions(values, chosen, difference, gap, steps, origin)


def _origin(network: Any, n_features: int, baseline: ArrayLike | None) -> Array:
    if baseline is None:
        scaling = network.input_scaling
        baseline = 0.0 if scaling is None else scaling.shift
    given = np.asarray(baseline, np.float64)
    if given.ndim > 1 or given.size not in (1, n_features):
        raise ValueError(f"baseline: got shape {given.shape}, expected ({n_features},)")
    return np.broadcast_to(given, (n_features,)).copy()


def _mean_gradients(network: Any, origin: Array, way: Array, chosen: NDArray[np.int64], of: Of, count: int) -> Array:
    """Return the mean of the gradients at the middles of `count` equal parts of the way from the origin."""
    total = np.zeros_like(way)
    at_once = max(1, min(count, evaluation.CHUNK_ROWS // max(1, len(way))))
    for first in range(0, count, at_once):
        middles = (np.arange(first, min(first + at_once, count)) + 0.5) / count
        points = (origin + middles[:, None, None] * way).reshape(-1, way.shape[1])
        gradients = network.input_gradients(points, np.tile(chosen, len(middles)), of=of)
        total += gradients.reshape(len(middles), *way.shape).sum(axis=0, dtype=np.float64)
    return total / count


# --- permutation importance ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Importance:
    """How much worse a network gets when a column says nothing any more.

    Attributes
    ----------
    names : list of str
    mean, deviation : ndarray of shape (n_groups,)
        How much the score falls, over the repetitions.
    score : float
        With all columns.
    """

    names: list[str]
    mean: Array
    deviation: Array
    score: float


def permutation_importance(
    network: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    score: Callable[[Any, Array, Array], float] | None = None,
    n_repeats: int = 5,
    seed: int = 0,
) -> Importance:
    """Return how much a network's score falls when the rows of a column, or of a group of them, are shuffled.

    Estimators take scikit-learn's ``sklearn.inspection.permutation_importance``, where the columns of a data frame are
    the groups: text, dates and gaps included.

    Parameters
    ----------
    network : Network
    X, y : array_like
        Rows that were not trained on.
    groups : mapping of str to sequences of int, or None, default=None
        Columns that are shuffled together, such as the indicators of one category. None takes each column for itself.
    score : callable or None, default=None
        ``score(network, X, y)``, higher for better; None takes accuracy or R2.
    n_repeats : int, default=5
    seed : int, default=0

    Raises
    ------
    ValueError
        If the data do not fit the network, or a group names a column that does not exist.

    References
    ----------
    L. Breiman, "Random forests", Machine Learning 45, 2001, section 10.

    Examples
    --------
    >>> import gpuprop
    >>> X, y = gpuprop.datasets.make_xor(50, noise=0.1)
    >>> network = gpuprop.Network((2, 8, 1), loss="binary_cross_entropy", seed=0)
    >>> _ = gpuprop.Trainer(network, learning_rate=0.1, epochs=20).fit(X, y)
    >>> found = gpuprop.permutation_importance(network, X, y)
    """
    rows, truth = _dense(X), np.asarray(to_host(y))
    n_repeats, rng = check_integer("n_repeats", n_repeats, 1), np.random.default_rng(check_integer("seed", seed, 0))
    names = network.feature_names or [f"x{i}" for i in range(rows.shape[1])]
    columns = {name: [i] for i, name in enumerate(names)} if groups is None else {n: list(c) for n, c in groups.items()}
    for name, places in columns.items():
        if not places or min(places) < 0 or max(places) >= rows.shape[1]:
            raise ValueError(f"groups[{name!r}]: got {places}, expected columns from 0 to {rows.shape[1] - 1}")
    judge = score or (lambda network, X, y: network.evaluate(X, y)[1])
    whole = float(judge(network, rows, truth))
    falls = np.zeros((len(columns), n_repeats))
    for group, places in enumerate(columns.values()):
        shuffled = rows.copy()
        for repeat in range(n_repeats):
            shuffled[:, places] = rows[rng.permutation(len(rows))][:, places]
            falls[group, repeat] = whole - float(judge(network, shuffled, truth))
    return Importance(list(columns), falls.mean(axis=1), falls.std(axis=1), whole)
