"""Estimators in other forms: model files, scikit-learn's estimators, ONNX graphs, PyTorch's state dicts."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from gpuprop.estimators.described import describe, kind_of, restore_records
from gpuprop.estimators.fitted import Fitted
from gpuprop.model.network import Network
from gpuprop.model.stored_network import save_network
from gpuprop.model.unscaled import folded_network

__all__ = ["Exchange"]

Array = NDArray[Any]

#: scikit-learn's hidden activations.
_SCIKIT_LEARNS = ("identity", "logistic", "tanh", "relu")
#: Fitted attributes that both libraries have under one name.
_COMMON_ATTRIBUTES = (
    "n_features_in_",
    "feature_names_in_",
    "n_layers_",
    "n_outputs_",
    "out_activation_",
    "n_iter_",
    "t_",
    "loss_",
    "best_loss_",
    "loss_curve_",
    "validation_scores_",
    "best_validation_score_",
    "classes_",
    "_label_binarizer",
    "_no_improvement_count",
)


class Exchange(Fitted):
    """The methods that turn an estimator into other forms, and back."""

    def save(self, path: str | Path) -> None:
        """Write the fitted model to a file, which `gpuprop.load` reads, on any machine and in later versions.

        The format is that of ``Network.save``; equal fits give equal bytes. The file holds the model and its records,
        but not `callbacks`, `device`, `emulate` and the state of the optimizer.

        Raises
        ------
        ModelFileError
            If the file cannot be written.
        ValueError
            If a parameter or a label is of a type that a file cannot hold.
        """
        check_is_fitted(self)
        save_network(self.network_, path, kind=kind_of(self), estimator=describe(self))

    # --- scikit-learn ------------------------------------------------------------------------------------------------

    def to_sklearn(self) -> Any:
        """Return scikit-learn's estimator with equal predictions.

        It has no parameters that scikit-learn lacks; in place of a `solver`, `learning_rate` or `loss` that
        scikit-learn does not know it has scikit-learn's default.

        Raises
        ------
        ValueError
            If the hidden layers do not all have the same activation, or one that scikit-learn lacks: its estimator
            could not give the same predictions.
        """
        from sklearn import neural_network

        check_is_fitted(self)
        kind = getattr(neural_network, type(self).__name__)
        activation = _one_of_scikit_learns(self.network_)
        hidden = self.network_.layer_sizes[1:-1]
        known = inspect.signature(kind).parameters
        given = {name: value for name, value in self.get_params(deep=False).items() if name in known}  # type: ignore[attr-defined]
        model = kind(**given | {"activation": activation, "hidden_layer_sizes": hidden})
        if getattr(self, "max_epochs", None) is not None:
            model.set_params(max_iter=self.max_epochs)  # type: ignore[attr-defined]
        for name in ("solver", "learning_rate", "learning_rate_init", "loss"):
            if name in given and not _accepts(model, name):
                model.set_params(**{name: known[name].default})
        for name in _COMMON_ATTRIBUTES:
            if hasattr(self, name):
                setattr(model, name, copy.deepcopy(getattr(self, name)))
        model.coefs_, model.intercepts_ = _copies(self.network_)
        model._best_coefs, model._best_intercepts = _copies(self.network_)
        return model

    @classmethod
    def from_sklearn(cls, model: Any, *, device: str = "auto") -> Self:
        """Return an estimator with the parameters and predictions of a fitted estimator of scikit-learn.

        Parameters
        ----------
        model : sklearn.neural_network.MLPClassifier or MLPRegressor
            A fitted estimator of the class of the same name.
        device : str, default="auto"
        """
        if type(model).__name__ != cls.__name__:
            raise TypeError(f"got {type(model).__name__}, expected scikit-learn's {cls.__name__}")
        check_is_fitted(model)
        constructor: Any = cls
        own = constructor(**model.get_params(deep=False), device=device)
        restore_records(
            own, {name: copy.deepcopy(getattr(model, name)) for name in _COMMON_ATTRIBUTES if hasattr(model, name)}
        )
        sizes = (len(model.coefs_[0]), *(weights.shape[1] for weights in model.coefs_))
        network = own.new_network(sizes, model.coefs_[0].dtype)
        network.set_parameters(np.concatenate([array.ravel() for array in (*model.coefs_, *model.intercepts_)]))
        own.take_network(network)
        fitted: Self = own
        return fitted

    # --- PyTorch -----------------------------------------------------------------------------------------------------

    def to_torch_state_dict(self) -> dict[str, Any]:
        """Return the parameters as the state dict of a ``torch.nn.Sequential`` of linear layers and activations.

        The layers are ``Linear, activation, Linear, ..., Linear``, so the keys are "0.weight" (fan_out, fan_in),
        "0.bias", "2.weight", and so on. There is no output activation, because PyTorch's losses contain it. Needs
        PyTorch.
        """
        import torch

        check_is_fitted(self)
        return {name: torch.from_numpy(array) for name, array in _torch_arrays(self.network_).items()}

    def load_torch_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take the parameters of a ``torch.nn.Sequential``, see `to_torch_state_dict`; the estimator must be fitted.

        Parameters
        ----------
        state : mapping of str to tensors or arrays
            Weights (fan_out, fan_in) and biases of each linear layer, in the order of the layers, under any names.

        Raises
        ------
        ValueError
            If their number or shapes do not match the network.
        """
        check_is_fitted(self)
        arrays = [_as_numpy(tensor) for tensor in state.values()]
        shapes = [array.shape for array in arrays]
        expected = [array.shape for array in _torch_arrays(self.network_).values()]
        if shapes != expected:
            raise ValueError(
                f"got a state dict of shapes {shapes}, expected {expected}: weights and bias of each layer"
            )
        self.coefs_, self.intercepts_ = [array.T for array in arrays[0::2]], arrays[1::2]
        return self

    # --- ONNX --------------------------------------------------------------------------------------------------------

    def to_onnx(self) -> Any:
        """Return the model as an ``onnx.ModelProto``; needs the extra ``gpuprop[onnx]``.

        Its input "X" has shape (n_samples, n_features) and the dtype of the network. The output of a classifier is
        "probabilities", with a column for each class or label as in `predict_proba`; that of a regressor is
        "prediction", (n_samples, n_outputs).

        Raises
        ------
        ValueError
            If a layer has an activation of your own, for which ONNX has no operator.
        """
        from gpuprop.estimators.onnx_graph import build

        check_is_fitted(self)
        return build(self.network_, classifier=is_classifier(self))


