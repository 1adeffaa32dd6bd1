"""What a fitted estimator shows of its network: weights and biases as views, the device, and its outputs."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted, validate_data

from gpuprop.estimators.samples import validated_inputs
from gpuprop.model.network import Network

__all__ = ["Fitted", "ParameterViews"]

Array = NDArray[Any]

#: gpuprop's names of output activations for which scikit-learn has another name.
_SCIKIT_LEARN_NAMES = {"exponential": "exp"}


class ParameterViews(list[Array]):
    """``coefs_`` and ``intercepts_``: views of the network's parameters; assigning an element writes into it."""

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            for position, one in zip(range(*index.indices(len(self))), value, strict=True):
                self[position] = one
        else:
            self[index][...] = value


class Fitted:
    """The attributes of an estimator that come from its network."""

    network_: Network

    def take_network(self, network: Network) -> None:
        """Take `network` as the fitted model.

        `fit` calls this with a new network; so do `gpuprop.load` and `from_sklearn`.
        """
        self.network_ = network
        self.n_features_in_ = network.layer_sizes[0]
        self.n_outputs_ = network.layer_sizes[-1]
        self.n_layers_ = len(network.layer_sizes)
        name = network.output_activation.name
        self.out_activation_ = _SCIKIT_LEARN_NAMES.get(name, name)

    @property
    def coefs_(self) -> list[Array]:
        """Weights of each layer, (fan_in, fan_out) as writable views on the CPU, as read-only copies from a GPU."""
        network = self._fitted_network("coefs_")
        return _host_views(network, network.weights)

    @coefs_.setter
    def coefs_(self, values: list[Array]) -> None:
        network = self._fitted_network("coefs_")
        for own, value in zip(network.weights, values, strict=True):
            own[...] = network.ops.asarray(value, network.dtype)

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of each layer, (fan_out,) as writable views on the CPU, as read-only copies from a GPU."""
        network = self._fitted_network("intercepts_")
        return _host_views(network, network.biases)

    @intercepts_.setter
    def intercepts_(self, values: list[Array]) -> None:
        network = self._fitted_network("intercepts_")
        for own, value in zip(network.biases, values, strict=True):
            own[...] = network.ops.asarray(value, network.dtype)

    @property
    def device_(self) -> str:
        """The device in use."""
        return self._fitted_network("device_").device_

    @property
    def backend_(self) -> str:
        """The library that computes."""
        return self._fitted_network("backend_").backend_

    def _fitted_network(self, attribute: str) -> Network:
        # check_is_fitted raises another error: an attribute that is not there yet is an AttributeError.
        if "network_" not in vars(self):
            raise AttributeError(f"{type(self).__name__} has no {attribute} before fit")
        return self.network_

    def _forward(self, X: Any) -> Array:
        """Return the network's outputs, (n_samples, n_outputs)."""
        # NumPy's arrays skip scikit-learn's validation, which takes longer than a row; it reports the faults of others.
        if "network_" in vars(self):
            outputs = self.network_.forward_plain(X)
            if outputs is not None:
                if hasattr(self, "feature_names_in_"):  # that the array has no names is worth a warning
                    validate_data(self, X, reset=False, skip_check_array=True)
                return outputs
        check_is_fitted(self)
        return self.network_.forward(validated_inputs(self, X))


def _host_views(network: Network, arrays: list[Any]) -> list[Array]:
    """Return the network's arrays as NumPy arrays; those that are only copies are read-only."""
    views = ParameterViews(network.ops.to_numpy(array) for array in arrays)
    for view, array in zip(views, arrays, strict=True):
        if view is not array:
            view.flags.writeable = False
    return views
