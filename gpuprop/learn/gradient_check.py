"""Gradient checking: compare every derivative of the loss with central differences.

``dL/dw`` is compared with ``(L(w + h) - L(w - h)) / 2h``. The differences are always computed in float64 with plain
NumPy, whatever the network's own dtype and device, so that a failure shows a wrong gradient and not a rough difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpuprop.backends.numpy.ops import NumpyOps
from gpuprop.core import step
from gpuprop.core.data import TrainingData
from gpuprop.core.parameters import Parameters
from gpuprop.core.workspace import TrainingWorkspace
from gpuprop.errors import check_integer, check_real
from gpuprop.maths.losses import penalty
from gpuprop.model.network import Network

__all__ = ["GradientFunction", "GradientReport", "LayerReport", "check_gradients"]

#: ``gradients(network, X, y)`` returns ``(loss, weight_grads, bias_grads)``, like `Network.loss_and_gradients`.
GradientFunction = Callable[[Network, ArrayLike, ArrayLike], tuple[float, Sequence[Any], Sequence[Any]]]

#: The change of a net input for a central difference. At this size the error of the difference quotient (order h^2) and
#: the rounding error (order 1e-16 / h) are both far below the tolerance.
STEP = 1e-5
#: Of a network with more parameters than this, a seeded sample of this size is checked.
SAMPLE = 2000


@dataclass(frozen=True)
class LayerReport:
    """The result of the check for the weights, or the biases, of one layer.

    Attributes
    ----------
    name : str
        "layer 1 weights", "layer 1 biases", ...
    n_checked, n_skipped : int
        The parameters that were compared, and those left out because a kink (of a ReLU, or of the l1 penalty) was too
        close.
    relative_error : float
        Root mean square of the differences, divided by that of the gradients.
    max_difference : float
        Largest ``|analytic - numeric|``.
    worst : tuple of int or None
        Index of the parameter with the largest difference.
    analytic, numeric : float
        Its two derivatives.
    passed : bool
        Whether `relative_error` is within the tolerance.
    """

    name: str
    n_checked: int
    n_skipped: int
    relative_error: float
    max_difference: float
    worst: tuple[int, ...] | None
    analytic: float
    numeric: float
    passed: bool


@dataclass(frozen=True)
class GradientReport:
    """The result of `check_gradients`: one `LayerReport` for each weight matrix and each bias vector."""

    layers: tuple[LayerReport, ...]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether all layers passed, and at least one parameter was checked."""
        return all(layer.passed for layer in self.layers) and any(layer.n_checked for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "passed": self.passed,
            "tolerance": self.tolerance,
            "layers": [asdict(layer) for layer in self.layers],
        }

    def __str__(self) -> str:
        lines = [f"{'':<18}{'checked':>8}{'skipped':>8}{'rel. error':>12}{'analytic':>14}{'numeric':>14}  verdict"]
        for layer in self.layers:
            verdict = ("ok" if layer.n_checked else "not checked") if layer.passed else f"WRONG at {layer.worst}"
            lines.append(
                f"{layer.name:<18}{layer.n_checked:>8}{layer.n_skipped:>8}{layer.relative_error:>12.2e}"
                f"{layer.analytic:>14.6g}{layer.numeric:>14.6g}  {verdict}"
            )
        lines.append(f"gradient check {'passed' if self.passed else 'FAILED'} (tolerance {self.tolerance:g})")
        return "\n".join(lines)