def _one_of_scikit_learns(network: Network) -> str:
    names = {activation.name for activation in network.hidden_activations} or {"relu"}
    if len(names) > 1 or not names <= set(_SCIKIT_LEARNS):
        raise ValueError(
            f"got hidden activations {sorted(names)}, expected one of {', '.join(_SCIKIT_LEARNS)} for all layers: "
            "scikit-learn has no others"
        )
    return names.pop()


def _accepts(model: Any, name: str) -> bool:
    """Whether scikit-learn accepts the value of this parameter of `model`."""
    from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints

    try:
        validate_parameter_constraints(
            {name: model._parameter_constraints[name]}, {name: getattr(model, name)}, type(model).__name__
        )
    except InvalidParameterError:
        return False
    return True


def _copies(network: Network) -> tuple[list[Array], list[Array]]:
    """Return weights and biases, batch normalisation folded into them."""
    network = folded_network(network)
    if not network.spec.plain:
        raise ValueError("a network with residual layers has no such form: its weights and biases are not all of it")
    to_numpy = network.ops.to_numpy
    return [to_numpy(w).copy() for w in network.weights], [to_numpy(b).copy() for b in network.biases]


def _torch_arrays(network: Network) -> dict[str, Array]:
    """Return weights (fan_out, fan_in) and biases under PyTorch's names; an activation has every second place."""
    arrays = {}
    for layer, (weights, biases) in enumerate(zip(*_copies(network), strict=True)):
        arrays[f"{2 * layer}.weight"] = np.ascontiguousarray(weights.T)
        arrays[f"{2 * layer}.bias"] = biases
    return arrays


def _as_numpy(tensor: Any) -> Array:
    return np.asarray(tensor.detach().cpu() if hasattr(tensor, "detach") else tensor)
