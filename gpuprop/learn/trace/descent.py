"""Gradient descent on one sample, round by round, with the library's own step; and its ``updated`` variant.

Backpropagation forms all deltas with the weights as they were before the update. The closing digits that texts print
for the worked example come from another computation: it changes the output weights first, and forms the hidden deltas
with the changed weights,

    delta[l] = (delta[l+1] @ (W[l+1] - eta dE/dW[l+1]).T) * f_l'

which is not the gradient of any loss at the weights where it is evaluated. This module computes it so that you can
reproduce those digits and see the mistake; `gpuprop.check_gradients` catches it.
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
    from gpuprop.maths.activations import Activation
    from gpuprop.model.network import Network

__all__ = ["Descent", "DescentRule", "LayerNumbers", "Round", "Weights", "updated_weights_gradients"]

#: The weights with which the hidden deltas are formed.
Weights = Literal["original", "updated"]


@dataclass(frozen=True)
class DescentRule:
    """How a round of gradient descent changes the parameters.

    Attributes
    ----------
    learning_rate : float
    weights : {"original", "updated"}
    train_biases : bool
        Whether the biases are updated too.
    """

    learning_rate: float
    weights: Weights = "original"
    train_biases: bool = False


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
    """The numbers of one forward pass, one backward pass and one update.

    Attributes
    ----------
    inputs : ndarray of shape (n_features,)
        What the first layer reads, after the network's input scaling.
    targets : ndarray of shape (n_outputs,)
    errors : ndarray of shape (n_outputs,)
        Each output's share of the loss.
    loss : float
        The sum of the errors and the penalties, before the update.
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
    rule : DescentRule

    Attributes
    ----------
    network : Network
        The copy, on the host.
    rule : DescentRule
    """

    def __init__(self, network: Network, x: ArrayLike, y: ArrayLike, rule: DescentRule) -> None:
        # The numbers of one sample are read one by one, so they are computed on the host, whatever the device.
        self.network = network.copy_to(NumpyOps())
        self.rule = rule
        self._x, self._y = x, y
        self._data = self.network.prepare(x, y)
        self._work = TrainingWorkspace(self.network.ops, self.network.spec, 1, with_dropout=False)
        self._n_trained = self.network.n_parameters if rule.train_biases else self.network.n_weights

    def loss(self) -> float:
        """Return the loss of the network as it is now."""
        return self.network.loss(self._x, self._y)

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
        # The hidden deltas were formed with these weights of the layers above.
        above = (after if self.rule.weights == "updated" else before).weights
        output_error = self.network.loss_function.gradient(outputs[-1][None], targets[None])[0]
        errors_by_output = [weights @ delta for weights, delta in zip(above[1:], deltas[1:], strict=True)]
        layers = tuple(
            LayerNumbers(
                z=net_inputs[index],
                activations=outputs[index + 1],
                delta=deltas[index],
                backprop_error=error,
                derivative=_derivative(self.network.layer_activations[index], net_inputs[index], outputs[index + 1]),
                weights=before.weights[index],
                weight_grads=gradients.weights[index],
                new_weights=after.weights[index],
                biases=before.biases[index],
                bias_grads=gradients.biases[index],
                new_biases=after.biases[index],
            )
            for index, error in enumerate([*errors_by_output, output_error])
        )
        value = self.network.loss_function.value
        errors = np.array([value(outputs[-1][None, [k]], targets[None, [k]])[0] for k in range(len(targets))])
        return Round(outputs[0], targets, errors, loss, layers)

    def _gradients(self) -> float:
        """Run a forward and a backward pass; return the loss, leave the gradient in the workspace."""
        if self.rule.weights == "updated":
            return _updated_weights_pass(self.network, self._work, self._data, self.rule.learning_rate)
        return _original_weights_pass(self.network, self._work, self._data)

    def _update(self) -> None:
        trained = slice(self._n_trained)  # all weights come first
        self.network.parameters[trained] -= self.rule.learning_rate * self._work.gradients.flat[trained]

    def _row(self, array: Any) -> NDArray[Any]:
        return np.array(self.network.ops.to_numpy(array)[0])

    def _on_host(self, flat: Any) -> Parameters:
        return Parameters(self.network.ops.to_numpy(flat).copy(), self.network.layer_sizes)


def _derivative(activation: Activation, z: NDArray[Any], a: NDArray[Any]) -> NDArray[Any] | None:
    """Return ``da/dz`` of a layer's units; None for softmax."""
    return None if activation.name == "softmax" else activation.derivative(activation.source(z, a))


def _original_weights_pass(network: Network, work: TrainingWorkspace, data: TrainingData) -> float:
    """Run the library's own forward and backward pass; return the loss, leave the gradient in `work`."""
    order = network.ops.asarray(np.arange(data.n_samples), np.int32)
    work.totals[...] = 0.0
    whole = Batch(data, order, 0, data.n_samples, data.total_weight)
    step.loss_and_gradients(network.layers, work, whole, dropout_step=None)
    return float(network.ops.to_numpy(work.totals)[0]) / data.total_weight


def _updated_weights_pass(network: Network, work: TrainingWorkspace, data: TrainingData, learning_rate: float) -> float:
    """Do the same, but update each layer's weights before the delta of the layer below is formed with them."""
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
    """Return the loss and the *wrong* gradient that results if hidden deltas are formed with updated weights.

    The gradient of the output layer is right; those of the layers below are not.

    Parameters
    ----------
    network : Network
        It is not changed.
    X : array_like of shape (n_samples, n_features)
    y : array_like of shape (n_samples,) or (n_samples, n_outputs)
    learning_rate : float, default=0.5
        The learning rate of the update that happens too early.

    Returns
    -------
    loss, weight_grads, bias_grads
        As from `Network.loss_and_gradients`: ``check_gradients(..., gradients=updated_weights_gradients)`` finds the
        mistake.

    Raises
    ------
    ValueError
        If the data do not fit the network.

    Examples
    --------
    >>> import gpuprop
    >>> loss, weight_grads, bias_grads = gpuprop.trace.updated_weights_gradients(*gpuprop.trace.worked_example())
    >>> round(loss, 6)
    0.298371
    """
    data = network.prepare(X, y)
    work = TrainingWorkspace(network.ops, network.spec, data.n_samples, with_dropout=False)
    loss = _updated_weights_pass(network, work, data, learning_rate)
    gradients = Parameters(work.gradients.to_host(network.ops), network.layer_sizes)
    return loss, gradients.weights, gradients.biases
