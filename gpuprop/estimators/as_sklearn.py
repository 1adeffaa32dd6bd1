"""Any model as scikit-learn's own estimator, which a machine without gpuprop can read and use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuprop.estimators.classifier import MLPClassifier
from gpuprop.estimators.regressor import MLPRegressor
from gpuprop.model.unscaled import folded_network, without_scaling

if TYPE_CHECKING:
    from gpuprop.model.network import Network

__all__ = ["sklearn_estimator"]


def sklearn_estimator(network: Network) -> Any:
    """Return scikit-learn's ``MLPClassifier`` or ``MLPRegressor`` with equal predictions for raw inputs.

    A scaling of the inputs and batch normalisation are folded into weights and biases; the network's classes become
    ``classes_``.

    Parameters
    ----------
    network : Network

    Raises
    ------
    ValueError
        If the network computes what scikit-learn's estimators cannot: another hidden activation than identity,
        logistic, tanh and relu, several of them, another output activation, slopes, embeddings or residual
        layers.

    Examples
    --------
    >>> import gpuprop
    >>> net = gpuprop.Network((2, 4, 1), loss="binary_cross_entropy", seed=0, classes=["no", "yes"])
    >>> sklearn_estimator(net).classes_.tolist()
    ['no', 'yes']
    """
    network = folded_network(network)
    if not network.spec.plain:
        raise ValueError("a network with slopes, embeddings or residual layers is none of scikit-learn's")
    n_outputs, loss = network.layer_sizes[-1], network.loss_function.name
    output = network.output_activation.name
    known = {"softmax", "logistic"} if network.is_classifier else {"identity"}
    if output not in known or (network.is_classifier and not network.loss_function.classification):
        raise ValueError(f"got {output} outputs under {loss}, expected {' or '.join(sorted(known))}: scikit-learn's")
    plain = without_scaling(network).to("numpy")
    if network.is_classifier:
        several = network.metric == "labels" and n_outputs > 1
        classes = np.asarray(network.classes or range(max(2, n_outputs)))
        classifier = MLPClassifier(device="numpy")
        classifier.learn_labels(np.array([[0] * n_outputs, [1] * n_outputs]) if several else classes)
        if not several and classifier.classes_.tolist() != classes.tolist():  # scikit-learn keeps classes sorted
            _reorder(plain, np.argsort(classes))
        estimator: MLPClassifier | MLPRegressor = classifier
    else:
        estimator = MLPRegressor(device="numpy")
    estimator.take_network(plain)
    estimator.set_params(hidden_layer_sizes=network.layer_sizes[1:-1])
    return estimator.to_sklearn()


def _reorder(network: Network, order: Any) -> None:
    """Put the outputs into another order; a single output is that of the second class, and is negated."""
    if network.layer_sizes[-1] == 1:
        network.weights[-1][...] *= -1
        network.biases[-1][...] *= -1
        return
    network.weights[-1][...] = network.weights[-1][:, order].copy()
    network.biases[-1][...] = network.biases[-1][order].copy()