def check_gradients(
    network: Network,
    X: ArrayLike,
    y: ArrayLike,
    sample_weight: ArrayLike | None = None,
    *,
    gradients: GradientFunction | None = None,
    n_parameters: int | None = None,
    tolerance: float | None = None,
    dropout_step: int | None = None,
    seed: int = 0,
) -> GradientReport:
    """Compare a network's gradient with central differences of its loss.

    Parameters
    ----------
    network : Network
        It is not changed.
    X : array_like of shape (n_samples, n_features)
        The samples; a few dozen are enough.
    y : array_like of shape (n_samples,) or (n_samples, n_outputs)
    sample_weight : array_like of shape (n_samples,) or None, default=None
    gradients : callable or None, default=None
        The gradient to check, ``gradients(network, X, y) -> (loss, weight_grads, bias_grads)``; None checks
        ``network.loss_and_gradients``.
    n_parameters : int or None, default=None
        How many parameters to check, drawn with `seed` from all layers. None checks all of them, or 2000 if there are
        more.
    tolerance : float or None, default=None
        The largest relative error that a layer may have; None is 1e-6 in float64 and 1e-3 in float32.
    dropout_step : int or None, default=None
        Check with the dropout masks of this update, and with the mean and variance of the batch where layers are
        normalised; None checks without dropout, and with running averages.
    seed : int, default=0

    Returns
    -------
    GradientReport
        Its ``passed`` is True or False, and ``print`` shows it as a table.

    Raises
    ------
    ValueError
        If the data do not fit the network.

    Notes
    -----
    Near a kink the quotient mixes two slopes. If any unit switches sides between ``w - h`` and ``w + h``, the check
    tries a smaller h, and leaves the parameter out if that does not help.

    Examples
    --------
    >>> import gpuprop
    >>> network, x, y = gpuprop.trace.worked_example()
    >>> gpuprop.check_gradients(network, x, y).passed
    True
    """
    if tolerance is None:
        tolerance = 1e-6 if network.dtype == np.float64 else 1e-3
    check_real("tolerance", tolerance, 0.0, open_minimum=True)
    if gradients is None:
        loss, weight_grads, bias_grads = network.loss_and_gradients(X, y, sample_weight, dropout_step=dropout_step)
    elif sample_weight is not None or dropout_step is not None:
        raise ValueError(
            "check_gradients: got gradients together with sample_weight or dropout_step, expected gradients alone"
        )
    else:
        loss, given_weights, given_biases = gradients(network, X, y)
        weight_grads, bias_grads = [np.asarray(g) for g in given_weights], [np.asarray(g) for g in given_biases]
    probe = _Probe(network, X, y, sample_weight, dropout_step)
    arrays = [*probe.network.weights, *probe.network.biases]
    analytic = [*weight_grads, *bias_grads]
    kinds = [(kind, layer) for kind in ("weights", "biases") for layer in range(network.n_layers)]
    if network.batch_norm and gradients is None:
        flat = network.objective(network.prepare(X, y, sample_weight), dropout_step)()[1]
        analytic += Parameters(flat, network.spec.layout).scales
        arrays += probe.network.layers.parameters.scales
        kinds += [("scales", layer) for layer in range(network.n_layers - 1)]
    chosen = _choose(arrays, n_parameters, seed)
    _check_shapes(analytic, arrays)
    scale = float(np.sqrt(np.mean(np.concatenate([np.ravel(g) for g in analytic]) ** 2)))
    # Rounding moves a quotient by about 1e-16 * loss / h; gradients below this floor cannot be told from zero.
    floor = max(1e-4 * scale, 1e-4 * abs(loss), 1e-10)
    reports = []
    for index, (kind, layer) in sorted(enumerate(kinds), key=lambda entry: (entry[1][1], entry[0])):
        numeric = [probe.derivative(arrays[index], layer, place) for place in chosen[index]]
        name = f"layer {layer + 1} {kind}"
        reports.append(_compare(name, analytic[index], numeric, chosen[index], floor, tolerance))
    return GradientReport(tuple(reports), tolerance)


