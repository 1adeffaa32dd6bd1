"""The Ops protocol: the closed set of primitives that a training step is written in. Contracts only.

A backend is one implementation of these methods; `gpuprop.core.step` is the only caller of most of them. Arrays are
C-contiguous except for the backend's padding of rows, of one dtype, and on the backend's device; `asarray` makes them
so once. Each primitive writes into the arguments that its contract names and changes nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from gpuprop.core.array_ops import Array, ArrayOps

if TYPE_CHECKING:
    from gpuprop.core.parameters import Parameters
    from gpuprop.core.rule import UpdateRule
    from gpuprop.maths.activations import Activation
    from gpuprop.maths.losses import Loss, Metric
    from gpuprop.maths.scaling import InputScaling

__all__ = ["Array", "Dropping", "Ops", "OutputLayer", "Outputs"]


class Dropping(NamedTuple):
    """Which units dropout drops: `gpuprop.maths.dropout` draws the same mask from these numbers on every device.

    Attributes
    ----------
    rate : float
        Share of units to drop, in [0, 1).
    seed : int
        The network's seed.
    layer : int
        0 for the input, l for hidden layer l.
    step : int
        Updates done before this one.
    first_row : int
        Position of the first row in the batch, if the batch is processed in parts.
    """

    rate: float
    seed: int
    layer: int
    step: int
    first_row: int


class OutputLayer(NamedTuple):
    """How an output layer is judged: its activation, the loss, and the metric that is summed beside the loss."""

    activation: Activation
    loss: Loss
    metric: Metric


class Outputs(NamedTuple):
    """What an output layer has computed, and what it should have computed.

    Attributes
    ----------
    z, a, y : array of shape (n_rows, n_outputs)
        Net inputs, outputs and targets.
    sample_weight : array of shape (n_rows,) or None
        None counts every row once.
    """

    z: Array
    a: Array
    y: Array
    sample_weight: Array | None


class Ops(ArrayOps, Protocol):
    """What a backend must offer."""

    def take_batch(self, data: Array, order: Array, start: int, scaling: InputScaling | None, out: Array) -> None:
        """``out[i] = (data[order[start + i]] - shift) * scale`` for every row i of `out`.

        `data` is (n_samples, n_features): an array of the dtype of `out` or uint8, or CSR of the dtype of `out`, whose
        rows become dense here. Without `scaling`, rows are only converted.
        """
        ...

    def drop(self, a: Array, dropping: Dropping, mask: Array, out: Array) -> None:
        """``mask = keep_mask(...) / (1 - rate)`` and ``out = a * mask``; see `gpuprop.maths.dropout`."""
        ...

    def forward(
        self,
        inputs: Array,
        weights: Array,
        biases: Array,
        activation: Activation,
        z: Array | None,
        out: Array,
    ) -> None:
        """``out = f(inputs @ weights + biases)``; the net input goes to `z` unless that is None."""
        ...

    def output_delta(
        self, outputs: Outputs, layer: OutputLayer, total_weight: float, delta: Array, totals: Array
    ) -> None:
        """``delta = w_i dL_i/dz / total_weight``; ``totals += (sum_i w_i L_i, sum_i w_i s_i)``.

        ``s_i`` is `gpuprop.maths.losses.score` under the layer's metric; `totals` is a float64 pair.
        """
        ...

    def hidden_delta(
        self,
        delta: Array,
        weights: Array,
        activation: Activation,
        source: Array,
        mask: Array | None,
        out: Array,
    ) -> None:
        """``out = (delta @ weights.T) * mask * f'(source)``: fused activation-derivative-delta.

        `delta` and `weights` are those of the layer above; `source` is this layer's output or its net input,
        whichever `activation` declares, taken before dropout's scaling.
        """
        ...

    def accumulate_gradient(
        self, inputs: Array, delta: Array, weight_grads: Array, bias_grads: Array, *, accumulate: bool
    ) -> None:
        """``weight_grads (+)= inputs.T @ delta``, ``bias_grads (+)= sum_i delta_i``: outer products over the batch.

        `accumulate` says whether to add to the old values or to overwrite them.
        """
        ...

    def add_penalty(
        self,
        parameters: Parameters,
        gradients: Parameters,
        l1: float,
        l2: float,
        total_weight: float,
        totals: Array,
    ) -> None:
        """Add ``l1 sign(W) + l2 W`` to the weight gradients and `total_weight` times the penalty to ``totals[0]``.

        The penalty is ``l1 sum |W| + l2 / 2 sum W^2``, over weights, not biases.
        """
        ...

    def update(
        self, parameters: Parameters, gradients: Parameters, rule: UpdateRule, learning_rate: float, step: int
    ) -> None:
        """Clip the gradient, take one step of the optimizer (`step` counts from 1), constrain incoming weights."""
        ...
