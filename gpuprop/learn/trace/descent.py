"""Gradient descent on one sample, round by round, with the library's own step; and the ``updated`` variant of it.

Backpropagation forms all deltas with the weights as they were. The closing digits that texts print for the worked
example come from another computation: there the output weights are changed first, and the hidden deltas are formed
with the changed ones,

    delta[l] = (delta[l+1] @ (W[l+1] - eta dE/dW[l+1]).T) * f_l'

which is not the gradient of any loss at the weights where it is evaluated. It is here so that those digits can be
reproduced and the mistake be seen; `gpuprop.check_gradients` catches it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpuprop.backends.numpy.ops import NumpyOps
from gpuprop.core import step
from gpuprop.core.parameters import Parameters
from gpuprop.core.updates import Batch
from gpuprop.core.workspace import TrainingWorkspace

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gpuprop.core.data import TrainingData
    from gpuprop.model.network import Network

__all__ = ["Descent", "LayerNumbers", "Round", "Weights", "updated_weights_gradients"]

#: Which weights the hidden deltas are formed with.
Weights = Literal["original", "updated"]


@dataclass(frozen=True)
class LayerNumbers:
    """Everything that one round computes in one layer, in the network's dtype, on the host.

    Attributes
    ----------
    z, activations, delta : ndarray of shape (n_units,)
        Net inputs, outputs, and ``dE/dz``.
    backprop_error : ndarray of shape (n_units,)
        ``dE/da``.
    derivative : ndarray of shape (n_units,) or None
        ``da/dz``; None for softmax, where each output depends on every net input.
    weights, weight_grads, new_weights : ndarray of shape (fan_in, n_units)
    biases, bias_grads, new_biases : ndarray of shape (n_units,)
    """

    z: NDArray[Any]
    activations: NDArray[Any]
    delta: NDArray[Any]
    backprop_error: NDArray[Any]
    derivative: NDArray[Any] | None
    weights: NDArray[Any]
    weight_grads: NDArray[Any]
    new_weights: NDArray[Any]
    biases: NDArray[Any]
    bias_grads: NDArray[Any]
    new_biases: NDArray[Any]


@dataclass(frozen=True)
class Round:
    """One forward pass, one backward pass, one update.

    Attributes
    ----------
    inputs : ndarray of shape (n_features,)
        What the first layer reads: after the network's input scaling.
    targets : ndarray of shape (n_outputs,)
    errors : ndarray of shape (n_outputs,)
        Each output's share of the loss.
    loss : float
        Their sum and the penalties, before the update.
    layers : tuple of LayerNumbers
        From the first hidden layer to the output layer.
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]
    errors: NDArray[Any]
    loss: float
    layers: tuple[LayerNumbers, ...]


class Descent:
    """Plain gradient descent of a copy of a network on one sample.

    Parameters
    ----------
    network : Network
        It is not changed.
    x : ndarray of shape (1, n_features)
    y : ndarray of shape (1, n_outputs) or (1,)
    learning_rate : float
    weights : {"original", "updated"}
    train_biases : bool
    """

    def __init__(
        self,
        network: Network,
        x: ArrayLike,
        y: ArrayLike,
        learning_rate: float,
        weights: Weights,
        train_biases: bool,
    ) -> None:
        # On the host, whatever device the network is on: the numbers of one sample are read one by one.
        self.network = network.copy_to(NumpyOps())
        self._x = x
        self._data = self.network.prepare(x, y)
        self._work = TrainingWorkspace(self.network.ops, self.network.spec, 1, with_dropout=False)
        self._learning_rate = learning_rate
        self._weights = weights
        self._n_trained = self.network.n_parameters if train_biases else self.network.n_weights

    def step(self) -> float:
        """Make one round; return the loss before its update."""
        loss = self._gradients()
        self._update()
        return loss

    def recorded_step(self) -> Round:
        """Make one round and return all its numbers."""
        net_inputs = [z[0] for z in self.network.net_inputs(self._x)]
        loss = self._gradients()
        before = self._on_host(self.network.parameters)
        gradients = self._on_host(self._work.gradients.flat)
        self._update()
        after = self._on_host(self.network.parameters)

        outputs = [self._row(a) for a in self._work.a]
        targets = self._row(self._work.y[0])
        deltas = [self._row(delta) for delta in self._work.delta[1:]]
        layers: list[LayerNumbers] = []
        for index in reversed(range(self.network.n_layers)):
            activation = self.network.layer_activations[index]
            z, a = net_inputs[index], outputs[index + 1]
            if not layers:
                error = self.network.loss_function.gradient(a[None], targets[None])[0]
            else:
                above = (after if self._weights == "updated" else before).weights[index + 1]
                error = above @ deltas[index + 1]
            softmax = activation.name == "softmax"
            layers.append(
                LayerNumbers(
                    z=z,
                    activations=a,
                    delta=deltas[index],
                    backprop_error=error,
                    derivative=None if softmax else activation.derivative(activation.source(z, a)),
                    weights=before.weights[index],
                    weight_grads=gradients.weights[index],
                    new_weights=after.weights[index],
                    biases=before.biases[index],
                    bias_grads=gradients.biases[index],
                    new_biases=after.biases[index],
                )
            )
        value = self.network.loss_function.value
        errors = np.array([value(outputs[-1][None, [k]], targets[None, [k]])[0] for k in range(len(targets))])
        return Round(outputs[0], targets, errors, loss, tuple(reversed(layers)))

    def _gradients(self) -> float:
        """Run a forward and a backward pass; return the loss, leave the gradient in the workspace."""
        if self._weights == "updated":
            return _updated_weights_pass(self.network, self._work, self._data, self._learning_rate)
        return _original_weights_pass(self.network, self._work, self._data)

    def _update(self) -> None:
        trained = slice(self._n_trained)  # all weights come first
        self.network.parameters[trained] -= self._learning_rate * self._work.gradients.flat[trained]

    def _row(self, array: Any) -> NDArray[Any]:
        return np.array(self.network.ops.to_numpy(array)[0])

    def _on_host(self, flat: Any) -> Parameters:
        return Parameters(self.network.ops.to_numpy(flat).copy(), self.network.layer_sizes)