class _Probe:
    """Central differences of a network's loss, in float64 on a copy."""

    def __init__(
        self, network: Network, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, dropout_step: int | None
    ) -> None:
        self.network = network.copy_to(NumpyOps(), np.float64)
        self.data: TrainingData = self.network.prepare(X, y, sample_weight)
        self.dropout_step = dropout_step
        n_samples = self.data.n_samples
        self.work = TrainingWorkspace(
            self.network.ops, self.network.spec, n_samples, with_dropout=dropout_step is not None, keep_z=True
        )
        step.take_batch(self.network.layers, self.work, self.data, np.arange(n_samples, dtype=np.int32), 0)
        self._loss()
        # Inputs may be pixels up to 255: the change of a weight is scaled so that z moves by about STEP.
        self.steps = [STEP / np.maximum(1.0, np.abs(inputs).max(axis=0)) for inputs in self.work.inputs]

    def _loss(self) -> tuple[float, list[NDArray[np.bool_]]]:
        """Return the loss, and the side of its kinks on which each unit is."""
        network, work = self.network, self.work
        work.totals[...] = 0.0
        step.forward_pass(network.layers, work, self.dropout_step)
        step.output_delta(network.layers, work, self.data, self.data.total_weight)
        loss = float(work.totals[0]) / self.data.total_weight
        loss += penalty(network.parameters[: network.n_weights], network.l1, network.l2)
        sides = [
            np.asarray(z > kink)
            for activation, z in zip(network.layer_activations, work.z[1:], strict=True)
            if z is not None
            for kink in activation.kinks
        ]
        return loss, sides

    def derivative(self, array: NDArray[Any], layer: int, place: tuple[int, ...]) -> float:
        """Return the central difference for one parameter; NaN if a kink is too close."""
        value = float(array[place])
        h = float(self.steps[layer][place[0]]) if array.ndim == 2 else STEP
        is_penalised = array.ndim == 2 and self.network.l1 > 0
        try:
            for _ in range(3):
                if not (is_penalised and abs(value) <= h):
                    array[place] = value + h
                    high, above = float(array[place]), self._loss()
                    array[place] = value - h
                    low, below = float(array[place]), self._loss()
                    if all(np.array_equal(a, b) for a, b in zip(above[1], below[1], strict=True)):
                        return (above[0] - below[0]) / (high - low)
                h /= 10
        finally:
            array[place] = value
        return np.nan


def _choose(arrays: list[NDArray[Any]], n_parameters: int | None, seed: int) -> list[list[tuple[int, ...]]]:
    """Return the indices to check in each array: all, or a seeded sample from all layers."""
    shapes = [array.shape for array in arrays]
    total = sum(array.size for array in arrays)
    wanted = min(total, SAMPLE) if n_parameters is None else check_integer("n_parameters", n_parameters, 1)
    rng = np.random.default_rng(seed)
    chosen = []
    for shape in shapes:
        size = int(np.prod(shape))
        # Every array gets its share, and at least ten: the check must not miss an error in a small layer.
        count = size if wanted >= total else min(size, max(10, round(wanted * size / total)))
        flat = np.arange(size) if count == size else np.sort(rng.choice(size, count, replace=False))
        chosen.append([tuple(int(i) for i in np.unravel_index(place, shape)) for place in flat])
    return chosen


def _check_shapes(analytic: list[NDArray[Any]], arrays: list[NDArray[Any]]) -> None:
    got, expected = [g.shape for g in analytic], [array.shape for array in arrays]
    if got != expected:
        raise ValueError(f"gradients: got arrays of shapes {got}, expected {expected} (weights, then biases)")


def _compare(
    name: str,
    analytic: NDArray[Any],
    numeric: list[float],
    places: list[tuple[int, ...]],
    floor: float,
    tolerance: float,
) -> LayerReport:
    checked = [(place, float(analytic[place]), n) for place, n in zip(places, numeric, strict=True) if not np.isnan(n)]
    skipped = len(places) - len(checked)
    if not checked:
        return LayerReport(name, 0, skipped, 0.0, 0.0, None, 0.0, 0.0, passed=True)
    a = np.array([entry[1] for entry in checked])
    n = np.array([entry[2] for entry in checked])
    difference = np.abs(a - n)
    error = _rms(difference) / max(_rms(a) + _rms(n), floor)
    place, worst_analytic, worst_numeric = checked[int(np.argmax(np.nan_to_num(difference, nan=np.inf)))]
    return LayerReport(
        name,
        len(checked),
        skipped,
        error,
        float(difference.max()),
        place,
        worst_analytic,
        worst_numeric,
        passed=bool(error <= tolerance),
    )


def _rms(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(values**2)))
