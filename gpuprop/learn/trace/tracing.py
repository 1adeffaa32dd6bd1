"""`trace` runs gradient descent on one sample and returns a `Trace`: everything that the last round computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.errors import GpupropError, check_integer, check_real, unknown_name
from gpuprop.learn.trace.descent import Descent, DescentRule, Round, Weights
from gpuprop.learn.trace.diagram import diagram
from gpuprop.learn.trace.page import render as render_page
from gpuprop.learn.trace.quantities import NOTATIONS
from gpuprop.learn.trace.record import TraceRecord
from gpuprop.learn.trace.terms import TermBuilder
from gpuprop.learn.trace.text import TextWriter
from gpuprop.learn.trace.text import render as render_text
from gpuprop.model.unscaled import folded_network

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuprop.model.network import Network

__all__ = ["Trace", "trace"]


@dataclass(frozen=True, eq=False)
class Trace(TraceRecord):
    """What one sample did to a network in the last round, as text, as JSON, as a page and as a picture.

    The attributes are those of `TraceRecord`: ``title``, ``numbers``, ``sections``, ``terms``, ``losses``,
    ``loss_after``, ``outputs_after``, ...

    Examples
    --------
    >>> import gpuprop
    >>> steps = gpuprop.trace(*gpuprop.trace.worked_example())
    >>> steps.to_dict()["terms"][0]["formula"]
    'w1 * i1 + w2 * i2 + b_h1'
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the trace as JSON values."""
        writer = TextWriter(self.dtype)
        names = ("z", "activations", "delta", "weight_grads", "bias_grads", "new_weights", "new_biases")
        return {
            "network": self.title,
            "learning_rate": self.learning_rate,
            "weights": self.weights,
            "train_biases": self.train_biases,
            "notation": self.notation,
            "rounds": self.rounds,
            "path": self.path,
            "inputs": self.numbers.inputs.tolist(),
            "targets": self.numbers.targets.tolist(),
            "loss": self.loss,
            "layers": [{name: getattr(layer, name).tolist() for name in names} for layer in self.numbers.layers],
            "terms": [
                {"symbol": writer.write(term.symbol), "formula": writer.write(term.formula), "value": term.value}
                for term in self.terms
            ],
            "losses": [{"rounds": rounds, "loss": loss} for rounds, loss in self.losses],
            "loss_after": self.loss_after,
            "outputs_after": self.outputs_after.tolist(),
        }

    def __str__(self) -> str:
        """Return the trace as plain text."""
        return render_text(self)

    def to_svg(self, weight: str | None = None) -> str:
        """Return a picture of the network that highlights the partial derivative by `weight`; see `diagram`."""
        return diagram(self, weight)

    def to_html(self) -> str:
        """Return the trace as a self-contained HTML page with typeset formulas."""
        return render_page(self)


def trace(
    network: Network,
    x: ArrayLike,
    y: ArrayLike,
    *,
    learning_rate: float = 0.5,
    rounds: int = 1,
    weights: Weights = "original",
    train_biases: bool = False,
    notation: str = "mazur",
) -> Trace:
    """Train a copy of a network on one sample by plain gradient descent, and record the last round in full.

    The numbers are those of the library's own step, without dropout. Of a network with many weights one path is shown:
    the most active input, the most active unit of each hidden layer, and the output with the largest error.

    Parameters
    ----------
    network : Network
        It is not changed. Batch normalisation is folded into weights and biases: one sample has no variance.
    x : array_like of shape (n_features,) or (1, n_features)
        The sample as it is, before any input scaling of the network.
    y : scalar, or array_like of shape (n_outputs,) or (1, n_outputs)
        Its target: a class index, the value of a single output, or one value for each output.
    learning_rate : float, default=0.5
    rounds : int, default=1
        Forward passes, backward passes and updates.
    weights : {"original", "updated"}, default="original"
        "original": all deltas are formed with the weights as they were before the update; this is backpropagation.
        "updated": each layer's weights are updated before the delta of the layer below is formed with them, as in the
        computation of some texts.
    train_biases : bool, default=False
        Whether to update the biases too; the texts hold them fixed.
    notation : {"code", "mazur", "lecture"}, default="mazur"
        "mazur": net_h1, out_h1, w5, as in the worked example. "code": z[1][0], a[1][0], weights[1][0, 0], the indices
        of the library's arrays. "lecture": z^(2)_1, a^(2)_1 and Theta^(2)_1,1, with the biases in column 0.

    Returns
    -------
    Trace
        ``str(trace)`` is its text; ``trace.to_dict()`` returns JSON values, ``trace.to_html()`` a page and
        ``trace.to_svg()`` a picture.

    Raises
    ------
    ValueError
        If an argument is out of range, or `x` is not exactly one sample.
    GpupropError
        If the loss becomes infinite or NaN.

    Examples
    --------
    >>> import gpuprop
    >>> steps = gpuprop.trace.trace(*gpuprop.trace.worked_example())
    >>> round(steps.loss, 9), round(steps.loss_after, 9)
    (0.298371109, 0.291027774)
    """
    rule = DescentRule(check_real("learning_rate", learning_rate, 0.0, open_minimum=True), weights, train_biases)
    rounds = check_integer("rounds", rounds, 1)
    if weights not in ("original", "updated"):
        raise unknown_name("weights", weights, ("original", "updated"))
    if notation not in NOTATIONS:
        raise unknown_name("notation", notation, NOTATIONS)
    if network.residual:
        raise ValueError("trace: a residual network has paths that the formulas of a trace do not show")
    network = folded_network(network)
    x, y = _one_sample(network, x, y)
    descent = Descent(network, x, y, rule)
    numbers, losses = _descend(descent, rounds)
    builder = TermBuilder(network, numbers, rule, notation)
    return Trace(
        title=_title(network),
        rounds=rounds,
        learning_rate=rule.learning_rate,
        weights=weights,
        train_biases=train_biases,
        notation=notation,
        path="" if builder.whole else _path(network, builder),
        dtype=network.dtype,
        numbers=numbers,
        given=builder.given(),
        sections=builder.sections(),
        losses=losses,
        outputs_after=descent.network.forward(x)[0],
        symbols=builder.quantities,
    )


def _descend(descent: Descent, rounds: int) -> tuple[Round, tuple[tuple[int, float], ...]]:
    """Make all rounds; return the numbers of the last, and the loss after 0, 1, 10, ... rounds and after the last."""
    losses: list[tuple[int, float]] = []
    learning_rate = descent.rule.learning_rate
    with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
        for done in range(rounds - 1):
            loss = descent.step()
            _check_finite(loss, done, learning_rate)
            if _is_milestone(done):
                losses.append((done, loss))
        numbers = descent.recorded_step()
        _check_finite(numbers.loss, rounds - 1, learning_rate)
        if _is_milestone(rounds - 1) or rounds == 1:
            losses.append((rounds - 1, numbers.loss))
        losses.append((rounds, descent.loss()))
        _check_finite(losses[-1][1], rounds, learning_rate)
    return numbers, tuple(losses)


def _one_sample(network: Network, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the sample and its target as a batch of one row."""
    inputs, targets = np.asarray(x), np.asarray(y)
    if inputs.ndim == 1:
        inputs = inputs[None]
    if inputs.ndim != 2 or len(inputs) != 1:
        n_features = network.layer_sizes[0]
        raise ValueError(
            f"x: got shape {np.shape(x)}, expected one sample, ({n_features},) or (1, {n_features}); "
            "trace samples one at a time"
        )
    if targets.ndim == 0 or (targets.ndim == 1 and len(targets) > 1):
        targets = targets[None]
    return inputs, targets


def _is_milestone(done: int) -> bool:
    """Return whether `done` is 0 or a power of ten."""
    return done == 0 or 10 ** round(math.log10(done)) == done


def _check_finite(loss: float, done: int, learning_rate: float) -> None:
    if not math.isfinite(loss):
        raise GpupropError(
            f"the loss became infinite or NaN after {done} round(s) at learning rate {learning_rate:g}; "
            "use a lower learning rate"
        )


def _title(network: Network) -> str:
    sizes = "-".join(map(str, network.layer_sizes))
    activations = ", ".join(activation.name for activation in network.layer_activations)
    return f"network {sizes} ({activations}), {network.loss_function.name}, {network.dtype}"


def _path(network: Network, builder: TermBuilder) -> str:
    """Name the units on the path, and the class of the output."""
    path = " -> ".join(builder.quantities.unit(layer, units[0]) for layer, units in enumerate(builder.units))
    output = builder.units[-1][0]
    if network.metric == "class":
        path += f" (class {output if network.classes is None else network.classes[output]})"
    return path