def _original_weights_pass(network: Network, work: TrainingWorkspace, data: TrainingData) -> float:
    """The library's own forward and backward pass; return the loss, leave the gradient in `work`."""
    order = network.ops.asarray(np.arange(data.n_samples), np.int32)
    work.totals[...] = 0.0
    whole = Batch(data, order, 0, data.n_samples, data.total_weight)
    step.loss_and_gradients(network.layers, work, whole, dropout_step=None)
    return float(network.ops.to_numpy(work.totals)[0]) / data.total_weight


def _updated_weights_pass(network: Network, work: TrainingWorkspace, data: TrainingData, learning_rate: float) -> float:
    """The same, but each layer's weights are updated before the delta of the layer below is formed with them."""
    ops, gradients = network.ops, work.gradients
    order = ops.asarray(np.arange(data.n_samples), np.int32)
    work.totals[...] = 0.0
    gradients.flat[...] = 0.0
    step.take_batch(network.layers, work, data, order, 0)
    step.forward_pass(network.layers, work)
    step.output_delta(network.layers, work, data, data.total_weight)
    if network.l1 or network.l2:
        ops.add_penalty(network.layers.parameters, gradients, network.l1, network.l2, data.total_weight, work.totals)
    for layer in range(network.n_layers, 0, -1):
        below = layer - 1
        ops.accumulate_gradient(
            work.inputs[below], work.delta[layer], gradients.weights[below], gradients.biases[below], accumulate=True
        )
        if below:
            activation = network.layer_activations[below - 1]
            ops.hidden_delta(
                work.delta[layer],
                network.weights[below] - learning_rate * gradients.weights[below],
                activation,
                activation.source(work.z[below], work.a[below]),
                None,
                work.delta[below],
            )
    return float(ops.to_numpy(work.totals)[0]) / data.total_weight


def updated_weights_gradients(
    network: Network, X: ArrayLike, y: ArrayLike, learning_rate: float = 0.5
) -> tuple[float, list[NDArray[Any]], list[NDArray[Any]]]:
    """Return the loss and the *wrong* gradient that hidden deltas from already updated weights give.

    The gradient of the output layer is right, those of the layers below are not.

    Parameters
    ----------
    network : Network
        It is not changed.
    X : array_like of shape (n_samples, n_features)
    y : array_like of shape (n_samples,) or (n_samples, n_outputs)
    learning_rate : float, default=0.5
        Of the update that happens too early.

    Returns
    -------
    loss, weight_grads, bias_grads
        As from `Network.loss_and_gradients`, so that it can be handed to ``check_gradients(..., gradients=...)``,
        which refuses it.
    """
    data = network.prepare(X, y)
    work = TrainingWorkspace(network.ops, network.spec, data.n_samples, with_dropout=False)
    loss = _updated_weights_pass(network, work, data, learning_rate)
    gradients = Parameters(work.gradients.to_host(network.ops), network.layer_sizes)
    return loss, gradients.weights, gradients.biases
