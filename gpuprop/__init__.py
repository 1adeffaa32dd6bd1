"""gpuprop: backpropagation, made fast and made visible.

Multilayer perceptrons on NVIDIA GPUs and CPUs::

    import gpuprop

    (X, y), (X_test, y_test) = gpuprop.datasets.load_mnist()
    network = gpuprop.Network([784, 128, 10], loss="categorical_cross_entropy")
    gpuprop.Trainer(network, epochs=5).fit(X, y)

Every public name is loaded when it is first used (PEP 562), so that ``import gpuprop`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuprop import (
        activations,
        backends,
        callbacks,
        datasets,
        estimators,
        initializers,
        losses,
        optimizers,
        plots,
        schedules,
        trace,
    )
    from gpuprop.activations import Activation
    from gpuprop.callbacks import Callback
    from gpuprop.errors import (
        BackendUnavailableError,
        DataError,
        DeviceError,
        DeviceMemoryError,
        GpupropError,
        ModelFileError,
        NonFiniteLossError,
    )
    from gpuprop.estimators import MLPClassifier, MLPEnsemble, MLPRegressor, search
    from gpuprop.gradient_check import check_gradients
    from gpuprop.model_io import load
    from gpuprop.network import Network
    from gpuprop.scaling import InputScaling
    from gpuprop.training import Trainer

__version__ = "0.1.0"

__all__ = [
    "Activation",
    "BackendUnavailableError",
    "Callback",
    "DataError",
    "DeviceError",
    "DeviceMemoryError",
    "GpupropError",
    "InputScaling",
    "MLPClassifier",
    "MLPEnsemble",
    "MLPRegressor",
    "ModelFileError",
    "Network",
    "NonFiniteLossError",
    "Trainer",
    "__version__",
    "activations",
    "backends",
    "callbacks",
    "check_gradients",
    "datasets",
    "estimators",
    "initializers",
    "load",
    "losses",
    "optimizers",
    "plots",
    "schedules",
    "search",
    "trace",
]

# Where each public name comes from; the names that are not here are submodules.
_SOURCES = {
    "Activation": "activations.Activation",
    "BackendUnavailableError": "errors.BackendUnavailableError",
    "Callback": "callbacks.Callback",
    "DataError": "errors.DataError",
    "DeviceError": "errors.DeviceError",
    "DeviceMemoryError": "errors.DeviceMemoryError",
    "GpupropError": "errors.GpupropError",
    "InputScaling": "scaling.InputScaling",
    "MLPClassifier": "estimators.MLPClassifier",
    "MLPEnsemble": "estimators.MLPEnsemble",
    "MLPRegressor": "estimators.MLPRegressor",
    "ModelFileError": "errors.ModelFileError",
    "Network": "network.Network",
    "NonFiniteLossError": "errors.NonFiniteLossError",
    "Trainer": "training.Trainer",
    "check_gradients": "gradient_check.check_gradients",
    "load": "model_io.load",
    "search": "estimators.search",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used; afterwards it is an ordinary attribute."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _SOURCES.get(name, name).partition(".")
    value: Any = importlib.import_module(f"{__name__}.{module}")
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
